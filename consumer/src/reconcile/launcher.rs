//! Launches the task of an attempt, once per attempt.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::info;
use vidstreamx_job::{Backoff, Job, Report};

use super::{
    attempt_context::AttemptContext,
    calls::{CallEnd, Calls},
    job_store::{GivenUp, JobStore},
    launch_throttle::{LaunchThrottle, MISCONFIGURED, REFUSED},
    shared_causes::Kind,
    task_watcher::TaskWatcher,
};
use crate::{
    aws::{
        ecs::Tasks,
        record_store::Stored,
        run_task::{Launch, LaunchError},
    },
    metrics::Metrics,
};

/// A record that was read longer ago than this is read again before RunTask, because another consumer may
/// have continued the job.
const FRESH: Duration = Duration::from_secs(5);
/// Pauses between launches of a video that ECS refuses, while it accepts those of others.
const REFUSED_ALONE: Backoff = Backoff { first: Duration::from_secs(2), longest: Duration::from_mins(10) };

/// The result of a launch.
#[must_use]
pub(super) enum Launched {
    /// The task with this ARN was started.
    Started(String),
    /// The attempt's task was started earlier and has ended, with this report.
    Ended(Box<Report>),
    /// Another consumer has changed the record.
    Changed(Box<Stored>),
    /// ECS does not start this task now, for this reason. If the token has ended, the next call needs another
    /// one.
    Refused { reason: String, is_configuration: bool, has_token_ended: bool },
    /// ECS has not responded clearly, or throttles all launches.
    NotYet,
    /// ECS does not accept this job's request, for this reason.
    Invalid(String),
    /// An operator has cancelled the job, and certainly no task was started for this attempt.
    Cancelled,
}

/// Launches tasks.
pub(super) struct Launcher {
    pub(super) tasks: Arc<dyn Tasks>,
    pub(super) throttle: Arc<LaunchThrottle>,
    pub(super) watcher: Arc<TaskWatcher>,
    pub(super) calls: Calls,
    pub(super) metrics: Arc<Metrics>,
}

impl Launcher {
    /// Starts the task of the record's last attempt, or finds the task that was started for it. Sets the
    /// pause before the next launch if there must be one.
    ///
    /// # Errors
    /// Calls fail, or the consumer shuts down. A RunTask call that has begun is completed first.
    pub(super) async fn launch(
        &self,
        job: &Job,
        stored: &Stored,
        store: &JobStore,
        context: &mut AttemptContext<'_>,
    ) -> Result<Launched, GivenUp> {
        let record = &stored.record;
        let Some(attempt) = record.attempts.last() else {
            return Ok(Launched::Invalid("there is no attempt to launch".to_owned()));
        };
        let number = attempt.number;
        let launch = Launch::new(job, record.created_at, attempt);
        let cpu = launch.size.map_or(0, |size| size.cpu);
        // RunTask with the same token also returns the task, but not for longer than an hour after its end,
        // and only with unchanged settings.
        if let Some(changed) = self.changed(job, stored, store, context).await? {
            return Ok(Launched::Changed(changed));
        }
        if context.is_uncertain() {
            if let Some(arn) = self.find(job, &launch.token).await? {
                return Ok(taken_over(arn));
            }
            let report = store.report(job).await?;
            if let Some(report) = report.filter(|report| report.launch.as_ref() == Some(&launch.token)) {
                return Ok(Launched::Ended(Box::new(report)));
            }
        }
        if record.cancel_requested_at.is_some() {
            if context.is_refusal_certain() {
                return Ok(Launched::Cancelled);
            }
            context.launch_pause = Some(REFUSED.pause(1));
            return Ok(Launched::NotYet);
        }
        let permit = self.calls.unless_shutdown(self.throttle.acquire(context.turn())).await?;
        if context.read_at.elapsed() > FRESH {
            if let Some(changed) = self.changed(job, stored, store, context).await? {
                return Ok(Launched::Changed(changed));
            }
            permit.keep_rate().await;
        }
        context.has_task = true;
        // From here on a shutdown does not cancel the launch, because RunTask's result must be recorded.
        match self.tasks.run(&launch).await {
            Ok(arn) => {
                permit.accepted(cpu);
                self.metrics.launched(context.needed_since.elapsed());
                info!(ecs.task_arn = arn, attempt = number, "task started");
                return Ok(Launched::Started(arn));
            }
            Err(LaunchError::Conflict(arns)) => {
                drop(permit);
                let is_new = |arn: &String| {
                    record.attempts.iter().all(|attempt| attempt.task_arn.as_ref() != Some(arn))
                };
                if let Some(arn) = arns.into_iter().find(is_new) {
                    return Ok(taken_over(arn));
                }
                // The next try calls ListTasks, which may not list the task yet.
                context.may_have_launched();
                context.refusals += 1;
                context.launch_pause = Some(REFUSED.pause(context.refusals));
            }
            Err(LaunchError::NotNow(reason)) => {
                permit.refused(&reason, cpu, &mut context.own);
                return Ok(refused(context, REFUSED, reason, false));
            }
            Err(LaunchError::Misconfigured(reason)) => {
                permit.misconfigured(&reason, cpu, &mut context.own);
                return Ok(refused(context, MISCONFIGURED, reason, true));
            }
            Err(LaunchError::Throttled(reason)) => {
                permit.throttled(&reason);
                context.has_task = context.is_uncertain();
                context.launch_pause = Some(REFUSED.pause(1));
            }
            Err(refusal @ LaunchError::Invalid(_)) => {
                // The refusal says nothing about other launches, so it is not reported to the permit.
                drop(permit);
                context.has_task = context.is_uncertain();
                let reason = refusal.to_string();
                info!(reason, "launch refused");
                if !context.is_refusal_certain() {
                    context.refusals += 1;
                    context.launch_pause = Some(REFUSED.pause(context.refusals));
                    return Ok(Launched::NotYet);
                }
                return Ok(Launched::Invalid(reason));
            }
            Err(LaunchError::Unknown(reason)) => {
                permit.refused(&reason, cpu, &mut context.own);
                context.may_have_launched();
                context.refusals += 1;
                context.launch_pause = Some(REFUSED.pause(context.refusals));
            }
        }
        Ok(Launched::NotYet)
    }

    /// The job's record, if it was read long ago and has been changed since.
    ///
    /// # Errors
    /// The calls fail, the record cannot be read, or the consumer shuts down.
    async fn changed(
        &self,
        job: &Job,
        stored: &Stored,
        store: &JobStore,
        context: &mut AttemptContext<'_>,
    ) -> Result<Option<Box<Stored>>, GivenUp> {
        if context.read_at.elapsed() <= FRESH {
            return Ok(None);
        }
        let asked = Instant::now();
        let current = store.load(&job.id).await?;
        context.read_at = asked;
        Ok(current.filter(|current| current.etag != stored.etag).map(Box::new))
    }

    /// The ARN of the job's task with this token, if ECS lists one.
    ///
    /// # Errors
    /// The calls fail, or the consumer shuts down.
    pub(super) async fn find(&self, job: &Job, token: &str) -> Result<Option<String>, CallEnd> {
        self.calls.with_retries(Kind::FindTask, || self.watcher.find(&job.id, token)).await
    }
}

/// Counts a refused launch of a video and sets the pause before its next one.
fn refused(
    context: &mut AttemptContext<'_>,
    backoff: Backoff,
    reason: String,
    is_configuration: bool,
) -> Launched {
    context.has_task = context.is_uncertain();
    context.refusals += 1;
    let is_alone = context.own.of(Kind::Launch).is_alone();
    // While a task may run that this consumer does not know, the video keeps its slot, so it must know soon.
    let backoff = if is_alone && !context.is_uncertain() { REFUSED_ALONE } else { backoff };
    context.launch_pause = Some(backoff.pause(context.refusals));
    let has_token_ended = context.is_refusal_certain();
    if has_token_ended {
        context.forget_token();
    }
    Launched::Refused { reason, is_configuration, has_token_ended }
}

fn taken_over(arn: String) -> Launched {
    log_taken_over(&arn);
    Launched::Started(arn)
}

/// Logs a task that another consumer started, or that this consumer started without receiving the response.
pub(super) fn log_taken_over(arn: &str) {
    info!(ecs.task_arn = arn, "task taken over");
}
