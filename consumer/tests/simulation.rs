//! The consumer's whole loop against a cloud in memory, under paused time.

// Clippy's allowance for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cloud;

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use cloud::{Cloud, TaskScript, s3_record};
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use vidstreamx_consumer::intake::{
    self, Options,
    dead_letter::{ATTEMPTS, DeadLetter, REASON},
    notification::{self, Notification},
};
use vidstreamx_job::{Capacity, Record, State};

const MAX_TASKS: usize = 10;

fn options(drain: bool) -> Options {
    cloud::options(MAX_TASKS, 20, drain)
}

fn event(keys: &[&str]) -> String {
    json!({"Records": keys.iter().map(|key| s3_record(key, 9)).collect::<Vec<_>>()}).to_string()
}

/// Runs a consumer until the queue is empty; a day is more than anything here may take.
async fn drain(cloud: &Arc<Cloud>) {
    drain_within(cloud, Duration::from_hours(24)).await;
}

async fn drain_within(cloud: &Arc<Cloud>, limit: Duration) {
    let run = intake::run(cloud.services(), options(true), CancellationToken::new());
    timeout(limit, run).await.expect("the queue never became empty");
}

/// The keys that dead letters are about.
fn dead_keys(cloud: &Cloud) -> Vec<String> {
    let notifications = cloud.letters().into_iter().flat_map(|letter| notification::decode(&letter.body));
    let keys = notifications.map(|notification| match notification {
        Notification::Created(source) => source.key.to_string(),
        other => panic!("{other:?}"),
    });
    keys.collect()
}

fn start(cloud: &Arc<Cloud>) -> (JoinHandle<()>, CancellationToken) {
    let shutdown = CancellationToken::new();
    (tokio::spawn(intake::run(cloud.services(), options(false), shutdown.clone())), shutdown)
}

fn ends(cloud: &Cloud, key: &str) -> (State, usize) {
    let record = cloud.record(key);
    (record.state, record.attempts.len())
}

#[tokio::test(start_paused = true)]
async fn every_upload_becomes_one_task_and_is_deleted() {
    let cloud = Cloud::new(|_, _| TaskScript::exit(0, 300));
    for n in 0..25 {
        cloud.send(event(&[&format!("{n}.mp4")]));
    }
    let begun = Instant::now();
    drain(&cloud).await;
    assert_eq!((cloud.launches().len(), cloud.dead().len(), cloud.queued()), (25, 0, 0));
    for n in 0..25 {
        let record = cloud.record(&format!("{n}.mp4"));
        assert_eq!((record.state, record.attempts.len()), (State::Done, 1));
        assert_eq!(record.attempts[0].exit_code, Some(0));
    }
    // Three rounds of ten at once, each seen to end within seconds.
    assert_eq!(cloud.most_at_once(), (MAX_TASKS, 1));
    assert!(begun.elapsed() < Duration::from_secs(3 * 300 + 30), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_message_of_many_videos_keeps_to_the_limit_too() {
    let cloud = Cloud::new(|_, _| TaskScript::exit(0, 60));
    let keys: Vec<_> = (0..45).map(|n| format!("{n}.mp4")).collect();
    cloud.send(event(&keys.iter().map(String::as_str).collect::<Vec<_>>()));
    drain(&cloud).await;
    assert_eq!((cloud.launches().len(), cloud.queued(), cloud.most_at_once()), (45, 0, (MAX_TASKS, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_message_stays_invisible_for_as_long_as_its_task_runs() {
    let cloud = Cloud::new(|_, _| TaskScript::exit(0, 6 * 3600));
    cloud.send(event(&["long.mp4"]));
    let (consumer, shutdown) = start(&cloud);
    for _ in 0..5 * 60 {
        sleep(Duration::from_mins(1)).await;
        assert_eq!((cloud.visible(), cloud.most_receives()), (0, 1));
    }
    shutdown.cancel();
    consumer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_same_video_is_one_task_in_one_message_in_two_and_later() {
    let cloud = Cloud::new(|_, _| TaskScript::exit(0, 60));
    cloud.send(event(&["a.mp4", "a.mp4"]));
    cloud.send(event(&["a.mp4"]));
    drain(&cloud).await;
    cloud.send(event(&["a.mp4"]));
    drain(&cloud).await;
    assert_eq!((cloud.run_task_calls(), cloud.queued()), (1, 0));
    assert_eq!(ends(&cloud, "a.mp4"), (State::Done, 1));
}

#[tokio::test(start_paused = true)]
async fn two_consumers_with_the_same_video_start_one_task() {
    let cloud = Cloud::new(|_, _| TaskScript::exit(0, 60));
    for _ in 0..20 {
        cloud.send(event(&["a.mp4"]));
    }
    tokio::join!(drain(&cloud), drain(&cloud));
    assert_eq!((cloud.launches().len(), cloud.queued()), (1, 0));
    // Not because of the token: the record alone keeps the second consumer from asking.
    assert_eq!(cloud.run_task_calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unusable_or_obsolete_video_is_recorded_and_deleted() {
    let cloud = Cloud::new(|key, _| TaskScript::exit(if key == "text.mp4" { 65 } else { 66 }, 10));
    cloud.send(event(&["text.mp4", "replaced.mp4"]));
    drain(&cloud).await;
    assert_eq!((cloud.queued(), cloud.dead().len(), cloud.launches().len()), (0, 0, 2));
    let record = cloud.record("text.mp4");
    assert_eq!((record.state, record.reason.as_deref()), (State::Rejected, Some("the task says Rejected")));
    assert_eq!(cloud.record("replaced.mp4").state, State::Obsolete);
}

#[tokio::test(start_paused = true)]
async fn no_task_is_paid_for_an_empty_or_deleted_object() {
    let cloud = Cloud::new(|_, _| panic!("no task is to be started"));
    cloud.delete_object("gone.mp4");
    let empty = s3_record("empty.mp4", 0);
    cloud.send(json!({"Records": [s3_record("gone.mp4", 9), empty]}).to_string());
    drain(&cloud).await;
    assert_eq!((cloud.queued(), cloud.dead().len(), cloud.run_task_calls()), (0, 0, 0));
    assert_eq!(ends(&cloud, "gone.mp4"), (State::Obsolete, 0));
    assert_eq!(ends(&cloud, "empty.mp4"), (State::Rejected, 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_and_is_uploaded_again_is_transcoded() {
    let cloud = Cloud::new(|_, nth| TaskScript::exit(if nth == 1 { 66 } else { 0 }, 10));
    cloud.delete_object("early.mp4");
    cloud.send(event(&["early.mp4", "late.mp4"]));
    drain(&cloud).await;
    assert_eq!(ends(&cloud, "early.mp4"), (State::Obsolete, 0));
    assert_eq!(ends(&cloud, "late.mp4"), (State::Obsolete, 1));

    // Told of again while it is gone: as before.
    cloud.send(event(&["early.mp4", "late.mp4"]));
    drain(&cloud).await;
    assert_eq!((cloud.launches().len(), cloud.queued()), (1, 0));
    assert_eq!(ends(&cloud, "late.mp4"), (State::Obsolete, 1));

    // There again, though S3 does not answer at once.
    cloud.upload_object("late.mp4");
    cloud.fail_looks(3);
    cloud.send(event(&["late.mp4"]));
    drain(&cloud).await;
    assert_eq!((cloud.launches().len(), cloud.queued(), cloud.dead().len()), (2, 0, 0));
    let record = cloud.record("late.mp4");
    assert_eq!((record.state, record.reason, record.attempts.len()), (State::Done, None, 2));
    assert_eq!(record.attempts[1].number, 2);
}

#[tokio::test(start_paused = true)]
async fn a_failing_video_is_tried_three_times_and_then_dead_lettered_without_another_task() {
    let cloud = Cloud::new(|_, _| TaskScript::exit(75, 10));
    cloud.send(event(&["a.mp4"]));
    drain(&cloud).await;
    assert_eq!((cloud.launches().len(), cloud.queued(), cloud.given_up().len()), (3, 0, 0));
    let record = cloud.record("a.mp4");
    assert_eq!(cloud.letters(), [DeadLetter::about(&record).message()]);
    assert_eq!(record.state, State::Failed);
    assert_eq!(record.reason.as_deref(), Some("all 3 attempts failed, the last one: the task says Failed"));
    assert!(record.attempts.iter().all(|attempt| attempt.counts && attempt.exit_code == Some(75)));
}

#[tokio::test(start_paused = true)]
async fn a_video_whose_launch_is_refused_for_itself_fails_and_blocks_nobody() {
    let cloud = Cloud::new(|_, _| TaskScript::exit(0, 10));
    cloud.refuse_key("odd.mp4");
    cloud.send(event(&["odd.mp4"]));
    let (consumer, shutdown) = start(&cloud);
    sleep(Duration::from_secs(5)).await;
    cloud.send(event(&["a.mp4"]));
    sleep(Duration::from_secs(20)).await;
    assert_eq!(ends(&cloud, "a.mp4"), (State::Done, 1));
    shutdown.cancel();
    consumer.await.unwrap();

    drain(&cloud).await;
    let record = cloud.record("odd.mp4");
    assert_eq!((record.state, record.attempts.len(), cloud.run_task_calls()), (State::Failed, 3, 4));
    let reason = record.reason.unwrap();
    assert!(reason.starts_with("all 3 attempts failed, the last one: ECS refuses"), "{reason}");
    assert!(reason.ends_with("Some tags contain invalid characters."), "{reason}");
    assert_eq!(dead_keys(&cloud), ["odd.mp4"]);
}

/// Once, however often the message comes; the video's earlier failure is not counted.
#[tokio::test(start_paused = true)]
async fn a_failed_video_that_is_moved_back_is_tried_anew_once() {
    let cloud = Cloud::new(|_, nth| TaskScript::exit(if nth <= 4 { 75 } else { 0 }, 10));
    cloud.send(event(&["a.mp4"]));
    drain(&cloud).await;
    let [letter] = &cloud.letters()[..] else { panic!("{:?}", cloud.letters()) };
    assert_eq!(letter.attribute(ATTEMPTS), Some("3"));

    cloud.redrive();
    cloud.send_with_restart(letter.body.clone(), Some("failed-after-3".into()));
    drain(&cloud).await;
    assert_eq!((ends(&cloud, "a.mp4"), cloud.dead().len(), cloud.queued()), ((State::Done, 5), 0, 0));

    cloud.send_with_restart(letter.body.clone(), Some("failed-after-3".into()));
    drain(&cloud).await;
    assert_eq!((ends(&cloud, "a.mp4"), cloud.launches().len()), ((State::Done, 5), 5));
}

#[tokio::test(start_paused = true)]
async fn a_forced_start_makes_a_finished_video_anew_once() {
    let cloud = Cloud::new(|_, _| TaskScript::exit(0, 10));
    cloud.send(event(&["a.mp4"]));
    drain(&cloud).await;
    for expected in [2, 2] {
        cloud.send_with_restart(event(&["a.mp4"]), Some("force-1".into()));
        drain(&cloud).await;
        assert_eq!((ends(&cloud, "a.mp4"), cloud.launches().len()), ((State::Done, expected), expected));
    }
    cloud.send_with_restart(event(&["a.mp4"]), Some("force-2".into()));
    drain(&cloud).await;
    assert_eq!(ends(&cloud, "a.mp4"), (State::Done, 3));
}

#[tokio::test(start_paused = true)]
async fn a_video_that_was_tried_with_too_little_memory_gets_more() {
    let cloud = Cloud::that_looks_at_launches(|_, _, launch| {
        let memory = launch.size.unwrap().memory_mib;
        TaskScript::exit(if memory < 16 * 1024 { 137 } else { 0 }, 10)
    });
    cloud.send(event(&["a.mp4"]));
    drain(&cloud).await;
    let record = cloud.record("a.mp4");
    let memories: Vec<_> = record.attempts.iter().map(|attempt| attempt.size.unwrap().memory_mib).collect();
    assert_eq!((record.state, memories), (State::Done, vec![8192, 16_384]));
    assert_eq!(record.attempts[1].size_reason.as_deref(), Some("out of memory with 8 GiB"));
    assert!(record.attempts.iter().all(|attempt| attempt.cost_usd.is_some_and(|cost| cost > 0.0)));
}

#[tokio::test(start_paused = true)]
async fn no_task_is_paid_for_what_is_evidently_no_video() {
    let cloud = Cloud::new(|_, _| panic!("no task is to be started"));
    cloud.is_no_video("text.mp4");
    cloud.send(event(&["text.mp4"]));
    drain(&cloud).await;
    let record = cloud.record("text.mp4");
    assert_eq!((record.state, record.attempts.len(), cloud.queued()), (State::Rejected, 0, 0));
    assert_eq!(record.reason.as_deref(), Some("the file is text, not a video"));
}

/// SQS lets a delivery be held for twelve hours; then the message comes again, to the same consumer.
#[tokio::test(start_paused = true)]
async fn a_task_of_thirty_hours_is_one_task_and_its_message_is_deleted() {
    let cloud = Cloud::new(|_, _| TaskScript::exit(0, 30 * 3600));
    cloud.send(event(&["long.mp4"]));
    drain_within(&cloud, Duration::from_hours(31)).await;
    assert_eq!((ends(&cloud, "long.mp4"), cloud.launches().len()), ((State::Done, 1), 1));
    assert_eq!((cloud.queued(), cloud.dead().len()), (0, 0));
}

/// The other way to a new start: delete the record, send the event again.
#[tokio::test(start_paused = true)]
async fn a_failed_video_whose_record_is_deleted_really_starts_anew() {
    for changed_settings in [false, true] {
        let cloud = Cloud::new(|_, nth| TaskScript::exit(if nth <= 3 { 75 } else { 0 }, 10));
        cloud.send(event(&["a.mp4"]));
        drain(&cloud).await;
        assert_eq!((ends(&cloud, "a.mp4"), cloud.launches().len()), ((State::Failed, 3), 3));

        cloud.delete_record("a.mp4");
        cloud.send(event(&["a.mp4"]));
        let mut options = options(true);
        if changed_settings {
            // The same token with another request is a conflict.
            options.jobs.policy.capacity = Capacity::OnDemand;
        }
        let run = intake::run(cloud.services(), options, CancellationToken::new());
        timeout(Duration::from_hours(24), run).await.expect("the queue never became empty");
        assert_eq!((ends(&cloud, "a.mp4"), cloud.launches().len()), ((State::Done, 1), 4));
        assert_eq!((cloud.queued(), cloud.dead().len()), (0, 1));
    }
}

/// As above, and the first try of the new life is found in ECS, not the old ones.
#[tokio::test(start_paused = true)]
async fn a_crash_after_a_new_start_does_not_bring_old_tasks_back() {
    for crash in (0..60).map(|n| 10 * n + 5) {
        let cloud = Cloud::new(|_, nth| TaskScript::exit(if nth <= 3 { 75 } else { 0 }, 10));
        cloud.send(event(&["a.mp4"]));
        drain(&cloud).await;
        cloud.delete_record("a.mp4");
        cloud.send(event(&["a.mp4"]));
        let (crashed, _) = start(&cloud);
        sleep(Duration::from_millis(crash)).await;
        crashed.abort();
        assert!(crashed.await.is_err());
        drain(&cloud).await;
        assert_eq!((ends(&cloud, "a.mp4"), cloud.launches().len()), ((State::Done, 1), 4), "{crash} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_message_with_one_failing_video_only_that_one_is_set_aside() {
    let cloud = Cloud::new(|key, _| TaskScript::exit(if key == "bad.mp4" { 1 } else { 0 }, 10));
    cloud.send(event(&["good.mp4", "bad.mp4"]));
    cloud.send(event(&["other.mp4"]));
    drain(&cloud).await;
    assert_eq!((dead_keys(&cloud), cloud.queued()), (vec!["bad.mp4".to_owned()], 0));
    assert_eq!(ends(&cloud, "good.mp4"), (State::Done, 1));
    assert_eq!(ends(&cloud, "bad.mp4"), (State::Failed, 3));
    assert_eq!(ends(&cloud, "other.mp4"), (State::Done, 1));
}

#[tokio::test(start_paused = true)]
async fn rubbish_and_foreign_buckets_are_dead_lettered_at_once_and_the_rest_is_done() {
    let cloud = Cloud::new(|_, _| TaskScript::exit(0, 10));
    let foreign = event(&["a.mp4"]).replace("uploads", "somebody-elses");
    cloud.send("rubbish".into());
    cloud.send(foreign);
    cloud.send(json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "uploads"}).to_string());
    cloud.send(event(&["a.mp4"]).replace("ObjectCreated:Put", "ObjectRemoved:Delete"));
    cloud.send(event(&["good.mp4"]));
    let begun = Instant::now();
    drain(&cloud).await;
    let letters = cloud.letters();
    let [rubbish, elsewhere] = &letters[..] else { panic!("{letters:?}") };
    let expected = DeadLetter { body: "rubbish".into(), reason: "the message is not JSON".into(), job: None };
    assert_eq!(*rubbish, expected.message());
    assert!(elsewhere.attribute(REASON).unwrap().contains("VIDSTREAMX_UPLOAD_BUCKET"));
    assert!(elsewhere.body.contains("somebody-elses"));
    assert_eq!((cloud.queued(), cloud.launches().len(), cloud.records()), (0, 1, 1));
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_refusing_ecs_costs_time_but_neither_videos_nor_receives() {
    let cloud = Cloud::new(|_, _| TaskScript::exit(0, 60));
    for n in 0..200 {
        cloud.send(event(&[&format!("{n}.mp4")]));
    }
    cloud.refuse_for(Duration::from_hours(2));
    let shutdown = CancellationToken::new();
    let mut many = options(false);
    many.jobs.max_tasks = 1000;
    let consumer = tokio::spawn(intake::run(cloud.services(), many, shutdown.clone()));
    sleep(Duration::from_hours(2) - Duration::from_secs(1)).await;
    // Those that were received before the first refusal are held, and one more every five minutes; all
    // others are left where they are.
    assert!(cloud.receives() <= 5 + 25 && cloud.visible() >= 125, "{} receives", cloud.receives());
    assert_eq!((cloud.launches().len(), cloud.most_receives()), (0, 1));
    // Two hours of trying about once a minute.
    assert!((100..400).contains(&cloud.run_task_calls()), "{}", cloud.run_task_calls());
    sleep(Duration::from_mins(10)).await;
    assert_eq!((cloud.launches().len(), cloud.queued(), cloud.dead().len()), (200, 0, 0));
    shutdown.cancel();
    consumer.await.unwrap();
}

/// Its size may be beyond a quota that others keep to.
#[tokio::test(start_paused = true)]
async fn a_video_that_ecs_has_never_room_for_does_not_keep_others_from_being_done() {
    let cloud = Cloud::new(|_, _| TaskScript::exit(0, 60));
    cloud.never_has_room_for("huge.mp4");
    cloud.send(event(&["huge.mp4"]));
    let (consumer, shutdown) = start(&cloud);
    sleep(Duration::from_mins(10)).await;
    for n in 0..30 {
        cloud.send(event(&[&format!("{n}.mp4")]));
    }
    sleep(Duration::from_hours(1)).await;
    assert_eq!((cloud.queued(), cloud.launches().len(), cloud.most_receives()), (1, 30, 1));
    shutdown.cancel();
    consumer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_slowest_video_of_a_message_does_not_keep_others_waiting() {
    let cloud = Cloud::new(|key, _| TaskScript::exit(0, if key == "0.mp4" { 8 * 3600 } else { 60 }));
    let keys: Vec<_> = (0..MAX_TASKS).map(|n| format!("{n}.mp4")).collect();
    cloud.send(event(&keys.iter().map(String::as_str).collect::<Vec<_>>()));
    let (consumer, shutdown) = start(&cloud);
    sleep(Duration::from_mins(2)).await;
    cloud.send(event(&["another.mp4"]));
    sleep(Duration::from_mins(3)).await;
    assert_eq!(ends(&cloud, "another.mp4"), (State::Done, 1));
    shutdown.cancel();
    consumer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_forced_start_of_what_was_never_made_is_a_first_one() {
    let cloud = Cloud::new(|_, _| TaskScript::exit(0, 60));
    for _ in 0..2 {
        cloud.send_with_restart(event(&["a.mp4"]), Some("force-1".into()));
        drain(&cloud).await;
        assert_eq!((ends(&cloud, "a.mp4"), cloud.launches().len()), ((State::Done, 1), 1));
    }
}

/// A remake that nobody saw end must not be taken for done by what the first one left.
#[tokio::test(start_paused = true)]
async fn an_earlier_lifes_report_says_nothing_about_a_forgotten_task() {
    let cloud = Cloud::new(|_, nth| match nth {
        2 => TaskScript::stopped(Some(143), "SpotInterruption", 60),
        _ => TaskScript::exit(0, 60),
    });
    cloud.send(event(&["a.mp4"]));
    drain(&cloud).await;
    cloud.send_with_restart(event(&["a.mp4"]), Some("force-1".into()));
    let (crashed, _) = start(&cloud);
    sleep(Duration::from_secs(10)).await;
    crashed.abort();
    sleep(Duration::from_hours(5)).await;
    drain(&cloud).await;
    assert_eq!((ends(&cloud, "a.mp4"), cloud.launches().len()), ((State::Done, 3), 3));
}

#[tokio::test(start_paused = true)]
async fn interruptions_are_retried_at_once_and_go_on_on_demand() {
    let cloud = Cloud::new(|_, nth| match nth {
        1..=4 => TaskScript::stopped(Some(143), "SpotInterruption", 30),
        _ => TaskScript::exit(0, 30),
    });
    cloud.send(event(&["a.mp4"]));
    let begun = Instant::now();
    drain(&cloud).await;
    assert_eq!(ends(&cloud, "a.mp4"), (State::Done, 5));
    use Capacity::{OnDemand, Spot};
    let capacities: Vec<_> = cloud.launches().iter().map(|launch| launch.capacity).collect();
    assert_eq!(capacities, [Spot, Spot, OnDemand, OnDemand, OnDemand]);
    assert!(begun.elapsed() < Duration::from_secs(5 * 30 + 30), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn when_no_task_starts_receiving_stops_and_nothing_is_lost() {
    let cloud = Cloud::new(|_, nth| match nth {
        1..=5 => TaskScript::stopped(None, "TaskFailedToStart", 20),
        _ => TaskScript::exit(0, 30),
    });
    for n in 0..40 {
        cloud.send(event(&[&format!("{n}.mp4")]));
    }
    let (consumer, shutdown) = start(&cloud);
    sleep(Duration::from_mins(2)).await;
    // The first ten, and nothing after three of them had failed.
    assert_eq!(cloud.records(), MAX_TASKS);
    shutdown.cancel();
    consumer.await.unwrap();
    drain(&cloud).await;
    assert_eq!((cloud.dead().len(), cloud.queued(), cloud.records()), (0, 0, 40));
}

#[tokio::test(start_paused = true)]
async fn shutdown_leaves_tasks_alone_and_hands_their_messages_over_within_seconds() {
    let cloud = Cloud::new(|_, _| TaskScript::exit(0, 600));
    for n in 0..15 {
        cloud.send(event(&[&format!("{n}.mp4")]));
    }
    let (first, shutdown) = start(&cloud);
    sleep(Duration::from_mins(1)).await;
    shutdown.cancel();
    timeout(Duration::from_secs(5), first).await.expect("takes too long").unwrap();
    assert_eq!((cloud.tasks_running(), cloud.visible(), cloud.queued()), (10, 15, 15));

    drain(&cloud).await;
    assert_eq!((cloud.launches().len(), cloud.dead().len(), cloud.queued()), (15, 0, 0));
    assert_eq!(cloud.most_at_once().1, 1);
}

/// The log's lines, of this test's thread alone.
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
async fn a_task_that_is_adopted_is_told_of_once_by_the_consumer_that_did_not_start_it() {
    let (log, _guard) = Log::start();
    let cloud = Cloud::new(|_, nth| TaskScript::exit(if nth == 1 { 75 } else { 0 }, 600));
    cloud.send(event(&["a.mp4"]));
    let (first, shutdown) = start(&cloud);
    sleep(Duration::from_mins(1)).await;
    shutdown.cancel();
    first.await.unwrap();
    assert!(log.lines("task taken over").is_empty());

    drain(&cloud).await;
    let arn = cloud.record("a.mp4").attempts[0].task_arn.clone().unwrap();
    let [line] = &log.lines("task taken over")[..] else { panic!("{:?}", log.lines("task taken over")) };
    assert_eq!((&line["level"], &line["ecs.task_arn"]), (&json!("INFO"), &json!(arn)));
    assert_eq!((&line["span"]["s3.bucket"], &line["span"]["s3.key"]), (&json!("uploads"), &json!("a.mp4")));
    assert_eq!(line["span"]["job.id"], cloud.record("a.mp4").job_id.as_str());
    // The second attempt is this consumer's own.
    assert_eq!((ends(&cloud, "a.mp4"), log.lines("task started").len()), ((State::Done, 2), 2));
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_is_open_at_shutdown_swallows_nothing() {
    let cloud = Cloud::new(|_, _| TaskScript::exit(0, 600));
    for n in 0..3 {
        cloud.send(event(&[&format!("{n}.mp4")]));
    }
    let (consumer, shutdown) = start(&cloud);
    // In the middle of a poll.
    sleep(Duration::from_secs(50)).await;
    shutdown.cancel();
    timeout(Duration::from_secs(5), consumer).await.expect("takes too long").unwrap();
    sleep(Duration::from_secs(22)).await;
    assert_eq!((cloud.visible(), cloud.most_receives(), cloud.queued()), (3, 1, 3));
}

/// Crashes a consumer between and within all its calls for a video; the next one must find or start
/// exactly one task, whatever the first one had come to: by its token, or without.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_moment_costs_no_second_task() {
    // The first calls, 50 ms each, in steps of 10 ms; the rest of the video's life in larger ones.
    let milliseconds = (0..50).map(|n| 10 * n + 5).chain((5..50).map(|n| 100 * n + 20));
    for (crash, with_tokens) in milliseconds.flat_map(|crash| [(crash, true), (crash, false)]) {
        let moment = format!("crash after {crash} ms, with tokens: {with_tokens}");
        let cloud = Cloud::new(|_, _| TaskScript::exit(0, 3));
        if !with_tokens {
            cloud.forget_tokens();
        }
        cloud.send(event(&["a.mp4"]));
        let (crashed, _) = start(&cloud);
        sleep(Duration::from_millis(crash)).await;
        crashed.abort();
        assert!(crashed.await.is_err());
        drain(&cloud).await;
        assert_eq!((cloud.launches().len(), cloud.queued(), cloud.dead().len()), (1, 0, 0), "{moment}");
        assert_eq!(ends(&cloud, "a.mp4"), (State::Done, 1), "{moment}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ended_long_ago_is_judged_by_its_report() {
    let cloud = Cloud::new(|_, nth| if nth == 1 { TaskScript::exit(0, 60) } else { panic!("done already") });
    cloud.send(event(&["a.mp4"]));
    let (crashed, _) = start(&cloud);
    sleep(Duration::from_secs(10)).await;
    crashed.abort();
    sleep(Duration::from_hours(5)).await;
    drain(&cloud).await;
    assert_eq!((ends(&cloud, "a.mp4"), cloud.queued()), ((State::Done, 1), 0));
}

#[tokio::test(start_paused = true)]
async fn exit_code_0_without_a_report_is_not_done() {
    let cloud = Cloud::new(|_, nth| TaskScript {
        report: (nth == 2).then_some(vidstreamx_job::Outcome::Complete),
        ..TaskScript::exit(0, 10)
    });
    cloud.send(event(&["a.mp4"]));
    drain(&cloud).await;
    assert_eq!(ends(&cloud, "a.mp4"), (State::Done, 2));
}

#[tokio::test(start_paused = true)]
async fn a_record_of_another_version_is_left_to_its_own_consumer() {
    let cloud = Cloud::new(|_, _| TaskScript::exit(0, 10));
    cloud.send(event(&["a.mp4"]));
    drain(&cloud).await;
    cloud.put_record(Record { schema: Record::SCHEMA + 1, ..cloud.record("a.mp4") });
    cloud.send(event(&["a.mp4"]));
    let (consumer, shutdown) = start(&cloud);
    sleep(Duration::from_mins(10)).await;
    assert_eq!((cloud.queued(), cloud.launches().len()), (1, 1));
    assert!(cloud.most_receives() <= 3, "{}", cloud.most_receives());
    shutdown.cancel();
    consumer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn launches_keep_to_the_rate() {
    let cloud = Cloud::new(|_, _| TaskScript::exit(0, 600));
    for n in 0..100 {
        cloud.send(event(&[&format!("{n}.mp4")]));
    }
    let shutdown = CancellationToken::new();
    let mut many = options(false);
    many.jobs.max_tasks = 1000;
    let consumer = tokio::spawn(intake::run(cloud.services(), many, shutdown.clone()));
    sleep(Duration::from_secs(3)).await;
    assert!((50..=61).contains(&cloud.run_task_calls()), "{} in 3 s", cloud.run_task_calls());
    shutdown.cancel();
    consumer.await.unwrap();
}
