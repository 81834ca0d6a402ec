//! Tests of the command `submit`.

use std::sync::{Arc, Mutex};

use aws_sdk_s3::{
    operation::{
        get_bucket_versioning::GetBucketVersioningOutput, head_object::HeadObjectOutput,
        list_objects_v2::ListObjectsV2Output,
    },
    types::{BucketVersioningStatus, EncodingType, Object},
};
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
use clap::Parser;

use super::*;
use crate::{
    fixtures::{queue_that_refuses, source},
    intake::notification::Notification,
};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn arguments(words: &[&str]) -> Arguments {
    let settings = ["submit", "--back-fill-queue-url=http://localhost/1/uploads", "--upload-bucket=uploads"];
    Line::try_parse_from(settings.iter().chain(words)).unwrap().arguments
}

fn object(key: &str) -> Object {
    Object::builder().key(key).e_tag("\"e-1\"").size(5).build()
}

/// A listing of two pages.
fn listing() -> Vec<Rule> {
    let first = || {
        ListObjectsV2Output::builder()
            .encoding_type(EncodingType::Url)
            .contents(object("films/a+%2B%01.mp4"))
            .contents(object("films/notes.txt"))
            .next_continuation_token("2")
            .build()
    };
    let rest = || {
        let keys = (0..12).map(|index| object(&format!("films/{index}.mov"))).collect();
        ListObjectsV2Output::builder().set_contents(Some(keys)).contents(object("films/")).build()
    };
    vec![
        mock!(aws_sdk_s3::Client::list_objects_v2)
            .match_requests(|list| list.prefix() == Some("films/") && list.continuation_token().is_none())
            .then_output(first),
        mock!(aws_sdk_s3::Client::list_objects_v2)
            .match_requests(|list| list.continuation_token() == Some("2"))
            .then_output(rest),
    ]
}

fn versioning(status: Option<BucketVersioningStatus>) -> Rule {
    mock!(aws_sdk_s3::Client::get_bucket_versioning)
        .then_output(move || GetBucketVersioningOutput::builder().set_status(status.clone()).build())
}

fn heads() -> Vec<Rule> {
    let gone = mock!(aws_sdk_s3::Client::head_object)
        .match_requests(|head| head.key() == Some("films/7.mov"))
        .sequence()
        .http_status(404, None)
        .repeatedly()
        .build();
    let there = mock!(aws_sdk_s3::Client::head_object).then_output(|| {
        HeadObjectOutput::builder().e_tag("\"e-2\"").version_id("v1").content_length(7).build()
    });
    vec![gone, there]
}

type Sent = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// Runs `submit`. Returns its output, its result and the sent messages.
async fn submitted(
    words: &[&str],
    rules: &[Rule],
    refused: &'static str,
) -> (String, Result<(), SubmitError>, Vec<(Source, Option<String>)>) {
    let rules: Vec<_> = rules.iter().collect();
    let s3 = mock_client!(aws_sdk_s3, RuleMode::MatchAny, rules);
    let sent = Sent::default();
    let taken = Arc::clone(&sent);
    let queue = queue_that_refuses(refused, move |entry| {
        let request = entry.message_attributes().and_then(|all| all.get(RESTART_ATTRIBUTE));
        let request = request.and_then(|value| value.string_value()).map(str::to_owned);
        taken.lock().unwrap().push((entry.message_body().to_owned(), request));
    });
    let queue = mock_client!(aws_sdk_sqs, RuleMode::MatchAny, [&queue]);
    let uploads = UploadListing::new(s3, "uploads".parse().unwrap());
    let mut out = Vec::new();
    let result = submit(&uploads, &queue, &arguments(words), Timestamp::UNIX_EPOCH, &mut out).await;
    let sent = sent.lock().unwrap().clone().into_iter().map(|(body, request)| {
        let [Notification::Created(source)] = &notification::decode(&body)[..] else { panic!("{body}") };
        (source.clone(), request)
    });
    (String::from_utf8(out).unwrap(), result, sent.collect())
}

const NOTHING: &str = "nothing is refused";

#[tokio::test]
async fn a_prefix_submits_the_videos_of_all_pages_with_their_etags() {
    let rules: Vec<_> = listing().into_iter().chain([versioning(None)]).collect();
    let (text, result, sent) = submitted(&["s3://uploads/films/"], &rules, NOTHING).await;
    assert!(result.is_ok());
    assert_eq!(text, "13 objects submitted; 2 left out for their suffixes\n");
    let etag = Some("e-1".into());
    let expected = Source { etag, size: Some(5), ..source("films/a +\u{1}.mp4") };
    assert_eq!(sent[0], (expected, None));
    assert_eq!(sent.len(), 13);
}

#[tokio::test]
async fn version_ids_are_read_if_the_bucket_may_have_versions() {
    let denied = mock!(aws_sdk_s3::Client::get_bucket_versioning)
        .sequence()
        .http_status(403, Some("<Error><Code>AccessDenied</Code></Error>".into()))
        .repeatedly()
        .build();
    for versioning in [denied, versioning(Some(BucketVersioningStatus::Suspended))] {
        let rules: Vec<_> = listing().into_iter().chain([versioning]).chain(heads()).collect();
        let (text, result, sent) = submitted(&["s3://uploads/films/"], &rules, NOTHING).await;
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(text, "12 objects submitted; 2 left out for their suffixes; 1 deleted meanwhile\n");
        assert!(sent.iter().all(|(source, _)| source.content() == "v1" && source.size == Some(7)));
    }
}

#[tokio::test]
async fn each_forced_object_has_its_own_restart_request() {
    let rules: Vec<_> = listing().into_iter().chain([versioning(None)]).collect();
    let (_, _, sent) = submitted(&["s3://uploads/films/", "--force"], &rules, NOTHING).await;
    let (_, _, later) = submitted(&["s3://uploads/films/", "--force"], &rules, NOTHING).await;
    let request_ids: std::collections::HashSet<_> = sent
        .iter()
        .chain(&later)
        .map(|(_, request)| match request.as_deref().unwrap().parse() {
            Ok(RestartRequest::Forced { id }) => id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(request_ids.len(), 26);
}

#[tokio::test]
async fn refused_messages_are_counted_and_fail_the_command() {
    let rules: Vec<_> = listing().into_iter().chain([versioning(None)]).collect();
    let (text, result, sent) = submitted(&["s3://uploads/films/"], &rules, "films/7.mov").await;
    assert_eq!(text, "12 objects submitted; 1 refused by SQS; 2 left out for their suffixes\n");
    assert!(matches!(result, Err(SubmitError::Refused(1))));
    assert_eq!(sent.len(), 12);
}

#[tokio::test]
async fn a_single_object_needs_no_video_suffix_and_a_dry_run_sends_nothing() {
    let (text, _, sent) = submitted(&["s3://uploads/notes.txt"], &heads(), NOTHING).await;
    assert_eq!((&*text, sent.len()), ("1 object submitted\n", 1));
    let (text, _, sent) = submitted(&["s3://uploads/notes.txt", "--dry-run"], &heads(), NOTHING).await;
    assert_eq!(text, "s3://uploads/notes.txt  7 B\n1 object would be submitted\n");
    assert_eq!(sent, []);
}

#[tokio::test]
async fn a_missing_object_and_another_bucket_are_one_line_errors() {
    let empty = mock!(aws_sdk_s3::Client::list_objects_v2)
        .then_output(|| ListObjectsV2Output::builder().contents(object("a/b.txt")).build());
    let rules = [vec![empty, versioning(None)], heads()].concat();
    for (asked, expected) in [
        ("s3://uploads/a/", "there is no video (1 object with other suffixes than .mp4"),
        ("s3://uploads/films/7.mov", "there is no object \"films/7.mov\" in the upload bucket"),
        ("s3://streams/a.mp4", "s3://streams: the upload bucket is uploads"),
    ] {
        let (text, result, sent) = submitted(&[asked], &rules, NOTHING).await;
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert_eq!((&*text, sent.len()), ("", 0));
    }
}
