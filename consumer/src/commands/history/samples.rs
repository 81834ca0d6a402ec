//! Sample videos for the tests of lists and pages.

use jiff::{Timestamp, ToSpan as _};
use vidstreamx_job::{Attempt, Capacity, Progress, Record, Restart, Size, Source, Stage, State};

use super::read::Video;
use crate::fixtures::{job_of, source};

pub(super) const NOW: &str = "2026-05-04T12:00:00Z";

fn at(minutes: i64) -> Timestamp {
    NOW.parse::<Timestamp>().unwrap() - minutes.minutes()
}

pub(super) fn record(key: &str, state: State, created: i64, updated: i64) -> Record {
    let etag = Some("0cc175b9c0f1b6a831c399e269772661".into());
    let source = Source { etag, size: Some(12_345_678), ..source(key) };
    let mut record = Record::new(&job_of(source), at(created));
    record.state = state;
    record.updated_at = at(updated);
    record
}

fn attempt(number: u32, started: i64, ended: Option<i64>) -> Attempt {
    Attempt {
        capacity: Some(Capacity::Spot),
        size: Some(Size { cpu: 2048, memory_mib: 4096, storage_gib: 21 }),
        size_reason: Some("1080p, h264, 10 min".into()),
        task_arn: Some(format!("arn:aws:ecs:eu-central-1:1:task/videos/{number}")),
        ended_at: ended.map(at),
        ..Attempt::new(number, at(started))
    }
}

fn ended(number: u32, started: i64, end: i64, code: i32, reason: &str) -> Attempt {
    Attempt {
        exit_code: Some(code),
        stop_code: Some("EssentialContainerExited".into()),
        reason: Some(reason.into()),
        billed_seconds: Some(61.4),
        cost_usd: Some(0.0125),
        counts: code != 0,
        ..attempt(number, started, Some(end))
    }
}

/// Videos that are done, rejected, failed and running; the running ones without an attempt, in an attempt and
/// after one.
pub(super) fn videos() -> Vec<Video> {
    let mut done = record("films/summer holidays 2026.mp4", State::Done, 70, 60);
    done.source.version_id = Some("v1".into());
    done.attempts = vec![ended(1, 69, 60, 0, "done")];
    let mut rejected = record("rubbish\u{1b}[2J.mp4", State::Rejected, 30, 30);
    rejected.reason = Some("it is a picture, not a video".into());
    let mut failed = record("a/very/long/key/with/many/parts/in/it/film.mp4", State::Failed, 200, 100);
    failed.reason =
        Some("all 3 attempts failed, the last one with exit code 1: FFmpeg said\nsomething".into());
    failed.attempts = vec![
        ended(1, 199, 190, 137, "OutOfMemoryError: container killed"),
        ended(2, 180, 170, 1, "a bug"),
        ended(3, 120, 100, 1, "a bug"),
    ];
    failed.restarts = vec![Restart { at: at(130), after_attempt: 2, request: "failed-after-2".into() }];
    let mut running = record("b.mp4", State::Running, 10, 9);
    running.attempts = vec![attempt(1, 9, None)];
    let progress = Progress {
        schema: Progress::SCHEMA,
        job_id: running.job_id.clone(),
        started_at: at(9),
        updated_at: at(0),
        stage: Stage::Encoding,
        share: 0.434,
        speed: Some(2.14),
        expected_end: Some(at(-12)),
        done_seconds: 434.0,
        duration_seconds: 1000.0,
        rungs: Vec::new(),
    };
    let mut retried = record("c.mp4", State::Running, 20, 5);
    retried.attempts = vec![ended(1, 19, 5, 75, "S3 did not answer")];
    for attempt in &mut retried.attempts {
        attempt.cost_usd = None;
    }
    let first = record("d.mp4", State::Running, 1, 1);
    let mut videos: Vec<_> =
        [done, rejected, failed, retried, first].map(|record| Video { record, progress: None }).into();
    videos.push(Video { record: running, progress: Some(progress) });
    videos
}
