//! The AWS client of one consumer, with random faults: a call can fail before or after it takes effect, it
//! can be slow, and the consumer can crash during it.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use vidstreamx_consumer::{
    aws::{
        ecs::{TaskStatus, Tasks},
        error::{CallError, CallFuture},
        record_store::{LoadError, RecordStore, SaveError, Stored},
        run_task::{Launch, LaunchError},
        sqs::{Backlog, Message, Queue, Receipt, RefusedEntry},
        sqs_send::OutgoingMessage,
    },
    inspect::{Inspection, Presence, Uploads},
};
use vidstreamx_job::{Job, JobId, Record, Report, Source};

use super::FakeAws;

/// Minimum duration of a call.
const LATENCY: Duration = Duration::from_millis(50);

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
    /// The times of RunTask and DescribeTasks calls.
    calls: Mutex<[Vec<Instant>; 2]>,
    launched: Mutex<HashSet<String>>,
    most_running: AtomicUsize,
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
            calls: Mutex::default(),
            launched: Mutex::default(),
            most_running: AtomicUsize::new(0),
        }
    }

    /// The times of RunTask calls.
    pub(crate) fn launch_calls(&self) -> Vec<Instant> {
        self.calls.lock().unwrap()[0].clone()
    }

    /// The times of DescribeTasks calls.
    pub(crate) fn describe_calls(&self) -> Vec<Instant> {
        self.calls.lock().unwrap()[1].clone()
    }

    /// Maximum number of tasks of this consumer that ran at the same time.
    pub(crate) fn most_running(&self) -> usize {
        self.most_running.load(Ordering::Relaxed)
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
        if (fails && before_effect) || self.aws.is_failing() {
            return Err(Lost.into());
        }
        let answer = act.await;
        if dies {
            return self.die().await;
        }
        if fails { Err(Lost.into()) } else { answer }
    }

    async fn die<T>(&self) -> T {
        self.crashed.cancel();
        std::future::pending().await
    }

    fn note(&self, call: usize) {
        self.calls.lock().unwrap()[call].push(Instant::now());
    }
}

impl Queue for FaultyClient {
    fn receive(&self, most: usize, wait: Duration, visibility: Duration) -> CallFuture<'_, Vec<Message>> {
        Box::pin(self.call(async move { Ok(self.aws.poll(most, wait, visibility).await) }))
    }

    fn delete<'a>(&'a self, receipt: &'a Receipt) -> CallFuture<'a, ()> {
        Box::pin(self.call(async {
            self.aws.delete(receipt);
            Ok(())
        }))
    }

    fn send_dead_letter<'a>(&'a self, message: &'a OutgoingMessage) -> CallFuture<'a, ()> {
        Box::pin(self.call(async {
            self.aws.send_dead_letter(message);
            Ok(())
        }))
    }

    fn set_visibility<'a>(
        &'a self,
        receipts: &'a [Receipt],
        visibility: Duration,
    ) -> CallFuture<'a, Vec<RefusedEntry>> {
        Box::pin(self.call(async move {
            // Single entries of a successful batch fail, too.
            let lost = |_: &&Receipt| self.faults.happens(self.faults.errors);
            let (lost, kept): (Vec<_>, Vec<_>) = receipts.iter().partition(lost);
            let kept: Vec<_> = kept.into_iter().cloned().collect();
            let mut refused = self.aws.set_visibility(&kept, visibility);
            refused.extend(lost.into_iter().map(|receipt| RefusedEntry {
                receipt: receipt.clone(),
                reason: "InternalError".into(),
                for_good: false,
            }));
            Ok(refused)
        }))
    }

    fn backlog(&self) -> CallFuture<'_, Backlog> {
        Box::pin(self.call(async { Ok(self.aws.backlog()) }))
    }
}

impl Tasks for FaultyClient {
    fn run<'a>(&'a self, launch: &'a Launch) -> CallFuture<'a, String, LaunchError> {
        self.note(0);
        Box::pin(self.call(async {
            let arn = self.aws.run(launch)?;
            let mut launched = self.launched.lock().unwrap();
            launched.insert(arn.clone());
            let running = self.aws.running(&launched);
            self.most_running.fetch_max(running, Ordering::Relaxed);
            Ok(arn)
        }))
    }

    fn describe<'a>(&'a self, arns: &'a [Arc<str>]) -> CallFuture<'a, Vec<TaskStatus>> {
        self.note(1);
        Box::pin(self.call(async { Ok(self.aws.describe(arns)) }))
    }

    fn find<'a>(&'a self, job: &'a JobId, token: &'a str) -> CallFuture<'a, Option<String>> {
        Box::pin(self.call(async { Ok(self.aws.find(job, token)) }))
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
}

impl Uploads for FaultyClient {
    fn presence<'a>(&'a self, source: &'a Source) -> CallFuture<'a, Presence> {
        Box::pin(self.call(async { self.aws.presence(source) }))
    }

    fn inspect<'a>(&'a self, source: &'a Source) -> CallFuture<'a, Inspection> {
        Box::pin(self.call(async { self.aws.inspect(source) }))
    }
}
