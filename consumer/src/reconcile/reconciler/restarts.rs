//! Restarts of jobs that have ended, and the notes about requests that a running job fulfils.

use jiff::Timestamp;
use tokio::time::sleep;
use tracing::info;
use vidstreamx_job::{Job, Restart, State};

use super::{
    super::{
        RECHECK_PAUSE,
        job_store::{GivenUp, StepResult},
        restart::{OBJECT_IS_BACK, RestartRequest},
    },
    Reconciler,
};
use crate::{aws::record_store::Stored, inspect::Presence};

/// Number of restarts in a row because a task says that its upload is gone, and S3 says that it is there.
const MOST_CONTRADICTIONS: usize = 3;

/// Number of looks for the record of a job that another delivery has just opened.
const RECORD_LOOKS: u32 = 10;

impl Reconciler {
    /// The job's record, after a restart if one applies; `None` if there is no record.
    pub(super) async fn load_restarted(
        &self,
        job: &Job,
        restart: Option<&RestartRequest>,
    ) -> Result<Option<Box<Stored>>, GivenUp> {
        match self.store.load(&job.id).await? {
            Some(stored) => Ok(Some(Box::new(self.restarted(stored, restart).await?))),
            None => Ok(None),
        }
    }

    /// Records that the job which runs now fulfils a forced restart, so that a second delivery of the request
    /// does not make the video again. Returns false if the job has ended, so that the request may apply to
    /// it.
    pub(super) async fn note_request(&self, job: &Job, forced: &RestartRequest) -> Result<bool, GivenUp> {
        for _ in 0..RECORD_LOOKS {
            let Some(Stored { mut record, etag }) = self.store.load(&job.id).await? else {
                // The delivery that was received first is about to create the record.
                self.calls.unless_shutdown(sleep(RECHECK_PAUSE)).await?;
                continue;
            };
            if record.state.is_end() {
                return Ok(false);
            }
            if !forced.note(&mut record, (self.clock)()) || self.store.save(record, Some(etag)).await?.1 {
                break;
            }
        }
        Ok(true)
    }

    /// Restarts a job that has ended, if a person requests it, or if S3 notifies again of an upload whose
    /// stream is not shown although the object is there. Notes a forced restart that a running job fulfils.
    pub(super) async fn restarted(
        &self,
        mut stored: Stored,
        restart: Option<&RestartRequest>,
    ) -> Result<Stored, GivenUp> {
        loop {
            let now = (self.clock)();
            let record = &stored.record;
            if !record.state.is_end() {
                let Some(restart) = restart else { break };
                let mut record = record.clone();
                if !restart.note(&mut record, now) {
                    break;
                }
                (stored, _) = self.store.save(record, Some(stored.etag)).await?;
                continue;
            }
            let request = if let Some(restart) = restart.filter(|restart| restart.applies_to(record)) {
                restart.to_string()
            } else if record.state == State::Obsolete
                && self.store.presence(&record.source).await? == Presence::Present
            {
                OBJECT_IS_BACK.to_owned()
            } else if record.state == State::Done
                && self.store.shows_another(record).await?
                && self.store.presence(&record.source).await? == Presence::Present
            {
                "uploaded-again".to_owned()
            } else {
                break;
            };
            let is_own;
            (stored, is_own) = self.restart(stored, request, now).await?;
            if is_own {
                break;
            }
        }
        Ok(stored)
    }

    /// Restarts an obsolete job whose object is there, before the end is settled: the object can have come
    /// back while the task ended, and S3's event about it may belong to this job.
    pub(super) async fn restarted_if_back(&self, mut stored: Box<Stored>) -> StepResult {
        while stored.record.state == State::Obsolete && stored.record.cancel_requested_at.is_none() {
            let is_back = |restart: &&Restart| restart.request == OBJECT_IS_BACK;
            let in_a_row = stored.record.restarts.iter().rev().take_while(is_back).count();
            if in_a_row >= MOST_CONTRADICTIONS
                || self.store.presence(&stored.record.source).await? != Presence::Present
            {
                break;
            }
            *stored = self.restart(*stored, OBJECT_IS_BACK.to_owned(), (self.clock)()).await?.0;
        }
        Ok(stored)
    }

    /// Writes a restart into the record. Returns the stored record, and whether this consumer wrote it.
    async fn restart(
        &self,
        stored: Stored,
        request: String,
        now: Timestamp,
    ) -> Result<(Stored, bool), GivenUp> {
        let Stored { mut record, etag } = stored;
        let after_attempt = record.attempts.last().map_or(0, |attempt| attempt.number);
        record.restarts.push(Restart { at: now, after_attempt, request: request.clone() });
        record.state = State::Running;
        record.reason = None;
        record.cancel_requested_at = None;
        record.updated_at = now;
        let (stored, is_own) = self.store.save(record, Some(etag)).await?;
        if is_own {
            info!(request, "video restarted");
        }
        Ok((stored, is_own))
    }
}
