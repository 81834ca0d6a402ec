//! The launch throttle: it limits the rate of launches, and makes all launches back off while ECS refuses
//! them.
//!
//! While ECS refuses launches, the first launch in the queue retries with growing pauses. All others wait
//! behind it, and no messages are received. The messages of waiting launches stay invisible, so a wait costs
//! no receive.
//!
//! The throttle is written by hand, because all launches share one backoff, and the backoff also stops the
//! receiving of messages. It uses tokio's clock, which tests pause.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Mutex as Line, MutexGuard as LineGuard, Notify},
    time::{Instant, sleep_until},
};
use tracing::{error, info, warn};
use vidstreamx_job::Backoff;

use crate::metrics::Metrics;

/// Pauses after a refusal for capacity or quotas, which become available within seconds to minutes.
const REFUSED: Backoff = Backoff { first: Duration::from_secs(2), longest: Duration::from_mins(1) };
/// Pauses after a refusal for a wrong setting or a missing permission.
const MISCONFIGURED: Backoff = Backoff { first: Duration::from_secs(30), longest: Duration::from_mins(5) };
/// Pauses after tasks that failed for a reason that affects all tasks.
const TASKS_FAIL: Backoff = Backoff { first: Duration::from_mins(5), longest: Duration::from_mins(30) };
/// While refused launches wait, one message is received per interval of this length.
const TRICKLE: Duration = Duration::from_mins(5);
/// Number of consecutive failed starts that indicate a fault. About 1 % of starts fail without a fault.
const FAILED_STARTS: u32 = 3;

/// Gives permits for launches at the configured rate, while ECS accepts launches.
#[derive(Debug)]
pub(crate) struct LaunchThrottle {
    state: Mutex<State>,
    changed: Notify,
    /// The queue of launches. Holds the time at which the rate allows the next launch.
    line: Line<Instant>,
    interval: Duration,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct State {
    /// The backoff after refused RunTask calls.
    launches: BackoffState,
    /// The backoff after tasks that RunTask started but that failed.
    tasks: BackoffState,
    failed_starts: u32,
    /// Number of launches that wait for a permit or for ECS's response.
    waiting: usize,
}

#[derive(Debug, Clone)]
struct BackoffState {
    /// Number of consecutive refusals.
    refusals: u32,
    until: Instant,
    /// Time of the last received message, or of the first refusal.
    last_received: Instant,
    /// The reason of the latest refusal.
    reason: String,
    /// Whether an operator must act.
    is_configuration: bool,
}

impl BackoffState {
    fn none() -> Self {
        let now = Instant::now();
        let reason = String::new();
        Self { refusals: 0, until: now, last_received: now, reason, is_configuration: false }
    }

    /// Records a refusal and begins the next pause. Returns the pause.
    fn grow(&mut self, backoff: Backoff, reason: &str, is_configuration: bool) -> Duration {
        reason.clone_into(&mut self.reason);
        self.is_configuration = is_configuration;
        if self.refusals == 0 {
            self.last_received = Instant::now();
        }
        self.refusals += 1;
        let pause = backoff.pause(self.refusals);
        self.until = Instant::now() + pause;
        pause
    }
}

impl LaunchThrottle {
    /// A throttle for this many launches per second, at equal intervals.
    #[must_use]
    pub(crate) fn new(launches_per_second: u32, metrics: Arc<Metrics>) -> Self {
        let (launches, tasks) = (BackoffState::none(), BackoffState::none());
        Self {
            state: Mutex::new(State { launches, tasks, failed_starts: 0, waiting: 0 }),
            changed: Notify::new(),
            line: Line::new(Instant::now()),
            interval: Duration::from_secs(1) / launches_per_second.max(1),
            metrics,
        }
    }

    /// Waits for the permit of a launch. The caller reports the result to the permit.
    pub(super) async fn acquire(&self) -> LaunchPermit<'_> {
        let waiting = Waiting::new(self);
        let mut line = self.line.lock().await;
        let first_in_line = Instant::now();
        let mut due = first_in_line.max(*line);
        let refusals = loop {
            let BackoffState { refusals, until, .. } = self.state().launches.clone();
            if refusals > 0 {
                due = due.max(until);
            }
            if due <= Instant::now() {
                break refusals;
            }
            sleep_until(due).await;
        };
        // Counted from the due time and not from now, so late timers do not lower the rate.
        *line = due + self.interval;
        // During a backoff, the permit keeps the queue closed behind the launch that retries.
        let line = (refusals > 0).then_some(line);
        LaunchPermit { throttle: self, refusals, _line: line, _waiting: waiting }
    }

    /// Waits until more messages may be received.
    pub(crate) async fn until_receiving(&self) {
        let mut has_waited = false;
        loop {
            let changed = self.changed.notified();
            let Some((until, reason, is_configuration)) = self.receiving_pause() else { break };
            has_waited = true;
            if is_configuration {
                self.metrics.misconfigured(&reason);
            } else {
                self.metrics.paused(&reason);
            }
            tokio::select! {
                biased;
                () = sleep_until(until) => {}
                () = changed => {}
            }
        }
        if has_waited {
            self.metrics.resumed();
        }
    }

    /// The end of the current pause of receiving, its reason, and whether an operator must act.
    #[must_use]
    fn receiving_pause(&self) -> Option<(Instant, String, bool)> {
        let State { launches, tasks, waiting, .. } = &*self.state();
        let (until, backoff) = if tasks.until > Instant::now() {
            (tasks.until, tasks)
        } else if launches.refusals == 0 {
            return None;
        } else if *waiting > 0 {
            // A waiting launch retries and can end the backoff. But ECS may refuse only that launch, for
            // example because of its size, so another video is received from time to time.
            (launches.last_received + TRICKLE, launches)
        } else {
            // No launch waits, so the next message retries.
            (launches.until, launches)
        };
        (until > Instant::now()).then(|| (until, backoff.reason.clone(), backoff.is_configuration))
    }

    /// Records that messages are received now. Returns true if ECS refuses launches: then receive only one
    /// message.
    #[must_use]
    pub(crate) fn begin_receive(&self) -> bool {
        let mut state = self.state();
        state.launches.last_received = Instant::now();
        state.launches.refusals > 0
    }

    /// Records a task that failed to start. Several consecutive failures indicate a fault.
    pub(super) fn start_failed(&self, reason: &str) {
        let is_fault = {
            let mut state = self.state();
            state.failed_starts += 1;
            state.failed_starts >= FAILED_STARTS
        };
        if is_fault && let Some(pause) = self.tasks_failed(&format!("tasks do not start: {reason}")) {
            error!(
                pause_seconds = pause.as_secs(),
                reason, "tasks do not start: receiving pauses; check image, subnets and roles"
            );
        }
        self.changed.notify_waiters();
    }

    /// Records a task that ended for wrong settings or permissions.
    pub(super) fn task_misconfigured(&self, reason: &str) {
        if let Some(pause) = self.tasks_failed(reason) {
            error!(
                pause_seconds = pause.as_secs(),
                reason, "the task's settings or permissions are wrong (exit code 78): receiving pauses"
            );
        }
        self.changed.notify_waiters();
    }

    /// Begins a backoff unless one is active, because tasks that fail together have the same fault.
    #[must_use]
    fn tasks_failed(&self, reason: &str) -> Option<Duration> {
        let mut state = self.state();
        (state.tasks.until <= Instant::now()).then(|| state.tasks.grow(TASKS_FAIL, reason, true))
    }

    /// Records a task that started and whose settings are right. This ends the backoff after failed tasks.
    pub(super) fn task_worked(&self) {
        let mut state = self.state();
        state.failed_starts = 0;
        state.tasks = BackoffState::none();
        drop(state);
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a launch as waiting until it is dropped.
#[derive(Debug)]
struct Waiting<'a>(&'a LaunchThrottle);

impl<'a> Waiting<'a> {
    fn new(throttle: &'a LaunchThrottle) -> Self {
        throttle.state().waiting += 1;
        Self(throttle)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
        self.0.changed.notify_waiters();
    }
}

/// The permit for one RunTask call.
#[derive(Debug)]
#[must_use]
pub(super) struct LaunchPermit<'a> {
    throttle: &'a LaunchThrottle,
    /// Number of refusals when the permit was given. If it has changed since, another launch was refused in
    /// the meantime, and this refusal does not count again.
    refusals: u32,
    _line: Option<LineGuard<'a, Instant>>,
    _waiting: Waiting<'a>,
}

impl LaunchPermit<'_> {
    /// Records that ECS accepted the launch.
    pub(super) fn accepted(self) {
        let mut state = self.throttle.state();
        if state.launches.refusals > 0 {
            info!("ECS starts tasks again");
        }
        state.launches.refusals = 0;
        drop(state);
        self.throttle.changed.notify_waiters();
    }

    /// Records that ECS has no capacity, throttles calls, or did not respond.
    pub(super) fn refused(self, reason: &str) {
        if let Some(pause) = self.back_off(REFUSED, reason, false) {
            warn!(
                pause_seconds = pause.as_secs_f64(),
                reason, "ECS does not start tasks now: receiving pauses until it does"
            );
        }
    }

    /// Records that ECS refused the launch because of a setting or permission.
    pub(super) fn misconfigured(self, reason: &str) {
        if let Some(pause) = self.back_off(MISCONFIGURED, reason, true) {
            error!(
                pause_seconds = pause.as_secs_f64(),
                reason,
                "ECS refuses to start tasks: receiving pauses; run `vidstreamx-consumer check` for details"
            );
        }
    }

    #[must_use]
    fn back_off(&self, backoff: Backoff, reason: &str, is_configuration: bool) -> Option<Duration> {
        self.throttle.metrics.launch_refused();
        let mut state = self.throttle.state();
        let is_new = state.launches.refusals == self.refusals;
        is_new.then(|| state.launches.grow(backoff, reason, is_configuration))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn throttle(launches_per_second: u32) -> LaunchThrottle {
        LaunchThrottle::new(launches_per_second, Arc::new(Metrics::new("videos")))
    }

    #[tokio::test(start_paused = true)]
    async fn launches_have_equal_intervals() {
        let throttle = throttle(20);
        let start = Instant::now();
        for _ in 0..41 {
            throttle.acquire().await.accepted();
        }
        assert_eq!(start.elapsed().as_millis() / 10, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn one_launch_retries_for_all_until_ecs_accepts_it() {
        let throttle = Arc::new(throttle(1000));
        throttle.acquire().await.refused("no capacity");
        let calls = Arc::new(Mutex::new(Vec::new()));
        let start = Instant::now();
        let launches: Vec<_> = (0..50)
            .map(|_| {
                let (throttle, calls) = (throttle.clone(), calls.clone());
                tokio::spawn(async move {
                    loop {
                        let permit = throttle.acquire().await;
                        calls.lock().unwrap().push(start.elapsed());
                        if start.elapsed() < Duration::from_secs(30) {
                            permit.refused("no capacity");
                        } else {
                            break permit.accepted();
                        }
                    }
                })
            })
            .collect();
        for launch in launches {
            launch.await.unwrap();
        }
        let calls = calls.lock().unwrap();
        let before = calls.iter().filter(|at| at.as_secs() < 30).count();
        assert!((3..=8).contains(&before), "{before} refused calls in 30 seconds");
        let after_acceptance = *calls.last().unwrap() - calls[before];
        assert!(after_acceptance < Duration::from_secs(1), "{after_acceptance:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn receiving_pauses_while_launches_wait_but_one_launch_always_retries() {
        let throttle = throttle(20);
        throttle.acquire().await.refused("no capacity");
        let waiting = throttle.acquire();
        tokio::pin!(waiting);
        assert!(timeout(Duration::ZERO, &mut waiting).await.is_err());
        assert!(timeout(Duration::from_mins(4), throttle.until_receiving()).await.is_err());
        assert_eq!(throttle.metrics.health(), Ok("receiving pauses: no capacity".to_owned()));
        assert!(timeout(Duration::from_mins(2), throttle.until_receiving()).await.is_ok());
        assert!(throttle.begin_receive());
        assert!(timeout(Duration::from_mins(4), throttle.until_receiving()).await.is_err());
        waiting.await.accepted();
        assert!(timeout(Duration::ZERO, throttle.until_receiving()).await.is_ok());
        assert!(!throttle.begin_receive());

        throttle.acquire().await.refused("no capacity");
        assert!(timeout(Duration::from_secs(3), throttle.until_receiving()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn only_three_consecutive_failed_starts_are_a_fault() {
        let throttle = throttle(20);
        for _ in 0..10 {
            throttle.start_failed("ENI");
            throttle.start_failed("ENI");
            throttle.task_worked();
        }
        assert!(timeout(Duration::ZERO, throttle.until_receiving()).await.is_ok());
        for _ in 0..3 {
            throttle.start_failed("image");
        }
        assert!(timeout(Duration::from_mins(2), throttle.until_receiving()).await.is_err());
        assert!(throttle.metrics.health().unwrap_err().ends_with("tasks do not start: image"));
        assert!(timeout(Duration::from_mins(4), throttle.until_receiving()).await.is_ok());
    }
}
