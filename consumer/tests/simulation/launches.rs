//! Launches while ECS accepts them and while it refuses them.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    Consumer, MAX_TASKS, drain, event,
    fake_aws::{FakeAws, TaskScript},
    options, send_numbered,
};

#[tokio::test(start_paused = true)]
async fn refusals_by_ecs_cost_time_but_neither_videos_nor_receives() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 60));
    send_numbered(&aws, 200);
    aws.refuse_for(Duration::from_hours(2));
    let mut many = options(false);
    many.jobs.max_tasks = 1000;
    let consumer = Consumer::start_with(&aws, many);
    sleep(Duration::from_hours(2) - Duration::from_secs(1)).await;
    // The messages received before the first refusals are held, and one more every two minutes at most. All
    // others stay in the queue.
    let (receives, visible) = (aws.receives(), aws.visible());
    assert!(receives <= 5 + 65 && visible >= 90, "{receives} receives, {visible} visible");
    assert_eq!((aws.launches().len(), aws.most_receives()), (0, 1));
    // Two hours of retries about once a minute.
    assert!((100..400).contains(&aws.run_task_calls()), "{}", aws.run_task_calls());
    sleep(Duration::from_mins(10)).await;
    assert_eq!((aws.launches().len(), aws.queued(), aws.dead().len()), (200, 0, 0));
    consumer.shut_down().await;
}

/// The size of this video's task may exceed a quota, although the sizes of other tasks do not.
#[tokio::test(start_paused = true)]
async fn a_video_that_ecs_always_refuses_does_not_block_others() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 60));
    aws.limit_cpu_of("huge.mp4", 0);
    aws.send(event(&["huge.mp4"]));
    let consumer = Consumer::start(&aws);
    sleep(Duration::from_mins(10)).await;
    send_numbered(&aws, 30);
    sleep(Duration::from_hours(1)).await;
    assert_eq!((aws.queued(), aws.launches().len(), aws.most_receives()), (1, 30, 1));
    consumer.shut_down().await;
}

#[tokio::test(start_paused = true)]
async fn receiving_stops_while_no_task_starts_and_nothing_is_lost() {
    let aws = FakeAws::new(|_, nth| match nth {
        1..=5 => TaskScript::stopped(None, "TaskFailedToStart", 20),
        _ => TaskScript::exit(0, 30),
    });
    send_numbered(&aws, 40);
    let consumer = Consumer::start(&aws);
    sleep(Duration::from_mins(2)).await;
    // The first ten messages were received. After three tasks had failed, one came at a time, as a trial.
    assert!((MAX_TASKS..MAX_TASKS + 12).contains(&aws.records()), "{}", aws.records());
    consumer.shut_down().await;
    drain(&aws).await;
    assert_eq!((aws.dead().len(), aws.queued(), aws.records()), (0, 0, 40));
}

#[tokio::test(start_paused = true)]
async fn launches_keep_to_the_rate() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 600));
    send_numbered(&aws, 100);
    let mut many = options(false);
    many.jobs.max_tasks = 1000;
    let consumer = Consumer::start_with(&aws, many);
    sleep(Duration::from_secs(3)).await;
    assert!((50..=61).contains(&aws.run_task_calls()), "{} in 3 s", aws.run_task_calls());
    consumer.shut_down().await;
}
