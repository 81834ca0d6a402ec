//! Takes each job, step by step, from its record to its end. [`steps`] takes single steps, [`waits`] waits
//! between them, and [`restarts`] restarts jobs that have ended.
//!
//! Every step is written to the record before it is taken or as soon as it is done, and the next step follows
//! from the record alone. A consumer may therefore die at any point: the consumer that receives the message
//! next reads the record and continues.

mod restarts;
mod steps;
mod waits;

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    sync::{OnceCell, Semaphore},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, error, error_span, info, instrument::Instrumented, warn};
use vidstreamx_job::{Job, JobId, Record, Source, State};

use super::{
    attempt_context::AttemptContext,
    calls::Calls,
    in_flight::{InFlight, Place},
    job_store::{GivenUp, JobStore},
    launch_throttle::LaunchThrottle,
    launcher::{Launcher, log_taken_over},
    next_step::{NextStep, Policy, next_step},
    pause::PauseSwitch,
    restart::RestartRequest,
    shared_causes::{Kind, SharedCauses},
    slots::Slots,
    task_watcher::TaskWatcher,
};
use crate::{
    aws::task_definition::TaskDefaults,
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
    /// The record says done, rejected or cancelled.
    Settled,
    /// The record says obsolete.
    Obsolete,
    /// The record says failed.
    Failed(Box<Record>),
    /// AWS does not respond about this job, not even about its record. An operator must look at it. Holds the
    /// upload and the reason.
    GivenUp(Box<(Source, String)>),
    /// The record or the report has another schema version. A consumer of that version may be about to take
    /// over.
    Unreadable,
    /// This consumer shuts down. Another one continues.
    Interrupted,
}

/// Maximum number of jobs that are opened or whose task's end is recorded at once. A job takes five calls of
/// some 50 ms each, so this is enough for hundreds of jobs per second, even when ten thousand tasks end
/// together.
const AT_WORK: usize = 128;
/// Reconciles jobs with their records.
pub(crate) struct Reconciler {
    store: JobStore,
    launcher: Launcher,
    causes: Arc<SharedCauses>,
    pause: Arc<PauseSwitch>,
    watcher: Arc<TaskWatcher>,
    calls: Calls,
    clock: Clock,
    metrics: Arc<Metrics>,
    options: JobOptions,
    /// The permits for tasks that run at the same time.
    slots: Slots,
    /// The permits to open jobs and to record the ends of tasks.
    at_work: Semaphore,
    /// The permits to launch tasks, including the wait for the launch throttle: as many as are launched in
    /// two seconds, and at least four, so that a slow call does not hold up all others. The other launches
    /// wait for a permit, so that the record of a launch is read shortly before it.
    launching: Semaphore,
    /// Jobs that this consumer follows now. A second delivery waits for the first one's end.
    followed: Mutex<HashMap<JobId, Arc<OnceCell<JobEnd>>>>,
}

impl Reconciler {
    pub(crate) fn new(
        services: Services,
        options: JobOptions,
        causes: Arc<SharedCauses>,
        pause: Arc<PauseSwitch>,
        in_flight: &InFlight,
        shutdown: CancellationToken,
    ) -> Self {
        let Services { tasks, records, uploads, clock, metrics, .. } = services;
        let calls = Calls::new(shutdown, causes.clone(), metrics.clone());
        let per_second = options.launches_per_second;
        let watcher = Arc::new(TaskWatcher::new(tasks.clone(), causes.clone(), per_second));
        let launching =
            usize::try_from(per_second).unwrap_or(AT_WORK).saturating_mul(2).clamp(4, 8 * AT_WORK);
        let throttle =
            Arc::new(LaunchThrottle::new(per_second, causes.clone(), pause.clone(), metrics.clone()));
        Self {
            store: JobStore::new(records, uploads, calls.clone()),
            launcher: Launcher {
                tasks,
                throttle,
                watcher: watcher.clone(),
                calls: calls.clone(),
                metrics: metrics.clone(),
            },
            causes,
            watcher,
            calls,
            clock,
            metrics,
            slots: Slots::new(in_flight),
            pause: pause.clone(),
            at_work: Semaphore::new(AT_WORK),
            launching: Semaphore::new(launching),
            followed: Mutex::default(),
            options,
        }
    }

    /// Watches the tasks of all jobs while it is polled. Run it concurrently with [`Self::follow`].
    pub(crate) async fn watch_tasks(&self) {
        self.watcher.run().await;
    }

    /// Takes a job to its end, or finds that it has ended. Never fails: errors are logged and become part of
    /// the end. `place` is the place in flight of the delivery.
    pub(crate) async fn follow(
        &self,
        job: &Job,
        restart: Option<&RestartRequest>,
        received: Instant,
        mut place: Place,
    ) -> JobEnd {
        loop {
            let (followed, joins) = self.followed(|all| {
                let joins = all.contains_key(&job.id);
                (all.entry(job.id.clone()).or_default().clone(), joins)
            });
            let mut has_noted = true;
            if joins {
                // The delivery that was received first has the place of the video.
                place.leave();
                self.causes.receive_another();
                if let Some(forced @ RestartRequest::Forced { .. }) = restart {
                    match in_job(job, self.note_request(job, forced)).await {
                        Ok(noted) => has_noted = noted,
                        Err(given_up) => return self.end_without_record(job, given_up),
                    }
                }
            }
            let mut is_first = false;
            let (first, first_place) = (&mut is_first, &mut place);
            let reconcile = async move || {
                *first = true;
                first_place.take();
                self.reconcile_to_end(job, restart, received, first_place).await
            };
            let end = followed.get_or_init(reconcile).await.clone();
            self.followed(|all| {
                if all.get(&job.id).is_some_and(|current| Arc::ptr_eq(current, &followed)) {
                    all.remove(&job.id);
                }
            });
            // Another delivery was followed, perhaps without this restart request, or before the object of an
            // obsolete job came back. Then the job is followed again.
            let may_apply = !has_noted || matches!(restart, Some(RestartRequest::AfterFailure { .. }));
            let may_be_back = end == JobEnd::Obsolete;
            if is_first || end == JobEnd::Interrupted || !(may_apply || may_be_back) {
                return end;
            }
        }
    }

    async fn reconcile_to_end(
        &self,
        job: &Job,
        restart: Option<&RestartRequest>,
        received: Instant,
        place: &mut Place,
    ) -> JobEnd {
        match self.reconcile(job, restart, received, place).await {
            Ok(end) => end,
            Err(given_up) => self.end_without_record(job, given_up),
        }
    }

    fn end_without_record(&self, job: &Job, given_up: GivenUp) -> JobEnd {
        job_span(job).in_scope(|| match given_up {
            GivenUp::ShuttingDown => {
                debug!("the consumer shuts down; the next one continues the job");
                JobEnd::Interrupted
            }
            GivenUp::Unreadable(error) => {
                error!(%error, "the job cannot be followed; its message stays in the queue");
                JobEnd::Unreadable
            }
            GivenUp::Failing(_, error) => {
                warn!(%error, "the job cannot be followed now; its message stays in the queue");
                JobEnd::Unreadable
            }
        })
    }

    /// Takes the next step until the job has ended. While the job's calls fail, it waits apart.
    async fn reconcile(
        &self,
        job: &Job,
        restart: Option<&RestartRequest>,
        received: Instant,
        place: &mut Place,
    ) -> Result<JobEnd, GivenUp> {
        // Does not wait for a slot, because the job's task may already run, and ECS would forget its end.
        let mut context = AttemptContext::new(self.slots.try_acquire(place.queue()), place, received);
        loop {
            match self.take_steps(job, restart, &mut context).await {
                Err(GivenUp::Failing(kind, error)) => {
                    if let Some(end) = self.wait_after_failure(job, &mut context, kind, &error).await? {
                        return Ok(end);
                    }
                }
                result => return result,
            }
        }
    }

    /// Takes the next step until the job has ended. This future holds only the state of waiting, because
    /// [`in_job`] runs each step in a future of its own.
    async fn take_steps<'a>(
        &'a self,
        job: &Job,
        restart: Option<&RestartRequest>,
        context: &mut AttemptContext<'a>,
    ) -> Result<JobEnd, GivenUp> {
        let mut permit = self.calls.unless_shutdown(self.at_work.acquire()).await?;
        let mut stored = match in_job(job, self.load_restarted(job, restart)).await? {
            Some(stored) => stored,
            None => {
                if context.slot.is_none() {
                    drop(permit);
                    self.take_slot(context).await?;
                    permit = self.calls.unless_shutdown(self.at_work.acquire()).await?;
                }
                in_job(job, self.open(job, restart, context)).await?
            }
        };
        drop(permit);
        if stored.record.state.is_end() && context.begun.is_none() {
            self.causes.receive_another();
            job_span(job).in_scope(|| {
                info!(state = stored.record.state.name(), "video has already ended: nothing to do");
            });
            return Ok(end(&stored.record));
        }
        let mut etag = String::new();
        loop {
            if stored.etag != etag {
                etag.clone_from(&stored.etag);
                context.has_read(&stored);
            }
            stored = match next_step(&stored.record) {
                NextStep::Finish => {
                    stored = in_job(job, self.restarted_if_back(stored)).await?;
                    if stored.record.state.is_end() {
                        return Ok(job_span(job).in_scope(|| self.finish(&stored.record)));
                    }
                    stored
                }
                NextStep::Begin { since, pause } => {
                    self.wait_for_attempt(&stored.record, since, pause, context).await?;
                    self.take_slot(context).await?;
                    let stored = in_job(job, self.begin(job, stored, context)).await?;
                    context.failed_steps = None;
                    stored
                }
                NextStep::Launch { number } if context.is_anothers(number, &stored) => {
                    context.give_place();
                    self.calls.unless_shutdown(sleep(AttemptContext::recheck_pause(&stored))).await?;
                    in_job(job, self.recheck(job, stored, context)).await?
                }
                NextStep::Launch { number } if context.begun != Some(number) => {
                    in_job(job, self.take_over(number, stored, context)).await?
                }
                NextStep::Launch { .. } => {
                    context.place.take();
                    if let Some(pause) = context.launch_pause.take() {
                        self.wait_apart(pause, Kind::Launch, context).await?;
                    }
                    self.take_slot(context).await?;
                    let _permit = self.calls.unless_shutdown(self.launching.acquire()).await?;
                    in_job(job, self.launch(job, stored, context)).await?
                }
                NextStep::Cancel => in_job(job, self.cancel(stored)).await?,
                NextStep::Watch { number, arn } => {
                    context.place.take();
                    if context.begun != Some(number) {
                        job_span(job).in_scope(|| log_taken_over(&arn));
                        context.take_over(number);
                        context.watched_since = Instant::now();
                    }
                    let launched_at = context.is_launched_here.then_some(context.watched_since);
                    let end = self.calls.unless_shutdown(self.watcher.end_of(arn, launched_at)).await?;
                    context.has_task = false;
                    let _permit = self.calls.unless_shutdown(self.at_work.acquire()).await?;
                    let stored = in_job(job, self.stopped(job, stored, end, context)).await?;
                    context.failed_steps = None;
                    stored
                }
            };
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
            State::Cancelled => warn!(reason, "video cancelled"),
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
        State::Done | State::Rejected | State::Cancelled => JobEnd::Settled,
        State::Obsolete => JobEnd::Obsolete,
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
