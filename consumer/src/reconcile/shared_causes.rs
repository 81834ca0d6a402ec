//! The causes that all videos share: the evidence for them, and the pauses that they cause.
//!
//! While a shared cause persists, messages are received one at a time, as trials. If the cause concerns
//! launches, launches are trials, too, and a new upload comes before a video that was tried before, so that a
//! good upload does not wait behind videos that always fail. The first success ends the pause for all videos.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use tracing::{error, info, warn};
use vidstreamx_job::Backoff;

use super::evidence::{Evidence, Failure, OwnFailures, SharedCause};
use crate::{aws::sqs::QueueKind, metrics::Metrics};

/// A kind of failures. Each kind has its own evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// ECS refuses launches.
    Launch,
    /// Tasks do not start.
    Start,
    /// Tasks end with 78: their settings or permissions are wrong.
    Settings,
    /// Records cannot be read.
    ReadRecord,
    /// Records cannot be written.
    WriteRecord,
    /// Reports cannot be read.
    ReadReport,
    /// S3 does not answer about uploads.
    ReadUpload,
    /// Stable addresses cannot be read.
    ReadAddress,
    /// Tasks cannot be listed.
    FindTask,
}

impl Kind {
    const COUNT: usize = 9;
    /// Number of the first kinds, which concern launches. A launch says nothing about the other kinds, so
    /// they do not hold up launches.
    const OF_LAUNCHES: usize = 3;

    /// The success that ends a shared cause of this kind, for the log.
    const fn success(self) -> &'static str {
        match self {
            Self::Launch => "ECS starts tasks again",
            Self::Start => "tasks start again",
            Self::Settings => "tasks work again",
            Self::ReadRecord => "records can be read again",
            Self::WriteRecord => "records can be written again",
            Self::ReadReport => "reports can be read again",
            Self::ReadUpload => "S3 answers about uploads again",
            Self::ReadAddress => "stable addresses can be read again",
            Self::FindTask => "tasks can be listed again",
        }
    }
}

/// The failures of one video, by kind.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct OwnByKind([OwnFailures; Kind::COUNT]);

impl OwnByKind {
    pub(super) const fn of(&self, kind: Kind) -> OwnFailures {
        self.0[kind as usize]
    }

    pub(super) const fn of_mut(&mut self, kind: Kind) -> &mut OwnFailures {
        &mut self.0[kind as usize]
    }

    /// Whether the video has failed in any way.
    pub(super) fn has_failed(&self) -> bool {
        self.0.iter().any(|own| own.has_failed())
    }
}

/// A retry waits this much longer for a trial than a new upload.
const RETRY_LAG: Duration = Duration::from_secs(5);
/// While ECS refuses launches, one message is received per interval of this length. The other trials are
/// retries.
const TRICKLE: Duration = Duration::from_mins(2);

/// Tasks that are launched within this time have the same settings.
const SAME_SETTINGS: Duration = Duration::from_mins(5);

const STARTS_FAIL: Backoff = Backoff { first: Duration::from_secs(15), longest: Duration::from_mins(1) };
const SETTINGS_WRONG: Backoff = Backoff { first: Duration::from_mins(1), longest: Duration::from_mins(5) };
const CALLS_FAIL: Backoff = Backoff { first: Duration::from_secs(5), longest: Duration::from_mins(1) };

/// The evidence of all kinds, and the launches that wait for trials.
#[derive(Debug)]
pub(crate) struct SharedCauses {
    state: Mutex<State>,
    changed: Notify,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct State {
    evidence: [Evidence; Kind::COUNT],
    /// The round of the latest accepted launch, by its CPU units.
    accepted: BTreeMap<u32, u32>,
    /// The latest launch of a task that has worked.
    worked_launch: Option<Instant>,
    /// Number of launches of new uploads that wait for a permit.
    new_waiting: usize,
    /// Retries that wait for a trial, in the order in which they began to wait.
    retries: BTreeSet<u64>,
    next_retry: u64,
    /// The latest receives, by queue.
    received: [Received; QueueKind::COUNT],
}

/// The latest receive from a queue.
#[derive(Debug, Clone, Copy)]
struct Received {
    at: Instant,
    /// Whether its message needs no launch, so that another one may be received at once.
    may_receive_another: bool,
}

/// A pause of receiving.
struct ReceivingPause {
    until: Instant,
    reason: String,
    is_configuration: bool,
}

impl SharedCauses {
    #[must_use]
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        let evidence = [const { Evidence::new() }; Kind::COUNT];
        let state = State {
            evidence,
            accepted: BTreeMap::new(),
            worked_launch: None,
            new_waiting: 0,
            retries: BTreeSet::new(),
            next_retry: 0,
            received: [Received { at: Instant::now(), may_receive_another: false }; QueueKind::COUNT],
        };
        Self { state: Mutex::new(state), changed: Notify::new(), metrics }
    }

    /// Records that ECS accepted a launch with this many CPU units.
    pub(super) fn launch_accepted(&self, cpu: u32) {
        self.succeeded(Kind::Launch);
        let state = &mut self.state();
        let round = state.evidence[Kind::Launch as usize].round();
        state.accepted.insert(cpu, round);
    }

    /// Records a refused launch of a video with this many CPU units. If ECS has accepted only smaller tasks
    /// since the video's latest refusal, its size is the cause. If it has accepted others of the same size, a
    /// quota is used up.
    pub(super) fn launch_refused(
        &self,
        reason: &str,
        is_configuration: bool,
        backoff: Backoff,
        cpu: u32,
        own: &mut OwnByKind,
    ) {
        let own = own.of_mut(Kind::Launch);
        let (failure, pause) = {
            let state = &mut self.state();
            let may_be_shared = state.accepted.range(cpu..).any(|(_, round)| *round > own.round());
            let failure = Failure { reason, is_configuration, may_be_shared, backoff };
            (failure, state.evidence[Kind::Launch as usize].failed(failure, own))
        };
        self.log_refusal(failure, pause);
    }

    /// Records that ECS throttles the calls of RunTask, which affects all launches.
    pub(super) fn launches_throttled(&self, reason: &str, backoff: Backoff) {
        let failure = Failure { reason, is_configuration: false, may_be_shared: true, backoff };
        let pause = self.state().evidence[Kind::Launch as usize].pause(failure);
        self.log_refusal(failure, pause);
    }

    fn log_refusal(&self, failure: Failure<'_>, pause: Option<Duration>) {
        let reason = failure.reason;
        match pause.map(|pause| pause.as_secs_f64()) {
            Some(pause_seconds) if failure.is_configuration => error!(
                pause_seconds,
                reason,
                "ECS refuses to start tasks: receiving pauses; run `vidstreamx-consumer check` for details"
            ),
            Some(pause_seconds) => {
                warn!(pause_seconds, reason, "ECS does not start tasks now: receiving pauses until it does")
            }
            None => {}
        }
        self.changed.notify_waiters();
    }

    /// Records a task that failed to start.
    pub(super) fn start_failed(&self, reason: &str, own: &mut OwnByKind) {
        let failure = Failure {
            reason: &format!("tasks do not start: {reason}"),
            is_configuration: true,
            may_be_shared: false,
            backoff: STARTS_FAIL,
        };
        let pause = self.state().evidence[Kind::Start as usize].failed(failure, own.of_mut(Kind::Start));
        if let Some(pause) = pause {
            let pause_seconds = pause.as_secs_f64();
            error!(
                pause_seconds,
                reason, "tasks do not start: receiving pauses; check image, subnets and roles"
            );
        }
        self.changed.notify_waiters();
    }

    /// Records a task that ended with 78.
    pub(super) fn task_misconfigured(&self, reason: &str, own: &mut OwnByKind) {
        let failure =
            Failure { reason, is_configuration: true, may_be_shared: false, backoff: SETTINGS_WRONG };
        let own = own.of_mut(Kind::Settings);
        if let Some(pause) = self.state().evidence[Kind::Settings as usize].failed(failure, own) {
            error!(
                pause_seconds = pause.as_secs_f64(),
                reason, "the tasks' settings or permissions are wrong (exit code 78): receiving pauses"
            );
        }
        self.changed.notify_waiters();
    }

    /// Records that a call of a video's step failed repeatedly. Returns whether the cause is shared.
    pub(super) fn call_failed(
        &self,
        kind: Kind,
        reason: &str,
        is_configuration: bool,
        own: &mut OwnByKind,
    ) -> bool {
        let failure = Failure { reason, is_configuration, may_be_shared: false, backoff: CALLS_FAIL };
        let (pause, is_shared) = {
            let evidence = &mut self.state().evidence[kind as usize];
            let pause = evidence.failed(failure, own.of_mut(kind));
            (pause, evidence.shared().is_some())
        };
        if let Some(pause) = pause {
            warn!(pause_seconds = pause.as_secs_f64(), reason, "calls to AWS fail: receiving pauses");
        }
        self.changed.notify_waiters();
        is_shared
    }

    /// Records a success. It ends the pause of a shared cause of this kind.
    pub(super) fn succeeded(&self, kind: Kind) {
        let (had_failures, was_shared) = {
            let evidence = &mut self.state().evidence[kind as usize];
            let was_shared = evidence.shared().is_some();
            (evidence.succeeded(), was_shared)
        };
        if was_shared {
            info!("{}", kind.success());
        }
        // Videos whose failures another consumer saw wait for successes of tasks, too.
        if had_failures || matches!(kind, Kind::Start | Kind::Settings) {
            self.changed.notify_waiters();
        }
    }

    /// Records that a task works, whose settings are therefore right. `launched_at` is the time of its
    /// launch, if this consumer launched it.
    pub(super) fn task_works(&self, launched_at: Option<Instant>) {
        self.succeeded(Kind::Settings);
        let state = &mut self.state();
        state.worked_launch = state.worked_launch.max(launched_at);
    }

    /// Whether a task has worked that was launched after this time, or shortly before it. Tasks that were
    /// launched long before may have had other settings.
    pub(super) fn has_worked_since(&self, launched_at: Instant) -> bool {
        self.state().worked_launch.is_some_and(|worked| worked + SAME_SETTINGS > launched_at)
    }

    /// Whether a video of this kind succeeded after this time.
    pub(super) fn has_succeeded_since(&self, kind: Kind, time: Instant) -> bool {
        self.state().evidence[kind as usize].has_succeeded_since(time)
    }

    /// Waits for this time, or until another video succeeds, if that can mean that this one succeeds, too.
    /// The pauses of refused launches are short, so they are waited for: otherwise each accepted launch would
    /// cause the retries of all others.
    pub(super) async fn wait(&self, pause: Duration, kind: Kind, own: &OwnByKind) {
        let own = own.of(kind);
        let begun = Instant::now();
        let others_success = async {
            if own.is_alone() || kind == Kind::Launch {
                std::future::pending::<()>().await;
            }
            loop {
                let changed = self.changed.notified();
                if self.state().evidence[kind as usize].has_succeeded_after(own, begun) {
                    break;
                }
                changed.await;
            }
        };
        tokio::select! {
            biased;
            () = sleep(pause) => {}
            () = others_success => {}
        }
    }

    /// Waits until a launch may begin. While a cause is shared, the launch claims the next trial; retries get
    /// trials in turn. Returns true if it has a trial: then no other launch may begin before its result.
    pub(super) async fn claim_launch(&self, is_retry: bool) -> bool {
        let retry = is_retry.then(|| self.retry_waits());
        loop {
            let changed = self.changed.notified();
            let due = match self.try_to_claim(retry.as_ref()) {
                Ok(is_trial) => return is_trial,
                Err(due) => due,
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    /// Claims the next trial, if a cause is shared.
    ///
    /// # Errors
    /// It is too early for a trial. Holds the time of the next one, if that is known.
    fn try_to_claim(&self, retry: Option<&RetryWaits<'_>>) -> Result<bool, Option<Instant>> {
        let state = &mut self.state();
        let Some(next) = state.next_trial() else { return Ok(false) };
        let is_behind = |retry: &RetryWaits<'_>| state.retries.first() != Some(&retry.number);
        if retry.is_some_and(|retry| state.new_waiting > 0 || is_behind(retry)) {
            return Err(None);
        }
        let due = if retry.is_some() { next + RETRY_LAG } else { next };
        if due > Instant::now() {
            return Err(Some(due));
        }
        state.evidence.iter_mut().take(Kind::OF_LAUNCHES).for_each(Evidence::begin_trial);
        Ok(true)
    }

    /// Puts a retry at the end of those that wait for a trial, until the returned value is dropped.
    fn retry_waits(&self) -> RetryWaits<'_> {
        let state = &mut self.state();
        let number = state.next_retry;
        state.next_retry += 1;
        state.retries.insert(number);
        RetryWaits { causes: self, number }
    }

    /// Counts a launch of a new upload as waiting until the returned value is dropped.
    pub(super) fn new_upload_waits(&self) -> NewUploadWaits<'_> {
        self.state().new_waiting += 1;
        NewUploadWaits(self)
    }

    /// Waits until more messages of this queue may be received.
    pub(crate) async fn until_receiving(&self, queue: QueueKind) {
        let mut has_waited = false;
        loop {
            let changed = self.changed.notified();
            let Some(ReceivingPause { until, reason, is_configuration }) = self.receiving_pause(queue) else {
                break;
            };
            has_waited = true;
            if is_configuration {
                self.metrics.misconfigured(queue, &reason);
            } else {
                self.metrics.paused(queue, &reason);
            }
            tokio::select! {
                biased;
                () = sleep_until(until) => {}
                () = changed => {}
            }
        }
        if has_waited {
            self.metrics.resumed(queue);
        }
    }

    /// Records that the message that was received needs no launch. Messages that wait come again every twelve
    /// hours, and new uploads must not wait behind them.
    pub(super) fn receive_another(&self) {
        self.state().received.iter_mut().for_each(|received| received.may_receive_another = true);
        self.changed.notify_waiters();
    }

    fn receiving_pause(&self, queue: QueueKind) -> Option<ReceivingPause> {
        let state = self.state();
        let received = state.received[queue as usize];
        if received.may_receive_another {
            return None;
        }
        let trickle = |kind| if kind == Kind::Launch as usize { TRICKLE } else { Duration::ZERO };
        let causes = state.evidence.iter().enumerate();
        let causes = causes.filter_map(|(kind, evidence)| Some((kind, evidence.shared()?)));
        let until = |(kind, cause): &(usize, &SharedCause)| cause.until.max(received.at + trickle(*kind));
        let (kind, cause) = causes.max_by_key(until)?;
        let mut until = until(&(kind, cause));
        if state.new_waiting > 0 {
            // The upload that waits is the next trial. Its launch notifies this loop.
            until = until.max(Instant::now() + TRICKLE);
        }
        (until > Instant::now()).then(|| ReceivingPause {
            until,
            reason: cause.reason.clone(),
            is_configuration: cause.is_configuration,
        })
    }

    /// Records that messages of this queue are received now. Returns true if a cause is shared: then receive
    /// only one message.
    #[must_use]
    pub(crate) fn begin_receive(&self, queue: QueueKind) -> bool {
        let state = &mut self.state();
        state.received[queue as usize] = Received { at: Instant::now(), may_receive_another: false };
        state.is_any_shared()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The time of the next launch as a trial, if a cause of launches is shared.
    fn next_trial(&self) -> Option<Instant> {
        let causes = self.evidence.iter().take(Kind::OF_LAUNCHES).filter_map(Evidence::shared);
        causes.map(|cause| cause.until).max()
    }

    fn is_any_shared(&self) -> bool {
        self.evidence.iter().any(|evidence| evidence.shared().is_some())
    }
}

/// See [`SharedCauses::retry_waits`].
#[derive(Debug)]
struct RetryWaits<'a> {
    causes: &'a SharedCauses,
    number: u64,
}

impl Drop for RetryWaits<'_> {
    fn drop(&mut self) {
        let is_shared = {
            let state = &mut self.causes.state();
            state.retries.remove(&self.number);
            state.next_trial().is_some()
        };
        if is_shared {
            self.causes.changed.notify_waiters();
        }
    }
}

/// See [`SharedCauses::new_upload_waits`].
#[derive(Debug)]
pub(super) struct NewUploadWaits<'a>(&'a SharedCauses);

impl Drop for NewUploadWaits<'_> {
    fn drop(&mut self) {
        let is_shared = {
            let state = &mut self.0.state();
            state.new_waiting -= 1;
            state.is_any_shared()
        };
        if is_shared {
            self.0.changed.notify_waiters();
        }
    }
}
