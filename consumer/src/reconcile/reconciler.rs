//! Takes each job, step by step, from its record to its end.
//!
//! Every step is written to the record before it is taken or as soon as it is done, and the next step follows
//! from the record alone. A consumer may therefore die at any point: the consumer that receives the message
//! next reads the record and continues.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{OnceCell, Semaphore},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, error, error_span, info, instrument::Instrumented, warn};
use vidstreamx_job::{Job, JobId, Record, Restart, Size, State};

use super::{
    CLOCK_SKEW, RECHECK_PAUSE,
    admission::{self, Admission},
    attempt_context::AttemptContext,
    calls::{Calls, ShuttingDown},
    job_store::{GivenUp, JobStore, StepResult},
    launch_throttle::LaunchThrottle,
    launcher::{Launched, Launcher, log_taken_over},
    next_step::{self, NextStep, Policy, next_step},
    restart::RestartRequest,
    task_outcome::{self, Cause, Classified, TaskOutcome},
    task_watcher::{TaskEnd, TaskWatcher},
};
use crate::{
    aws::{ecs::Stopped, record_store::Stored, run_task::Launch, task_definition::TaskDefaults},
    inspect::{Inspection, Presence},
    metrics::Metrics,
    services::{Clock, Services},
    sizing::Sizing,
};

/// The settings for all jobs.
#[derive(Debug, Clone)]
pub struct JobOptions {
    /// The limit of a job's attempts, and their capacity.
    pub policy: Policy,
    /// The container that runs the job.
    pub container: String,
    /// Maximum number of videos in flight.
    pub max_tasks: usize,
    /// Maximum number of launches per second.
    pub launches_per_second: u32,
    /// The sizing rules and the prices.
    pub sizing: Sizing,
    /// The task definition's defaults.
    pub defaults: TaskDefaults,
}

/// The end of a job, as far as this consumer follows it.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub(crate) enum JobEnd {
    /// The record says done, rejected or obsolete.
    Settled,
    /// The record says failed.
    Failed(Box<Record>),
    /// The record or the report has another schema version. A consumer of that version may be about to take
    /// over.
    Unreadable,
    /// This consumer shuts down. Another one continues.
    Interrupted,
}

/// Maximum number of jobs that are opened or whose task's end is recorded at once, and, separately, of jobs
/// that are launched at once. A job takes five calls of some 50 ms each, so this is enough for hundreds of
/// jobs per second, even when ten thousand tasks end together.
const AT_WORK: usize = 128;

/// Reconciles jobs with their records.
pub(crate) struct Reconciler {
    store: JobStore,
    launcher: Launcher,
    throttle: Arc<LaunchThrottle>,
    watcher: Arc<TaskWatcher>,
    calls: Calls,
    clock: Clock,
    metrics: Arc<Metrics>,
    options: JobOptions,
    /// The permits for tasks that run at the same time.
    slots: Semaphore,
    /// The permits to open jobs and to record the ends of tasks.
    at_work: Semaphore,
    /// The permits to launch tasks, including the wait for the launch throttle.
    launching: Semaphore,
    /// Jobs that this consumer follows now. A second delivery waits for the first one's end.
    followed: Mutex<HashMap<JobId, Arc<OnceCell<JobEnd>>>>,
}

impl Reconciler {
    pub(crate) fn new(
        services: Services,
        options: JobOptions,
        throttle: Arc<LaunchThrottle>,
        shutdown: CancellationToken,
    ) -> Self {
        let Services { tasks, records, uploads, clock, metrics, .. } = services;
        let calls = Calls::new(shutdown, metrics.clone());
        let watcher = Arc::new(TaskWatcher::new(tasks.clone(), options.launches_per_second));
        Self {
            store: JobStore::new(records, uploads, calls.clone()),
            launcher: Launcher {
                tasks,
                throttle: throttle.clone(),
                watcher: watcher.clone(),
                calls: calls.clone(),
                metrics: metrics.clone(),
            },
            throttle,
            watcher,
            calls,
            clock,
            metrics,
            slots: Semaphore::new(options.max_tasks.min(Semaphore::MAX_PERMITS)),
            at_work: Semaphore::new(AT_WORK),
            launching: Semaphore::new(AT_WORK),
            followed: Mutex::default(),
            options,
        }
    }

    /// Watches the tasks of all jobs while it is polled. Run it concurrently with [`Self::follow`].
    pub(crate) async fn watch_tasks(&self) {
        self.watcher.run().await;
    }

    /// Takes a job to its end, or finds that it has ended. Never fails: errors are logged and become part of
    /// the end.
    pub(crate) async fn follow(
        &self,
        job: &Job,
        restart: Option<&RestartRequest>,
        received: Instant,
    ) -> JobEnd {
        loop {
            let followed = self.followed(|followed| followed.entry(job.id.clone()).or_default().clone());
            let mut is_first = false;
            let reconcile = || {
                is_first = true;
                self.reconcile_to_end(job, restart, received)
            };
            let end = followed.get_or_init(reconcile).await.clone();
            self.followed(|all| {
                if all.get(&job.id).is_some_and(|current| Arc::ptr_eq(current, &followed)) {
                    all.remove(&job.id);
                }
            });
            // Another delivery was followed, perhaps without this restart request. If the job failed, the
            // request may apply, so the job is followed again. A forced restart applies only to a job that
            // had ended before, so it leaves this job alone.
            let may_apply = matches!(restart, Some(RestartRequest::AfterFailure { .. }));
            if is_first || !may_apply || end == JobEnd::Interrupted {
                return end;
            }
        }
    }

    async fn reconcile_to_end(
        &self,
        job: &Job,
        restart: Option<&RestartRequest>,
        received: Instant,
    ) -> JobEnd {
        let given_up = match self.reconcile(job, restart, received).await {
            Ok(end) => return end,
            Err(given_up) => given_up,
        };
        job_span(job).in_scope(|| match given_up {
            GivenUp::ShuttingDown => {
                debug!("the consumer shuts down; the next one continues the job");
                JobEnd::Interrupted
            }
            GivenUp::Unreadable(error) => {
                error!(%error, "the job cannot be followed; its message stays in the queue");
                JobEnd::Unreadable
            }
        })
    }

    /// Takes the next step until the job has ended. This future holds only the state of waiting, because
    /// [`in_job`] runs each step in a future of its own.
    async fn reconcile(
        &self,
        job: &Job,
        restart: Option<&RestartRequest>,
        received: Instant,
    ) -> Result<JobEnd, GivenUp> {
        // Does not wait for a slot, because the job's task may already run, and ECS would forget its end.
        let mut context = AttemptContext::new(self.slots.try_acquire().ok(), received);
        let mut permit = self.calls.unless_shutdown(self.at_work.acquire()).await?;
        let mut stored = match in_job(job, self.load_restarted(job, restart)).await? {
            Some(stored) => stored,
            None => {
                if context.slot.is_none() {
                    drop(permit);
                    self.take_slot(&mut context).await?;
                    permit = self.calls.unless_shutdown(self.at_work.acquire()).await?;
                }
                in_job(job, self.open(job, restart, &mut context)).await?
            }
        };
        drop(permit);
        if stored.record.state.is_end() && context.begun.is_none() {
            job_span(job).in_scope(|| {
                info!(state = stored.record.state.name(), "video has already ended: nothing to do");
            });
            return Ok(end(&stored.record));
        }
        loop {
            stored = match next_step(&stored.record) {
                NextStep::Finish => return Ok(job_span(job).in_scope(|| self.finish(&stored.record))),
                NextStep::Begin { since, pause } => {
                    self.wait(since, pause).await?;
                    self.take_slot(&mut context).await?;
                    in_job(job, self.begin(job, stored, &mut context)).await?
                }
                NextStep::Launch { number } if context.is_anothers(number, &stored) => {
                    self.calls.unless_shutdown(sleep(RECHECK_PAUSE)).await?;
                    in_job(job, self.store.reload(stored)).await?
                }
                NextStep::Launch { number } => {
                    self.take_slot(&mut context).await?;
                    let _permit = self.calls.unless_shutdown(self.launching.acquire()).await?;
                    stored = in_job(job, self.launch(job, stored, &mut context)).await?;
                    context.begun = Some(number);
                    continue;
                }
                NextStep::Watch { number, arn } => {
                    if context.begun != Some(number) {
                        job_span(job).in_scope(|| log_taken_over(&arn));
                        context.begun = Some(number);
                    }
                    let end = self.calls.unless_shutdown(self.watcher.end_of(arn)).await?;
                    let _permit = self.calls.unless_shutdown(self.at_work.acquire()).await?;
                    in_job(job, self.stopped(job, stored, end)).await?
                }
            };
        }
    }

    /// Waits for a permit to run a task, unless the job has one.
    async fn take_slot<'a>(&'a self, context: &mut AttemptContext<'a>) -> Result<(), ShuttingDown> {
        if context.slot.is_none() {
            context.slot = self.calls.unless_shutdown(self.slots.acquire()).await?.ok();
        }
        Ok(())
    }

    /// Waits for the rest of a pause that began at `since`, but never longer than the whole pause, because
    /// `since` may come from a clock that is ahead.
    async fn wait(&self, since: Timestamp, pause: Duration) -> Result<(), ShuttingDown> {
        let passed = (self.clock)().duration_since(since);
        let passed = if passed.is_negative() { Duration::ZERO } else { passed.unsigned_abs() };
        self.calls.unless_shutdown(sleep(pause.saturating_sub(passed))).await
    }

    /// The job's record, after a restart if one applies; `None` if there is no record.
    async fn load_restarted(
        &self,
        job: &Job,
        restart: Option<&RestartRequest>,
    ) -> Result<Option<Box<Stored>>, GivenUp> {
        match self.store.load(&job.id).await? {
            Some(stored) => Ok(Some(Box::new(self.restarted(stored, restart).await?))),
            None => Ok(None),
        }
    }

    /// Restarts a job that has ended, if a person requests it, or if S3 notifies again of an obsolete upload
    /// and the object is back.
    async fn restarted(
        &self,
        mut stored: Stored,
        restart: Option<&RestartRequest>,
    ) -> Result<Stored, GivenUp> {
        while stored.record.state.is_end() {
            let mut record = stored.record.clone();
            let now = (self.clock)();
            let reason = if let Some(restart) = restart.filter(|restart| restart.applies_to(&record)) {
                let after_attempt = record.attempts.last().map_or(0, |attempt| attempt.number);
                record.restarts.push(Restart { at: now, after_attempt, request: restart.to_string() });
                restart.to_string()
            } else if record.state == State::Obsolete
                && self.store.presence(&record.source).await? == Presence::Present
            {
                "the object is back".to_owned()
            } else {
                break;
            };
            record.state = State::Running;
            record.reason = None;
            record.updated_at = now;
            let is_own;
            (stored, is_own) = self.store.save(record, Some(stored.etag)).await?;
            if is_own {
                info!(reason, "video restarted");
            }
        }
        Ok(stored)
    }

    /// Writes the first record of a job: with the first attempt, or with the job's end if it needs no task.
    async fn open(
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
        context.begun = Some(begun);
        if begun > 0 {
            info!(source_bytes = job.source.size, "video accepted");
        }
        Ok(Box::new(stored))
    }

    /// Begins the next attempt.
    async fn begin(&self, job: &Job, stored: Box<Stored>, context: &mut AttemptContext<'_>) -> StepResult {
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
        context.may_have_launched = false;
        let (stored, is_own) = self.store.save(record, Some(etag)).await?;
        if is_own {
            context.begun = Some(number);
        }
        Ok(Box::new(stored))
    }

    fn begin_attempt(&self, record: &mut Record, sized: (Size, String)) -> u32 {
        next_step::begin_attempt(record, sized, (self.clock)(), &self.options.policy)
    }

    /// Launches the attempt's task and writes its ARN into the record.
    async fn launch(&self, job: &Job, stored: Box<Stored>, context: &mut AttemptContext<'_>) -> StepResult {
        let Stored { mut record, etag } = *stored;
        match self.launcher.launch(job, &record, context).await? {
            Launched::Started(arn) => {
                if let Some(attempt) = record.attempts.last_mut() {
                    attempt.task_arn = Some(arn);
                }
                record.updated_at = (self.clock)();
            }
            Launched::Invalid(reason) => self.end_attempt(&mut record, task_outcome::launch_invalid(reason)),
            Launched::NotYet => return Ok(Box::new(Stored { record, etag })),
        }
        Ok(Box::new(self.store.save(record, Some(etag)).await?.0))
    }

    /// Classifies the end of the attempt's task and writes it into the record.
    async fn stopped(&self, job: &Job, stored: Box<Stored>, end: TaskEnd) -> StepResult {
        let Stored { mut record, etag } = *stored;
        let mut report = self.store.report(job).await?;
        // If the report alone decides, it must not be an earlier attempt's.
        if end == TaskEnd::Vanished {
            let began = record.attempts.last().map(|attempt| attempt.started_at - CLOCK_SKEW);
            report = report.filter(|report| began.is_none_or(|began| report.timings.finished_at >= began));
        }
        let classified = task_outcome::classify(end, report.as_ref());
        self.inform_throttle(&classified);
        let Stopped { exit_code, stop_code, .. } = &classified.stopped;
        info!(
            ecs.task_arn = record.attempts.last().and_then(|attempt| attempt.task_arn.as_deref()),
            exit_code,
            stop_code = stop_code.as_deref(),
            reason = classified.reason.as_deref(),
            "task stopped"
        );
        self.end_attempt(&mut record, classified);
        Ok(Box::new(self.store.save(record, Some(etag)).await?.0))
    }

    fn inform_throttle(&self, classified: &Classified) {
        let reason = classified.reason.as_deref().unwrap_or("ECS gives no reason");
        match classified.outcome {
            TaskOutcome::Retry(Cause::NotStarted) => self.throttle.start_failed(reason),
            TaskOutcome::Retry(Cause::Misconfigured) => self.throttle.task_misconfigured(reason),
            // An interruption does not show whether the settings are right.
            TaskOutcome::Retry(Cause::Interrupted) => {}
            TaskOutcome::Done
            | TaskOutcome::Rejected
            | TaskOutcome::Obsolete
            | TaskOutcome::Retry(Cause::Transient | Cause::OutOfMemory | Cause::Crashed) => {
                self.throttle.task_worked();
            }
        }
    }

    fn end_attempt(&self, record: &mut Record, classified: Classified) {
        next_step::end_attempt(record, classified, (self.clock)(), &self.options.policy);
        if let Some(attempt) = record.attempts.last_mut()
            && let (Some(size), Some(capacity), Some(seconds)) =
                (attempt.size, attempt.capacity, attempt.billed_seconds)
        {
            let arm = self.options.defaults.arm;
            attempt.cost_usd = Some(self.options.sizing.cost(size, capacity, arm, seconds));
        }
    }

    /// Counts and logs the end of a job.
    fn finish(&self, record: &Record) -> JobEnd {
        // Attempts before a restart were counted when the job ended the last time.
        let current = record.current_attempts();
        let cost = current.iter().filter_map(|attempt| attempt.cost_usd).sum();
        self.metrics.ended(record.state, u32::try_from(current.len()).unwrap_or(u32::MAX), cost);
        let reason = record.reason.as_deref();
        let attempts = record.attempts.len();
        match record.state {
            State::Done => info!(attempts, "video done"),
            State::Rejected => warn!(reason, "video rejected"),
            State::Obsolete => warn!(reason, "video obsolete"),
            State::Failed | State::Running => error!(attempts, reason, "video failed"),
        }
        end(record)
    }

    fn followed<T>(&self, act: impl FnOnce(&mut HashMap<JobId, Arc<OnceCell<JobEnd>>>) -> T) -> T {
        act(&mut self.followed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn end(record: &Record) -> JobEnd {
    match record.state {
        State::Done | State::Rejected | State::Obsolete => JobEnd::Settled,
        State::Failed | State::Running => JobEnd::Failed(Box::new(record.clone())),
    }
}

/// The context of a job's log lines. Its level is error, so that warnings have the context at every log
/// level.
fn job_span(job: &Job) -> tracing::Span {
    error_span!(
        "job",
        job.id = job.id.as_str(),
        s3.bucket = job.source.bucket.as_str(),
        s3.key = job.source.key.as_str(),
    )
}

/// Runs a step in the job's span. Steps take moments, and few run at a time. Ten thousand jobs may wait at a
/// time, so a waiting job keeps neither the state of a step nor a span.
fn in_job<F: Future>(job: &Job, step: F) -> Pin<Box<Instrumented<F>>> {
    Box::pin(step.instrument(job_span(job)))
}
