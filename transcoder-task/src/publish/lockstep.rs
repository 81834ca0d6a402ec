//! Keeps copied rungs in step with encoded renditions.

use tokio::sync::watch;

use super::track::Track;

/// The progress of all renditions. The copied rest of a rung with an encoded prefix has its own FFmpeg
/// process, which would run far ahead and take CPU time from the encoders. Therefore it may be at most one
/// segment ahead.
pub(super) struct Lockstep {
    /// The last published interval of each rendition; [`i64::MAX`] for copied rungs and for ended renditions,
    /// which hold no other rendition back.
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

    /// Waits until the slowest rendition is within one segment of an interval, or has ended.
    pub(super) async fn follow(&self, interval: i64) {
        let is_near = |reached: &Vec<i64>| {
            let last = reached.iter().min().copied().unwrap_or(i64::MAX);
            interval <= last.saturating_add(1)
        };
        // The wait fails only without a sender, and `self` owns the sender.
        let _ = self.reached.subscribe().wait_for(is_near).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_copied_rung_is_at_most_one_segment_ahead() {
        let lockstep = Lockstep { reached: watch::Sender::new(vec![i64::MAX, -1, -1]) };
        let furthest = || (0..9).filter(|at| lockstep.follow(*at).now_or_never().is_some()).max();
        assert_eq!(furthest(), Some(0));
        lockstep.reach(1, 3);
        assert_eq!(furthest(), Some(0), "the slowest one counts");
        lockstep.reach(2, 2);
        assert_eq!(furthest(), Some(3));
        lockstep.reach(2, 3);
        assert_eq!(furthest(), Some(4));
        lockstep.reach(1, i64::MAX);
        lockstep.reach(2, 4);
        assert_eq!(furthest(), Some(5));
        lockstep.reach(2, i64::MAX);
        assert_eq!(furthest(), Some(8), "all others have ended");
    }
}
