use std::{cell::Cell, collections::BTreeMap, path::Path};

use mp4_atom::{Tfdt, Tfhd, Traf, Trun, TrunEntry, TrunSamples};

use vidstreamx_isobmff::fragment::IS_NON_SYNC;

use super::*;
use crate::{
    fixtures::{ffmpeg, folder_store, run},
    package::segmenter::{self, Output, SegmentationRules},
    plan::segmentation::Boundaries,
};

const FRAGMENTS: &str = "-movflags +empty_moov+default_base_moof+skip_sidx+frag_discont\
                         +negative_cts_offsets -avoid_negative_ts disabled -f mp4 pipe:1";

/// Runs FFmpeg with the arguments, and publishes its output in segments of a second.
async fn publish(store: &Store, folder: &str, language: Option<&str>, arguments: &str) -> Part {
    let fragments = ffmpeg(&format!("{arguments} {FRAGMENTS}"));
    let boundaries = Boundaries::every(1.0, 25.0, 0.0);
    let rules = SegmentationRules { boundaries, end_seconds: 0.0, repeats_at_odd_ticks: false };
    let outputs: Vec<_> = segmenter::outputs(fragments.as_slice(), rules, 0).try_collect().await.unwrap();
    let segments = outputs.len() - 1;
    for output in outputs {
        let (name, bytes) = match output {
            Output::Init(init) => (file_names::INIT_NAME.to_owned(), init.bytes),
            Output::Segment(segment) => (file_names::segment_name(segment.number), segment.bytes),
        };
        store.put(&format!("{folder}/{name}"), CachePolicy::Immutable("video/mp4"), bytes).await.unwrap();
    }
    Part {
        folder: folder.into(),
        segments,
        language: language.map(str::to_owned),
        label: language.map(|language| format!("In {language}")).unwrap_or_default(),
    }
}

/// Frames at 0 s and from 2 s to 4 s, so that the largest composition offset is not in the first fragment.
async fn publish_rung(store: &Store) -> Part {
    publish(
        store,
        "job/video/64p",
        None,
        "-f lavfi -i testsrc2=size=64x64:rate=25:duration=4 -vf select='eq(n,0)+gte(t,2)' -fps_mode vfr \
         -c:v libx264 -bf 3 -g 1000 -force_key_frames expr:gte(t,n_forced) -movflags +frag_keyframe",
    )
    .await
}

async fn publish_audio(store: &Store, language: &str, begins: f64) -> Part {
    publish(
        store,
        &format!("job/audio/{language}"),
        Some(language),
        &format!(
            "-itsoffset {begins} -f lavfi -i sine=sample_rate=48000:duration=3 -c:a aac \
             -bsf:a noise=drop='lt(pts,{begins}*48000)' -frag_duration 250000"
        ),
    )
    .await
}

/// Runs ffprobe on a file; FFmpeg's reader must not complain.
fn probe(file: &Path, arguments: &str) -> String {
    let arguments = format!("-loglevel error -of csv=p=0 {arguments} {}", file.display());
    let output = run("ffprobe", &arguments.split(' ').collect::<Vec<_>>(), b"");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The sorted presentation times of the samples of each track.
async fn times(file: &Path) -> BTreeMap<usize, Vec<f64>> {
    let mut times: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for line in probe(file, "-show_entries packet=stream_index,pts_time").lines() {
        let mut fields = line.split(',');
        let track = fields.next().unwrap().parse().unwrap();
        times.entry(track).or_default().push(fields.next().unwrap().parse().unwrap());
    }
    for track in times.values_mut() {
        track.sort_by(f64::total_cmp);
    }
    times
}

#[tokio::test]
async fn every_sample_keeps_the_presentation_time_of_its_segment() {
    let (folder, store) = folder_store();
    let parts = [
        publish_rung(&store).await,
        publish_audio(&store, "eng", 0.0).await,
        publish_audio(&store, "deu", 1.5).await,
    ];
    let path = "job/mp4/64p.mp4";
    let read = Cell::new(0);
    let mp4 = remux(&store, &parts, path, |bytes| read.set(read.get() + bytes)).await.unwrap();
    let file = folder.path().join(path);
    let bytes = Bytes::from(std::fs::read(&file).unwrap());
    assert_eq!(mp4.bytes, bytes.len() as u64);
    let paths = parts.iter().flat_map(|part| (0..part.segments).map(|number| segment_path(part, number)));
    let segments: u64 = paths.map(|path| std::fs::metadata(folder.path().join(path)).unwrap().len()).sum();
    assert_eq!(read.get(), 2 * segments);
    let order: Vec<_> =
        boxes(&bytes).unwrap().into_iter().map(|(kind, _)| kind.escape_ascii().to_string()).collect();
    assert_eq!(order, ["ftyp", "moov", "mdat"]);

    let times = times(&file).await;
    let frame_times: Vec<_> = [0.0].into_iter().chain((50..100).map(|n| f64::from(n) / 25.0)).collect();
    assert_eq!(times[&0].len(), frame_times.len());
    for (shown, expected) in times[&0].iter().zip(frame_times) {
        assert!((shown - expected).abs() < 0.001, "{shown} instead of {expected}");
    }
    for (track, begins) in [(1, 0.0), (2, 1.5)] {
        let audio = &times[&track];
        // FFmpeg rounds a delay to whole audio frames: at most 21 ms.
        assert!((audio[0] - begins).abs() < 0.022, "{} instead of {begins}", audio[0]);
        let frames = audio.windows(2).all(|two| (two[1] - two[0] - 1024.0 / 48_000.0).abs() < 0.001);
        assert!(frames && (140..=142).contains(&audio.len()), "{audio:?}");
    }

    // Samples that are shown together are stored together.
    let (_, moov) = boxes(&bytes).unwrap().swap_remove(1);
    let moov = Moov::decode_body(&mut moov.as_ref()).unwrap();
    let place = |track: usize, chunk: usize| {
        moov.trak[track].mdia.minf.stbl.stco.as_ref().map(|stco| stco.entries[chunk]).unwrap()
    };
    let places = [place(0, 0), place(1, 0), place(1, 1), place(2, 0), place(0, 1)];
    assert!(places.is_sorted(), "{places:?}");

    let streams = "-show_entries stream=codec_type:stream_tags=language,handler_name\
                   :stream_disposition=default";
    insta::assert_snapshot!(probe(&file, streams), @"
    video,1,und,VideoHandler
    audio,1,eng,In eng
    audio,0,deu,In deu
    ");
}

#[tokio::test]
async fn decoded_frames_equal_those_of_the_segments() {
    let (folder, store) = folder_store();
    let parts = [publish_rung(&store).await, publish_audio(&store, "eng", 0.0).await];
    remux(&store, &parts, "all.mp4", |_| ()).await.unwrap();
    for (stream, part) in parts.iter().enumerate() {
        let mut segments = std::fs::read(folder.path().join(&part.folder).join("init.mp4")).unwrap();
        for number in 0..part.segments {
            segments.extend(std::fs::read(folder.path().join(segment_path(part, number))).unwrap());
        }
        let published = folder.path().join("published.mp4");
        std::fs::write(&published, segments).unwrap();
        let decoded = |file: &Path, stream: usize| {
            let frames = format!("-map 0:{stream} -fps_mode passthrough -f framehash -hash md5 -");
            let lines = String::from_utf8(ffmpeg(&format!("-i {} {frames}", file.display()))).unwrap();
            let hashes = lines.lines().filter(|line| !line.starts_with('#'));
            hashes.filter_map(|line| line.rsplit(',').next().map(str::to_owned)).collect::<Vec<_>>()
        };
        let expected = decoded(&published, 0);
        assert!(expected.len() > 50);
        assert_eq!(decoded(&folder.path().join("all.mp4"), stream), expected);
    }
}

#[tokio::test]
async fn a_missing_or_invalid_segment_fails_without_a_file() {
    let (folder, store) = folder_store();
    let rung = publish_rung(&store).await;
    let one_more = Part { segments: rung.segments + 1, ..rung.clone() };
    let error = remux(&store, &[one_more], "mp4/64p.mp4", |_| ()).await.unwrap_err();
    assert!(error.to_string().ends_with("seg-00003.m4s was published and is gone or has changed"), "{error}");
    assert_eq!(error.exit(), Exit::Transient);

    let segment = segment_path(&rung, 1);
    let whole = store.get(&segment).await.unwrap().unwrap();
    for broken in [whole.slice(..whole.len() - 1), Bytes::from_static(b"rubbish rubbish"), Bytes::new()] {
        store.put(&segment, CachePolicy::Immutable("video/mp4"), broken).await.unwrap();
        let error = remux(&store, std::slice::from_ref(&rung), "mp4/64p.mp4", |_| ()).await.unwrap_err();
        assert!(matches!(&error, Mp4Error::Segment { path, .. } if *path == segment), "{error}");
        assert_eq!(error.exit(), Exit::Internal);
    }
    assert!(!folder.path().join("mp4").exists());
}

#[tokio::test]
async fn a_segment_that_changes_during_the_remux_is_an_error() {
    let (_folder, store) = folder_store();
    let rung = publish_rung(&store).await;
    let chunk =
        |bytes| RemuxChunk { track: 0, path: segment_path(&rung, 0), start_seconds: 0.0, bytes, samples: 1 };
    let error = samples(&store, &[chunk(1)], &|_| ()).try_collect::<Vec<_>>().await.unwrap_err();
    assert!(matches!(error, Mp4Error::Gone(_)), "{error}");
}

fn track() -> RemuxTrack {
    let defaults = SampleDefaults { duration: 100, size: 10, flags: 0 };
    let mut trak = Trak::default();
    trak.mdia.mdhd.timescale = 1000;
    RemuxTrack { trak, defaults, start_ticks: 0, ticks: 0, samples: Vec::new() }
}

fn fragment(start: u64, offsets: &[i64]) -> Moof {
    let entry = |offset: &i64| TrunEntry { cts: Some(*offset), ..TrunEntry::default() };
    let samples = TrunSamples::Explicit(offsets.iter().map(entry).collect());
    let traf = Traf {
        tfhd: Tfhd::default(),
        tfdt: Some(Tfdt { base_media_decode_time: start }),
        trun: vec![Trun { data_offset: None, samples }],
        ..Traf::default()
    };
    Moof { traf: vec![traf], ..Moof::default() }
}

#[test]
fn a_gap_between_fragments_prolongs_the_previous_sample() {
    let mut track = track();
    track.add_fragment(&fragment(500, &[0, 0])).unwrap();
    track.add_fragment(&fragment(1000, &[0])).unwrap();
    let ticks: Vec<_> = track.samples.iter().map(|sample| sample.ticks).collect();
    assert_eq!((ticks, track.ticks), (vec![100, 400, 100], 600));
    assert!(track.add_fragment(&fragment(900, &[0])).is_err());
    assert!(track.add_fragment(&fragment(u64::MAX, &[0])).is_err());
}

#[test]
fn samples_are_shown_after_decoding_and_on_time() {
    let mut track = track();
    // Shown at 500, 800, 600, 700.
    track.add_fragment(&fragment(500, &[0, 200, -100, -100])).unwrap();
    let times = TrackTimes { delay: 100, start: 500, media_start: 100, duration: 400 };
    assert_eq!(track.times(), times);
    let moov = movie(&[track], &[], 0);
    let stbl = &moov.trak[0].mdia.minf.stbl;
    let offsets: Vec<_> = stbl.ctts.iter().flat_map(|ctts| &ctts.entries).collect();
    let runs: Vec<_> = offsets.iter().map(|entry| (entry.sample_count, entry.sample_offset)).collect();
    assert_eq!(runs, [(1, 100), (1, 300), (2, 0)]);
    assert_eq!(moov.mvhd.duration, 900);
}

#[test]
fn sync_samples_are_those_of_the_segments() {
    let sync = |flags: &[u32]| {
        let mut track = track();
        let entry = |flags: &u32| TrunEntry { flags: Some(*flags), ..TrunEntry::default() };
        let mut moof = fragment(0, &[]);
        moof.traf[0].trun[0].samples = TrunSamples::Explicit(flags.iter().map(entry).collect());
        track.add_fragment(&moof).unwrap();
        movie(&[track], &[], 0).trak[0].mdia.minf.stbl.stss.as_ref().map(|stss| stss.entries.clone())
    };
    assert_eq!(sync(&[0, IS_NON_SYNC, IS_NON_SYNC, 0, IS_NON_SYNC]), Some(vec![1, 4]));
    assert_eq!(sync(&[0, 0]), None);
}

#[test]
fn samples_beyond_four_gigabytes_are_found() {
    let chunk =
        |track, bytes| RemuxChunk { track, path: String::new(), start_seconds: 0.0, bytes, samples: 7 };
    let chunks = [chunk(0, 5 << 30), chunk(1, 1000), chunk(1, 1000), chunk(0, 1)];
    let (stsc, short, long) = chunk_tables(1, &chunks, 100);
    assert_eq!(stsc.entries.len(), 1);
    assert_eq!((short, long), (None, Some(Co64 { entries: vec![(5 << 30) + 100, (5 << 30) + 1100] })));
    let (_, short, _) = chunk_tables(1, &chunks[1..], 100);
    assert_eq!(short, Some(Stco { entries: vec![100, 1100] }));
    let head = head(&[], &chunks).unwrap();
    // A box of more than 4 GiB has size 1, and its real size after its type.
    assert_eq!(head[head.len() - 16..head.len() - 8], *b"\0\0\0\x01mdat");
}
