//! The AWS client of one consumer, with random faults: a call can fail before or after it takes effect, it
//! can be slow, and the consumer can crash during it.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use vidstreamx_consumer::{
    aws::{
        ecs::{StopTasks, TaskStatus, Tasks},
        error::{CallError, CallFuture},
        record_store::{LoadError, Pause, RecordStore, SaveError, Stored},
        run_task::{Launch, LaunchError},
        sqs::{Backlog, Message, Queue, QueueKind, Receipt, RefusedEntry},
        sqs_send::OutgoingMessage,
    },
    inspect::{Inspection, Presence, Uploads},
};
use vidstreamx_job::{Job, JobId, Record, Report, Source};

use super::FakeAws;

/// Minimum time until a call takes effect.
const LATENCY: Duration = Duration::from_millis(40);
/// Time from a call's effect to its response.
const RESPONSE: Duration = Duration::from_millis(10);

/// The rates of faults.
pub(crate) struct Faults {
    rng: Mutex<fastrand::Rng>,
    /// Share of calls that fail, half of them after they took effect.
    pub errors: f64,
    /// Share of calls that take up to a minute.
    pub delays: f64,
    /// Share of calls in which the consumer dies, half of them after they took effect.
    pub crashes: f64,
}

impl Faults {
    pub(crate) fn none() -> Self {
        Self { rng: Mutex::new(fastrand::Rng::with_seed(0)), errors: 0.0, delays: 0.0, crashes: 0.0 }
    }

    pub(crate) fn seeded(seed: u64) -> Self {
        Self { rng: Mutex::new(fastrand::Rng::with_seed(seed)), ..Self::none() }
    }

    fn happens(&self, share: f64) -> bool {
        share > 0.0 && self.rng.lock().unwrap().f64() < share
    }
}

/// The client of one consumer.
pub(crate) struct FaultyClient {
    aws: Arc<FakeAws>,
    faults: Faults,
    /// Cancelled when the consumer dies.
    pub crashed: CancellationToken,
    crashed_at: Mutex<Option<Instant>>,
    /// The times of RunTask and DescribeTasks calls, and of lost responses to RunTask.
    calls: Mutex<[Vec<Instant>; 3]>,
    /// The tasks that this consumer launched.
    launched: Mutex<HashSet<String>>,
    /// No call reaches AWS until this time.
    cut_off_until: Mutex<Option<Instant>>,
}

/// The error of a failed call. The call may have taken effect.
struct Lost;

impl From<Lost> for CallError {
    fn from(_: Lost) -> Self {
        Self::Passing { call: "a call", reason: "InternalError: We encountered an internal error.".into() }
    }
}

impl From<Lost> for LaunchError {
    fn from(_: Lost) -> Self {
        Self::Unknown("timeout".into())
    }
}

impl From<Lost> for LoadError {
    fn from(lost: Lost) -> Self {
        Self::Call(lost.into())
    }
}

impl From<Lost> for SaveError {
    fn from(lost: Lost) -> Self {
        Self::Call(lost.into())
    }
}

impl FaultyClient {
    pub(crate) fn new(aws: Arc<FakeAws>, faults: Faults) -> Self {
        Self {
            aws,
            faults,
            crashed: CancellationToken::new(),
            crashed_at: Mutex::default(),
            calls: Mutex::default(),
            launched: Mutex::default(),
            cut_off_until: Mutex::default(),
        }
    }

    /// Loses the connection to AWS for this time. A call that has reached AWS takes effect, but its response
    /// is lost.
    pub(crate) fn cut_off_for(&self, duration: Duration) {
        *self.cut_off_until.lock().unwrap() = Some(Instant::now() + duration);
    }

    fn is_cut_off(&self) -> bool {
        self.cut_off_until.lock().unwrap().is_some_and(|until| Instant::now() < until)
    }

    /// The times of RunTask calls.
    pub(crate) fn launch_calls(&self) -> Vec<Instant> {
        self.calls.lock().unwrap()[0].clone()
    }

    /// The times of DescribeTasks calls.
    pub(crate) fn describe_calls(&self) -> Vec<Instant> {
        self.calls.lock().unwrap()[1].clone()
    }

    /// The times of RunTask calls whose responses were lost.
    pub(crate) fn lost_launches(&self) -> Vec<Instant> {
        self.calls.lock().unwrap()[2].clone()
    }

    /// Time when the consumer died; `None` if it did not.
    pub(crate) fn crashed_at(&self) -> Option<Instant> {
        *self.crashed_at.lock().unwrap()
    }

    /// Maximum number of tasks of this consumer that ran at the same time.
    pub(crate) fn most_running(&self) -> usize {
        self.aws.most_at_once_of(&self.launched.lock().unwrap())
    }

    /// Makes one call, subject to the faults.
    async fn call<T, E: From<Lost>>(&self, act: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let faults = &self.faults;
        sleep(LATENCY).await;
        if faults.happens(faults.delays) {
            let milliseconds = faults.rng.lock().unwrap().u64(0..60_000);
            sleep(Duration::from_millis(milliseconds)).await;
        }
        let (fails, dies) = (faults.happens(faults.errors), faults.happens(faults.crashes));
        let before_effect = (fails || dies) && faults.happens(0.5);
        if dies && before_effect {
            return self.die().await;
        }
        if (fails && before_effect) || self.aws.is_failing() || self.is_cut_off() {
            return Err(Lost.into());
        }
        let answer = act.await;
        sleep(RESPONSE).await;
        let fails = fails || self.is_cut_off();
        if dies {
            return self.die().await;
        }
        if fails { Err(Lost.into()) } else { answer }
    }

    async fn die<T>(&self) -> T {
        self.crashed_at.lock().unwrap().get_or_insert_with(Instant::now);
        self.crashed.cancel();
        std::future::pending().await
    }

    fn note(&self, call: usize) {
        self.calls.lock().unwrap()[call].push(Instant::now());
    }
}

/// One queue, through the client.
pub(super) struct FakeQueue {
    pub client: Arc<FaultyClient>,
    pub kind: QueueKind,
}

impl FakeQueue {
    fn aws(&self) -> &FakeAws {
        &self.client.aws
    }
}

impl Queue for FakeQueue {
    fn receive(&self, most: usize, wait: Duration, visibility: Duration) -> CallFuture<'_, Vec<Message>> {
        Box::pin(
            self.client.call(async move { Ok(self.aws().poll(self.kind, most, wait, visibility).await) }),
        )
    }

    fn delete<'a>(&'a self, receipt: &'a Receipt) -> CallFuture<'a, ()> {
        Box::pin(self.client.call(async {
            self.aws().delete(self.kind, receipt);
            Ok(())
        }))
    }

    fn send_dead_letter<'a>(&'a self, message: &'a OutgoingMessage) -> CallFuture<'a, ()> {
        Box::pin(self.client.call(async {
            self.aws().send_dead_letter(message);
            Ok(())
        }))
    }

    fn set_visibility<'a>(
        &'a self,
        receipts: &'a [Receipt],
        visibility: Duration,
    ) -> CallFuture<'a, Vec<RefusedEntry>> {
        Box::pin(self.client.call(async move {
            let faults = &self.client.faults;
            // Single entries of a successful batch fail, too.
            let lost = |_: &&Receipt| faults.happens(faults.errors);
            let (lost, kept): (Vec<_>, Vec<_>) = receipts.iter().partition(lost);
            let kept: Vec<_> = kept.into_iter().cloned().collect();
            let mut refused = self.aws().set_visibility(self.kind, &kept, visibility);
            refused.extend(lost.into_iter().map(|receipt| RefusedEntry {
                receipt: receipt.clone(),
                reason: "InternalError".into(),
                for_good: false,
            }));
            Ok(refused)
        }))
    }

    fn backlog(&self) -> CallFuture<'_, Backlog> {
        Box::pin(self.client.call(async { Ok(self.aws().backlog(self.kind)) }))
    }
}

impl Tasks for FaultyClient {
    fn run<'a>(&'a self, launch: &'a Launch) -> CallFuture<'a, String, LaunchError> {
        self.note(0);
        Box::pin(async {
            let launched = self.call(async {
                let arn = self.aws.run(launch)?;
                self.launched.lock().unwrap().insert(arn.clone());
                Ok(arn)
            });
            let launched = launched.await;
            if matches!(launched, Err(LaunchError::Unknown(_))) {
                self.note(2);
            }
            launched
        })
    }

    fn describe<'a>(&'a self, arns: &'a [Arc<str>]) -> CallFuture<'a, Vec<TaskStatus>> {
        self.note(1);
        Box::pin(self.call(async { Ok(self.aws.describe(arns)) }))
    }

    fn find<'a>(&'a self, job: &'a JobId, token: &'a str) -> CallFuture<'a, Option<String>> {
        Box::pin(self.call(async { Ok(self.aws.find(job, token)) }))
    }
}

impl StopTasks for FaultyClient {
    fn stop<'a>(&'a self, arn: &'a str, _reason: &'a str) -> CallFuture<'a, bool> {
        Box::pin(self.call(async { Ok(self.aws.stop_task(arn)) }))
    }
}

impl RecordStore for FaultyClient {
    fn load<'a>(&'a self, job: &'a JobId) -> CallFuture<'a, Option<Stored>, LoadError> {
        Box::pin(self.call(async { self.aws.load(job) }))
    }

    fn save<'a>(
        &'a self,
        record: &'a Record,
        replaced: Option<&'a str>,
    ) -> CallFuture<'a, String, SaveError> {
        Box::pin(self.call(async move { self.aws.save(record, replaced) }))
    }

    fn report<'a>(&'a self, job: &'a Job) -> CallFuture<'a, Option<Report>, LoadError> {
        Box::pin(self.call(async { Ok(self.aws.report(job)) }))
    }

    fn pause(&self) -> CallFuture<'_, Option<Pause>> {
        Box::pin(self.call(async { Ok(self.aws.pause()) }))
    }

    fn shows_another<'a>(&'a self, record: &'a Record) -> CallFuture<'a, bool> {
        Box::pin(self.call(async {
            let shown = self.aws.shown_content(record.source.key.as_str());
            Ok(shown.is_some() && shown != record.source.etag)
        }))
    }
}

impl Uploads for FaultyClient {
    fn presence<'a>(&'a self, source: &'a Source) -> CallFuture<'a, Presence> {
        Box::pin(self.call(async { self.aws.presence(source) }))
    }

    fn inspect<'a>(&'a self, source: &'a Source) -> CallFuture<'a, Inspection> {
        Box::pin(self.call(async { self.aws.inspect(source) }))
    }
}
