//! Messages: the jobs that follow from them, and their settlement.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use vidstreamx_consumer::{
    aws::{error::CallFuture, sqs::QueueKind},
    inspect::{Inspection, Presence, Uploads},
    intake::{
        self,
        dead_letter::{DeadLetter, REASON},
    },
    services::Services,
};
use vidstreamx_job::{Record, Source, State};

use crate::{
    Consumer, MAX_TASKS, dead_keys, drain, drain_within, ends, event,
    fake_aws::{FakeAws, TaskScript, s3_record},
    log::Log,
    options, send_numbered,
};

#[tokio::test(start_paused = true)]
async fn every_upload_runs_one_task_and_its_message_is_deleted() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 300));
    send_numbered(&aws, 25);
    let started = Instant::now();
    drain(&aws).await;
    assert_eq!((aws.launches().len(), aws.dead().len(), aws.queued()), (25, 0, 0));
    for n in 0..25 {
        let record = aws.record(&format!("{n}.mp4"));
        assert_eq!((record.state, record.attempts.len()), (State::Done, 1));
        assert_eq!(record.attempts[0].exit_code, Some(0));
    }
    // At most ten tasks run at once, so three rounds; each end is noticed within seconds.
    assert_eq!(aws.most_at_once(), (MAX_TASKS, 1));
    assert!(started.elapsed() < Duration::from_secs(3 * 300 + 30), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_message_of_many_videos_keeps_to_the_limit_of_tasks() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 60));
    let keys: Vec<_> = (0..45).map(|n| format!("{n}.mp4")).collect();
    aws.send(event(&keys.iter().map(String::as_str).collect::<Vec<_>>()));
    drain(&aws).await;
    assert_eq!((aws.launches().len(), aws.queued(), aws.most_at_once()), (45, 0, (MAX_TASKS, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_message_stays_invisible_while_its_task_runs() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 6 * 3600));
    aws.send(event(&["long.mp4"]));
    let consumer = Consumer::start(&aws);
    for _ in 0..5 * 60 {
        sleep(Duration::from_mins(1)).await;
        assert_eq!((aws.visible(), aws.most_receives()), (0, 1));
    }
    consumer.shut_down().await;
}

#[tokio::test(start_paused = true)]
async fn duplicate_events_about_a_video_run_one_task() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 60));
    aws.send(event(&["a.mp4", "a.mp4"]));
    aws.send(event(&["a.mp4"]));
    drain(&aws).await;
    aws.send(event(&["a.mp4"]));
    drain(&aws).await;
    assert_eq!((aws.run_task_calls(), aws.queued()), (1, 0));
    assert_eq!(ends(&aws, "a.mp4"), (State::Done, 1));
}

#[tokio::test(start_paused = true)]
async fn two_consumers_with_the_same_video_start_one_task() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 60));
    for _ in 0..20 {
        aws.send(event(&["a.mp4"]));
    }
    tokio::join!(drain(&aws), drain(&aws));
    assert_eq!((aws.launches().len(), aws.queued()), (1, 0));
    // The record alone keeps the second consumer from calling RunTask, so the token is not needed.
    assert_eq!(aws.run_task_calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unusable_or_obsolete_video_is_recorded_and_its_message_deleted() {
    let aws = FakeAws::new(|key, _| TaskScript::exit(if key == "text.mp4" { 65 } else { 66 }, 10));
    aws.send(event(&["text.mp4", "replaced.mp4"]));
    drain(&aws).await;
    assert_eq!((aws.queued(), aws.dead().len(), aws.launches().len()), (0, 0, 2));
    let record = aws.record("text.mp4");
    assert_eq!((record.state, record.reason.as_deref()), (State::Rejected, Some("the task says Rejected")));
    assert_eq!(aws.record("replaced.mp4").state, State::Obsolete);
}

#[tokio::test(start_paused = true)]
async fn no_task_runs_for_an_empty_or_deleted_object() {
    let aws = FakeAws::new(|_, _| panic!("no task must start"));
    aws.delete_object("gone.mp4");
    let empty = s3_record("empty.mp4", 0);
    aws.send(json!({"Records": [s3_record("gone.mp4", 9), empty]}).to_string());
    drain(&aws).await;
    assert_eq!((aws.queued(), aws.dead().len(), aws.run_task_calls()), (0, 0, 0));
    assert_eq!(ends(&aws, "gone.mp4"), (State::Obsolete, 0));
    assert_eq!(ends(&aws, "empty.mp4"), (State::Rejected, 0));
}

#[tokio::test(start_paused = true)]
async fn no_task_runs_for_an_upload_that_is_evidently_no_video() {
    let aws = FakeAws::new(|_, _| panic!("no task must start"));
    aws.upload_text("text.mp4");
    aws.send(event(&["text.mp4"]));
    drain(&aws).await;
    let record = aws.record("text.mp4");
    assert_eq!((record.state, record.attempts.len(), aws.queued()), (State::Rejected, 0, 0));
    assert_eq!(record.reason.as_deref(), Some("the file is text, not a video"));
}

/// A delivery can be held for twelve hours. Then the message comes again, to the same consumer.
#[tokio::test(start_paused = true)]
async fn a_task_of_thirty_hours_is_one_task_and_its_message_is_deleted() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 30 * 3600));
    aws.send(event(&["long.mp4"]));
    drain_within(&aws, options(true), Duration::from_hours(31)).await;
    assert_eq!((ends(&aws, "long.mp4"), aws.launches().len()), ((State::Done, 1), 1));
    assert_eq!((aws.queued(), aws.dead().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn only_the_failing_video_of_a_message_becomes_a_dead_letter() {
    let aws = FakeAws::new(|key, _| TaskScript::exit(if key == "bad.mp4" { 1 } else { 0 }, 10));
    aws.send(event(&["good.mp4", "bad.mp4"]));
    aws.send(event(&["other.mp4"]));
    drain(&aws).await;
    assert_eq!((dead_keys(&aws), aws.queued()), (vec!["bad.mp4".to_owned()], 0));
    assert_eq!(ends(&aws, "good.mp4"), (State::Done, 1));
    assert_eq!(ends(&aws, "bad.mp4"), (State::Failed, 3));
    assert_eq!(ends(&aws, "other.mp4"), (State::Done, 1));
}

#[tokio::test(start_paused = true)]
async fn unreadable_messages_and_other_buckets_become_dead_letters_at_once() {
    let (log, _guard) = Log::start();
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 10));
    let foreign = event(&["a.mp4"]).replace("uploads", "another-bucket");
    aws.send("rubbish".into());
    aws.send(foreign);
    aws.send(json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "uploads"}).to_string());
    aws.send(event(&["a.mp4"]).replace("ObjectCreated:Put", "ObjectRemoved:Delete"));
    aws.send(event(&["good.mp4"]));
    let started = Instant::now();
    drain(&aws).await;
    let letters = aws.letters();
    let [rubbish, elsewhere] = &letters[..] else { panic!("{letters:?}") };
    let expected = DeadLetter { body: "rubbish".into(), reason: "the message is not JSON".into(), job: None };
    assert_eq!(*rubbish, expected.message(QueueKind::Uploads));
    assert!(elsewhere.attribute(REASON).unwrap().contains("VIDSTREAMX_UPLOAD_BUCKET"));
    assert!(elsewhere.body.contains("another-bucket"));
    assert_eq!((aws.queued(), aws.launches().len(), aws.records()), (0, 1, 1));
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    let rejected = log.lines("event rejected");
    let ids: Vec<_> = rejected.iter().map(|line| &line["span"]["message.id"]).collect();
    assert_eq!(ids, ["0", "1"]);
}

#[tokio::test(start_paused = true)]
async fn the_slowest_video_of_a_message_does_not_block_others() {
    let aws = FakeAws::new(|key, _| TaskScript::exit(0, if key == "0.mp4" { 8 * 3600 } else { 60 }));
    let keys: Vec<_> = (0..MAX_TASKS).map(|n| format!("{n}.mp4")).collect();
    aws.send(event(&keys.iter().map(String::as_str).collect::<Vec<_>>()));
    let consumer = Consumer::start(&aws);
    sleep(Duration::from_mins(2)).await;
    aws.send(event(&["another.mp4"]));
    sleep(Duration::from_mins(3)).await;
    assert_eq!(ends(&aws, "another.mp4"), (State::Done, 1));
    consumer.shut_down().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_of_another_version_is_left_to_its_consumer() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 10));
    aws.send(event(&["a.mp4"]));
    drain(&aws).await;
    aws.put_record(Record { schema: Record::SCHEMA + 2, ..aws.record("a.mp4") });
    aws.send(event(&["a.mp4"]));
    let consumer = Consumer::start(&aws);
    sleep(Duration::from_mins(10)).await;
    assert_eq!((aws.queued(), aws.launches().len()), (1, 1));
    assert!(aws.most_receives() <= 3, "{}", aws.most_receives());
    consumer.shut_down().await;
}

struct PanickingUploads;

impl Uploads for PanickingUploads {
    fn inspect<'a>(&'a self, _: &'a Source) -> CallFuture<'a, Inspection> {
        panic!("the test's panic")
    }

    fn presence<'a>(&'a self, _: &'a Source) -> CallFuture<'a, Presence> {
        unimplemented!()
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_logged_with_the_id_of_the_message() {
    let (log, _logging) = Log::start();
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 10));
    send_numbered(&aws, 2);
    let services = Services { uploads: Arc::new(PanickingUploads), ..aws.services() };
    let shutdown = CancellationToken::new();
    let consumer = tokio::spawn(intake::run(services, options(false), shutdown.clone()));
    sleep(Duration::from_secs(30)).await;
    shutdown.cancel();
    consumer.await.unwrap();
    let panics = log.lines("a bug: the processing of a message panicked");
    let ids: Vec<_> = panics.iter().map(|line| &line["span"]["message.id"]).collect();
    assert_eq!(ids, ["0", "1"]);
    assert_eq!(panics[0]["panic"], "the test's panic");
}
