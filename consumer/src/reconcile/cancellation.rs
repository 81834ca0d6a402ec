//! Cancels a job for an operator, from outside of the consumers.
//!
//! The operator and the consumers agree through the record alone. A job without a task ends at once.
//! Otherwise the request is written into the record, so that no consumer launches another task, and the task
//! is stopped. The consumer that watches the task then ends the job.

use jiff::{SignedDuration, Timestamp};
use vidstreamx_job::{Job, JobId, Record, State};

use super::next_step::{self, NextStep};
use crate::aws::{
    ecs::StopTasks,
    error::CallError,
    record_store::{LoadError, RecordStore, SaveError, Stored},
};

/// The state of a cancellation after one step.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum Cancellation {
    /// There is no record of the job.
    Unknown,
    /// The job had ended before it was cancelled, in this state.
    HadEnded(State),
    /// The job has ended as cancelled.
    Cancelled,
    /// The request is in the record. A consumer ends the job when its task has stopped.
    Requested {
        /// The ARN of the task that is stopping.
        task_arn: Option<String>,
    },
}

/// An incomplete step.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// The record cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A call failed. It may have taken effect.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Takes one step to cancel a job. Repeat it until the job has ended.
///
/// # Errors
/// The record cannot be read, or a call failed. Then the step can be repeated.
pub async fn cancel(
    records: &dyn RecordStore,
    tasks: &dyn StopTasks,
    job: &JobId,
    now: Timestamp,
) -> Result<Cancellation, CancelError> {
    loop {
        let Some(Stored { mut record, etag }) = records.load(job).await? else {
            return Ok(Cancellation::Unknown);
        };
        let requested_at = record.cancel_requested_at;
        let is_requested = requested_at.is_some();
        if record.state.is_end() {
            return Ok(if is_requested && record.state == State::Cancelled {
                Cancellation::Cancelled
            } else {
                Cancellation::HadEnded(record.state)
            });
        }
        let step = next_step::next_step(&record);
        if !is_requested {
            record.cancel_requested_at = Some(now);
            record.updated_at = now;
        }
        match step {
            NextStep::Begin { .. } | NextStep::Cancel | NextStep::Finish => {
                if end(records, record, &etag, now).await? {
                    return Ok(Cancellation::Cancelled);
                }
            }
            NextStep::Launch { .. } => {
                if requested_at.is_some_and(|at| is_over(at, now)) {
                    if end(records, record, &etag, now).await? {
                        return Ok(Cancellation::Cancelled);
                    }
                } else if is_requested || save(records, record, Some(&etag)).await? {
                    return Ok(Cancellation::Requested { task_arn: None });
                }
            }
            NextStep::Watch { arn, .. } => {
                // The request comes before the stop, so that no other task follows.
                let begun = record.attempts.last().map(|attempt| attempt.started_at);
                if !is_requested && !save(records, record.clone(), Some(&etag)).await? {
                    continue;
                }
                let is_known = tasks.stop(&arn, next_step::CANCELLED).await?;
                if is_known || !is_requested || !begun.is_some_and(|at| is_over(at, now)) {
                    return Ok(Cancellation::Requested { task_arn: Some(arn.to_string()) });
                }
                if end(records, record, &etag, now).await? {
                    return Ok(Cancellation::Cancelled);
                }
            }
        }
    }
}

/// ECS forgets a task an hour after its end, and a consumer notices a request earlier. A job about which
/// nothing happens for longer has no consumer: its message is gone.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_mins(65);

fn is_over(since: Timestamp, now: Timestamp) -> bool {
    now.duration_since(since) > FORGOTTEN_AFTER
}

/// Ends a job in its record. Returns false if another record was written meanwhile.
async fn end(
    records: &dyn RecordStore,
    mut record: Record,
    etag: &str,
    now: Timestamp,
) -> Result<bool, CancelError> {
    next_step::cancel(&mut record, now);
    save(records, record, Some(etag)).await
}

/// Creates the record of a job that no consumer has seen yet, as cancelled. Returns false if there is a
/// record meanwhile.
///
/// # Errors
/// The call failed. The record may have been created.
pub async fn cancel_unseen(
    records: &dyn RecordStore,
    job: &Job,
    now: Timestamp,
) -> Result<bool, CancelError> {
    let mut record = Record::new(job, now);
    record.cancel_requested_at = Some(now);
    next_step::cancel(&mut record, now);
    save(records, record, None).await
}

/// Writes a record. Returns false if another one was written meanwhile.
async fn save(
    records: &dyn RecordStore,
    mut record: Record,
    replaced: Option<&str>,
) -> Result<bool, CancelError> {
    record.write_id = fastrand::u64(..);
    match records.save(&record, replaced).await {
        Ok(_) => Ok(true),
        Err(SaveError::Conflict) => Ok(false),
        Err(SaveError::Call(error)) => Err(error.into()),
    }
}
