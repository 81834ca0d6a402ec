//! One consumer continues the work of another that shut down or crashed.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use vidstreamx_job::State;

use crate::{
    drain, ends, event,
    fake_aws::{FakeAws, TaskScript},
    start,
};

#[tokio::test(start_paused = true)]
async fn a_shutdown_leaves_tasks_running_and_returns_their_messages_within_seconds() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 600));
    for n in 0..15 {
        aws.send(event(&[&format!("{n}.mp4")]));
    }
    let (first, shutdown) = start(&aws);
    sleep(Duration::from_mins(1)).await;
    shutdown.cancel();
    timeout(Duration::from_secs(5), first).await.expect("takes too long").unwrap();
    assert_eq!((aws.tasks_running(), aws.visible(), aws.queued()), (10, 15, 15));

    drain(&aws).await;
    assert_eq!((aws.launches().len(), aws.dead().len(), aws.queued()), (15, 0, 0));
    assert_eq!(aws.most_at_once().1, 1);
}

/// The log lines of this test's thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt().json().flatten_event(true).with_span_list(false);
        let lines = lines.with_writer(move || writer.clone()).finish();
        (log, tracing::subscriber::set_default(lines))
    }

    fn lines(&self, message: &str) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["message"] == message).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_taken_over_is_logged_once_with_its_job() {
    let (log, _guard) = Log::start();
    let aws = FakeAws::new(|_, nth| TaskScript::exit(if nth == 1 { 75 } else { 0 }, 600));
    aws.send(event(&["a.mp4"]));
    let (first, shutdown) = start(&aws);
    sleep(Duration::from_mins(1)).await;
    shutdown.cancel();
    first.await.unwrap();
    assert!(log.lines("task taken over").is_empty());

    drain(&aws).await;
    let arn = aws.record("a.mp4").attempts[0].task_arn.clone().unwrap();
    let [line] = &log.lines("task taken over")[..] else { panic!("{:?}", log.lines("task taken over")) };
    assert_eq!((&line["level"], &line["ecs.task_arn"]), (&json!("INFO"), &json!(arn)));
    assert_eq!((&line["span"]["s3.bucket"], &line["span"]["s3.key"]), (&json!("uploads"), &json!("a.mp4")));
    assert_eq!(line["span"]["job.id"], aws.record("a.mp4").job_id.as_str());
    // The second consumer started the second attempt itself.
    assert_eq!((ends(&aws, "a.mp4"), log.lines("task started").len()), ((State::Done, 2), 2));
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_is_open_at_shutdown_loses_no_message() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 600));
    for n in 0..3 {
        aws.send(event(&[&format!("{n}.mp4")]));
    }
    let (consumer, shutdown) = start(&aws);
    // In the middle of a poll.
    sleep(Duration::from_secs(50)).await;
    shutdown.cancel();
    timeout(Duration::from_secs(5), consumer).await.expect("takes too long").unwrap();
    sleep(Duration::from_secs(22)).await;
    assert_eq!((aws.visible(), aws.most_receives(), aws.queued()), (3, 1, 3));
}

/// Crashes a consumer between and within all its calls for a video. The next consumer must find or start
/// exactly one task, with tokens and without.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_moment_starts_no_second_task() {
    // The first calls take 50 ms each: steps of 10 ms. Larger steps until the video is done.
    let milliseconds = (0..50).map(|n| 10 * n + 5).chain((5..50).map(|n| 100 * n + 20));
    for (crash, with_tokens) in milliseconds.flat_map(|crash| [(crash, true), (crash, false)]) {
        let moment = format!("crash after {crash} ms, with tokens: {with_tokens}");
        let aws = FakeAws::new(|_, _| TaskScript::exit(0, 3));
        if !with_tokens {
            aws.forget_tokens();
        }
        aws.send(event(&["a.mp4"]));
        let (crashed, _) = start(&aws);
        sleep(Duration::from_millis(crash)).await;
        crashed.abort();
        assert!(crashed.await.is_err());
        drain(&aws).await;
        assert_eq!((aws.launches().len(), aws.queued(), aws.dead().len()), (1, 0, 0), "{moment}");
        assert_eq!(ends(&aws, "a.mp4"), (State::Done, 1), "{moment}");
    }
}
