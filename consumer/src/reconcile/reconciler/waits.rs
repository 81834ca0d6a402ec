//! The waits between the steps of a job. A job that waits for long gives its place and its slot to others.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tracing::{error, warn};
use vidstreamx_job::{Backoff, Job, Record, State};

use super::{
    super::{
        attempt_context::{AttemptContext, FailedSteps},
        calls::ShuttingDown,
        job_store::GivenUp,
        next_step,
        shared_causes::Kind,
        task_outcome::Cause,
    },
    JobEnd, Reconciler, end, in_job, job_span,
};
use crate::aws::{error::CallError, record_store::Stored};

/// A job that waits at least this long gives its slot and its place in flight to others.
const WAITS_APART: Duration = Duration::from_secs(30);
/// Pauses between steps whose calls fail.
const CALLS_FAIL: Backoff = Backoff { first: WAITS_APART, longest: Duration::from_mins(10) };
/// A step that fails this long after the latest failure fails for another reason. It is more than a pause and
/// all tries of a step.
const SAME_FAILURE: Duration = Duration::from_mins(40);
/// A job whose calls fail for this long is given up. It is not a multiple of the twelve hours for which SQS
/// lets a delivery be held, so that a delivery is held at that time.
const GIVEN_UP_AFTER: Duration = Duration::from_hours(20);
/// The same if the calls of all jobs fail.
const ALL_GIVEN_UP_AFTER: Duration = Duration::from_hours(68);

impl Reconciler {
    /// Waits apart after a step whose calls failed. Returns the job's end if it is given up.
    pub(super) async fn wait_after_failure(
        &self,
        job: &Job,
        context: &mut AttemptContext<'_>,
        kind: Kind,
        error: &CallError,
    ) -> Result<Option<JobEnd>, ShuttingDown> {
        // A call without a response may have launched the task or written the record.
        context.begun = context.begun.filter(|number| *number == 0);
        let reason = error.to_string();
        let is_shared = self.causes.call_failed(kind, &reason, error.is_configuration(), &mut context.own);
        let now = Instant::now();
        let earlier = context.failed_steps.filter(|failed| failed.latest.elapsed() < SAME_FAILURE);
        let failed = FailedSteps {
            count: earlier.map_or(0, |failed| failed.count) + 1,
            first: earlier.map_or(now, |failed| failed.first),
            own_since: earlier.filter(|_| !is_shared).map_or(now, |failed| failed.own_since),
            latest: now,
        };
        context.failed_steps = Some(failed);
        let (own, all) = (failed.own_since.elapsed(), failed.first.elapsed());
        if own >= GIVEN_UP_AFTER || all >= ALL_GIVEN_UP_AFTER {
            job_span(job).in_scope(|| error!(reason, "the job is given up, because its calls fail"));
            let hours = all.as_secs() / 3600;
            let reason = format!("calls to AWS have failed for {hours} hours, the last one: {reason}");
            return Ok(Some(match in_job(job, self.give_up(job, reason.clone())).await {
                Ok(Some(record)) => end(&record),
                Ok(None) | Err(_) => JobEnd::GivenUp(Box::new((job.source.clone(), reason))),
            }));
        }
        let pause = CALLS_FAIL.pause(failed.count);
        job_span(job).in_scope(|| {
            warn!(reason, retry_seconds = pause.as_secs(), "a step of the job failed and will be repeated");
        });
        self.wait_apart(pause, kind, context).await?;
        Ok(None)
    }

    /// Ends a job as failed in its record, so that every delivery has the same end. `None` if there is no
    /// record.
    async fn give_up(&self, job: &Job, reason: String) -> Result<Option<Record>, GivenUp> {
        loop {
            let Some(Stored { mut record, etag }) = self.store.load(&job.id).await? else { return Ok(None) };
            record.state = State::Failed;
            record.reason = Some(reason.clone());
            record.updated_at = (self.clock)();
            let (stored, is_own) = self.store.save(record, Some(etag)).await?;
            if is_own {
                return Ok(Some(stored.record));
            }
        }
    }

    /// Waits without a slot and without a place in flight, and then until the job may be tried again.
    pub(super) async fn wait_apart(
        &self,
        pause: Duration,
        kind: Kind,
        context: &mut AttemptContext<'_>,
    ) -> Result<(), ShuttingDown> {
        context.give_place();
        let own = context.own;
        let wait = async move {
            self.causes.wait(pause, kind, &own).await;
            self.pause.until_running().await;
            self.causes.claim_launch(true).await
        };
        context.has_trial = self.calls.unless_shutdown(wait).await?;
        context.place.take();
        Ok(())
    }

    /// Waits for the rest of the pause before an attempt. The pause began at `since`, but is never longer
    /// than the whole pause, because `since` may come from a clock that is ahead. A pause for a cause that
    /// may be shared ends when another video succeeds.
    pub(super) async fn wait_for_attempt(
        &self,
        record: &Record,
        since: Timestamp,
        pause: Duration,
        context: &mut AttemptContext<'_>,
    ) -> Result<(), ShuttingDown> {
        let passed = (self.clock)().duration_since(since);
        let passed = if passed.is_negative() { Duration::ZERO } else { passed.unsigned_abs() };
        let pause = pause.saturating_sub(passed);
        let last = record.attempts.last().filter(|attempt| !attempt.counts);
        let kind = match last.map(next_step::cause_of) {
            Some(Cause::NotStarted) => Some(Kind::Start),
            Some(Cause::Misconfigured) => Some(Kind::Settings),
            _ => None,
        };
        match kind {
            Some(kind) => self.wait_apart(pause, kind, context).await,
            None if pause >= WAITS_APART => {
                context.give_place();
                self.calls.unless_shutdown(sleep(pause)).await?;
                context.place.take();
                Ok(())
            }
            None => self.calls.unless_shutdown(sleep(pause)).await,
        }
    }

    /// Waits for a permit to run a task, unless the job has one.
    pub(super) async fn take_slot<'a>(
        &'a self,
        context: &mut AttemptContext<'a>,
    ) -> Result<(), ShuttingDown> {
        if context.slot.is_none() {
            let queue = context.place.queue();
            context.slot = self.calls.unless_shutdown(self.slots.acquire(queue)).await?;
        }
        Ok(())
    }
}
