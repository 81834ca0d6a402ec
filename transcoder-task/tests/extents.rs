//! Sources whose sound changes, or whose clock does not begin at 0, with the real FFmpeg: every rendition
//! lasts as long as the source.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod common;

use std::{fs, path::Path, time::Instant};

use tempfile::TempDir;

use common::{StreamFolder, generate, probe, profile, transcoder};

const PICTURE: &str = "-f lavfi -i testsrc2=size=320x180:rate=25:duration=6";
const X264: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -bf 0";

fn tone(hertz: u32, rate: u32) -> String {
    format!("-f lavfi -i sine={hertz}:sample_rate={rate}:duration=3")
}

/// Transcodes a file. Returns the folder with its stream.
fn transcode(file: &Path, profile_text: &str) -> (TempDir, StreamFolder) {
    let folder = tempfile::tempdir().unwrap();
    let profile = profile(profile_text);
    let mut command = transcoder();
    command.arg("--input").arg(file).arg("--output").arg(folder.path()).arg("--profile").arg(profile.path());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let stream = StreamFolder(folder.path().to_owned());
    (folder, stream)
}

/// Checks that the packets of a rendition follow each other without a jump or a pile, from 0 to `end` in
/// seconds.
fn assert_covers(stream: &StreamFolder, playlist: &str, end: f64) {
    let mut expected = 0.0_f64;
    for packet in probe(&stream.file(playlist), "0", "packet=pts_time,duration_time") {
        let mut fields = packet.split(',').map(str::parse::<f64>);
        let start = fields.next().unwrap().unwrap();
        // ffprobe does not state the duration of a playlist's first packet.
        let duration = fields.next().and_then(Result::ok).unwrap_or(0.021);
        assert!((start - expected).abs() < 0.03 && duration > 0.01, "{playlist}: {packet} at {expected}");
        expected = start + duration;
    }
    assert!((expected - end).abs() < 0.06, "{playlist}: ends at {expected}");
}

/// A file with a picture of six seconds, and with sound that consists of two parts of three seconds.
fn joined(folder: &TempDir, format: &str, parts: [String; 2], name: &str, offset: f64) -> std::path::PathBuf {
    let path = |name: &str| folder.path().join(name);
    let bytes = parts.map(|options| {
        generate(&path("part"), &format!("{options} -f {format}"));
        fs::read(path("part")).unwrap()
    });
    fs::write(path("sound"), bytes.concat()).unwrap();
    generate(&path("picture.mkv"), &format!("{PICTURE} {X264}"));
    let (picture, sound) = (path("picture.mkv"), path("sound"));
    let inputs = format!("-i {} -itsoffset {offset} -f {format} -i {}", picture.display(), sound.display());
    generate(&path(name), &format!("{inputs} -map 0 -map 1 -c copy"));
    path(name)
}

#[test]
fn sound_that_changes_channels_or_rate_lasts_as_long_as_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    let surround = format!("{} -af pan=5.1|FL=c0|FR=c0|FC=c0|LFE=c0|BL=c0|BR=c0 -c:a ac3", tone(440, 48_000));
    let stereo = format!("{} -ac 2 -c:a ac3", tone(660, 48_000));
    let channels = joined(&folder, "ac3", [surround.clone(), stereo.clone()], "channels.mkv", 0.0);
    let (_output, stream) = transcode(&channels, "");
    for name in ["und", "und-5.1"] {
        assert_covers(&stream, &format!("audio/{name}/index.m3u8"), 6.05);
    }
    let (_output, stream) = transcode(&channels, "loudness = -20");
    assert_covers(&stream, "audio/und/index.m3u8", 6.05);

    let rate = |rate| format!("{} -c:a libmp3lame -write_xing 0 -id3v2_version 0", tone(440, rate));
    let rates = joined(&folder, "mp3", [rate(44_100), rate(48_000)], "rates.mkv", 0.0);
    let (_output, stream) = transcode(&rates, "");
    // FFmpeg 5 loses half a second at the change, which silence replaces.
    assert_covers(&stream, "audio/und/index.m3u8", 6.1);

    let late = joined(&folder, "ac3", [stereo, surround], "late.mkv", 2.0);
    let (_output, stream) = transcode(&late, "");
    assert_covers(&stream, "audio/und/index.m3u8", 8.05);
}

#[test]
fn a_recording_that_begins_at_hour_five_is_as_quick_as_any_other() {
    let folder = tempfile::tempdir().unwrap();
    for start in [18_000_u64, 1_700_000_000] {
        let file = folder.path().join("late.mp4");
        let fragments = "-movflags +frag_keyframe+empty_moov+default_base_moof+frag_discont";
        let times = format!("-avoid_negative_ts disabled -output_ts_offset {start}");
        generate(
            &file,
            &format!("{PICTURE} -f lavfi -i sine=duration=6 {X264} -g 50 -c:a aac {fragments} {times}"),
        );
        let started = Instant::now();
        let (_output, stream) = transcode(&file, "loudness = -20");
        assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
        let report = stream.report();
        assert!(report["warnings"].is_null(), "{report}");
        assert!((report["probe"]["duration_seconds"].as_f64().unwrap() - 6.0).abs() < 0.1, "{report}");
        assert_covers(&stream, "audio/und/index.m3u8", 6.0);
    }
}
