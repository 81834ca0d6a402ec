//! The steps of a job. Each one changes the record at most once.

use tokio::time::Instant;
use tracing::info;
use vidstreamx_job::{Job, Record, Restart, Size};

use super::{
    super::{
        admission::{self, Admission},
        attempt_context::AttemptContext,
        job_store::StepResult,
        launcher::Launched,
        next_step::{self, REFUSALS_OF_A_SIZE, Refusal},
        restart::RestartRequest,
        shared_causes::Kind,
        task_outcome::{self, Cause, Classified, TaskOutcome},
        task_watcher::TaskEnd,
    },
    Reconciler,
};
use crate::{
    aws::{ecs::Stopped, record_store::Stored, run_task::Launch},
    inspect::Inspection,
};

impl Reconciler {
    /// Writes the first record of a job: with the first attempt, or with the job's end if it needs no task.
    pub(super) async fn open(
        &self,
        job: &Job,
        restart: Option<&RestartRequest>,
        context: &mut AttemptContext<'_>,
    ) -> StepResult {
        let mut record = Record::new(job, (self.clock)());
        if let Some(forced @ RestartRequest::Forced { .. }) = restart {
            // The first attempt fulfils the request. The record lists it, so a second delivery of the message
            // restarts nothing.
            let request = forced.to_string();
            record.restarts.push(Restart { at: record.created_at, after_attempt: 0, request });
        }
        let first = vidstreamx_job::Attempt::new(1, record.created_at);
        let fits = Launch::new(job, record.created_at, &first).fits(&self.options.container);
        let admission = match admission::by_notification(job, fits) {
            Some(admission) => admission,
            None => admission::by_inspection(self.store.inspect(&job.source).await?),
        };
        let begun = match admission {
            Admission::Begin(facts) => {
                let sized =
                    self.options.sizing.choose(job.source.size, facts.as_ref(), self.options.defaults.size);
                self.begin_attempt(&mut record, sized)
            }
            Admission::End(state, reason) => {
                record.state = state;
                record.reason = Some(reason);
                0
            }
        };
        let (stored, is_own) = self.store.save(record, None).await?;
        if !is_own {
            return Ok(Box::new(self.restarted(stored, restart).await?));
        }
        context.begin(begun);
        if begun > 0 {
            info!(source_bytes = job.source.size, "video accepted");
        }
        Ok(Box::new(stored))
    }

    /// Begins the next attempt.
    pub(super) async fn begin(
        &self,
        job: &Job,
        stored: Box<Stored>,
        context: &mut AttemptContext<'_>,
    ) -> StepResult {
        let Stored { mut record, etag } = *stored;
        if !record.attempts.is_empty() {
            context.needed_since = Instant::now();
        }
        let sized = match next_step::next_size(&record) {
            Some(sized) => sized,
            None => {
                let facts = match self.store.inspect(&job.source).await? {
                    Some(Inspection::Video(facts)) => Some(facts),
                    _ => None,
                };
                self.options.sizing.choose(job.source.size, facts.as_ref(), self.options.defaults.size)
            }
        };
        let number = self.begin_attempt(&mut record, sized);
        let (stored, is_own) = self.store.save(record, Some(etag)).await?;
        if is_own {
            context.begin(number);
        }
        Ok(Box::new(stored))
    }

    /// Reads the record of an attempt again that another consumer launches. If it has not changed, the task
    /// may have been started before that consumer died, so it is looked for.
    pub(super) async fn recheck(
        &self,
        job: &Job,
        stored: Box<Stored>,
        context: &mut AttemptContext<'_>,
    ) -> StepResult {
        let before = stored.etag.clone();
        let mut stored = self.store.reload(stored).await?;
        let Some(attempt) = stored.record.attempts.last() else { return Ok(stored) };
        if stored.etag != before || !context.may_look_for_task() {
            return Ok(stored);
        }
        let token = Launch::token(&job.id, stored.record.created_at, attempt);
        if let Some(arn) = self.launcher.find(job, &token).await? {
            let Stored { mut record, etag } = *stored;
            if let Some(attempt) = record.attempts.last_mut() {
                attempt.task_arn = Some(arn);
            }
            record.updated_at = (self.clock)();
            stored = Box::new(self.store.save(record, Some(etag)).await?.0);
        }
        Ok(stored)
    }

    /// Takes over the launch of an attempt that another consumer has begun.
    pub(super) async fn take_over(
        &self,
        number: u32,
        stored: Box<Stored>,
        context: &mut AttemptContext<'_>,
    ) -> StepResult {
        let Stored { mut record, etag } = *stored;
        if let Some(attempt) = record.attempts.last_mut() {
            attempt.takeovers += 1;
        }
        record.updated_at = (self.clock)();
        let (stored, is_own) = self.store.save(record, Some(etag)).await?;
        if is_own {
            context.take_over(number);
        }
        Ok(Box::new(stored))
    }

    pub(super) fn begin_attempt(&self, record: &mut Record, sized: (Size, String)) -> u32 {
        next_step::begin_attempt(record, sized, (self.clock)(), &self.options.policy)
    }

    /// Ends a cancelled job that has no task.
    pub(super) async fn cancel(&self, stored: Box<Stored>) -> StepResult {
        let Stored { mut record, etag } = *stored;
        next_step::cancel(&mut record, (self.clock)());
        Ok(Box::new(self.store.save(record, Some(etag)).await?.0))
    }

    /// Launches the attempt's task and writes its ARN into the record.
    pub(super) async fn launch(
        &self,
        job: &Job,
        stored: Box<Stored>,
        context: &mut AttemptContext<'_>,
    ) -> StepResult {
        let launched = self.launcher.launch(job, &stored, &self.store, context).await?;
        let Stored { mut record, etag } = *stored;
        let before = record.attempts.last().cloned();
        match launched {
            Launched::Started(arn) => {
                context.watched_since = Instant::now();
                context.is_launched_here = true;
                return self.started(Stored { record, etag }, arn, context).await;
            }
            Launched::Ended(report) => {
                self.end_attempt(&mut record, task_outcome::classify(TaskEnd::Vanished, Some(&report)));
            }
            Launched::Changed(changed) => {
                // An operator changes other fields than the attempt. Then this consumer still launches it.
                if record.attempts.last() != changed.record.attempts.last() {
                    (context.begun, context.has_task) = (None, context.is_uncertain());
                }
                return Ok(changed);
            }
            Launched::Refused { reason, is_configuration, has_token_ended } => {
                if has_token_ended && let Some(attempt) = record.attempts.last_mut() {
                    let now = (self.clock)();
                    attempt.refusals += 1;
                    let refusal = Refusal {
                        is_size_the_cause: context.own.of(Kind::Launch).is_clear()
                            && context.refusals >= REFUSALS_OF_A_SIZE,
                        accepts_others: self.causes.has_succeeded_since(Kind::Launch, context.needed_since),
                        is_configuration,
                    };
                    let ended = next_step::refused(attempt, reason, refusal, now);
                    record.updated_at = now;
                    if let Some(ended) = ended {
                        self.end_attempt(&mut record, ended);
                    }
                } else {
                    return Ok(Box::new(Stored { record, etag }));
                }
            }
            Launched::Invalid(reason) => self.end_attempt(&mut record, task_outcome::launch_invalid(reason)),
            Launched::Cancelled => self.end_attempt(&mut record, task_outcome::launch_cancelled()),
            Launched::NotYet => return Ok(Box::new(Stored { record, etag })),
        }
        let (stored, is_own) = self.store.save(record, Some(etag)).await?;
        if !is_own && stored.record.attempts.last() != before.as_ref() {
            // Another consumer has taken over. The task may run.
            context.begun = None;
        }
        Ok(Box::new(stored))
    }

    /// Writes the ARN of the attempt's task into the record. If an operator has changed another field
    /// meanwhile, the ARN is written into that record.
    async fn started(&self, stored: Stored, arn: String, context: &mut AttemptContext<'_>) -> StepResult {
        let Stored { mut record, mut etag } = stored;
        loop {
            let before = record.attempts.last().cloned();
            if let Some(attempt) = record.attempts.last_mut() {
                attempt.task_arn = Some(arn.clone());
            }
            record.updated_at = (self.clock)();
            let (stored, is_own) = self.store.save(record, Some(etag)).await?;
            if is_own || stored.record.attempts.last() != before.as_ref() {
                if !is_own {
                    // Another consumer has taken over. The task may run.
                    context.begun = None;
                }
                return Ok(Box::new(stored));
            }
            Stored { record, etag } = stored;
        }
    }

    /// Classifies the end of the attempt's task and writes it into the record.
    pub(super) async fn stopped(
        &self,
        job: &Job,
        stored: Box<Stored>,
        end: TaskEnd,
        context: &mut AttemptContext<'_>,
    ) -> StepResult {
        let Some(attempt) = stored.record.attempts.last() else { return Ok(stored) };
        let token = Launch::token(&job.id, stored.record.created_at, attempt);
        if end == TaskEnd::Vanished && self.launcher.find(job, &token).await?.is_some() {
            return Ok(stored);
        }
        // The report can be that of an earlier attempt.
        let report = self.store.report(job).await?;
        let report = report.filter(|report| report.launch.as_ref() == Some(&token));
        let mut classified = task_outcome::classify(end, report.as_ref());
        self.inform_causes(&mut classified, context);
        let Stopped { exit_code, stop_code, .. } = &classified.stopped;
        info!(
            ecs.task_arn = attempt.task_arn.as_deref(),
            exit_code,
            stop_code = stop_code.as_deref(),
            reason = classified.reason.as_deref(),
            "task stopped"
        );
        let Stored { mut record, etag } = *stored;
        self.end_attempt(&mut record, classified);
        Ok(Box::new(self.store.save(record, Some(etag)).await?.0))
    }

    /// Tells the shared causes about a task's end. A task that was misconfigured while others worked counts
    /// as the video's own failure.
    pub(super) fn inform_causes(&self, classified: &mut Classified, context: &mut AttemptContext<'_>) {
        let reason = classified.reason.as_deref().unwrap_or("ECS gives no reason");
        match classified.outcome {
            TaskOutcome::Retry(Cause::NotStarted) => self.causes.start_failed(reason, &mut context.own),
            TaskOutcome::Retry(Cause::Misconfigured) => {
                self.causes.task_misconfigured(reason, &mut context.own);
                classified.counts = self.causes.has_worked_since(context.watched_since);
            }
            // An interruption does not show whether the settings are right.
            TaskOutcome::Retry(Cause::Interrupted | Cause::Refused) | TaskOutcome::Cancelled => {}
            TaskOutcome::Done
            | TaskOutcome::Rejected
            | TaskOutcome::Obsolete
            | TaskOutcome::Retry(Cause::Transient | Cause::OutOfMemory | Cause::Crashed) => {
                self.causes.succeeded(Kind::Start);
                self.causes.task_works(context.is_launched_here.then_some(context.watched_since));
            }
        }
    }

    pub(super) fn end_attempt(&self, record: &mut Record, classified: Classified) {
        next_step::end_attempt(record, classified, (self.clock)(), &self.options.policy);
        if let Some(attempt) = record.attempts.last_mut()
            && let (Some(size), Some(capacity), Some(seconds)) =
                (attempt.size, attempt.capacity, attempt.billed_seconds)
        {
            let arm = self.options.defaults.arm;
            attempt.cost_usd = Some(self.options.sizing.cost(size, capacity, arm, seconds));
        }
    }
}
