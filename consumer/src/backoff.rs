//! Growing pauses of the loops that wait for AWS.
//!
//! These loops outlive any number of retries: they stop at shutdown, pause longer if only a person can help,
//! or share one pause between many callers. Calls that are given up after a few retries use the crate
//! `backon` instead.

use std::time::Duration;

/// The first pause, doubled for each earlier failure, up to the longest pause.
pub(crate) fn exponential((first, longest): (Duration, Duration), earlier_failures: u32) -> Duration {
    first.saturating_mul(1 << earlier_failures.min(16)).min(longest)
}

/// A random part of a pause, at least half of it: consumers that failed together do not return together.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}
