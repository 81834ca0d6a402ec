//! The consumer's whole loop against an AWS in memory, under paused time.
//!
//! [`messages`] and [`attempts`] are the usual course of a video; [`restarts`], [`launches`] and [`takeover`]
//! what can come between.

// Clippy's allowance for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod attempts;
#[path = "../fake_aws/mod.rs"]
mod fake_aws;
mod launches;
mod messages;
mod restarts;
mod takeover;

use std::{sync::Arc, time::Duration};

use fake_aws::{FakeAws, s3_record};
use serde_json::json;
use tokio::{task::JoinHandle, time::timeout};
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

/// Runs a consumer until the queue is empty. A day is more than any test needs.
async fn drain(aws: &Arc<FakeAws>) {
    drain_within(aws, Duration::from_hours(24)).await;
}

async fn drain_within(aws: &Arc<FakeAws>, limit: Duration) {
    let run = intake::run(aws.services(), options(true), CancellationToken::new());
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

fn start(aws: &Arc<FakeAws>) -> (JoinHandle<()>, CancellationToken) {
    let shutdown = CancellationToken::new();
    (tokio::spawn(intake::run(aws.services(), options(false), shutdown.clone())), shutdown)
}

fn ends(aws: &FakeAws, key: &str) -> (State, usize) {
    let record = aws.record(key);
    (record.state, record.attempts.len())
}
