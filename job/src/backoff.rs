//! Pauses between retries.

use std::time::Duration;

/// Exponential backoff with jitter. The longest possible pause doubles with each try, up to `longest`. The
/// actual pause is a random time from half of it to all of it, so callers that were refused together do not
/// retry together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Longest pause after the first try.
    pub first: Duration,
    /// Longest pause after any try.
    pub longest: Duration,
}

impl Backoff {
    /// The pause after this many failed tries, counted from 1.
    #[must_use]
    pub fn pause(self, tries: u32) -> Duration {
        let doublings = tries.saturating_sub(1).min(31);
        jittered(self.first.saturating_mul(1 << doublings).min(self.longest))
    }
}

/// A random duration from half of `pause` to all of it.
#[must_use]
pub fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pauses_double_up_to_a_limit(tries in 1..u32::MAX) {
            let backoff = Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(20) };
            let pause = backoff.pause(tries);
            prop_assert!(pause >= backoff.first / 2 && pause <= backoff.longest);
            prop_assert!(tries < 9 || pause >= backoff.longest / 2);
        }
    }
}
