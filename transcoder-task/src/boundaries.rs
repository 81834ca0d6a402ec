//! The instants at which segments of every rendition begin.

/// Forced keyframes are given as one argument, of which Linux takes 128 KiB.
const LONGEST_LIST: usize = 8_000;

/// Sound may end this much behind the picture, in seconds, without a segment of its own.
const TAIL_SECONDS: f64 = 0.25;

/// Where segments begin.
#[derive(Debug, Clone, PartialEq)]
pub enum Boundaries {
    /// At multiples of one duration, where all rungs are encoded.
    Every {
        /// In seconds.
        seconds: f64,
        /// A sample this much before a boundary belongs to the segment behind it: FFmpeg takes the first frame
        /// at or after the forced time, and times are rounded.
        tolerance_seconds: f64,
        /// What a frame lasts as a rule.
        frame_seconds: f64,
    },
    /// At keyframes of the source, where it is published as it is.
    At {
        /// In order.
        keyframes: Vec<Boundary>,
        /// When the picture ends.
        end_seconds: f64,
        /// Length of segments of sound before and behind the picture.
        step_seconds: f64,
    },
}

/// A keyframe that a segment begins with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Boundary {
    /// When it is shown, in seconds.
    pub at_seconds: f64,
    /// When the frame before it is shown; as `at_seconds` for the first.
    pub before_seconds: f64,
}

impl Boundary {
    /// Half-way between the two frames: neither rounding nor the source's clock gets there.
    fn threshold(&self) -> f64 {
        f64::midpoint(self.at_seconds, self.before_seconds)
    }
}

impl Boundaries {
    /// A uniform grid for a picture of `frame_rate` frames per second (0 if unknown, or for sound alone).
    pub fn every(seconds: f64, frame_rate: f64) -> Self {
        // Half a frame, but at most 1/50 s, so that a slide show's long frames do not pull boundaries forward; in
        // microseconds, as FFmpeg is told.
        let tolerance = if frame_rate > 25.0 { 0.5 / frame_rate } else { 0.02 };
        let frame_seconds = if frame_rate > 0.0 { 1.0 / frame_rate } else { 0.04 };
        Self::Every { seconds, tolerance_seconds: (tolerance * 1e6).round() / 1e6, frame_seconds }
    }

    /// At these keyframes of a picture that lasts until `end_seconds`; `None` if they are too many to be told to
    /// FFmpeg.
    pub fn at(keyframes: Vec<Boundary>, end_seconds: f64, step_seconds: f64) -> Option<Self> {
        let fits = !keyframes.is_empty() && keyframes.len() <= LONGEST_LIST;
        fits.then_some(Self::At { keyframes, end_seconds, step_seconds })
    }

    /// Which interval between boundaries an instant of the picture lies in.
    pub fn interval(&self, seconds: f64) -> i64 {
        match self {
            Self::Every { seconds: step, tolerance_seconds, .. } => {
                ((seconds + tolerance_seconds) / step).floor() as i64
            }
            Self::At { keyframes, .. } => {
                keyframes.partition_point(|keyframe| keyframe.threshold() <= seconds) as i64 - 1
            }
        }
    }

    /// Which interval an instant of sound lies in, which may begin before the picture and end behind it.
    pub fn interval_of_sound(&self, seconds: f64) -> i64 {
        if let Self::At { keyframes, end_seconds, step_seconds } = self {
            let first = keyframes.first().map_or(0.0, |keyframe| keyframe.at_seconds);
            let behind = seconds - end_seconds - TAIL_SECONDS;
            if seconds < first {
                return -((first - seconds) / step_seconds).ceil() as i64;
            }
            if behind > 0.0 {
                return keyframes.len() as i64 + (behind / step_seconds).floor() as i64;
            }
        }
        self.interval(seconds)
    }

    /// Whether no frame will follow in an interval, when its last one so far is shown at `last_seconds`. False
    /// where that is not certain: then the next frame tells.
    pub fn filled(&self, interval: i64, last_seconds: f64) -> bool {
        match self {
            Self::Every { frame_seconds, .. } => self.interval(last_seconds + frame_seconds) > interval,
            Self::At { keyframes, .. } => {
                let next = usize::try_from(interval + 1).ok().and_then(|next| keyframes.get(next));
                next.is_some_and(|next| {
                    let slack = (next.at_seconds - next.before_seconds) / 4.0;
                    last_seconds >= next.before_seconds - slack
                })
            }
        }
    }

    /// FFmpeg's `-force_key_frames`: the first frame in every interval from the `first` on. (Counting, as in `n_forced*4`, would make every
    /// frame behind a long one a keyframe until it had caught up.)
    pub fn forced_keyframes(&self, first: i64) -> String {
        match self {
            Self::Every { seconds, tolerance_seconds, .. } => {
                let interval = |time: &str| format!("floor(({time}+{tolerance_seconds:.6})/{seconds})");
                let (now, before) = (interval("t"), interval("prev_forced_t"));
                format!("expr:if(isnan(prev_forced_t),1,gt({now},{before}))")
            }
            Self::At { keyframes, .. } => {
                // FFmpeg goes through them one frame at a time.
                let past = usize::try_from(first).unwrap_or(0);
                let times =
                    keyframes.iter().skip(past).map(|keyframe| format!("{:.6}", keyframe.threshold()));
                times.collect::<Vec<_>>().join(",")
            }
        }
    }

    /// The first instant that belongs to an interval; `None` behind the last of the source's keyframes.
    pub fn start_seconds(&self, interval: i64) -> Option<f64> {
        match self {
            Self::Every { seconds, tolerance_seconds, .. } => {
                Some(interval as f64 * seconds - tolerance_seconds)
            }
            Self::At { keyframes, .. } => {
                usize::try_from(interval).ok().and_then(|index| keyframes.get(index)).map(Boundary::threshold)
            }
        }
    }

    /// FFmpeg's expression for whether a frame at `t` lies in an interval or behind it.
    pub fn not_before(&self, interval: i64) -> String {
        match self {
            Self::Every { seconds, tolerance_seconds, .. } => {
                format!("gte(floor((t+{tolerance_seconds:.6})/{seconds}),{interval})")
            }
            Self::At { .. } => format!("gte(t,{:.6})", self.start_seconds(interval).unwrap_or(f64::MAX)),
        }
    }

    /// The longest a segment is meant to be, in seconds.
    pub fn longest_seconds(&self) -> f64 {
        match self {
            Self::Every { seconds, .. } => *seconds,
            Self::At { keyframes, end_seconds, step_seconds } => {
                let starts = keyframes.iter().map(|keyframe| keyframe.at_seconds);
                let ends = starts.clone().skip(1).chain([*end_seconds]);
                starts.zip(ends).map(|(start, end)| end - start).fold(*step_seconds, f64::max)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Boundaries at these frames of 25 a second, of a picture of 12 s.
    fn at(frames: &[u32]) -> Boundaries {
        let time = |frame: u32| f64::from(frame) / 25.0;
        let boundary = |frame: &u32| Boundary {
            at_seconds: time(*frame),
            before_seconds: time(frame.saturating_sub(1)),
        };
        Boundaries::at(frames.iter().map(boundary).collect(), 12.0, 4.0).unwrap()
    }

    #[test]
    fn a_frame_just_before_a_boundary_belongs_behind_it() {
        let grid = Boundaries::every(4.0, 30.0);
        assert_eq!([0.0, 3.95, 3.99, 4.0, 8.1].map(|at| grid.interval(at)), [0, 0, 1, 1, 2]);
        let expression = "expr:if(isnan(prev_forced_t),1,\
                          gt(floor((t+0.016667)/4),floor((prev_forced_t+0.016667)/4)))";
        assert_eq!(grid.forced_keyframes(0), expression);
        let listed = at(&[0, 110, 250]);
        assert_eq!([0.0, 4.36, 4.39, 4.4, 9.99, 30.0].map(|at| listed.interval(at)), [0, 0, 1, 1, 2, 2]);
        assert_eq!(listed.forced_keyframes(0), "0.000000,4.380000,9.980000");
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
        assert!(!listed.filled(2, 20.0), "the last one ends with the stream");
        let grid = Boundaries::every(4.0, 25.0);
        assert!(grid.filled(1, 7.96));
        assert!(!grid.filled(1, 7.92), "one more frame");
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
        let keyframe = Boundary { at_seconds: 86_400.0, before_seconds: 86_400.0 };
        let listed = |count| Boundaries::at(vec![keyframe; count], 86_400.0, 4.0);
        assert!(listed(8_001).is_none());
        assert!(listed(8_000).unwrap().forced_keyframes(0).len() < 128 << 10);
    }

    proptest! {
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
