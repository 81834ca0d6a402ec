//! The state of a job in one consumer, in addition to the job's record.

use std::time::Duration;

use tokio::{sync::SemaphorePermit, time::Instant};

use crate::aws::record_store::Stored;

/// Time for another consumer to start the task of an attempt that it has begun. After this time, this
/// consumer takes over. RunTask and the write of its result take seconds.
const OTHERS_LAUNCH: Duration = Duration::from_secs(20);

/// The state of a job in this consumer.
pub(super) struct AttemptContext<'a> {
    /// The permit for a task, within the limit of concurrent tasks.
    pub(super) slot: Option<SemaphorePermit<'a>>,
    /// Number of the attempt that this consumer began or took over. 0 if this consumer ended the job without
    /// an attempt.
    pub(super) begun: Option<u32>,
    /// Whether a RunTask call without a response may have started the attempt's task.
    pub(super) may_have_launched: bool,
    /// Time at which the next task became needed, for the launch latency.
    pub(super) needed_since: Instant,
    /// The record's latest ETag while another consumer works on the job, and the time when it was first seen.
    seen: Option<(String, Instant)>,
}

impl<'a> AttemptContext<'a> {
    pub(super) const fn new(slot: Option<SemaphorePermit<'a>>, received: Instant) -> Self {
        Self { slot, begun: None, may_have_launched: false, needed_since: received, seen: None }
    }

    /// Whether another consumer began the attempt and is to launch it. False if the record has not changed
    /// for [`OTHERS_LAUNCH`], by this consumer's clock. Then this consumer takes over.
    #[must_use]
    pub(super) fn is_anothers(&mut self, number: u32, stored: &Stored) -> bool {
        if self.begun == Some(number) {
            return false;
        }
        match &self.seen {
            Some((etag, since)) if *etag == stored.etag => since.elapsed() < OTHERS_LAUNCH,
            _ => {
                self.seen = Some((stored.etag.clone(), Instant::now()));
                true
            }
        }
    }
}
