//! The objects of a job in S3: its record, its report and its upload.

use std::{sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use tracing::debug;
use vidstreamx_job::{Job, JobId, Record, Report, Source};

use super::calls::{Calls, ShuttingDown};
use crate::{
    aws::record_store::{LoadError, RecordStore, SaveError, Stored},
    inspect::{Inspection, Presence, Uploads},
};

/// Number of tries of an inspection, and the pause before the second try.
const INSPECTION_TRIES: usize = 3;
const INSPECTION_PAUSE: Duration = Duration::from_millis(500);

/// The reason why a job is not followed to its end.
#[derive(Debug)]
pub(super) enum GivenUp {
    ShuttingDown,
    /// The record or report cannot be read.
    Unreadable(LoadError),
}

impl From<ShuttingDown> for GivenUp {
    fn from(_: ShuttingDown) -> Self {
        Self::ShuttingDown
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
    /// The record cannot be read, or the consumer shuts down.
    pub(super) async fn load(&self, job: &JobId) -> Result<Option<Stored>, GivenUp> {
        self.read(|| self.records.load(job)).await
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
    /// The report cannot be read, or the consumer shuts down.
    pub(super) async fn report(&self, job: &Job) -> Result<Option<Report>, GivenUp> {
        self.read(|| self.records.report(job)).await
    }

    /// Writes a record in place of the version `replaced`. Returns the stored record, and whether it is
    /// `record`. If another consumer wrote first, its record is read and returned.
    ///
    /// # Errors
    /// The consumer shuts down, or another consumer's record cannot be read. `record` may have been written.
    pub(super) async fn save(
        &self,
        record: Record,
        replaced: Option<String>,
    ) -> Result<(Stored, bool), GivenUp> {
        let save = || async {
            match self.records.save(&record, replaced.as_deref()).await {
                Ok(etag) => Ok(Some(etag)),
                Err(SaveError::Conflict) => Ok(None),
                Err(SaveError::Call(error)) => Err(error),
            }
        };
        if let Some(etag) = self.calls.until_done(save).await? {
            return Ok((Stored { record, etag }, true));
        }
        match self.load(&record.job_id).await? {
            // It can be this consumer's own record, if the response to an earlier try was lost. This cannot
            // be detected, because two consumers that act at the same time write identical records.
            Some(stored) => Ok((stored, false)),
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
        Ok(self.calls.unless_shutdown(inspection).await?.ok())
    }

    /// Checks whether the upload still exists.
    ///
    /// # Errors
    /// The consumer shuts down before S3 responds.
    pub(super) async fn presence(&self, source: &Source) -> Result<Presence, ShuttingDown> {
        self.calls.until_done(|| self.uploads.presence(source)).await
    }

    async fn read<T, F>(&self, read: impl Fn() -> F) -> Result<T, GivenUp>
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
        self.calls.until_done(read).await?.map_err(GivenUp::Unreadable)
    }
}
