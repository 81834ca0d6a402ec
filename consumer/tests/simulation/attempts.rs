//! Attempts of a video whose tasks end in different ways.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use vidstreamx_consumer::{aws::sqs::QueueKind, intake::dead_letter::DeadLetter};
use vidstreamx_job::{Capacity, State};

use crate::{
    Consumer, crash_after, dead_keys, drain, ends, event,
    fake_aws::{FakeAws, TaskScript},
};

#[tokio::test(start_paused = true)]
async fn a_failing_video_has_three_attempts_and_then_becomes_a_dead_letter() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(75, 10));
    aws.send(event(&["a.mp4"]));
    drain(&aws).await;
    assert_eq!((aws.launches().len(), aws.queued(), aws.moved_by_sqs().len()), (3, 0, 0));
    let record = aws.record("a.mp4");
    assert_eq!(aws.letters(), [DeadLetter::about(&record).message(QueueKind::Uploads)]);
    assert_eq!(record.state, State::Failed);
    assert_eq!(record.reason.as_deref(), Some("all 3 attempts failed, the last one: the task says Failed"));
    assert!(record.attempts.iter().all(|attempt| attempt.counts && attempt.exit_code == Some(75)));
}

#[tokio::test(start_paused = true)]
async fn a_video_whose_launch_is_invalid_fails_and_blocks_no_other() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 10));
    aws.refuse_key("odd.mp4");
    aws.send(event(&["odd.mp4"]));
    let consumer = Consumer::start(&aws);
    sleep(Duration::from_secs(5)).await;
    aws.send(event(&["a.mp4"]));
    sleep(Duration::from_secs(20)).await;
    assert_eq!(ends(&aws, "a.mp4"), (State::Done, 1));
    consumer.shut_down().await;

    drain(&aws).await;
    let record = aws.record("odd.mp4");
    assert_eq!((record.state, record.attempts.len(), aws.run_task_calls()), (State::Failed, 3, 4));
    let reason = record.reason.unwrap();
    assert!(reason.starts_with("all 3 attempts failed, the last one: ECS refuses"), "{reason}");
    assert!(reason.ends_with("Some tags contain invalid characters."), "{reason}");
    assert_eq!(dead_keys(&aws), ["odd.mp4"]);
}

#[tokio::test(start_paused = true)]
async fn a_task_out_of_memory_is_followed_by_a_larger_one() {
    let aws = FakeAws::with_launches(|_, _, launch| {
        let memory = launch.size.unwrap().memory_mib;
        TaskScript::exit(if memory < 16 * 1024 { 137 } else { 0 }, 10)
    });
    aws.send(event(&["a.mp4"]));
    drain(&aws).await;
    let record = aws.record("a.mp4");
    let memories: Vec<_> = record.attempts.iter().map(|attempt| attempt.size.unwrap().memory_mib).collect();
    assert_eq!((record.state, memories), (State::Done, vec![8192, 16_384]));
    assert_eq!(record.attempts[1].size_reason.as_deref(), Some("out of memory with 8 GiB"));
    assert!(record.attempts.iter().all(|attempt| attempt.cost_usd.is_some_and(|cost| cost > 0.0)));
}

#[tokio::test(start_paused = true)]
async fn interruptions_are_retried_at_once_and_then_on_demand() {
    let aws = FakeAws::new(|_, nth| match nth {
        1..=4 => TaskScript::stopped(Some(143), "SpotInterruption", 30),
        _ => TaskScript::exit(0, 30),
    });
    aws.send(event(&["a.mp4"]));
    let started = Instant::now();
    drain(&aws).await;
    assert_eq!(ends(&aws, "a.mp4"), (State::Done, 5));
    use Capacity::{OnDemand, Spot};
    let capacities: Vec<_> = aws.launches().iter().map(|launch| launch.capacity).collect();
    assert_eq!(capacities, [Spot, Spot, OnDemand, OnDemand, OnDemand]);
    assert!(started.elapsed() < Duration::from_secs(5 * 30 + 30), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn exit_code_0_without_a_report_is_not_done() {
    let aws = FakeAws::new(|_, nth| TaskScript {
        report: (nth == 2).then_some(vidstreamx_job::Outcome::Complete),
        ..TaskScript::exit(0, 10)
    });
    aws.send(event(&["a.mp4"]));
    drain(&aws).await;
    assert_eq!(ends(&aws, "a.mp4"), (State::Done, 2));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ecs_has_forgotten_is_classified_by_its_report() {
    let aws =
        FakeAws::new(
            |_, nth| if nth == 1 { TaskScript::exit(0, 60) } else { panic!("the first task was enough") },
        );
    aws.send(event(&["a.mp4"]));
    crash_after(&aws, Duration::from_secs(10)).await;
    sleep(Duration::from_hours(5)).await;
    drain(&aws).await;
    assert_eq!((ends(&aws, "a.mp4"), aws.queued()), ((State::Done, 1), 0));
}

/// The second task was interrupted, and no consumer saw it end. The first task's report must not count as the
/// second task's.
#[tokio::test(start_paused = true)]
async fn a_report_from_before_a_restart_does_not_decide_about_a_forgotten_task() {
    let aws = FakeAws::new(|_, nth| match nth {
        2 => TaskScript::stopped(Some(143), "SpotInterruption", 60),
        _ => TaskScript::exit(0, 60),
    });
    aws.send(event(&["a.mp4"]));
    drain(&aws).await;
    aws.send_with_restart(event(&["a.mp4"]), Some("force-1".into()));
    crash_after(&aws, Duration::from_secs(10)).await;
    sleep(Duration::from_hours(5)).await;
    drain(&aws).await;
    assert_eq!((ends(&aws, "a.mp4"), aws.launches().len()), ((State::Done, 3), 3));
}
