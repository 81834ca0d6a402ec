//! Tests of the command `history`.

use std::sync::{Arc, Mutex};

use aws_sdk_s3::{
    Client,
    operation::get_object::GetObjectOutput,
    primitives::{ByteStream, DateTime},
    types::Object,
};
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
use clap::Parser;
use vidstreamx_job::Layout;

use super::*;
use crate::{commands::history::samples, fixtures};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn arguments(words: &[&str]) -> Arguments {
    let line = ["history", "--output-bucket=streams"].iter().chain(words);
    Line::try_parse_from(line).unwrap().arguments
}

fn now() -> Timestamp {
    samples::NOW.parse().unwrap()
}

/// The listing: the sample videos, a record of a newer schema and a stray object, two per page.
fn listing() -> Rule {
    let object = |key: String, written: Timestamp| {
        Object::builder().key(key).last_modified(DateTime::from_secs(written.as_second())).size(900).build()
    };
    let mut objects: Vec<_> = samples::videos()
        .iter()
        .map(|video| object(Layout::record(&video.record.job_id), video.record.updated_at))
        .collect();
    objects.push(object(format!(".vidstreamx/jobs/{}.json", "f".repeat(32)), now()));
    objects.push(object(".vidstreamx/jobs/stray.txt".to_owned(), now()));
    fixtures::listing(objects, 2)
}

/// Returns the records of the sample videos, and appends the key of each request to `asked`.
fn objects(asked: &Arc<Mutex<Vec<String>>>) -> Vec<Rule> {
    let get = |key: String, json: Vec<u8>| {
        let (expected, asked) = (key.clone(), Arc::clone(asked));
        mock!(Client::get_object).match_requests(move |get| get.key() == Some(&*expected)).then_output(
            move || {
                asked.lock().unwrap().push(key.clone());
                GetObjectOutput::builder().body(ByteStream::from(json.clone())).build()
            },
        )
    };
    let mut rules = Vec::new();
    for video in samples::videos() {
        let id = &video.record.job_id;
        rules.push(get(Layout::record(id), serde_json::to_vec(&video.record).unwrap()));
        if let Some(progress) = video.progress {
            rules.push(get(Layout::progress(id), serde_json::to_vec(&progress).unwrap()));
        }
    }
    rules.push(get(format!(".vidstreamx/jobs/{}.json", "f".repeat(32)), b"{\"schema\":2}".to_vec()));
    rules.push(
        mock!(Client::get_object)
            .sequence()
            .http_status(404, Some("<Error><Code>NoSuchKey</Code></Error>".into()))
            .repeatedly()
            .build(),
    );
    rules
}

/// Runs `history`. Returns its output, its result and the keys of the read objects.
async fn shown(words: &[&str]) -> (String, Result<(), String>, Vec<String>) {
    let asked = Arc::default();
    let rules: Vec<_> = [listing()].into_iter().chain(objects(&asked)).collect();
    let rules: Vec<_> = rules.iter().collect();
    let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, rules);
    let store = Store::new(client, "streams".parse().unwrap());
    let mut out = Vec::new();
    let result = show(&store, &arguments(words), now(), None, &mut out).await;
    let asked = asked.lock().unwrap().clone();
    (String::from_utf8(out).unwrap(), result.map_err(|error| error.to_string()), asked)
}

fn keys(json: &str) -> Vec<String> {
    let key = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["source"]["key"].as_str().unwrap().to_owned()
    };
    json.lines().map(key).collect()
}

#[tokio::test]
async fn a_list_reads_all_pages_and_counts_unreadable_records() {
    let (text, result, _) = shown(&[]).await;
    assert_eq!(result, Ok(()));
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn records_from_before_the_period_are_not_read() {
    let (json, result, asked) = shown(&["--since=45m", "--json"]).await;
    assert_eq!(result, Ok(()));
    assert_eq!(keys(&json), ["d.mp4", "c.mp4", "b.mp4", "rubbish\u{1b}[2J.mp4"]);
    assert_eq!(asked.iter().filter(|key| key.contains("/jobs/")).count(), 5);
}

#[tokio::test]
async fn a_list_can_be_filtered_and_shows_the_progress_of_running_videos() {
    let (json, _, _) = shown(&["--state=running,failed", "--key=film", "--json"]).await;
    assert_eq!(keys(&json), ["a/very/long/key/with/many/parts/in/it/film.mp4"]);
    let (json, _, _) = shown(&["--state=running", "--key=b.mp4", "--json"]).await;
    let line: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(line["progress"]["share"], 0.434);
    assert_eq!(line["attempts"][0]["number"], 1);
}

const UPLOADS: &str = "--upload-bucket=uploads";

#[tokio::test]
async fn a_job_id_and_a_key_need_one_read() {
    let video = &samples::videos()[0];
    let id = video.record.job_id.as_str();
    let record = [Layout::record(&video.record.job_id)];
    let (text, result, asked) = shown(&[id]).await;
    assert_eq!((result, &asked[..]), (Ok(()), &record[..]));
    let page = page::page(video, &"streams".parse().unwrap(), now());
    assert_eq!(text, page);
    for words in [
        &["films/summer holidays 2026.mp4", UPLOADS][..],
        &["films/summer holidays 2026.mp4", UPLOADS, "--since=60m"],
        &["s3://uploads/films/summer holidays 2026.mp4"],
        &["s3://uploads/films/summer holidays 2026.mp4", "--upload-bucket=others"],
    ] {
        let (text, result, asked) = shown(words).await;
        assert_eq!((&*text, result, &asked[..]), (&*page, Ok(()), &record[..]), "{words:?}");
    }
}

#[tokio::test]
async fn a_missing_record_is_a_one_line_error() {
    let missing = "there is no record of \"films/summer holidays 2026.mp4\" in s3://streams";
    for words in [
        &["films/summer holidays 2026.mp4", "--upload-bucket=others"][..],
        &["films/summer holidays 2026.mp4", UPLOADS, "--since=59m"],
    ] {
        let (text, result, _) = shown(words).await;
        assert_eq!((&*text, result), ("", Err(missing.into())), "{words:?}");
    }
    for words in [&[&*"0".repeat(32)][..], &["s3://uploads/"], &["s3://uploads/no.mp4"], &["no.mp4", UPLOADS]]
    {
        let (_, result, asked) = shown(words).await;
        let expected = format!("there is no record of \"{}\" in s3://streams", words[0]);
        assert_eq!(result, Err(expected), "{words:?}");
        assert!(asked.is_empty(), "{asked:?}");
    }
    let (_, result, _) = shown(&[&"f".repeat(32)]).await;
    assert!(result.unwrap_err().contains("schema version 2"));
}

#[tokio::test]
async fn a_key_needs_its_bucket() {
    let (text, result, asked) = shown(&["no\u{1b}.mp4"]).await;
    let why = "the bucket of \"no\\u{1b}.mp4\" is not known: set VIDSTREAMX_UPLOAD_BUCKET (--upload-bucket), \
               or write s3://BUCKET/no\\u{1b}.mp4";
    assert_eq!((&*text, result, asked.len()), ("", Err(why.into()), 0));
}

#[tokio::test]
async fn progress_of_an_earlier_attempt_is_not_shown() {
    let mut video = samples::videos().pop().unwrap();
    video.record.attempts[0].started_at = "2026-05-04T12:00:01Z".parse().unwrap();
    let (record, progress) =
        (serde_json::to_vec(&video.record).unwrap(), serde_json::to_vec(&video.progress).unwrap());
    let get = mock!(Client::get_object)
        .sequence()
        .output(move || GetObjectOutput::builder().body(ByteStream::from(record.clone())).build())
        .output(move || GetObjectOutput::builder().body(ByteStream::from(progress.clone())).build())
        .build();
    let client = mock_client!(aws_sdk_s3, RuleMode::Sequential, [&get]);
    let store = Store::new(client, "streams".parse().unwrap());
    let found = store.video(&video.record.job_id, &|_: &Record| true).await.unwrap();
    assert!(matches!(found, Found::Video(video) if video.progress.is_none()));
    assert_eq!(get.num_calls(), 2);
}
