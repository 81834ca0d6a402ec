//! The instants at which segments of every rendition begin.
//!
//! A stream is playable when every rendition has its first segment, so the first ones are short: an eighth of a segment's
//! length, another eighth, a quarter, a half, and whole ones from there on. A rung that is published as it is can only be
//! cut at the source's keyframes, which may be ten seconds apart: its first seconds are encoded, then.

use crate::analysis::sample_index::FrameTime;

/// Forced keyframes are given as one argument, of which Linux takes 128 KiB.
const LONGEST_LIST: usize = 8_000;

/// Sound may end this much behind the picture, in seconds, without a segment of its own.
const TAIL_SECONDS: f64 = 0.25;

/// Clocks of inputs and outputs round times to less than this.
const ROUNDING_SECONDS: f64 = 0.002;

/// Far more than rounding changes, far less than a tick of any clock.
const NANOSECOND: f64 = 1e-9;

/// Where segments begin.
#[derive(Debug, Clone, PartialEq)]
pub enum Boundaries {
    /// At multiples of one duration, and at an eighth, a quarter and a half of it, where all rungs are encoded.
    Every {
        /// In seconds.
        seconds: f64,
        /// A sample this much before a boundary belongs to the segment behind it: FFmpeg takes the first frame
        /// at or after the forced time, and times are rounded.
        tolerance_seconds: f64,
        /// What a frame lasts as a rule.
        frame_seconds: f64,
    },
    /// At keyframes of the source, where it is published as it is, and at other frames before that.
    At {
        /// In order.
        starts: Vec<FrameTime>,
        /// Where the picture ends, behind the last frame.
        end: FrameTime,
        /// Length of segments of sound before and behind the picture.
        step_seconds: f64,
    },
}

impl Boundaries {
    /// A grid for a picture of `frame_rate` frames per second (0 if unknown, or for sound alone).
    pub fn every(seconds: f64, frame_rate: f64) -> Self {
        // Half a frame, but at most 1/50 s, so that a slide show's long frames do not pull boundaries forward; in
        // microseconds, as FFmpeg is told.
        let tolerance = if frame_rate > 25.0 { 0.5 / frame_rate } else { 0.02 };
        let frame_seconds = if frame_rate > 0.0 { 1.0 / frame_rate } else { 0.04 };
        Self::Every { seconds, tolerance_seconds: (tolerance * 1e6).round() / 1e6, frame_seconds }
    }

    /// At these frames of a picture that lasts until `end`; `None` if they are too many to be told to FFmpeg.
    pub fn at(starts: Vec<FrameTime>, end: FrameTime, step_seconds: f64) -> Option<Self> {
        (1..=LONGEST_LIST).contains(&starts.len()).then_some(Self::At { starts, end, step_seconds })
    }

    /// Which interval between boundaries an instant of the picture lies in.
    pub fn interval(&self, seconds: f64) -> i64 {
        match self {
            Self::Every { seconds: step, tolerance_seconds, .. } => {
                let steps = (seconds + tolerance_seconds) / step;
                (8.0 * steps).floor().min((4.0 * steps).floor() + 1.0).min(steps.floor() + 3.0) as i64
            }
            Self::At { starts, .. } => {
                starts.partition_point(|start| start.threshold() <= seconds) as i64 - 1
            }
        }
    }

    /// Which interval an instant of sound lies in, which may begin before the picture and end behind it.
    pub fn interval_of_sound(&self, seconds: f64) -> i64 {
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

    /// The first instant that belongs to an interval, of picture and of sound.
    pub fn start_seconds(&self, interval: i64) -> f64 {
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
        // Rounding may have made it the last instant of the one before.
        if self.interval_of_sound(start) < interval { start + NANOSECOND } else { start }
    }

    /// Whether no frame will follow in an interval, when its last one so far is shown at `last_seconds`. False
    /// where that is not certain: then the next frame tells.
    pub fn filled(&self, interval: i64, last_seconds: f64) -> bool {
        match self {
            Self::Every { frame_seconds, .. } => self.interval(last_seconds + frame_seconds) > interval,
            Self::At { starts, end, .. } => {
                let next = usize::try_from(interval + 1).ok();
                let next = next.and_then(|next| starts.get(next)).unwrap_or(end);
                let slack = ((next.at_seconds - next.before_seconds) / 4.0).min(ROUNDING_SECONDS);
                last_seconds >= next.before_seconds - slack
            }
        }
    }

    /// FFmpeg's `-force_key_frames`: the first frame in every interval from the `first` on, for a picture that begins
    /// `from_seconds` after 0: in expressions, FFmpeg counts from the first frame. (Counting frames, as in `n_forced*4`,
    /// would make every frame behind a long one a keyframe until it had caught up.)
    pub fn forced_keyframes(&self, first: i64, from_seconds: f64) -> String {
        match self {
            Self::Every { seconds, tolerance_seconds, .. } => {
                let interval = |time| expression(time, *seconds, tolerance_seconds + from_seconds);
                let (now, before) = (interval("t"), interval("prev_forced_t"));
                format!("expr:if(isnan(prev_forced_t),1,gt({now},{before}))")
            }
            Self::At { starts, .. } => {
                // FFmpeg goes through them one frame at a time.
                let past = usize::try_from(first).unwrap_or(0);
                let times = starts.iter().skip(past).map(|start| format!("{:.6}", start.threshold()));
                times.collect::<Vec<_>>().join(",")
            }
        }
    }

    /// FFmpeg's expression for whether a frame at `t` lies in an interval or behind it.
    pub fn not_before(&self, interval: i64) -> String {
        match self {
            Self::Every { seconds, tolerance_seconds, .. } => {
                format!("gte({},{interval})", expression("t", *seconds, *tolerance_seconds))
            }
            Self::At { .. } => format!("gte(t,{:.6})", self.start_seconds(interval)),
        }
    }

    /// The longest a segment is meant to be, in seconds.
    pub fn longest_seconds(&self) -> f64 {
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

/// [`Boundaries::interval`] of a grid, as FFmpeg's expressions have it.
fn expression(time: &str, seconds: f64, tolerance_seconds: f64) -> String {
    let steps = format!("({time}+{tolerance_seconds:.6})/{seconds}");
    format!("min(min(floor(8*{steps}),floor(4*{steps})+1),floor({steps})+3)")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Boundaries at these frames of 25 a second, of a picture of 12 s.
    fn at(frames: &[u32]) -> Boundaries {
        let time = |frame: u32| f64::from(frame) / 25.0;
        let boundary =
            |frame: u32| FrameTime { at_seconds: time(frame), before_seconds: time(frame.saturating_sub(1)) };
        let starts = frames.iter().copied().map(boundary).collect();
        Boundaries::at(starts, boundary(300), 4.0).unwrap()
    }

    #[test]
    fn a_frame_just_before_a_boundary_belongs_behind_it() {
        let grid = Boundaries::every(4.0, 30.0);
        assert_eq!([7.95, 7.99, 8.0, 12.1].map(|at| grid.interval(at)), [4, 5, 5, 6]);
        let expression = "expr:if(isnan(prev_forced_t),1,gt(\
                          min(min(floor(8*(t+0.016667)/4),floor(4*(t+0.016667)/4)+1),floor((t+0.016667)/4)+3),\
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
            let grid = Boundaries::every(seconds, 0.0);
            [0, 1, 2, 3, 4, 5].map(|interval| grid.start_seconds(interval) + 0.02)
        };
        assert_eq!(starts(4.0), [0.0, 0.5, 1.0, 2.0, 4.0, 8.0]);
        assert_eq!(starts(6.0), [0.0, 0.75, 1.5, 3.0, 6.0, 12.0]);
    }

    #[test]
    fn sound_goes_on_in_steps_before_and_behind_the_picture() {
        let listed = at(&[75, 175]);
        let of = |seconds: [f64; 7]| seconds.map(|seconds| listed.interval_of_sound(seconds));
        assert_eq!(of([0.0, 2.9, 3.0, 7.1, 12.2, 12.3, 16.3]), [-1, -1, 0, 1, 1, 2, 3]);
    }

    #[test]
    fn an_interval_is_filled_by_the_frame_before_the_next_boundary() {
        let listed = at(&[0, 110, 250]);
        assert!(!listed.filled(0, 4.32));
        assert!(listed.filled(0, 4.36));
        assert!(!listed.filled(2, 11.92));
        assert!(listed.filled(2, 11.96), "the last one, by the last frame");
        let (start, end) =
            (FrameTime { at_seconds: 0.0, before_seconds: 0.0 }, |at_seconds, before_seconds| FrameTime {
                at_seconds,
                before_seconds,
            });
        let slides = Boundaries::at(vec![start], end(30.0, 20.0), 4.0).unwrap();
        assert!(!slides.filled(0, 19.0) && slides.filled(0, 20.0), "however long it is shown");
        let grid = Boundaries::every(4.0, 25.0);
        assert!(grid.filled(0, 0.48));
        assert!(grid.filled(4, 7.96));
        assert!(!grid.filled(4, 7.92), "one more frame");
    }

    #[test]
    fn the_longest_segment() {
        assert_eq!(at(&[0, 110, 250]).longest_seconds(), 5.6);
        assert_eq!(at(&[0, 50]).longest_seconds(), 10.0);
        assert_eq!(Boundaries::every(4.0, 25.0).longest_seconds(), 4.0);
    }

    #[test]
    fn a_list_that_no_command_line_holds_is_none() {
        // 24 hours, to the microsecond.
        let keyframe = FrameTime { at_seconds: 86_400.0, before_seconds: 86_400.0 };
        let listed = |count| Boundaries::at(vec![keyframe; count], keyframe, 4.0);
        assert!(listed(8_001).is_none());
        assert!(listed(8_000).unwrap().forced_keyframes(0, 0.0).len() < 128 << 10);
    }

    /// Frames as FFmpeg encodes them under these boundaries: whether each is a keyframe, and when it is shown.
    fn encoded(frame_rate: f64, filter: &str, boundaries: &Boundaries) -> Vec<(bool, f64)> {
        let source = format!("color=size=16x16:rate={frame_rate}:duration=30,{filter}");
        let forced = boundaries.forced_keyframes(0, 0.0);
        let output = std::process::Command::new("ffmpeg")
            .args(["-loglevel", "error", "-f", "lavfi", "-i", &source, "-force_key_frames", &forced])
            .args("-fps_mode vfr -enc_time_base 1:90000 -c:v libx264 -preset ultrafast -g 100000 -sc_threshold 0 -bf 0".split(' '))
            .args(["-f", "framecrc", "-"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let (told, frames): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('#'));
        let tick = told.iter().find_map(|line| line.strip_prefix("#tb 0: 1/")).unwrap();
        let tick: f64 = tick.parse().unwrap();
        let frame = |line: &&str| {
            let pts: f64 = line.split(',').nth(2).unwrap().trim().parse().unwrap();
            // Of flags, only others than a keyframe's are told.
            (!line.contains("F=0x0"), pts / tick)
        };
        frames.iter().map(frame).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn ffmpeg_begins_intervals_where_they_begin_here(
            seconds in 1.0_f64..10.0,
            frame_rate in prop::sample::select(vec![0.5, 8.0, 12.5, 25.0, 30.0, 50.0, 60.0]),
            kept in 1_u32..=10,
        ) {
            let boundaries = Boundaries::every(seconds, frame_rate);
            // Of ten frames so many, anywhere.
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
        let every = every.prop_map(|(seconds, frame_rate)| Boundaries::every(seconds, frame_rate));
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
        fn an_interval_begins_at_its_start_and_not_before(
            boundaries in any_boundaries(), interval in prop_oneof![-3_i64..6, 0_i64..20_000],
        ) {
            let interval = match &boundaries {
                Boundaries::Every { .. } => interval.max(0),
                Boundaries::At { starts, .. } => interval % (2 * starts.len() as i64),
            };
            let start = boundaries.start_seconds(interval);
            prop_assert_eq!(boundaries.interval_of_sound(start), interval);
            prop_assert_eq!(boundaries.interval_of_sound(start - 1e-8), interval - 1);
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
        fn intervals_follow_each_other_and_none_is_longer_than_meant(
            boundaries in any_boundaries(), seconds in 0.0_f64..300.0, later in 0.0_f64..20.0,
        ) {
            prop_assert!(boundaries.interval(seconds) <= boundaries.interval(seconds + later));
            prop_assert!(boundaries.interval_of_sound(seconds) <= boundaries.interval_of_sound(seconds + later));
            let interval = boundaries.interval_of_sound(seconds);
            let (start, end) = (boundaries.start_seconds(interval), boundaries.start_seconds(interval + 1));
            prop_assert!(start <= seconds && seconds < end, "{start} {seconds} {end}");
            // The last one goes on until the sound has a segment of its own.
            prop_assert!(end - start <= boundaries.longest_seconds() + TAIL_SECONDS + 0.03, "{start} {end}");
        }

        #[test]
        fn every_frame_lies_in_the_interval_that_its_boundary_begins(
            gaps in prop::collection::vec(1_u32..300, 1..50), frame in 0_u32..10_000,
        ) {
            let gaps = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) });
            let starts: Vec<u32> = [0].into_iter().chain(gaps).collect();
            let interval = at(&starts).interval(f64::from(frame) / 25.0);
            let interval = usize::try_from(interval).unwrap();
            prop_assert!(starts[interval] <= frame);
            prop_assert!(starts.get(interval + 1).is_none_or(|next| frame < *next));
        }
    }
}
