//! The number of videos in flight, and its limit.
//!
//! Uploads come before back-fills: a tenth of the places is for uploads only, and while uploads wait in their
//! queue, back-fills get no more than the tenth that is theirs. Each tenth is received even above the limit,
//! so that neither queue holds up the other for ever. The limit of tasks holds for all together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::{aws::sqs::QueueKind, metrics::Metrics};

/// Maximum number of videos that wait apart. Their messages stay held, and SQS allows some 120,000 held
/// messages of a queue. A waiting video needs about 4 KB of memory.
const MOST_APART: usize = 10_000;

/// Counts the videos of held messages, from the receive to the end of the job.
#[derive(Clone)]
pub(crate) struct InFlight {
    /// A watch channel would wake the loops of both queues in random order.
    shared: Arc<Shared>,
    limit: usize,
    /// The places that are for uploads only, if there is more than one place.
    for_uploads: usize,
    /// The back-fills that may be in flight whatever uploads do.
    for_back_fills: usize,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Shared {
    count: Mutex<Count>,
    changed: Notify,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    /// Videos that take a place.
    placed: usize,
    /// Those of the back-fill queue among them.
    back_fills: usize,
    /// Videos that wait apart.
    apart: usize,
    /// Whether no upload waits in its queue, as far as is known.
    is_upload_queue_empty: bool,
}

impl InFlight {
    pub(crate) fn new(limit: usize, metrics: Arc<Metrics>) -> Self {
        let tenth = (limit / 10).max(1);
        Self {
            shared: Arc::default(),
            limit,
            for_uploads: if limit > 1 { tenth } else { 0 },
            for_back_fills: tenth,
            metrics,
        }
    }

    /// Waits until another video of this queue may be in flight. Returns the number of free places.
    pub(crate) async fn free(&self, queue: QueueKind) -> usize {
        let mut has_waited = false;
        let free = loop {
            let changed = self.shared.changed.notified();
            match self.free_of(queue, *self.count()) {
                0 => {}
                free => break free,
            }
            if !has_waited {
                let reason = format!("{} videos are in flight, which is the limit", self.limit);
                self.metrics.paused(queue, &reason);
                has_waited = true;
            }
            changed.await;
        };
        if has_waited {
            self.metrics.resumed(queue);
        }
        free
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.shared.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free_of(&self, queue: QueueKind, count: Count) -> usize {
        match queue {
            QueueKind::Uploads => {
                let own = self.for_uploads.saturating_sub(count.placed - count.back_fills);
                own.max(self.limit.saturating_sub(count.placed))
            }
            QueueKind::BackFill => {
                let own = self.for_back_fills.saturating_sub(count.back_fills);
                let common = self.limit.saturating_sub(self.for_uploads + count.placed);
                own.max(if count.is_upload_queue_empty { common } else { 0 })
            }
        }
    }

    /// Notes whether uploads wait in their queue.
    pub(crate) fn upload_queue_is_empty(&self, is_empty: bool) {
        if std::mem::replace(&mut self.count().is_upload_queue_empty, is_empty) != is_empty {
            self.shared.changed.notify_waiters();
        }
    }

    /// The number of tasks that videos of this queue may have at a time.
    pub(crate) fn most_tasks(&self, queue: QueueKind) -> usize {
        match queue {
            QueueKind::Uploads => self.limit,
            QueueKind::BackFill => self.limit - self.for_uploads,
        }
    }

    /// Counts one video of this queue until the returned value is dropped.
    pub(crate) fn enter(&self, queue: QueueKind) -> Place {
        let place = Place { in_flight: self.clone(), queue, is_apart: false };
        place.change(|placed, _| *placed += 1);
        place
    }

    fn change(&self, change: impl FnOnce(&mut Count)) {
        {
            let count = &mut self.count();
            change(count);
            self.metrics.in_flight(count.placed + count.apart);
        }
        self.shared.changed.notify_waiters();
    }
}

/// The place of one video in flight.
#[must_use]
pub(crate) struct Place {
    in_flight: InFlight,
    queue: QueueKind,
    is_apart: bool,
}

impl Place {
    /// The queue of the video.
    pub(super) const fn queue(&self) -> QueueKind {
        self.queue
    }

    /// Gives the place to another video, while this one waits apart. Without effect if too many videos wait
    /// apart.
    pub(super) fn leave(&mut self) {
        if !self.is_apart && self.in_flight.count().apart < MOST_APART {
            self.is_apart = true;
            self.change(|placed, apart| (*placed, *apart) = (*placed - 1, *apart + 1));
        }
    }

    /// Takes a place again, even above the limit. Nothing is received until the number is below the limit.
    pub(super) fn take(&mut self) {
        if std::mem::take(&mut self.is_apart) {
            self.change(|placed, apart| (*placed, *apart) = (*placed + 1, *apart - 1));
        }
    }

    /// Changes the numbers of videos with a place and of those that wait apart.
    fn change(&self, change: impl FnOnce(&mut usize, &mut usize)) {
        self.in_flight.change(|count| {
            let before = count.placed;
            change(&mut count.placed, &mut count.apart);
            if self.queue == QueueKind::BackFill {
                count.back_fills = count.back_fills + count.placed - before;
            }
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.take();
        self.change(|placed, _| *placed -= 1);
    }
}
