//! Reads records from the output bucket.

use std::time::Duration;

use aws_sdk_s3::Client;
use futures::{Stream, StreamExt as _, stream};
use jiff::Timestamp;
use serde::Serialize;
use tracing::{debug, warn};
use vidstreamx_job::{BucketName, JobId, Layout, Progress, RECORDS_PREFIX, Record, State};

use crate::{
    aws::error::CallError,
    aws::record_store::{LoadError, RecordStore as _, S3RecordStore},
    commands::progress::ProgressDisplay,
};

/// Number of concurrent reads. A read takes about 30 ms.
const CONCURRENT_READS: usize = 32;
/// Maximum size of a record. A record with 1,000 attempts has about 600 kB.
const LARGEST_RECORD: i64 = 1024 * 1024;
const LARGEST_PROGRESS: i64 = 64 * 1024;
/// Timeout of reading a progress object, which is optional.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(5);

/// A record with its progress.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Video {
    #[serde(flatten)]
    pub record: Record,
    /// The progress of its running task, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// A record in the listing of the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub job: JobId,
    /// Time of the last write by S3's clock, in full seconds.
    pub written: Timestamp,
    /// Size of the record in bytes.
    pub size: i64,
}

/// The result of reading a record.
#[derive(Debug)]
pub(crate) enum Found {
    /// The record matches the filter.
    Video(Box<Video>),
    /// The record does not match the filter.
    Unwanted,
    /// The record has another schema version, or is damaged. Holds the error.
    Unreadable(String),
    /// The record does not exist.
    Nothing,
}

/// Reads the records in the output bucket.
#[derive(Debug)]
pub(crate) struct Store {
    client: Client,
    output: BucketName,
    records: S3RecordStore,
}

impl Store {
    /// The records in this bucket.
    #[must_use]
    pub(crate) fn new(client: Client, output: BucketName) -> Self {
        Self { records: S3RecordStore::new(client.clone(), output.clone()), client, output }
    }

    #[must_use]
    pub(crate) const fn output(&self) -> &BucketName {
        &self.output
    }

    /// The records written since a time, newest first.
    ///
    /// # Errors
    /// A call failed.
    pub(crate) async fn entries(&self, since: Option<Timestamp>) -> Result<Vec<Entry>, CallError> {
        let progress = ProgressDisplay::new("records listed", None);
        let prefix = format!("{RECORDS_PREFIX}jobs/");
        let mut entries = Vec::new();
        let mut next = None;
        loop {
            let page = self
                .client
                .list_objects_v2()
                .bucket(self.output.as_str())
                .prefix(&prefix)
                .set_continuation_token(next)
                .send()
                .await
                .map_err(|error| CallError::new("ListObjectsV2", &error))?;
            progress.step(page.contents().len() as u64);
            for object in page.contents() {
                let key = object.key().unwrap_or_default();
                let name = key.strip_prefix(&prefix).and_then(|name| name.strip_suffix(".json"));
                let Some(job) = name.and_then(|name| name.parse().ok()) else {
                    progress.aside(|| warn!(key, "the object's name is not that of a record"));
                    continue;
                };
                let written = object
                    .last_modified()
                    .and_then(|at| Timestamp::from_nanosecond(at.as_nanos()).ok())
                    .unwrap_or(Timestamp::MAX);
                if since.is_none_or(|since| written >= since) {
                    entries.push(Entry { job, written, size: object.size().unwrap_or_default() });
                }
            }
            next = page.next_continuation_token;
            if next.is_none() {
                break;
            }
        }
        entries.sort_unstable_by(|one, other| (other.written, &one.job).cmp(&(one.written, &other.job)));
        Ok(entries)
    }

    /// Reads records concurrently. Returns them in the order of `entries`.
    pub(crate) fn videos<'a>(
        &'a self,
        entries: &'a [Entry],
        wanted: &'a impl Fn(&Record) -> bool,
    ) -> impl Stream<Item = Result<Found, CallError>> + 'a {
        let read = move |entry: &'a Entry| async move {
            if entry.size > LARGEST_RECORD {
                let size = entry.size;
                return Ok(Found::Unreadable(format!(
                    "the record of {} is too large: {size} bytes",
                    entry.job
                )));
            }
            self.video(&entry.job, wanted).await
        };
        stream::iter(entries).map(read).buffered(CONCURRENT_READS)
    }

    /// Reads one record.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn video(
        &self,
        job: &JobId,
        wanted: &impl Fn(&Record) -> bool,
    ) -> Result<Found, CallError> {
        let record = match self.records.load(job).await {
            Ok(Some(stored)) => stored.record,
            Ok(None) => return Ok(Found::Nothing),
            Err(LoadError::Call(error)) => return Err(error),
            Err(unreadable @ LoadError::Unreadable { .. }) => {
                return Ok(Found::Unreadable(unreadable.to_string()));
            }
        };
        if !wanted(&record) {
            return Ok(Found::Unwanted);
        }
        let progress = match running_since(&record) {
            Some(started) => self.progress(job).await.filter(|progress| belongs_to(progress, started)),
            None => None,
        };
        Ok(Found::Video(Box::new(Video { record, progress })))
    }

    /// The task's progress; `None` if it cannot be read, because it is optional.
    async fn progress(&self, job: &JobId) -> Option<Progress> {
        let read = async {
            let key = Layout::progress(job);
            let answer = self.client.get_object().bucket(self.output.as_str()).key(key).send().await;
            let answer = answer.map_err(|error| debug!(%job, ?error, "no progress")).ok()?;
            if answer.content_length().is_some_and(|length| length > LARGEST_PROGRESS) {
                return None;
            }
            Progress::parse(&answer.body.collect().await.ok()?.into_bytes()).ok()
        };
        tokio::time::timeout(PROGRESS_TIMEOUT, read).await.ok()?
    }
}

/// Maximum difference between the clocks of a consumer and a task. It is less than the time between the
/// starts of two attempts.
const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// The start of the attempt that runs now.
fn running_since(record: &Record) -> Option<Timestamp> {
    let attempt = record.attempts.last().filter(|attempt| attempt.ended_at.is_none());
    attempt.filter(|_| record.state == State::Running).map(|attempt| attempt.started_at)
}

/// Whether the progress is of the attempt that began at `started`, and not of an earlier attempt.
fn belongs_to(progress: &Progress, started: Timestamp) -> bool {
    progress.started_at >= started - CLOCK_SKEW && !progress.stage.is_end()
}
