//! The launch throttle: it limits the rate of launches, and lets one launch at a time through as a trial
//! while a cause persists that all videos share.
//!
//! The messages of waiting launches stay invisible, so a wait costs no receive. The throttle is written by
//! hand, because its pauses depend on the [shared causes](SharedCauses), and because it uses tokio's clock,
//! which tests pause.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Mutex as Line, MutexGuard as LineGuard},
    time::{Instant, sleep_until},
};
use vidstreamx_job::Backoff;

use super::{
    pause::PauseSwitch,
    shared_causes::{NewUploadWaits, OwnByKind, SharedCauses},
};
use crate::metrics::Metrics;

/// Pauses after a refusal for capacity or quotas, which become available within seconds to minutes.
pub(super) const REFUSED: Backoff =
    Backoff { first: Duration::from_secs(2), longest: Duration::from_mins(1) };
/// Pauses after a refusal for a wrong setting or a missing permission.
pub(super) const MISCONFIGURED: Backoff =
    Backoff { first: Duration::from_secs(30), longest: Duration::from_mins(5) };

/// Maximum delay of a timer.
const LATE_TIMER: Duration = Duration::from_millis(5);

/// The kind of a launch that waits for a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The video was not tried before.
    NewUpload,
    /// The video was tried before. No cause was shared when its pause ended.
    Retry,
    /// The video was tried before and has claimed a trial.
    Trial,
}

/// Gives permits for launches at the configured rate.
#[derive(Debug)]
pub(crate) struct LaunchThrottle {
    causes: Arc<SharedCauses>,
    pause: Arc<PauseSwitch>,
    /// The queue of launches.
    line: Line<()>,
    /// Time at which the rate allows the next launch.
    next: Mutex<Instant>,
    interval: Duration,
    metrics: Arc<Metrics>,
}

impl LaunchThrottle {
    /// A throttle for this many launches per second, at equal intervals.
    #[must_use]
    pub(crate) fn new(
        launches_per_second: u32,
        causes: Arc<SharedCauses>,
        pause: Arc<PauseSwitch>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let interval = Duration::from_secs(1) / launches_per_second.max(1);
        Self { causes, pause, line: Line::default(), next: Mutex::new(Instant::now()), interval, metrics }
    }

    /// Waits for the permit of a launch. The caller reports the result to the permit.
    pub(super) async fn acquire(&self, turn: Turn) -> LaunchPermit<'_> {
        let waits = (turn == Turn::NewUpload).then(|| self.causes.new_upload_waits());
        let line = self.line.lock().await;
        let mut has_trial = turn == Turn::Trial;
        let is_trial = loop {
            let is_trial = has_trial || self.causes.claim_launch(false).await;
            if self.pause.reason().is_none() {
                break is_trial;
            }
            // A trial that was claimed before the pause is over.
            self.pause.until_running().await;
            has_trial = false;
        };
        self.keep_rate().await;
        // No other launch begins before the result of a trial is known.
        let line = is_trial.then_some(line);
        LaunchPermit { throttle: self, _line: line, _waits: waits }
    }

    /// Waits until the rate allows another launch.
    async fn keep_rate(&self) {
        loop {
            let due = {
                let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
                let now = Instant::now();
                if *next <= now {
                    // Counted from the due time and not from now, so late timers do not lower the rate. A
                    // rate that was not used is not made up for.
                    *next = (*next).max(now.checked_sub(LATE_TIMER).unwrap_or(now)) + self.interval;
                    return;
                }
                *next
            };
            sleep_until(due).await;
        }
    }
}

/// The permit for one RunTask call.
#[derive(Debug)]
#[must_use]
pub(super) struct LaunchPermit<'a> {
    throttle: &'a LaunchThrottle,
    _line: Option<LineGuard<'a, ()>>,
    _waits: Option<NewUploadWaits<'a>>,
}

impl LaunchPermit<'_> {
    /// Waits for the rate again, if time has passed since the permit was given.
    pub(super) async fn keep_rate(&self) {
        self.throttle.keep_rate().await;
    }

    /// Records that ECS accepted the launch with this many CPU units.
    pub(super) fn accepted(self, cpu: u32) {
        self.throttle.causes.launch_accepted(cpu);
    }

    /// Records that ECS has no capacity for this launch, or did not respond.
    pub(super) fn refused(self, reason: &str, cpu: u32, own: &mut OwnByKind) {
        self.throttle.metrics.launch_refused();
        self.throttle.causes.launch_refused(reason, false, REFUSED, cpu, own);
    }

    /// Records that ECS throttles RunTask, for all launches.
    pub(super) fn throttled(self, reason: &str) {
        self.throttle.metrics.launch_refused();
        self.throttle.causes.launches_throttled(reason, REFUSED);
    }

    /// Records that ECS refused the launch because of a setting or permission.
    pub(super) fn misconfigured(self, reason: &str, cpu: u32, own: &mut OwnByKind) {
        self.throttle.metrics.launch_refused();
        self.throttle.causes.launch_refused(reason, true, MISCONFIGURED, cpu, own);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::timeout;

    use super::{super::shared_causes::Kind, *};
    use crate::aws::sqs::QueueKind;

    const CPU: u32 = 4096;

    fn throttle(launches_per_second: u32) -> LaunchThrottle {
        let metrics = Arc::new(Metrics::new("videos"));
        let causes = Arc::new(SharedCauses::new(metrics.clone()));
        LaunchThrottle::new(launches_per_second, causes, Arc::new(PauseSwitch::running()), metrics)
    }

    /// Refuses the launches of three videos.
    async fn refuse_several(throttle: &LaunchThrottle) {
        for _ in 0..3 {
            throttle.acquire(Turn::NewUpload).await.refused("no capacity", CPU, &mut OwnByKind::default());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn launches_have_equal_intervals() {
        let throttle = throttle(20);
        let start = Instant::now();
        for _ in 0..41 {
            throttle.acquire(Turn::NewUpload).await.accepted(CPU);
        }
        assert_eq!(start.elapsed().as_millis() / 10, 200);
    }

    /// Another shared cause can make all of them wait for the same time.
    #[tokio::test(start_paused = true)]
    async fn retries_get_trials_in_turn() {
        let throttle = Arc::new(throttle(20));
        refuse_several(&throttle).await;
        for _ in 0..3 {
            throttle.causes.task_misconfigured("no access", &mut OwnByKind::default());
        }
        let claims = Arc::new(Mutex::new([0_u32; 3]));
        for nth in 0..3 {
            let (throttle, claims) = (throttle.clone(), claims.clone());
            tokio::spawn(async move {
                let mut own = OwnByKind::default();
                loop {
                    assert!(throttle.causes.claim_launch(true).await);
                    claims.lock().unwrap()[nth] += 1;
                    throttle.causes.launch_refused("no capacity", false, REFUSED, CPU, &mut own);
                    // The first one is always back before the next trial.
                    tokio::time::sleep(Duration::from_secs(nth as u64)).await;
                }
            });
        }
        tokio::time::sleep(Duration::from_mins(90)).await;
        let claims = *claims.lock().unwrap();
        let (least, most) = (claims.iter().min().unwrap(), claims.iter().max().unwrap());
        assert!(*least > 10 && most - least <= 1, "{claims:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_launch_is_the_trial_for_all_until_ecs_accepts_it() {
        let throttle = Arc::new(throttle(1000));
        let calls = Arc::new(Mutex::new(Vec::new()));
        let start = Instant::now();
        let launches: Vec<_> = (0..50)
            .map(|_| {
                let (throttle, calls) = (throttle.clone(), calls.clone());
                tokio::spawn(async move {
                    let mut own = OwnByKind::default();
                    let mut turn = Turn::NewUpload;
                    loop {
                        let permit = throttle.acquire(turn).await;
                        calls.lock().unwrap().push(start.elapsed());
                        if start.elapsed() < Duration::from_secs(30) {
                            permit.refused("no capacity", CPU, &mut own);
                            turn = if throttle.causes.claim_launch(true).await {
                                Turn::Trial
                            } else {
                                Turn::Retry
                            };
                        } else {
                            break permit.accepted(CPU);
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
        assert!((5..=12).contains(&before), "{before} refused calls in 30 seconds");
        let after_acceptance = *calls.last().unwrap() - calls[before];
        assert!(after_acceptance < Duration::from_secs(1), "{after_acceptance:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_upload_is_the_next_trial() {
        let throttle = throttle(1000);
        refuse_several(&throttle).await;
        let order = Mutex::new(Vec::new());
        let retry = async |name| {
            assert!(throttle.causes.claim_launch(true).await);
            order.lock().unwrap().push(name);
            throttle.acquire(Turn::Trial).await.refused("no capacity", CPU, &mut OwnByKind::default());
        };
        let new_upload = async {
            throttle.acquire(Turn::NewUpload).await.refused("no capacity", CPU, &mut OwnByKind::default());
            order.lock().unwrap().push("new");
        };
        tokio::join!(retry("retry"), retry("retry"), new_upload);
        assert_eq!(*order.lock().unwrap(), ["new", "retry", "retry"]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_refused_video_does_not_pause_receiving_but_several_do() {
        let throttle = throttle(20);
        let mut own = OwnByKind::default();
        throttle.acquire(Turn::NewUpload).await.refused("too large", CPU, &mut own);
        throttle.acquire(Turn::Retry).await.refused("too large", CPU, &mut own);
        assert!(timeout(Duration::ZERO, throttle.causes.until_receiving(QueueKind::Uploads)).await.is_ok());
        assert!(!throttle.causes.begin_receive(QueueKind::Uploads));

        refuse_several(&throttle).await;
        assert!(
            timeout(Duration::from_mins(1), throttle.causes.until_receiving(QueueKind::Uploads))
                .await
                .is_err()
        );
        assert_eq!(throttle.metrics.health(), Ok("receiving pauses: no capacity".to_owned()));
        // One message is received from time to time, because its launch may be accepted.
        assert!(
            timeout(Duration::from_mins(2), throttle.causes.until_receiving(QueueKind::Uploads))
                .await
                .is_ok()
        );
        assert!(throttle.causes.begin_receive(QueueKind::Uploads));
        assert!(
            timeout(Duration::from_mins(1), throttle.causes.until_receiving(QueueKind::Uploads))
                .await
                .is_err()
        );
        throttle.acquire(Turn::Retry).await.accepted(CPU);
        assert!(timeout(Duration::ZERO, throttle.causes.until_receiving(QueueKind::Uploads)).await.is_ok());
        assert!(!throttle.causes.begin_receive(QueueKind::Uploads));
    }

    #[tokio::test(start_paused = true)]
    async fn only_accepted_launches_of_smaller_tasks_show_that_the_size_is_the_cause() {
        for (accepted, is_alone) in [(2048, true), (4096, false), (8192, false)] {
            let throttle = throttle(20);
            let mut own = OwnByKind::default();
            for _ in 0..2 {
                throttle.acquire(Turn::Retry).await.refused("no capacity", CPU, &mut own);
                throttle.acquire(Turn::NewUpload).await.accepted(accepted);
            }
            assert_eq!(own.of(Kind::Launch).is_clear(), is_alone, "{accepted}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failed_starts_are_a_fault_only_if_no_task_runs_in_between() {
        let throttle = throttle(20);
        let fail = |own: &mut OwnByKind| throttle.causes.start_failed("image", own);
        for _ in 0..10 {
            fail(&mut OwnByKind::default());
            fail(&mut OwnByKind::default());
            throttle.causes.succeeded(Kind::Start);
        }
        assert!(timeout(Duration::ZERO, throttle.causes.until_receiving(QueueKind::Uploads)).await.is_ok());
        for _ in 0..3 {
            fail(&mut OwnByKind::default());
        }
        assert!(
            timeout(Duration::from_secs(7), throttle.causes.until_receiving(QueueKind::Uploads))
                .await
                .is_err()
        );
        assert!(throttle.metrics.health().unwrap_err().ends_with("tasks do not start: image"));
        assert!(
            timeout(Duration::from_mins(1), throttle.causes.until_receiving(QueueKind::Uploads))
                .await
                .is_ok()
        );
    }
}
