//! Kills attempts and resumes their output. The stream must have every frame once, and audio without gaps.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test's helpers fail the test and print its seed"
)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use common::{StreamFolder, execute, generate, probe, transcoder};

/// Each frame shows its number in binary, as blocks in its first row.
const VIDEO: &str = "geq=lum='if(mod(floor(N/pow(2,X)),2),235,16)':cb=128:cr=128,\
                     scale=640:480:flags=neighbor,noise=alls=12:allf=t";
/// The tone rises, so that every moment sounds different.
const AUDIO: &str = "aevalsrc='0.4*sin(2*PI*(200*t+8*t*t))':sample_rate=44100";
/// Small rungs with short segments. Encoding is slow enough for a kill before its end.
const PROFILE: &str = "segment_seconds = 1.0\nformats = [\"hls\", \"dash\", \"mp4\"]\n\
    [[rung]]\nsize = 480\ncrf = 23\nmax_kbps = 3000\npreset = \"medium\"\n\
    [[rung]]\nsize = 240\ncrf = 23\nmax_kbps = 600\npreset = \"slower\"\n";

struct Fixture {
    folder: TempDir,
    input: PathBuf,
    profile: PathBuf,
}

impl Fixture {
    /// A source of 400 frames, at 25 frames per second.
    fn new(encoders: &str) -> Self {
        Self::of(25.0, encoders, PROFILE)
    }

    fn of(frame_rate: f64, encoders: &str, profile: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("source.mp4");
        let subtitles = folder.path().join("subtitles.vtt");
        let cue = |second| format!("00:{second:02}.100 --> 00:{second:02}.900\nText {second}\n\n");
        fs::write(&subtitles, format!("WEBVTT\n\n{}", (0..16).map(cue).collect::<String>())).unwrap();
        let arguments = format!(
            "-f lavfi -i color=black:size=16x12:rate={frame_rate},{VIDEO} -f lavfi -i {AUDIO} \
             -i {} -map 0 -map 1 -map 2 -t {} -c:s mov_text {encoders}",
            subtitles.display(),
            399.9 / frame_rate
        );
        generate(&input, &arguments);
        let file = folder.path().join("profile.toml");
        fs::write(&file, profile).unwrap();
        Self { folder, input, profile: file }
    }

    fn output(&self, name: &str) -> Output {
        let folder = self.folder.path().join(name);
        Output { stream: StreamFolder(folder.join("stream")), folder }
    }

    fn start(&self, output: &Output) -> Task {
        fs::create_dir_all(&output.folder).unwrap();
        let log = output.folder.join("log");
        let file = fs::File::options().create(true).append(true).open(&log).unwrap();
        let child = transcoder()
            .arg("--input")
            .arg(&self.input)
            .arg("--output")
            .arg(&output.stream.0)
            .arg("--profile")
            .arg(&self.profile)
            .stderr(Stdio::from(file))
            .spawn()
            .unwrap();
        Task { child, log }
    }

    /// Runs one attempt to its end.
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
        // The task may have ended already.
        let _ = kill_process(pid, signal);
    }

    /// Waits for this many new segments. Returns false if the task ends before.
    fn publishes(&mut self, output: &Output, segments: usize) -> bool {
        let before = output.segments().len();
        loop {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if output.segments().len() >= before + segments {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The output of all attempts.
struct Output {
    folder: PathBuf,
    stream: StreamFolder,
}

impl Output {
    fn report(&self) -> Value {
        self.stream.report()
    }

    fn file(&self, path: &str) -> PathBuf {
        self.stream.file(path)
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.stream.0.clone()];
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

    /// The folders of the job's streams.
    fn folders(&self) -> Vec<PathBuf> {
        let job = self.stream.0.join(self.report()["job_id"].as_str().unwrap());
        let mut folders: Vec<_> = fs::read_dir(job)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .collect();
        folders.sort();
        folders
    }

    /// Writes all that a player reads of a rendition into one file.
    fn whole(&self, rendition: &str) -> PathBuf {
        let folder = self.file(rendition);
        let playlist = fs::read_to_string(folder.join("index.m3u8")).unwrap();
        assert!(playlist.contains("#EXT-X-ENDLIST"));
        let mut bytes = fs::read(folder.join("init.mp4")).unwrap();
        for name in playlist.lines().filter(|line| !line.starts_with('#')) {
            bytes.extend(fs::read(folder.join(name)).unwrap());
        }
        let file = self.folder.join(format!("{}.mp4", rendition.replace('/', "-")));
        fs::write(&file, bytes).unwrap();
        file
    }

    /// The time in ticks of each frame of a rung, whether it is a keyframe, and its number.
    fn frames(&self, rung: &str) -> Vec<((i64, bool), u32)> {
        let file = self.whole(&format!("video/{rung}"));
        let numbers = numbers(&file);
        let mut times = packets(&file, "v");
        assert_eq!(times.len(), numbers.len());
        times.sort_unstable();
        times.into_iter().zip(numbers).collect()
    }

    /// The samples of an audio rendition. Its packets have no gaps.
    fn audio(&self, name: &str) -> Vec<f32> {
        let file = self.whole(&format!("audio/{name}"));
        let packets = packets(&file, "a");
        for (one, next) in packets.iter().zip(&packets[1..]) {
            assert_eq!(one.0 + 1024, next.0, "a gap between audio packets");
        }
        let bytes = decoded(&file, "-f f32le");
        bytes.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }
}

fn decoded(file: &Path, arguments: &str) -> Vec<u8> {
    let input = ["-loglevel", "error", "-xerror", "-i", file.to_str().unwrap()];
    execute("ffmpeg", input.into_iter().chain(arguments.split_whitespace()).chain(["-"])).stdout
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

/// The time of each packet, and whether it is a keyframe.
fn packets(file: &Path, kind: &str) -> Vec<(i64, bool)> {
    let packet = |line: &String| {
        let (pts, flags) = line.split_once(',').unwrap();
        (pts.parse().unwrap(), flags.starts_with('K'))
    };
    probe(file, kind, "packet=pts,flags").iter().map(packet).collect()
}

/// Random numbers, seeded by `VIDSTREAMX_SEED` if it is set.
fn random() -> fastrand::Rng {
    let seed = std::env::var("VIDSTREAMX_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("VIDSTREAMX_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Kills or terminates attempts at random moments, then lets one finish.
fn disturbed(fixture: &Fixture, random: &mut fastrand::Rng, times: usize) -> Output {
    let output = fixture.output("disturbed");
    for _ in 0..times {
        let mut task = fixture.start(&output);
        if !task.publishes(&output, random.usize(1..=30)) {
            assert_eq!(task.child.wait().unwrap().code(), Some(0), "{}", task.log());
            return output;
        }
        // Wait for a random time, so that the attempt can also stop within a segment.
        thread::sleep(Duration::from_millis(random.u64(..500)));
        if random.bool() {
            task.signal(Signal::KILL);
            if task.child.wait().unwrap().code() == Some(0) {
                return output;
            }
        } else {
            let signalled = Instant::now();
            task.signal(Signal::TERM);
            let code = task.child.wait().unwrap().code();
            assert!(signalled.elapsed() < Duration::from_secs(20));
            if code == Some(0) {
                return output;
            }
            assert_eq!(code, Some(143), "{}", task.log());
        }
    }
    fixture.finish(&output);
    output
}

fn assert_same_frames(one: &Output, other: &Output) {
    let rungs = one.stream.rungs();
    assert_eq!(rungs.len(), 2);
    for rung in rungs {
        let frames = one.frames(&rung);
        let numbers: Vec<u32> = frames.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers, (0..400).collect::<Vec<_>>(), "{rung}");
        let different = frames.iter().zip(other.frames(&rung)).find(|(one, other)| *one != other);
        assert_eq!(different, None, "{rung}");
    }
}

fn assert_same_audio(one: &Output, other: &Output) {
    let (one, other) = (one.audio("und"), other.audio("und"));
    assert_eq!(one.len(), other.len());
    let (mut worst, mut at) = (0.0_f32, 0);
    for (sample, (a, b)) in one.iter().zip(&other).enumerate() {
        if (a - b).abs() > worst {
            (worst, at) = ((a - b).abs(), sample);
        }
    }
    assert!(worst < 0.05, "audio differs by {worst} at sample {at}");
}

/// Asserts that killed attempts lead to the same output as one attempt, in one folder.
fn assert_complete_after_kills(fixture: &Fixture) {
    let undisturbed = fixture.output("undisturbed");
    fixture.finish(&undisturbed);
    let output = disturbed(fixture, &mut random(), 6);
    let log = fs::read_to_string(output.folder.join("log")).unwrap();
    eprintln!("{log}");
    assert!(!log.contains("restarting from the beginning of the source"), "an attempt could not resume");
    assert_same(&output, &undisturbed);
    assert_eq!(output.folders().len(), 1);
}

/// Compares frames, audio, and the files that are written at the end.
fn assert_same(output: &Output, undisturbed: &Output) {
    assert_same_frames(output, undisturbed);
    assert_same_audio(output, undisturbed);
    for rung in output.stream.rungs() {
        assert_eq!(numbers(&output.file(&format!("mp4/{rung}.mp4"))), (0..400).collect::<Vec<_>>(), "{rung}");
    }
    // These files do not depend on where an attempt resumed.
    for path in [
        "images/poster.jpg",
        "images/storyboard-0.jpg",
        "images/storyboard.vtt",
        "subtitles/und/subtitles.vtt",
    ] {
        assert!(fs::read(output.file(path)).unwrap() == fs::read(undisturbed.file(path)).unwrap(), "{path}");
    }
    for name in ["renditions", "warnings"] {
        let count = |output: &Output| output.report()[name].as_array().map_or(0, Vec::len);
        assert_eq!(count(output), count(undisturbed), "{name}");
    }
    assert!(!output.file("checkpoint").read_dir().is_ok_and(|mut files| files.next().is_some()));
}

#[test]
fn encoded_streams_are_complete_after_killed_attempts() {
    assert_complete_after_kills(&Fixture::new("-c:v mpeg4 -qscale 5 -g 40 -bf 2 -c:a mp3 -b:a 192k"));
}

#[test]
fn copied_streams_are_complete_after_killed_attempts() {
    let encoders = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -crf 30 -maxrate 2M -bufsize 4M -bf 2 -g 9 \
                    -c:a aac -b:a 128k";
    assert_complete_after_kills(&Fixture::new(encoders));
}

#[test]
fn copied_streams_with_an_encoded_prefix_are_complete_after_killed_attempts() {
    let encoders = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -crf 30 -maxrate 2M -bufsize 4M -bf 2 -g 200 \
                    -c:a aac -b:a 128k";
    assert_complete_after_kills(&Fixture::new(encoders));
    // The track has one tick per frame.
    assert_complete_after_kills(&Fixture::new(&format!("{encoders} -video_track_timescale 25")));
}

#[test]
fn open_gops_and_other_sample_rates_are_complete_after_killed_attempts() {
    let encoders = "-c:v libx264 -preset ultrafast -pix_fmt yuv422p -qp 20 -bf 3 \
                    -x264-params keyint=75:open-gop=1 -ar 32000 -c:a aac -b:a 128k";
    assert_complete_after_kills(&Fixture::of(30_000.0 / 1001.0, encoders, PROFILE));
}

#[test]
fn hevc_rungs_are_complete_after_killed_attempts() {
    let rung = |size: u32, more: &str| format!("[[rung]]\nsize = {size}\ncrf = 26\nmax_kbps = 900\n{more}\n");
    let hevc = "codec = \"hevc\"\npreset = \"ultrafast\"";
    let profile = format!(
        "segment_seconds = 1.0\nformats = [\"hls\", \"mp4\"]\n{}{}",
        rung(480, hevc),
        rung(240, "preset = \"medium\"")
    );
    let source = "-c:v mpeg4 -qscale 5 -g 40 -bf 2 -c:a aac -b:a 128k";
    assert_complete_after_kills(&Fixture::of(24_000.0 / 1001.0, source, &profile));
}

/// Terminates an attempt after a third of the segments.
fn interrupt(fixture: &Fixture, output: &Output) {
    let mut task = fixture.start(output);
    assert!(task.publishes(output, 18), "{}", task.log());
    task.signal(Signal::TERM);
    assert_eq!(task.child.wait().unwrap().code(), Some(143), "{}", task.log());
}

/// The folder of an interrupted attempt.
fn interrupted_folder(output: &Output) -> PathBuf {
    let subfolder = |folder: PathBuf| {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir())
    };
    subfolder(subfolder(output.stream.0.clone()).unwrap()).unwrap()
}

#[test]
fn output_that_was_damaged_between_attempts_is_encoded_again() {
    let fixture = Fixture::new("-c:v mpeg4 -qscale 5 -g 40 -c:a aac -b:a 128k");
    let undisturbed = fixture.output("undisturbed");
    fixture.finish(&undisturbed);

    let output = fixture.output("edited");
    interrupt(&fixture, &output);
    let folder = interrupted_folder(&output);
    let segment = folder.join("video/240p/seg-00002.m4s");
    let half = fs::metadata(&segment).unwrap().len() / 2;
    fs::File::options().write(true).open(&segment).unwrap().set_len(half).unwrap();
    fs::write(folder.join("video/480p/index.m3u8"), "#EXTM3U\n#EXT-X-ENDLIST\n").unwrap();
    fs::remove_file(folder.join("audio/und/seg-00003.m4s")).unwrap();
    fixture.finish(&output);
    assert!(fs::read_to_string(output.folder.join("log")).unwrap().contains("interval=2"));
    assert_eq!(output.folders().len(), 1);
    assert_same(&output, &undisturbed);

    // The init segment is as if from another FFmpeg version, so the next attempt publishes into another
    // folder. The segments in the first folder stay, because viewers may use them.
    let output = fixture.output("of_another_version");
    interrupt(&fixture, &output);
    let init = interrupted_folder(&output).join("video/480p/init.mp4");
    let bytes = fs::read(&init).unwrap();
    let name = bytes.windows(12).position(|name| name == b"VideoHandler").unwrap();
    fs::write(&init, [&bytes[..name], b"OtherHandler", &bytes[name + 12..]].concat()).unwrap();
    fixture.finish(&output);
    assert_eq!(output.folders().len(), 2);
    assert_same(&output, &undisturbed);

    // The disk is full during one attempt.
    let output = fixture.output("full");
    interrupt(&fixture, &output);
    let next = interrupted_folder(&output).join("video/480p/seg-00010.m4s.partial");
    std::os::unix::fs::symlink("/dev/full", &next).unwrap();
    let mut task = fixture.start(&output);
    assert_eq!(task.child.wait().unwrap().code(), Some(75), "{}", task.log());
    assert!(task.log().contains("No space left on device"), "{}", task.log());
    fs::remove_file(next).unwrap();
    fixture.finish(&output);
    assert_eq!(output.folders().len(), 1);
    assert_same(&output, &undisturbed);
}
