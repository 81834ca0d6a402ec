//! Finds the jobs to cancel, and follows each one to its end.

use std::{
    io::{self, Write},
    pin::pin,
    time::Duration,
};

use futures::StreamExt as _;
use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tracing::warn;
use vidstreamx_job::{Job, JobId, ObjectKey};

use super::Arguments;
use crate::{
    aws::{
        ecs::StopTasks,
        error::CallError,
        record_store::{LoadError, S3RecordStore, Stored},
    },
    commands::{format, progress::ProgressDisplay, submit::objects::UploadListing},
    reconcile::cancellation::{self, Cancellation},
};

/// Pause between two looks at a job that is being cancelled.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Time for a task to stop and for a consumer to notice: the task has at most two minutes (StopTimeout).
const PATIENCE: Duration = Duration::from_mins(3);

/// An incomplete cancellation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CancelError {
    /// There is nothing of that name, or nothing that runs.
    #[error("{0}")]
    Nothing(String),
    /// No consumer has ended the jobs yet.
    #[error(
        "{} not ended yet: no task will be launched for them, and a consumer ends them; run cancel again to see that",
        format::count(*.0, "job")
    )]
    Unfinished(u64),
    /// A record cannot be read.
    #[error(transparent)]
    Load(LoadError),
    /// A call failed. It may have taken effect.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] io::Error),
}

impl From<LoadError> for CancelError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Call(call) => Self::Call(call),
            unreadable @ LoadError::Unreadable { .. } => Self::Load(unreadable),
        }
    }
}

impl From<cancellation::CancelError> for CancelError {
    fn from(error: cancellation::CancelError) -> Self {
        match error {
            cancellation::CancelError::Load(error) => error.into(),
            cancellation::CancelError::Call(call) => Self::Call(call),
        }
    }
}

/// The services that the command uses.
pub(crate) struct Services<'a> {
    pub records: &'a S3RecordStore,
    pub tasks: &'a dyn StopTasks,
    pub uploads: &'a UploadListing,
}

/// Cancels the running jobs of a key, or one job, and waits until they have ended.
///
/// # Errors
/// Nothing runs, a job has not ended in time, or a call failed. Jobs that were cancelled before stay
/// cancelled.
pub(crate) async fn cancel(
    services: &Services<'_>,
    arguments: &Arguments,
    now: Timestamp,
    out: &mut impl Write,
) -> Result<(), CancelError> {
    let name = format::clean(&arguments.name);
    let running = match arguments.name.parse::<JobId>() {
        Ok(job) => vec![job],
        Err(_) => {
            let key = arguments.name.parse();
            let key = key.map_err(|error| CancelError::Nothing(format!("{name}: {error}")))?;
            let found = jobs_of(services, arguments, &key, now).await?;
            if found.unseen {
                writeln!(out, "{name}: cancelled before any consumer saw it")?;
            } else if found.running.is_empty() {
                return Err(CancelError::Nothing(match found.ended {
                    0 => format!(
                        "there is neither an upload nor a job of the key \"{name}\" in s3://{}",
                        arguments.settings.upload_bucket
                    ),
                    _ => format!("no job of {name} is running: `history` shows how they ended"),
                }));
            }
            found.running
        }
    };
    let mut unfinished = 0;
    for job in &running {
        match follow(services, job, now).await? {
            Cancellation::Cancelled => writeln!(out, "{name}: cancelled (job {job})")?,
            Cancellation::HadEnded(state) => {
                writeln!(out, "{name}: had ended before, as {} (job {job})", state.name())?;
            }
            Cancellation::Unknown => {
                return Err(CancelError::Nothing(format!("there is no record of the job {job}")));
            }
            Cancellation::Requested { task_arn } => {
                unfinished += 1;
                let task = task_arn.map(|arn| format!("; its task {arn} was stopped")).unwrap_or_default();
                writeln!(out, "{name}: cancellation requested (job {job}){task}")?;
            }
        }
    }
    if unfinished > 0 { Err(CancelError::Unfinished(unfinished)) } else { Ok(()) }
}

/// The jobs of a key.
#[derive(Debug, Default)]
struct JobsOfKey {
    running: Vec<JobId>,
    ended: usize,
    /// Whether the current upload had no record, and was cancelled.
    unseen: bool,
}

async fn jobs_of(
    services: &Services<'_>,
    arguments: &Arguments,
    key: &ObjectKey,
    now: Timestamp,
) -> Result<JobsOfKey, CancelError> {
    let settings = &arguments.settings;
    let mut found = JobsOfKey::default();
    let mut is_known = false;
    let current = services.uploads.object(key.clone()).await?;
    let current =
        current.map(|source| Job::new(source, settings.output_bucket.clone(), settings.profile.clone()));
    let mut records = pin!(services.records.records_of(&settings.upload_bucket, key));
    while let Some(record) = records.next().await {
        match record {
            Ok(Stored { record, .. }) => {
                is_known |= current.as_ref().is_some_and(|job| job.id == record.job_id);
                if record.state.is_end() {
                    found.ended += 1;
                } else {
                    found.running.push(record.job_id);
                }
            }
            Err(LoadError::Call(call)) => return Err(call.into()),
            Err(error) => warn!(%error, "a record cannot be read, so its job is not cancelled"),
        }
    }
    // The event of an upload may still wait in the queue.
    if let Some(job) = current.filter(|_| !is_known) {
        if cancellation::cancel_unseen(services.records, &job, now).await? {
            found.unseen = true;
        } else {
            found.running.push(job.id);
        }
    }
    Ok(found)
}

/// Repeats the steps of a cancellation until the job has ended, or the time is over.
async fn follow(
    services: &Services<'_>,
    job: &JobId,
    now: Timestamp,
) -> Result<Cancellation, CancelError> {
    let progress = ProgressDisplay::new("looks at the job, until a consumer has ended it", None);
    let begun = Instant::now();
    loop {
        let state = cancellation::cancel(services.records, services.tasks, job, now).await?;
        if !matches!(state, Cancellation::Requested { .. }) || begun.elapsed() >= PATIENCE {
            return Ok(state);
        }
        progress.step(1);
        sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests;
