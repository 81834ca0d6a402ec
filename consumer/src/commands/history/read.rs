//! Records as they are found in the output bucket: which there are, and what they say.

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

/// Objects read at the same time. Each takes some 30 ms, nearly all of it waiting.
const AT_ONCE: usize = 32;
/// A record of 1,000 attempts has some 600 kB; what is larger is none.
const LARGEST_RECORD: i64 = 1024 * 1024;
const LARGEST_PROGRESS: i64 = 64 * 1024;
/// How far two clocks of AWS's may be apart. The next attempt begins later than that after the one before.
const CLOCKS: Duration = Duration::from_secs(5);
/// A sign of life is not worth waiting for.
const PROGRESS_PATIENCE: Duration = Duration::from_secs(5);

/// A record, with what is known beside it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Video {
    /// The record.
    #[serde(flatten)]
    pub record: Record,
    /// Of running ones whose task has said something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// That there is a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Whose.
    pub job: JobId,
    /// When it was last written, by S3's clock, to the second.
    pub written: Timestamp,
    /// In bytes.
    pub size: i64,
}

/// What became of reading a record.
#[derive(Debug)]
pub(crate) enum Found {
    /// It was read, and is wanted.
    Video(Box<Video>),
    /// It was read, and is not wanted.
    Unwanted,
    /// It is there, but another version's, or damaged: what is wrong with it.
    Unreadable(String),
    /// It is not there.
    Nothing,
}

/// The output bucket's records, to be read only.
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

    /// The bucket.
    #[must_use]
    pub(crate) const fn output(&self) -> &BucketName {
        &self.output
    }

    /// The records that were written since then, newest first.
    ///
    /// # Errors
    /// A call failed.
    pub(crate) async fn entries(&self, since: Option<Timestamp>) -> Result<Vec<Entry>, CallError> {
        let waiting = ProgressDisplay::new("records listed", None);
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
            waiting.step(page.contents().len() as u64);
            for object in page.contents() {
                let key = object.key().unwrap_or_default();
                let name = key.strip_prefix(&prefix).and_then(|name| name.strip_suffix(".json"));
                let Some(job) = name.and_then(|name| name.parse().ok()) else {
                    waiting.aside(|| warn!(key, "no record has such a name"));
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

    /// Reads records in their order, some at a time.
    pub(crate) fn videos<'a>(
        &'a self,
        entries: &'a [Entry],
        wanted: &'a impl Fn(&Record) -> bool,
    ) -> impl Stream<Item = Result<Found, CallError>> + 'a {
        let read = move |entry: &'a Entry| async move {
            if entry.size > LARGEST_RECORD {
                let size = entry.size;
                return Ok(Found::Unreadable(format!(
                    "the record of {}: {size} bytes are too many",
                    entry.job
                )));
            }
            self.video(&entry.job, wanted).await
        };
        stream::iter(entries).map(read).buffered(AT_ONCE)
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
        let progress = match is_in_a_task(&record) {
            Some(started) => self.progress(job).await.filter(|progress| is_of(progress, started)),
            None => None,
        };
        Ok(Found::Video(Box::new(Video { record, progress })))
    }

    /// What the job's task says of itself. It is an extra: without it, everything else is still shown.
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
        tokio::time::timeout(PROGRESS_PATIENCE, read).await.ok()?
    }
}

/// When the attempt began that a job is in.
fn is_in_a_task(record: &Record) -> Option<Timestamp> {
    let attempt = record.attempts.last().filter(|attempt| attempt.ended_at.is_none());
    attempt.filter(|_| record.state == State::Running).map(|attempt| attempt.started_at)
}

/// Whether it is about the attempt that began then, and not about an earlier one. The task and the consumer
/// have clocks of their own.
fn is_of(progress: &Progress, started: Timestamp) -> bool {
    progress.started_at >= started - CLOCKS && !progress.stage.is_end()
}
