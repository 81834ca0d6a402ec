//! The life of one job, from its record to its end.
//!
//! Every step is written to the record before it is taken or as soon as it is done, and the next step
//! follows from the record alone. A consumer may therefore die at any point: whoever gets the message
//! next reads the record and goes on.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::{
    sync::{OnceCell, Semaphore, SemaphorePermit},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use vidstreamx_job::{Attempt, Job, JobId, Record, Report, Restart, Size, State};

use crate::{
    aws::ecs::{Stopped, Tasks},
    aws::error::CallError,
    aws::record_store::{LoadError, RecordStore, SaveError, Stored},
    aws::run_task::{Launch, LaunchError},
    aws::task_definition::TaskDefaults,
    clock::Clock,
    inspect::{Inspection, Presence, Uploads},
    metrics::Metrics,
    reconcile::launch_throttle::LaunchThrottle,
    reconcile::restart::RestartRequest,
    reconcile::task_outcome::{self, Cause, Classified, Next, Policy, TaskOutcome},
    reconcile::task_watcher::{self, Watcher},
    sizing::Sizing,
};

/// Everything that jobs share.
pub struct Reconciler {
    /// Where tasks run.
    pub tasks: Arc<dyn Tasks>,
    /// Where records are.
    pub records: Arc<dyn RecordStore>,
    /// Where uploads are.
    pub uploads: Arc<dyn Uploads>,
    /// The time.
    pub clock: Clock,
    /// What every launch has to pass.
    pub gate: LaunchThrottle,
    /// Who tells a task's end.
    pub watcher: Watcher,
    /// Videos that may be in work at once.
    pub slots: Semaphore,
    /// Videos that may be looked into or settled at once.
    pub at_work: Semaphore,
    /// Videos that may be on their way through the gate at once.
    pub launching: Semaphore,
    /// Which task a video gets, and what that costs.
    pub sizing: Sizing,
    /// What the task definition says.
    pub defaults: TaskDefaults,
    /// How often to try, and on what.
    pub policy: Policy,
    /// The container that is given the job.
    pub container: String,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Ends all waiting, but nothing that has begun.
    pub shutdown: CancellationToken,
    /// Jobs that this consumer follows now: a second delivery waits for the first one's end.
    pub followed: Mutex<HashMap<JobId, Arc<OnceCell<JobEnd>>>>,
}

/// The end of a job, as far as this consumer follows it.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum JobEnd {
    /// The record says done, rejected or obsolete.
    Settled,
    /// The record says failed.
    Failed(Box<Record>),
    /// The record or the report has another version: its consumer may be about to take over.
    Unreadable,
    /// This consumer shuts down; another one continues.
    Interrupted,
}

/// Why a job is not followed to its end.
#[derive(Debug)]
enum GivenUp {
    /// The program ends.
    Shutdown,
    /// Its record or report can't be read.
    Unreadable(LoadError),
}

/// An attempt that another consumer has begun and not started yet is left alone for this long: RunTask
/// and the record of its answer take seconds.
const OTHERS_LAUNCH: Duration = Duration::from_secs(20);
/// How far clocks of AWS's may be apart.
const CLOCKS: Duration = Duration::from_secs(5);
/// Between looks at what another consumer does.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// First and longest pause between attempts at a call that has to succeed.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Tries at looking at an upload.
const LOOKS: usize = 3;
/// Pause where only a person can help.
const RETRY_CONFIGURATION: Duration = Duration::from_mins(1);

/// What came of a launch.
enum Launched {
    /// The task's ARN.
    Started(String),
    /// ECS does not take it now.
    NotYet,
    /// ECS takes none for this job, and says why.
    Never(String),
}

/// What this consumer knows of a job beside its record.
struct AttemptContext<'a> {
    /// The right to have a task.
    slot: Option<SemaphorePermit<'a>>,
    /// The attempt that this consumer has begun, or gone on with.
    begun: Option<u32>,
    /// Whether a RunTask call may have started the attempt's task without an answer.
    may_have_launched: bool,
    /// The record's latest ETag that was seen while waiting for another consumer, and since when.
    seen: Option<(String, Instant)>,
    /// Since when the next task is wanted.
    wanted_since: Instant,
}

impl AttemptContext<'_> {
    /// Whether an attempt that another consumer has begun has not moved for so long that this consumer may
    /// go on with it. Measured by this consumer's own clock.
    fn is_stale(&mut self, stored: &Stored) -> bool {
        match &self.seen {
            Some((etag, since)) if *etag == stored.etag => since.elapsed() >= OTHERS_LAUNCH,
            _ => {
                self.seen = Some((stored.etag.clone(), Instant::now()));
                false
            }
        }
    }
}

impl Reconciler {
    /// Takes a job to its end, or finds that it has ended. Never fails: what goes wrong is logged here
    /// and becomes part of the answer.
    pub async fn follow(&self, job: &Job, restart: Option<&RestartRequest>, received: Instant) -> JobEnd {
        loop {
            let followed = self.followed(|followed| followed.entry(job.id.clone()).or_default().clone());
            let mut is_mine = false;
            let drive = || {
                is_mine = true;
                self.drive(job, restart, received)
            };
            let end = followed.get_or_init(drive).await.clone();
            self.followed(|all| {
                if all.get(&job.id).is_some_and(|current| Arc::ptr_eq(current, &followed)) {
                    all.remove(&job.id);
                }
            });
            // A delivery that was followed before this one knew nothing of its wish. A forced start is for
            // what has ended: a video that is just being made is left alone.
            let may_be_unheard = matches!(restart, Some(RestartRequest::AfterFailure { .. }));
            if is_mine || !may_be_unheard || end == JobEnd::Interrupted {
                return end;
            }
        }
    }

    async fn drive(&self, job: &Job, restart: Option<&RestartRequest>, received: Instant) -> JobEnd {
        let (id, bucket, key) = (job.id.as_str(), job.source.bucket.as_str(), job.source.key.as_str());
        match self.steps(job, restart, received).await {
            Ok(end) => end,
            Err(GivenUp::Shutdown) => {
                debug!(job.id = id, s3.bucket = bucket, s3.key = key, "left to the next consumer");
                JobEnd::Interrupted
            }
            Err(GivenUp::Unreadable(error)) => {
                error!(job.id = id, s3.bucket = bucket, s3.key = key, %error, "the job is set aside");
                JobEnd::Unreadable
            }
        }
    }

    /// Only waiting is part of this future, as ten thousand videos may wait at a time; what takes moments is
    /// in boxes, and done for few at a time.
    async fn steps(
        &self,
        job: &Job,
        restart: Option<&RestartRequest>,
        received: Instant,
    ) -> Result<JobEnd, GivenUp> {
        // Whoever takes over a task that runs must not stand behind others: ECS would forget its end.
        let slot = self.slots.try_acquire().ok();
        let mut here = AttemptContext {
            slot,
            begun: None,
            may_have_launched: false,
            seen: None,
            wanted_since: received,
        };
        let mut permit = self.unless_shutdown(self.at_work.acquire()).await?;
        let mut stored = match Box::pin(self.known(job, restart)).await? {
            Some(stored) => stored,
            None => {
                if here.slot.is_none() {
                    drop(permit);
                    self.take_slot(&mut here).await?;
                    permit = self.unless_shutdown(self.at_work.acquire()).await?;
                }
                Box::pin(self.first_look(job, restart, &mut here)).await?
            }
        };
        drop(permit);
        if stored.record.state.is_end() && here.begun.is_none() {
            return Ok(ended_before(&stored.record));
        }
        loop {
            stored = match task_outcome::next(&stored.record) {
                Next::Ended => return Ok(self.ended(&stored.record)),
                Next::Begin { since, pause } => {
                    self.wait(since, pause).await?;
                    self.take_slot(&mut here).await?;
                    Box::pin(self.begin_next(job, stored, &mut here)).await?
                }
                Next::Launch { number } if here.begun != Some(number) && !here.is_stale(&stored) => {
                    self.unless_shutdown(sleep(LOOK_AGAIN)).await?;
                    Box::pin(self.news(stored)).await?
                }
                Next::Launch { number } => {
                    self.take_slot(&mut here).await?;
                    let _permit = self.unless_shutdown(self.launching.acquire()).await?;
                    stored = Box::pin(self.launch_next(job, stored, &mut here)).await?;
                    here.begun = Some(number);
                    continue;
                }
                Next::Watch { number, arn } => {
                    if here.begun != Some(number) {
                        log_taken_over(job, &arn);
                        here.begun = Some(number);
                    }
                    let end = self.unless_shutdown(self.watcher.end_of(arn)).await?;
                    let _permit = self.unless_shutdown(self.at_work.acquire()).await?;
                    Box::pin(self.stopped(job, stored, end)).await?
                }
            };
        }
    }

    /// What the record says, if there is one, of a job that may have to be started anew.
    async fn known(
        &self,
        job: &Job,
        restart: Option<&RestartRequest>,
    ) -> Result<Option<Box<Stored>>, GivenUp> {
        match self.load(&job.id).await? {
            Some(stored) => Ok(Some(Box::new(self.revive(stored, restart).await?))),
            None => Ok(None),
        }
    }

    /// What the record says now.
    async fn news(&self, stored: Box<Stored>) -> Result<Box<Stored>, GivenUp> {
        Ok(self.load(&stored.record.job_id).await?.map_or(stored, Box::new))
    }

    async fn begin_next(
        &self,
        job: &Job,
        stored: Box<Stored>,
        here: &mut AttemptContext<'_>,
    ) -> Result<Box<Stored>, GivenUp> {
        let Stored { mut record, etag } = *stored;
        if !record.attempts.is_empty() {
            here.wanted_since = Instant::now();
        }
        let sized = match task_outcome::next_size(&record) {
            Some(sized) => sized,
            None => self.size(job).await?,
        };
        let number = self.begin(&mut record, sized);
        here.may_have_launched = false;
        let (stored, won) = self.put(record, Some(etag)).await?;
        if won {
            here.begun = Some(number);
        }
        Ok(Box::new(stored))
    }

    async fn launch_next(
        &self,
        job: &Job,
        stored: Box<Stored>,
        here: &mut AttemptContext<'_>,
    ) -> Result<Box<Stored>, GivenUp> {
        let Stored { mut record, etag } = *stored;
        match self.launch(job, &record, here).await? {
            Launched::Started(arn) => {
                if let Some(attempt) = record.attempts.last_mut() {
                    attempt.task_arn = Some(arn);
                }
                record.updated_at = (self.clock)();
            }
            Launched::Never(refusal) => self.conclude(&mut record, task_outcome::refused(refusal)),
            Launched::NotYet => return Ok(Box::new(Stored { record, etag })),
        }
        Ok(Box::new(self.put(record, Some(etag)).await?.0))
    }

    async fn stopped(
        &self,
        job: &Job,
        stored: Box<Stored>,
        end: task_watcher::TaskEnd,
    ) -> Result<Box<Stored>, GivenUp> {
        let Stored { mut record, etag } = *stored;
        let mut report = self.report(job).await?;
        // Where nothing else tells how the task ended, an earlier attempt's report must not.
        if end == task_watcher::TaskEnd::Vanished {
            let began = record.attempts.last().map(|attempt| attempt.started_at - CLOCKS);
            report = report.filter(|report| began.is_none_or(|began| report.timings.finished_at >= began));
        }
        let classified = task_outcome::classify(end, report.as_ref());
        self.tell_gate(&classified);
        log_stopped(&record, &classified);
        self.conclude(&mut record, classified);
        Ok(Box::new(self.put(record, Some(etag)).await?.0))
    }

    /// Waits for the right to have one more task.
    async fn take_slot<'a>(&'a self, here: &mut AttemptContext<'a>) -> Result<(), GivenUp> {
        if here.slot.is_none() {
            here.slot = self.unless_shutdown(self.slots.acquire()).await?.ok();
        }
        Ok(())
    }

    /// A job that has no record: what can be said without a task is said, else the first attempt begins.
    async fn first_look(
        &self,
        job: &Job,
        restart: Option<&RestartRequest>,
        here: &mut AttemptContext<'_>,
    ) -> Result<Box<Stored>, GivenUp> {
        let mut record = Record::new(job, (self.clock)());
        if let Some(restart @ RestartRequest::Forced { .. }) = restart {
            // Being made for the first time, it needs no new start, also when the message comes again.
            let request = restart.to_string();
            record.restarts.push(Restart { at: record.created_at, after_attempt: 0, request });
        }
        let first = Attempt::new(1, record.created_at);
        let end = if job.source.size == Some(0) {
            Err((State::Rejected, "the file is empty".to_owned()))
        } else if !Launch::new(job, record.created_at, &first).fits(&self.container) {
            let reason = "key and version id are too long for ECS's 8,192 characters of overrides";
            Err((State::Rejected, reason.to_owned()))
        } else {
            match self.look(job).await? {
                Some(Inspection::NotVideo(reason)) => Err((State::Rejected, reason)),
                Some(Inspection::Gone) => Err((State::Obsolete, "the object was deleted".to_owned())),
                Some(Inspection::Replaced) => {
                    Err((State::Obsolete, "the object was replaced by another".to_owned()))
                }
                Some(Inspection::Video(facts)) => {
                    Ok(self.sizing.choose(job.source.size, Some(&facts), self.defaults.size))
                }
                None => Ok(self.sizing.choose(job.source.size, None, self.defaults.size)),
            }
        };
        let begins = end.is_ok();
        match end {
            Ok(sized) => {
                self.begin(&mut record, sized);
            }
            Err((state, reason)) => {
                record.state = state;
                record.reason = Some(reason);
            }
        }
        let (stored, won) = self.put(record, None).await?;
        if !won {
            return Ok(Box::new(self.revive(stored, restart).await?));
        }
        // 0, no attempt's number, for a job that ended at once: its end is this consumer's own news.
        here.begun = Some(u32::from(begins));
        if begins {
            info!(
                job.id = job.id.as_str(),
                s3.bucket = job.source.bucket.as_str(),
                s3.key = job.source.key.as_str(),
                source_bytes = job.source.size,
                "video accepted"
            );
        }
        Ok(Box::new(stored))
    }

    /// What the upload is. `None` if S3 does not say: the look only saves the price of a task, which finds
    /// out by itself.
    async fn look(&self, job: &Job) -> Result<Option<Inspection>, GivenUp> {
        let mut pause = Duration::ZERO;
        for _ in 0..LOOKS {
            self.unless_shutdown(sleep(pause)).await?;
            pause = RETRY.0 + pause;
            match self.uploads.inspect(&job.source).await {
                Ok(look) => return Ok(Some(look)),
                Err(error) => debug!(job.id = job.id.as_str(), %error, "no look at the source"),
            }
        }
        Ok(None)
    }

    /// The size for a job whose record says nothing of one.
    async fn size(&self, job: &Job) -> Result<(Size, String), GivenUp> {
        let facts = match self.look(job).await? {
            Some(Inspection::Video(facts)) => Some(facts),
            _ => None,
        };
        Ok(self.sizing.choose(job.source.size, facts.as_ref(), self.defaults.size))
    }

    /// A job that has ended, and goes on all the same: a person wants it, or S3 tells again of an obsolete
    /// one, whose object may be back.
    async fn revive(&self, mut stored: Stored, restart: Option<&RestartRequest>) -> Result<Stored, GivenUp> {
        while stored.record.state.is_end() {
            let mut record = stored.record.clone();
            let now = (self.clock)();
            let why = if let Some(restart) = restart.filter(|restart| restart.applies_to(&record)) {
                let after_attempt = record.attempts.last().map_or(0, |attempt| attempt.number);
                record.restarts.push(Restart { at: now, after_attempt, request: restart.to_string() });
                restart.to_string()
            } else if record.state == State::Obsolete
                && self.until_done(|| self.uploads.presence(&record.source)).await? == Presence::Present
            {
                "its object is there again".to_owned()
            } else {
                break;
            };
            record.state = State::Running;
            record.reason = None;
            record.updated_at = now;
            let won;
            (stored, won) = self.put(record, Some(stored.etag)).await?;
            if won {
                let Record { job_id, source, .. } = &stored.record;
                info!(
                    job.id = job_id.as_str(),
                    s3.bucket = source.bucket.as_str(),
                    s3.key = source.key.as_str(),
                    why,
                    "a video that had ended is started anew"
                );
            }
        }
        Ok(stored)
    }

    fn begin(&self, record: &mut Record, (size, reason): (Size, String)) -> u32 {
        let now = (self.clock)();
        let number = record.attempts.last().map_or(1, |attempt| attempt.number + 1);
        let mut attempt = Attempt::new(number, now);
        attempt.capacity = Some(task_outcome::next_capacity(record, &self.policy));
        attempt.size = Some(size);
        attempt.size_reason = Some(reason);
        record.updated_at = now;
        // Most have one, and a vector that grows makes room for four.
        record.attempts.reserve_exact(1);
        record.attempts.push(attempt);
        number
    }

    fn conclude(&self, record: &mut Record, classified: Classified) {
        task_outcome::conclude(record, classified, (self.clock)(), &self.policy);
        if let Some(attempt) = record.attempts.last_mut()
            && let (Some(size), Some(capacity), Some(seconds)) =
                (attempt.size, attempt.capacity, attempt.billed_seconds)
        {
            attempt.cost_usd = Some(self.sizing.cost(size, capacity, self.defaults.arm, seconds));
        }
    }

    /// Starts the attempt's task, or finds the one that was started for it.
    async fn launch(
        &self,
        job: &Job,
        record: &Record,
        here: &mut AttemptContext<'_>,
    ) -> Result<Launched, GivenUp> {
        let Some(attempt) = record.attempts.last() else {
            return Ok(Launched::Never("there is no attempt to launch".to_owned()));
        };
        let number = attempt.number;
        let launch = Launch::new(job, record.created_at, attempt);
        let (id, bucket, key) = (job.id.as_str(), job.source.bucket.as_str(), job.source.key.as_str());
        // The token alone would do, within its 24 hours and with unchanged settings.
        if here.begun != Some(number) || here.may_have_launched {
            let find = async || {
                self.watcher.turn().await;
                self.tasks.find(&job.id, &launch.token).await
            };
            if let Some(arn) = self.until_done(find).await? {
                log_taken_over(job, &arn);
                return Ok(Launched::Started(arn));
            }
        }
        let turn = self.unless_shutdown(self.gate.enter()).await?;
        // From here on nothing is given up: RunTask's answer has to get into the record.
        match self.tasks.run(&launch).await {
            Ok(arn) => {
                turn.accepted();
                self.metrics.launched(here.wanted_since.elapsed());
                info!(
                    job.id = id,
                    s3.bucket = bucket,
                    s3.key = key,
                    ecs.task_arn = arn,
                    attempt = number,
                    "task started"
                );
                return Ok(Launched::Started(arn));
            }
            Err(LaunchError::Conflict(arns)) => {
                turn.accepted();
                if let Some(arn) = arns.into_iter().find(|arn| is_new(record, arn)) {
                    log_taken_over(job, &arn);
                    return Ok(Launched::Started(arn));
                }
                // ListTasks is asked next; it may not show the task yet.
                here.may_have_launched = true;
                self.unless_shutdown(sleep(LOOK_AGAIN)).await?;
            }
            Err(LaunchError::Refused(reason)) => turn.refused(&reason),
            Err(LaunchError::Misconfigured(reason)) => turn.misconfigured(&reason),
            Err(refusal @ LaunchError::Invalid(_)) => {
                // Says nothing about other launches: neither that they would be refused, nor accepted.
                drop(turn);
                let reason = refusal.to_string();
                info!(job.id = id, s3.bucket = bucket, s3.key = key, reason, "launch refused");
                return Ok(Launched::Never(reason));
            }
            Err(LaunchError::Unknown(reason)) => {
                turn.refused(&reason);
                here.may_have_launched = true;
            }
        }
        Ok(Launched::NotYet)
    }

    async fn load(&self, job: &JobId) -> Result<Option<Stored>, GivenUp> {
        self.until_read(|| self.records.load(job)).await
    }

    async fn report(&self, job: &Job) -> Result<Option<Report>, GivenUp> {
        self.until_read(|| self.records.report(job)).await
    }

    /// Writes a record, or reads what somebody else has written instead. Says whether what is stored
    /// is this consumer's.
    async fn put(&self, record: Record, replaced: Option<String>) -> Result<(Stored, bool), GivenUp> {
        let saved = self
            .until_done(|| async {
                match self.records.save(&record, replaced.as_deref()).await {
                    Ok(etag) => Ok(Some(etag)),
                    Err(SaveError::Conflict) => Ok(None),
                    Err(SaveError::Call(error)) => Err(error),
                }
            })
            .await?;
        if let Some(etag) = saved {
            return Ok((Stored { record, etag }, true));
        }
        match self.load(&record.job_id).await? {
            // It may be this consumer's own, with the answer to an earlier try lost. That can't be told:
            // two consumers that act in the same instant write the same record.
            Some(stored) => Ok((stored, false)),
            // Deleted by a person, who wants the job to start anew.
            None => Box::pin(self.put(record, None)).await,
        }
    }

    async fn until_read<T, F>(&self, read: impl Fn() -> F) -> Result<T, GivenUp>
    where
        F: Future<Output = Result<T, LoadError>>,
    {
        let answer = self
            .until_done(|| async {
                match read().await {
                    Ok(found) => Ok(Ok(found)),
                    Err(LoadError::Call(error)) => Err(error),
                    Err(unreadable) => Ok(Err(unreadable)),
                }
            })
            .await?;
        answer.map_err(GivenUp::Unreadable)
    }

    /// Calls until it works. Waits between calls, not a call, end at shutdown.
    async fn until_done<T, F>(&self, call: impl Fn() -> F) -> Result<T, GivenUp>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let (mut pause, longest) = RETRY;
        let mut told = false;
        loop {
            let error = match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if error.is_configuration() {
                pause = RETRY_CONFIGURATION;
                self.metrics.misconfigured(&error.to_string());
                error!(%error, retry_seconds = pause.as_secs(), "a permission or resource is missing");
            } else if !told {
                warn!(%error, "AWS does not answer as it should; tried again until it does");
                told = true;
            }
            self.unless_shutdown(sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0))).await?;
            pause = (pause * 2).min(longest);
        }
    }

    /// Waits for the rest of a pause, but never for longer than all of it: the time in the record may be
    /// of a clock that is ahead.
    async fn wait(&self, since: Timestamp, pause: Duration) -> Result<(), GivenUp> {
        let over = (self.clock)().duration_since(since);
        let over = if over.is_negative() { Duration::ZERO } else { over.unsigned_abs() };
        self.unless_shutdown(sleep(pause.saturating_sub(over))).await
    }

    /// In a box: what waits is small, and most of the time a video waits.
    fn unless_shutdown<'a, T>(
        &'a self,
        waiting: impl Future<Output = T> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, GivenUp>> {
        Box::pin(async move {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => Err(GivenUp::Shutdown),
                done = waiting => Ok(done),
            }
        })
    }

    /// Says how a video ended.
    fn ended(&self, record: &Record) -> JobEnd {
        // Those before a new start were counted at their own end.
        let attempts = record.current_attempts();
        let cost = attempts.iter().filter_map(|attempt| attempt.cost_usd).sum();
        let tried = u32::try_from(attempts.len()).unwrap_or(u32::MAX);
        self.metrics.ended(record.state, tried, cost);
        let (id, bucket, key) =
            (record.job_id.as_str(), record.source.bucket.as_str(), record.source.key.as_str());
        let reason = record.reason.as_deref();
        let attempts = record.attempts.len();
        match record.state {
            State::Done => info!(job.id = id, s3.bucket = bucket, s3.key = key, attempts, "video done"),
            State::Rejected => {
                warn!(job.id = id, s3.bucket = bucket, s3.key = key, reason, "video rejected");
            }
            State::Obsolete => {
                warn!(job.id = id, s3.bucket = bucket, s3.key = key, reason, "video obsolete");
            }
            State::Failed | State::Running => {
                error!(job.id = id, s3.bucket = bucket, s3.key = key, attempts, reason, "video failed");
            }
        }
        end(record)
    }

    fn tell_gate(&self, classified: &Classified) {
        let reason = classified.reason.as_deref().unwrap_or("ECS gives no reason");
        match classified.verdict {
            TaskOutcome::Retry(Cause::NotStarted) => self.gate.start_failed(reason),
            TaskOutcome::Retry(Cause::Misconfigured) => self.gate.task_misconfigured(reason),
            TaskOutcome::Retry(Cause::Interrupted) => {}
            _ => self.gate.task_worked(),
        }
    }

    fn followed<T>(&self, act: impl FnOnce(&mut HashMap<JobId, Arc<OnceCell<JobEnd>>>) -> T) -> T {
        act(&mut self.followed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn is_new(record: &Record, arn: &str) -> bool {
    record.attempts.iter().all(|attempt| attempt.task_arn.as_deref() != Some(arn))
}

/// The line about a task that another consumer started, or this one without getting to know of it.
fn log_taken_over(job: &Job, arn: &str) {
    info!(
        job.id = job.id.as_str(),
        s3.bucket = job.source.bucket.as_str(),
        s3.key = job.source.key.as_str(),
        ecs.task_arn = arn,
        "task taken over"
    );
}

fn log_stopped(record: &Record, classified: &Classified) {
    let Stopped { exit_code, stop_code, .. } = &classified.stopped;
    info!(
        job.id = record.job_id.as_str(),
        s3.bucket = record.source.bucket.as_str(),
        s3.key = record.source.key.as_str(),
        ecs.task_arn = record.attempts.last().and_then(|attempt| attempt.task_arn.as_deref()),
        exit_code,
        stop_code = stop_code.as_deref(),
        reason = classified.reason.as_deref(),
        "task stopped"
    );
}

/// The line about a job that had ended before this delivery.
fn ended_before(record: &Record) -> JobEnd {
    let (id, bucket, key) =
        (record.job_id.as_str(), record.source.bucket.as_str(), record.source.key.as_str());
    let state = format!("{:?}", record.state).to_lowercase();
    info!(job.id = id, s3.bucket = bucket, s3.key = key, state, "video has ended before: nothing to do");
    end(record)
}

fn end(record: &Record) -> JobEnd {
    match record.state {
        State::Done | State::Rejected | State::Obsolete => JobEnd::Settled,
        State::Failed | State::Running => JobEnd::Failed(Box::new(record.clone())),
    }
}
