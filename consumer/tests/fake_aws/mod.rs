//! SQS, ECS and S3 in memory, with the semantics that AWS documents. Time is tokio's, which the tests pause.
//!
//! [`queue`] has visibility, the limit of twelve hours for a delivery, receive counts and redrive. [`tasks`]
//! has client tokens, the limit of the launch rate, `failures`, and tasks that end by their [`TaskScript`]
//! and are forgotten later. [`objects`] has conditional writes, reports and uploads. Every consumer works
//! through a [`FaultyClient`], whose calls can fail.

// Not every test binary uses all items of this module.
#![allow(dead_code, unused_imports)]

mod faulty_client;
mod objects;
mod queue;
mod tasks;

use std::{
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use faulty_client::FakeQueue;
pub(crate) use faulty_client::{Faults, FaultyClient};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
pub(crate) use tasks::{Task, TaskScript};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use vidstreamx_consumer::{
    aws::{run_task::Launch, sqs::QueueKind, sqs_send::OutgoingMessage, task_definition::TaskDefaults},
    intake::{
        DecisionSettings, Options,
        notification::{self, Notification},
    },
    metrics::Metrics,
    reconcile::{
        JobOptions, Policy,
        cancellation::{self, Cancellation},
    },
    services::Services,
    sizing::Sizing,
};
use vidstreamx_job::{Capacity, Job, Size};

/// Attempts before a job fails.
pub(crate) const MAX_ATTEMPTS: u32 = 3;

/// The script of the n-th task (from 1) of a source key.
type ScriptFn = Box<dyn Fn(&str, usize, &Launch) -> TaskScript + Send + Sync>;

/// The AWS services that consumers use.
pub(crate) struct FakeAws {
    state: Mutex<State>,
    /// Notified when a message is sent or its visibility timeout changes.
    changed: Notify,
    script: ScriptFn,
    start: Instant,
    this: Weak<Self>,
}

#[derive(Default)]
struct State {
    /// The two queues, by kind.
    queues: [queue::State; 2],
    /// All messages in the dead-letter queue.
    letters: Vec<OutgoingMessage>,
    tasks: tasks::State,
    objects: objects::State,
    /// All calls of all services fail until this time.
    fail_until: Option<Instant>,
}

impl FakeAws {
    /// Scripts tasks by the source key and the number of the key's task, from 1.
    pub(crate) fn new(script: impl Fn(&str, usize) -> TaskScript + Send + Sync + 'static) -> Arc<Self> {
        Self::with_launches(move |key, nth, _| script(key, nth))
    }

    /// Scripts tasks by their launch as well.
    pub(crate) fn with_launches(
        script: impl Fn(&str, usize, &Launch) -> TaskScript + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            state: Mutex::default(),
            changed: Notify::new(),
            script: Box::new(script),
            start: Instant::now(),
            this: this.clone(),
        })
    }

    /// The services of a consumer whose calls all work.
    pub(crate) fn services(self: &Arc<Self>) -> Services {
        self.services_through(&Arc::new(FaultyClient::new(self.clone(), Faults::none())))
    }

    pub(crate) fn services_through(self: &Arc<Self>, client: &Arc<FaultyClient>) -> Services {
        self.services_with_clock(client, SignedDuration::ZERO)
    }

    /// The services of a consumer whose clock is ahead of the true time.
    pub(crate) fn services_with_clock(
        self: &Arc<Self>,
        client: &Arc<FaultyClient>,
        ahead: SignedDuration,
    ) -> Services {
        let start = self.start;
        Services {
            upload_queue: Arc::new(FakeQueue { client: client.clone(), kind: QueueKind::Uploads }),
            back_fill_queue: Arc::new(FakeQueue { client: client.clone(), kind: QueueKind::BackFill }),
            tasks: client.clone(),
            records: client.clone(),
            uploads: client.clone(),
            clock: Arc::new(move || epoch() + start.elapsed() + ahead),
            metrics: Arc::new(Metrics::new("videos")),
        }
    }

    /// Cancels the job of an upload as the command does, until it has ended or this time has passed.
    pub(crate) async fn cancel(
        self: &Arc<Self>,
        client: &FaultyClient,
        key: &str,
        patience: Duration,
    ) -> Option<Cancellation> {
        let Some(Notification::Created(source)) =
            notification::decode(&json!({"Records": [s3_record(key, 9_000_000)]}).to_string()).pop()
        else {
            panic!("{key}");
        };
        let job = Job::new(source, "streams".parse().unwrap(), "default".into());
        let now = || epoch() + self.start.elapsed();
        let until_ended = async {
            loop {
                match cancellation::cancel(client, client, &job.id, now()).await {
                    Ok(ended @ (Cancellation::Cancelled | Cancellation::HadEnded(_))) => return ended,
                    Ok(Cancellation::Unknown) => {
                        if matches!(cancellation::cancel_unseen(client, &job, now()).await, Ok(true)) {
                            return Cancellation::Cancelled;
                        }
                    }
                    Ok(Cancellation::Requested { .. }) | Err(_) => {}
                }
                sleep(Duration::from_secs(2)).await;
            }
        };
        timeout(patience, until_ended).await.ok()
    }

    /// Fails all calls of all services for this time.
    pub(crate) fn fail_all_for(&self, duration: Duration) {
        self.state().fail_until = Some(Instant::now() + duration);
    }

    fn is_failing(&self) -> bool {
        self.state().fail_until.is_some_and(|until| Instant::now() < until)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// The consumer's options, as the template has them.
pub(crate) fn options(max_tasks: usize, launches_per_second: u32, drain: bool) -> Options {
    Options {
        decisions: DecisionSettings {
            upload: "uploads".parse().unwrap(),
            output: "streams".parse().unwrap(),
            profile: "default".into(),
        },
        jobs: JobOptions {
            policy: Policy { max_attempts: MAX_ATTEMPTS, capacity: Capacity::Spot },
            container: "transcoder".into(),
            max_tasks,
            launches_per_second,
            sizing: Sizing::default(),
            defaults: TaskDefaults {
                size: Size { cpu: 4096, memory_mib: 8192, storage_gib: 21 },
                arm: false,
            },
        },
        drain,
    }
}

/// A record of S3's event about a new object.
pub(crate) fn s3_record(key: &str, bytes: u64) -> Value {
    s3_record_of(key, bytes, &format!("e-{key}"))
}

/// A record of S3's event about a new object with this content.
pub(crate) fn s3_record_of(key: &str, bytes: u64, etag: &str) -> Value {
    json!({
        "eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
        "s3": {
            "bucket": {"name": "uploads"},
            "object": {"key": key, "size": bytes, "eTag": etag},
        },
    })
}

fn epoch() -> Timestamp {
    "2026-05-04T09:00:00Z".parse().unwrap()
}
