//! Videos that start over after they have ended.

use std::time::Duration;

use vidstreamx_consumer::intake::dead_letter::ATTEMPTS;
use vidstreamx_job::{Capacity, State};

use crate::{
    DAY, crash_after, drain, drain_within, ends, event,
    fake_aws::{FakeAws, TaskScript},
    options,
};

#[tokio::test(start_paused = true)]
async fn a_deleted_object_that_is_uploaded_again_is_transcoded() {
    let aws = FakeAws::new(|_, nth| TaskScript::exit(if nth == 1 { 66 } else { 0 }, 10));
    aws.delete_object("early.mp4");
    aws.send(event(&["early.mp4", "late.mp4"]));
    drain(&aws).await;
    assert_eq!(ends(&aws, "early.mp4"), (State::Obsolete, 0));
    assert_eq!(ends(&aws, "late.mp4"), (State::Obsolete, 1));

    // A second notification while the object is deleted changes nothing.
    aws.send(event(&["early.mp4", "late.mp4"]));
    drain(&aws).await;
    assert_eq!((aws.launches().len(), aws.queued()), (1, 0));
    assert_eq!(ends(&aws, "late.mp4"), (State::Obsolete, 1));

    // The object is back, and the first calls to S3 fail.
    aws.upload_object("late.mp4");
    aws.fail_reads(3);
    aws.send(event(&["late.mp4"]));
    drain(&aws).await;
    assert_eq!((aws.launches().len(), aws.queued(), aws.dead().len()), (2, 0, 0));
    let record = aws.record("late.mp4");
    assert_eq!((record.state, record.reason, record.attempts.len()), (State::Done, None, 2));
    assert_eq!(record.attempts[1].number, 2);
}

/// The restart happens once, even if the message is delivered again. Attempts before the restart do not
/// count.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_is_moved_back_restarts_its_video_once() {
    let aws = FakeAws::new(|_, nth| TaskScript::exit(if nth <= 4 { 75 } else { 0 }, 10));
    aws.send(event(&["a.mp4"]));
    drain(&aws).await;
    let [letter] = &aws.letters()[..] else { panic!("{:?}", aws.letters()) };
    assert_eq!(letter.attribute(ATTEMPTS), Some("3"));

    aws.redrive();
    aws.send_with_restart(letter.body.clone(), Some("failed-after-3".into()));
    drain(&aws).await;
    assert_eq!((ends(&aws, "a.mp4"), aws.dead().len(), aws.queued()), ((State::Done, 5), 0, 0));

    aws.send_with_restart(letter.body.clone(), Some("failed-after-3".into()));
    drain(&aws).await;
    assert_eq!((ends(&aws, "a.mp4"), aws.launches().len()), ((State::Done, 5), 5));
}

#[tokio::test(start_paused = true)]
async fn a_forced_restart_of_a_finished_video_is_fulfilled_once() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 10));
    aws.send(event(&["a.mp4"]));
    drain(&aws).await;
    for expected in [2, 2] {
        aws.send_with_restart(event(&["a.mp4"]), Some("force-1".into()));
        drain(&aws).await;
        assert_eq!((ends(&aws, "a.mp4"), aws.launches().len()), ((State::Done, expected), expected));
    }
    aws.send_with_restart(event(&["a.mp4"]), Some("force-2".into()));
    drain(&aws).await;
    assert_eq!(ends(&aws, "a.mp4"), (State::Done, 3));
}

#[tokio::test(start_paused = true)]
async fn a_forced_restart_of_a_new_video_is_fulfilled_by_its_first_attempt() {
    let aws = FakeAws::new(|_, _| TaskScript::exit(0, 60));
    for _ in 0..2 {
        aws.send_with_restart(event(&["a.mp4"]), Some("force-1".into()));
        drain(&aws).await;
        assert_eq!((ends(&aws, "a.mp4"), aws.launches().len()), ((State::Done, 1), 1));
    }
}

/// Another way to start over: a person deletes the record and sends the event again.
#[tokio::test(start_paused = true)]
async fn a_failed_video_starts_over_after_its_record_is_deleted() {
    for changed_settings in [false, true] {
        let aws = FakeAws::new(|_, nth| TaskScript::exit(if nth <= 3 { 75 } else { 0 }, 10));
        aws.send(event(&["a.mp4"]));
        drain(&aws).await;
        assert_eq!((ends(&aws, "a.mp4"), aws.launches().len()), ((State::Failed, 3), 3));

        aws.delete_record("a.mp4");
        aws.send(event(&["a.mp4"]));
        let mut options = options(true);
        if changed_settings {
            // The same token with another request is a conflict.
            options.jobs.policy.capacity = Capacity::OnDemand;
        }
        drain_within(&aws, options, DAY).await;
        assert_eq!((ends(&aws, "a.mp4"), aws.launches().len()), ((State::Done, 1), 4));
        assert_eq!((aws.queued(), aws.dead().len()), (0, 1));
    }
}

/// The next consumer finds the task of the new first attempt in ECS, and not those of the deleted record.
#[tokio::test(start_paused = true)]
async fn a_crash_after_starting_over_does_not_find_old_tasks() {
    for crash in (0..60).map(|n| 10 * n + 5) {
        let aws = FakeAws::new(|_, nth| TaskScript::exit(if nth <= 3 { 75 } else { 0 }, 10));
        aws.send(event(&["a.mp4"]));
        drain(&aws).await;
        aws.delete_record("a.mp4");
        aws.send(event(&["a.mp4"]));
        crash_after(&aws, Duration::from_millis(crash)).await;
        drain(&aws).await;
        assert_eq!((ends(&aws, "a.mp4"), aws.launches().len()), ((State::Done, 1), 4), "{crash} ms");
    }
}
