//! A job as one consumer follows it: what is known beside the job's record.

use std::time::Duration;

use tokio::{sync::SemaphorePermit, time::Instant};

use crate::aws::record_store::Stored;

/// Time for another consumer to start the task of an attempt that it began, before this one takes over.
/// RunTask and writing its answer take seconds.
const OTHERS_LAUNCH: Duration = Duration::from_secs(20);

/// This consumer's knowledge of a job.
pub(super) struct AttemptContext<'a> {
    /// The right to have a task.
    pub(super) slot: Option<SemaphorePermit<'a>>,
    /// The attempt that this consumer began or took over. 0, which no attempt has, for a job that this
    /// consumer ended without one.
    pub(super) begun: Option<u32>,
    /// Whether a RunTask call without an answer may have started the attempt's task.
    pub(super) may_have_launched: bool,
    /// When the next task was first needed.
    pub(super) needed_since: Instant,
    /// The latest ETag of the record while another consumer is at work, and when it was first seen.
    seen: Option<(String, Instant)>,
}

impl<'a> AttemptContext<'a> {
    pub(super) const fn new(slot: Option<SemaphorePermit<'a>>, received: Instant) -> Self {
        Self { slot, begun: None, may_have_launched: false, needed_since: received, seen: None }
    }

    /// Whether the launch of an attempt must be left to the consumer that began it. It may be taken over once
    /// the record has not changed for a while by this consumer's own clock.
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
