use futures::TryStreamExt;
use tokio::io::AsyncWriteExt;

use crate::{
    fixtures::{clip, ffmpeg},
    package::splice::outputs_after_prefix,
};

use super::*;

const RULES: SegmentationRules = SegmentationRules {
    boundaries: Boundaries::Every { seconds: 1.0, tolerance_seconds: 0.02, merged: None },
    end_seconds: 0.0,
    repeats_at_odd_ticks: false,
};

/// The interval that begins at two seconds. The first intervals are shorter than a second.
const TWO_SECONDS: i64 = 5;

async fn outputs_of(arguments: &str) -> Vec<Output> {
    outputs(fragmented_mp4(arguments).as_slice(), RULES, 0).try_collect().await.unwrap()
}

fn fragmented_mp4(arguments: &str) -> Vec<u8> {
    ffmpeg(&format!("{arguments} -f mp4 pipe:1"))
}

fn split(outputs: Vec<Output>) -> (Init, Vec<Segment>) {
    let mut outputs = outputs.into_iter();
    let Some(Output::Init(init)) = outputs.next() else { panic!("no init segment") };
    let segments = outputs.map(|output| match output {
        Output::Segment(segment) => segment,
        Output::Init(_) => panic!("a second init segment"),
    });
    (init, segments.collect())
}

#[tokio::test]
async fn video_is_segmented_at_keyframes_without_loss() {
    let (init, segments) = split(
        outputs_of(
            "-f lavfi -i testsrc2=size=64x64:rate=25:duration=2.6 -c:v libx264 -g 25 -sc_threshold 0 \
             -movflags +frag_keyframe+empty_moov+default_base_moof+negative_cts_offsets",
        )
        .await,
    );
    assert!(init.codecs.starts_with("avc1.64"), "{}", init.codecs);
    let frame = u64::from(init.timescale) / 25;
    let timeline: Vec<_> = segments
        .iter()
        .map(|s| (s.number, s.start_ticks / frame, s.duration_ticks / frame, s.samples))
        .collect();
    assert_eq!(timeline, [(0, 0, 25, 25), (1, 25, 25, 25), (2, 50, 15, 15)]);
    for segment in &segments {
        assert!(segment.starts_with_keyframe);
        // The bytes after `key_bytes` are the other frames.
        let mdat = segment.bytes.windows(4).position(|four| four == b"mdat").unwrap() as u64 + 4;
        assert!(mdat < segment.key_bytes && segment.key_bytes < segment.bytes.len() as u64);
    }
}

#[tokio::test]
async fn a_copied_track_whose_parameter_sets_change_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let part = |name: &str, size: &str| {
        let source = format!("-f lavfi -i testsrc2=size={size}:rate=25:duration=1");
        clip(&folder, name, &format!("{source} -c:v libx264 -bf 0 -pix_fmt yuv420p")).display().to_string()
    };
    let (small, large) = (part("small.ts", "64x64"), part("large.ts", "128x64"));
    let flags = "-c copy -movflags +frag_keyframe+empty_moov+default_base_moof";
    let outputs_of = async |first: &str, second: &str| {
        let bytes = fragmented_mp4(&format!("-i concat:{first}|{second} {flags}"));
        outputs(bytes.as_slice(), RULES, 0).try_collect::<Vec<_>>().await
    };
    // An init segment and a segment per second.
    assert_eq!(outputs_of(&small, &small).await.unwrap().len(), 3);
    let error = outputs_of(&small, &large).await.unwrap_err();
    assert_eq!(error.to_string(), "the track changes its parameter sets");
}

/// An encoded prefix of two seconds in black, and a copied rest of three seconds in white.
fn prefix_and_rest(prefix_arguments: &str) -> (Vec<u8>, Vec<u8>) {
    let encoded = "-pix_fmt yuv420p -g 25 -sc_threshold 0 -video_track_timescale 25 \
                   -movflags +frag_keyframe+empty_moov+default_base_moof+negative_cts_offsets+frag_discont \
                   -avoid_negative_ts disabled -c:v";
    let encoded_prefix =
        format!("-f lavfi -i color=black:size=64x64:rate=25:duration=2 {encoded} {prefix_arguments}");
    let rest = format!(
        "-f lavfi -i color=white:size=64x64:rate=25:duration=3 -vf setpts=PTS+2/TB {encoded} libx264 \
         -preset ultrafast"
    );
    (fragmented_mp4(&encoded_prefix), fragmented_mp4(&rest))
}

async fn joined(encoded_prefix: &[u8], until: i64, rest: &[u8]) -> Result<Vec<Output>, CmafError> {
    outputs_after_prefix(encoded_prefix, until, rest, RULES, 0).try_collect().await
}

#[tokio::test]
async fn an_encoded_prefix_and_a_copied_rest_make_one_rendition() {
    let (encoded_prefix, rest) = prefix_and_rest("libx264 -preset fast -x264-params sps-id=31");
    let (init, segments) = split(joined(&encoded_prefix, TWO_SECONDS, &rest).await.unwrap());
    // The profile is High, as in the encoded prefix. The rest is Baseline.
    assert!(init.codecs.starts_with("avc1.64"), "{}", init.codecs);
    let timeline: Vec<_> = segments.iter().map(|s| (s.number, s.start_ticks, s.samples)).collect();
    assert_eq!(timeline, [(0, 0, 25), (1, 25, 25), (2, 50, 25), (3, 75, 25), (4, 100, 25)]);
    for (segment, is_white) in segments.iter().zip([false, false, true, true, true]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alone.mp4");
        std::fs::write(&path, [&init.bytes[..], &segment.bytes].concat()).unwrap();
        let decode = format!("-xerror -i {} -f rawvideo -pix_fmt gray pipe:1", path.display());
        let pixels = ffmpeg(&decode);
        assert_eq!(pixels.len(), 25 * 64 * 64);
        assert!(pixels.iter().all(|pixel| (*pixel > 128) == is_white), "segment {}", segment.number);
    }
    // An attempt that resumes after the encoded prefix gets only the rest.
    let (alone, _) = split(outputs(rest.as_slice(), RULES, 0).try_collect().await.unwrap());
    assert_ne!(alone, init);
    assert_eq!(alone.with_parameter_sets_of(&init).unwrap(), init);
}

#[tokio::test]
async fn an_incomplete_encoded_prefix_is_an_error() {
    let (encoded_prefix, rest) = prefix_and_rest("libx264");
    for (encoded_prefix, until) in [
        (&encoded_prefix[..], 6),
        (&encoded_prefix[..], 4),
        (&encoded_prefix[..encoded_prefix.len() / 2], TWO_SECONDS),
    ] {
        joined(encoded_prefix, until, &rest).await.unwrap_err();
    }
    let (encoded_prefix, rest) = prefix_and_rest("libx264 -s 32x32");
    assert!(matches!(
        joined(&encoded_prefix, TWO_SECONDS, &rest).await,
        Err(CmafError::Splice("their sizes differ"))
    ));
}

#[tokio::test]
async fn variable_frame_rate_decodes_in_presentation_order() {
    // Frames last 40 ms and 1 s, and are reordered.
    let (init, segments) = split(
        outputs_of(
            "-f lavfi -i testsrc2=size=64x64:rate=25:duration=8 \
             -vf select='lt(n,20)+not(mod(n,25))' -fps_mode vfr -enc_time_base 1:1000 \
             -c:v libx264 -bf 3 -b_strategy 0 -g 1000 -video_track_timescale 1000 \
             -movflags +frag_keyframe+empty_moov+default_base_moof+frag_discont+negative_cts_offsets \
             -avoid_negative_ts disabled",
        )
        .await,
    );
    assert_eq!((init.timescale, segments.len()), (1000, 1));
    let segment = &segments[0];
    assert_eq!((segment.start_ticks, segment.samples), (0, 27));
    let mut moof = segment.bytes.as_ref();
    let moof = Moof::decode(&mut moof).unwrap();
    let traf = &moof.traf[0];
    let mut decoded = traf.tfdt.as_ref().unwrap().base_media_decode_time;
    let mut shown = Vec::new();
    let mut all_decoded = Vec::new();
    for sample in traf.trun[0].samples.iter() {
        all_decoded.push(decoded);
        shown.push(decoded.checked_add_signed(sample.cts.unwrap()).unwrap());
        decoded += u64::from(sample.duration.unwrap());
    }
    assert_ne!(shown, all_decoded, "frames are reordered");
    shown.sort_unstable();
    assert_eq!(shown, all_decoded);
    let expected: Vec<u64> = (0..20).map(|n| n * 40).chain((1..8).map(|n| n * 1000)).collect();
    assert_eq!(shown, expected);
    // The sample offsets of the new `moof` are right: the whole file decodes.
    let mut file = init.bytes.to_vec();
    file.extend(&segment.bytes);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whole.mp4");
    std::fs::write(&path, file).unwrap();
    let frames = ffmpeg(&format!("-xerror -i {} -fps_mode vfr -f framecrc -", path.display()));
    let frames = String::from_utf8(frames).unwrap();
    assert_eq!(frames.lines().filter(|line| !line.starts_with('#')).count(), 27);
}

/// The start of a segment, its end by its samples' durations, and its last presented sample, in ticks.
fn span(segment: &Segment) -> (u64, u64, u64) {
    let (mut start, mut end, mut last) = (u64::MAX, 0, 0);
    let mut rest = &segment.bytes[..];
    while !rest.is_empty() {
        let moof = Moof::decode(&mut rest).unwrap();
        let (traf, decoded) = track_fragment(&moof).unwrap();
        for sample in samples(traf, decoded, SampleDefaults::default()) {
            start = start.min(sample.presented());
            last = last.max(sample.presented());
            end = sample.decoded + u64::from(sample.duration);
        }
        let mdat = BoxHeader::parse(rest).unwrap();
        rest = &rest[BoxHeader::SHORT + mdat.body.unwrap()..];
    }
    (start, end, last)
}

/// Bursts of 0.8 s of reordered frames every two seconds, up to 6.76 s, at 1000 ticks per second.
const BURSTS: &str = "-f lavfi -i testsrc2=size=64x64:rate=25:duration=8 -vf select='lt(mod(n,50),20)' \
    -fps_mode vfr -enc_time_base 1:1000 -video_track_timescale 1000 -c:v libx264 -bf 3 -b_strategy 0 \
    -g 1000 -force_key_frames expr:gte(t,n_forced*2) -avoid_negative_ts disabled \
    -movflags +frag_keyframe+dash+empty_moov+default_base_moof+frag_discont+negative_cts_offsets";

#[tokio::test]
async fn samples_last_until_the_next_segment() {
    let (_, segments) = split(outputs_of(BURSTS).await);
    let spans: Vec<_> = segments.iter().map(span).collect();
    let expected = [(0, 2000, 760), (2000, 4000, 2760), (4000, 6000, 4760)];
    assert_eq!(spans[..3], expected);
    assert_eq!(segments.iter().map(|segment| segment.duration_ticks).take(3).collect::<Vec<_>>(), [2000; 3]);
}

#[tokio::test]
async fn the_last_frame_of_a_rung_ends_with_the_stream() {
    for (end_seconds, expected) in [(7.5, 7500), (6.78, 6780), (6.5, 6800), (0.0, 6800), (9.0, 6800)] {
        let rules = SegmentationRules { end_seconds, ..RULES };
        let file = fragmented_mp4(BURSTS);
        let (init, segments) = split(outputs(file.as_slice(), rules, 0).try_collect().await.unwrap());
        let last = segments.last().unwrap();
        let (start, end, _) = span(last);
        assert_eq!((start, end), (6000, expected), "{end_seconds}");
        assert_eq!(last.duration_ticks, expected - 6000);
        assert!(last.is_last);
        // The offsets of the samples are right.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.mp4");
        std::fs::write(&path, [&init.bytes[..], &last.bytes].concat()).unwrap();
        ffmpeg(&format!("-xerror -i {} -f null -", path.display()));
    }
}

#[tokio::test]
async fn the_last_frame_ends_with_the_stream_whatever_durations_the_encoder_states() {
    // FFmpeg 5 states the duration of a filter's frame rate, here four times the distance of the frames.
    let video = BURSTS.replace("-vf select='lt(mod(n,50),20)'", "-vf setpts=PTS/4");
    for end_seconds in [1.98, 2.0, 2.5] {
        let rules = SegmentationRules { end_seconds, ..RULES };
        let file = fragmented_mp4(&video);
        let (_, segments) = split(outputs(file.as_slice(), rules, 0).try_collect().await.unwrap());
        let last = segments.last().unwrap();
        let (start, end, _) = span(last);
        assert_eq!((end, last.duration_ticks), ((end_seconds * 1000.0) as u64, end - start), "{end_seconds}");
    }
}

#[tokio::test]
async fn frames_at_odd_ticks_are_repeats() {
    let video = "-f lavfi -i testsrc2=size=64x64:rate=25:duration=1 -vf settb=1/1000,setpts='PTS+eq(mod(N,5),4)+gte(N,23)*eq(mod(N,5),3)' \
                 -fps_mode vfr -enc_time_base 1:1000 -video_track_timescale 1000 -c:v libx264 -g 100 \
                 -movflags +frag_keyframe+dash+empty_moov+default_base_moof";
    for (repeats_at_odd_ticks, expected) in [(true, (6, 80)), (false, (0, 0))] {
        let rules = SegmentationRules { repeats_at_odd_ticks, ..RULES };
        let file = fragmented_mp4(video);
        let (_, segments) = split(outputs(file.as_slice(), rules, 0).try_collect().await.unwrap());
        let segment = &segments[0];
        assert_eq!((segment.samples, (segment.repeats, segment.repeated_ticks)), (25, expected));
    }
}

#[tokio::test]
async fn audio_fragments_are_grouped_by_boundaries() {
    let (init, segments) = split(
        outputs_of(
            "-f lavfi -i sine=sample_rate=48000:duration=3 -c:a aac -frag_duration 250000 \
             -movflags +empty_moov+default_base_moof",
        )
        .await,
    );
    assert_eq!(init.codecs, "mp4a.40.2");
    assert_eq!(segments.len(), 5);
    let mut expected_start = segments[0].start_ticks;
    for segment in &segments {
        assert_eq!(segment.start_ticks, expected_start);
        expected_start += segment.duration_ticks;
    }
}

#[tokio::test]
async fn a_segment_closes_with_its_last_fragment() {
    let (mut writer, reader) = tokio::io::duplex(1 << 20);
    let file = fragmented_mp4(
        "-f lavfi -i testsrc2=size=64x64:rate=25:duration=2 -c:v libx264 -g 25 -sc_threshold 0 \
         -movflags +frag_keyframe+empty_moov+default_base_moof",
    );
    let second_moof = file.windows(4).enumerate().filter(|(_, four)| four == b"moof").nth(1).unwrap().0;
    writer.write_all(&file[..second_moof - 4]).await.unwrap();
    // The pipe stays open, and has no byte of the second segment.
    let mut outputs = std::pin::pin!(outputs(reader, RULES, 0));
    assert!(matches!(outputs.try_next().await, Ok(Some(Output::Init(_)))));
    let Ok(Some(Output::Segment(segment))) = outputs.try_next().await else { panic!("no segment") };
    assert_eq!((segment.number, segment.samples), (0, 25));
}

#[tokio::test]
async fn invalid_bytes_and_broken_pipes_are_errors() {
    for rubbish in [&b"rubbish rubbish rubbish"[..], &[0, 0, 0, 9], &[0, 0, 0, 0, b'm', b'o', b'o', b'f']] {
        let result: Result<Vec<_>, _> = outputs(rubbish, RULES, 0).try_collect().await;
        assert!(result.is_err());
    }
}
