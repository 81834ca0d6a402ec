//! Chooses the source's keyframes at which the segments of a copied rung begin.

use crate::analysis::{
    copyable_tracks::{FrameTime, OPENING_SECONDS},
    not_copyable::NotCopyable,
};

/// Longest segment of a copied rung: x264's default of 250 frames between keyframes is 10.4 s at 24 frames
/// per second.
pub(crate) const LONGEST_SEGMENT_SECONDS: f64 = 10.5;
/// A segment may be this much shorter than wanted, so that keyframes at 3.97 s are as good as at 4 s.
const SLACK_SECONDS: f64 = 0.1;
/// At the beginning, a segment longer than this share of `segment_seconds` counts as long. Splitting a
/// shorter one would not help: viewers also wait for the encoded rungs, whose encoders need two to three
/// seconds on two cores for a second of video and its lookahead.
const LONG: f64 = 0.375;

// The sample index must keep the frame times of at least two segments of the maximum length.
const _: () = assert!(OPENING_SECONDS >= 2.0 * LONGEST_SEGMENT_SECONDS);

/// Chooses the keyframes at which segments begin. A segment ends at the first keyframe that makes it long
/// enough, else at the last one before it is too long. At the beginning, long enough means as long as all
/// earlier segments together.
///
/// # Errors
/// A segment would be longer than 10.5 seconds.
pub(super) fn choose(
    candidates: impl Iterator<Item = FrameTime>,
    end_seconds: f64,
    segment_seconds: f64,
) -> Result<Vec<FrameTime>, NotCopyable> {
    let mut chosen: Vec<FrameTime> = Vec::new();
    // The last skipped candidate since the last chosen one.
    let mut passed: Option<FrameTime> = None;
    let end = FrameTime { at_seconds: end_seconds, before_seconds: end_seconds };
    for candidate in candidates.chain([end]) {
        let Some(mut last) = chosen.last().copied() else {
            chosen.push(candidate);
            continue;
        };
        if candidate.at_seconds - last.at_seconds > LONGEST_SEGMENT_SECONDS {
            if let Some(passed) = passed.take() {
                chosen.push(passed);
                last = passed;
            }
            if candidate.at_seconds - last.at_seconds > LONGEST_SEGMENT_SECONDS {
                return Err(NotCopyable(
                    format!("it has no usable keyframe in the 10.5 s after {:.1} s", last.at_seconds).into(),
                ));
            }
        }
        let first = chosen.first().map_or(0.0, |first| first.at_seconds);
        let wanted = wanted_seconds(last.at_seconds - first, segment_seconds);
        if candidate.at_seconds - last.at_seconds >= wanted - SLACK_SECONDS {
            chosen.push(candidate);
            passed = None;
        } else {
            passed = Some(candidate);
        }
    }
    // No segment begins at the end.
    chosen.pop_if(|last| last.at_seconds >= end_seconds);
    Ok(chosen)
}

/// Wanted duration of a segment that begins this many seconds after the first one.
#[must_use]
fn wanted_seconds(from_start: f64, segment_seconds: f64) -> f64 {
    from_start.clamp(segment_seconds / 8.0, segment_seconds)
}

/// Chooses the frames at which short first segments begin, if segments between the keyframes would be long.
/// The encoded prefix ends at the end of the last long segment that begins in the first `segment_seconds`.
/// Returns the starts of the encoded prefix's segments, and the index in `keyframes` of the first copied
/// keyframe.
#[must_use]
pub(super) fn choose_encoded_prefix(
    frames: impl Iterator<Item = FrameTime>,
    keyframes: &[FrameTime],
    segment_seconds: f64,
) -> Option<(Vec<FrameTime>, usize)> {
    let first = *keyframes.first()?;
    let is_long = |pair: &[FrameTime]| match pair {
        [start, end] => {
            let from_start = start.at_seconds - first.at_seconds;
            let wanted = wanted_seconds(from_start, segment_seconds) + SLACK_SECONDS;
            from_start < segment_seconds - SLACK_SECONDS
                && end.at_seconds - start.at_seconds > wanted.max(segment_seconds * LONG)
        }
        _ => false,
    };
    let next = keyframes.windows(2).rposition(is_long)? + 1;
    let end_seconds = keyframes.get(next)?.at_seconds;
    let mut chosen = vec![first];
    let mut last = first.at_seconds;
    for frame in frames {
        let wanted = wanted_seconds(last - first.at_seconds, segment_seconds);
        // The rest before the next keyframe must be long enough for a segment.
        let half_a_frame = ((frame.at_seconds - frame.before_seconds) / 2.0).min(0.02);
        if frame.at_seconds - last >= wanted - half_a_frame && end_seconds - frame.at_seconds >= wanted / 2.0
        {
            last = frame.at_seconds;
            chosen.push(frame);
        }
    }
    (chosen.len() > 1).then_some((chosen, next))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn evenly(gop_frames: u32, frame_rate: f64, count: u32) -> (Vec<FrameTime>, f64) {
        let at = |frame: u32| f64::from(frame) / frame_rate;
        let starts = (0..count).map(|gop| gop * gop_frames);
        let boundaries = starts
            .map(|frame| FrameTime { at_seconds: at(frame), before_seconds: at(frame.saturating_sub(1)) })
            .collect();
        (boundaries, at(gop_frames * count))
    }

    #[test]
    fn x264s_default_keyframe_distance_makes_segments() {
        for frame_rate in [24.0, 24000.0 / 1001.0, 25.0, 30.0] {
            let (keyframes, end) = evenly(250, frame_rate, 20);
            assert_eq!(choose(keyframes.iter().copied(), end, 4.0).unwrap(), keyframes);
        }
        let (keyframes, end) = evenly(250, 23.0, 20);
        let error = choose(keyframes.into_iter(), end, 4.0).unwrap_err();
        assert_eq!(error.to_string(), "it has no usable keyframe in the 10.5 s after 0.0 s");
    }

    #[test]
    fn short_gops_are_joined_and_long_ones_stay() {
        let choose = |times: &[f64], end| {
            let keyframes = times.iter().map(|at| FrameTime { at_seconds: *at, before_seconds: *at });
            choose(keyframes, end, 4.0).map(|all| all.iter().map(|one| one.at_seconds).collect::<Vec<_>>())
        };
        assert_eq!(choose(&[0.0, 4.0, 6.0, 8.0, 10.0], 11.0).unwrap(), [0.0, 4.0, 8.0]);
        assert_eq!(choose(&[0.0, 3.98, 6.0, 7.93, 9.0], 10.0).unwrap(), [0.0, 3.98, 7.93]);
        assert_eq!(choose(&[0.0, 3.0, 11.0], 12.0).unwrap(), [0.0, 3.0, 11.0]);
        assert_eq!(choose(&[0.0, 5.0, 8.0], 15.0).unwrap(), [0.0, 5.0]);
        assert_eq!(choose(&[0.0, 5.0, 8.0], 16.0).unwrap(), [0.0, 5.0, 8.0]);
        choose(&[0.0, 3.0], 14.0).unwrap_err();
    }

    /// The encoded prefix for keyframes at these seconds.
    fn encoded_prefix(keyframes: &[f64], frame_rate: f64) -> Option<(Vec<f64>, usize)> {
        let keyframes: Vec<_> =
            keyframes.iter().map(|at| FrameTime { at_seconds: *at, before_seconds: *at }).collect();
        let at = |frame: u32| f64::from(frame) / frame_rate;
        let frames = (1..(40.0 * frame_rate) as u32)
            .map(|frame| FrameTime { at_seconds: at(frame), before_seconds: at(frame - 1) });
        let (chosen, next) = choose_encoded_prefix(frames, &keyframes, 4.0)?;
        Some((chosen.iter().map(|one| one.at_seconds).collect(), next))
    }

    #[test]
    fn an_encoded_prefix_replaces_long_first_segments() {
        let of = |starts: &[f64], next| Some((starts.to_vec(), next));
        assert_eq!(encoded_prefix(&[0.0, 10.0, 20.0, 30.0], 10.0), of(&[0.0, 0.5, 1.0, 2.0, 4.0, 8.0], 1));
        assert_eq!(encoded_prefix(&[0.0, 8.0, 16.0], 2.0), of(&[0.0, 0.5, 1.0, 2.0, 4.0], 1));
        assert_eq!(encoded_prefix(&[0.0, 8.3, 16.6], 1.0), of(&[0.0, 1.0, 2.0, 4.0], 1));
        assert_eq!(
            encoded_prefix(&[3.0, 13.0], 2.0),
            of(&[3.0, 3.5, 4.0, 5.0, 7.0, 11.0], 1),
            "a later start"
        );
        assert_eq!(encoded_prefix(&[0.0, 2.0, 4.0, 8.0], 2.0), of(&[0.0, 0.5, 1.0], 1));
        assert_eq!(
            encoded_prefix(&[0.0, 1.6, 9.6], 2.5),
            of(&[0.0, 0.8, 1.6, 3.2, 6.4], 2),
            "a short segment precedes the long one"
        );
        assert_eq!(encoded_prefix(&[0.0, 1.0, 2.0, 3.5, 13.5], 10.0), of(&[0.0, 0.5, 1.0, 2.0, 4.0, 8.0], 4));
        assert_eq!(
            encoded_prefix(&[0.0, 1.0, 2.0, 4.0, 14.0], 10.0),
            None,
            "short segments fill the first four seconds"
        );
        assert_eq!(encoded_prefix(&[0.0, 1.5, 3.0, 4.5], 10.0), None);
        assert_eq!(encoded_prefix(&[0.0, 1.5], 10.0), None, "no frame would be copied");
        assert_eq!(encoded_prefix(&[0.0, 10.0], 0.1), None, "no frames between the keyframes");
    }

    #[test]
    fn first_segments_are_short_if_keyframes_allow() {
        let choose = |from: f64, gop: f64| {
            let times = (0..60).map(|number| from + f64::from(number) * gop);
            let keyframes = times.map(|at| FrameTime { at_seconds: at, before_seconds: at });
            let chosen = choose(keyframes, from + gop * 60.0, 4.0).unwrap();
            chosen.iter().take(6).map(|one| one.at_seconds).collect::<Vec<_>>()
        };
        assert_eq!(choose(0.0, 0.5), [0.0, 0.5, 1.0, 2.0, 4.0, 8.0]);
        assert_eq!(choose(3.0, 1.0), [3.0, 4.0, 5.0, 7.0, 11.0, 15.0], "a later start");
        assert_eq!(choose(0.0, 2.0), [0.0, 2.0, 4.0, 8.0, 12.0, 16.0]);
        assert_eq!(choose(0.0, 1.5), [0.0, 1.5, 3.0, 6.0, 10.5, 15.0]);
        assert_eq!(choose(0.0, 10.0), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
    }

    proptest! {
        #[test]
        fn starts_are_keyframes_in_order_and_no_segment_is_too_long(
            gaps in proptest::collection::vec(0.01_f64..11.0, 1..60),
            segment_seconds in 1.0_f64..10.0,
        ) {
            let mut at = 0.0;
            let mut times = vec![0.0];
            for gap in &gaps {
                at += gap;
                times.push(at);
            }
            let end = times.pop().unwrap();
            let keyframes: Vec<_> =
                times.iter().map(|at| FrameTime { at_seconds: *at, before_seconds: at - 0.001 }).collect();
            let possible = gaps.iter().all(|gap| *gap <= LONGEST_SEGMENT_SECONDS - 1e-6);
            let impossible = gaps.iter().any(|gap| *gap > LONGEST_SEGMENT_SECONDS + 1e-6);
            match choose(keyframes.iter().copied(), end, segment_seconds) {
                Err(_) => prop_assert!(!possible),
                Ok(chosen) => {
                    prop_assert!(!impossible);
                    prop_assert_eq!(chosen[0], keyframes[0]);
                    prop_assert!(chosen.iter().all(|boundary| keyframes.contains(boundary)));
                    let starts: Vec<_> = chosen.iter().map(|one| one.at_seconds).chain([end]).collect();
                    for pair in starts.windows(2) {
                        prop_assert!(pair[0] < pair[1] && pair[1] - pair[0] <= LONGEST_SEGMENT_SECONDS);
                    }
                }
            }
        }

    }
}
