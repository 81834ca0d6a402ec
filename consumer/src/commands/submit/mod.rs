//! Submits existing objects of the upload bucket to the queue, as if they had just been uploaded.
//!
//! The events are the same as S3's, so the consumer, its limits and its dead-letter queue treat these videos
//! like others. A video that is done already is recognised by its identity.

pub(crate) mod objects;

use std::io::{self, Write};

use clap::Args;
use futures::{StreamExt as _, stream};
use indicatif::DecimalBytes;
use jiff::Timestamp;
use tracing::error;
use vidstreamx_job::{BucketName, S3Uri, Source};

use self::objects::Uploads;
use crate::{
    aws::error::CallError,
    aws::names::QueueUrl,
    aws::sqs::RESTART_ATTRIBUTE,
    aws::sqs_send::BATCH,
    aws::sqs_send::{self, OutgoingMessage},
    commands::format,
    commands::progress::ProgressDisplay,
    config::SubmitSettings,
    intake::notification,
    reconcile::RestartRequest,
};

/// The objects to submit.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// An object of any name, or a prefix that ends in /: all objects below it whose names end in one of
    /// .mp4, .MP4, .mov, .MOV, .m4v
    #[arg(value_name = "s3://BUCKET/KEY | s3://BUCKET/PREFIX/")]
    pub objects: S3Uri,

    /// Restart videos that have ended, even if they are done. EVERY one of them is transcoded, and paid for,
    /// again, each time this is called. Running videos are left alone
    #[arg(long)]
    pub force: bool,

    /// Only list the objects that would be submitted
    #[arg(long)]
    pub dry_run: bool,

    /// The queue.
    #[command(flatten)]
    pub settings: SubmitSettings,
}

/// An incomplete submission.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    /// The consumer does not accept events of this bucket.
    #[error(
        "s3://{asked}: the upload bucket is {expected} (VIDSTREAMX_UPLOAD_BUCKET), others are not accepted"
    )]
    OtherBucket {
        /// The argument.
        asked: BucketName,
        /// The setting.
        expected: BucketName,
    },
    /// There is no object, or none that is a video.
    #[error("{0}")]
    Nothing(String),
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// SQS refused some, which the output names.
    #[error("{} not submitted: run it again with the same arguments", format::count(*.0, "object"))]
    Refused(u64),
    /// The output is closed.
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// Concurrent batches.
const AT_ONCE: usize = 8;

#[derive(Debug, Default)]
struct Tally {
    submitted: u64,
    refused: u64,
    others: u64,
    gone: u64,
}

/// Sends an event per object to the queue.
///
/// # Errors
/// There is no such object, or some events were not sent.
pub(crate) async fn submit(
    uploads: &Uploads,
    queue: &aws_sdk_sqs::Client,
    arguments: &Arguments,
    now: Timestamp,
    out: &mut impl Write,
) -> Result<(), SubmitError> {
    let S3Uri { bucket, path } = &arguments.objects;
    if *bucket != arguments.settings.upload_bucket {
        let expected = arguments.settings.upload_bucket.clone();
        return Err(SubmitError::OtherBucket { asked: bucket.clone(), expected });
    }
    let mut run = Run {
        uploads,
        queue,
        url: &arguments.settings.queue_url,
        request_ids: arguments.force.then(|| RequestIds::new(now)),
        dry_run: arguments.dry_run,
        tally: Tally::default(),
    };
    let result = if path.is_empty() || path.ends_with('/') {
        run.submit_prefix(path, out).await
    } else {
        run.submit_object(path, out).await
    };
    match result {
        // Events that were sent before an error stay sent.
        Ok(()) | Err(SubmitError::Call(_)) => writeln!(out, "{}", run.tally.line(arguments.dry_run))?,
        Err(_) => {}
    }
    result?;
    if run.tally.refused > 0 { Err(SubmitError::Refused(run.tally.refused)) } else { Ok(()) }
}

/// Unique ids of restart requests.
struct RequestIds {
    call: String,
    next: u64,
}

impl RequestIds {
    fn new(now: Timestamp) -> Self {
        Self { call: format!("{}-{:08x}", now.strftime("%Y%m%dT%H%M%SZ"), fastrand::u32(..)), next: 0 }
    }

    fn next(&mut self) -> RestartRequest {
        self.next += 1;
        RestartRequest::Forced { id: format!("{}-{}", self.call, self.next) }
    }
}

struct Run<'a> {
    uploads: &'a Uploads,
    queue: &'a aws_sdk_sqs::Client,
    url: &'a QueueUrl,
    request_ids: Option<RequestIds>,
    dry_run: bool,
    tally: Tally,
}

impl Run<'_> {
    async fn submit_object(&mut self, key: &str, out: &mut impl Write) -> Result<(), SubmitError> {
        let name = format::clean(key);
        let object = key.parse().map_err(|error| SubmitError::Nothing(format!("{name}: {error}")))?;
        let Some(source) = self.uploads.object(object).await? else {
            let hint = "a prefix ends in /";
            return Err(SubmitError::Nothing(format!(
                "there is no object \"{name}\" in the upload bucket ({hint})"
            )));
        };
        self.send(vec![source], &ProgressDisplay::new("objects", None), out).await
    }

    async fn submit_prefix(&mut self, prefix: &str, out: &mut impl Write) -> Result<(), SubmitError> {
        let versioned = self.uploads.may_be_versioned().await?;
        let waiting = ProgressDisplay::new("objects", None);
        let mut next = None;
        loop {
            let page = self.uploads.page(prefix, versioned, next).await?;
            self.tally.others += page.others;
            self.tally.gone += page.gone;
            self.send(page.videos, &waiting, out).await?;
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        if self.tally.submitted + self.tally.refused > 0 {
            return Ok(());
        }
        let others = match self.tally.others {
            0 => "no object".to_owned(),
            others => {
                format!(
                    "no video ({} with other suffixes than {})",
                    format::count(others, "object"),
                    objects::suffixes()
                )
            }
        };
        Err(SubmitError::Nothing(format!("there is {others} under \"{}\"", format::clean(prefix))))
    }

    /// Sends a page of events, or lists what would be sent.
    async fn send(
        &mut self,
        sources: Vec<Source>,
        waiting: &ProgressDisplay,
        out: &mut impl Write,
    ) -> Result<(), SubmitError> {
        if self.dry_run {
            for source in sources {
                self.tally.submitted += 1;
                waiting.aside(|| writeln!(out, "{}", dry_line(&source)))?;
                waiting.step(1);
            }
            return Ok(());
        }
        let letters: Vec<_> =
            sources.iter().map(|source| letter(source, self.request_ids.as_mut())).collect();
        let (queue, url) = (self.queue, self.url);
        let batches = letters.chunks(BATCH).zip(sources.chunks(BATCH));
        let sending = batches
            .map(|(letters, sources)| async move { (sources, sqs_send::send(queue, url, letters).await) });
        let mut sending = stream::iter(sending).buffer_unordered(AT_ONCE);
        let mut failure = None;
        while let Some((sources, sent)) = sending.next().await {
            waiting.step(sources.len() as u64);
            match sent {
                Ok(refused) => {
                    self.tally.submitted += (sources.len() - refused.len()) as u64;
                    self.tally.refused += refused.len() as u64;
                    for refused in refused {
                        let key = sources.get(refused.index).map(|source| source.key.as_str());
                        waiting.aside(|| error!(key, reason = refused.reason, "not submitted"));
                    }
                }
                // Wait for the batches in flight, so that the count is right.
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }
}

fn dry_line(source: &Source) -> String {
    let size = source.size.map(|size| format!("  {}", DecimalBytes(size))).unwrap_or_default();
    format!("s3://{}/{}{size}", source.bucket, format::clean(source.key.as_str()))
}

fn letter(source: &Source, request_ids: Option<&mut RequestIds>) -> OutgoingMessage {
    let mut message = OutgoingMessage { body: notification::about(source), ..OutgoingMessage::default() };
    if let Some(ids) = request_ids {
        message.set_attribute(RESTART_ATTRIBUTE, "String", ids.next().to_string());
    }
    message
}

impl Tally {
    fn line(&self, dry_run: bool) -> String {
        let verb = if dry_run { "would be submitted" } else { "submitted" };
        let mut line = format!("{} {verb}", format::count(self.submitted, "object"));
        for (count, what) in [
            (self.refused, "refused by SQS"),
            (self.others, "left out for their suffixes"),
            (self.gone, "deleted meanwhile"),
        ] {
            if count > 0 {
                line = format!("{line}; {count} {what}");
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
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
        let settings = ["submit", "--queue-url=http://localhost/1/uploads", "--upload-bucket=uploads"];
        Line::try_parse_from(settings.iter().chain(words)).unwrap().arguments
    }

    fn object(key: &str) -> Object {
        Object::builder().key(key).e_tag("\"e-1\"").size(5).build()
    }

    /// Two pages of a bucket.
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

    /// What is said, how it ended, and which messages were sent.
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
        let uploads = Uploads::new(s3, "uploads".parse().unwrap());
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
    async fn a_prefix_takes_the_videos_of_all_pages_by_their_etags() {
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
    async fn versions_are_asked_for_where_there_may_be_some() {
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
    async fn a_forced_object_has_a_wish_of_its_own() {
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
    async fn what_sqs_refuses_is_counted_and_no_success() {
        let rules: Vec<_> = listing().into_iter().chain([versioning(None)]).collect();
        let (text, result, sent) = submitted(&["s3://uploads/films/"], &rules, "films/7.mov").await;
        assert_eq!(text, "12 objects submitted; 1 refused by SQS; 2 left out for their suffixes\n");
        assert!(matches!(result, Err(SubmitError::Refused(1))));
        assert_eq!(sent.len(), 12);
    }

    #[tokio::test]
    async fn an_object_is_taken_whatever_its_name_and_a_dry_run_sends_nothing() {
        let (text, _, sent) = submitted(&["s3://uploads/notes.txt"], &heads(), NOTHING).await;
        assert_eq!((&*text, sent.len()), ("1 object submitted\n", 1));
        let (text, _, sent) = submitted(&["s3://uploads/notes.txt", "--dry-run"], &heads(), NOTHING).await;
        assert_eq!(text, "s3://uploads/notes.txt  7 B\n1 object would be submitted\n");
        assert_eq!(sent, []);
    }

    #[tokio::test]
    async fn nothing_there_and_other_buckets_are_errors_with_a_sentence() {
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
}
