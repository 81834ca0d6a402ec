//! Values and services that many unit tests need.

// Shared with the simulation, which is another crate.
#[path = "../tests/simulation/log.rs"]
mod log;

use std::sync::{Arc, Mutex};

use aws_sdk_s3::{operation::list_objects_v2::ListObjectsV2Output, types::Object};
use aws_sdk_sqs::{
    Client,
    operation::send_message_batch::SendMessageBatchOutput,
    types::{BatchResultErrorEntry, SendMessageBatchRequestEntry},
};
use aws_smithy_mocks::{Rule, mock};
use jiff::Timestamp;
pub(crate) use log::Log;
use vidstreamx_job::{Job, Outcome, Record, Report, Source};

/// An upload of nine bytes without versions.
pub(crate) fn source(key: &str) -> Source {
    Source {
        bucket: "uploads".parse().unwrap(),
        key: key.parse().unwrap(),
        version_id: None,
        etag: Some("e".into()),
        size: Some(9),
    }
}

/// The job of an upload of nine bytes without versions.
pub(crate) fn job(key: &str) -> Job {
    job_of(source(key))
}

/// The job of an upload.
pub(crate) fn job_of(source: Source) -> Job {
    Job::new(source, "streams".parse().unwrap(), "default".into())
}

/// A new record of the job of `a.mp4`.
pub(crate) fn record() -> Record {
    Record::new(&job("a.mp4"), Timestamp::UNIX_EPOCH)
}

/// A report without a reason.
pub(crate) fn report(outcome: Outcome) -> Report {
    let json = r#"{
        "schema": 1, "job_id": "0123456789abcdef0123456789abcdef", "outcome": "complete",
        "timings": {"started_at": "2026-05-04T09:12:33Z", "finished_at": "2026-05-04T09:13:33Z",
                    "total_seconds": 60.0}
    }"#;
    Report { outcome, ..Report::parse(json.as_bytes()).unwrap() }
}

/// A mock of ListObjectsV2: lists these objects in this order, `page` at a time.
pub(crate) fn listing(objects: Vec<Object>, page: usize) -> Rule {
    mock!(aws_sdk_s3::Client::list_objects_v2).then_compute_output(move |request| {
        let prefix = request.prefix().unwrap_or_default();
        let found = objects.iter().filter(|object| object.key().unwrap().starts_with(prefix));
        let start: usize = request.continuation_token().map_or(0, |token| token.parse().unwrap());
        let mut rest = found.skip(start).cloned().peekable();
        let contents = rest.by_ref().take(page).collect();
        let next = rest.peek().map(|_| (start + page).to_string());
        ListObjectsV2Output::builder().set_contents(Some(contents)).set_next_continuation_token(next).build()
    })
}

/// SQS's answer to a batch of messages.
pub(crate) fn batch_answer(failed: Vec<BatchResultErrorEntry>) -> SendMessageBatchOutput {
    let output = SendMessageBatchOutput::builder().set_successful(Some(Vec::new()));
    output.set_failed(Some(failed)).build().unwrap()
}

/// A mock of SendMessageBatch on the queue `uploads`. It permanently refuses entries whose body contains
/// `refused`, and passes all other entries to `take`.
pub(crate) fn queue_that_refuses(
    refused: &'static str,
    take: impl Fn(&SendMessageBatchRequestEntry) + Send + Sync + 'static,
) -> Rule {
    // A mock's answer does not see the request, so the matcher stores the entries here.
    let latest = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&latest);
    mock!(Client::send_message_batch)
        .match_requests(move |request| {
            *seen.lock().unwrap() = request.entries().to_vec();
            request.queue_url() == Some("http://localhost/1/uploads")
        })
        .then_output(move || {
            let mut failed = Vec::new();
            for entry in latest.lock().unwrap().iter() {
                if entry.message_body().contains(refused) {
                    let failure = BatchResultErrorEntry::builder().id(entry.id()).code("No");
                    failed.push(failure.sender_fault(true).build().unwrap());
                } else {
                    take(entry);
                }
            }
            batch_answer(failed)
        })
}
