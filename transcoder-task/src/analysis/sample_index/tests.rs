use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, LazyLock, Mutex},
};

use aws_sdk_s3::{
    Client,
    operation::{
        get_object::{GetObjectError, GetObjectOutput},
        head_object::HeadObjectOutput,
    },
    primitives::ByteStream,
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use aws_smithy_types::error::ErrorMetadata;
use mp4_atom::{
    Avcc, Co64, Ctts, CttsEntry, Elst, ElstEntry, Encode, Mdhd, Mvhd, Stsc, StscEntry, Stss, Stsz,
    StszSamples, Stts, SttsEntry, Tkhd,
};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::analysis::{aac::aac_lc, copyable_tracks::*, h264::*};
use crate::{source::loopback::ServedObject, source::object::PinnedObject};

/// A track's frames as ffprobe sees them, in the file's order.
#[derive(Debug, Clone, Copy)]
struct Packet {
    pts: i64,
    size: u64,
    key: bool,
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn clip(folder: &TempDir, name: &str, arguments: &str) -> PathBuf {
    let file = folder.path().join(name);
    let mut all: Vec<_> = "-y -loglevel error".split(' ').chain(arguments.split_whitespace()).collect();
    all.push(file.to_str().unwrap());
    run("ffmpeg", &all);
    file
}

fn packets(file: &Path, stream: usize) -> Vec<Packet> {
    let stream = stream.to_string();
    let answer = run(
        "ffprobe",
        &[
            "-v",
            "error",
            "-select_streams",
            &stream,
            "-show_entries",
            "packet=pts,size,flags",
            "-of",
            "csv=p=0:nk=1",
            file.to_str().unwrap(),
        ],
    );
    answer
        .lines()
        .map(|line| {
            let fields: Vec<_> = line.split(',').collect();
            assert!(!fields[2].contains('D'), "{line}");
            Packet {
                pts: fields[0].parse().unwrap(),
                size: fields[1].parse().unwrap(),
                key: fields[2].starts_with('K'),
            }
        })
        .collect()
}

async fn index(file: &Path) -> Option<Index> {
    Index::read(&Input::File(file.to_owned())).await.unwrap()
}

/// The first video track and its place.
fn video_of(index: &Index) -> (usize, &Result<CopyableVideo, NotCopyable>) {
    let mut tracks = index.tracks.iter().enumerate();
    let found = tracks.find_map(|(at, track)| match &track.content {
        Content::Video(video) => Some((at, video)),
        _ => None,
    });
    found.unwrap()
}

async fn copyable(file: &Path) -> CopyableVideo {
    video_of(&index(file).await.unwrap()).1.clone().unwrap_or_else(|why| panic!("{}: {why}", file.display()))
}

async fn why_not(file: &Path) -> String {
    video_of(&index(file).await.unwrap()).1.clone().unwrap_err().to_string()
}

fn agrees(name: &str, video: &CopyableVideo, packets: &[Packet]) {
    assert_eq!(video.samples as usize, packets.len(), "{name}");
    assert_eq!(video.bytes, packets.iter().map(|packet| packet.size).sum::<u64>(), "{name}");
    let last = packets.iter().max_by_key(|packet| packet.pts).unwrap();
    // FFmpeg makes durations up where frames are not stored in the order in which they are shown.
    assert!(video.end > last.pts, "{name}");
    let mut expected = Vec::new();
    for (at, packet) in packets.iter().enumerate().filter(|(_, packet)| packet.key) {
        let before = packets[..at].iter().map(|packet| packet.pts).max();
        let closed = before.is_none_or(|before| before < packet.pts)
            && packets[at + 1..].iter().all(|later| later.pts > packet.pts);
        if closed && at > 0 {
            let shown_before = packets.iter().map(|packet| packet.pts).filter(|pts| *pts < packet.pts).max();
            assert_eq!(before, shown_before, "{name}");
        }
        let bytes_before = packets[..at].iter().map(|packet| packet.size).sum::<u64>();
        expected.push((packet.pts, before.unwrap_or(packet.pts), closed, bytes_before));
    }
    let found: Vec<_> =
        video.keyframes.iter().map(|key| (key.at, key.before, key.closed, key.bytes_before)).collect();
    assert_eq!(found, expected, "{name}");
}

const SOURCE: &str = "-f lavfi -i testsrc2=size=64x64:rate=25:duration=6";

#[tokio::test]
async fn times_and_keyframes_match_ffprobe() {
    let folder = tempfile::tempdir().unwrap();
    let x264 = "-c:v libx264 -pix_fmt yuv420p";
    for (name, options) in [
        ("closed.mp4", "-preset ultrafast -bf 0 -g 50"),
        ("b_frames.mp4", "-preset fast -g 48"),
        ("b_frames_in_front.mp4", "-preset fast -g 48 -movflags +faststart"),
        ("negative_offsets.mp4", "-preset fast -g 48 -movflags +negative_cts_offsets"),
        ("no_edit_list.mp4", "-preset fast -g 48 -use_editlist 0"),
        ("quicktime.mov", "-preset fast -g 48"),
        ("all_keyframes.mp4", "-preset fast -g 1"),
        // With an edit list FFmpeg 7 makes it too short for the last frame.
        (
            "variable.mp4",
            "-preset fast -g 40 -vf setpts=PTS+0.01*mod(N\\,3)/TB -fps_mode vfr -use_editlist 0",
        ),
        ("late.mp4", "-preset fast -g 40 -output_ts_offset 1.5"),
        ("one_frame.mp4", "-preset fast -frames:v 1"),
        ("coarse_clock.mp4", "-preset fast -video_track_timescale 25"),
    ] {
        let file = clip(&folder, name, &format!("{SOURCE} {x264} {options}"));
        let video = copyable(&file).await;
        assert!(video.closed().count() >= video.keyframes.len().min(2), "{name}");
        agrees(name, &video, &packets(&file, 0));
    }
}

#[tokio::test]
async fn audio_outside_the_video_moves_no_time() {
    let folder = tempfile::tempdir().unwrap();
    let picture = clip(&folder, "picture.mp4", &format!("{SOURCE} -c:v libx264 -preset fast -g 30"));
    let sound = clip(&folder, "sound.mp4", "-f lavfi -i sine=sample_rate=48000:duration=5 -c:a aac");
    let (picture, sound) = (picture.display(), sound.display());
    for (name, inputs, picture_start, primed_samples) in [
        ("both.mp4", format!("-i {sound} -i {picture}"), 0.0, 1024),
        ("picture_late.mp4", format!("-i {sound} -itsoffset 0.5 -i {picture}"), 0.5, 1024),
        // The priming is heard here: the file is made so.
        ("sound_late.mp4", format!("-itsoffset 0.5 -i {sound} -i {picture}"), 0.0, 0),
    ] {
        let file = clip(&folder, name, &format!("{inputs} -map 0 -map 1 -c copy"));
        let index = index(&file).await.unwrap();
        let (at, video) = video_of(&index);
        let video = video.as_ref().unwrap();
        agrees(name, video, &packets(&file, at));
        assert!((video.seconds(video.start()) - picture_start).abs() < 1e-3, "{name}: {video:?}");
        let Content::Audio(Ok(audio)) = &index.track(1).unwrap().content else { panic!("{index:?}") };
        assert_eq!((audio.channels, audio.sample_rate), (1, 48_000), "{name}");
        assert_eq!(audio.primed_samples, primed_samples, "{name}");
        let of_audio = ["-v", "error", "-select_streams", "a", "-of", "csv=p=0", "-show_entries"];
        let ask = |entries| {
            let arguments = [&of_audio[..], &[entries, file.to_str().unwrap()]].concat();
            run("ffprobe", &arguments).trim().parse::<f64>().unwrap()
        };
        let start = ask("stream=start_time");
        assert!((audio.start_seconds - start).abs() < 1e-3, "{name}: {audio:?}");
        let end = start + ask("stream=duration");
        assert!((audio.end_seconds - end).abs() < 1e-3, "{name}: {end} {audio:?}");
    }
}

#[tokio::test]
async fn keyframes_of_open_gops_are_not_boundaries() {
    let folder = tempfile::tempdir().unwrap();
    let options = "-c:v libx264 -preset fast -g 24 -keyint_min 24 -sc_threshold 0";
    let open =
        clip(&folder, "open.mp4", &format!("{SOURCE} {options} -x264-params open-gop=1:b-adapt=0:bframes=3"));
    let packets = packets(&open, 0);
    assert!(packets.iter().filter(|packet| packet.key).count() > 2, "{packets:?}");
    let video = copyable(&open).await;
    agrees("open.mp4", &video, &packets);
    assert_eq!(video.closed().count(), 1, "{video:?}");
    assert_eq!(video.keyframe_times().count(), 1);
}

#[tokio::test]
async fn keyframes_without_refresh_are_detected() {
    let folder = tempfile::tempdir().unwrap();
    let options = "-c:v libx264 -preset fast -bf 0 -g 25 -x264-params intra-refresh=1";
    let file = clip(&folder, "refresh.mp4", &format!("{SOURCE} {options}"));
    let packets = packets(&file, 0);
    assert!(packets.iter().filter(|packet| packet.key).count() > 1, "{packets:?}");
    assert_eq!(why_not(&file).await, "its keyframes need frames before them");
}

#[tokio::test]
async fn tracks_cut_by_edit_lists_are_not_copied() {
    let folder = tempfile::tempdir().unwrap();
    let options = "-c:v libx264 -preset fast -g 50";
    let whole = clip(&folder, "whole.mp4", &format!("{SOURCE} {options}"));
    let whole = whole.to_str().unwrap();
    let cut = clip(&folder, "cut.mp4", &format!("-ss 1 -i {whole} -c copy"));
    assert_eq!(why_not(&cut).await, "its edit list leaves out frames at the start");
    let at_keyframe = clip(&folder, "at_keyframe.mp4", &format!("-ss 2 -i {whole} -c copy"));
    let video = copyable(&at_keyframe).await;
    agrees("at_keyframe.mp4", &video, &packets(&at_keyframe, 0));
}

#[tokio::test]
async fn other_files_have_a_reason_not_to_copy() {
    let folder = tempfile::tempdir().unwrap();
    for (name, options, expected) in [
        ("high10.mp4", "-c:v libx264 -preset fast -pix_fmt yuv420p10le", "its H.264 profile is 110"),
        ("high422.mp4", "-c:v libx264 -preset fast -pix_fmt yuv422p", "its H.264 profile is 122"),
        ("mpeg4.mp4", "-c:v mpeg4", "it is mp4v and not avc1"),
        ("frag.mp4", "-c:v libx264 -movflags +frag_keyframe+empty_moov", "the file is fragmented"),
    ] {
        let file = clip(&folder, name, &format!("{SOURCE} {options}"));
        assert_eq!(why_not(&file).await, expected, "{name}");
    }
    let key = "00112233445566778899aabbccddeeff";
    let encrypted = clip(
        &folder,
        "encrypted.mp4",
        &format!(
            "{SOURCE} -c:v libx264 -encryption_scheme cenc-aes-ctr -encryption_key {key} -encryption_kid {key}"
        ),
    );
    let index_of_encrypted = index(&encrypted).await.unwrap();
    assert!(index_of_encrypted.tracks[0].encrypted);
    assert_eq!(why_not(&encrypted).await, "it is encrypted");

    let matroska = clip(&folder, "matroska.mkv", &format!("{SOURCE} -c:v libx264"));
    assert_eq!(index(&matroska).await, None);
    assert_eq!(index(&folder.path().join("missing.mp4")).await, None);
    let whole = clip(&folder, "whole.mp4", &format!("{SOURCE} -c:v libx264 -movflags +faststart"));
    let bytes = std::fs::read(&whole).unwrap();
    std::fs::write(&whole, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(why_not(&whole).await, "the file ends before its samples do");
}

/// An object behind the loopback server, and the ranges that were read.
async fn served(bytes: Vec<u8>, denied_from: u64) -> (Input, Arc<Mutex<Vec<(u64, u64)>>>) {
    let size = bytes.len() as i64;
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let seen = ranges.clone();
    let head = mock!(Client::head_object)
        .then_output(move || HeadObjectOutput::builder().e_tag("\"abc\"").content_length(size).build());
    let get = mock!(Client::get_object).then_compute_response(move |request| {
        let range = request.range().unwrap().strip_prefix("bytes=").unwrap();
        let (start, last) = range.split_once('-').unwrap();
        let (start, end): (u64, u64) = (start.parse().unwrap(), last.parse::<u64>().unwrap() + 1);
        seen.lock().unwrap().push((start, end));
        if start >= denied_from {
            let meta = ErrorMetadata::builder().code("AccessDenied").message("not yours").build();
            return MockResponse::Error(GetObjectError::generic(meta));
        }
        let body = ByteStream::from(bytes[start as usize..end as usize].to_vec());
        let range = format!("bytes {start}-{last}/{size}");
        MockResponse::Output(GetObjectOutput::builder().content_range(range).body(body).build())
    });
    let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&head, &get]);
    let object = PinnedObject::of_tests(client).await;
    (Input::Served(ServedObject::start(object).await.unwrap()), ranges)
}

#[tokio::test]
async fn an_objects_index_takes_few_reads() {
    let folder = tempfile::tempdir().unwrap();
    let options = "-c:v libx264 -preset ultrafast -g 50";
    let noise = "-f lavfi -i testsrc2=size=320x240:rate=25:duration=6";
    for (flags, most) in [("+faststart", 1), ("-faststart", 3)] {
        let file = clip(&folder, "clip.mp4", &format!("{noise} {options} -movflags {flags}"));
        let bytes = std::fs::read(&file).unwrap();
        assert!(bytes.len() as u64 > 2 * FIRST_READ);
        let (input, ranges) = served(bytes, u64::MAX).await;
        let read = Index::read(&input).await.unwrap();
        assert_eq!(read, index(&file).await);
        let keyframes = video_of(&read.unwrap()).1.as_ref().unwrap().keyframes.len();
        let ranges = ranges.lock().unwrap();
        assert!(ranges.len() <= most + keyframes, "{ranges:?}");
    }
}

#[tokio::test]
async fn an_unreadable_object_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = clip(&folder, "clip.mp4", &format!("{SOURCE} -c:v libx264"));
    let mut bytes = std::fs::read(file).unwrap();
    // A box that puts the rest behind the first read.
    let free = wrap(b"free", &[vec![0; FIRST_READ as usize]]);
    bytes.splice(0..0, free);
    let (input, _) = served(bytes, 1).await;
    let error = Index::read(&input).await.unwrap_err();
    assert_eq!(error.exit(), vidstreamx_job::Exit::Misconfigured, "{error}");
}

/// Id and start in seconds of what ffprobe lists.
fn streams(file: &Path) -> Vec<(u32, f64)> {
    let arguments = ["-v", "error", "-show_entries", "stream=id,start_time", "-of", "csv=p=0:nk=1"];
    let answer = run("ffprobe", &[&arguments[..], &[file.to_str().unwrap()]].concat());
    let lines = answer.lines().map(|line| line.trim_end_matches(',').split_once(','));
    lines
        .flatten()
        .map(|(id, start)| {
            let id = id.strip_prefix("0x").map_or(0, |id| u32::from_str_radix(id, 16).unwrap());
            (id, start.parse().unwrap_or(0.0))
        })
        .collect()
}

/// The files of the corpus, if it is there.
fn corpus() -> Option<Vec<PathBuf>> {
    let folder = std::env::var_os("VIDSTREAMX_CORPUS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"), PathBuf::from);
    let files = std::fs::read_dir(folder).ok()?.map(|entry| entry.unwrap().path());
    Some(files.filter(|file| file.extension().is_some_and(|ext| ext != "tsv" && ext != "md")).collect())
}

#[tokio::test]
async fn copyable_tracks_of_the_corpus_match_ffprobe() {
    let folder = tempfile::tempdir().unwrap();
    let files =
        corpus().unwrap_or_else(|| vec![clip(&folder, "clip.mp4", &format!("{SOURCE} -c:v libx264"))]);
    let mut checked = 0;
    for file in files {
        let Some(index) = index(&file).await else { continue };
        let ids = index.tracks.iter().map(|track| track.id).collect::<Vec<_>>();
        let streams: Vec<_> = streams(&file).into_iter().filter(|(id, _)| *id != 0).collect();
        assert_eq!(ids, streams.iter().map(|(id, _)| *id).collect::<Vec<_>>(), "{}", file.display());
        for (at, track) in index.tracks.iter().enumerate() {
            let start = match &track.content {
                Content::Video(Ok(video)) => {
                    agrees(&file.display().to_string(), video, &packets(&file, at));
                    video.seconds(video.start())
                }
                Content::Audio(Ok(audio)) => audio.start_seconds,
                _ => continue,
            };
            assert!((start - streams[at].1).abs() < 1e-3, "{}: {start} {}", file.display(), streams[at].1);
            checked += 1;
        }
    }
    assert!(checked > 0);
}

fn wrap(kind: &[u8; 4], parts: &[Vec<u8>]) -> Vec<u8> {
    let body = parts.concat();
    let size = u32::try_from(body.len() + 8).unwrap();
    [&size.to_be_bytes()[..], kind, &body].concat()
}

fn atom(atom: &impl Encode) -> Vec<u8> {
    let mut bytes = Vec::new();
    atom.encode(&mut bytes).unwrap();
    bytes
}

/// One video track of 25 frames per second on a clock of 100 ticks, stored in a file of 1000 bytes.
#[derive(Debug, Clone)]
struct Made {
    offsets: Option<Vec<i64>>,
    frames: u32,
    keyframes: Option<Vec<u32>>,
    edits: Vec<(u64, Option<u64>)>,
    chunk: u64,
    size: u32,
    times: Vec<(u32, u32)>,
}

impl Made {
    /// Frames of one byte.
    fn new(frames: u32) -> Self {
        Self {
            offsets: None,
            frames,
            keyframes: Some(vec![1]),
            edits: Vec::new(),
            chunk: 100,
            size: 1,
            times: vec![(frames, 4)],
        }
    }

    fn moov(&self) -> Vec<u8> {
        let avcc = Avcc { ext: None, ..Avcc::new(&[0x67, 77, 0, 31], &[0x68]).unwrap() };
        let entry = wrap(b"avc1", &[vec![0; 78], atom(&avcc)]);
        let one = 1_u32.to_be_bytes().to_vec();
        let entries = self.times.iter().map(|(sample_count, sample_delta)| SttsEntry {
            sample_count: *sample_count,
            sample_delta: *sample_delta,
        });
        let stsc = StscEntry { first_chunk: 1, samples_per_chunk: self.frames, sample_description_index: 1 };
        let mut stbl = vec![
            wrap(b"stsd", &[vec![0; 4], one, entry]),
            atom(&Stts { entries: entries.collect() }),
            atom(&Stsc { entries: vec![stsc] }),
            atom(&Stsz { samples: StszSamples::Identical { count: self.frames, size: self.size } }),
            atom(&Co64 { entries: vec![self.chunk] }),
        ];
        if let Some(offsets) = &self.offsets {
            let entry = |offset: &i64| CttsEntry { sample_count: 1, sample_offset: *offset };
            stbl.push(atom(&Ctts { entries: offsets.iter().map(entry).collect() }));
        }
        if let Some(keyframes) = &self.keyframes {
            stbl.push(atom(&Stss { entries: keyframes.clone() }));
        }
        let edits = self.edits.iter().map(|(segment_duration, media_time)| ElstEntry {
            segment_duration: *segment_duration,
            media_time: *media_time,
            media_rate: 1.into(),
        });
        let hdlr = mp4_atom::Hdlr { handler: b"vide".into(), name: String::new() };
        let mdhd = Mdhd { timescale: 100, language: "und".into(), ..Default::default() };
        let minf = wrap(b"minf", &[wrap(b"stbl", &stbl)]);
        let trak = [
            atom(&Tkhd { track_id: 7, ..Default::default() }),
            wrap(b"edts", &[atom(&Elst { entries: edits.collect() })]),
            wrap(b"mdia", &[atom(&mdhd), atom(&hdlr), minf]),
        ];
        let mvhd = Mvhd { timescale: 1000, ..Default::default() };
        [atom(&mvhd), wrap(b"trak", &trak)].concat()
    }

    fn video(&self) -> Result<CopyableVideo, String> {
        let index = Index::of_moov(&self.moov(), 1000).unwrap();
        let Content::Video(video) = index.track(7).unwrap().content.clone() else { panic!("{index:?}") };
        video.map_err(|why| why.to_string())
    }

    fn times(&self) -> Vec<(i64, i64, bool)> {
        self.video().unwrap().keyframes.iter().map(|key| (key.at, key.before, key.closed)).collect()
    }
}

#[test]
fn a_keyframe_is_closed_if_no_frame_crosses_it() {
    // Stored I P B I P B, shown I B P I B P.
    let closed = Made { offsets: Some(vec![4, 8, 0, 4, 8, 0]), keyframes: Some(vec![1, 4]), ..Made::new(6) };
    assert_eq!(closed.times(), [(4, 4, true), (16, 12, true)]);
    assert_eq!(closed.video().unwrap().end, 28);
    // Stored I P I B P P: the B is shown before the second I.
    let open = Made { offsets: Some(vec![0, 0, 4, -4, 0, 0]), keyframes: Some(vec![1, 3]), ..Made::new(6) };
    assert_eq!(open.times(), [(0, 0, true), (12, 4, false)]);
    // Stored I P I P: the first P is shown after the second I.
    let across = Made { offsets: Some(vec![0, 8, 0, 4]), keyframes: Some(vec![1, 3]), ..Made::new(4) };
    assert_eq!(across.times(), [(0, 0, true), (8, 12, false)]);
}

#[test]
fn quicktime_composition_offsets_are_signed_in_all_versions() {
    // Stored I P B, shown I B P.
    let minus_four = (1 << 32) - 4;
    let made = Made { offsets: Some(vec![0, 4, minus_four]), keyframes: Some(vec![1, 3]), ..Made::new(3) };
    assert_eq!(made.times(), [(0, 0, true), (4, 8, false)]);
}

#[test]
fn a_last_frame_without_duration_gets_the_previous_one() {
    assert_eq!(Made { times: vec![(2, 4), (1, 0)], ..Made::new(3) }.video().unwrap().end, 12);
    assert_eq!(Made { times: vec![(1, 0)], ..Made::new(1) }.video().unwrap().end, 1);
}

#[test]
fn without_stss_every_frame_is_a_keyframe() {
    assert_eq!(Made { keyframes: None, ..Made::new(2) }.times(), [(0, 0, true), (4, 0, true)]);
}

#[test]
fn edit_lists_pause_and_shift() {
    let made = |edits: &[(u64, Option<u64>)]| Made {
        offsets: Some(vec![8; 3]),
        keyframes: Some(vec![1, 3]),
        edits: edits.to_vec(),
        ..Made::new(3)
    };
    let starts = |edits: &[_]| made(edits).times().iter().map(|times| times.0).collect::<Vec<_>>();
    assert_eq!(starts(&[]), [8, 16]);
    assert_eq!(starts(&[(120, Some(8))]), [0, 8]);
    assert_eq!(starts(&[(120, Some(8))]), starts(&[(200, Some(4))]), "as FFmpeg does");
    assert_eq!(starts(&[(500, None), (120, Some(8))]), [50, 58]);
    for (edits, expected) in [
        (&[(120, Some(9))][..], "its edit list leaves out frames at the start"),
        (&[(80, Some(8))], "its edit list leaves out frames at the end"),
        (&[(0, Some(8))], "its edit list leaves out frames at the end"),
        (&[(120, None)], "its edit list has several parts"),
        (&[(40, Some(8)), (80, Some(12))], "its edit list has several parts"),
        (&[(120, Some(u64::MAX >> 1))], "its edit list shows nothing"),
    ] {
        assert_eq!(made(edits).video().unwrap_err(), expected, "{edits:?}");
    }
}

#[test]
fn contradicting_tables_are_not_copied() {
    let good = Made { keyframes: Some(vec![1, 3]), ..Made::new(5) };
    assert_eq!(good.video().unwrap().bytes, 5);
    for (made, expected) in [
        (Made { chunk: 996, ..good.clone() }, "the file ends before its samples do"),
        (Made { chunk: u64::MAX - 1, ..good.clone() }, "the file ends before its samples do"),
        (
            Made { keyframes: Some(vec![2, 3]), ..good.clone() },
            "its first frame is not a keyframe of its own",
        ),
        (Made { keyframes: Some(vec![]), ..good.clone() }, "its first frame is not a keyframe of its own"),
        (Made { keyframes: Some(vec![1, 1]), ..good.clone() }, "its keyframes are not in order"),
        (Made { times: vec![(4, 4)], ..good.clone() }, "the number of its times is not that of its samples"),
        (Made { times: vec![(3, 0), (2, 4)], ..good.clone() }, "some of its frames take no time"),
        (Made { times: vec![(5, u32::MAX)], ..good.clone() }, "its times go backwards"),
        (
            Made { offsets: Some(vec![6, 0, 0, 0, 0]), ..good.clone() },
            "its first frame is not a keyframe of its own",
        ),
        (
            Made { offsets: Some(vec![0, 8, 4, 0, 0]), ..good.clone() },
            "two of its frames are shown at the same time",
        ),
        (Made::new(0), "it has 0 samples"),
        (Made::new(u32::MAX), "it has 4294967295 samples"),
    ] {
        let made = Made { size: 1, ..made };
        assert_eq!(made.video().unwrap_err(), expected, "{made:?}");
    }
}

#[test]
fn one_video_track_is_copyable_and_ids_are_unique() {
    let (moov, other) = (Made::new(3).moov(), Made::new(2).moov());
    let trak = boxes(&other).find(|(kind, _)| kind == b"trak").unwrap().1.to_vec();
    let index = Index::of_moov(&[moov, wrap(b"trak", &[trak])].concat(), 1000).unwrap();
    assert!(index.tracks[0].is_copyable_video());
    assert_eq!(index.tracks[1].content, Content::Video(why("another video track precedes it")));
    assert_eq!(index.track(7), None);
}

#[test]
fn samples_of_all_tracks_are_bounded() {
    let track = Made::new(MOST_SAMPLES).moov();
    let trak = wrap(b"trak", &[boxes(&track).find(|(kind, _)| kind == b"trak").unwrap().1.to_vec()]);
    let index = Index::of_moov(&[track, trak.repeat(9)].concat(), 1000).unwrap();
    let reasons = index.tracks.iter().filter(|track| {
        matches!(&track.content, Content::Video(Err(why)) if why.0 == "the file has too many samples")
    });
    assert_eq!((index.tracks.len(), reasons.count()), (10, 6));
}

#[test]
fn peak_rate_covers_two_seconds_and_average_all() {
    // 2 s of 50 bytes, then 1 s and 1 s of 25 bytes each, then 0.4 s of 10.
    let made = Made { keyframes: Some(vec![1, 51, 76, 101]), ..Made::new(110) };
    let video = made.video().unwrap();
    assert_eq!((video.average_bitrate(), video.peak_bitrate()), (200, 200));
    let half_as_fast = Made { times: vec![(50, 4), (60, 8)], ..made };
    let video = half_as_fast.video().unwrap();
    assert_eq!(video.peak_bitrate(), 200);
    assert_eq!(video.average_bitrate(), 129);
    // Shorter than two seconds.
    assert_eq!(Made::new(25).video().unwrap().peak_bitrate(), 200);
}

#[test]
fn parameter_sets_are_distinguished_by_id() {
    let avcc = |sps: &[u8], pps: &[u8]| Avcc { length_size: 4, ..Avcc::new(sps, pps).unwrap() };
    let sps = [0x67, 0x64, 0x00, 0x28, 0xac, 0xd9];
    // As x264 has it, by default and with the number 31.
    assert!(accepts_encoded_prefix(&avcc(&sps, &[0x68, 0xeb, 0xe3])));
    assert!(!accepts_encoded_prefix(&avcc(&sps, &[0x68, 0x04, 0x1f])));
    assert!(!accepts_encoded_prefix(&avcc(&[0x67, 0x64, 0x00, 0x28, 0x04, 0x1f], &[0x68, 0xeb, 0xe3])));
    assert!(!accepts_encoded_prefix(&avcc(&sps, &[0x68])), "broken off");
    let mut full = avcc(&sps, &[0x68, 0xeb, 0xe3]);
    full.sequence_parameter_sets = vec![sps.to_vec(); 31];
    assert!(!accepts_encoded_prefix(&full), "no room");
    assert!(!accepts_encoded_prefix(&Avcc { length_size: 2, ..avcc(&sps, &[0x68, 0xeb, 0xe3]) }));
    assert_eq!(
        [[0x80, 0], [0x40, 0], [0x60, 0], [0x20, 0], [0x04, 0x00], [0, 0]].map(|code| ue(&code, 0)),
        [Some(0), Some(1), Some(2), Some(3), Some(31), None]
    );
}

#[test]
fn only_instantaneous_refreshes_count() {
    let nal = |header: u8, length: usize| {
        [&u32::try_from(length).unwrap().to_be_bytes()[..], &[header], &vec![0; length - 1]].concat()
    };
    let (settings, refresh, slice) = (nal(6, 700), nal(0x65, 9), nal(0x41, 9));
    assert!(refreshes(&[settings.clone(), refresh.clone()].concat(), 4));
    assert!(refreshes(&refresh[..5], 4));
    for other in [[settings.clone(), slice, refresh].concat(), settings[..300].to_vec(), vec![], vec![0; 64]]
    {
        assert!(!refreshes(&other, 4));
    }
}

#[test]
fn audio_specific_configs() {
    assert_eq!(aac_lc(&[0x11, 0x90]), Ok((2, 48_000)));
    assert_eq!(aac_lc(&[0x12, 0x08, 0x56, 0xe5, 0x00]), Ok((1, 44_100)), "FFmpeg's own");
    for (config, expected) in [
        (&[0x13, 0x90, 0x56, 0xe5, 0xa0][..], "its AAC is of the HE kind"),
        (&[0x2b, 0x92, 0x08, 0x00], "its AAC is not of the LC kind"),
        (&[0x11, 0x80], "its channels are in an unusual order"),
        (&[0x17, 0x90], "its sample rate is unusual"),
        (&[0x11, 0x94], "its AAC is unusual"),
        (&[], "its AAC is not of the LC kind"),
    ] {
        assert_eq!(aac_lc(config).unwrap_err().to_string(), expected, "{config:x?}");
    }
}

#[test]
fn deeply_nested_boxes_are_not_followed() {
    for kind in [b"moov", b"trak", b"udta", b"meta"] {
        let nested = (0..100_000).fold(Vec::new(), |inner, _| {
            // Built from the inside would take quadratic time: sizes do not have to fit.
            let mut outer: Vec<u8> = inner;
            outer.extend_from_slice(&[0, 0, 0, 0]);
            outer.extend_from_slice(kind);
            outer
        });
        assert!(Index::of_moov(&[Made::new(3).moov(), nested].concat(), 1000).is_some());
    }
    // Descriptors in descriptors.
    let esds = [0x03, 0x80, 0x80, 0x80, 0x7f, 0, 0, 0].repeat(1 << 20);
    let entry = wrap(b"mp4a", &[vec![0; 28], wrap(b"esds", &[vec![0; 4], esds])]);
    let movie = Movie { timescale: 1, fragmented: false, priming_tag: false, file_size: 1 };
    assert_eq!(
        audio(&entry, || why("no tables"), &movie).unwrap_err().to_string(),
        "its description is too long"
    );
}

fn made() -> impl Strategy<Value = Made> {
    (1_u32..40).prop_flat_map(|frames| {
        let offsets = proptest::option::of(proptest::collection::vec(-2_i64..6, frames as usize));
        let keyframes = proptest::option::of(proptest::collection::btree_set(1..=frames, 1..6));
        (offsets, keyframes, Just(frames)).prop_map(|(offsets, keyframes, frames)| Made {
            offsets: offsets.map(|offsets| offsets.iter().map(|offset| offset * 4).collect()),
            keyframes: keyframes.map(|mut keyframes| {
                keyframes.insert(1);
                keyframes.into_iter().collect()
            }),
            ..Made::new(frames)
        })
    })
}

/// A real file with sound, to be damaged, up to the end of its `moov`.
static REAL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let sound = "-f lavfi -i sine=sample_rate=48000:duration=5";
    let file = clip(&folder, "real.mp4", &format!("{SOURCE} {sound} -c:v libx264 -c:a aac -g 30"));
    let bytes = std::fs::read(file).unwrap();
    let (_, moov) = boxes(&bytes).find(|(kind, _)| kind == b"moov").unwrap();
    moov.to_vec()
});

proptest! {
    #[test]
    fn damaged_files_do_not_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut moov = REAL.clone();
        for (at, byte) in changes {
            let at = at.index(moov.len());
            moov[at] = byte;
        }
        let _ = Index::of_moov(&moov, u64::MAX);
    }

    #[test]
    fn closed_keyframes_divide_the_frames(made in made()) {
        if let Ok(video) = made.video() {
            let offsets = made.offsets.clone().unwrap_or_else(|| vec![0; made.frames as usize]);
            let shown: Vec<_> = (0..).step_by(4).zip(&offsets).map(|(at, offset)| at + offset).collect();
            for keyframe in &video.keyframes {
                let at = keyframe.bytes_before as usize;
                prop_assert_eq!(keyframe.at, shown[at]);
                let divides = shown[..at].iter().all(|other| *other < shown[at])
                    && shown[at + 1..].iter().all(|other| *other > shown[at]);
                prop_assert_eq!(keyframe.closed, divides);
            }
        }
    }

    #[test]
    fn random_bytes_do_not_panic(
        mut moov in made().prop_map(|made| made.moov()),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        for (at, byte) in changes {
            let at = at.index(moov.len());
            moov[at] = byte;
        }
        let _ = Index::of_moov(&moov, 1000);
        moov.truncate(cut.index(moov.len()));
        let _ = Index::of_moov(&moov, u64::MAX);
    }

    #[test]
    fn random_boxes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Index::of_moov(&bytes, 1000);
        let _ = refreshes(&bytes, 4);
        let _ = aac_lc(&bytes);
    }
}
