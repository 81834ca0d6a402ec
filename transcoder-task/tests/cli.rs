//! Tests of the program on the command line, with the real FFmpeg. They probe and decode the published files.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod common;

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};

use common::{StreamFolder, clip, corpus, execute, generate, probe, stdout, transcoder};

/// A finished run, and its output folder.
struct Run {
    folder: TempDir,
    stream: StreamFolder,
    code: i32,
    log: String,
}

impl Run {
    fn new(input: &Path) -> Self {
        Self::with_arguments(input, &[])
    }

    fn with_profile(profile: &str, input: &Path) -> Self {
        let file = common::profile(profile);
        Self::with_arguments(input, &["--profile".as_ref(), file.path().as_ref()])
    }

    fn with_arguments(input: &Path, more: &[&OsStr]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let output = transcoder()
            .arg("--input")
            .arg(input)
            .arg("--output")
            .arg(folder.path())
            .args(more)
            .output()
            .unwrap();
        Self {
            stream: StreamFolder(folder.path().to_owned()),
            folder,
            code: output.status.code().unwrap(),
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts success.
    fn complete(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.log);
        assert_eq!(self.report()["outcome"], "complete");
        self
    }

    /// Asserts that the input is rejected. Returns the reason.
    fn rejection(self) -> String {
        assert_eq!(self.code, 65, "{}", self.log);
        let report = self.report();
        assert_eq!(report["outcome"], "rejected");
        assert!(!self.folder.path().join("master.m3u8").exists());
        report["reason"].as_str().unwrap().to_owned()
    }

    fn report(&self) -> Value {
        self.stream.report()
    }

    fn file(&self, path: &str) -> PathBuf {
        self.stream.file(path)
    }

    fn renditions(&self, kind: &str) -> Vec<Value> {
        self.stream.renditions(kind)
    }

    fn master(&self) -> String {
        fs::read_to_string(self.folder.path().join("master.m3u8")).unwrap()
    }

    /// The time at which a file was published.
    fn published(&self, path: &str) -> SystemTime {
        fs::metadata(self.file(path)).unwrap().modified().unwrap()
    }
}

/// An MP4 file of a rendition's init segment and one media segment.
fn segment_alone(rendition: &Path, segment: &str) -> NamedTempFile {
    let file = NamedTempFile::with_suffix(".mp4").unwrap();
    let parts = ["init.mp4", segment].map(|name| fs::read(rendition.join(name)).unwrap());
    fs::write(file.path(), parts.concat()).unwrap();
    file
}

/// The frames of a segment that is decoded alone. The first is a keyframe.
fn frames_alone(rendition: &Path, number: usize) -> Vec<String> {
    let alone = segment_alone(rendition, &format!("seg-{number:05}.m4s"));
    let frames = probe(alone.path(), "v", "frame=key_frame,best_effort_timestamp_time");
    assert!(frames[0].starts_with("1,"), "{}", frames[0]);
    frames
}

const SMALL: &str = "-f lavfi -i testsrc2=size=640x360:rate=25:duration=9.2 \
    -f lavfi -i sine=sample_rate=44100:duration=9.2 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac";

#[test]
fn rungs_have_all_frames_and_segments_decode_alone() {
    let folder = tempfile::tempdir().unwrap();
    let run = Run::new(&clip(&folder, SMALL)).complete();
    assert_eq!(run.stream.rungs(), ["360p", "240p"]);
    let mut starts = Vec::new();
    for (rung, size) in [("360p", "640,360"), ("240p", "426,240")] {
        let rendition = run.file(&format!("video/{rung}"));
        assert_eq!(probe(&rendition.join("index.m3u8"), "v", "stream=width,height"), [size]);
        assert_eq!(probe(&rendition.join("index.m3u8"), "v", "stream=nb_read_frames"), ["230"]);
        let mut first_frames = Vec::new();
        for (number, length) in [12, 13, 25, 50, 100, 30].into_iter().enumerate() {
            let frames = frames_alone(&rendition, number);
            assert_eq!(frames.len(), length);
            first_frames.push(frames[0].clone());
        }
        assert!(!rendition.join("seg-00006.m4s").exists());
        starts.push(first_frames);
    }
    assert_eq!(starts[0], starts[1], "segments of the rungs start at different times");
}

#[test]
fn audio_starts_with_the_video_and_lasts_as_long() {
    let folder = tempfile::tempdir().unwrap();
    let run = Run::new(&clip(&folder, SMALL)).complete();
    let audio = &run.renditions("audio")[0];
    assert_eq!(audio["codecs"], "mp4a.40.2");
    assert!((audio["duration_seconds"].as_f64().unwrap() - 9.2).abs() < 0.05);
    let first = probe(&run.file("audio/und/index.m3u8"), "a", "packet=pts_time");
    assert!(first[0].parse::<f64>().unwrap().abs() < 0.001, "{}", first[0]);
}

#[test]
fn the_poster_is_a_frame_that_is_not_black() {
    let folder = tempfile::tempdir().unwrap();
    let black_first = "-f lavfi -i color=black:size=320x180:rate=10:duration=1 \
        -f lavfi -i testsrc2=size=320x180:rate=10:duration=4 -filter_complex concat=n=2 -pix_fmt yuv420p";
    let run = Run::new(&clip(&folder, black_first)).complete();
    let poster = run.file("images/poster.jpg");
    assert_eq!(probe(&poster, "v", "stream=codec_name,width,height"), ["mjpeg,320,180"]);
    let source = format!("movie={},signalstats", poster.display());
    let arguments = "-v error -f lavfi -show_entries frame_tags=lavfi.signalstats.YAVG -of csv=p=0 -i";
    let brightness = stdout("ffprobe", arguments.split(' ').chain([source.as_str()]));
    assert!(brightness.trim().parse::<f64>().unwrap() > 40.0, "{brightness}");
}

/// Asserts that a rung has the source's frames at the source's times, and no others.
fn assert_same_times(rung: &Path, file: &Path) {
    let (ours, theirs) = times(rung, file);
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert!((ours - theirs).abs() < 0.002, "{ours} {theirs}");
    }
}

/// The times of the frames of a rung and of a file, in seconds from the first one.
fn times(rung: &Path, file: &Path) -> (Vec<f64>, Vec<f64>) {
    let times = |file: &Path| -> Vec<f64> {
        let times = probe(file, "v", "frame=best_effort_timestamp_time");
        let times: Vec<f64> = times.iter().map(|time| time.parse().unwrap()).collect();
        times.iter().map(|time| time - times[0]).collect()
    };
    // Each segment is probed alone, and its times are counted from its first frame. In a whole playlist,
    // FFmpeg before 6 would add the negative composition offsets of all earlier fragments to the times of a
    // fragment.
    let (mut ours, mut start) = (Vec::new(), 0.0);
    let playlist = fs::read_to_string(rung.join("index.m3u8")).unwrap();
    for (length, name) in playlist.lines().zip(playlist.lines().skip(1)) {
        let Some(length) = length.strip_prefix("#EXTINF:") else { continue };
        let alone = segment_alone(rung, name);
        ours.extend(times(alone.path()).into_iter().map(|time| start + time));
        start += length.trim_end_matches(',').parse::<f64>().unwrap();
    }
    (ours, times(file))
}

#[test]
fn variable_frame_rate_keeps_the_time_of_every_frame() {
    let folder = tempfile::tempdir().unwrap();
    let file = clip(
        &folder,
        "-f lavfi -i testsrc2=size=640x480:rate=30:duration=5 -vf select='not(mod(n,7))+lt(n,20)' -fps_mode vfr \
         -pix_fmt yuv420p",
    );
    let run = Run::new(&file).complete();
    for rung in run.stream.rungs() {
        let (ours, theirs) = times(&run.file(&format!("video/{rung}")), &file);
        let near = |one: f64, other: f64| (one - other).abs() < 0.002;
        assert!(
            theirs.iter().all(|theirs| ours.iter().any(|ours| near(*ours, *theirs))),
            "{ours:?} {theirs:?}"
        );
        // Frames are repeated only in gaps.
        for repeat in ours.iter().filter(|ours| !theirs.iter().any(|theirs| near(**ours, *theirs))) {
            let before = theirs.iter().rfind(|theirs| *theirs < repeat).unwrap();
            assert!(repeat - before > 0.19, "{repeat} follows {before}");
        }
    }
}

/// A source that fits a rung, with the GOPs of x264's defaults.
const COPYABLE: &str = "-f lavfi -i testsrc2=size=640x360:rate=25:duration=21 -f lavfi -i sine=duration=21 \
    -c:v libx264 -preset ultrafast -bf 2 -pix_fmt yuv420p -crf 40 -c:a aac -ac 2 -b:a 96k";

/// A rung that the source fits, and a slow one.
const SLOW_RUNG: &str = "[[rung]]\nsize = 360\ncrf = 23\nmax_kbps = 3000\n\
    [[rung]]\nsize = 240\ncrf = 23\nmax_kbps = 600\npreset = \"slower\"\n";

#[test]
fn a_source_that_fits_a_rung_is_copied() {
    let folder = tempfile::tempdir().unwrap();
    let file = clip(&folder, COPYABLE);
    let run = Run::new(&file).complete();
    let rungs = run.renditions("video");
    let facts: Vec<_> =
        rungs.iter().map(|rung| (rung["name"].as_str().unwrap(), rung["copied"] == true)).collect();
    assert_eq!(facts, [("360p", true), ("240p", false)]);
    assert_eq!(run.renditions("audio")[0]["copied"], true);
    // The first GOP is encoded in short segments. All later packets are the source's.
    let hashes = |file: &Path, stream: &str| {
        let file = file.to_str().unwrap();
        let args = ["-v", "error", "-i", file, "-map", stream, "-c", "copy"];
        let hashes = stdout("ffmpeg", args.into_iter().chain(["-f", "framehash", "-hash", "crc32", "-"]));
        let lines = hashes.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.rsplit(',').next().unwrap().trim().to_owned()).collect::<Vec<_>>()
    };
    let (published, sources) = (hashes(&run.file("video/360p/index.m3u8"), "0:v"), hashes(&file, "0:v"));
    assert_eq!(published.len(), sources.len());
    assert_eq!(published[250..], sources[250..]);
    assert!(published[..250].iter().zip(&sources).all(|(published, source)| published != source));
    let frames = |rung: &str| -> Vec<usize> {
        let rendition = run.file(&format!("video/{rung}"));
        let exists = |number: &usize| rendition.join(format!("seg-{number:05}.m4s")).exists();
        (0..).take_while(exists).map(|number| frames_alone(&rendition, number).len()).collect()
    };
    for rung in ["360p", "240p"] {
        assert_eq!(frames(rung), [12, 13, 25, 50, 100, 50, 250, 25]);
        assert_same_times(&run.file(&format!("video/{rung}")), &file);
    }
}

#[test]
fn a_stream_with_long_gops_is_playable_before_the_first_gop_is_encoded() {
    let folder = tempfile::tempdir().unwrap();
    let file = clip(&folder, &format!("{COPYABLE} -t 12"));
    let run = Run::with_profile(SLOW_RUNG, &file).complete();
    assert_eq!(run.renditions("video")[0]["copied"], true);
    let line = run.log.lines().find(|line| line.contains("playable_seconds=")).unwrap();
    let playable: jiff::Timestamp = line.split_whitespace().next().unwrap().parse().unwrap();
    // The last segment of each rendition within the first GOP.
    for last in ["video/360p/seg-00005.m4s", "video/240p/seg-00005.m4s", "audio/und/seg-00005.m4s"] {
        assert!(SystemTime::from(playable) < run.published(last), "{last}");
    }
}

#[test]
fn an_encoded_prefix_does_not_delay_copied_segments() {
    // FFmpeg fills audio that ends early or begins late with silence. It does so late, when it knows the
    // length.
    for audio in ["sine=duration=40", "sine=duration=1", "aevalsrc=0:duration=15,asetpts=PTS+20/TB"] {
        let folder = tempfile::tempdir().unwrap();
        let encoders = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -crf 40 -c:a aac -ac 2 -b:a 96k";
        let video = "-f lavfi -i testsrc2=size=640x360:rate=25:duration=40";
        let run =
            Run::with_profile(SLOW_RUNG, &clip(&folder, &format!("{video} -f lavfi -i {audio} {encoders}")))
                .complete();
        assert_eq!(run.renditions("video")[0]["copied"], true);
        // The first copied segment, which begins at 10 s, and the last segment of the slow rung.
        let (copied, last) = ("video/360p/seg-00006.m4s", "video/240p/seg-00008.m4s");
        assert!(run.published(copied) < run.published(last), "{audio}");
    }
}

#[test]
fn a_source_with_an_invalid_frame_is_encoded_instead() {
    let folder = tempfile::tempdir().unwrap();
    let file = clip(&folder, COPYABLE);
    // A frame of the second GOP is invalid: a copy keeps it, a decoder drops it.
    let frame = probe(&file, "v", "packet=pos,flags")
        .into_iter()
        .filter(|line| !line.contains('K'))
        .nth(300)
        .unwrap();
    let at: usize = frame.split(',').find_map(|field| field.parse().ok()).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[at + 4] = 0x1f;
    fs::write(&file, bytes).unwrap();
    let run = Run::new(&file).complete();
    assert!(run.log.contains("is encoded instead"), "{}", run.log);
    for rung in run.renditions("video") {
        assert_eq!((&rung["copied"], &rung["frames"]), (&false.into(), &524.into()));
    }
}

#[test]
fn long_pauses_between_frames_are_filled() {
    let folder = tempfile::tempdir().unwrap();
    // Screen recordings have such pauses.
    let paused = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=24 -vf select='lt(t,6)+gte(t,18)' \
        -fps_mode vfr -c:v libx264 -preset ultrafast -pix_fmt yuv420p";
    let run = Run::new(&clip(&folder, paused)).complete();
    let rung = &run.renditions("video")[0];
    // The source's 300 frames, and ten repeats per second in the pause of twelve seconds.
    assert_eq!(
        (&rung["copied"], &rung["frames"], &rung["segments"]),
        (&false.into(), &418.into(), &9.into())
    );
}

#[test]
fn a_track_with_one_tick_per_frame_is_copied() {
    let folder = tempfile::tempdir().unwrap();
    let coarse = "-f lavfi -i testsrc2=size=426x240:rate=24:duration=20 -c:v libx264 -preset ultrafast -g 103 \
        -pix_fmt yuv420p -video_track_timescale 24";
    let profile =
        "[[rung]]\nsize = 240\ncrf = 30\nmax_kbps = 9000\n[[rung]]\nsize = 120\ncrf = 30\nmax_kbps = 900";
    let run = Run::with_profile(profile, &clip(&folder, coarse)).complete();
    assert!(!run.log.contains("is encoded instead"), "{}", run.log);
    let copied: Vec<_> = run.renditions("video").iter().map(|rung| rung["copied"] == true).collect();
    assert_eq!(copied, [true, false]);
}

#[test]
fn audio_may_last_longer_than_the_video() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clip.mkv");
    generate(
        &file,
        "-f lavfi -i testsrc2=size=160x120:rate=25:duration=4 -f lavfi -i sine=duration=30 -c:v libx264 \
         -preset ultrafast -pix_fmt yuv420p -c:a aac",
    );
    let report = Run::new(&file).complete().report();
    assert!(report["warnings"].is_null(), "{}", report["warnings"]);
}

#[test]
fn only_requested_formats_are_published() {
    let folder = tempfile::tempdir().unwrap();
    let file = clip(&folder, SMALL);
    let published = |formats: &str| {
        let run = Run::with_profile(&format!("formats = {formats}"), &file).complete();
        let exists = |path: &str| run.folder.path().join(path).exists();
        let segments = run.file("video/360p/seg-00000.m4s").exists();
        let mp4s = run.renditions("mp4");
        let names: Vec<_> = mp4s.iter().map(|file| file["name"].as_str().unwrap().to_owned()).collect();
        for name in &names {
            let file = run.file(&format!("mp4/{name}.mp4"));
            assert_eq!(probe(&file, "v", "stream=nb_read_frames"), ["230"]);
            assert_eq!(probe(&file, "a", "stream=codec_name"), ["aac"]);
        }
        (exists("master.m3u8"), exists("manifest.mpd"), segments, names)
    };
    let files = || vec!["360p".to_owned(), "240p".to_owned()];
    assert_eq!(published(r#"["hls", "dash"]"#), (true, true, true, vec![]));
    assert_eq!(published(r#"["dash"]"#), (false, true, true, vec![]));
    assert_eq!(
        published(r#"["mp4"]"#),
        (false, false, true, files()),
        "segments are the source of MP4 files"
    );
    assert_eq!(published(r#"["hls", "mp4"]"#), (true, false, true, files()));
}

#[test]
fn hevc_and_av1_rungs_have_the_same_segments_as_h264() {
    let folder = tempfile::tempdir().unwrap();
    let rung = |codec: &str| format!("[[rung]]\nsize = 240\ncodec = \"{codec}\"\ncrf = 40\nmax_kbps = 900\n");
    let profile = ["h264", "hevc", "av1"].map(rung).concat();
    let run = Run::with_profile(&profile, &clip(&folder, SMALL)).complete();
    assert_eq!(run.stream.rungs(), ["240p", "240p-hevc", "240p-av1"]);
    for (rendition, codecs) in run.renditions("video").iter().zip(["avc1.", "hvc1.1.6.L", "av01.0."]) {
        assert!(rendition["codecs"].as_str().unwrap().starts_with(codecs), "{rendition}");
        assert_eq!((&rendition["frames"], &rendition["segments"]), (&230.into(), &6.into()));
    }
    let master = run.master();
    let uris: Vec<_> =
        master.lines().filter(|line| line.contains("/video/") && !line.starts_with('#')).collect();
    assert!(uris[0].contains("/video/240p/"), "H.264, which all players support, is first: {master}");
}

#[test]
fn loudness_is_adjusted_to_the_profile() {
    let folder = tempfile::tempdir().unwrap();
    let quiet = "-f lavfi -i sine=frequency=500:duration=6 -af volume=-15dB -ac 2 -c:a aac -b:a 192k";
    let file = clip(&folder, quiet);
    let loudness = |run: &Run| -> f64 {
        let playlist = run.file("audio/und/index.m3u8");
        let args = ["-nostats", "-i", playlist.to_str().unwrap(), "-af", "ebur128", "-f", "null", "-"];
        let log = String::from_utf8(execute("ffmpeg", args).stderr).unwrap();
        let integrated = log.rsplit("I:").next().unwrap().split_whitespace().next().unwrap();
        integrated.parse().unwrap()
    };
    let unchanged = loudness(&Run::new(&file).complete());
    assert!(unchanged < -30.0, "{unchanged}");
    let changed = loudness(&Run::with_profile("loudness = -16", &file).complete());
    assert!((changed + 16.0).abs() < 0.5, "{changed}");
}

#[test]
fn portrait_video_stays_portrait() {
    let folder = tempfile::tempdir().unwrap();
    let file = match corpus("real_rot90_480p.mp4") {
        Some(file) => file,
        None => {
            let flat = clip(&folder, "-f lavfi -i testsrc2=size=640x480:rate=10:duration=2 -pix_fmt yuv420p");
            let rotated = folder.path().join("rotated.mp4");
            generate(&rotated, &format!("-i {} -c copy -metadata:s:v rotate=90", flat.display()));
            rotated
        }
    };
    let run = Run::new(&file).complete();
    assert_eq!(probe(&run.file("video/480p/index.m3u8"), "v", "stream=width,height"), ["480,640"]);
}

#[test]
fn audio_without_video_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let run = Run::new(&clip(&folder, "-f lavfi -i sine=duration=3 -c:a aac")).complete();
    let master = run.master();
    assert!(master.contains("CODECS=\"mp4a.40.2\"") && !master.contains("RESOLUTION"), "{master}");
}

#[test]
fn files_that_are_not_video_are_rejected_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("upload.mp4");
    for (content, expected) in [(&b""[..], "not a video"), (b"just some text\n", "not a video")] {
        fs::write(&file, content).unwrap();
        let reason = Run::new(&file).rejection();
        assert!(reason.contains(expected), "{reason}");
    }
    // Truncated before its index.
    let whole = fs::read(clip(&folder, SMALL)).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let reason = Run::new(&file).rejection();
    assert!(reason.contains("its end is missing"), "{reason}");
}

#[test]
fn a_truncated_file_is_published_up_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(clip(&folder, &format!("{SMALL} -movflags +faststart"))).unwrap();
    let file = folder.path().join("cut.mp4");
    fs::write(&file, &whole[..whole.len() * 8 / 10]).unwrap();
    let run = Run::new(&file).complete();
    let warnings = run.report()["warnings"].to_string();
    assert!(warnings.contains("the file is damaged") && warnings.contains("of 9.2 seconds"), "{warnings}");
    // Silence does not fill the missing end of the video.
    let seconds = |kind: &str| run.renditions(kind)[0]["duration_seconds"].as_f64().unwrap();
    assert!(seconds("audio") < 9.0 && seconds("audio") > seconds("video") - 0.5);
    fs::write(&file, &whole[..whole.len() * 3 / 10]).unwrap();
    let reason = Run::new(&file).rejection();
    assert!(reason.contains("only") && reason.contains("of 9.2 seconds"), "{reason}");
}

#[test]
fn a_playlist_named_as_a_video_opens_no_file_and_no_host() {
    let folder = tempfile::tempdir().unwrap();
    let secret = clip(&folder, "-f lavfi -i testsrc2=size=64x64:rate=10:duration=1 -pix_fmt yuv420p");
    let host = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    host.set_nonblocking(true).unwrap();
    let url = format!("http://{}/a.mp4", host.local_addr().unwrap());
    for target in [format!("file://{}", secret.display()), url] {
        let hls = format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n");
        let concat = format!("ffconcat version 1.0\nfile '{target}'\n");
        for (name, text) in [("hls.mp4", hls), ("concat.mp4", concat)] {
            let file = folder.path().join(name);
            fs::write(&file, text).unwrap();
            let reason = Run::new(&file).rejection();
            assert!(reason.contains("not a"), "{reason}");
        }
    }
    assert_eq!(
        host.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock,
        "the program connected to the host"
    );
}

#[test]
fn invalid_settings_exit_with_78_and_name_the_setting() {
    let nowhere = Path::new("/no/such/video.mp4");
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong.toml");
    fs::write(&wrong, "[[rung]]\nsize = 720\ncrf = 99\nmax_kbps = 900").unwrap();
    for (arguments, expected) in [
        (vec![], "VIDSTREAMX_SOURCE_BUCKET"),
        (vec!["--input", "a.mp4"], "--output"),
        (vec!["--input", "s3:///x", "--output", "out"], "is not a bucket name"),
        (vec!["--input", "a.mp4", "--output", "out", "--profile", "/no/profile.toml"], "/no/profile.toml"),
        (vec!["--input", nowhere.to_str().unwrap(), "--output", "out"], "/no/such/video.mp4"),
        // The task checks the profile before it looks for the object, which does not exist.
        (
            vec!["--input", "s3://none/none.mp4", "--output", "out", "--profile", wrong.to_str().unwrap()],
            "rung[0].crf is 99, expected 0 to 51",
        ),
    ] {
        let output = transcoder().args(arguments).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn termination_stops_ffmpeg_and_exits_with_143() {
    let folder = tempfile::tempdir().unwrap();
    let long = clip(
        &folder,
        "-f lavfi -i testsrc2=size=1920x1080:rate=30:duration=60 -c:v libx264 -preset ultrafast -pix_fmt yuv420p",
    );
    let output = folder.path().join("out");
    let mut child = transcoder().arg("--input").arg(&long).arg("--output").arg(&output).spawn().unwrap();
    let started = Instant::now();
    let inner = |folder: &Path| fs::read_dir(folder).ok()?.next()?.ok().map(|entry| entry.path());
    let job_folder = loop {
        assert!(started.elapsed() < Duration::from_secs(60), "FFmpeg does not start");
        // Wait until FFmpeg has written the init segment.
        let job = inner(&output);
        match job.as_deref().and_then(inner) {
            Some(stream) if stream.join("video/1080p/init.mp4").exists() => break job.unwrap(),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let signalled = Instant::now();
    execute("kill", ["-TERM", &child.id().to_string()]);
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(signalled.elapsed() < Duration::from_secs(20));
    assert!(!job_folder.join("job.json").exists(), "an interrupted job has no report");
    let is_running = || {
        let all = stdout("ps", ["-eo", "args"]);
        all.lines().any(|line| line.starts_with("ffmpeg") && line.contains(long.to_str().unwrap()))
    };
    // The system takes a moment to end a killed process.
    while is_running() {
        assert!(signalled.elapsed() < Duration::from_secs(20), "FFmpeg still runs");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_source_that_changes_between_the_checked_keyframes_is_encoded() {
    let folder = tempfile::tempdir().unwrap();
    let part = |name: &str, size: &str, frames: u32| {
        let file = folder.path().join(name);
        let source = format!("-f lavfi -i color=gray:size={size}:rate=25 -frames:v {frames}");
        generate(&file, &format!("{source} -c:v libx264 -preset ultrafast -g 1 -pix_fmt yuv420p"));
        file.display().to_string()
    };
    // Every second keyframe of these 103 is checked before the plan.
    let (many, one) = (part("many.ts", "426x240", 51), part("one.ts", "240x426", 1));
    let run = Run::new(&clip(&folder, &format!("-i concat:{many}|{one}|{many} -c copy"))).complete();
    assert!(run.log.contains("cannot be copied and is encoded instead"), "{}", run.log);
    let rung = run.file("video/240p/index.m3u8");
    assert_eq!(probe(&rung, "v", "stream=width,height,nb_read_frames"), ["426,240,103"]);
}

#[test]
fn a_turned_phone_gets_bars() {
    let folder = tempfile::tempdir().unwrap();
    let part = |name: &str, size: &str| {
        let file = folder.path().join(name);
        let source = format!("-f lavfi -i color=white:size={size}:rate=25:duration=2");
        generate(&file, &format!("{source} -c:v libvpx -deadline realtime -g 25"));
        file
    };
    let (upright, turned) = (part("0.webm", "240x320"), part("1.webm", "320x240"));
    let list = folder.path().join("list.txt");
    fs::write(&list, format!("file '{}'\nfile '{}'\n", upright.display(), turned.display())).unwrap();
    let source = folder.path().join("call.webm");
    generate(&source, &format!("-f concat -safe 0 -i {} -c copy", list.display()));
    let run = Run::new(&source).complete();
    assert_eq!(run.stream.rungs(), ["240p"]);
    let rung = run.file("video/240p/index.m3u8");
    assert_eq!(probe(&rung, "v", "stream=width,height"), ["240,320"]);
    // The luma of the picture's top: white, and then a bar.
    let tops = |frame: u32| {
        let select = format!("select=eq(n\\,{frame}),format=gray,crop=2:2:120:20");
        let output = ["-v", "error", "-i", rung.to_str().unwrap(), "-vf", &select, "-frames:v", "1"];
        execute("ffmpeg", output.into_iter().chain(["-f", "rawvideo", "-"])).stdout[0]
    };
    assert!(tops(10) > 230 && tops(80) < 25, "{} {}", tops(10), tops(80));
}
