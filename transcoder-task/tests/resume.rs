//! Attempts that are killed, and what the next ones make of what they left: every frame once, sound without a
//! gap.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test's helpers fail the test and say how it began"
)]

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::{BuildHasher, Hasher},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Frames whose first line of blocks is their number in binary, and a tone that rises, so that no moment
/// sounds like another.
const PICTURE: &str = "geq=lum='if(mod(floor(N/pow(2,X)),2),235,16)':cb=128:cr=128,\
                       scale=640:480:flags=neighbor,noise=alls=12:allf=t";
const SOUND: &str = "aevalsrc='0.4*sin(2*PI*(200*t+8*t*t))':sample_rate=44100";
/// Small rungs, short segments, and slow enough to be killed.
const PROFILE: &str = "segment_seconds = 1.0\nformats = [\"hls\", \"dash\", \"mp4\"]\n\
    [[rung]]\nsize = 480\ncrf = 23\nmax_kbps = 3000\npreset = \"medium\"\n\
    [[rung]]\nsize = 240\ncrf = 23\nmax_kbps = 600\npreset = \"slower\"\n";

struct Place {
    folder: TempDir,
    input: PathBuf,
    profile: PathBuf,
}

impl Place {
    /// A source of 400 frames, 25 a second.
    fn new(encoders: &str) -> Self {
        Self::of(25.0, encoders, PROFILE)
    }

    fn of(frame_rate: f64, encoders: &str, profile: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("source.mp4");
        let texts = folder.path().join("texts.vtt");
        let cue = |second| format!("00:{second:02}.100 --> 00:{second:02}.900\nText {second}\n\n");
        fs::write(&texts, format!("WEBVTT\n\n{}", (0..16).map(cue).collect::<String>())).unwrap();
        let texts = texts.display();
        let arguments = format!(
            "-loglevel error -f lavfi -i color=black:size=16x12:rate={frame_rate},{PICTURE} -f lavfi -i {SOUND} \
             -i {texts} -map 0 -map 1 -map 2 -t {} -c:s mov_text {encoders}",
            399.9 / frame_rate
        );
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(arguments.split_whitespace()).arg(&input);
        assert!(ffmpeg.status().unwrap().success());
        let file = folder.path().join("profile.toml");
        fs::write(&file, profile).unwrap();
        Self { folder, input, profile: file }
    }

    fn output(&self, name: &str) -> Output {
        Output(self.folder.path().join(name))
    }

    fn start(&self, output: &Output) -> Task {
        fs::create_dir_all(&output.0).unwrap();
        let log = output.0.join("log");
        let file = fs::File::options().create(true).append(true).open(&log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_transcoder-task"))
            .arg("--input")
            .arg(&self.input)
            .arg("--output")
            .arg(output.0.join("stream"))
            .arg("--profile")
            .arg(&self.profile)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .stderr(Stdio::from(file))
            .spawn()
            .unwrap();
        Task { child, log }
    }

    /// Runs to the end without being disturbed.
    fn finish(&self, output: &Output) {
        let mut task = self.start(output);
        let code = task.child.wait().unwrap().code();
        assert_eq!(code, Some(0), "{}", task.log());
        assert_eq!(output.report()["outcome"], "complete");
    }
}

struct Task {
    child: Child,
    log: PathBuf,
}

impl Task {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        // It may have ended by itself in the meantime.
        let _ = kill_process(pid, signal);
    }

    /// Waits until so many new segments are there; false if the task has ended before.
    fn has_made(&mut self, output: &Output, segments: usize) -> bool {
        let before = output.segments().len();
        loop {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if output.newest_segments() >= before + segments {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

struct Output(PathBuf);

impl Output {
    fn report(&self) -> Value {
        serde_json::from_slice(&fs::read(self.0.join("stream/job.json")).unwrap()).unwrap()
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.0.join("stream")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.path() {
                    folder if folder.is_dir() => folders.push(folder),
                    file if file.extension().is_some_and(|extension| extension == "m4s") => files.push(file),
                    _ => {}
                }
            }
        }
        files
    }

    fn newest_segments(&self) -> usize {
        self.segments().len()
    }

    /// The job's folders.
    fn folders(&self) -> Vec<PathBuf> {
        let report = self.0.join("stream").join(self.report()["job_id"].as_str().unwrap());
        let mut folders: Vec<_> = fs::read_dir(report)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .collect();
        folders.sort();
        folders
    }

    fn own(&self, path: &str) -> PathBuf {
        self.0.join("stream").join(self.report()["folder"].as_str().unwrap()).join(path)
    }

    fn rungs(&self) -> Vec<String> {
        let report = self.report();
        let videos = report["renditions"].as_array().unwrap().iter().filter(|one| one["kind"] == "video");
        videos.map(|rung| rung["name"].as_str().unwrap().to_owned()).collect()
    }

    /// A rendition as a player reads it, in one file.
    fn whole(&self, rendition: &str) -> PathBuf {
        let folder = self.own(rendition);
        let playlist = fs::read_to_string(folder.join("index.m3u8")).unwrap();
        assert!(playlist.contains("#EXT-X-ENDLIST"));
        let mut bytes = fs::read(folder.join("init.mp4")).unwrap();
        for name in playlist.lines().filter(|line| !line.starts_with('#')) {
            bytes.extend(fs::read(folder.join(name)).unwrap());
        }
        let file = self.0.join(format!("{}.mp4", rendition.replace('/', "-")));
        fs::write(&file, bytes).unwrap();
        file
    }

    /// When each frame of a rung is shown, in ticks, whether it is a keyframe, and its number.
    fn frames(&self, rung: &str) -> Vec<((i64, bool), u32)> {
        let file = self.whole(&format!("video/{rung}"));
        let numbers = numbers(&file);
        let mut times = packets(&file, "v");
        assert_eq!(times.len(), numbers.len());
        times.sort_unstable();
        times.into_iter().zip(numbers).collect()
    }

    /// Samples of the sound; its packets follow on each other.
    fn sound(&self, name: &str) -> Vec<f32> {
        let file = self.whole(&format!("audio/{name}"));
        let packets = packets(&file, "a");
        for (one, next) in packets.iter().zip(&packets[1..]) {
            assert_eq!(one.0 + 1024, next.0, "sound goes on without a gap");
        }
        let bytes = decoded(&file, "-f f32le");
        bytes.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }
}

fn decoded(file: &Path, arguments: &str) -> Vec<u8> {
    let output = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-xerror", "-i"])
        .arg(file)
        .args(arguments.split_whitespace())
        .arg("-")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The numbers of the frames of a file.
fn numbers(file: &Path) -> Vec<u32> {
    let pixels =
        decoded(file, "-map 0:v -vf scale=16:12:flags=area -fps_mode passthrough -f rawvideo -pix_fmt gray");
    let number = |frame: &[u8]| {
        frame[6 * 16..7 * 16].iter().rev().fold(0, |bits, pixel| bits << 1 | u32::from(*pixel > 128))
    };
    pixels.chunks(16 * 12).map(number).collect()
}

/// Time of each packet, and whether it is a keyframe.
fn packets(file: &Path, kind: &str) -> Vec<(i64, bool)> {
    let output = Command::new("ffprobe")
        .args([
            "-loglevel",
            "error",
            "-select_streams",
            kind,
            "-show_entries",
            "packet=pts,flags",
            "-of",
            "csv=p=0",
        ])
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| {
            let (pts, flags) = line.split_once(',').unwrap();
            (pts.parse().unwrap(), flags.starts_with('K'))
        })
        .collect()
}

/// Numbers of which a run's log says where they began.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::env::var("VIDSTREAMX_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        eprintln!("VIDSTREAMX_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Kills attempts at random moments, then lets one finish.
fn disturbed(place: &Place, random: &mut Random, times: usize) -> Output {
    let output = place.output("disturbed");
    for _ in 0..times {
        let mut task = place.start(&output);
        if !task.has_made(&output, 1 + random.below(30) as usize) {
            assert_eq!(task.child.wait().unwrap().code(), Some(0), "{}", task.log());
            return output;
        }
        // Some later, wherever that is.
        thread::sleep(Duration::from_millis(random.below(500)));
        if random.below(2) == 0 {
            task.signal(Signal::KILL);
            if task.child.wait().unwrap().code() == Some(0) {
                return output;
            }
        } else {
            let asked = Instant::now();
            task.signal(Signal::TERM);
            let code = task.child.wait().unwrap().code();
            assert!(asked.elapsed() < Duration::from_secs(20));
            if code == Some(0) {
                return output;
            }
            assert_eq!(code, Some(143), "{}", task.log());
        }
    }
    place.finish(&output);
    output
}

fn same_frames(one: &Output, other: &Output) {
    let rungs = one.rungs();
    assert_eq!(rungs.len(), 2);
    for rung in rungs {
        let frames = one.frames(&rung);
        let numbers: Vec<u32> = frames.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers, (0..400).collect::<Vec<_>>(), "{rung}");
        let different = frames.iter().zip(other.frames(&rung)).find(|(one, other)| *one != other);
        assert_eq!(different, None, "{rung}");
    }
}

fn same_sound(one: &Output, other: &Output) {
    let (one, other) = (one.sound("und"), other.sound("und"));
    assert_eq!(one.len(), other.len());
    let (mut worst, mut at) = (0.0_f32, 0);
    for (place, (a, b)) in one.iter().zip(&other).enumerate() {
        if (a - b).abs() > worst {
            (worst, at) = ((a - b).abs(), place);
        }
    }
    assert!(worst < 0.05, "sounds differ by {worst} at sample {at}");
}

/// Tells how many folders it took.
fn survives(place: &Place) -> usize {
    let undisturbed = place.output("undisturbed");
    place.finish(&undisturbed);
    let output = disturbed(place, &mut Random::new(), 6);
    let log = fs::read_to_string(output.0.join("log")).unwrap();
    eprintln!("{log}");
    assert!(!log.contains("restarting from the beginning of the source"), "the resumed output fits");
    same(&output, &undisturbed);
    output.folders().len()
}

/// Pictures, sound, and what is made at the end.
fn same(output: &Output, undisturbed: &Output) {
    same_frames(output, undisturbed);
    same_sound(output, undisturbed);
    for rung in output.rungs() {
        assert_eq!(numbers(&output.own(&format!("mp4/{rung}.mp4"))), (0..400).collect::<Vec<_>>(), "{rung}");
    }
    // Of the same frames, as nothing of them is encoded from what came before.
    for path in [
        "images/poster.jpg",
        "images/storyboard-0.jpg",
        "images/storyboard.vtt",
        "subtitles/und/subtitles.vtt",
    ] {
        assert!(fs::read(output.own(path)).unwrap() == fs::read(undisturbed.own(path)).unwrap(), "{path}");
    }
    for name in ["renditions", "warnings"] {
        let of = |output: &Output| output.report()[name].as_array().map_or(0, Vec::len);
        assert_eq!(of(output), of(undisturbed), "{name}");
    }
    assert!(!output.own("checkpoint").read_dir().is_ok_and(|mut files| files.next().is_some()));
}

#[test]
fn what_is_encoded_is_whole_however_often_its_attempts_are_killed() {
    assert_eq!(survives(&Place::new("-c:v mpeg4 -qscale 5 -g 40 -bf 2 -c:a mp3 -b:a 192k")), 1);
}

#[test]
fn what_is_published_as_it_is_is_whole_however_often_its_attempts_are_killed() {
    let encoders = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -crf 30 -maxrate 2M -bufsize 4M -bf 2 -g 9 \
                    -c:a aac -b:a 128k";
    assert_eq!(survives(&Place::new(encoders)), 1);
}

#[test]
fn what_is_published_as_it_is_behind_an_encoded_beginning_is_whole_however_often_attempts_are_killed() {
    let encoders = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -crf 30 -maxrate 2M -bufsize 4M -bf 2 -g 200 \
                    -c:a aac -b:a 128k";
    assert_eq!(survives(&Place::new(encoders)), 1);
    // A clock of one tick per frame.
    assert_eq!(survives(&Place::new(&format!("{encoders} -video_track_timescale 25"))), 1);
}

#[test]
fn open_groups_of_pictures_and_other_rates_of_sound_are_whole_however_often_attempts_are_killed() {
    let encoders = "-c:v libx264 -preset ultrafast -pix_fmt yuv422p -qp 20 -bf 3 \
                    -x264-params keyint=75:open-gop=1 -ar 32000 -c:a aac -b:a 128k";
    assert_eq!(survives(&Place::of(30_000.0 / 1001.0, encoders, PROFILE)), 1);
}

#[test]
fn rungs_of_hevc_are_whole_however_often_attempts_are_killed() {
    let rung = |size: u32, more: &str| format!("[[rung]]\nsize = {size}\ncrf = 26\nmax_kbps = 900\n{more}\n");
    let hevc = "codec = \"hevc\"\npreset = \"ultrafast\"";
    let profile = format!(
        "segment_seconds = 1.0\nformats = [\"hls\", \"mp4\"]\n{}{}",
        rung(480, hevc),
        rung(240, "preset = \"medium\"")
    );
    let source = "-c:v mpeg4 -qscale 5 -g 40 -bf 2 -c:a aac -b:a 128k";
    assert_eq!(survives(&Place::of(24_000.0 / 1001.0, source, &profile)), 1);
}

/// An attempt that was asked to end when it had made a third.
fn interrupted(place: &Place, output: &Output) {
    let mut task = place.start(output);
    assert!(task.has_made(output, 18), "{}", task.log());
    task.signal(Signal::TERM);
    assert_eq!(task.child.wait().unwrap().code(), Some(143), "{}", task.log());
}

/// The only folder that an interrupted attempt left.
fn left(output: &Output) -> PathBuf {
    let only = |folder: PathBuf| {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir())
    };
    only(only(output.0.join("stream")).unwrap()).unwrap()
}

#[test]
fn what_is_broken_or_edited_in_between_is_made_again() {
    let place = Place::new("-c:v mpeg4 -qscale 5 -g 40 -c:a aac -b:a 128k");
    let undisturbed = place.output("undisturbed");
    place.finish(&undisturbed);

    let output = place.output("edited");
    interrupted(&place, &output);
    let folder = left(&output);
    let segment = folder.join("video/240p/seg-00002.m4s");
    let half = fs::metadata(&segment).unwrap().len() / 2;
    fs::File::options().write(true).open(&segment).unwrap().set_len(half).unwrap();
    fs::write(folder.join("video/480p/index.m3u8"), "#EXTM3U\n#EXT-X-ENDLIST\n").unwrap();
    fs::remove_file(folder.join("audio/und/seg-00003.m4s")).unwrap();
    place.finish(&output);
    assert!(fs::read_to_string(output.0.join("log")).unwrap().contains("interval=2"));
    assert_eq!(output.folders().len(), 1);
    same(&output, &undisturbed);

    // Another init segment than this FFmpeg's: what belongs to it stays where viewers may have it from.
    let output = place.output("of_another_version");
    interrupted(&place, &output);
    let init = left(&output).join("video/480p/init.mp4");
    let bytes = fs::read(&init).unwrap();
    let name = bytes.windows(12).position(|name| name == b"VideoHandler").unwrap();
    fs::write(&init, [&bytes[..name], b"OtherHandler", &bytes[name + 12..]].concat()).unwrap();
    place.finish(&output);
    assert_eq!(output.folders().len(), 2);
    same(&output, &undisturbed);

    // The disk is full, and then it is not.
    let output = place.output("full");
    interrupted(&place, &output);
    let next = left(&output).join("video/480p/seg-00010.m4s.partial");
    std::os::unix::fs::symlink("/dev/full", &next).unwrap();
    let mut task = place.start(&output);
    assert_eq!(task.child.wait().unwrap().code(), Some(75), "{}", task.log());
    assert!(task.log().contains("No space left on device"), "{}", task.log());
    fs::remove_file(next).unwrap();
    place.finish(&output);
    assert_eq!(output.folders().len(), 1);
    same(&output, &undisturbed);
}
