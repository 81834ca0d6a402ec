//! Decides whether the picture must be held: repeated where the source shows nothing new for long, and
//! extended to the start and end of the stream.
//!
//! Players wait, skip or stop where a rendition has no frame for seconds. A stream lasts from the first to
//! the last sample of all its tracks, and every rendition covers all of that.

use crate::analysis::media::Video;

use super::{audio::MAX_GAP_SECONDS, segmentation::TAIL_SECONDS};

/// Longest time in seconds between two frames that is left as it is.
const LONGEST_FRAME_SECONDS: f64 = 0.5;
/// Lowest regular frame rate that is left as it is. At lower rates, reordered frames are decoded a second
/// before or after their presentation, and browsers wait for more frames than the buffer holds.
const LOWEST_RATE: f64 = 4.0;
/// Repeated frames per second.
pub(crate) const REPEAT_RATE: u32 = 10;
/// Most ticks per second: from 500,000 on, FFmpeg's filters with two inputs count microseconds.
const MOST_TICKS: u32 = 499_999;
/// Ticks per second if the source's clock is too fine to be doubled.
const USUAL_TIMESCALE: u32 = 180_000;

/// How encoded rungs are held.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Hold {
    /// Ticks per second of the rungs. The source's frames are at even ticks, repeated frames at odd ticks.
    pub(crate) timescale: u32,
    /// Start of the source's first frame in seconds, if it begins late: a black frame at time 0 precedes it.
    pub(crate) black_until_seconds: Option<f64>,
    /// Time in seconds up to which the last frame is repeated; 0 if the end of the stream is unknown.
    pub(crate) end_seconds: f64,
}

impl Hold {
    /// The way to hold a video track; `None` if its frames are near enough to each other, and to the start
    /// and end of the stream. `longest_frame_seconds` is the longest time between two frames, if the file has
    /// an index. `end_seconds` is the end of the stream; 0 if unknown.
    #[must_use]
    pub(super) fn new(video: &Video, longest_frame_seconds: Option<f64>, end_seconds: f64) -> Option<Self> {
        let begins_late = video.start_seconds > MAX_GAP_SECONDS;
        let ends_early = end_seconds - video.start_seconds - video.duration_seconds > TAIL_SECONDS;
        let is_regular = longest_frame_seconds.is_some_and(|longest| longest <= LONGEST_FRAME_SECONDS);
        if is_regular && video.frame_rate >= LOWEST_RATE && !begins_late && !ends_early {
            return None;
        }
        let black_until_seconds = begins_late.then_some(video.start_seconds);
        Some(Self { timescale: timescale(&video.time_base), black_until_seconds, end_seconds })
    }

    /// The time base of the rungs.
    #[must_use]
    pub(crate) fn time_base(&self) -> String {
        format!("1/{}", self.timescale)
    }
}

/// Twice the ticks per second of the source's clock, refined so that a repeated frame's time is expressible.
fn timescale(time_base: &str) -> u32 {
    const LEAST: u32 = 10_000;
    let ticks = time_base.split_once('/').and_then(|(_, ticks)| ticks.parse::<u32>().ok());
    let refined = ticks.filter(|ticks| *ticks > 0).and_then(|ticks| ticks.checked_mul(LEAST.div_ceil(ticks)));
    let doubled = refined.and_then(|ticks| ticks.checked_mul(2));
    doubled.filter(|ticks| *ticks <= MOST_TICKS).unwrap_or(USUAL_TIMESCALE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video() -> Video {
        Video { frame_rate: 25.0, duration_seconds: 10.0, time_base: "1/12800".into(), ..Video::default() }
    }

    #[test]
    fn regular_video_that_covers_the_stream_is_not_held() {
        assert_eq!(Hold::new(&video(), Some(0.04), 10.0), None);
        assert_eq!(Hold::new(&video(), Some(0.5), 10.4), None);
        assert_eq!(Hold::new(&Video { start_seconds: 0.1, ..video() }, Some(0.04), 10.4), None);
    }

    #[test]
    fn gaps_low_rates_and_missing_starts_and_ends_are_held() {
        let hold =
            |end_seconds, black_until_seconds| Hold { timescale: 25_600, black_until_seconds, end_seconds };
        assert_eq!(Hold::new(&video(), Some(0.6), 10.0), Some(hold(10.0, None)));
        assert_eq!(Hold::new(&video(), None, 10.0), Some(hold(10.0, None)), "a file without an index");
        assert_eq!(Hold::new(&video(), Some(0.04), 11.0), Some(hold(11.0, None)));
        assert_eq!(Hold::new(&Video { frame_rate: 2.0, ..video() }, Some(0.5), 0.0), Some(hold(0.0, None)));
        let late = Video { start_seconds: 12.0, ..video() };
        assert_eq!(Hold::new(&late, Some(0.04), 22.0), Some(hold(22.0, Some(12.0))));
    }

    #[test]
    fn the_clock_is_even_and_fine() {
        let cases = ["1/1000", "1/90000", "1001/30000", "1/1", "1/4000000000", "1/10000000", "1/0", ""];
        let expected = [20_000, 180_000, 60_000, 20_000, 180_000, 180_000, 180_000, 180_000];
        assert_eq!(cases.map(timescale), expected);
    }
}
