//! The consumer's whole loop against an AWS in memory, under paused time.
//!
//! [`messages`] and [`attempts`] test the usual course of a video. [`restarts`] tests jobs that start again,
//! [`launches`] tests refused launches, [`isolation`] tests videos with faults of their own beside good
//! ones, [`steering`] tests what operators do, and [`takeover`] tests several consumers.

// Clippy's exception for tests does not include the functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod attempts;
#[path = "../fake_aws/mod.rs"]
mod fake_aws;
mod isolation;
mod launches;
mod log;
mod messages;
mod restarts;
mod steering;
mod takeover;

use std::{sync::Arc, time::Duration};

use fake_aws::{FakeAws, s3_record};
use serde_json::json;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use vidstreamx_consumer::intake::{
    self, Options,
    notification::{self, Notification},
};
use vidstreamx_job::State;

const MAX_TASKS: usize = 10;

fn options(drain: bool) -> Options {
    fake_aws::options(MAX_TASKS, 20, drain)
}

fn event(keys: &[&str]) -> String {
    json!({"Records": keys.iter().map(|key| s3_record(key, 9)).collect::<Vec<_>>()}).to_string()
}

/// Sends one message each about `0.mp4`, `1.mp4` and so on.
fn send_numbered(aws: &FakeAws, count: usize) {
    for n in 0..count {
        aws.send(event(&[&format!("{n}.mp4")]));
    }
}

/// The time limit of most tests.
const DAY: Duration = Duration::from_hours(24);

/// Runs a consumer until the queue is empty.
async fn drain(aws: &Arc<FakeAws>) {
    drain_within(aws, options(true), DAY).await;
}

async fn drain_within(aws: &Arc<FakeAws>, options: Options, limit: Duration) {
    let run = intake::run(aws.services(), options, CancellationToken::new());
    timeout(limit, run).await.expect("the queue never became empty");
}

/// The source keys of the dead letters.
fn dead_keys(aws: &FakeAws) -> Vec<String> {
    let notifications = aws.letters().into_iter().flat_map(|letter| notification::decode(&letter.body));
    let keys = notifications.map(|notification| match notification {
        Notification::Created(source) => source.key.to_string(),
        other => panic!("{other:?}"),
    });
    keys.collect()
}

/// A running consumer.
struct Consumer {
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Consumer {
    fn start(aws: &Arc<FakeAws>) -> Self {
        Self::start_with(aws, options(false))
    }

    fn start_with(aws: &Arc<FakeAws>, options: Options) -> Self {
        let shutdown = CancellationToken::new();
        Self { task: tokio::spawn(intake::run(aws.services(), options, shutdown.clone())), shutdown }
    }

    async fn shut_down(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

/// Aborts a consumer without a shutdown, this long after its start.
async fn crash_after(aws: &Arc<FakeAws>, duration: Duration) {
    let consumer = Consumer::start(aws);
    sleep(duration).await;
    consumer.task.abort();
    assert!(consumer.task.await.is_err());
}

fn ends(aws: &FakeAws, key: &str) -> (State, usize) {
    let record = aws.record(key);
    (record.state, record.attempts.len())
}
