//! One consumer continues the work of another that shut down or crashed.

use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, timeout};
use vidstreamx_job::State;

use crate::{
    Consumer, crash_after, drain, ends, event,
    fake_aws::{FakeAws, TaskScript},
    log::Log,
    send_numbered,
};

#[tokio::test(start_paused = true)]
async fn a_shutdown_leaves_tasks_running_and_returns_their_messages_within_seconds() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 600));
    send_numbered(&aws, 15);
    let first = Consumer::start(&aws);
    sleep(Duration::from_mins(1)).await;
    timeout(Duration::from_secs(5), first.shut_down()).await.expect("takes too long");
    assert_eq!((aws.tasks_running(), aws.visible(), aws.queued()), (10, 15, 15));

    drain(&aws).await;
    assert_eq!((aws.launches().len(), aws.dead().len(), aws.queued()), (15, 0, 0));
    assert_eq!(aws.most_at_once().1, 1);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_taken_over_is_logged_once_with_its_job() {
    let (log, _guard) = Log::start();
    let aws = FakeAws::new(|_, nth| TaskScript::exit(if nth == 1 { 75 } else { 0 }, 600));
    aws.send(event(&["a.mp4"]));
    let first = Consumer::start(&aws);
    sleep(Duration::from_mins(1)).await;
    first.shut_down().await;
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
    send_numbered(&aws, 3);
    let consumer = Consumer::start(&aws);
    // This moment is in the middle of a poll.
    sleep(Duration::from_secs(50)).await;
    timeout(Duration::from_secs(5), consumer.shut_down()).await.expect("takes too long");
    sleep(Duration::from_secs(22)).await;
    assert_eq!((aws.visible(), aws.most_receives(), aws.queued()), (3, 1, 3));
}

/// Crashes a consumer between and within all its calls for a video. The next consumer must find or start
/// exactly one task, with tokens and without.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_moment_starts_no_second_task() {
    // The first calls take 50 ms each, so the first crashes are 10 ms apart. Later crashes are 100 ms apart,
    // until the video is done.
    let milliseconds = (0..50).map(|n| 10 * n + 5).chain((5..50).map(|n| 100 * n + 20));
    for (crash, with_tokens) in milliseconds.flat_map(|crash| [(crash, true), (crash, false)]) {
        let moment = format!("crash after {crash} ms, with tokens: {with_tokens}");
        let aws = FakeAws::new(|_, _| TaskScript::exit(0, 3));
        if !with_tokens {
            aws.forget_tokens();
        }
        aws.send(event(&["a.mp4"]));
        crash_after(&aws, Duration::from_millis(crash)).await;
        drain(&aws).await;
        assert_eq!((aws.launches().len(), aws.queued(), aws.dead().len()), (1, 0, 0), "{moment}");
        assert_eq!(ends(&aws, "a.mp4"), (State::Done, 1), "{moment}");
    }
}
