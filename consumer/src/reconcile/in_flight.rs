//! The number of videos in flight, and its limit.

use std::sync::Arc;

use tokio::sync::watch;

use crate::metrics::Metrics;

/// Maximum number of videos that wait apart. Their messages stay held, and SQS allows some 120,000 held
/// messages of a queue. A waiting video needs about 4 KB of memory.
const MOST_APART: usize = 10_000;

/// Counts the videos of held messages, from the receive to the end of the job.
#[derive(Clone)]
pub(crate) struct InFlight {
    count: watch::Sender<Count>,
    limit: usize,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    /// Videos that take a place.
    placed: usize,
    /// Videos that wait apart.
    apart: usize,
}

impl InFlight {
    pub(crate) fn new(limit: usize, metrics: Arc<Metrics>) -> Self {
        Self { count: watch::channel(Count::default()).0, limit, metrics }
    }

    /// Waits until another video may be in flight. Returns the number of free places.
    pub(crate) async fn free(&self) -> usize {
        let mut count = self.count.subscribe();
        let is_below = |count: &Count| count.placed < self.limit;
        let is_full = !is_below(&count.borrow());
        if is_full {
            self.metrics.paused(&format!("{} videos are in flight, which is the limit", self.limit));
        }
        // Waiting cannot fail, because the sender lives as long as `self`.
        let free = count.wait_for(is_below).await.map_or(1, |count| self.limit - count.placed);
        if is_full {
            self.metrics.resumed();
        }
        free
    }

    /// Counts one video until the returned value is dropped.
    pub(crate) fn enter(&self) -> Place {
        self.change(|count| count.placed += 1);
        Place { in_flight: self.clone(), is_apart: false }
    }

    fn change(&self, change: impl FnOnce(&mut Count)) {
        self.count.send_modify(|count| {
            change(count);
            self.metrics.in_flight(count.placed + count.apart);
        });
    }
}

/// The place of one video in flight.
#[must_use]
pub(crate) struct Place {
    in_flight: InFlight,
    is_apart: bool,
}

impl Place {
    /// Gives the place to another video, while this one waits apart. Without effect if too many videos wait
    /// apart.
    pub(super) fn leave(&mut self) {
        if !self.is_apart && self.in_flight.count.borrow().apart < MOST_APART {
            self.is_apart = true;
            self.in_flight.change(|count| (count.placed, count.apart) = (count.placed - 1, count.apart + 1));
        }
    }

    /// Takes a place again, even above the limit. Nothing is received until the number is below the limit.
    pub(super) fn take(&mut self) {
        if std::mem::take(&mut self.is_apart) {
            self.in_flight.change(|count| (count.placed, count.apart) = (count.placed + 1, count.apart - 1));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.take();
        self.in_flight.change(|count| count.placed -= 1);
    }
}
