//! The objects of a job in S3: its record, its report and its upload.

use std::{sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use tracing::debug;
use vidstreamx_job::{Job, JobId, Record, Report, Source};

use super::{
    calls::{CallEnd, Calls, ShuttingDown},
    shared_causes::Kind,
};
use crate::{
    aws::error::CallError,
    aws::record_store::{LoadError, RecordStore, SaveError, Stored},
    inspect::{Inspection, Presence, Uploads},
};

/// Number of tries of an inspection, and the pause before the second try.
const INSPECTION_TRIES: usize = 3;
const INSPECTION_PAUSE: Duration = Duration::from_millis(500);

/// The reason why a step is not completed.
#[derive(Debug)]
pub(super) enum GivenUp {
    ShuttingDown,
    /// The record or report cannot be read.
    Unreadable(LoadError),
    /// Calls of this kind failed repeatedly. The last one may have taken effect.
    Failing(Kind, CallError),
}

impl From<ShuttingDown> for GivenUp {
    fn from(_: ShuttingDown) -> Self {
        Self::ShuttingDown
    }
}

impl From<CallEnd> for GivenUp {
    fn from(end: CallEnd) -> Self {
        match end {
            CallEnd::ShuttingDown => Self::ShuttingDown,
            CallEnd::Failed(kind, error) => Self::Failing(kind, error),
        }
    }
}

/// The record after a step.
pub(super) type StepResult = Result<Box<Stored>, GivenUp>;

/// Reads and writes the objects of jobs, with retries.
pub(super) struct JobStore {
    records: Arc<dyn RecordStore>,
    uploads: Arc<dyn Uploads>,
    calls: Calls,
}

impl JobStore {
    pub(super) fn new(records: Arc<dyn RecordStore>, uploads: Arc<dyn Uploads>, calls: Calls) -> Self {
        Self { records, uploads, calls }
    }

    /// The job's record; `None` if there is none.
    ///
    /// # Errors
    /// The calls fail, the record cannot be read, or the consumer shuts down.
    pub(super) async fn load(&self, job: &JobId) -> Result<Option<Stored>, GivenUp> {
        self.read(Kind::ReadRecord, || self.records.load(job)).await
    }

    /// The job's record as it is now, or `stored` if the record was deleted.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub(super) async fn reload(&self, stored: Box<Stored>) -> StepResult {
        Ok(self.load(&stored.record.job_id).await?.map_or(stored, Box::new))
    }

    /// The task's report; `None` if there is none.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub(super) async fn report(&self, job: &Job) -> Result<Option<Report>, GivenUp> {
        self.read(Kind::ReadReport, || self.records.report(job)).await
    }

    /// Writes a record in place of the version `replaced`. Returns the stored record, and whether it is
    /// `record`. If another consumer wrote first, its record is read and returned.
    ///
    /// # Errors The calls fail, another consumer's record cannot be read, or the consumer shuts down.
    /// `record` may have been written.
    pub(super) async fn save(
        &self,
        mut record: Record,
        replaced: Option<String>,
    ) -> Result<(Stored, bool), GivenUp> {
        record.write_id = fastrand::u64(..);
        let save = || async {
            match self.records.save(&record, replaced.as_deref()).await {
                Ok(etag) => Ok(Some(etag)),
                Err(SaveError::Conflict) => Ok(None),
                Err(SaveError::Call(error)) => Err(error),
            }
        };
        if let Some(etag) = self.calls.with_retries(Kind::WriteRecord, save).await? {
            return Ok((Stored { record, etag }, true));
        }
        match self.load(&record.job_id).await? {
            // The response to an earlier try may have been lost.
            Some(stored) => {
                let is_own = stored.record.write_id == record.write_id;
                Ok((stored, is_own))
            }
            // An operator deleted the record to restart the job.
            None => Box::pin(self.save(record, None)).await,
        }
    }

    /// Inspects the upload; `None` if S3 does not respond. The inspection is optional, because the task
    /// checks the upload itself. A shutdown ends the inspection at once.
    ///
    /// # Errors
    /// The consumer shuts down.
    pub(super) async fn inspect(&self, source: &Source) -> Result<Option<Inspection>, ShuttingDown> {
        let retries =
            ExponentialBuilder::new().with_min_delay(INSPECTION_PAUSE).with_max_times(INSPECTION_TRIES - 1);
        let inspection = (|| self.uploads.inspect(source))
            .retry(retries)
            .notify(|error, _| debug!(%error, "the inspection of the upload failed"));
        let inspection = self.calls.unless_shutdown(inspection).await?.ok();
        if inspection.is_some() {
            self.calls.succeeded(Kind::ReadUpload);
        }
        Ok(inspection)
    }

    /// Checks whether the upload still exists.
    ///
    /// # Errors
    /// The calls fail, or the consumer shuts down.
    pub(super) async fn presence(&self, source: &Source) -> Result<Presence, CallEnd> {
        self.calls.with_retries(Kind::ReadUpload, || self.uploads.presence(source)).await
    }

    /// Whether the stable address of the job's key shows the stream of another job.
    ///
    /// # Errors
    /// The calls fail, or the consumer shuts down.
    pub(super) async fn shows_another(&self, record: &Record) -> Result<bool, CallEnd> {
        self.calls.with_retries(Kind::ReadAddress, || self.records.shows_another(record)).await
    }

    async fn read<T, F>(&self, kind: Kind, read: impl Fn() -> F) -> Result<T, GivenUp>
    where
        F: Future<Output = Result<T, LoadError>>,
    {
        let read = || async {
            match read().await {
                Ok(found) => Ok(Ok(found)),
                Err(LoadError::Call(error)) => Err(error),
                Err(unreadable) => Ok(Err(unreadable)),
            }
        };
        self.calls.with_retries(kind, read).await?.map_err(GivenUp::Unreadable)
    }
}
