//! The window of metrics for CloudWatch: the values since the previous line.

use vidstreamx_job::State;

/// Maximum number of a metric's values in a line, by the embedded metric format's specification.
pub(super) const MOST_VALUES: usize = 100;

/// The counts and values since the previous line.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) ended: EndedVideos,
    pub(super) attempts: Sample,
    pub(super) cost_usd: f64,
    pub(super) launch_latency: Sample,
    pub(super) launches_refused: u64,
    pub(super) receive_age: Sample,
    pub(super) dead_lettered: u64,
    /// Whether a setting or permission was wrong at any time in the window.
    pub(super) misconfigured: bool,
}

/// Videos that ended, by state.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct EndedVideos {
    pub(super) done: u64,
    pub(super) rejected: u64,
    pub(super) obsolete: u64,
    pub(super) failed: u64,
    pub(super) cancelled: u64,
}

impl EndedVideos {
    pub(super) const fn add(&mut self, state: State) {
        match state {
            State::Done => self.done += 1,
            State::Rejected => self.rejected += 1,
            State::Obsolete => self.obsolete += 1,
            State::Failed => self.failed += 1,
            State::Cancelled => self.cancelled += 1,
            State::Running => {}
        }
    }
}

/// A sample of a metric's values: all values if they fit into a line, otherwise a random selection and the
/// maximum.
#[derive(Debug, Default)]
pub(super) struct Sample {
    values: Vec<f64>,
    seen: usize,
    largest: f64,
}

impl Sample {
    pub(super) fn add(&mut self, value: f64) {
        self.seen += 1;
        self.largest = self.largest.max(value);
        // Leaves room for the maximum.
        if self.values.len() < MOST_VALUES - 1 {
            self.values.push(value);
        } else if let Some(replaced) = self.values.get_mut(fastrand::usize(..self.seen)) {
            *replaced = value;
        }
    }

    pub(super) fn into_values(self) -> impl Iterator<Item = f64> {
        let has_all = self.seen == self.values.len();
        self.values.into_iter().chain((!has_all).then_some(self.largest))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_sample_holds_all_values_or_a_hundred_with_the_largest(
            values in prop::collection::vec(0_u32..100_000, 0..400)
        ) {
            let mut sample = Sample::default();
            for value in &values {
                sample.add(f64::from(*value));
            }
            let held: Vec<_> = sample.into_values().collect();
            prop_assert_eq!(held.len(), values.len().min(MOST_VALUES));
            prop_assert!(held.iter().all(|held| values.iter().any(|value| f64::from(*value) == *held)));
            if let Some(largest) = values.iter().max() {
                prop_assert!(held.contains(&f64::from(*largest)));
            }
        }
    }
}
