//! A video with a fault of its own does not hold up others, and costs a bounded number of tasks.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;
use serde_json::json;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use vidstreamx_consumer::{
    aws::{sqs::QueueKind, sqs_send::OutgoingMessage},
    intake,
};
use vidstreamx_job::State;

use crate::{
    Consumer, MAX_TASKS, crash_after, dead_keys, drain, drain_within, ends, event,
    fake_aws::{FakeAws, Faults, FaultyClient, Task, TaskScript, s3_record_of},
    options, send_numbered,
};

const WEEK: Duration = Duration::from_hours(7 * 24);

/// Keys of videos that have a fault.
fn bad_keys(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("bad-{n}.mp4")).collect()
}

fn is_bad(key: &str) -> bool {
    key.starts_with("bad-")
}

fn tasks_of(aws: &FakeAws, key: &str) -> usize {
    aws.tasks().iter().filter(|task| task.job.source.key.as_str() == key).count()
}

/// Starts a consumer for the bad videos in the queue. A good upload after half an hour must be made soon.
async fn make_a_good_upload_behind_the_bad_ones(aws: &Arc<FakeAws>) -> Consumer {
    let consumer = Consumer::start(aws);
    sleep(Duration::from_mins(30)).await;
    aws.send(event(&["good.mp4"]));
    sleep(Duration::from_mins(6)).await;
    assert_eq!(ends(aws, "good.mp4"), (State::Done, 1));
    consumer
}

/// Every task of the bad videos ends with 78, because the task may not read them.
#[tokio::test(start_paused = true)]
async fn a_good_upload_is_made_behind_as_many_that_end_with_78_as_tasks_may_run() {
    let aws = FakeAws::new(|key, _| TaskScript::exit(if is_bad(key) { 78 } else { 0 }, 20));
    bad_keys(MAX_TASKS).iter().for_each(|key| aws.send(event(&[key])));
    let consumer = make_a_good_upload_behind_the_bad_ones(&aws).await;
    sleep(WEEK).await;
    for key in bad_keys(MAX_TASKS) {
        assert_eq!(aws.record(&key).state, State::Failed, "{key}");
        assert!(tasks_of(&aws, &key) <= 12, "{} tasks for {key}", tasks_of(&aws, &key));
    }
    assert_eq!((dead_keys(&aws).len(), aws.queued()), (MAX_TASKS, 0));
    assert!(aws.letters().iter().all(|letter| format!("{letter:?}").contains("the task says Failed")));
    consumer.shut_down().await;
}

#[tokio::test(start_paused = true)]
async fn videos_that_end_with_78_take_no_place_from_others_while_they_wait() {
    let duration_with = async |bad: usize| {
        let aws = FakeAws::new(|key, _| TaskScript::exit(if is_bad(key) { 78 } else { 0 }, 60));
        let keys = bad_keys(bad);
        for n in 0..400 {
            aws.send(event(&[&format!("{n}.mp4")]));
            if let Some(key) = keys.get(n / 10).filter(|_| n % 10 == 0) {
                aws.send(event(&[key]));
            }
        }
        let begun = Instant::now();
        let consumer = Consumer::start(&aws);
        while aws.launches().len() < 400 || (0..400).any(|n| tasks_of(&aws, &format!("{n}.mp4")) == 0) {
            sleep(Duration::from_secs(20)).await;
        }
        consumer.shut_down().await;
        begun.elapsed().as_secs_f64()
    };
    let (without, with) = (duration_with(0).await, duration_with(9).await);
    // Each bad video has three tasks of a minute. All tasks take a minute, so they begin in rounds.
    let own_tasks = 9.0 * 3.0 * 60.0 / MAX_TASKS as f64;
    assert!(with <= without + own_tasks + 120.0, "{with} s with bad videos, {without} s without");
}

#[tokio::test(start_paused = true)]
async fn videos_whose_size_a_quota_never_allows_do_not_hold_up_others() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 60));
    for key in bad_keys(MAX_TASKS) {
        aws.limit_cpu_of(&key, 0);
        aws.send(event(&[&key]));
    }
    let consumer = Consumer::start(&aws);
    sleep(Duration::from_mins(30)).await;
    send_numbered(&aws, 100);
    sleep(Duration::from_mins(25)).await;
    assert_eq!((aws.launches().len(), aws.most_receives()), (100, 1));
    sleep(WEEK).await;
    assert_eq!((dead_keys(&aws).len(), aws.queued()), (MAX_TASKS, 0));
    let reason = aws.record("bad-0.mp4").reason.unwrap();
    assert!(reason.contains("limit on the number of vCPUs"), "{reason}");
    consumer.shut_down().await;
}

#[tokio::test(start_paused = true)]
async fn a_video_whose_size_exceeds_a_quota_gets_a_smaller_task() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 60));
    aws.limit_cpu_of("huge.mp4", 4096);
    aws.send(event(&["huge.mp4"]));
    let consumer = Consumer::start(&aws);
    // Only launches of others that ECS accepts show that the size is the cause.
    for n in 0..60 {
        aws.send(event(&[&format!("{n}.mp4")]));
        sleep(Duration::from_mins(5)).await;
    }
    let record = aws.record("huge.mp4");
    let last = record.attempts.last().unwrap();
    let size = last.size.unwrap();
    assert_eq!((record.state, size.cpu, size.memory_mib), (State::Done, 4096, 16_384));
    let reason = last.size_reason.clone().unwrap();
    assert!(reason.contains("refused a task with 8 vCPU"), "{reason}");
    consumer.shut_down().await;
}

#[tokio::test(start_paused = true)]
async fn running_tasks_that_ecs_does_not_show_for_minutes_are_not_started_again() {
    for hidden in [90, 600] {
        let aws = FakeAws::new(|_, _| TaskScript::exit(0, 1800));
        send_numbered(&aws, MAX_TASKS);
        let consumer = Consumer::start(&aws);
        sleep(Duration::from_mins(2)).await;
        aws.hide_tasks_for(Duration::from_secs(hidden));
        sleep(Duration::from_mins(2)).await;
        // The next consumer has never seen the tasks.
        consumer.shut_down().await;
        drain(&aws).await;
        assert_eq!((aws.launches().len(), aws.most_at_once().1), (MAX_TASKS, 1), "{hidden} s");
    }
}

/// ECS may return the first answer for a token again, even after capacity is available.
#[tokio::test(start_paused = true)]
async fn a_refusal_that_ecs_repeats_for_its_token_does_not_delay_the_launch() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 60));
    aws.repeat_refusals();
    aws.refuse_for(Duration::from_mins(10));
    send_numbered(&aws, 3);
    let consumer = Consumer::start(&aws);
    sleep(Duration::from_mins(10) + Duration::from_mins(3)).await;
    assert_eq!((aws.launches().len(), aws.queued()), (3, 0));
    consumer.shut_down().await;
}

/// The report belongs to the attempt by its launch token, and not by its time.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_wrong_does_not_start_a_second_task() {
    for ahead in [SignedDuration::from_mins(10), SignedDuration::from_hours(-24)] {
        let aws = FakeAws::new(|_, _| TaskScript::exit(0, 60));
        aws.send(event(&["a.mp4"]));
        let client = Arc::new(FaultyClient::new(aws.clone(), Faults::none()));
        let services = aws.services_with_clock(&client, ahead);
        let consumer = tokio::spawn(intake::run(services, options(false), CancellationToken::new()));
        sleep(Duration::from_secs(10)).await;
        consumer.abort();
        sleep(Duration::from_hours(5)).await;
        drain(&aws).await;
        assert_eq!((ends(&aws, "a.mp4"), aws.launches().len()), ((State::Done, 1), 1), "{ahead:?}");
    }
}

/// One consumer loses its connection within a launch. Another one takes the task over and ends the job. ECS
/// has forgotten the task and its token when the first one is back.
#[tokio::test(start_paused = true)]
async fn a_consumer_that_was_cut_off_within_a_launch_starts_nothing_when_it_is_back() {
    for milliseconds in (0..40).map(|n| 10 * n + 5) {
        let aws = FakeAws::new(|_, _| TaskScript::exit(0, 60));
        aws.send(event(&["a.mp4"]));
        let client = Arc::new(FaultyClient::new(aws.clone(), Faults::none()));
        let shutdown = CancellationToken::new();
        let first =
            tokio::spawn(intake::run(aws.services_through(&client), options(false), shutdown.clone()));
        sleep(Duration::from_millis(milliseconds)).await;
        client.cut_off_for(Duration::from_hours(3));
        let second = Consumer::start(&aws);
        sleep(Duration::from_hours(4)).await;
        assert_eq!(aws.launches().len(), 1, "cut off after {milliseconds} ms");
        assert_eq!((ends(&aws, "a.mp4"), aws.queued()), ((State::Done, 1), 0));
        shutdown.cancel();
        first.await.unwrap();
        second.shut_down().await;
    }
}

#[tokio::test(start_paused = true)]
async fn obsolete_uploads_that_s3_does_not_answer_about_do_not_hold_up_others() {
    let aws = FakeAws::new(|key, _| TaskScript::exit(if is_bad(key) { 66 } else { 0 }, 60));
    let keys = bad_keys(MAX_TASKS);
    keys.iter().for_each(|key| aws.send(event(&[key])));
    drain(&aws).await;
    assert_eq!(ends(&aws, "bad-0.mp4"), (State::Obsolete, 1));
    for key in &keys {
        aws.fail_reads_of(key);
        aws.send(event(&[key]));
    }
    let consumer = make_a_good_upload_behind_the_bad_ones(&aws).await;
    sleep(WEEK).await;
    assert_eq!((dead_keys(&aws).len(), aws.queued()), (MAX_TASKS, 0));
    assert!(aws.letters().iter().all(|letter| format!("{letter:?}").contains("HeadObject")));
    consumer.shut_down().await;
}

/// The launches of accepted videos say nothing about S3, and the other way round.
#[tokio::test(start_paused = true)]
async fn failing_calls_about_some_videos_do_not_slow_down_the_launches_of_accepted_ones() {
    let aws = FakeAws::new(|key, _| TaskScript::exit(if is_bad(key) { 66 } else { 0 }, 20));
    bad_keys(3).iter().for_each(|key| aws.send(event(&[key])));
    send_numbered(&aws, 150);
    let mut slow = options(false);
    (slow.jobs.max_tasks, slow.jobs.launches_per_second) = (200, 1);
    let consumer = Consumer::start_with(&aws, slow);
    sleep(Duration::from_secs(10)).await;
    bad_keys(3).iter().for_each(|key| aws.fail_reads_of(key));
    sleep(Duration::from_mins(3)).await;
    assert_eq!(aws.launches().len(), 153);
    consumer.shut_down().await;
}

/// One percent of starts fail without a fault. The tasks that run show that tasks can start.
#[tokio::test(start_paused = true)]
async fn failed_starts_among_running_tasks_delay_no_upload() {
    let aws = FakeAws::new(|key, nth| {
        let number: usize = key.trim_end_matches(".mp4").parse().unwrap();
        if nth == 1 && number % 20 == 7 {
            TaskScript::stopped(None, "TaskFailedToStart", 40)
        } else {
            TaskScript::exit(0, 5 * 3600)
        }
    });
    let mut many = options(false);
    many.jobs.max_tasks = 400;
    let consumer = Consumer::start_with(&aws, many);
    for n in 0..300 {
        aws.send(event(&[&format!("{n}.mp4")]));
        sleep(Duration::from_secs(2)).await;
    }
    sleep(Duration::from_mins(1)).await;
    let unmade = (0..300).filter(|n| tasks_of(&aws, &format!("{n}.mp4")) == 0).count();
    assert_eq!(unmade, 0, "uploads without a task");
    consumer.shut_down().await;
}

/// The upload is deleted while its task runs, and comes back with the same content before the task has ended.
/// S3's second event arrives while the record still says that the job runs.
#[tokio::test(start_paused = true)]
async fn an_upload_that_comes_back_while_its_obsolete_task_ends_is_made() {
    for seconds in [1, 20, 29, 30, 31, 32, 33, 40] {
        for consumers in [1, 2] {
            let aws = FakeAws::new(|_, nth| TaskScript::exit(if nth == 1 { 66 } else { 0 }, 30));
            aws.send(event(&["a.mp4"]));
            let running: Vec<_> = (0..consumers).map(|_| Consumer::start(&aws)).collect();
            sleep(Duration::from_secs(seconds)).await;
            aws.upload_object("a.mp4");
            aws.send(event(&["a.mp4"]));
            sleep(Duration::from_mins(5)).await;
            let moment = format!("back after {seconds} s, {consumers} consumers");
            assert_eq!(aws.record("a.mp4").state, State::Done, "{moment}");
            assert_eq!((aws.launches().len(), aws.queued()), (2, 0), "{moment}");
            for consumer in running {
                consumer.shut_down().await;
            }
        }
    }
}

/// A task that says "gone" about an object that is there must not run for ever.
#[tokio::test(start_paused = true)]
async fn a_task_that_contradicts_s3_about_its_upload_is_not_repeated_for_ever() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(66, 10));
    aws.send(event(&["a.mp4"]));
    let consumer = Consumer::start(&aws);
    for _ in 0..60 {
        sleep(Duration::from_secs(1)).await;
        aws.upload_object("a.mp4");
    }
    sleep(Duration::from_hours(10)).await;
    assert_eq!(aws.record("a.mp4").state, State::Obsolete);
    assert!((2..=5).contains(&aws.launches().len()), "{} tasks", aws.launches().len());
    consumer.shut_down().await;
}

/// Under one key: content A, then B, then A again.
#[tokio::test(start_paused = true)]
async fn content_that_is_uploaded_again_after_another_gets_the_address_back() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 30));
    let upload = |etag: &str| {
        aws.upload_content("a.mp4", etag);
        aws.send(json!({"Records": [s3_record_of("a.mp4", 9, etag)]}).to_string());
    };
    for (etag, tasks) in [("A", 1), ("B", 2), ("A", 3), ("A", 3)] {
        upload(etag);
        drain(&aws).await;
        assert_eq!(aws.launches().len(), tasks, "{etag}");
        assert_eq!(aws.shown_content("a.mp4").as_deref(), Some(etag));
    }
}

#[tokio::test(start_paused = true)]
async fn a_forced_restart_of_a_video_that_is_being_made_is_fulfilled_by_it() {
    for other_consumer in [false, true] {
        let aws = FakeAws::new(|_, _| TaskScript::exit(0, 60));
        aws.send(event(&["a.mp4"]));
        let first = Consumer::start(&aws);
        sleep(Duration::from_secs(20)).await;
        let second = other_consumer.then(|| Consumer::start(&aws));
        aws.send_with_restart(event(&["a.mp4"]), Some("force-1".into()));
        sleep(Duration::from_mins(5)).await;
        aws.send_with_restart(event(&["a.mp4"]), Some("force-1".into()));
        sleep(Duration::from_mins(5)).await;
        assert_eq!((ends(&aws, "a.mp4"), aws.launches().len()), ((State::Done, 1), 1), "{other_consumer}");
        first.shut_down().await;
        if let Some(second) = second {
            second.shut_down().await;
        }
    }
}

/// Back-fills whose tasks take five minutes.
fn send_back_fills(aws: &FakeAws, count: usize) {
    for n in 0..count {
        aws.send_to(QueueKind::BackFill, event(&[&format!("old-{n}.mp4")]), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fresh_upload_behind_a_back_fill_of_thousands_starts_at_once() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 300));
    send_back_fills(&aws, 3000);
    let consumer = Consumer::start(&aws);
    for hour in 0..5 {
        sleep(Duration::from_hours(1)).await;
        let key = format!("fresh-{hour}.mp4");
        aws.send(event(&[&key]));
        sleep(Duration::from_secs(5)).await;
        assert_eq!(tasks_of(&aws, &key), 1);
        // The other places are used.
        assert_eq!(aws.tasks_running(), MAX_TASKS);
    }
    consumer.shut_down().await;
    drain_within(&aws, options(true), WEEK).await;
    assert_eq!((aws.launches().len(), aws.most_at_once().0), (3005, MAX_TASKS));
}

#[tokio::test(start_paused = true)]
async fn back_fills_go_on_while_uploads_take_all_other_places() {
    for max_tasks in [1, MAX_TASKS, 100] {
        let aws = FakeAws::new(|_, _| TaskScript::exit(0, 300));
        send_numbered(&aws, 2000);
        send_back_fills(&aws, 400);
        let mut options = options(false);
        options.jobs.max_tasks = max_tasks;
        let consumer = Consumer::start_with(&aws, options);
        sleep(Duration::from_hours(1)).await;
        let tasks = aws.launches().len();
        let is_back_fill = |task: &&Task| task.job.source.key.as_str().starts_with("old-");
        let back_fills = aws.tasks().iter().filter(is_back_fill).count();
        let least = (tasks / 10).saturating_sub(max_tasks);
        assert!((least.max(1)..=tasks / 2 + 1).contains(&back_fills), "{back_fills} of {tasks} tasks");
        assert_eq!(aws.most_at_once().0, max_tasks);
        consumer.shut_down().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_back_fill_uses_all_places_but_a_tenth_if_nothing_is_uploaded() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 3600));
    send_back_fills(&aws, 30);
    let consumer = Consumer::start(&aws);
    sleep(Duration::from_mins(1)).await;
    assert_eq!(aws.tasks_running(), MAX_TASKS - 1);
    consumer.shut_down().await;
}

/// A back-fill that waited apart takes its place again, even above the limit.
#[tokio::test(start_paused = true)]
async fn back_fills_that_come_back_take_no_place_and_no_slot_that_is_for_uploads() {
    let aws = FakeAws::new(|key, _| TaskScript::exit(0, if key.starts_with("old-") { 4 * 3600 } else { 60 }));
    (0..40).for_each(|n| aws.limit_cpu_of(&format!("old-{n}.mp4"), 0));
    send_back_fills(&aws, 200);
    let consumer = Consumer::start(&aws);
    sleep(Duration::from_hours(2)).await;
    aws.lift_cpu_limits();
    for half_hour in 1..24 {
        sleep(Duration::from_mins(30)).await;
        let key = format!("fresh-{half_hour}.mp4");
        aws.send(event(&[&key]));
        sleep(Duration::from_secs(5)).await;
        assert_eq!(tasks_of(&aws, &key), 1, "after {half_hour} half hours");
    }
    assert_eq!(aws.most_at_once().0, MAX_TASKS);
    consumer.shut_down().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_about_a_back_fill_goes_back_to_its_queue() {
    let aws = FakeAws::new(|_, nth| TaskScript::exit(if nth > 3 { 0 } else { 75 }, 60));
    send_back_fills(&aws, 1);
    aws.send(event(&["a.mp4"]));
    drain(&aws).await;
    let queue = |letter: &OutgoingMessage| letter.attribute("vidstreamx-queue").map(str::to_owned);
    let queues: Vec<_> = aws.letters().iter().map(queue).collect();
    assert!(queues.contains(&None) && queues.contains(&Some("back-fill".to_owned())), "{queues:?}");
    aws.redrive();
    drain(&aws).await;
    assert_eq!((ends(&aws, "old-0.mp4"), ends(&aws, "a.mp4")), ((State::Done, 4), (State::Done, 4)));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_a_person_stops_cancels_the_video() {
    let aws = FakeAws::new(|_, nth| {
        if nth == 1 { TaskScript::stopped(Some(143), "UserInitiated", 60) } else { TaskScript::exit(0, 60) }
    });
    aws.send(event(&["a.mp4"]));
    drain(&aws).await;
    assert_eq!((aws.record("a.mp4").state.name(), aws.launches().len()), ("cancelled", 1));
    assert_eq!((aws.queued(), aws.dead().len()), (0, 0));
    // A second delivery of the event changes nothing; a forced restart does.
    aws.send(event(&["a.mp4"]));
    drain(&aws).await;
    assert_eq!(aws.launches().len(), 1);
    aws.send_with_restart(event(&["a.mp4"]), Some("force-1".into()));
    drain(&aws).await;
    assert_eq!(ends(&aws, "a.mp4"), (State::Done, 2));
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_messages_are_given_back_at_shutdown() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 5 * 3600));
    send_numbered(&aws, 10_000);
    let mut many = options(false);
    many.jobs.max_tasks = 10_000;
    let consumer = Consumer::start_with(&aws, many);
    sleep(Duration::from_mins(15)).await;
    assert_eq!((aws.tasks_running(), aws.visible()), (10_000, 0));
    let begun = Instant::now();
    consumer.shut_down().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(aws.visible(), 10_000);
}

/// The documented life of a token ends an hour after its task. Both consumers were away when the task ended.
#[tokio::test(start_paused = true)]
async fn a_launch_without_a_response_whose_task_is_forgotten_is_not_repeated() {
    for crash in (0..40).map(|n| 10 * n + 5) {
        let aws = FakeAws::new(|_, _| TaskScript::exit(0, 60));
        aws.send(event(&["a.mp4"]));
        crash_after(&aws, Duration::from_millis(crash)).await;
        sleep(Duration::from_hours(3)).await;
        drain_within(&aws, options(true), Duration::from_hours(2)).await;
        assert_eq!((ends(&aws, "a.mp4"), aws.launches().len()), ((State::Done, 1), 1), "{crash} ms");
    }
}
