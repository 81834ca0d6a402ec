//! Reads records from the output bucket.

use std::time::Duration;

use aws_sdk_s3::Client;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use serde::Serialize;
use tracing::debug;
use vidstreamx_job::{BucketName, JobId, Layout, ObjectKey, Progress, Record, State};

use crate::{
    aws::error::CallError,
    aws::record_listing::Entry,
    aws::record_store::{LoadError, RecordStore as _, S3RecordStore},
};

/// Number of concurrent reads. A read takes about 30 ms, and its connection 40 KB.
const CONCURRENT_READS: usize = 96;
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

    /// Lists the records written since a time, in no order.
    pub(crate) fn entries(&self, since: Timestamp) -> impl Stream<Item = Result<Vec<Entry>, CallError>> + '_ {
        self.records.entries().map_ok(move |mut page| {
            page.retain(|entry| entry.written >= since);
            page
        })
    }

    /// Reads records concurrently. Returns them in the order of `entries`.
    pub(crate) fn videos<'a>(
        &'a self,
        entries: impl Stream<Item = Entry> + 'a,
        wanted: &'a impl Fn(&Record) -> bool,
    ) -> impl Stream<Item = Result<Found, CallError>> + 'a {
        let read = move |entry: Entry| async move {
            let Entry { job, size, .. } = entry;
            if size > LARGEST_RECORD {
                return Ok(Found::Unreadable(format!("the record of {job} is too large: {size} bytes")));
            }
            self.video(&job, wanted).await
        };
        entries.map(read).buffered(CONCURRENT_READS)
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
        Ok(Found::Video(Box::new(self.with_progress(record).await)))
    }

    /// Reads the records of all jobs of a key.
    ///
    /// # Errors
    /// A call failed.
    pub(crate) async fn videos_of(
        &self,
        bucket: &BucketName,
        key: &ObjectKey,
    ) -> Result<Vec<Found>, CallError> {
        let mut found = Vec::new();
        let mut records = std::pin::pin!(self.records.records_of(bucket, key));
        while let Some(record) = records.next().await {
            found.push(match record {
                Ok(stored) => Found::Video(Box::new(self.with_progress(stored.record).await)),
                Err(LoadError::Call(error)) => return Err(error),
                Err(unreadable @ LoadError::Unreadable { .. }) => Found::Unreadable(unreadable.to_string()),
            });
        }
        Ok(found)
    }

    async fn with_progress(&self, record: Record) -> Video {
        let progress = match running_since(&record) {
            Some(started) => {
                self.progress(&record.job_id).await.filter(|progress| belongs_to(progress, started))
            }
            None => None,
        };
        Video { record, progress }
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
