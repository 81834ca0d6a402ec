//! The command `submit`.

use std::io::{self, Write};

use futures::{StreamExt as _, stream};
use indicatif::DecimalBytes;
use jiff::Timestamp;
use tracing::error;
use vidstreamx_job::{BucketName, S3Uri, Source};

use super::{
    arguments::Arguments,
    objects::{self, UploadListing},
};
use crate::{
    aws::error::CallError,
    aws::names::QueueUrl,
    aws::sqs::RESTART_ATTRIBUTE,
    aws::sqs_send::BATCH,
    aws::sqs_send::{self, OutgoingMessage},
    commands::format,
    commands::progress::ProgressDisplay,
    intake::notification,
    reconcile::RestartRequest,
};

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
    /// SQS refused some messages. The output names their objects.
    #[error("{} not submitted: run submit again with the same arguments", format::count(*.0, "object"))]
    Refused(u64),
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// Number of batches that are sent concurrently.
const AT_ONCE: usize = 8;

#[derive(Debug, Default)]
struct Tally {
    submitted: u64,
    refused: u64,
    others: u64,
    gone: u64,
}

/// Sends an event per object to the back-fill queue.
///
/// # Errors
/// There is no such object, or some events were not sent.
pub(crate) async fn submit(
    uploads: &UploadListing,
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
        url: &arguments.settings.back_fill_queue_url,
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
    uploads: &'a UploadListing,
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
        let progress = ProgressDisplay::new("objects", None);
        let mut next = None;
        loop {
            let page = self.uploads.page(prefix, versioned, next).await?;
            self.tally.others += page.others;
            self.tally.gone += page.gone;
            self.send(page.videos, &progress, out).await?;
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

    /// Sends an event for each object, or, in a dry run, lists the objects.
    async fn send(
        &mut self,
        sources: Vec<Source>,
        progress: &ProgressDisplay,
        out: &mut impl Write,
    ) -> Result<(), SubmitError> {
        if self.dry_run {
            for source in sources {
                self.tally.submitted += 1;
                progress.aside(|| writeln!(out, "{}", dry_line(&source)))?;
                progress.step(1);
            }
            return Ok(());
        }
        let messages: Vec<_> =
            sources.iter().map(|source| message(source, self.request_ids.as_mut())).collect();
        let (queue, url) = (self.queue, self.url);
        let batches = messages.chunks(BATCH).zip(sources.chunks(BATCH));
        let sending = batches
            .map(|(messages, sources)| async move { (sources, sqs_send::send(queue, url, messages).await) });
        let mut sending = stream::iter(sending).buffer_unordered(AT_ONCE);
        let mut failure = None;
        while let Some((sources, sent)) = sending.next().await {
            progress.step(sources.len() as u64);
            match sent {
                Ok(refused) => {
                    self.tally.submitted += (sources.len() - refused.len()) as u64;
                    self.tally.refused += refused.len() as u64;
                    for refused in refused {
                        let key = sources.get(refused.index).map(|source| source.key.as_str());
                        progress.aside(|| error!(key, reason = refused.reason, "not submitted"));
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

fn message(source: &Source, request_ids: Option<&mut RequestIds>) -> OutgoingMessage {
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
mod tests;
