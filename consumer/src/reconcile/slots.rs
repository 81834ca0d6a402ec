//! The permits for tasks that run at the same time. Some of them are for uploads only.

use tokio::sync::{Semaphore, SemaphorePermit};

use super::in_flight::InFlight;
use crate::aws::sqs::QueueKind;

/// The permits of all tasks, and those of back-fills among them.
#[derive(Debug)]
pub(super) struct Slots {
    all: Semaphore,
    back_fills: Semaphore,
}

/// The permit of one task.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    _of_all: SemaphorePermit<'a>,
    _of_back_fills: Option<SemaphorePermit<'a>>,
}

impl Slots {
    pub(super) fn new(in_flight: &InFlight) -> Self {
        let permits = |queue| Semaphore::new(in_flight.most_tasks(queue).min(Semaphore::MAX_PERMITS));
        Self { all: permits(QueueKind::Uploads), back_fills: permits(QueueKind::BackFill) }
    }

    /// A slot, if one is free.
    pub(super) fn try_acquire(&self, queue: QueueKind) -> Option<Slot<'_>> {
        let of_back_fills = match queue {
            QueueKind::Uploads => None,
            QueueKind::BackFill => Some(self.back_fills.try_acquire().ok()?),
        };
        Some(Slot { _of_all: self.all.try_acquire().ok()?, _of_back_fills: of_back_fills })
    }

    /// Waits for a slot. Slots are given in the order of waiting. Back-fills that wait for one of all slots
    /// are fewer than these, so an upload waits behind no other back-fills.
    pub(super) async fn acquire(&self, queue: QueueKind) -> Option<Slot<'_>> {
        let of_back_fills = match queue {
            QueueKind::Uploads => None,
            QueueKind::BackFill => Some(self.back_fills.acquire().await.ok()?),
        };
        Some(Slot { _of_all: self.all.acquire().await.ok()?, _of_back_fills: of_back_fills })
    }
}
