//! The program as a person runs it: real files in, real FFmpeg, every output probed and decoded again.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

fn transcoder(arguments: &[&OsStr]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_transcoder-task"))
        .args(arguments)
        .env_clear()
        .env("PATH", path())
        .output()
        .unwrap()
}

fn path() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap()
}

/// A folder that an input was transcoded into.
struct Made {
    folder: TempDir,
    code: i32,
    log: String,
}

impl Made {
    fn of(input: &Path) -> Self {
        Self::with(input, &[])
    }

    /// Made under a profile of this text.
    fn under(profile: &str, input: &Path) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), profile).unwrap();
        Self::with(input, &["--profile".as_ref(), file.path().as_ref()])
    }

    fn with(input: &Path, more: &[&OsStr]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments: [&OsStr; 4] =
            ["--input".as_ref(), input.as_ref(), "--output".as_ref(), folder.path().as_ref()];
        let output = transcoder(&[&arguments, more].concat());
        Self {
            folder,
            code: output.status.code().unwrap(),
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn report(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.folder.path().join("job.json")).unwrap()).unwrap()
    }

    fn done(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.log);
        assert_eq!(self.report()["outcome"], "complete");
        self
    }

    fn reason_for(self, code: i32) -> String {
        assert_eq!(self.code, code, "{}", self.log);
        let report = self.report();
        assert_eq!(report["outcome"], "rejected");
        assert!(!self.folder.path().join("master.m3u8").exists());
        report["reason"].as_str().unwrap().to_owned()
    }

    fn own(&self, path: &str) -> PathBuf {
        self.folder.path().join(self.report()["folder"].as_str().unwrap()).join(path)
    }

    fn rungs(&self) -> Vec<String> {
        let video = self.renditions("video").into_iter();
        video.map(|rendition| rendition["name"].as_str().unwrap().to_owned()).collect()
    }

    fn renditions(&self, kind: &str) -> Vec<Value> {
        let report = self.report();
        let renditions = report["renditions"].as_array().unwrap().iter();
        renditions.filter(|rendition| rendition["kind"] == kind).cloned().collect()
    }

    fn master(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("master.m3u8")).unwrap()
    }
}

/// A file of the corpus, if it is there.
fn corpus(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("VIDSTREAMX_CORPUS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"), PathBuf::from);
    Some(folder.join(name)).filter(|file| file.exists())
}

/// A clip made on the spot.
fn clip(folder: &TempDir, arguments: &str) -> PathBuf {
    let file = folder.path().join("clip.mp4");
    run("ffmpeg", format!("-loglevel error {arguments} {}", file.display()).split_whitespace());
    file
}

fn run<'a>(program: &str, arguments: impl IntoIterator<Item = &'a str>) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// One value per line of ffprobe's answer.
fn ask(file: &Path, selector: &str, entries: &str) -> Vec<String> {
    let file = file.to_str().unwrap();
    let arguments = ["-v", "error", "-select_streams", selector, "-count_frames"];
    let answer =
        run("ffprobe", arguments.into_iter().chain(["-show_entries", entries, "-of", "csv=p=0", file]));
    let mut lines: Vec<_> = answer
        .lines()
        .map(|line| line.trim_end_matches(',').to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    if entries.starts_with("stream") {
        // A playlist's stream is listed once more under its program.
        lines.dedup();
    }
    lines
}

const SMALL: &str = "-f lavfi -i testsrc2=size=640x360:rate=25:duration=9.2 \
    -f lavfi -i sine=sample_rate=44100:duration=9.2 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac";

#[test]
fn every_frame_of_every_rung_is_there_and_segments_decode_alone() {
    let folder = tempfile::tempdir().unwrap();
    let made = Made::of(&clip(&folder, SMALL)).done();
    assert_eq!(made.rungs(), ["360p", "240p"]);
    let mut starts = Vec::new();
    for (rung, size) in [("360p", "640,360"), ("240p", "426,240")] {
        let rendition = made.own(&format!("video/{rung}"));
        assert_eq!(ask(&rendition.join("index.m3u8"), "v", "stream=width,height"), [size]);
        assert_eq!(ask(&rendition.join("index.m3u8"), "v", "stream=nb_read_frames"), ["230"]);
        let mut first_frames = Vec::new();
        for (number, length) in [12, 13, 25, 50, 100, 30].into_iter().enumerate() {
            let alone = folder.path().join("alone.mp4");
            let mut bytes = std::fs::read(rendition.join("init.mp4")).unwrap();
            bytes.extend(std::fs::read(rendition.join(format!("seg-{number:05}.m4s"))).unwrap());
            std::fs::write(&alone, bytes).unwrap();
            let frames = ask(&alone, "v", "frame=key_frame,best_effort_timestamp_time");
            assert_eq!(frames.len(), length);
            assert!(frames[0].starts_with("1,"), "{}", frames[0]);
            first_frames.push(frames[0].clone());
        }
        assert!(!rendition.join("seg-00006.m4s").exists());
        starts.push(first_frames);
    }
    assert_eq!(starts[0], starts[1], "rungs cut at different instants");
}

#[test]
fn sound_begins_with_the_picture_and_lasts_as_long() {
    let folder = tempfile::tempdir().unwrap();
    let made = Made::of(&clip(&folder, SMALL)).done();
    let report = made.report();
    let audio = report["renditions"].as_array().unwrap().iter().find(|r| r["kind"] == "audio").unwrap();
    assert_eq!(audio["codecs"], "mp4a.40.2");
    assert!((audio["duration_seconds"].as_f64().unwrap() - 9.2).abs() < 0.05);
    let first = ask(&made.own("audio/und/index.m3u8"), "a", "packet=pts_time");
    assert!(first[0].parse::<f64>().unwrap().abs() < 0.001, "{}", first[0]);
}

#[test]
fn the_poster_is_a_picture_of_the_video() {
    let folder = tempfile::tempdir().unwrap();
    let black_first = "-f lavfi -i color=black:size=320x180:rate=10:duration=1 \
        -f lavfi -i testsrc2=size=320x180:rate=10:duration=4 -filter_complex concat=n=2 -pix_fmt yuv420p";
    let made = Made::of(&clip(&folder, black_first)).done();
    let poster = made.own("images/poster.jpg");
    assert_eq!(ask(&poster, "v", "stream=codec_name,width,height"), ["mjpeg,320,180"]);
    let source = format!("movie={},signalstats", poster.display());
    let brightness = run(
        "ffprobe",
        [
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            &source,
            "-show_entries",
            "frame_tags=lavfi.signalstats.YAVG",
            "-of",
            "csv=p=0",
        ],
    );
    assert!(brightness.trim().parse::<f64>().unwrap() > 40.0, "{brightness}");
}

/// A rung in this folder has as many frames as the file, at the same times.
fn same_times(rung: &Path, file: &Path) {
    let times = |file: &Path| -> Vec<f64> {
        let times = ask(file, "v", "frame=best_effort_timestamp_time");
        let times: Vec<f64> = times.iter().map(|time| time.parse().unwrap()).collect();
        times.iter().map(|time| time - times[0]).collect()
    };
    // Of each segment since its first frame: FFmpeg before 6 reports times of fragments whose composition
    // offsets are negative (as ours) late, by as much as the offsets that it has seen so far.
    let alone = tempfile::NamedTempFile::with_suffix(".mp4").unwrap();
    let init = std::fs::read(rung.join("init.mp4")).unwrap();
    let (mut ours, mut start) = (Vec::new(), 0.0);
    let playlist = std::fs::read_to_string(rung.join("index.m3u8")).unwrap();
    for (length, name) in playlist.lines().zip(playlist.lines().skip(1)) {
        let Some(length) = length.strip_prefix("#EXTINF:") else { continue };
        let segment = std::fs::read(rung.join(name)).unwrap();
        std::fs::write(alone.path(), [init.clone(), segment].concat()).unwrap();
        ours.extend(times(alone.path()).into_iter().map(|time| start + time));
        start += length.trim_end_matches(',').parse::<f64>().unwrap();
    }
    let theirs = times(file);
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert!((ours - theirs).abs() < 0.002, "{ours} {theirs}");
    }
}

#[test]
fn variable_frame_rate_keeps_every_frame_at_its_own_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = match corpus("real_terminal_recording_480p.mp4") {
        Some(file) => file,
        None => clip(
            &folder,
            "-f lavfi -i testsrc2=size=640x480:rate=30:duration=5 -vf select='not(mod(n,7))+lt(n,20)' -fps_mode vfr -pix_fmt yuv420p",
        ),
    };
    let frames = ask(&file, "v", "stream=nb_read_frames");
    let made = Made::of(&file).done();
    for rung in made.rungs() {
        let playlist = made.own(&format!("video/{rung}/index.m3u8"));
        assert_eq!(ask(&playlist, "v", "stream=nb_read_frames"), frames);
        same_times(&made.own(&format!("video/{rung}")), &file);
    }
}

/// Four GOPs as x264 makes them without being told otherwise, at a rung's size.
const COPYABLE: &str = "-f lavfi -i testsrc2=size=640x360:rate=25:duration=21 -f lavfi -i sine=duration=21 \
    -c:v libx264 -preset ultrafast -bf 2 -pix_fmt yuv420p -crf 40 -c:a aac -ac 2 -b:a 96k";

#[test]
fn what_a_rung_wants_is_published_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = clip(&folder, COPYABLE);
    let made = Made::of(&file).done();
    let rungs = made.renditions("video");
    let facts: Vec<_> =
        rungs.iter().map(|rung| (rung["name"].as_str().unwrap(), rung["copied"] == true)).collect();
    assert_eq!(facts, [("360p", true), ("240p", false)]);
    assert_eq!(made.renditions("audio")[0]["copied"], true);
    // Behind the first of its groups of pictures, instead of which there are short segments, every packet is
    // the source's.
    let hashes = |file: &Path, stream: &str| {
        let file = file.to_str().unwrap();
        let args = ["-v", "error", "-i", file, "-map", stream, "-c", "copy"];
        let hashes = run("ffmpeg", args.into_iter().chain(["-f", "framehash", "-hash", "crc32", "-"]));
        let lines = hashes.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.rsplit(',').next().unwrap().trim().to_owned()).collect::<Vec<_>>()
    };
    let (published, sources) = (hashes(&made.own("video/360p/index.m3u8"), "0:v"), hashes(&file, "0:v"));
    assert_eq!(published.len(), sources.len());
    assert_eq!(published[250..], sources[250..]);
    assert!(published[..250].iter().zip(&sources).all(|(published, source)| published != source));
    let frames = |rung: &str| {
        let rendition = made.own(&format!("video/{rung}"));
        let segments = (0..).map(|number| rendition.join(format!("seg-{number:05}.m4s")));
        segments
            .take_while(|segment| segment.exists())
            .map(|segment| {
                let alone = folder.path().join("alone.mp4");
                let init = std::fs::read(rendition.join("init.mp4")).unwrap();
                std::fs::write(&alone, [init, std::fs::read(segment).unwrap()].concat()).unwrap();
                let frames = ask(&alone, "v", "frame=key_frame,best_effort_timestamp_time");
                assert!(frames[0].starts_with("1,"), "{}", frames[0]);
                frames.len()
            })
            .collect::<Vec<_>>()
    };
    for rung in ["360p", "240p"] {
        assert_eq!(frames(rung), [12, 13, 25, 50, 100, 50, 250, 25]);
        same_times(&made.own(&format!("video/{rung}")), &file);
    }
}

#[test]
fn a_source_of_long_groups_of_pictures_is_playable_long_before_the_first_one_is_encoded() {
    let folder = tempfile::tempdir().unwrap();
    let file = clip(&folder, &format!("{COPYABLE} -t 12"));
    let slow = "[[rung]]\nsize = 360\ncrf = 23\nmax_kbps = 3000\n\
        [[rung]]\nsize = 240\ncrf = 23\nmax_kbps = 600\npreset = \"slower\"\n";
    let made = Made::under(slow, &file).done();
    assert_eq!(made.renditions("video")[0]["copied"], true);
    let line = made.log.lines().find(|line| line.contains("playable_seconds=")).unwrap();
    let playable: jiff::Timestamp = line.split_whitespace().next().unwrap().parse().unwrap();
    let published = |path: &str| {
        jiff::Timestamp::try_from(std::fs::metadata(made.own(path)).unwrap().modified().unwrap()).unwrap()
    };
    // The last of those that are as long as the first group of pictures.
    for last in ["video/360p/seg-00005.m4s", "video/240p/seg-00005.m4s", "audio/und/seg-00005.m4s"] {
        assert!(playable < published(last), "{last}");
    }
}

#[test]
fn what_is_encoded_in_front_of_a_copied_rung_holds_nothing_up() {
    let slow = "[[rung]]\nsize = 360\ncrf = 23\nmax_kbps = 3000\n\
        [[rung]]\nsize = 240\ncrf = 23\nmax_kbps = 600\npreset = \"slower\"\n";
    // Sound that is over at once, or begins late, is there late: the silence around it comes when the rest is
    // known.
    for sound in ["sine=duration=40", "sine=duration=1", "aevalsrc=0:duration=15,asetpts=PTS+20/TB"] {
        let folder = tempfile::tempdir().unwrap();
        let encoders = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -crf 40 -c:a aac -ac 2 -b:a 96k";
        let pictures = "-f lavfi -i testsrc2=size=640x360:rate=25:duration=40";
        let made =
            Made::under(slow, &clip(&folder, &format!("{pictures} -f lavfi -i {sound} {encoders}"))).done();
        assert_eq!(made.renditions("video")[0]["copied"], true);
        let published = |path: &str| std::fs::metadata(made.own(path)).unwrap().modified().unwrap();
        // The first that is the source's own, from 10 s on, and the last one.
        assert!(published("video/360p/seg-00006.m4s") < published("video/240p/seg-00008.m4s"), "{sound}");
    }
}

#[test]
fn a_source_whose_frames_are_not_what_its_index_says_is_encoded_instead() {
    let folder = tempfile::tempdir().unwrap();
    let file = clip(&folder, COPYABLE);
    // A frame in the second group of pictures is none: a copy carries it, a decoder drops it.
    let frame =
        ask(&file, "v", "packet=pos,flags").into_iter().filter(|line| !line.contains('K')).nth(300).unwrap();
    let at: usize = frame.split(',').find_map(|field| field.parse().ok()).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[at + 4] = 0x1f;
    std::fs::write(&file, bytes).unwrap();
    let made = Made::of(&file).done();
    assert!(made.log.contains("is encoded instead"), "{}", made.log);
    for rung in made.renditions("video") {
        assert_eq!((&rung["copied"], &rung["frames"]), (&false.into(), &524.into()));
    }
}

#[test]
fn a_pause_between_frames_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    // As screens are recorded: nothing for 12 s. High 10, so that no rung is copied.
    let paused = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=24 -vf select='lt(t,6)+gte(t,18)' \
        -fps_mode vfr -c:v libx264 -preset ultrafast -pix_fmt yuv420p10le";
    let made = Made::of(&clip(&folder, paused)).done();
    let rung = &made.renditions("video")[0];
    assert_eq!((&rung["frames"], &rung["segments"]), (&300.into(), &7.into()), "none between 6 s and 18 s");
}

#[test]
fn a_clock_of_one_tick_per_frame_is_fine_enough() {
    let folder = tempfile::tempdir().unwrap();
    let coarse = "-f lavfi -i testsrc2=size=426x240:rate=24:duration=20 -c:v libx264 -preset ultrafast -g 103 \
        -pix_fmt yuv420p -video_track_timescale 24";
    let profile =
        "[[rung]]\nsize = 240\ncrf = 30\nmax_kbps = 9000\n[[rung]]\nsize = 120\ncrf = 30\nmax_kbps = 900";
    let made = Made::under(profile, &clip(&folder, coarse)).done();
    assert!(!made.log.contains("is encoded instead"), "{}", made.log);
    let copied: Vec<_> = made.renditions("video").iter().map(|rung| rung["copied"] == true).collect();
    assert_eq!(copied, [true, false]);
}

#[test]
fn sound_may_last_longer_than_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clip.mkv");
    let arguments = format!(
        "-loglevel error -f lavfi -i testsrc2=size=160x120:rate=25:duration=4 -f lavfi -i sine=duration=30 \
         -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac {}",
        file.display()
    );
    run("ffmpeg", arguments.split_whitespace());
    let report = Made::of(&file).done().report();
    assert!(report["warnings"].is_null(), "{}", report["warnings"]);
}

#[test]
fn every_format_is_made_on_request_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = clip(&folder, SMALL);
    let of = |formats: &str| {
        let made = Made::under(&format!("formats = {formats}"), &file).done();
        let exists = |path: &str| made.folder.path().join(path).exists();
        let segments = made.own("video/360p/seg-00000.m4s").exists();
        let mp4s = made.renditions("mp4");
        let names: Vec<_> = mp4s.iter().map(|file| file["name"].as_str().unwrap().to_owned()).collect();
        for name in &names {
            let file = made.own(&format!("mp4/{name}.mp4"));
            assert_eq!(ask(&file, "v", "stream=nb_read_frames"), ["230"]);
            assert_eq!(ask(&file, "a", "stream=codec_name"), ["aac"]);
        }
        (exists("master.m3u8"), exists("manifest.mpd"), segments, names)
    };
    let files = || vec!["360p".to_owned(), "240p".to_owned()];
    assert_eq!(of(r#"["hls", "dash"]"#), (true, true, true, vec![]));
    assert_eq!(of(r#"["dash"]"#), (false, true, true, vec![]));
    assert_eq!(of(r#"["mp4"]"#), (false, false, true, files()), "which are made of segments");
    assert_eq!(of(r#"["hls", "mp4"]"#), (true, false, true, files()));
}

#[test]
fn hevc_and_av1_rungs_have_the_same_segments_as_h264() {
    let folder = tempfile::tempdir().unwrap();
    let rung = |codec: &str| format!("[[rung]]\nsize = 240\ncodec = \"{codec}\"\ncrf = 40\nmax_kbps = 900\n");
    let profile = ["h264", "hevc", "av1"].map(rung).concat();
    let made = Made::under(&profile, &clip(&folder, SMALL)).done();
    assert_eq!(made.rungs(), ["240p", "240p-hevc", "240p-av1"]);
    for (rendition, codecs) in made.renditions("video").iter().zip(["avc1.", "hvc1.1.6.L", "av01.0."]) {
        assert!(rendition["codecs"].as_str().unwrap().starts_with(codecs), "{rendition}");
        assert_eq!((&rendition["frames"], &rendition["segments"]), (&230.into(), &6.into()));
    }
    let master = made.master();
    let uris: Vec<_> =
        master.lines().filter(|line| line.contains("/video/") && !line.starts_with('#')).collect();
    assert!(uris[0].contains("/video/240p/"), "the one that every player takes is first: {master}");
}

#[test]
fn loudness_is_brought_to_what_the_profile_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let quiet = "-f lavfi -i sine=frequency=500:duration=6 -af volume=-15dB -ac 2 -c:a aac -b:a 192k";
    let file = clip(&folder, quiet);
    let loudness = |made: &Made| -> f64 {
        let playlist = made.own("audio/und/index.m3u8");
        let args = ["-nostats", "-i", playlist.to_str().unwrap(), "-af", "ebur128", "-f", "null", "-"];
        let output = Command::new("ffmpeg").args(args).output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        let integrated = log.rsplit("I:").next().unwrap().split_whitespace().next().unwrap();
        integrated.parse().unwrap()
    };
    let untouched = loudness(&Made::of(&file).done());
    assert!(untouched < -30.0, "{untouched}");
    let changed = loudness(&Made::under("loudness = -16", &file).done());
    assert!((changed + 16.0).abs() < 0.5, "{changed}");
}

#[test]
fn portrait_stays_portrait() {
    let folder = tempfile::tempdir().unwrap();
    let file = match corpus("real_rot90_480p.mp4") {
        Some(file) => file,
        None => {
            let flat = clip(&folder, "-f lavfi -i testsrc2=size=640x480:rate=10:duration=2 -pix_fmt yuv420p");
            let turned = folder.path().join("turned.mp4");
            let (flat, to) = (flat.to_str().unwrap(), turned.to_str().unwrap());
            run("ffmpeg", ["-loglevel", "error", "-i", flat, "-c", "copy", "-metadata:s:v", "rotate=90", to]);
            turned
        }
    };
    let made = Made::of(&file).done();
    assert_eq!(ask(&made.own("video/480p/index.m3u8"), "v", "stream=width,height"), ["480,640"]);
}

#[test]
fn sound_alone_is_a_stream_too() {
    let folder = tempfile::tempdir().unwrap();
    let made = Made::of(&clip(&folder, "-f lavfi -i sine=duration=3 -c:a aac")).done();
    let master = made.master();
    assert!(master.contains("CODECS=\"mp4a.40.2\"") && !master.contains("RESOLUTION"), "{master}");
}

#[test]
fn what_is_no_video_is_refused_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("upload.mp4");
    for (content, expected) in [(&b""[..], "not a video"), (b"just some text\n", "not a video")] {
        std::fs::write(&file, content).unwrap();
        let reason = Made::of(&file).reason_for(65);
        assert!(reason.contains(expected), "{reason}");
    }
    // Cut off before its index.
    let whole = std::fs::read(clip(&folder, SMALL)).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let reason = Made::of(&file).reason_for(65);
    assert!(reason.contains("its end is missing"), "{reason}");
}

#[test]
fn a_file_cut_in_the_middle_is_published_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(clip(&folder, &format!("{SMALL} -movflags +faststart"))).unwrap();
    let file = folder.path().join("cut.mp4");
    std::fs::write(&file, &whole[..whole.len() * 8 / 10]).unwrap();
    let made = Made::of(&file).done();
    let warnings = made.report()["warnings"].to_string();
    assert!(warnings.contains("the file is damaged") && warnings.contains("of 9.2 seconds"), "{warnings}");
    // The silence that would have filled the picture to its end does not outlast what is left of it.
    let seconds = |kind: &str| made.renditions(kind)[0]["duration_seconds"].as_f64().unwrap();
    assert!(seconds("audio") < 9.0 && seconds("audio") > seconds("video") - 0.5);
    std::fs::write(&file, &whole[..whole.len() * 3 / 10]).unwrap();
    let reason = Made::of(&file).reason_for(65);
    assert!(reason.contains("only") && reason.contains("of 9.2 seconds"), "{reason}");
}

#[test]
fn a_playlist_named_like_a_video_reaches_no_file_and_no_host() {
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
            std::fs::write(&file, text).unwrap();
            let reason = Made::of(&file).reason_for(65);
            assert!(reason.contains("not a"), "{reason}");
        }
    }
    assert_eq!(host.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "the host was reached");
}

#[test]
fn wrong_settings_end_with_78_and_name_the_setting() {
    let nowhere = Path::new("/no/such/video.mp4");
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong.toml");
    std::fs::write(&wrong, "[[rung]]\nsize = 720\ncrf = 99\nmax_kbps = 900").unwrap();
    for (arguments, expected) in [
        (vec![], "VIDSTREAMX_SOURCE_BUCKET"),
        (vec!["--input", "a.mp4"], "--output"),
        (vec!["--input", "s3:///x", "--output", "out"], "is not a bucket name"),
        (vec!["--input", "a.mp4", "--output", "out", "--profile", "/no/profile.toml"], "/no/profile.toml"),
        (vec!["--input", nowhere.to_str().unwrap(), "--output", "out"], "/no/such/video.mp4"),
        // Said before anything is read: there is no such object.
        (
            vec!["--input", "s3://none/none.mp4", "--output", "out", "--profile", wrong.to_str().unwrap()],
            "rung[0].crf is 99, expected 0 to 51",
        ),
    ] {
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        let output = transcoder(&arguments);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{complaint}");
        assert!(complaint.contains(expected), "{complaint}");
    }
}

#[test]
fn a_termination_ends_ffmpeg_too_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let long = clip(
        &folder,
        "-f lavfi -i testsrc2=size=1920x1080:rate=30:duration=60 -c:v libx264 -preset ultrafast -pix_fmt yuv420p",
    );
    let output = folder.path().join("out");
    let mut child = Command::new(env!("CARGO_BIN_EXE_transcoder-task"))
        .args(["--input".as_ref(), long.as_os_str(), "--output".as_ref(), output.as_os_str()])
        .spawn()
        .unwrap();
    let started = Instant::now();
    let inner = |folder: &Path| std::fs::read_dir(folder).ok()?.next()?.ok().map(|entry| entry.path());
    let own = loop {
        assert!(started.elapsed() < Duration::from_secs(60), "FFmpeg does not begin");
        // The init segment shows that FFmpeg runs.
        let job = inner(&output);
        match job.as_deref().and_then(inner) {
            Some(stream) if stream.join("video/1080p/init.mp4").exists() => break job.unwrap(),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let asked = Instant::now();
    run("kill", ["-TERM", &child.id().to_string()]);
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(asked.elapsed() < Duration::from_secs(20));
    assert!(!own.join("job.json").exists(), "an interrupted job has no end to report");
    let runs = || {
        let all = run("ps", ["-eo", "args"]);
        all.lines().any(|line| line.starts_with("ffmpeg") && line.contains(long.to_str().unwrap()))
    };
    // It was killed, and may take the system a moment to go.
    while runs() {
        assert!(asked.elapsed() < Duration::from_secs(20), "FFmpeg goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
}
