//! Watches the tasks of all jobs. One loop describes a hundred tasks per call, and reports the end of each
//! task to the job that waits for it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Mutex as Rate, Notify, oneshot},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep},
};
use tracing::{error, info, warn};
use vidstreamx_job::{Backoff, JobId};

use super::shared_causes::{Kind, SharedCauses};
use crate::aws::{
    ecs::{BATCH, Stopped, TaskStatus, Tasks},
    error::CallError,
};

/// The end of a watched task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TaskEnd {
    /// ECS describes the stopped task.
    Stopped(Stopped),
    /// ECS does not list the task, and certainly would if it ran or had ended within the last hour.
    Vanished,
}

/// Pause between rounds. A round describes every watched task once.
const ROUND_PAUSE: Duration = Duration::from_secs(2);
/// Pauses between rounds while ECS does not respond.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(4), longest: Duration::from_secs(30) };
/// ECS describes a task for an hour after its end (Amazon ECS API Reference, DescribeTasks). The margin
/// covers delays of its lists.
const DESCRIBED_FOR: Duration = Duration::from_mins(65);
/// Time for which ECS may fail to list a task that runs. A task that this consumer has never seen is
/// forgotten if it is missing for longer.
const MISSING_FOR: Duration = Duration::from_mins(15);
/// The settings and permissions of a task that has run for this long are right. A task with wrong ones ends
/// within seconds.
const WORKS_AFTER: Duration = Duration::from_mins(2);

/// Watches tasks until they end.
pub(super) struct TaskWatcher {
    tasks: Arc<dyn Tasks>,
    causes: Arc<SharedCauses>,
    watched: Mutex<BTreeMap<Arc<str>, Watched>>,
    added: Notify,
    /// Limits the rate of calls.
    rate: Rate<Interval>,
}

struct Watched {
    end: oneshot::Sender<TaskEnd>,
    /// The last time when ECS knew the task, if this consumer has seen it.
    known_at: Option<Instant>,
    /// Time of the launch, if this consumer launched the task.
    launched_at: Option<Instant>,
    missing_since: Option<Instant>,
    running_since: Option<Instant>,
    /// Whether the task has shown that its settings are right.
    works: bool,
}

impl TaskWatcher {
    /// A watcher without tasks. Run [`Self::run`] in the background.
    pub(super) fn new(tasks: Arc<dyn Tasks>, causes: Arc<SharedCauses>, calls_per_second: u32) -> Self {
        let mut rate = interval(Duration::from_secs(1) / calls_per_second.max(1));
        rate.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { tasks, causes, watched: Mutex::default(), added: Notify::new(), rate: Rate::new(rate) }
    }

    /// The ARN of the job's task with this token, if ECS lists one.
    ///
    /// # Errors
    /// The call failed.
    pub(super) async fn find(&self, job: &JobId, token: &str) -> Result<Option<String>, CallError> {
        self.acquire_call().await;
        self.tasks.find(job, token).await
    }

    /// Waits for the end of a task. The task may have ended already. `launched_at` is the time when this
    /// consumer launched the task, if it did.
    pub(super) async fn end_of(&self, arn: Arc<str>, launched_at: Option<Instant>) -> TaskEnd {
        let (end, ended) = oneshot::channel();
        let watched = Watched {
            end,
            known_at: launched_at,
            launched_at,
            missing_since: None,
            running_since: None,
            works: false,
        };
        self.watched().insert(arn, watched);
        self.added.notify_one();
        match ended.await {
            Ok(end) => end,
            // The program ends, or a newer call waits for the same task.
            Err(_) => std::future::pending().await,
        }
    }

    /// Describes the watched tasks while it is polled.
    pub(super) async fn run(&self) {
        let mut failures = 0_u32;
        loop {
            let arns = self.arns();
            if arns.is_empty() {
                self.added.notified().await;
                continue;
            }
            let mut failed = None;
            for page in arns.chunks(BATCH) {
                self.acquire_call().await;
                match self.tasks.describe(page).await {
                    Ok(states) => page.iter().zip(states).for_each(|(arn, status)| self.update(arn, status)),
                    Err(error) => failed = Some(error),
                }
            }
            match failed {
                Some(error) => {
                    // Logged only once per outage. The end of the outage is logged, too.
                    if failures == 0 && error.is_configuration() {
                        error!(%error, "running tasks cannot be watched");
                    } else if failures == 0 {
                        warn!(%error, "running tasks cannot be watched now");
                    }
                    failures = failures.saturating_add(1);
                }
                None if failures > 0 => {
                    info!("running tasks are watched again");
                    failures = 0;
                }
                None => {}
            }
            sleep(if failures == 0 { ROUND_PAUSE } else { BACKOFF.pause(failures) }).await;
        }
    }

    /// Waits until the rate allows another call.
    async fn acquire_call(&self) {
        self.rate.lock().await.tick().await;
    }

    /// The tasks for which a job still waits.
    fn arns(&self) -> Vec<Arc<str>> {
        let mut watched = self.watched();
        watched.retain(|_, watched| !watched.end.is_closed());
        watched.keys().cloned().collect()
    }

    fn update(&self, arn: &str, status: TaskStatus) {
        let mut watched = self.watched();
        let end = match status {
            TaskStatus::Stopped(stopped) => TaskEnd::Stopped(stopped),
            TaskStatus::Starting | TaskStatus::Running => {
                let Some(watched) = watched.get_mut(arn) else { return };
                let now = Instant::now();
                (watched.known_at, watched.missing_since) = (Some(now), None);
                if status == TaskStatus::Running {
                    let is_first = watched.running_since.is_none();
                    let since = *watched.running_since.get_or_insert(now);
                    if is_first {
                        self.causes.succeeded(Kind::Start);
                    }
                    if !watched.works && now - since >= WORKS_AFTER {
                        watched.works = true;
                        self.causes.task_works(watched.launched_at);
                    }
                }
                return;
            }
            TaskStatus::Missing => {
                let Some(watched) = watched.get_mut(arn) else { return };
                let missing_since = *watched.missing_since.get_or_insert_with(Instant::now);
                let is_forgotten = missing_since.elapsed() >= MISSING_FOR
                    && watched.known_at.is_none_or(|known_at| known_at.elapsed() >= DESCRIBED_FOR);
                if !is_forgotten {
                    return;
                }
                TaskEnd::Vanished
            }
        };
        if let Some(watched) = watched.remove(arn) {
            // Fails if the job was dropped at shutdown.
            let _ = watched.end.send(end);
        }
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
