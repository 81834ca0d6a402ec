//! Launches the task of an attempt, once per attempt.

use std::sync::Arc;

use tokio::time::sleep;
use tracing::info;
use vidstreamx_job::{Job, Record};

use super::{
    RECHECK_PAUSE,
    attempt_context::AttemptContext,
    calls::{Calls, ShuttingDown},
    launch_throttle::LaunchThrottle,
    task_watcher::TaskWatcher,
};
use crate::{
    aws::{
        ecs::Tasks,
        run_task::{Launch, LaunchError},
    },
    metrics::Metrics,
};

/// The result of a launch.
#[must_use]
pub(super) enum Launched {
    /// The task with this ARN was started.
    Started(String),
    /// ECS does not start tasks now.
    NotYet,
    /// ECS does not accept this job's request, for this reason.
    Invalid(String),
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
    /// Starts the task of the record's last attempt, or finds the task that was started for it.
    ///
    /// # Errors
    /// The consumer shuts down. A RunTask call that has begun is completed first.
    pub(super) async fn launch(
        &self,
        job: &Job,
        record: &Record,
        context: &mut AttemptContext<'_>,
    ) -> Result<Launched, ShuttingDown> {
        let Some(attempt) = record.attempts.last() else {
            return Ok(Launched::Invalid("there is no attempt to launch".to_owned()));
        };
        let number = attempt.number;
        let launch = Launch::new(job, record.created_at, attempt);
        // RunTask with the same token also returns the task, but only within 24 hours and with unchanged
        // settings.
        if context.begun != Some(number) || context.may_have_launched {
            let find = || self.watcher.find(&job.id, &launch.token);
            if let Some(arn) = self.calls.until_done(find).await? {
                return Ok(taken_over(arn));
            }
        }
        let permit = self.calls.unless_shutdown(self.throttle.acquire()).await?;
        // From here on a shutdown does not cancel the launch, because RunTask's result must be recorded.
        match self.tasks.run(&launch).await {
            Ok(arn) => {
                permit.accepted();
                self.metrics.launched(context.needed_since.elapsed());
                info!(ecs.task_arn = arn, attempt = number, "task started");
                return Ok(Launched::Started(arn));
            }
            Err(LaunchError::Conflict(arns)) => {
                permit.accepted();
                let is_new = |arn: &String| {
                    record.attempts.iter().all(|attempt| attempt.task_arn.as_ref() != Some(arn))
                };
                if let Some(arn) = arns.into_iter().find(is_new) {
                    return Ok(taken_over(arn));
                }
                // The next try calls ListTasks, which may not list the task yet.
                context.may_have_launched = true;
                self.calls.unless_shutdown(sleep(RECHECK_PAUSE)).await?;
            }
            Err(LaunchError::NotNow(reason)) => permit.refused(&reason),
            Err(LaunchError::Misconfigured(reason)) => permit.misconfigured(&reason),
            Err(refusal @ LaunchError::Invalid(_)) => {
                // The refusal says nothing about other launches, so it is not reported to the permit.
                drop(permit);
                let reason = refusal.to_string();
                info!(reason, "launch refused");
                return Ok(Launched::Invalid(reason));
            }
            Err(LaunchError::Unknown(reason)) => {
                permit.refused(&reason);
                context.may_have_launched = true;
            }
        }
        Ok(Launched::NotYet)
    }
}

fn taken_over(arn: String) -> Launched {
    log_taken_over(&arn);
    Launched::Started(arn)
}

/// Logs a task that another consumer started, or that this consumer started without receiving the response.
pub(super) fn log_taken_over(arn: &str) {
    info!(ecs.task_arn = arn, "task taken over");
}
