//! The number of videos in flight, and its limit.

use std::sync::Arc;

use tokio::sync::watch;

use crate::metrics::Metrics;

/// Counts the videos of held messages, from the receive to the end of the job.
#[derive(Clone)]
pub(super) struct InFlight {
    count: watch::Sender<usize>,
    limit: usize,
    metrics: Arc<Metrics>,
}

impl InFlight {
    pub(super) fn new(limit: usize, metrics: Arc<Metrics>) -> Self {
        Self { count: watch::channel(0).0, limit, metrics }
    }

    /// Waits until another video may be in flight. Returns the number of free places.
    pub(super) async fn free(&self) -> usize {
        let mut count = self.count.subscribe();
        let is_below = |videos: &usize| *videos < self.limit;
        let is_full = !is_below(&count.borrow());
        if is_full {
            self.metrics.paused(&format!("{} videos are in flight, which is the limit", self.limit));
        }
        // Waiting cannot fail, because the sender lives as long as `self`.
        let free = count.wait_for(is_below).await.map_or(1, |videos| self.limit - *videos);
        if is_full {
            self.metrics.resumed();
        }
        free
    }

    /// Counts one video until the returned value is dropped.
    pub(super) fn enter(&self) -> VideoInFlight {
        self.change(|count| count + 1);
        VideoInFlight(self.clone())
    }

    fn change(&self, change: impl FnOnce(usize) -> usize) {
        self.count.send_modify(|count| {
            *count = change(*count);
            self.metrics.in_flight(*count);
        });
    }
}

/// One video in flight.
#[must_use]
pub(super) struct VideoInFlight(InFlight);

impl Drop for VideoInFlight {
    fn drop(&mut self) {
        self.0.change(|count| count - 1);
    }
}
