//! Tests of the command `delete`.

use clap::Parser;
use jiff::Timestamp;
use vidstreamx_job::{Record, State};

use super::*;
use crate::{commands::removal::fake_s3::FakeS3, fixtures};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

async fn run(s3: &FakeS3, words: &[&str], stop: &CancellationToken) -> (String, Result<(), DeleteError>) {
    let settings = ["delete", "--upload-bucket=uploads", "--output-bucket=streams"];
    let arguments = Line::try_parse_from(settings.iter().chain(words)).unwrap().arguments;
    let mut out = Vec::new();
    let result = delete(&s3.client(), &arguments, stop, &mut out).await;
    (String::from_utf8(out).unwrap(), result)
}

async fn deleted(s3: &FakeS3, words: &[&str]) -> (String, Result<(), DeleteError>) {
    run(s3, words, &CancellationToken::new()).await
}

fn record(key: &str, state: State) -> Record {
    Record { state, ..Record::new(&fixtures::job(key), Timestamp::UNIX_EPOCH) }
}

/// Uploads, streams and records of two uploads, of which one is below the other one's stable address.
fn two_uploads(state: State) -> FakeS3 {
    let s3 = FakeS3::default();
    for key in ["film.mp4", "film.mp4/extra.mp4"] {
        let record = record(key, if key == "film.mp4" { state } else { State::Done });
        s3.put("uploads", key, "source", Timestamp::UNIX_EPOCH);
        s3.put("uploads", key, "source again", Timestamp::UNIX_EPOCH);
        s3.put_record(&record);
        s3.put_stream(&record, "plan");
        s3.show(&record, "plan");
        let layout = Layout::new(&record.source.key, &record.job_id);
        s3.put("streams", &layout.own("plan/checkpoint/00000.json"), "{}", Timestamp::UNIX_EPOCH);
        s3.put("streams", &Layout::progress(&record.job_id), "{}", Timestamp::UNIX_EPOCH);
        s3.hide("streams", &layout.stable("master.m3u8"), Timestamp::UNIX_EPOCH);
    }
    s3
}

#[tokio::test]
async fn everything_of_the_upload_goes_and_nothing_of_the_upload_below_it() {
    let s3 = two_uploads(State::Done);
    let before = s3.keys();
    let (text, result) = deleted(&s3, &["film.mp4", "--source"]).await;
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(
        text,
        "upload          2 object versions deleted, 18 B\n\
         stable address  3 object versions deleted, 118 B\n\
         streams         2 object versions deleted, 14 B\n\
         checkpoints     1 object version deleted, 2 B\n\
         progress        1 object version deleted, 2 B\n\
         records         1 object version deleted, 257 B\n"
    );
    let other = record("film.mp4/extra.mp4", State::Done).job_id;
    let expected: Vec<_> = before
        .into_iter()
        .filter(|key| key.contains("film.mp4/extra.mp4") || key.ends_with(&format!("/{other}.json")))
        .collect();
    assert_eq!(s3.keys().into_iter().collect::<Vec<_>>(), expected);

    let (_, again) = deleted(&s3, &["film.mp4", "--source"]).await;
    assert!(matches!(again, Err(DeleteError::Nothing { .. })), "{again:?}");
    assert_eq!(
        again.unwrap_err().to_string(),
        "there is nothing of \"film.mp4\" in s3://streams and s3://uploads"
    );
}

#[tokio::test]
async fn source_and_stable_address_go_first_and_records_last() {
    let s3 = two_uploads(State::Done);
    let (_, result) = deleted(&s3, &["s3://uploads/film.mp4", "--source"]).await;
    assert!(result.is_ok(), "{result:?}");
    let deleted = s3.deleted();
    let last = |what: &str| deleted.iter().rposition(|key| key.contains(what)).unwrap();
    let first = |what: &str| deleted.iter().position(|key| key.contains(what)).unwrap();
    assert_eq!(deleted.iter().take(2).collect::<Vec<_>>(), ["film.mp4", "film.mp4"]);
    assert!(last("master.m3u8") < first("seg-00000"));
    assert!(last("seg-00000").max(last("checkpoint")) < first(".vidstreamx/progress/"));
    assert_eq!(first(".vidstreamx/jobs/"), deleted.len() - 1);
}

#[tokio::test]
async fn without_source_the_upload_stays() {
    let s3 = two_uploads(State::Failed);
    assert!(deleted(&s3, &["film.mp4"]).await.1.is_ok());
    assert!(s3.keys().contains("uploads/film.mp4") && !s3.holds_objects_of("film.mp4"));
}

#[tokio::test]
async fn a_dry_run_counts_the_same_and_deletes_nothing() {
    let s3 = two_uploads(State::Done);
    let before = s3.keys();
    let (text, result) = deleted(&s3, &["film.mp4", "--source", "--dry-run"]).await;
    assert!(result.is_ok(), "{result:?}");
    assert_eq!((s3.keys(), s3.deleted().len()), (before, 0));
    let (real, _) = deleted(&s3, &["film.mp4", "--source"]).await;
    assert_eq!(text.replace("would be deleted", "deleted"), real);
}

#[tokio::test]
async fn a_running_job_is_refused_before_anything_is_deleted() {
    let s3 = two_uploads(State::Running);
    let (text, result) = deleted(&s3, &["film.mp4", "--source"]).await;
    assert_eq!((text.as_str(), s3.deleted().len()), ("", 0));
    let error = result.unwrap_err().to_string();
    assert!(error.contains("run \"vidstreamx-consumer cancel film.mp4\" first"), "{error}");
}

#[tokio::test]
async fn a_job_that_restarts_during_the_deletion_keeps_its_record() {
    let s3 = two_uploads(State::Done);
    s3.interfere(|writer| {
        let restarted = serde_json::to_vec(&record("film.mp4", State::Running)).unwrap();
        let key = Layout::record(&record("film.mp4", State::Running).job_id);
        writer.put("streams", &key, Some(&restarted), Timestamp::MAX);
    });
    let (_, result) = deleted(&s3, &["film.mp4"]).await;
    assert!(matches!(result, Err(DeleteError::Running { .. })), "{result:?}");
    assert!(!s3.deleted().iter().any(|key| key.starts_with(".vidstreamx/jobs/")));
}

#[tokio::test]
async fn an_unreadable_record_is_named_and_nothing_is_deleted() {
    let s3 = two_uploads(State::Done);
    let key = Layout::record(&record("film.mp4", State::Done).job_id);
    s3.put("streams", &key, r#"{"schema": 9}"#, Timestamp::MAX);
    let (_, result) = deleted(&s3, &["film.mp4"]).await;
    let error = result.unwrap_err().to_string();
    assert!(error.starts_with(&format!("s3://streams/{key}: ")) && error.contains("version 9"), "{error}");
    assert!(s3.deleted().is_empty());
}

/// A plain deletion of a record leaves its versions, which hold the key.
#[tokio::test]
async fn versions_of_a_hidden_record_are_deleted() {
    let s3 = FakeS3::default();
    let running = record("film.mp4", State::Running);
    s3.put_record(&running);
    s3.hide("streams", &Layout::record(&running.job_id), Timestamp::MAX);
    let (text, result) = deleted(&s3, &["film.mp4"]).await;
    assert!(result.is_ok() && text.starts_with("records         2 object versions"), "{text}{result:?}");
    assert!(s3.keys().is_empty());
}

#[tokio::test]
async fn folders_of_jobs_of_an_earlier_upload_bucket_go_with_their_records() {
    let s3 = FakeS3::default();
    let mut source = fixtures::source("film.mp4");
    source.bucket = "earlier-uploads".parse().unwrap();
    let earlier =
        Record { state: State::Done, ..Record::new(&fixtures::job_of(source), Timestamp::UNIX_EPOCH) };
    s3.put_record(&earlier);
    s3.put_stream(&earlier, "plan");
    assert!(deleted(&s3, &["film.mp4"]).await.1.is_ok());
    assert!(s3.keys().is_empty(), "{:?}", s3.keys());
}

#[tokio::test]
async fn a_refused_version_ends_the_run_before_the_records() {
    for (code, expected) in [
        ("InternalError", "1 object version not deleted: run delete again"),
        ("AccessDenied", "access to 1 object version is denied"),
    ] {
        let s3 = two_uploads(State::Done);
        s3.refuse(move |key| key.ends_with("seg-00000.m4s").then_some(code));
        tokio::time::pause();
        let (text, result) = deleted(&s3, &["film.mp4"]).await;
        tokio::time::resume();
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert!(text.contains("streams         1 object version deleted"), "{text}");
        assert!(
            s3.keys()
                .contains(&format!("streams/{}", Layout::record(&record("film.mp4", State::Done).job_id)))
        );
    }
}

#[tokio::test]
async fn an_interrupted_run_deletes_no_more() {
    let s3 = two_uploads(State::Done);
    let stop = CancellationToken::new();
    stop.cancel();
    let (_, result) = run(&s3, &["film.mp4"], &stop).await;
    assert!(matches!(result, Err(DeleteError::Removal(RemovalError::Interrupted { .. }))), "{result:?}");
    assert!(s3.deleted().is_empty());
}
