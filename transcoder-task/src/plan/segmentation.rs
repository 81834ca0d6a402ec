//! Segment boundaries, the same for every rendition.
//!
//! A stream is playable when every rendition has its first segment, so the first segments are short: an
//! eighth of the segment duration, another eighth, a quarter, a half, then full segments. A copied rung can
//! only be cut at the source's keyframes. If its first keyframes are far apart, its beginning is encoded.

use crate::analysis::copyable_tracks::FrameTime;

/// Most boundaries in a list. Forced keyframes are one argument, and Linux limits an argument to 128 KiB.
const LONGEST_LIST: usize = 8_000;

/// Audio may end this many seconds after copied video without an extra segment. The segment duration still
/// rounds to the target duration.
pub(super) const TAIL_SECONDS: f64 = 0.45;

/// A last segment that would be shorter, in seconds, belongs to the segment before it. hls.js does not find a
/// segment of a few milliseconds, and so never reaches the end of the stream.
const SHORTEST_LAST_SECONDS: f64 = 0.25;

/// Clocks of inputs and outputs round times by less than this.
const ROUNDING_SECONDS: f64 = 0.002;

/// More than floating-point rounding, less than a tick of any clock.
const NANOSECOND: f64 = 1e-9;

/// Segment boundaries. Interval `n` is the time between boundary `n` and the next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Boundaries {
    /// At multiples of one duration, and at an eighth, a quarter and a half of it. For plans without a copied
    /// rung.
    Every {
        /// Segment duration in seconds.
        seconds: f64,
        /// A sample at most this much before a boundary belongs to the next segment: FFmpeg forces the
        /// keyframe at the first frame at or after the given time, and times are rounded.
        tolerance_seconds: f64,
        /// The interval that belongs to the one before it, as the stream ends at its start.
        merged: Option<i64>,
    },
    /// At keyframes of a copied source, and at other frames in its encoded prefix.
    At {
        /// First frame of each segment, in order.
        starts: Vec<FrameTime>,
        /// End of the video.
        end: FrameTime,
        /// Duration of audio segments before and after the video.
        step_seconds: f64,
    },
}

impl Boundaries {
    /// Regular boundaries for video of `frame_rate` frames per second (0 if unknown, or for audio alone) in a
    /// stream that ends at `end_seconds` (0 if unknown).
    #[must_use]
    pub(crate) fn every(seconds: f64, frame_rate: f64, end_seconds: f64) -> Self {
        // Half a frame, but at most 1/50 s, so that a slide show's long frames do not move boundaries;
        // rounded to microseconds, as in FFmpeg's arguments.
        let tolerance = if frame_rate > 25.0 { 0.5 / frame_rate } else { 0.02 };
        let tolerance_seconds = (tolerance * 1e6).round() / 1e6;
        let regular = Self::Every { seconds, tolerance_seconds, merged: None };
        let last = regular.interval(end_seconds);
        let is_short = last > 0 && end_seconds - regular.start_seconds(last) < SHORTEST_LAST_SECONDS;
        Self::Every { seconds, tolerance_seconds, merged: is_short.then_some(last) }
    }

    /// Boundaries at these frames of a video that ends at `end`; `None` if they are too many for an argument
    /// of FFmpeg.
    #[must_use]
    pub(crate) fn at(mut starts: Vec<FrameTime>, end: FrameTime, step_seconds: f64) -> Option<Self> {
        let is_near_end = |start: &FrameTime| end.at_seconds - start.at_seconds < SHORTEST_LAST_SECONDS;
        starts.truncate(starts.partition_point(|start| !is_near_end(start)).max(1));
        (1..=LONGEST_LIST).contains(&starts.len()).then_some(Self::At { starts, end, step_seconds })
    }

    /// The interval of a video time.
    #[must_use]
    pub(crate) fn interval(&self, seconds: f64) -> i64 {
        match self {
            Self::Every { seconds: step, tolerance_seconds, merged } => {
                let steps = (seconds + tolerance_seconds) / step;
                let interval =
                    (8.0 * steps).floor().min((4.0 * steps).floor() + 1.0).min(steps.floor() + 3.0) as i64;
                if *merged == Some(interval) { interval - 1 } else { interval }
            }
            Self::At { starts, .. } => {
                starts.partition_point(|start| start.threshold() <= seconds) as i64 - 1
            }
        }
    }

    /// The interval of an audio time, which may lie before or after the video.
    #[must_use]
    pub(crate) fn audio_interval(&self, seconds: f64) -> i64 {
        if let Self::At { starts, end, step_seconds } = self {
            let first = starts.first().map_or(0.0, |start| start.at_seconds);
            let behind = seconds - end.at_seconds - TAIL_SECONDS;
            if seconds < first {
                return -((first - seconds) / step_seconds).ceil() as i64;
            }
            if behind > 0.0 {
                return starts.len() as i64 + (behind / step_seconds).floor() as i64;
            }
        }
        self.interval(seconds)
    }

    /// The earliest time of an interval.
    #[must_use]
    pub(crate) fn start_seconds(&self, interval: i64) -> f64 {
        let start = match self {
            Self::Every { seconds: step, tolerance_seconds, .. } => {
                let interval = interval as f64;
                step * (interval / 8.0).max((interval - 1.0) / 4.0).max(interval - 3.0) - tolerance_seconds
            }
            Self::At { starts, end, step_seconds } => {
                let first = starts.first().map_or(0.0, |start| start.at_seconds);
                let behind = interval - starts.len() as i64;
                match usize::try_from(interval).map(|interval| starts.get(interval)) {
                    Ok(Some(start)) => start.threshold(),
                    Ok(None) => end.at_seconds + TAIL_SECONDS + behind as f64 * step_seconds,
                    Err(_) => first + interval as f64 * step_seconds,
                }
            }
        };
        // Rounding may have moved it into the previous interval.
        if self.audio_interval(start) < interval { start + NANOSECOND } else { start }
    }

    /// The end of an interval in seconds, if `last_seconds` is the time of the last frame in it. Only the
    /// frames of a sample index are known in advance.
    #[must_use]
    pub(crate) fn end_after(&self, interval: i64, last_seconds: f64) -> Option<f64> {
        let Self::At { starts, end, .. } = self else { return None };
        let next = usize::try_from(interval + 1).ok();
        let next = next.and_then(|next| starts.get(next)).unwrap_or(end);
        let slack = ((next.at_seconds - next.before_seconds) / 4.0).min(ROUNDING_SECONDS);
        (last_seconds >= next.before_seconds - slack).then_some(next.at_seconds)
    }

    /// FFmpeg's `-force_key_frames`: the first frame of every interval from `first` on, for video that begins
    /// at `from_seconds`. In expressions, FFmpeg counts time from the first frame. (An expression with
    /// `n_forced` would force several keyframes in a row after a long frame.)
    #[must_use]
    pub(crate) fn forced_keyframes(&self, first: i64, from_seconds: f64) -> String {
        match self {
            Self::Every { seconds, tolerance_seconds, merged } => {
                let interval = |time| expression(time, *seconds, tolerance_seconds + from_seconds, *merged);
                let (now, before) = (interval("t"), interval("prev_forced_t"));
                format!("expr:if(isnan(prev_forced_t),1,gt({now},{before}))")
            }
            Self::At { starts, .. } => {
                // FFmpeg compares one entry per frame, so past entries must not be in the list.
                let past = usize::try_from(first).unwrap_or(0);
                let times = starts.iter().skip(past).map(|start| format!("{:.6}", start.threshold()));
                times.collect::<Vec<_>>().join(",")
            }
        }
    }

    /// An FFmpeg expression that is true for a frame at `t` in this interval or a later one.
    #[must_use]
    pub(crate) fn not_before(&self, interval: i64) -> String {
        match self {
            Self::Every { seconds, tolerance_seconds, merged } => {
                format!("gte({},{interval})", expression("t", *seconds, *tolerance_seconds, *merged))
            }
            Self::At { .. } => format!("gte(t,{:.6})", self.start_seconds(interval)),
        }
    }

    /// Longest planned segment in seconds.
    #[must_use]
    pub(crate) fn longest_seconds(&self) -> f64 {
        match self {
            Self::Every { seconds, .. } => *seconds,
            Self::At { starts, end, step_seconds } => {
                let starts = starts.iter().map(|start| start.at_seconds);
                let ends = starts.clone().skip(1).chain([end.at_seconds]);
                starts.zip(ends).map(|(start, end)| end - start).fold(*step_seconds, f64::max)
            }
        }
    }
}

/// [`Boundaries::interval`] of [`Boundaries::Every`] as an FFmpeg expression.
fn expression(time: &str, seconds: f64, tolerance_seconds: f64, merged: Option<i64>) -> String {
    let steps = format!("({time}+{tolerance_seconds:.6})/{seconds}");
    let interval = format!("min(min(floor(8*{steps}),floor(4*{steps})+1),floor({steps})+3)");
    match merged {
        Some(merged) => format!("st(0,{interval})-eq(ld(0),{merged})"),
        None => interval,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Boundaries at these frames of a 12 s video of 25 frames per second.
    fn at(frames: &[u32]) -> Boundaries {
        let time = |frame: u32| f64::from(frame) / 25.0;
        let boundary =
            |frame: u32| FrameTime { at_seconds: time(frame), before_seconds: time(frame.saturating_sub(1)) };
        let starts = frames.iter().copied().map(boundary).collect();
        Boundaries::at(starts, boundary(300), 4.0).unwrap()
    }

    #[test]
    fn a_frame_just_before_a_boundary_belongs_to_the_next_segment() {
        let grid = Boundaries::every(4.0, 30.0, 0.0);
        assert_eq!([7.95, 7.99, 8.0, 12.1].map(|at| grid.interval(at)), [4, 5, 5, 6]);
        let expression = "expr:if(isnan(prev_forced_t),1,gt(\
                          min(min(floor(8*(t+0.016667)/4),floor(4*(t+0.016667)/4)+1),\
                          floor((t+0.016667)/4)+3),\
                          min(min(floor(8*(prev_forced_t+0.016667)/4),floor(4*(prev_forced_t+0.016667)/4)+1),\
                          floor((prev_forced_t+0.016667)/4)+3)))";
        assert_eq!(grid.forced_keyframes(0, 0.0), expression);
        let listed = at(&[0, 110, 250]);
        assert_eq!([0.0, 4.36, 4.39, 4.4, 9.99, 30.0].map(|at| listed.interval(at)), [0, 0, 1, 1, 2, 2]);
        assert_eq!(listed.forced_keyframes(0, 0.0), "0.000000,4.380000,9.980000");
    }

    #[test]
    fn the_first_segments_are_short() {
        let starts = |seconds: f64| {
            let grid = Boundaries::every(seconds, 0.0, 0.0);
            [0, 1, 2, 3, 4, 5].map(|interval| grid.start_seconds(interval) + 0.02)
        };
        assert_eq!(starts(4.0), [0.0, 0.5, 1.0, 2.0, 4.0, 8.0]);
        assert_eq!(starts(6.0), [0.0, 0.75, 1.5, 3.0, 6.0, 12.0]);
    }

    #[test]
    fn no_segment_begins_just_before_the_end() {
        let last = |end_seconds: f64, at: f64| Boundaries::every(4.0, 25.0, end_seconds).interval(at);
        assert_eq!([12.0, 12.2, 12.25, 12.5].map(|end| last(end, end)), [5, 5, 6, 6]);
        assert_eq!(last(12.1, 16.0), 7, "longer than expected");
        assert_eq!([0.0, 0.2, 0.6, 0.8].map(|end| last(end, end)), [0, 0, 0, 1]);
        let listed = at(&[0, 110, 295]);
        assert_eq!([4.5, 11.9].map(|at| listed.interval(at)), [1, 1]);
        assert_eq!(at(&[290]).interval(11.9), 0);
    }

    #[test]
    fn audio_has_regular_segments_before_and_after_the_video() {
        let listed = at(&[75, 175]);
        let of = |seconds: [f64; 7]| seconds.map(|seconds| listed.audio_interval(seconds));
        assert_eq!(of([0.0, 2.9, 3.0, 7.1, 12.4, 12.5, 16.5]), [-1, -1, 0, 1, 1, 2, 3]);
    }

    #[test]
    fn the_frame_before_the_next_boundary_completes_an_interval() {
        let listed = at(&[0, 110, 250]);
        assert_eq!([4.32, 4.36].map(|last| listed.end_after(0, last)), [None, Some(4.4)]);
        let of_last = [11.92, 11.96].map(|last| listed.end_after(2, last));
        assert_eq!(of_last, [None, Some(12.0)], "the last one, by the last frame");
        let (start, end) =
            (FrameTime { at_seconds: 0.0, before_seconds: 0.0 }, |at_seconds, before_seconds| FrameTime {
                at_seconds,
                before_seconds,
            });
        let slides = Boundaries::at(vec![start], end(30.0, 20.0), 4.0).unwrap();
        let of_slide = [19.0, 20.0].map(|last| slides.end_after(0, last));
        assert_eq!(of_slide, [None, Some(30.0)], "however long it is shown");
        assert_eq!(
            Boundaries::every(4.0, 25.0, 0.0).end_after(0, 0.48),
            None,
            "frames are not known in advance"
        );
    }

    #[test]
    fn longest_planned_segment() {
        assert_eq!(at(&[0, 110, 250]).longest_seconds(), 5.6);
        assert_eq!(at(&[0, 50]).longest_seconds(), 10.0);
        assert_eq!(Boundaries::every(4.0, 25.0, 0.0).longest_seconds(), 4.0);
    }

    #[test]
    fn a_list_too_long_for_an_argument_is_none() {
        // The time with the longest text: 24 hours, with six decimals.
        let keyframe = FrameTime { at_seconds: 86_400.0, before_seconds: 86_400.0 };
        let end = FrameTime { at_seconds: 86_402.0, before_seconds: 86_400.0 };
        let listed = |count| Boundaries::at(vec![keyframe; count], end, 4.0);
        assert!(listed(8_001).is_none());
        assert!(listed(8_000).unwrap().forced_keyframes(0, 0.0).len() < 128 << 10);
    }

    /// Keyframe flag, and time in seconds, of each frame that FFmpeg encodes with these boundaries.
    fn encoded(frame_rate: f64, filter: &str, boundaries: &Boundaries) -> Vec<(bool, f64)> {
        let source = format!("color=size=16x16:rate={frame_rate}:duration=30,{filter}");
        let forced = boundaries.forced_keyframes(0, 0.0);
        let output = crate::fixtures::ffmpeg(&format!(
            "-f lavfi -i {source} -force_key_frames {forced} -fps_mode vfr -enc_time_base 1:90000 -c:v libx264 \
             -preset ultrafast -g 100000 -sc_threshold 0 -bf 0 -f framecrc -"
        ));
        let text = String::from_utf8(output).unwrap();
        let (header, frames): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('#'));
        let tick = header.iter().find_map(|line| line.strip_prefix("#tb 0: 1/")).unwrap();
        let tick: f64 = tick.parse().unwrap();
        let frame = |line: &&str| {
            let pts: f64 = line.split(',').nth(2).unwrap().trim().parse().unwrap();
            // framecrc prints flags only for frames that are not keyframes.
            (!line.contains("F=0x0"), pts / tick)
        };
        frames.iter().map(frame).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn ffmpeg_forces_keyframes_at_the_same_frames(
            seconds in 1.0_f64..10.0,
            frame_rate in prop::sample::select(vec![0.5, 8.0, 12.5, 25.0, 30.0, 50.0, 60.0]),
            kept in 1_u32..=10,
            end_seconds in prop::sample::select(vec![0.0, 29.0, 30.0]),
        ) {
            let boundaries = Boundaries::every(seconds, frame_rate, end_seconds);
            // Keeps this many of ten frames, at random.
            let filter = format!("settb=1/90000,select='eq(n,0)+lt(random(0)*10,{kept})'");
            let frames = encoded(frame_rate, &filter, &boundaries);
            let intervals = frames.iter().map(|(_, at)| boundaries.interval(*at));
            let begins = [true].into_iter().chain(
                intervals.clone().zip(intervals.skip(1)).map(|(one, next)| next > one)
            );
            let expected: Vec<_> = begins.zip(&frames).map(|(begins, (_, at))| (begins, *at)).collect();
            prop_assert_eq!(frames, expected);
        }
    }

    fn any_boundaries() -> impl Strategy<Value = Boundaries> {
        let every = (1.0_f64..=10.0, prop::sample::select(vec![0.0, 8.0, 23.976, 25.0, 59.94]));
        let every = every.prop_map(|(seconds, frame_rate)| Boundaries::every(seconds, frame_rate, 0.0));
        let gaps = prop::collection::vec(1_u32..300, 1..50);
        let listed = (gaps, 0_u32..5, 1.0_f64..=10.0).prop_map(|(gaps, first, step)| {
            let starts = gaps.iter().scan(first * 50, |at, gap| Some(std::mem::replace(at, *at + gap)));
            let boundary = |frame: u32| FrameTime {
                at_seconds: f64::from(frame) / 25.0,
                before_seconds: f64::from(if frame == first * 50 { frame } else { frame - 1 }) / 25.0,
            };
            let starts: Vec<_> = starts.map(boundary).collect();
            let before_seconds = starts.last().unwrap().at_seconds + 1.96;
            let end = FrameTime { at_seconds: before_seconds + 0.04, before_seconds };
            Boundaries::At { starts, end, step_seconds: step }
        });
        prop_oneof![every, listed]
    }

    proptest! {
        #[test]
        fn an_interval_contains_its_start_and_nothing_earlier(
            boundaries in any_boundaries(), interval in prop_oneof![-3_i64..6, 0_i64..20_000],
        ) {
            let interval = match &boundaries {
                Boundaries::Every { .. } => interval.max(0),
                Boundaries::At { starts, .. } => interval % (2 * starts.len() as i64),
            };
            let start = boundaries.start_seconds(interval);
            prop_assert_eq!(boundaries.audio_interval(start), interval);
            prop_assert_eq!(boundaries.audio_interval(start - 1e-8), interval - 1);
            let of_picture = match &boundaries {
                Boundaries::Every { .. } => true,
                Boundaries::At { starts, .. } => (0..starts.len() as i64).contains(&interval),
            };
            if of_picture {
                prop_assert_eq!(boundaries.interval(start), interval);
                prop_assert_eq!(boundaries.interval(start - 1e-8), interval - 1);
            }
        }

        #[test]
        fn intervals_are_contiguous_and_not_longer_than_planned(
            boundaries in any_boundaries(), seconds in 0.0_f64..300.0, later in 0.0_f64..20.0,
        ) {
            prop_assert!(boundaries.interval(seconds) <= boundaries.interval(seconds + later));
            prop_assert!(boundaries.audio_interval(seconds) <= boundaries.audio_interval(seconds + later));
            let interval = boundaries.audio_interval(seconds);
            let (start, end) = (boundaries.start_seconds(interval), boundaries.start_seconds(interval + 1));
            prop_assert!(start <= seconds && seconds < end, "{start} {seconds} {end}");
            // The last interval includes the tail before the first segment of audio alone.
            prop_assert!(end - start <= boundaries.longest_seconds() + TAIL_SECONDS + 0.03, "{start} {end}");
        }

        #[test]
        fn every_frame_lies_in_the_interval_of_its_boundary(
            gaps in prop::collection::vec(1_u32..300, 1..50), frame in 0_u32..10_000,
        ) {
            let gaps = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) });
            let mut starts: Vec<u32> = [0].into_iter().chain(gaps).collect();
            // Those that are too near to the end, or behind it, are dropped.
            starts.retain(|start| *start <= 293);
            let interval = at(&starts).interval(f64::from(frame) / 25.0);
            let interval = usize::try_from(interval).unwrap();
            prop_assert!(starts[interval] <= frame);
            prop_assert!(starts.get(interval + 1).is_none_or(|next| frame < *next));
        }
    }
}
