//! The launch throttle: launches pass at the set rate, and back off together while ECS refuses them.
//!
//! While ECS refuses, the first launch in line retries after a growing pause, and all others wait behind it.
//! Nothing is received meanwhile. Waiting launches keep their messages invisible, so that waiting costs no
//! receive of a message.
//!
//! It is written by hand because all launches share one backoff, which also stops receiving. It follows
//! tokio's clock, which tests pause.

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

/// Pauses after a refusal: capacity and quotas come back within seconds to minutes.
const REFUSED: Backoff = Backoff { first: Duration::from_secs(2), longest: Duration::from_mins(1) };
/// Pauses after a refusal that only a person can end.
const MISCONFIGURED: Backoff = Backoff { first: Duration::from_secs(30), longest: Duration::from_mins(5) };
/// Pauses after tasks that started and show that every task would fail like them.
const TASKS_FAIL: Backoff = Backoff { first: Duration::from_mins(5), longest: Duration::from_mins(30) };
/// Between messages that are received although refused launches wait.
const TRICKLE: Duration = Duration::from_mins(5);
/// Failed starts in a row that show a fault. Single ones, about 1 %, are normal.
const FAILED_STARTS: u32 = 3;

/// Lets launches pass at the set rate, as long as ECS accepts them.
#[derive(Debug)]
pub(crate) struct LaunchThrottle {
    state: Mutex<State>,
    changed: Notify,
    /// The line of launches; holds when the launch rate allows the next one.
    line: Line<Instant>,
    interval: Duration,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct State {
    /// RunTask is refused.
    launches: BackoffState,
    /// RunTask is accepted, but the tasks it starts fail.
    tasks: BackoffState,
    failed_starts: u32,
    /// Launches in line.
    waiting: usize,
}

#[derive(Debug, Clone)]
struct BackoffState {
    /// Refusals in a row.
    refusals: u32,
    until: Instant,
    /// When a message was last received, or the first refusal came.
    last_received: Instant,
    /// The latest refusal's reason, for people.
    reason: String,
    /// Whether only a person can end it.
    is_configuration: bool,
}

impl BackoffState {
    fn none() -> Self {
        let now = Instant::now();
        let reason = String::new();
        Self { refusals: 0, until: now, last_received: now, reason, is_configuration: false }
    }

    /// Backs off after another refusal. Returns the pause.
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
    /// A throttle that lets at most so many launches pass per second, evenly spread.
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

    /// Waits for the permit of one launch. Report the launch's result to the permit.
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
        // Counted from the due time, not from now: a timer's lateness must not add up.
        *line = due + self.interval;
        // During a backoff the line stays closed behind the launch that retries.
        let line = (refusals > 0).then_some(line);
        LaunchPermit { throttle: self, refusals, _line: line, _waiting: waiting }
    }

    /// Waits until more messages may be received.
    pub(crate) async fn until_receiving(&self) {
        let mut has_waited = false;
        loop {
            let changed = self.changed.notified();
            let Some((until, reason, is_configuration)) = self.hindrance() else { break };
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

    /// Until when nothing is received, the reason, and whether only a person can end it.
    fn hindrance(&self) -> Option<(Instant, String, bool)> {
        let State { launches, tasks, waiting, .. } = &*self.state();
        let (until, backoff) = if tasks.until > Instant::now() {
            (tasks.until, tasks)
        } else if launches.refusals == 0 {
            return None;
        } else if *waiting > 0 {
            // One of the waiting launches retries and may end the backoff. It may also be the only one that
            // ECS refuses, because of its size: now and then another video has to be tried.
            (launches.last_received + TRICKLE, launches)
        } else {
            // No launch is left to retry: a new message has to.
            (launches.until, launches)
        };
        (until > Instant::now()).then(|| (until, backoff.reason.clone(), backoff.is_configuration))
    }

    /// Notes that messages are received now. Returns whether ECS refuses launches: one message is enough
    /// then.
    pub(crate) fn is_refusing(&self) -> bool {
        let mut state = self.state();
        state.launches.last_received = Instant::now();
        state.launches.refusals > 0
    }

    /// Reports a task that never ran. Some never do; several in a row mean that none would.
    pub(super) fn start_failed(&self, reason: &str) {
        let is_fault = {
            let mut state = self.state();
            state.failed_starts += 1;
            state.failed_starts >= FAILED_STARTS
        };
        if is_fault && let Some(pause) = self.tasks_failed(&format!("tasks do not start: {reason}")) {
            error!(
                pause_seconds = pause.as_secs(),
                reason, "tasks do not start: receiving stops; check image, subnets and roles"
            );
        }
        self.changed.notify_waiters();
    }

    /// Reports a task whose settings or permissions are wrong.
    pub(super) fn task_misconfigured(&self, reason: &str) {
        if let Some(pause) = self.tasks_failed(reason) {
            error!(
                pause_seconds = pause.as_secs(),
                reason, "the task's settings or permissions are wrong (exit code 78): receiving stops"
            );
        }
        self.changed.notify_waiters();
    }

    /// Backs off, unless it does already: several tasks that end together have one fault.
    fn tasks_failed(&self, reason: &str) -> Option<Duration> {
        let mut state = self.state();
        (state.tasks.until <= Instant::now()).then(|| state.tasks.grow(TASKS_FAIL, reason, true))
    }

    /// Reports a task that ran and ended by itself.
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

/// Counts a launch as waiting for as long as it lives.
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

/// The right to call RunTask once.
#[derive(Debug)]
#[must_use]
pub(super) struct LaunchPermit<'a> {
    throttle: &'a LaunchThrottle,
    /// Refusals when the permit was given: several launches refused in the same moment are one refusal.
    refusals: u32,
    _line: Option<LineGuard<'a, Instant>>,
    _waiting: Waiting<'a>,
}

impl LaunchPermit<'_> {
    /// ECS accepts the launch.
    pub(super) fn accepted(self) {
        let mut state = self.throttle.state();
        if state.launches.refusals > 0 {
            info!("ECS starts tasks again");
        }
        state.launches.refusals = 0;
        drop(state);
        self.throttle.changed.notify_waiters();
    }

    /// ECS has no capacity, or gives no answer.
    pub(super) fn refused(self, reason: &str) {
        if let Some(pause) = self.back_off(REFUSED, reason, false) {
            warn!(
                pause_seconds = pause.as_secs_f64(),
                reason, "ECS does not start tasks now: receiving stops until it does"
            );
        }
    }

    /// ECS refuses because of a setting or permission.
    pub(super) fn misconfigured(self, reason: &str) {
        if let Some(pause) = self.back_off(MISCONFIGURED, reason, true) {
            error!(
                pause_seconds = pause.as_secs_f64(),
                reason,
                "ECS refuses to start tasks: receiving stops; run `vidstreamx-consumer check` for more"
            );
        }
    }

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
    async fn launches_are_spread_evenly() {
        let throttle = throttle(20);
        let start = Instant::now();
        for _ in 0..41 {
            throttle.acquire().await.accepted();
        }
        assert_eq!(start.elapsed().as_millis() / 10, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn one_launch_retries_for_all_and_then_all_pass() {
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
        let all_through = *calls.last().unwrap() - calls[before];
        assert!(all_through < Duration::from_secs(1), "{all_through:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_received_while_launches_wait_but_one_launch_always_retries() {
        let throttle = throttle(20);
        throttle.acquire().await.refused("no capacity");
        let waiting = throttle.acquire();
        tokio::pin!(waiting);
        assert!(timeout(Duration::ZERO, &mut waiting).await.is_err());
        assert!(timeout(Duration::from_mins(4), throttle.until_receiving()).await.is_err());
        assert_eq!(throttle.metrics.health(), Ok("receiving pauses: no capacity".to_owned()));
        assert!(timeout(Duration::from_mins(2), throttle.until_receiving()).await.is_ok());
        assert!(throttle.is_refusing());
        assert!(timeout(Duration::from_mins(4), throttle.until_receiving()).await.is_err());
        waiting.await.accepted();
        assert!(timeout(Duration::ZERO, throttle.until_receiving()).await.is_ok());
        assert!(!throttle.is_refusing());

        throttle.acquire().await.refused("no capacity");
        assert!(timeout(Duration::from_secs(3), throttle.until_receiving()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn single_failed_starts_are_normal_but_three_in_a_row_are_a_fault() {
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
