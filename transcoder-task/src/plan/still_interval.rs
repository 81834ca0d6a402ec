//! The interval between stills, from which poster and storyboard are made.

/// Most stills of a video; a storyboard of ten by ten tiles holds as many.
pub(crate) const MAX_STILLS: usize = 100;
/// Seconds between stills of a video of unknown duration.
const UNKNOWN: f64 = 5.0;

/// Seconds between stills of a video of this duration (0 if unknown): a multiple of a tenth, at least one,
/// and long enough for at most a hundred stills.
#[must_use]
pub(crate) fn seconds(duration_seconds: f64) -> f64 {
    if duration_seconds > 0.0 {
        // One still is spare, for a video that is a little longer than its header says.
        (duration_seconds / (MAX_STILLS - 1) as f64 * 10.0).ceil().max(10.0) / 10.0
    } else {
        UNKNOWN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_still_per_second_or_a_hundred_in_total() {
        assert_eq!([0.04, 99.0, 101.0, 300.14, 7200.0].map(seconds), [1.0, 1.0, 1.1, 3.1, 72.8]);
        assert_eq!(seconds(0.0), 5.0);
    }
}
