//! Tests of the command `redrive`.

use std::sync::{Arc, Mutex};

use aws_sdk_sqs::{
    operation::{
        change_message_visibility_batch::ChangeMessageVisibilityBatchOutput,
        delete_message::DeleteMessageOutput, receive_message::ReceiveMessageOutput,
    },
    types::{ChangeMessageVisibilityBatchResultEntry, Message, MessageAttributeValue},
};
use aws_smithy_mocks::{RuleMode, mock, mock_client};
use clap::Parser;

use super::*;
use crate::{
    fixtures::{queue_that_refuses, source},
    intake::notification,
};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn arguments(words: &[&str]) -> Arguments {
    let settings = [
        "redrive",
        "--queue-url=http://localhost/1/uploads",
        "--back-fill-queue-url=http://localhost/1/back-fill",
        "--dead-letter-queue-url=http://localhost/1/dead",
    ];
    Line::try_parse_from(settings.iter().chain(words)).unwrap().arguments
}

/// The start of the redrive, in seconds.
const BEGAN: i64 = 100;

fn message(id: &str, body: &str, attributes: &[(&str, &str)], sent: i64) -> Message {
    let mut message = Message::builder()
        .message_id(id)
        .receipt_handle(format!("receipt of {id}"))
        .body(body)
        .attributes(MessageSystemAttributeName::SentTimestamp, (sent * 1000).to_string());
    for (name, value) in attributes {
        let value = MessageAttributeValue::builder().data_type("String").string_value(*value);
        message = message.message_attributes(*name, value.build().unwrap());
    }
    message.build()
}

fn about(key: &str) -> String {
    notification::about(&source(key))
}

const JOB: &str = "0123456789abcdef0123456789abcdef";

fn letters() -> Vec<Message> {
    let failed = [
        ("vidstreamx-reason", "All 3 attempts failed: out of memory"),
        ("vidstreamx-job-id", JOB),
        ("vidstreamx-attempts", "3"),
        ("vidstreamx-restart", "failed-after-3"),
    ];
    vec![
        message("failed", &about("films/a.mp4"), &failed, 10),
        message("moved by SQS", &about("films/b.mp4"), &[], 20),
        message("rubbish", "rubbish\u{7}", &[("vidstreamx-reason", "the message is not JSON")], 30),
        message("rubbish moved", "{}", &[], 40),
    ]
}

#[derive(Debug, Default)]
struct Calls {
    sent: Vec<(String, Vec<String>)>,
    deleted: Vec<String>,
    released: Vec<String>,
    receives: usize,
}

/// Runs `redrive`. The dead-letter queue returns `receives`, one element per call, and then no messages. The
/// target queue refuses messages that contain `refused`. Returns the output, the result and the calls.
async fn redriven(
    words: &[&str],
    receives: Vec<Vec<Message>>,
    refused: &'static str,
    stop: CancellationToken,
) -> (String, Result<(), RedriveError>, Calls) {
    let calls = Arc::new(Mutex::new(Calls::default()));
    let shared = || Arc::clone(&calls);
    let (counting, deleting, releasing, sending) = (shared(), shared(), shared(), shared());
    let receive = mock!(Client::receive_message)
        .match_requests(|receive| {
            receive.queue_url() == Some("http://localhost/1/dead")
                && receive.visibility_timeout() == Some(900)
                && receive.message_attribute_names() == ["All"]
        })
        .then_output(move || {
            let mut calls = counting.lock().unwrap();
            calls.receives += 1;
            let messages = receives.get(calls.receives - 1).cloned();
            ReceiveMessageOutput::builder().set_messages(messages).build()
        });
    let send = queue_that_refuses(refused, move |entry| {
        let attributes = entry.message_attributes().cloned().unwrap_or_default();
        let mut names: Vec<_> = attributes.into_keys().collect();
        names.sort();
        sending.lock().unwrap().sent.push((entry.message_body().to_owned(), names));
    });
    let receipt = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&receipt);
    let delete = mock!(Client::delete_message)
        .match_requests(move |delete| {
            seen.lock().unwrap().push(delete.receipt_handle().unwrap_or_default().to_owned());
            delete.queue_url() == Some("http://localhost/1/dead")
        })
        .then_output(move || {
            deleting.lock().unwrap().deleted.extend(receipt.lock().unwrap().pop());
            DeleteMessageOutput::builder().build()
        });
    let entries = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&entries);
    let release = mock!(Client::change_message_visibility_batch)
        .match_requests(move |change| {
            *seen.lock().unwrap() =
                change.entries().iter().map(|entry| entry.receipt_handle().to_owned()).collect();
            change.queue_url() == Some("http://localhost/1/dead")
                && change.entries().iter().all(|entry| entry.visibility_timeout() == Some(0))
        })
        .then_output(move || {
            releasing.lock().unwrap().released.append(&mut entries.lock().unwrap());
            let none: Vec<ChangeMessageVisibilityBatchResultEntry> = Vec::new();
            ChangeMessageVisibilityBatchOutput::builder()
                .set_successful(Some(none))
                .set_failed(Some(Vec::new()))
                .build()
                .unwrap()
        });
    let client = mock_client!(aws_sdk_sqs, RuleMode::MatchAny, [&receive, &send, &delete, &release]);
    let mut out = Vec::new();
    let now = Timestamp::from_second(BEGAN).unwrap();
    let result = redrive(&client, &arguments(words), now, &stop, &mut out).await;
    let calls = std::mem::take(&mut *calls.lock().unwrap());
    (String::from_utf8(out).unwrap(), result, calls)
}

const NOTHING: &str = "nothing is refused";

fn receipts(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| format!("receipt of {id}")).collect()
}

#[tokio::test]
async fn a_dry_run_lists_all_messages_and_makes_them_visible_again() {
    let (text, result, calls) =
        redriven(&["--dry-run"], vec![letters()], NOTHING, CancellationToken::new()).await;
    assert!(result.is_ok());
    insta::assert_snapshot!(text);
    assert_eq!(calls.released, receipts(&["failed", "moved by SQS", "rubbish", "rubbish moved"]));
    assert!(calls.sent.is_empty() && calls.deleted.is_empty());
}

#[tokio::test]
async fn matching_messages_return_with_their_attributes_and_others_become_visible() {
    for filter in ["--key=a.mp4", "--reason=OUT of", &format!("--job={JOB}")] {
        let (text, result, calls) =
            redriven(&[filter], vec![letters()], NOTHING, CancellationToken::new()).await;
        assert!(result.is_ok());
        assert!(text.ends_with("1 message sent back; 3 others stay\n"), "{filter}: {text}");
        let names = ["attempts", "job-id", "reason", "restart"].map(|name| format!("vidstreamx-{name}"));
        assert_eq!(calls.sent, [(about("films/a.mp4"), names.to_vec())], "{filter}");
        assert_eq!(calls.deleted, receipts(&["failed"]));
        assert_eq!(calls.released, receipts(&["moved by SQS", "rubbish", "rubbish moved"]));
    }
}

#[tokio::test]
async fn messages_that_arrive_during_the_redrive_stay_and_do_not_prolong_it() {
    let bounced = |id: &str| vec![message(id, "rubbish", &[], BEGAN + 1)];
    // SQS returns one message again. The consumer sends unreadable messages back to the dead-letter queue.
    let receives = vec![
        letters(),
        vec![],
        letters().split_off(3),
        bounced("bounced 1"),
        bounced("bounced 2"),
        bounced("bounced 3"),
    ];
    let (text, result, calls) = redriven(&[], receives, NOTHING, CancellationToken::new()).await;
    assert!(result.is_ok());
    assert_eq!((calls.sent.len(), calls.receives), (4, 3));
    assert!(text.ends_with("4 messages sent back\n"), "{text}");

    let receives = vec![letters(), bounced("bounced 1"), bounced("bounced 2"), bounced("bounced 3")];
    let (text, _, calls) = redriven(&[], receives, NOTHING, CancellationToken::new()).await;
    assert_eq!((calls.sent.len(), calls.receives), (4, 3));
    assert!(text.ends_with("4 messages sent back; 2 others arrived during the redrive\n"), "{text}");
    assert_eq!(calls.released, receipts(&["bounced 1", "bounced 2"]));
}

#[tokio::test]
async fn a_refused_message_is_not_deleted() {
    let (text, result, calls) = redriven(&[], vec![letters()], "b.mp4", CancellationToken::new()).await;
    assert!(matches!(result, Err(RedriveError::Refused(1))));
    assert!(text.ends_with("3 messages sent back\n"), "{text}");
    assert_eq!(calls.deleted.len(), 3);
    assert_eq!(calls.released, receipts(&["moved by SQS"]));
}

#[tokio::test]
async fn an_interrupted_redrive_receives_no_messages() {
    let stop = CancellationToken::new();
    stop.cancel();
    let (_, result, calls) = redriven(&[], vec![letters()], NOTHING, stop).await;
    assert!(matches!(result, Err(RedriveError::Interrupted)));
    assert_eq!(calls.receives, 0);
}
