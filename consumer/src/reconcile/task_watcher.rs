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

use crate::aws::{
    ecs::{BATCH, Stopped, TaskStatus, Tasks},
    error::CallError,
};

/// The end of a watched task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TaskEnd {
    /// ECS describes the stopped task.
    Stopped(Stopped),
    /// ECS does not list the task, although it was not just started: it ended more than an hour ago.
    Vanished,
}

/// Pause between rounds. A round describes every watched task once.
const ROUND_PAUSE: Duration = Duration::from_secs(2);
/// Pauses between rounds while ECS does not respond.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(4), longest: Duration::from_secs(30) };
/// Time that ECS can take to list a new task.
const VISIBLE_AFTER: Duration = Duration::from_mins(1);

/// Watches tasks until they end.
pub(super) struct TaskWatcher {
    tasks: Arc<dyn Tasks>,
    watched: Mutex<BTreeMap<Arc<str>, Watched>>,
    added: Notify,
    /// Limits the rate of calls.
    rate: Rate<Interval>,
}

struct Watched {
    end: oneshot::Sender<TaskEnd>,
    missing_since: Option<Instant>,
}

impl TaskWatcher {
    /// A watcher without tasks. Run [`Self::run`] in the background.
    pub(super) fn new(tasks: Arc<dyn Tasks>, calls_per_second: u32) -> Self {
        let mut rate = interval(Duration::from_secs(1) / calls_per_second.max(1));
        rate.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { tasks, watched: Mutex::default(), added: Notify::new(), rate: Rate::new(rate) }
    }

    /// The ARN of the job's task with this token, if ECS lists one.
    ///
    /// # Errors
    /// The call failed.
    pub(super) async fn find(&self, job: &JobId, token: &str) -> Result<Option<String>, CallError> {
        self.acquire_call().await;
        self.tasks.find(job, token).await
    }

    /// Waits for the end of a task. The task may have ended already.
    pub(super) async fn end_of(&self, arn: Arc<str>) -> TaskEnd {
        let (end, ended) = oneshot::channel();
        self.watched().insert(arn, Watched { end, missing_since: None });
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
            TaskStatus::Alive => {
                if let Some(watched) = watched.get_mut(arn) {
                    watched.missing_since = None;
                }
                return;
            }
            TaskStatus::Missing => {
                let Some(watched) = watched.get_mut(arn) else { return };
                let since = *watched.missing_since.get_or_insert_with(Instant::now);
                if since.elapsed() < VISIBLE_AFTER {
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
