//! Verifies the published stream against the plan before it is complete.

use futures::{StreamExt, TryStreamExt, stream};
use vidstreamx_job::Verified;

use crate::{
    analysis::{
        ffprobe::{self, SegmentFacts},
        rejection::ProbeError,
    },
    config::profile::Codec,
    package::{
        file_names,
        presentation::{Published, Timeline},
    },
    plan::model::{Picture, Plan},
    plan::segmentation::Boundaries,
    store::Store,
};

use super::{
    PublishError,
    track::{Planned, SAME_INSTANT_SECONDS, Track},
};

/// Least share of the source's duration in the stream; less is an error.
const LEAST_SHARE: f64 = 0.5;
/// A warning needs more missing seconds than the first value, and a larger missing share of the duration than
/// the second, because containers round durations.
const NOTABLE: (f64, f64) = (0.3, 0.02);
/// Time in seconds without a new picture that deserves a warning. It is measured in segments, and so found a
/// few seconds too short.
const LONG_STANDSTILL_SECONDS: f64 = 50.0;
/// Longest gap in seconds between two audio segments, or longest overlap. Players do not notice it.
const MOST_AUDIO_GAP_SECONDS: f64 = 0.05;
/// Renditions that are read back concurrently.
const READ_AT_ONCE: usize = 4;

/// Checks times, frame counts and keyframes of all segments. Returns warnings for the report.
///
/// # Errors
/// [`PublishError::Unusable`] if the stream has less than half of the source; [`PublishError::Mismatch`] if
/// rungs have different segments, a segment does not begin with a keyframe, or its samples do not last until
/// the next segment.
pub(crate) fn segments(plan: &Plan, tracks: &[Track]) -> Result<Vec<String>, PublishError> {
    let (mut rungs, mut audio) = (Vec::new(), Vec::new());
    for track in tracks {
        match &track.rendition {
            Planned::Video(rung) => rungs.push((rung.name.as_str(), track)),
            Planned::Audio(rendition) => audio.push((rendition, track)),
        }
    }
    let mut warnings = Vec::new();
    if let (Some(picture), Some(((_, first), _))) = (&plan.picture, rungs.split_first()) {
        warnings.extend(pictures(picture, &plan.boundaries, &first.timeline, &rungs)?);
        warnings.extend(standstill(&first.timeline));
    } else if audio.iter().all(|(_, track)| track.timeline.segments.is_empty()) {
        return Err(PublishError::Unusable("no audio can be decoded".into()));
    } else if let Some((_, first)) = audio.first() {
        warnings.extend(coverage("audio", &first.timeline, plan.duration_seconds)?);
    }
    for (audio, track) in audio {
        let name = &audio.name;
        without_holes(&track.timeline, MOST_AUDIO_GAP_SECONDS)
            .map_err(|difference| PublishError::Mismatch(format!("audio track {name} {difference}")))?;
        if track.timeline.segments.is_empty() {
            warnings.push(format!("audio track {name} cannot be decoded and was left out"));
        } else if plan.picture.is_some() {
            let what = format!("audio track {name}");
            warnings.extend(missing(&what, &track.timeline, audio.duration_seconds));
        }
    }
    Ok(warnings)
}

fn pictures(
    picture: &Picture,
    boundaries: &Boundaries,
    first: &Timeline,
    rungs: &[(&str, &Track)],
) -> Result<Option<String>, PublishError> {
    if first.segments.is_empty() {
        return Err(PublishError::Unusable("not one frame of the video can be decoded".into()));
    }
    let warning = if has_its_frames(picture, first) {
        None
    } else {
        coverage("video", first, picture.duration_seconds)?
    };
    for (name, track) in rungs {
        let wrong = |difference: String| PublishError::Mismatch(format!("rung {name} {difference}"));
        same_segments(first, &track.timeline).map_err(wrong)?;
        on_boundaries(boundaries, &track.timeline).map_err(wrong)?;
        without_holes(&track.timeline, SAME_INSTANT_SECONDS).map_err(wrong)?;
        if track.keyframes_at_boundaries != track.timeline.segments.len() {
            return Err(wrong(format!(
                "has {} segments, of which {} begin with a keyframe",
                track.timeline.segments.len(),
                track.keyframes_at_boundaries
            )));
        }
    }
    Ok(warning)
}

/// Returns true if the number of frames is known and no notable share of them is missing.
fn has_its_frames(picture: &Picture, timeline: &Timeline) -> bool {
    let frames: usize = timeline.segments.iter().map(|segment| segment.samples - segment.repeats).sum();
    picture.frames.is_some_and(|expected| frames as f64 >= expected as f64 * (1.0 - NOTABLE.1))
}

/// Returns true if a notable part of the video is missing.
#[must_use]
pub(crate) fn is_picture_short(plan: &Plan, tracks: &[Track]) -> bool {
    let first = tracks.iter().find(|track| matches!(track.rendition, Planned::Video(_)));
    plan.picture.as_ref().zip(first).is_some_and(|(picture, track)| {
        !has_its_frames(picture, &track.timeline)
            && missing("video", &track.timeline, picture.duration_seconds).is_some()
    })
}

fn same_segments(first: &Timeline, other: &Timeline) -> Result<(), String> {
    if first.segments.len() != other.segments.len() {
        return Err(format!(
            "has {} segments where the first rung has {}",
            other.segments.len(),
            first.segments.len()
        ));
    }
    for (number, (a, b)) in first.segments.iter().zip(&other.segments).enumerate() {
        let (at, other_at) = (first.seconds(a.start_ticks), other.seconds(b.start_ticks));
        if (at - other_at).abs() > SAME_INSTANT_SECONDS || a.samples != b.samples {
            return Err(format!(
                "has segment {number} at {other_at:.3} s with {} frames where the first rung has it at {at:.3} s \
                 with {}",
                b.samples, a.samples
            ));
        }
    }
    Ok(())
}

/// Checks that the samples of each segment last until the next segment. Players stop at a hole, or skip it.
fn without_holes(timeline: &Timeline, most_seconds: f64) -> Result<(), String> {
    for (number, pair) in timeline.segments.windows(2).enumerate() {
        let [one, next] = pair else { continue };
        let end = timeline.seconds(one.start_ticks + one.duration_ticks);
        let hole = timeline.seconds(next.start_ticks) - end;
        if hole.abs() > most_seconds {
            return Err(format!(
                "has {} of {:.3} s after segment {number}",
                if hole > 0.0 { "a hole" } else { "an overlap" },
                hole.abs()
            ));
        }
    }
    Ok(())
}

/// Checks that each segment lies in its own interval.
fn on_boundaries(boundaries: &Boundaries, timeline: &Timeline) -> Result<(), String> {
    let intervals: Vec<i64> = timeline
        .segments
        .iter()
        .map(|segment| boundaries.interval(timeline.seconds(segment.start_ticks)))
        .collect();
    if !intervals.is_sorted_by(|one, next| one < next) {
        return Err("has several segments between two boundaries".to_owned());
    }
    match boundaries {
        Boundaries::At { starts, .. } if starts.len() != intervals.len() => {
            Err(format!("has {} segments where {} were planned", intervals.len(), starts.len()))
        }
        _ => Ok(()),
    }
}

fn coverage(what: &str, timeline: &Timeline, expected_seconds: f64) -> Result<Option<String>, PublishError> {
    let seconds = source_seconds(timeline);
    if seconds < expected_seconds * LEAST_SHARE {
        return Err(PublishError::Unusable(format!(
            "the file is damaged: only {seconds:.1} of {expected_seconds:.1} seconds of {what} can be decoded"
        )));
    }
    Ok(missing(what, timeline, expected_seconds))
}

/// Duration of the segments up to the last frame of the source. Segments after it, and before the first one,
/// only repeat a frame.
fn source_seconds(timeline: &Timeline) -> f64 {
    let has_source = |segment: &Published| segment.repeats < segment.samples || segment.samples == 0;
    let first = timeline.segments.iter().find(|segment| has_source(segment));
    let last = timeline.segments.iter().rfind(|segment| has_source(segment));
    first.zip(last).map_or(0.0, |(first, last)| {
        timeline.seconds(last.start_ticks + last.duration_ticks - last.repeated_ticks - first.start_ticks)
    })
}

fn missing(what: &str, timeline: &Timeline, expected_seconds: f64) -> Option<String> {
    let missing = expected_seconds - source_seconds(timeline);
    (missing > NOTABLE.0 && missing > expected_seconds * NOTABLE.1).then(|| {
        format!("the file is damaged: {missing:.1} of {expected_seconds:.1} seconds of {what} are missing")
    })
}

/// A warning of the longest time between two frames of the source, if it is long.
fn standstill(timeline: &Timeline) -> Option<String> {
    let mut longest = (0.0, 0.0);
    let mut start = None;
    for segment in &timeline.segments {
        if segment.repeats < segment.samples {
            let end = timeline.seconds(segment.start_ticks);
            if let Some(start) = start.take().filter(|start| end - start > longest.1 - longest.0) {
                longest = (start, end);
            }
        }
        if segment.repeated_ticks > 0 && start.is_none() {
            start = Some(timeline.seconds(
                segment.start_ticks + segment.duration_ticks.saturating_sub(segment.repeated_ticks),
            ));
        }
    }
    let (start, end) = longest;
    (end - start > LONG_STANDSTILL_SECONDS).then(|| {
        format!(
            "the source shows nothing new from {start:.0} to {end:.0} s: its last picture stays for this time"
        )
    })
}

/// Reads the first and last segment of every rendition back from the store and probes them, to check that
/// FFmpeg's output was stored unchanged. Returns results in the tracks' order.
///
/// # Errors
/// [`PublishError::Mismatch`] if a rendition does not match the plan; errors of the store.
pub(crate) async fn read_back(store: &Store, tracks: &[Track]) -> Result<Vec<Verified>, PublishError> {
    stream::iter(tracks.iter().map(|track| read_track_back(store, track)))
        .buffered(READ_AT_ONCE)
        .try_collect()
        .await
}

async fn read_track_back(store: &Store, track: &Track) -> Result<Verified, PublishError> {
    let wrong = |what: String| PublishError::Mismatch(format!("{} {what}", track.folder));
    let segments = &track.timeline.segments;
    let mut numbers = vec![0];
    numbers.extend((segments.len() > 1).then(|| segments.len() - 1));
    let mut bytes = Vec::new();
    let names = numbers.iter().map(|number| file_names::segment_name(*number));
    for name in [file_names::INIT_NAME.to_owned()].into_iter().chain(names) {
        let object = store.get(&format!("{}/{name}", track.folder)).await?;
        bytes.extend(object.ok_or_else(|| wrong(format!("has no {name} although it was uploaded")))?);
    }
    let SegmentFacts { codec: found, width, height, keyframes } =
        ffprobe::segments(bytes.into()).await.map_err(|error| match error {
            error @ (ProbeError::Answer(_) | ProbeError::Crashed(_)) => {
                wrong(format!("cannot be read back: {error}"))
            }
            error => PublishError::Probe(error),
        })?;
    let expected: usize =
        numbers.iter().filter_map(|number| segments.get(*number)).map(|segment| segment.samples).sum();
    let codec = match &track.rendition {
        Planned::Video(rung) => match rung.codec {
            Codec::H264 => "h264",
            Codec::Hevc => "hevc",
            Codec::Av1 => "av1",
        },
        Planned::Audio(_) => "aac",
    };
    let (planned_width, planned_height) = match &track.rendition {
        Planned::Video(rung) => (rung.width, rung.height),
        Planned::Audio(_) => (0, 0),
    };
    if (found.as_str(), width, height) != (codec, planned_width, planned_height) {
        return Err(wrong(format!(
            "is {found} of {width} × {height} where {codec} of {planned_width} × {planned_height} was planned"
        )));
    }
    let first = segments.first().map_or(0, |segment| segment.samples);
    let starts_with_keyframe = |packet: usize| keyframes.get(packet) == Some(&true);
    if keyframes.len() != expected
        || !starts_with_keyframe(0)
        || (numbers.len() > 1 && !starts_with_keyframe(first))
    {
        return Err(wrong(format!(
            "has {} frames in its first and last segment where {expected} were published, or one of the two does \
             not begin with a keyframe",
            keyframes.len()
        )));
    }
    Ok(Verified {
        codec: found,
        width,
        height,
        keyframes_at_boundaries: track.keyframes_at_boundaries,
        frames_read: keyframes.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        analysis::copyable_tracks::FrameTime,
        fixtures::{ffmpeg, folder_store},
        plan::colour::{Colour, Tags},
        plan::model::{AudioRendition, Encoding, FrameShape, VideoRendition},
    };

    const TICKS: u64 = 25;

    fn plan(duration_seconds: f64) -> Plan {
        Plan {
            picture: Some(Picture {
                stream: 0,
                shape: FrameShape::of_tests(640, 360),
                deinterlace: false,
                decoder: None,
                alpha: None,
                colour: Colour::of(&Tags::default()),
                time_base: "1/25".into(),
                timescale: 25,
                hold: None,
                start_seconds: 0.0,
                duration_seconds,
                end_seconds: duration_seconds,
                frames: None,
            }),
            rungs: Vec::new(),
            audio: Vec::new(),
            subtitles: Vec::new(),
            boundaries: Boundaries::every(4.0, 25.0, 0.0),
            duration_seconds,
        }
    }

    fn timeline(segments: u64) -> Timeline {
        let published = |number| Published {
            start_ticks: number * 4 * TICKS,
            duration_ticks: 4 * TICKS,
            samples: 100,
            repeats: 0,
            repeated_ticks: 0,
            bytes: 1000,
            key_bytes: 10,
        };
        Timeline { timescale: TICKS as u32, segments: (0..segments).map(published).collect() }
    }

    fn rung(timeline: Timeline) -> Track {
        let encoding = Some(Encoding { crf: 23.0, preset: "fast".into(), params: String::new() });
        let rendition = Planned::Video(VideoRendition {
            name: "240p".into(),
            codec: Codec::H264,
            width: 64,
            height: 36,
            frame_rate: 25.0,
            max_kbps: 100,
            encoding,
            encoded_prefix: None,
            level: None,
        });
        let keyframes = timeline.segments.len();
        Track::of_tests("video/240p", rendition, timeline, keyframes)
    }

    fn audio(timeline: Timeline) -> Track {
        let rendition = Planned::Audio(AudioRendition {
            name: "eng".into(),
            at_least_seconds: 12.0,
            ..AudioRendition::of_tests(1, 12.0)
        });
        Track::of_tests("audio/eng", rendition, timeline, 0)
    }

    #[test]
    fn a_complete_stream_passes() {
        let tracks = [rung(timeline(3)), rung(timeline(3)), audio(timeline(3))];
        assert!(segments(&plan(12.0), &tracks).unwrap().is_empty());
    }

    #[test]
    fn rungs_must_have_the_same_segments() {
        let mut moved = timeline(3);
        moved.segments[1].start_ticks += 1;
        let mut lost = timeline(3);
        lost.segments[2].samples -= 1;
        for (bad, expected) in [(timeline(2), "2 segments"), (moved, "4.040 s"), (lost, "99 frames")] {
            let error = segments(&plan(12.0), &[rung(timeline(3)), rung(bad)]).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(matches!(error, PublishError::Mismatch(_)));
        }
    }

    #[test]
    fn segments_are_at_planned_boundaries_and_begin_with_keyframes() {
        let mut cut_twice = timeline(3);
        cut_twice.segments[2].start_ticks = 6 * TICKS;
        let error = segments(&plan(12.0), &[rung(cut_twice)]).unwrap_err();
        assert!(error.to_string().contains("between two boundaries"), "{error}");

        let mut open = rung(timeline(3));
        open.keyframes_at_boundaries = 2;
        let error = segments(&plan(12.0), &[rung(timeline(3)), open]).unwrap_err();
        assert!(error.to_string().contains("of which 2 begin with a keyframe"), "{error}");

        let at = |seconds: f64| FrameTime { at_seconds: seconds, before_seconds: (seconds - 0.04).max(0.0) };
        let planned = |count: u32| {
            let boundaries = (0..count).map(|number| at(f64::from(number) * 4.0)).collect();
            Plan { boundaries: Boundaries::at(boundaries, at(20.0), 4.0).unwrap(), ..plan(12.0) }
        };
        assert!(segments(&planned(3), &[rung(timeline(3))]).is_ok());
        let error = segments(&planned(4), &[rung(timeline(3))]).unwrap_err();
        assert!(error.to_string().contains("3 segments where 4 were planned"), "{error}");
    }

    #[test]
    fn a_hole_between_segments_is_refused() {
        let mut short = timeline(3);
        short.segments[1].duration_ticks -= 1;
        let error = segments(&plan(12.0), &[rung(short.clone()), rung(timeline(3))]).unwrap_err();
        assert!(error.to_string().contains("has a hole of 0.040 s after segment 1"), "{error}");
        assert!(matches!(error, PublishError::Mismatch(_)));
        short.segments[1].duration_ticks += 2;
        let error = segments(&plan(12.0), &[rung(short.clone())]).unwrap_err();
        assert!(error.to_string().contains("has an overlap of 0.040 s after segment 1"), "{error}");
        // Players do not notice 40 ms without sound.
        assert!(segments(&plan(12.0), &[rung(timeline(3)), audio(short.clone())]).is_ok());
        short.segments[1].duration_ticks -= 3;
        assert!(segments(&plan(12.0), &[rung(timeline(3)), audio(short)]).is_err());
    }

    #[test]
    fn repeated_frames_are_not_frames_of_the_source() {
        let mut plan = plan(12.0);
        let repeated = |segment: usize| {
            let mut timeline = timeline(3);
            timeline.segments[segment].repeats = 100;
            timeline.segments[segment].repeated_ticks = 4 * TICKS;
            timeline
        };
        let mut half = timeline(3);
        (half.segments[2].repeats, half.segments[2].repeated_ticks) = (50, 2 * TICKS);
        let warnings = segments(&plan, &[rung(half)]).unwrap();
        assert_eq!(warnings, ["the file is damaged: 2.0 of 12.0 seconds of video are missing"]);
        let warnings = segments(&plan, &[rung(repeated(2))]).unwrap();
        assert_eq!(warnings, ["the file is damaged: 4.0 of 12.0 seconds of video are missing"]);
        assert!(segments(&plan, &[rung(repeated(1))]).unwrap().is_empty(), "a gap is no damage");
        if let Some(picture) = &mut plan.picture {
            picture.frames = Some(300);
        }
        assert_eq!(segments(&plan, &[rung(repeated(2))]).unwrap().len(), 1);
        if let Some(picture) = &mut plan.picture {
            picture.frames = Some(200);
        }
        assert!(segments(&plan, &[rung(repeated(2))]).unwrap().is_empty());
    }

    #[test]
    fn a_long_standstill_between_two_pictures_is_a_warning() {
        let still = |count: u64, of: std::ops::Range<usize>| {
            let mut timeline = timeline(count);
            (timeline.segments[of.start - 1].repeats, timeline.segments[of.start - 1].repeated_ticks) =
                (25, TICKS);
            for segment in &mut timeline.segments[of] {
                (segment.repeats, segment.repeated_ticks) = (100, 4 * TICKS);
            }
            segments(&plan(count as f64 * 4.0), &[rung(timeline)]).unwrap().concat()
        };
        assert_eq!(
            still(20, 2..15),
            "the source shows nothing new from 7 to 60 s: its last picture stays for this time"
        );
        assert_eq!(still(20, 2..14), "");
        assert!(!still(40, 22..40).contains("shows nothing new"), "the end");
    }

    #[test]
    fn audio_that_ends_early_is_a_warning() {
        let of = |audio: Track| segments(&plan(12.0), &[rung(timeline(3)), audio]).unwrap();
        let missing = ["the file is damaged: 8.0 of 12.0 seconds of audio track eng are missing"];
        assert_eq!(of(audio(timeline(1))), missing);
        assert!(of(audio(timeline(0)))[0].contains("left out"));
    }

    #[test]
    fn a_long_last_frame_is_not_damage() {
        let mut plan = plan(60.0);
        if let Some(picture) = &mut plan.picture {
            picture.frames = Some(300);
        }
        assert!(segments(&plan, &[rung(timeline(3))]).unwrap().is_empty());
    }

    #[test]
    fn half_a_video_is_a_warning_and_less_is_an_error() {
        let of = |seconds| segments(&plan(seconds), &[rung(timeline(3)), rung(timeline(3))]);
        assert!(of(12.2).unwrap().is_empty());
        assert_eq!(of(12.4).unwrap().len(), 1);
        assert_eq!(of(20.0).unwrap(), ["the file is damaged: 8.0 of 20.0 seconds of video are missing"]);
        assert!(matches!(of(25.0), Err(PublishError::Unusable(_))));
        let is_short = |seconds| is_picture_short(&plan(seconds), &[rung(timeline(3))]);
        assert_eq!([12.2, 12.4, 20.0].map(is_short), [false, true, true]);
        let nothing = segments(&plan(1.0), &[rung(timeline(0)), rung(timeline(0))]);
        assert!(matches!(nothing, Err(PublishError::Unusable(_))));
    }

    /// A store with a rung that has one segment of 25 frames from FFmpeg.
    async fn stored() -> (tempfile::TempDir, Store, Track) {
        let (folder, store) = folder_store();
        let file = ffmpeg(
            "-f lavfi -i testsrc2=size=64x36:rate=25:duration=1 -c:v libx264 -pix_fmt yuv420p \
             -movflags +frag_keyframe+empty_moov+default_base_moof -f mp4 pipe:1",
        );
        let moof = file.windows(4).position(|four| four == b"moof").unwrap() - 4;
        let policy = crate::store::CachePolicy::Immutable("video/mp4");
        let (init, segment) = file.split_at(moof);
        store.put("video/240p/init.mp4", policy, init.to_vec().into()).await.unwrap();
        store.put("video/240p/seg-00000.m4s", policy, segment.to_vec().into()).await.unwrap();
        let mut timeline = timeline(1);
        timeline.segments[0].samples = 25;
        (folder, store, rung(timeline))
    }

    #[tokio::test]
    async fn stored_segments_match_the_plan() {
        let (folder, store, mut track) = stored().await;
        let verified = read_back(&store, std::slice::from_ref(&track)).await.unwrap();
        assert_eq!(
            (verified[0].codec.as_str(), verified[0].width, verified[0].frames_read),
            ("h264", 64, 25)
        );

        track.timeline.segments[0].samples = 24;
        let error = read_back(&store, std::slice::from_ref(&track)).await.unwrap_err();
        assert!(error.to_string().contains("25 frames in its first and last segment where 24"), "{error}");

        std::fs::remove_file(folder.path().join("video/240p/seg-00000.m4s")).unwrap();
        let error = read_back(&store, &[track]).await.unwrap_err();
        assert!(error.to_string().contains("has no seg-00000.m4s"), "{error}");
    }
}
