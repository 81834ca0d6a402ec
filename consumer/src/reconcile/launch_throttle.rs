//! The gate before RunTask: the launch rate, and backpressure when ECS says no.
//!
//! While ECS refuses, one launch at a time tries again after a growing wait, all others stand behind it,
//! and nothing is received: messages that wait here keep their lease, so that waiting costs no receive.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Mutex as Line, MutexGuard as LineGuard, Notify},
    time::{Instant, sleep_until},
};
use tracing::{error, info, warn};

use crate::metrics::Metrics;

/// First and longest wait after a refusal: capacity and quotas come back within seconds to minutes.
const REFUSED: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(1));
/// After a refusal that only a person can end.
const MISCONFIGURED: (Duration, Duration) = (Duration::from_secs(30), Duration::from_mins(5));
/// After tasks that were started and show that every task would end like them.
const TASKS_BROKEN: (Duration, Duration) = (Duration::from_mins(5), Duration::from_mins(30));
/// Between messages that are received although launches that ECS refuses wait.
const TRICKLE: Duration = Duration::from_mins(5);
/// Starts that fail in a row before it is taken for more than the 1 % that always do.
const FAILED_STARTS: u32 = 3;

/// Lets launches through at the set rate, as long as ECS takes them.
#[derive(Debug)]
pub struct LaunchThrottle {
    state: Mutex<ThrottleState>,
    changed: Notify,
    /// Launches stand here one behind the other; holds when the launch rate allows the next one.
    line: Line<Instant>,
    interval: Duration,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct ThrottleState {
    /// RunTask is refused.
    launches: Backoff,
    /// RunTask is accepted, but what it starts is of no use.
    tasks: Backoff,
    failed_starts: u32,
    /// Launches that want to pass.
    waiting: usize,
}

#[derive(Debug, Clone)]
struct Backoff {
    /// Refusals in a row; 0 means that all is well.
    refusals: u32,
    until: Instant,
    /// When messages were asked for, or the trouble began.
    last_received: Instant,
    /// Why, for people.
    reason: String,
    /// Whether a person has to end it.
    is_configuration: bool,
}

impl Backoff {
    fn none() -> Self {
        let now = Instant::now();
        let reason = String::new();
        Self { refusals: 0, until: now, last_received: now, reason, is_configuration: false }
    }

    /// Spread by up to half, so that consumers that were refused together do not return together.
    fn grow(
        &mut self,
        (first, longest): (Duration, Duration),
        reason: &str,
        is_configuration: bool,
    ) -> Duration {
        reason.clone_into(&mut self.reason);
        self.is_configuration = is_configuration;
        let wait = first.saturating_mul(1 << self.refusals.min(16)).min(longest);
        let wait = wait.mul_f64(0.5 + fastrand::f64() / 2.0);
        if self.refusals == 0 {
            self.last_received = Instant::now();
        }
        self.refusals += 1;
        self.until = Instant::now() + wait;
        wait
    }
}

impl LaunchThrottle {
    /// A gate that lets at most so many launches pass per second, evenly spread.
    #[must_use]
    pub fn new(launches_per_second: u32, metrics: Arc<Metrics>) -> Self {
        let (launches, tasks) = (Backoff::none(), Backoff::none());
        Self {
            state: Mutex::new(ThrottleState { launches, tasks, failed_starts: 0, waiting: 0 }),
            changed: Notify::new(),
            line: Line::new(Instant::now()),
            interval: Duration::from_secs(1) / launches_per_second.max(1),
            metrics,
        }
    }

    /// Waits for one launch's turn. Its outcome has to be told to the turn.
    pub async fn enter(&self) -> LaunchPermit<'_> {
        let waiting = WaitingLaunch::new(self);
        let mut line = self.line.lock().await;
        let first_in_line = Instant::now();
        let mut due = first_in_line.max(*line);
        let refusals = loop {
            let Backoff { refusals, until, .. } = self.state().launches.clone();
            if refusals > 0 {
                due = due.max(until);
            }
            if due <= Instant::now() {
                break refusals;
            }
            sleep_until(due).await;
        };
        // Counted from when it was due, not from now: a timer's lateness must not add up.
        *line = due + self.interval;
        // In trouble the line stays closed behind the one that tries.
        let line = (refusals > 0).then_some(line);
        LaunchPermit { gate: self, refusals, _line: line, _waiting: waiting }
    }

    /// Waits until it makes sense to receive more messages.
    pub async fn may_receive(&self) {
        let mut waited = false;
        loop {
            let changed = self.changed.notified();
            let Some((until, reason, is_configuration)) = self.hindrance() else { break };
            waited = true;
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
        if waited {
            self.metrics.resumed();
        }
    }

    /// Until when nothing is to be received, why, and whether a person has to end it.
    fn hindrance(&self) -> Option<(Instant, String, bool)> {
        let ThrottleState { launches, tasks, waiting, .. } = &*self.state();
        let (until, trouble) = if tasks.until > Instant::now() {
            (tasks.until, tasks)
        } else if launches.refusals == 0 {
            return None;
        } else if *waiting > 0 {
            // One of those tries, and may open the gate. It may also be the only one that ECS refuses, for
            // its size: now and then somebody else has to have a try.
            (launches.last_received + TRICKLE, launches)
        } else {
            // Nobody is left to try: a new message has to.
            (launches.until, launches)
        };
        (until > Instant::now()).then(|| (until, trouble.reason.clone(), trouble.is_configuration))
    }

    /// Whether ECS refuses launches: then one message at a time is enough.
    pub fn is_refusing(&self) -> bool {
        let mut state = self.state();
        state.launches.last_received = Instant::now();
        state.launches.refusals > 0
    }

    /// A task never ran. Some never do; several in a row mean that none would.
    pub fn start_failed(&self, reason: &str) {
        let wait = {
            let mut state = self.state();
            state.failed_starts += 1;
            let reason = format!("tasks do not start: {reason}");
            (state.failed_starts >= FAILED_STARTS && state.tasks.until <= Instant::now())
                .then(|| state.tasks.grow(TASKS_BROKEN, &reason, true))
        };
        if let Some(wait) = wait {
            error!(
                wait_seconds = wait.as_secs(),
                reason, "tasks do not start: receiving stops; look at image, subnets and roles"
            );
        }
        self.changed.notify_waiters();
    }

    /// A task says that settings or permissions are wrong.
    pub fn task_misconfigured(&self, reason: &str) {
        let wait = {
            let mut state = self.state();
            // Several that end together are one fault.
            let is_news = state.tasks.until <= Instant::now();
            is_news.then(|| state.tasks.grow(TASKS_BROKEN, reason, true))
        };
        if let Some(wait) = wait {
            error!(
                wait_seconds = wait.as_secs(),
                reason, "the task's settings or permissions are wrong (exit code 78): receiving stops"
            );
        }
        self.changed.notify_waiters();
    }

    /// A task ran and came to an end of its own.
    pub fn task_worked(&self) {
        let mut state = self.state();
        state.failed_starts = 0;
        state.tasks = Backoff::none();
        drop(state);
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, ThrottleState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a launch as waiting for as long as it lives.
#[derive(Debug)]
struct WaitingLaunch<'a>(&'a LaunchThrottle);

impl<'a> WaitingLaunch<'a> {
    fn new(gate: &'a LaunchThrottle) -> Self {
        gate.state().waiting += 1;
        Self(gate)
    }
}

impl Drop for WaitingLaunch<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
        self.0.changed.notify_waiters();
    }
}

/// The right to call RunTask once.
#[derive(Debug)]
#[must_use]
pub struct LaunchPermit<'a> {
    gate: &'a LaunchThrottle,
    /// At the turn's beginning: several launches refused in the same moment are one refusal.
    refusals: u32,
    _line: Option<LineGuard<'a, Instant>>,
    _waiting: WaitingLaunch<'a>,
}

impl LaunchPermit<'_> {
    /// ECS took the launch.
    pub fn accepted(self) {
        let mut state = self.gate.state();
        if state.launches.refusals > 0 {
            info!("ECS starts tasks again");
        }
        state.launches.refusals = 0;
        drop(state);
        self.gate.changed.notify_waiters();
    }

    /// ECS has no capacity, or gave no answer.
    pub fn refused(self, reason: &str) {
        if let Some(wait) = self.close(REFUSED, reason, false) {
            warn!(
                wait_seconds = wait.as_secs_f64(),
                reason, "ECS does not start tasks now: receiving stops until it does"
            );
        }
    }

    /// ECS refuses because of a setting or permission.
    pub fn misconfigured(self, reason: &str) {
        if let Some(wait) = self.close(MISCONFIGURED, reason, true) {
            error!(
                wait_seconds = wait.as_secs_f64(),
                reason, "ECS refuses to start tasks: receiving stops; `vidstreamx-consumer check` says more"
            );
        }
    }

    fn close(&self, waits: (Duration, Duration), reason: &str, is_configuration: bool) -> Option<Duration> {
        self.gate.metrics.launch_refused();
        let mut state = self.gate.state();
        (state.launches.refusals == self.refusals)
            .then(|| state.launches.grow(waits, reason, is_configuration))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn gate(launches_per_second: u32) -> LaunchThrottle {
        LaunchThrottle::new(launches_per_second, Arc::new(Metrics::new("videos")))
    }

    #[tokio::test(start_paused = true)]
    async fn launches_are_spread_evenly() {
        let gate = gate(20);
        let start = Instant::now();
        for _ in 0..41 {
            gate.enter().await.accepted();
        }
        assert_eq!(start.elapsed().as_millis() / 10, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn one_tries_for_all_and_then_all_pass() {
        let gate = Arc::new(gate(1000));
        gate.enter().await.refused("no capacity");
        let calls = Arc::new(Mutex::new(Vec::new()));
        let start = Instant::now();
        let launches: Vec<_> = (0..50)
            .map(|_| {
                let (gate, calls) = (gate.clone(), calls.clone());
                tokio::spawn(async move {
                    loop {
                        let turn = gate.enter().await;
                        calls.lock().unwrap().push(start.elapsed());
                        if start.elapsed() < Duration::from_secs(30) {
                            turn.refused("no capacity");
                        } else {
                            break turn.accepted();
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
    async fn nothing_is_received_while_launches_wait_but_somebody_always_tries() {
        let gate = gate(20);
        gate.enter().await.refused("no capacity");
        let waiting = gate.enter();
        tokio::pin!(waiting);
        assert!(timeout(Duration::ZERO, &mut waiting).await.is_err());
        assert!(timeout(Duration::from_mins(4), gate.may_receive()).await.is_err());
        assert_eq!(gate.metrics.health(), Ok("receiving pauses: no capacity".to_owned()));
        assert!(timeout(Duration::from_mins(2), gate.may_receive()).await.is_ok());
        assert!(gate.is_refusing());
        assert!(timeout(Duration::from_mins(4), gate.may_receive()).await.is_err());
        waiting.await.accepted();
        assert!(timeout(Duration::ZERO, gate.may_receive()).await.is_ok());
        assert!(!gate.is_refusing());

        gate.enter().await.refused("no capacity");
        assert!(timeout(Duration::from_secs(3), gate.may_receive()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn single_failed_starts_are_normal_three_in_a_row_are_not() {
        let gate = gate(20);
        for _ in 0..10 {
            gate.start_failed("ENI");
            gate.start_failed("ENI");
            gate.task_worked();
        }
        assert!(timeout(Duration::ZERO, gate.may_receive()).await.is_ok());
        for _ in 0..3 {
            gate.start_failed("image");
        }
        assert!(timeout(Duration::from_mins(2), gate.may_receive()).await.is_err());
        assert!(gate.metrics.health().unwrap_err().ends_with("tasks do not start: image"));
        assert!(timeout(Duration::from_mins(4), gate.may_receive()).await.is_ok());
    }
}
