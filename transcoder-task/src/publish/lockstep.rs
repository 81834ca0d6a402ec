//! Keeps copied rungs in step with encoded renditions.

use tokio::sync::watch;

use super::track::Track;

/// How far the renditions have come. A rung that comes from FFmpegs of its own would run away from the others and take their
/// time: it may be a segment ahead.
pub(super) struct Lockstep {
    /// The last interval that is published of each rendition that others wait for.
    reached: watch::Sender<Vec<i64>>,
}

impl Lockstep {
    pub(super) fn of(tracks: &[Track]) -> Self {
        let reached = |track: &Track| if track.is_copied() { i64::MAX } else { -1 };
        Self { reached: watch::Sender::new(tracks.iter().map(reached).collect()) }
    }

    pub(super) fn reach(&self, track: usize, interval: i64) {
        self.reached.send_modify(|reached| {
            if let Some(last) = reached.get_mut(track) {
                *last = interval.max(*last);
            }
        });
    }

    /// Until the rendition that is the last has come near an interval, or has ended.
    pub(super) async fn follow(&self, interval: i64) {
        let is_near = |reached: &Vec<i64>| {
            let last = reached.iter().min().copied().unwrap_or(i64::MAX);
            interval <= last.saturating_add(1)
        };
        // The sender is ours.
        let _ = self.reached.subscribe().wait_for(is_near).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn what_is_copied_is_a_segment_ahead_of_what_is_encoded() {
        let pace = Lockstep { reached: watch::Sender::new(vec![i64::MAX, -1, -1]) };
        let furthest = || (0..9).filter(|at| pace.follow(*at).now_or_never().is_some()).max();
        assert_eq!(furthest(), Some(0));
        pace.reach(1, 3);
        assert_eq!(furthest(), Some(0), "the last one counts");
        pace.reach(2, 2);
        assert_eq!(furthest(), Some(3));
        pace.reach(2, 3);
        assert_eq!(furthest(), Some(4));
        pace.reach(1, i64::MAX);
        pace.reach(2, 4);
        assert_eq!(furthest(), Some(5));
        pace.reach(2, i64::MAX);
        assert_eq!(furthest(), Some(8), "nobody to wait for");
    }
}
