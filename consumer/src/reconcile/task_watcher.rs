//! One watcher for all tasks: asks ECS about a hundred at a time and tells each waiting job its end.

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

use crate::aws::ecs::{BATCH, Stopped, TaskStatus, Tasks};

/// How a watched task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskEnd {
    /// ECS says so.
    Stopped(Stopped),
    /// ECS does not know the task, and would by now if it had just been started: it ended over an hour
    /// ago.
    Vanished,
}

/// Between rounds.
const ROUND: Duration = Duration::from_secs(2);
/// Longest time between rounds while ECS does not answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a task may be missing because ECS does not show it yet.
const UNSEEN: Duration = Duration::from_mins(1);

/// Watches tasks until they end.
pub struct Watcher {
    tasks: Arc<dyn Tasks>,
    watched: Mutex<BTreeMap<Arc<str>, Watched>>,
    added: Notify,
    /// When ECS may be asked next.
    rate: Rate<Interval>,
}

struct Watched {
    end: oneshot::Sender<TaskEnd>,
    missing_since: Option<Instant>,
}

impl Watcher {
    /// A watcher of nothing yet, for at most so many calls per second; [`Watcher::run`] has to run beside
    /// it.
    #[must_use]
    pub fn new(tasks: Arc<dyn Tasks>, calls_per_second: u32) -> Self {
        let mut rate = interval(Duration::from_secs(1) / calls_per_second.max(1));
        rate.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { tasks, watched: Mutex::default(), added: Notify::new(), rate: Rate::new(rate) }
    }

    /// Waits for the right to ask ECS about tasks once.
    pub async fn turn(&self) {
        self.rate.lock().await.tick().await;
    }

    /// Waits for a task's end, which may lie in the past.
    pub async fn end_of(&self, arn: Arc<str>) -> TaskEnd {
        let (end, ended) = oneshot::channel();
        self.watched().insert(arn, Watched { end, missing_since: None });
        self.added.notify_one();
        match ended.await {
            Ok(end) => end,
            // The program ends, or another waiter took this one's place.
            Err(_) => std::future::pending().await,
        }
    }

    /// Asks ECS for as long as it is polled.
    pub async fn run(&self) {
        let mut trouble = 0_u32;
        loop {
            let arns = self.arns();
            if arns.is_empty() {
                self.added.notified().await;
                continue;
            }
            let mut failed = None;
            for page in arns.chunks(BATCH) {
                self.turn().await;
                match self.tasks.describe(page).await {
                    Ok(states) => page.iter().zip(states).for_each(|(arn, status)| self.tell(arn, status)),
                    Err(error) => failed = Some(error),
                }
            }
            match failed {
                Some(error) => {
                    // Said once: everything is watched again as soon as ECS answers.
                    if trouble == 0 && error.is_configuration() {
                        error!(%error, "running tasks can't be watched");
                    } else if trouble == 0 {
                        warn!(%error, "running tasks can't be watched for the moment");
                    }
                    trouble = trouble.saturating_add(1);
                }
                None if trouble > 0 => {
                    info!("running tasks are watched again");
                    trouble = 0;
                }
                None => {}
            }
            sleep(ROUND.saturating_mul(1 << trouble.min(4)).min(PATIENCE)).await;
        }
    }

    /// The tasks that somebody still waits for.
    fn arns(&self) -> Vec<Arc<str>> {
        let mut watched = self.watched();
        watched.retain(|_, watched| !watched.end.is_closed());
        watched.keys().cloned().collect()
    }

    fn tell(&self, arn: &str, status: TaskStatus) {
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
                if since.elapsed() < UNSEEN {
                    return;
                }
                TaskEnd::Vanished
            }
        };
        if let Some(watched) = watched.remove(arn) {
            // Nobody to tell means that the job was given up, at shutdown.
            let _ = watched.end.send(end);
        }
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
