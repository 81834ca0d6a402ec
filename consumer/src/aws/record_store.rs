//! Job records and task reports in S3.
//!
//! Records are written conditionally. If several consumers write the same record, S3 accepts one write. That
//! consumer takes the job's next step, and the others read the record again. Consumers need no other
//! coordination.

use aws_sdk_s3::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    primitives::ByteStream,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;
use vidstreamx_job::{BucketName, Job, JobId, Layout, Record, Report, SchemaError};

use crate::aws::error::{CallError, CallFuture, status};

/// A record and its version in S3.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The record.
    pub record: Record,
    /// The ETag, for a conditional write.
    pub etag: String,
}

/// The error of writing a record.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Another consumer wrote the record first.
    #[error("another consumer wrote the record first")]
    Conflict,
    /// The call failed. The record may have been written.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// The error of reading a record or report.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It exists, but has another schema version, or is damaged.
    #[error("s3://{bucket}/{key}: {error}")]
    Unreadable {
        /// Its bucket.
        bucket: BucketName,
        /// Its key.
        key: String,
        /// The fault.
        error: SchemaError,
    },
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// The object that pauses a stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Time of the pause, by the operator's clock.
    pub since: Timestamp,
    /// The operator's reason; can be empty.
    #[serde(default)]
    pub reason: String,
}

/// Records and reports.
pub trait RecordStore: Send + Sync {
    /// A job's record.
    ///
    /// # Errors
    /// It cannot be read. `Ok(None)` means that it does not exist.
    fn load<'a>(&'a self, job: &'a JobId) -> CallFuture<'a, Option<Stored>, LoadError>;

    /// Writes a record: replaces the version `replaced`, or creates the record. Returns its new ETag.
    ///
    /// # Errors
    /// [`SaveError::Conflict`] if the stored version is not `replaced`.
    fn save<'a>(&'a self, record: &'a Record, replaced: Option<&'a str>)
    -> CallFuture<'a, String, SaveError>;

    /// The task's report on a job. A task decodes untrusted files, so a report that is too large or that
    /// names another job counts as missing.
    ///
    /// # Errors
    /// It cannot be read. `Ok(None)` means that it does not exist.
    fn report<'a>(&'a self, job: &'a Job) -> CallFuture<'a, Option<Report>, LoadError>;

    /// The operator's pause; `Ok(None)` if the stack is not paused. An object that cannot be parsed pauses
    /// the stack, too.
    ///
    /// # Errors
    /// The call failed.
    fn pause(&self) -> CallFuture<'_, Option<Pause>>;

    /// Whether the stable address of the job's key shows the stream of another job.
    ///
    /// # Errors
    /// The call failed.
    fn shows_another<'a>(&'a self, record: &'a Record) -> CallFuture<'a, bool>;
}

/// Maximum bytes of a report. The largest real ones have some 100 KB.
const LARGEST_REPORT: i64 = 4 << 20;
/// The objects at a stable address that point to the stream.
const POINTERS: [&str; 2] = ["master.m3u8", "manifest.mpd"];

/// Records and reports in S3.
#[derive(Debug, Clone)]
pub struct S3RecordStore {
    pub(super) client: Client,
    pub(super) output: BucketName,
}

impl S3RecordStore {
    /// The records and reports in this bucket.
    #[must_use]
    pub const fn new(client: Client, output: BucketName) -> Self {
        Self { client, output }
    }

    /// An object's content and ETag; `None` if there is none, or if it has more than `largest` bytes.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn get(&self, key: &str, largest: i64) -> Result<Option<(Vec<u8>, String)>, CallError> {
        let call = "GetObject";
        let answer = match self.client.get_object().bucket(self.output.as_str()).key(key).send().await {
            Ok(answer) => answer,
            Err(error) if status(&error) == Some(404) && code(&error) != Some("NoSuchBucket") => {
                return Ok(None);
            }
            Err(error) => return Err(CallError::new(call, &error)),
        };
        let etag = answer.e_tag.unwrap_or_default();
        if answer.content_length.is_some_and(|length| length > largest) {
            warn!(s3.key = key, "the object is too large and counts as missing");
            return Ok(None);
        }
        let body = answer.body.collect().await;
        let body = body.map_err(|error| CallError::Passing { call, reason: error.to_string() })?;
        Ok(Some((body.to_vec(), etag)))
    }

    fn unreadable(&self, key: String) -> impl FnOnce(SchemaError) -> LoadError + '_ {
        move |error| LoadError::Unreadable { bucket: self.output.clone(), key, error }
    }
}

impl RecordStore for S3RecordStore {
    fn load<'a>(&'a self, job: &'a JobId) -> CallFuture<'a, Option<Stored>, LoadError> {
        Box::pin(async move {
            let key = Layout::record(job);
            let Some((json, etag)) = self.get(&key, i64::MAX).await? else { return Ok(None) };
            let record = Record::parse(&json).map_err(self.unreadable(key))?;
            Ok(Some(Stored { record, etag }))
        })
    }

    fn save<'a>(
        &'a self,
        record: &'a Record,
        replaced: Option<&'a str>,
    ) -> CallFuture<'a, String, SaveError> {
        Box::pin(async move {
            let call = "PutObject";
            let json = serde_json::to_vec(record)
                .map_err(|error| CallError::Passing { call, reason: error.to_string() })?;
            let put = self
                .client
                .put_object()
                .bucket(self.output.as_str())
                .key(Layout::record(&record.job_id))
                .content_type("application/json")
                .body(ByteStream::from(json));
            let put = match replaced {
                Some(etag) => put.if_match(etag),
                None => put.if_none_match("*"),
            };
            match put.send().await {
                Ok(answer) => Ok(answer.e_tag.unwrap_or_default()),
                // 409: two conditional writes at the same time. 404: the object to replace was deleted.
                Err(error)
                    if matches!(status(&error), Some(404 | 409 | 412))
                        && code(&error) != Some("NoSuchBucket") =>
                {
                    Err(SaveError::Conflict)
                }
                Err(error) => Err(CallError::new(call, &error).into()),
            }
        })
    }

    fn report<'a>(&'a self, job: &'a Job) -> CallFuture<'a, Option<Report>, LoadError> {
        Box::pin(async move {
            let key = job.layout().own("job.json");
            let Some((json, _)) = self.get(&key, LARGEST_REPORT).await? else { return Ok(None) };
            let report = Report::parse(&json).map_err(self.unreadable(key))?;
            Ok(Some(report).filter(|report| report.job_id == job.id))
        })
    }

    fn pause(&self) -> CallFuture<'_, Option<Pause>> {
        Box::pin(async move {
            let Some((json, _)) = self.get(&Layout::pause(), i64::MAX).await? else { return Ok(None) };
            let unreadable = |_| Pause { since: Timestamp::UNIX_EPOCH, reason: "unreadable".to_owned() };
            Ok(Some(serde_json::from_slice(&json).unwrap_or_else(unreadable)))
        })
    }

    fn shows_another<'a>(&'a self, record: &'a Record) -> CallFuture<'a, bool> {
        Box::pin(async move {
            let layout = Layout::new(&record.source.key, &record.job_id);
            for pointer in POINTERS {
                if let Some((text, _)) = self.get(&layout.stable(pointer), LARGEST_REPORT).await? {
                    return Ok(!points_to(&text, &record.job_id));
                }
            }
            Ok(false)
        })
    }
}

/// Whether a playlist or manifest at a stable address points into the job's folder.
#[must_use]
pub(crate) fn points_to(pointer: &[u8], job: &JobId) -> bool {
    String::from_utf8_lossy(pointer).contains(&format!("{job}/"))
}

fn code<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Option<&str> {
    error.as_service_error().and_then(|error| error.meta().code())
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::operation::{get_object::GetObjectOutput, put_object::PutObjectOutput};
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

    use super::*;
    use crate::fixtures::record;

    fn s3(rules: &[&Rule]) -> S3RecordStore {
        S3RecordStore::new(mock_client!(aws_sdk_s3, RuleMode::MatchAny, rules), "streams".parse().unwrap())
    }

    fn answer(status: u16, code: &str) -> (u16, Option<String>) {
        (status, Some(format!("<Error><Code>{code}</Code><Message>m</Message></Error>")))
    }

    #[tokio::test]
    async fn every_write_is_conditional() {
        let record = record();
        let first = mock!(Client::put_object)
            .match_requests(|put| put.if_none_match() == Some("*") && put.if_match().is_none())
            .then_output(|| PutObjectOutput::builder().e_tag("\"1\"").build());
        assert_eq!(s3(&[&first]).save(&record, None).await.unwrap(), "\"1\"");

        let next = mock!(Client::put_object)
            .match_requests(|put| put.if_match() == Some("\"1\"") && put.if_none_match().is_none())
            .then_output(|| PutObjectOutput::builder().e_tag("\"2\"").build());
        assert_eq!(s3(&[&next]).save(&record, Some("\"1\"")).await.unwrap(), "\"2\"");
    }

    #[tokio::test]
    async fn a_write_conflict_differs_from_a_failed_call() {
        let record = record();
        for (http, error_code, conflict) in [
            (412, "PreconditionFailed", true),
            (409, "ConditionalRequestConflict", true),
            (404, "NoSuchKey", true),
            (404, "NoSuchBucket", false),
            (403, "AccessDenied", false),
        ] {
            let (http, body) = answer(http, error_code);
            let rule = mock!(Client::put_object).sequence().http_status(http, body).repeatedly().build();
            let error = s3(&[&rule]).save(&record, Some("\"1\"")).await.unwrap_err();
            assert_eq!(matches!(error, SaveError::Conflict), conflict, "{error_code}: {error}");
            if let SaveError::Call(error) = error {
                assert!(error.is_configuration(), "{error}");
            }
        }
    }

    #[tokio::test]
    async fn a_missing_record_is_none_and_an_unreadable_one_is_an_error() {
        let (http, body) = answer(404, "NoSuchKey");
        let missing = mock!(Client::get_object).sequence().http_status(http, body).repeatedly().build();
        assert!(s3(&[&missing]).load(&record().job_id).await.unwrap().is_none());

        let newer = mock!(Client::get_object)
            .match_requests(|get| get.key().is_some_and(|key| key.starts_with(".vidstreamx/jobs/")))
            .then_output(|| {
                GetObjectOutput::builder().body(ByteStream::from_static(b"{\"schema\":9}")).build()
            });
        let error = s3(&[&newer]).load(&record().job_id).await.unwrap_err().to_string();
        assert!(error.contains("s3://streams/.vidstreamx/jobs/") && error.contains("version 9"), "{error}");
    }
}
