//! Operators pause the stack and cancel videos while consumers work.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use vidstreamx_consumer::reconcile::cancellation::Cancellation;
use vidstreamx_job::State;

use crate::{
    Consumer, MAX_TASKS, drain, ends, event,
    fake_aws::{FakeAws, Faults, FaultyClient, TaskScript, s3_record},
    send_numbered,
};

/// Time in which consumers notice a pause.
const NOTICED: Duration = Duration::from_secs(20);

#[tokio::test(start_paused = true)]
async fn while_the_stack_is_paused_nothing_is_launched_and_running_tasks_go_on() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 600));
    send_numbered(&aws, 2 * MAX_TASKS);
    let consumer = Consumer::start(&aws);
    sleep(Duration::from_mins(1)).await;
    aws.set_pause(Some("costs"));
    sleep(Duration::from_hours(30)).await;
    assert_eq!((ends(&aws, "0.mp4"), aws.launches().len()), ((State::Done, 1), MAX_TASKS));
    // The other messages wait in the queue.
    assert_eq!((aws.visible(), aws.queued()), (MAX_TASKS, MAX_TASKS));
    aws.set_pause(None);
    sleep(NOTICED + Duration::from_mins(1)).await;
    assert_eq!(aws.launches().len(), 2 * MAX_TASKS);
    consumer.shut_down().await;
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_starts_while_the_stack_is_paused_launches_nothing() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 600));
    aws.set_pause(Some(""));
    send_numbered(&aws, 3);
    let consumer = Consumer::start(&aws);
    sleep(Duration::from_hours(1)).await;
    assert_eq!((aws.launches().len(), aws.visible(), aws.receives()), (0, 3, 0));
    consumer.shut_down().await;
}

/// Launches that wait for a trial are paused, too, and are trials one after another when the stack is
/// resumed.
#[tokio::test(start_paused = true)]
async fn videos_that_ecs_refuses_are_not_launched_while_the_stack_is_paused() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 600));
    aws.refuse_for(Duration::from_hours(2));
    send_numbered(&aws, 5);
    let consumer = Consumer::start(&aws);
    sleep(Duration::from_secs(20 * 60 - 10)).await;
    aws.send(event(&["new.mp4"]));
    sleep(Duration::from_secs(10)).await;
    aws.set_pause(Some(""));
    sleep(NOTICED).await;
    let calls = aws.run_task_calls();
    sleep(Duration::from_hours(1)).await;
    assert_eq!(aws.run_task_calls(), calls);
    aws.set_pause(None);
    sleep(Duration::from_mins(5)).await;
    assert!(aws.run_task_calls() - calls <= 12, "{} calls", aws.run_task_calls() - calls);
    sleep(Duration::from_hours(1)).await;
    assert_eq!(aws.launches().len(), 6);
    consumer.shut_down().await;
}

async fn cancel(aws: &Arc<FakeAws>, key: &str) -> Option<Cancellation> {
    let operator = FaultyClient::new(aws.clone(), Faults::none());
    aws.cancel(&operator, key, Duration::from_mins(20)).await
}

fn message(key: &str) -> String {
    serde_json::json!({"Records": [s3_record(key, 9_000_000)]}).to_string()
}

/// The operator cancels at any time between the message and the task's end.
#[tokio::test(start_paused = true)]
async fn a_cancelled_video_has_at_most_one_task_whenever_it_is_cancelled() {
    for milliseconds in (0..500).step_by(10).chain([5_000, 60_000, 295_000]) {
        let aws = FakeAws::new(|_, _| TaskScript::exit(0, 300));
        aws.send(message("a.mp4"));
        let consumer = Consumer::start(&aws);
        sleep(Duration::from_millis(milliseconds)).await;
        let cancelled = cancel(&aws, "a.mp4").await;
        assert!(cancelled.is_some(), "{milliseconds} ms");
        sleep(Duration::from_hours(2)).await;
        let state = aws.record("a.mp4").state;
        let is_too_late = milliseconds == 295_000;
        assert_eq!(state, if is_too_late { State::Done } else { State::Cancelled }, "{milliseconds} ms");
        let tasks = aws.tasks();
        assert!(tasks.len() <= 1, "{milliseconds} ms: {} tasks", tasks.len());
        let longest = tasks.iter().map(|task| task.script.duration.as_secs()).max().unwrap_or(0);
        assert!(is_too_late || longest < 100, "{milliseconds} ms: a task of {longest} s");
        assert_eq!((aws.queued(), aws.dead().len()), (0, 0), "{milliseconds} ms");
        consumer.shut_down().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_video_that_waits_for_its_next_attempt_is_cancelled_at_once() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(78, 20));
    aws.send(message("a.mp4"));
    let consumer = Consumer::start(&aws);
    sleep(Duration::from_hours(3)).await;
    let tasks = aws.launches().len();
    assert_eq!(cancel(&aws, "a.mp4").await, Some(Cancellation::Cancelled));
    sleep(Duration::from_hours(20)).await;
    assert_eq!((aws.record("a.mp4").state, aws.launches().len()), (State::Cancelled, tasks));
    assert_eq!((aws.queued(), aws.dead().len()), (0, 0));
    consumer.shut_down().await;
}

#[tokio::test(start_paused = true)]
async fn a_video_that_ecs_refuses_is_cancelled() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 20));
    aws.limit_cpu_of("a.mp4", 0);
    aws.send(message("a.mp4"));
    let consumer = Consumer::start(&aws);
    sleep(Duration::from_mins(30)).await;
    assert_eq!(cancel(&aws, "a.mp4").await, Some(Cancellation::Cancelled));
    aws.lift_cpu_limits();
    sleep(Duration::from_hours(1)).await;
    assert_eq!((aws.record("a.mp4").state, aws.launches().len(), aws.queued()), (State::Cancelled, 0, 0));
    consumer.shut_down().await;
}

/// Without a consumer, the request waits in the record, and the task is stopped.
#[tokio::test(start_paused = true)]
async fn a_video_without_a_consumer_is_cancelled_when_one_comes() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 3600));
    aws.send(message("a.mp4"));
    crate::crash_after(&aws, Duration::from_mins(1)).await;
    assert_eq!(cancel(&aws, "a.mp4").await, None);
    assert_eq!(aws.tasks_running(), 0);
    drain(&aws).await;
    assert_eq!((aws.record("a.mp4").state, aws.launches().len()), (State::Cancelled, 1));
    let reason = aws.record("a.mp4").reason.unwrap();
    assert_eq!(reason, "cancelled by an operator");
}

/// Nobody follows a job whose message is gone, so the operator ends it when ECS has forgotten its task.
#[tokio::test(start_paused = true)]
async fn a_job_whose_message_is_gone_is_cancelled_by_the_second_request() {
    for with_task in [true, false] {
        let aws = FakeAws::new(|_, _| TaskScript::exit(0, 60));
        if !with_task {
            aws.refuse_for(Duration::from_hours(1));
        }
        aws.send(message("a.mp4"));
        crate::crash_after(&aws, Duration::from_secs(5)).await;
        aws.purge();
        sleep(Duration::from_hours(if with_task { 2 } else { 0 })).await;
        let first = cancel(&aws, "a.mp4").await;
        sleep(Duration::from_hours(2)).await;
        let second = cancel(&aws, "a.mp4").await;
        assert!(first.or(second) == Some(Cancellation::Cancelled), "{with_task}");
        assert_eq!(aws.record("a.mp4").state, State::Cancelled);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_video_stays_cancelled_until_it_is_forced() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 60));
    assert_eq!(cancel(&aws, "a.mp4").await, Some(Cancellation::Cancelled));
    aws.send(message("a.mp4"));
    drain(&aws).await;
    assert_eq!((aws.record("a.mp4").state, aws.launches().len()), (State::Cancelled, 0));
    aws.send_with_restart(message("a.mp4"), Some("force-1".into()));
    drain(&aws).await;
    assert_eq!(ends(&aws, "a.mp4"), (State::Done, 1));
    assert_eq!(cancel(&aws, "a.mp4").await, Some(Cancellation::HadEnded(State::Done)));
    // Another video is not affected.
    aws.send(event(&["b.mp4"]));
    drain(&aws).await;
    assert_eq!(ends(&aws, "b.mp4"), (State::Done, 1));
}
