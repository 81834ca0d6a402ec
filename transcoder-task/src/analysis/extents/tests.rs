use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{
    analysis::{ffprobe::probe, matroska::matroska_extents, sample_index::Index},
    fixtures::{clip, corpus, stdout},
    source::loopback::Input,
};

const PICTURE: &str = "-f lavfi -i testsrc2=size=64x36:rate=25:duration=4";
const SOUND: &str = "-f lavfi -i sine=sample_rate=48000:duration=4";
const X264: &str = "-c:v libx264 -preset ultrafast -bf 2 -g 25 -pix_fmt yuv420p";
const FRAGMENTS: &str = "-movflags +frag_keyframe+empty_moov+default_base_moof";

/// The source's model with its true extents.
async fn analysed(file: &Path) -> Result<Media, ProbeError> {
    let input = Input::File(file.to_owned());
    let mut media = probe(&input).await?;
    let index = Index::read(&input).await.unwrap();
    let matroska = matroska_extents(&input).await.unwrap();
    match index.map(|index| index.extents).or(matroska) {
        Some(extents) => extents.apply(&mut media)?,
        None => check_stated(&media)?,
    }
    Ok(media)
}

/// The start of the first packet and the end of the last one of a stream, on FFmpeg's clock. The last packet
/// may have no duration.
fn packets(file: &Path, stream: usize) -> (f64, f64) {
    let (stream, file) = (stream.to_string(), file.to_str().unwrap());
    let entries = "packet=pts_time,duration_time";
    let arguments =
        ["-v", "quiet", "-select_streams", &stream, "-show_entries", entries, "-of", "csv=p=0", file];
    let output = stdout("ffprobe", &arguments);
    let times = output.lines().filter_map(|line| {
        let mut fields = line.split(',').map(|field| field.parse::<f64>());
        let start = fields.next()?.ok()?;
        Some((start, start + fields.next().and_then(Result::ok).unwrap_or(0.0)))
    });
    times.fold((f64::MAX, f64::MIN), |(first, last), (start, end)| (first.min(start), last.max(end)))
}

/// Checks that the tracks last as long as their packets, with this tolerance in seconds.
async fn measured(file: &Path, tolerance: f64) -> Result<Media, String> {
    let name = file.file_name().unwrap().display();
    let media = analysed(file).await.map_err(|error| format!("{name}: {error}"))?;
    let video = media.video.iter().map(|video| (video.index, video.start_seconds, video.duration_seconds));
    let audio = media.audio.iter().map(|audio| (audio.index, audio.start_seconds, audio.duration_seconds));
    let mut last = 0.0_f64;
    for (stream, start, duration) in video.chain(audio) {
        let (expected_start, expected_end) = packets(file, stream);
        let expected = (expected_start - media.start_seconds, expected_end - media.start_seconds);
        let end = start + duration;
        // Packets before the start prime an audio decoder, or are cut by an edit list.
        if start < expected.0 - 0.1 || (end - expected.1).abs() > tolerance {
            return Err(format!("{name}, stream {stream}: from {start} to {end}, packets {expected:?}"));
        }
        last = last.max(end);
    }
    if (media.duration_seconds - last).abs() > 1e-6 {
        return Err(format!("{name}: {media:?}"));
    }
    Ok(media)
}

async fn assert_measured(file: &Path, tolerance: f64) -> Media {
    measured(file, tolerance).await.unwrap()
}

#[tokio::test]
async fn tracks_last_as_long_as_their_samples() {
    let folder = tempfile::tempdir().unwrap();
    let opus = "-c:v libvpx -deadline realtime -cpu-used 8 -c:a libopus";
    for (name, options) in [
        ("tables.mp4", format!("{PICTURE} {SOUND} {X264} -c:a aac")),
        ("no_edit_list.mp4", format!("{PICTURE} {SOUND} {X264} -c:a aac -use_editlist 0")),
        ("uncompressed.mov", format!("{PICTURE} {SOUND} -c:v mpeg4 -c:a pcm_s16le")),
        ("fragments.mp4", format!("{PICTURE} {SOUND} {X264} -c:a aac {FRAGMENTS}")),
        ("delayed_moov.mp4", format!("{PICTURE} {SOUND} {X264} -c:a aac {FRAGMENTS}+delay_moov")),
        ("one_track_each.mp4", format!("{PICTURE} {SOUND} {X264} -c:a aac {FRAGMENTS}+separate_moof")),
        ("picture.mkv", format!("{PICTURE} {SOUND} {X264} -c:a aac")),
        ("live.webm", format!("{PICTURE} {SOUND} {opus} -live 1")),
        ("stops.mkv", format!("{PICTURE} {SOUND} {X264} -vf select=lt(t\\,2) -fps_mode vfr -c:a flac")),
    ] {
        assert_measured(&clip(&folder, name, &options), 0.045).await;
    }
}

/// The same samples at a later time, as a live recording that was cut out.
fn late(folder: &TempDir, seconds: f64) -> PathBuf {
    let options = format!("{FRAGMENTS}+frag_discont -avoid_negative_ts disabled -output_ts_offset {seconds}");
    clip(folder, "late.mp4", &format!("{PICTURE} {SOUND} {X264} -c:a aac {options}"))
}

#[tokio::test]
async fn a_late_start_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    for start in [10.0, 18_000.0, 180_000.0, 1_700_000_000.0] {
        let media = assert_measured(&late(&folder, start), 0.045).await;
        assert!((media.start_seconds - start).abs() < 0.1, "{media:?}");
        assert!((3.9..4.2).contains(&media.duration_seconds), "{media:?}");
        assert!(media.warnings.is_empty(), "{media:?}");
    }
}

#[tokio::test]
async fn a_camera_that_is_switched_on_late_starts_late() {
    let folder = tempfile::tempdir().unwrap();
    let sound =
        clip(&folder, "sound.webm", "-f lavfi -i sine=sample_rate=48000:duration=20 -c:a libopus -b:a 32k");
    let opus = "-c:v libvpx -deadline realtime -cpu-used 8";
    let picture = clip(&folder, "picture.webm", &format!("{PICTURE} {opus}"));
    let inputs = format!("-i {} -itsoffset 12 -i {}", sound.display(), picture.display());
    for (name, options) in [("late.webm", ""), ("late.mkv", "-live 1 -f matroska")] {
        let file = clip(&folder, name, &format!("{inputs} -map 1 -map 0 -c copy {options}"));
        let media = assert_measured(&file, 0.045).await;
        assert!((media.duration_seconds - 20.0).abs() < 0.1, "{media:?}");
        let video = media.video.unwrap();
        assert!((video.start_seconds - 12.0).abs() < 0.1, "{video:?}");
    }
}

fn replace(file: &Path, from: &[u8], to: &[u8]) {
    let mut bytes = std::fs::read(file).unwrap();
    let found: Vec<_> =
        bytes.windows(from.len()).enumerate().filter(|(_, part)| *part == from).map(|(at, _)| at).collect();
    assert!(!found.is_empty());
    for at in found {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn a_header_that_states_too_much_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let stale = clip(&folder, "stale.mkv", &format!("{PICTURE} {X264}"));
    replace(&stale, b"00:00:04.", b"00:00:40.");
    let media = assert_measured(&stale, 0.045).await;
    assert_eq!(
        media.warnings,
        ["the file's duration tag of track 0 states 40.0 seconds, but its tracks have 4.0 seconds"]
    );

    let movie = clip(&folder, "movie.mp4", &format!("{SOUND} -c:a aac"));
    let mut bytes = std::fs::read(&movie).unwrap();
    let mvhd = bytes.windows(4).position(|kind| kind == b"mvhd").unwrap() + 4;
    bytes[mvhd + 16..mvhd + 20].copy_from_slice(&1_000_000_000_u32.to_be_bytes());
    std::fs::write(&movie, bytes).unwrap();
    let media = assert_measured(&movie, 0.045).await;
    assert_eq!(
        media.warnings,
        ["the file's movie header (mvhd) states 1000000.0 seconds, but its tracks have 4.0 seconds"]
    );
}

#[tokio::test]
async fn samples_that_a_truncated_file_lacks_are_damage() {
    let folder = tempfile::tempdir().unwrap();
    let file =
        clip(&folder, "clip.mp4", &format!("{PICTURE} {SOUND} -c:v mpeg4 -c:a aac -movflags +faststart"));
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() * 3 / 4]).unwrap();
    let media = analysed(&file).await.unwrap();
    assert!(media.warnings[0].starts_with("the file is damaged: "), "{media:?}");
    assert!(media.warnings[0].ends_with(" of 4.0 seconds of video are missing"), "{media:?}");
    assert!((2.0..3.7).contains(&media.duration_seconds), "{media:?}");
    std::fs::write(&file, &bytes[..bytes.len() / 4]).unwrap();
    let error = analysed(&file).await.unwrap_err().to_string();
    assert!(
        error.starts_with("the file is damaged: only ") && error.contains(" of 4.0 seconds of video"),
        "{error}"
    );
}

#[tokio::test]
async fn a_broken_off_live_recording_lasts_as_long_as_its_complete_frames() {
    let folder = tempfile::tempdir().unwrap();
    let opus = "-c:v libvpx -deadline realtime -cpu-used 8 -c:a libopus";
    for (name, options) in [
        ("live.webm", format!("{PICTURE} {SOUND} {opus} -live 1")),
        ("fragments.mp4", format!("{PICTURE} {SOUND} {X264} -c:a aac {FRAGMENTS}")),
    ] {
        let file = clip(&folder, name, &options);
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() * 3 / 5]).unwrap();
        let media = analysed(&file).await.unwrap();
        assert!((1.0..3.7).contains(&media.duration_seconds), "{media:?}");
    }
}

#[tokio::test]
async fn one_absurd_time_does_not_make_a_stream_of_days() {
    let folder = tempfile::tempdir().unwrap();
    let file = clip(&folder, "live.webm", &format!("{SOUND} -c:a libopus -live 1 -cluster_time_limit 200"));
    let mut bytes = std::fs::read(&file).unwrap();
    // A cluster with one block, 400 hours later.
    let hours = 400 * 3_600_000_u64;
    let mut cluster = vec![0xe7, 0x88];
    cluster.extend(hours.to_be_bytes());
    cluster.extend([0xa3, 0x87, 0x81, 0, 0, 0x80, 0xfc, 0xff, 0xfe]);
    bytes.extend([&[0x1f, 0x43, 0xb6, 0x75, 0x80 | cluster.len() as u8][..], &cluster].concat());
    // Then garbage, and an element of an absurd size.
    bytes.extend([0xff; 100]);
    bytes.extend([0xec, 0x01, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    std::fs::write(&file, bytes).unwrap();
    let media = analysed(&file).await.unwrap();
    assert!((3.9..4.2).contains(&media.duration_seconds), "{media:?}");
}

#[tokio::test]
async fn extents_of_the_corpus_match_the_packets() {
    let Ok(files) = std::fs::read_dir(corpus()) else { return };
    // Damaged files, and text.
    const OTHERS: [&str; 8] = [
        "bad_",
        "enc_",
        "unsupported",
        "synth_empty",
        "synth_text",
        "synth_trunc",
        "MANIFEST",
        "sample_malformed",
    ];
    let mut wrong = Vec::new();
    for entry in files {
        let file = entry.unwrap().path();
        let name = file.file_name().unwrap().display().to_string();
        if !OTHERS.iter().any(|kind| name.starts_with(kind)) {
            wrong.extend(measured(&file, 0.15).await.err());
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_end_of_a_track_comes_from_its_tag_only_if_other_tracks_confirm_it() {
    let of = |stated: (f64, f64)| {
        let ended =
            (TrackKey::Stream(1), Extent { start: Some(100.0), end: Some(190.0), promised_end: Some(190.0) });
        let extents = Extents { tracks: vec![ended], claims: Vec::new() };
        let times = extents.times(0, None, 100.0, stated);
        assert!(!times.is_measured);
        (times.start, times.duration)
    };
    assert_eq!(of((0.0, 51.0)), (0.0, 51.0));
    assert_eq!(of((2.0, 88.1)), (2.0, 88.1));
    assert_eq!(of((0.0, 95.0)), (0.0, 0.0), "longer than the file");
    assert_eq!(of((0.0, 0.0)), (0.0, 0.0));
}

#[test]
fn times_far_behind_the_others_do_not_count() {
    assert_eq!(latest_plausible(vec![3.0, 900_000.0, 1.0, 2.0], None), 3603.0);
    assert_eq!(latest_plausible(vec![3.0, 1.0, 2.0], Some(90_000.0)), 90_000.0, "the header confirms them");
    assert_eq!(latest_plausible(Vec::new(), None), f64::MAX);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_do_not_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        cut in any::<prop::sample::Index>(),
        kind in 0_usize..2,
    ) {
        static CLIPS: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
        let clips = CLIPS.get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let short = "-f lavfi -i sine=duration=0.5";
            ["clip.webm -c:a libopus -cluster_time_limit 100", "clip.mp4 -c:a aac -frag_duration 100000"].map(|line| {
                let (name, options) = line.split_once(' ').unwrap();
                std::fs::read(clip(&folder, name, &format!("{short} {options}"))).unwrap()
            }).into()
        });
        let mut bytes = clips[kind].clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let input = Input::File(file.path().to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let _ = matroska_extents(&input).await.unwrap();
            let _ = Index::read(&input).await.unwrap();
        });
    }
}
