//! Tests of the command `prune`.

use clap::Parser;
use vidstreamx_job::{Layout, Record, State};

use super::*;
use crate::{commands::removal::fake_s3::FakeS3, fixtures};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

const DAY: i64 = 86_400;
const NOW: i64 = 100 * DAY;

fn days_ago(days: i64) -> Timestamp {
    Timestamp::from_second(NOW - days * DAY).unwrap()
}

async fn pruned(s3: &FakeS3, words: &[&str]) -> (String, Result<(), PruneError>) {
    let settings = ["prune", "--upload-bucket=uploads", "--output-bucket=streams"];
    let arguments = Line::try_parse_from(settings.iter().chain(words)).unwrap().arguments;
    let mut out = Vec::new();
    let stop = CancellationToken::new();
    let result = prune(&s3.client(), &arguments, days_ago(0), &stop, &mut out).await;
    (String::from_utf8(out).unwrap(), result)
}

/// A job of one content of a key, which ended some days ago. Its stream is in the folder of `plan`.
fn put_job(s3: &FakeS3, key: &str, content: &str, state: State, days: i64) -> Record {
    let mut source = fixtures::source(key);
    source.etag = Some(content.into());
    let job = fixtures::job_of(source);
    let record = Record { state, updated_at: days_ago(days), ..Record::new(&job, days_ago(days)) };
    s3.put_record(&record);
    s3.put_stream(&record, "plan");
    s3.put("streams", &own(&record, "plan/checkpoint/00000.json"), "{}", days_ago(days));
    s3.put("streams", &Layout::progress(&record.job_id), "{}", days_ago(days));
    record
}

fn own(record: &Record, path: &str) -> String {
    Layout::new(&record.source.key, &record.job_id).own(path)
}

fn has(s3: &FakeS3, key: &str) -> bool {
    s3.keys().contains(&format!("streams/{key}"))
}

fn has_segments(s3: &FakeS3, record: &Record) -> bool {
    has(s3, &own(record, "plan/video/720p/seg-00000.m4s"))
}

#[tokio::test]
async fn leftovers_checkpoints_and_progress_of_ended_jobs_go() {
    let s3 = FakeS3::default();
    let done = put_job(&s3, "film.mp4", "new", State::Done, 10);
    s3.show(&done, "plan");
    let failed = put_job(&s3, "film.mp4", "old", State::Failed, 12);
    let nested = put_job(&s3, "film.mp4/extra.mp4", "x", State::Running, 10);
    let fresh = put_job(&s3, "fresh.mp4", "x", State::Failed, 0);
    let before = s3.keys();
    let dry = pruned(&s3, &["--dry-run"]).await;
    assert_eq!(s3.keys(), before);

    let (text, result) = pruned(&s3, &[]).await;
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(
        text,
        "streams         1 object version removed, 7 B\n\
         checkpoints     2 object versions removed, 4 B\n\
         progress        2 object versions removed, 4 B\n\
         3 videos examined; 1 left, because a job runs or its record cannot be read\n"
    );
    assert_eq!(dry.0.replace("would be removed", "removed"), text);
    assert!(has_segments(&s3, &done) && !has_segments(&s3, &failed));
    assert!(has(&s3, &own(&failed, "job.json")) && has(&s3, &Layout::record(&failed.job_id)));
    for kept in [&nested, &fresh] {
        assert!(has(&s3, &own(kept, "plan/checkpoint/00000.json")));
        assert!(has_segments(&s3, kept) && has(&s3, &Layout::progress(&kept.job_id)));
    }

    let (text, result) = pruned(&s3, &[]).await;
    assert!(result.is_ok());
    assert_eq!(text, "3 videos examined; 1 left, because a job runs or its record cannot be read\n");
}

#[tokio::test]
async fn an_orphan_goes_when_nothing_was_written_for_a_day_and_foreign_folders_stay() {
    let s3 = FakeS3::default();
    let put_orphan = |key: &str, days| {
        let record =
            Record { updated_at: days_ago(days), ..Record::new(&fixtures::job(key), days_ago(days)) };
        s3.put_stream(&record, "plan");
        record
    };
    let (old, young, shown) =
        (put_orphan("old.mp4", 2), put_orphan("young.mp4", 2), put_orphan("shown.mp4", 2));
    s3.put("streams", &own(&young, "plan/video/720p/seg-00001.m4s"), "x", days_ago(0));
    s3.show(&shown, "plan");
    let foreign = "assets/0123456789abcdef0123456789abcdef/logo.png";
    s3.put("streams", foreign, "x", days_ago(50));
    let (text, result) = pruned(&s3, &[]).await;
    assert!(result.is_ok(), "{result:?}");
    assert!(!has_segments(&s3, &old) && has_segments(&s3, &young) && has_segments(&s3, &shown));
    assert!(has(&s3, foreign), "{text}");
    assert!(
        text.ends_with("4 videos examined; 1 folder left, because no record shows whose they are\n"),
        "{text}"
    );
}

#[tokio::test]
async fn a_superseded_stream_goes_with_its_record_and_can_not_return() {
    let s3 = FakeS3::default();
    let old = put_job(&s3, "film.mp4", "old", State::Done, 40);
    let new = put_job(&s3, "film.mp4", "new", State::Done, 20);
    s3.show(&new, "plan");
    s3.put("streams", &own(&new, "replaced.m3u8"), &format!("{}/plan/x", old.job_id), days_ago(20));
    pruned(&s3, &[]).await.1.unwrap();
    assert!(has_segments(&s3, &old) && has(&s3, &own(&new, "replaced.m3u8")));

    pruned(&s3, &["--superseded-for=20"]).await.1.unwrap();
    assert!(has_segments(&s3, &old));
    let (text, result) = pruned(&s3, &["--superseded-for=19"]).await;
    assert!(result.is_ok() && text.contains("records         1 object version removed"), "{text}");
    assert!(!s3.keys().iter().any(|key| key.contains(old.job_id.as_str())));
    assert!(has_segments(&s3, &new) && has(&s3, &Layout::record(&new.job_id)));
    let deleted = s3.deleted();
    let at = |part: &str| deleted.iter().position(|key| key.ends_with(part)).unwrap();
    assert!(at("replaced.m3u8") < at("seg-00000.m4s"));
    assert_eq!(deleted.last(), Some(&Layout::record(&old.job_id)));
}

/// The failed upload's growing stream is at the stable address. If its job is restarted and the stream taken
/// back, the previous stream returns.
#[tokio::test]
async fn a_stream_that_may_return_stays() {
    let s3 = FakeS3::default();
    let old = put_job(&s3, "film.mp4", "old", State::Obsolete, 40);
    let failed = put_job(&s3, "film.mp4", "new", State::Failed, 20);
    s3.show(&failed, "plan");
    s3.put("streams", &own(&failed, "replaced.m3u8"), &format!("{}/plan/x", old.job_id), days_ago(20));
    pruned(&s3, &["--superseded-for=1"]).await.1.unwrap();
    assert!(has_segments(&s3, &old) && has_segments(&s3, &failed));
}

#[tokio::test]
async fn earlier_plans_of_the_shown_job_go() {
    let s3 = FakeS3::default();
    let done = put_job(&s3, "film.mp4", "x", State::Done, 10);
    s3.put_stream(&done, "newer");
    s3.show(&done, "newer");
    pruned(&s3, &[]).await.1.unwrap();
    assert!(!has_segments(&s3, &done) && has(&s3, &own(&done, "newer/video/720p/seg-00000.m4s")));
    assert!(has(&s3, &own(&done, "job.json")));
}

/// A profile can publish MP4 files only. Then only the report names the folder.
#[tokio::test]
async fn a_stream_that_only_the_report_names_stays() {
    let s3 = FakeS3::default();
    let old = put_job(&s3, "film.mp4", "old", State::Failed, 40);
    let text = serde_json::to_string(&vidstreamx_job::Report {
        job_id: old.job_id.clone(),
        folder: Some(format!("{}/plan", old.job_id)),
        ..fixtures::report(vidstreamx_job::Outcome::Complete)
    });
    s3.put("streams", "film.mp4/job.json", &text.unwrap(), days_ago(40));
    pruned(&s3, &[]).await.1.unwrap();
    assert!(has_segments(&s3, &old));
}

#[tokio::test]
async fn a_job_that_restarts_during_the_removal_keeps_the_rest() {
    let s3 = FakeS3::default();
    let failed = put_job(&s3, "film.mp4", "x", State::Failed, 10);
    // Without a progress object, the first deletion is that of the checkpoint.
    s3.remove("streams", &Layout::progress(&failed.job_id));
    let restarted = Record { state: State::Running, ..failed.clone() };
    s3.interfere(move |writer| {
        let json = serde_json::to_vec(&restarted).unwrap();
        writer.put("streams", &Layout::record(&restarted.job_id), Some(&json), days_ago(0));
    });
    let (text, result) = pruned(&s3, &[]).await;
    assert!(result.is_ok() && text.contains("1 left, because a job runs"), "{text}{result:?}");
    assert!(has_segments(&s3, &failed));
}

#[tokio::test]
async fn an_unreadable_record_counts_as_running() {
    let s3 = FakeS3::default();
    let failed = put_job(&s3, "film.mp4", "x", State::Failed, 10);
    let before = s3.keys();
    s3.put("streams", &Layout::record(&failed.job_id), r#"{"schema": 9}"#, days_ago(9));
    let (text, result) = pruned(&s3, &["--superseded-for=1"]).await;
    assert!(result.is_ok(), "{text}{result:?}");
    assert_eq!(s3.keys(), before);
}

#[tokio::test]
async fn one_video_that_fails_does_not_stop_the_others() {
    let s3 = FakeS3::default();
    let stuck = put_job(&s3, "a.mp4", "x", State::Failed, 10);
    let other = put_job(&s3, "b.mp4", "x", State::Failed, 10);
    s3.refuse(|key| key.starts_with("a.mp4/").then_some("NotImplemented"));
    let (_, result) = pruned(&s3, &[]).await;
    assert_eq!(result.unwrap_err().to_string(), "1 video not pruned: run prune again");
    assert!(has_segments(&s3, &stuck) && !has_segments(&s3, &other));
}
