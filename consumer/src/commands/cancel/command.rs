//! Finds the jobs to cancel, and follows each one to its end.

use std::{
    io::{self, Write},
    pin::pin,
    time::Duration,
};

use aws_sdk_s3::Client;
use futures::StreamExt as _;
use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tracing::warn;
use vidstreamx_job::{BucketName, Job, JobId, ObjectKey, State};

use super::{
    arguments::{Arguments, Target},
    stream,
};
use crate::{
    aws::{
        ecs::StopTasks,
        error::CallError,
        record_store::{LoadError, RecordStore as _, S3RecordStore, Stored},
    },
    commands::{format, progress::ProgressDisplay, removal::RemovalError, submit::objects::UploadListing},
    reconcile::cancellation::{self, Cancellation},
};

/// Pause between two looks at a job that is being cancelled.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Time for a task to stop and for a consumer to notice. ECS kills a task two minutes after it was told to
/// stop (StopTimeout in the template).
const PATIENCE: Duration = Duration::from_mins(3);

/// An incomplete cancellation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CancelError {
    /// There is nothing of that name, or nothing that runs.
    #[error("{0}")]
    Nothing(String),
    /// No consumer has ended the jobs yet.
    #[error(
        "{} not ended yet: a consumer will end it; until then a task that was just being launched can start, \
         so run \"cancel JOB ID\" again",
        format::count(*.0, "job")
    )]
    Unfinished(u64),
    /// The argument can mean a job or an upload.
    #[error(
        "\"{name}\" is a job id and the name of an upload: use s3://{bucket}/{name} for the upload; to cancel \
         the job, give the key of its video"
    )]
    Ambiguous {
        /// The argument.
        name: String,
        /// The upload bucket.
        bucket: BucketName,
    },
    /// A record cannot be read.
    #[error(transparent)]
    Load(LoadError),
    /// A call failed. It may have taken effect.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The stream was not removed completely.
    #[error(transparent)]
    Removal(#[from] RemovalError),
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
pub(crate) struct Services {
    pub s3: Client,
    pub tasks: Box<dyn StopTasks>,
}

/// Cancels the running jobs of a key, or one job, and waits until they have ended. Removes their streams,
/// also those of jobs that were cancelled before.
///
/// # Errors
/// Nothing runs, a job has not ended in time, or a call failed. The command can be repeated.
pub(crate) async fn cancel(
    services: &Services,
    arguments: &Arguments,
    now: Timestamp,
    out: &mut impl Write,
) -> Result<(), CancelError> {
    let run = Run {
        services,
        arguments,
        records: S3RecordStore::new(services.s3.clone(), arguments.settings.output_bucket.clone()),
        now,
    };
    let jobs = match arguments.target() {
        Ok(Target::Job(job)) => {
            run.refuse_ambiguous(&job).await?;
            vec![job]
        }
        Ok(Target::Key(key)) => run.jobs_of_key(key, out).await?,
        Err(why) => return Err(CancelError::Nothing(why)),
    };
    let mut unfinished = 0;
    for job in &jobs {
        unfinished += u64::from(!run.end(job, out).await?);
    }
    if unfinished > 0 { Err(CancelError::Unfinished(unfinished)) } else { Ok(()) }
}

struct Run<'a> {
    services: &'a Services,
    arguments: &'a Arguments,
    records: S3RecordStore,
    now: Timestamp,
}

impl Run<'_> {
    fn name(&self) -> String {
        format::clean(&self.arguments.name)
    }

    /// Refuses a job id that is also the name of an upload. Job ids are public, so an uploader can give a
    /// file the name of another video's job.
    async fn refuse_ambiguous(&self, job: &JobId) -> Result<(), CancelError> {
        let bucket = &self.arguments.settings.upload_bucket;
        let uploads = UploadListing::new(self.services.s3.clone(), bucket.clone());
        let Ok(key) = job.as_str().parse() else { return Ok(()) };
        match uploads.object(key).await? {
            Some(_) => Err(CancelError::Ambiguous { name: job.to_string(), bucket: bucket.clone() }),
            None => Ok(()),
        }
    }

    /// The running jobs of the key. If no consumer has seen the current upload, it is cancelled here.
    async fn jobs_of_key(&self, key: ObjectKey, out: &mut impl Write) -> Result<Vec<JobId>, CancelError> {
        let Arguments { settings, profile, .. } = self.arguments;
        let uploads = UploadListing::new(self.services.s3.clone(), settings.upload_bucket.clone());
        let source = uploads.object(key.clone()).await?;
        let current = source.map(|source| Job::new(source, settings.output_bucket.clone(), profile.clone()));
        let (mut jobs, mut others) = (Vec::new(), 0);
        let mut is_known = current.is_none();
        let mut records = pin!(self.records.records_of(&settings.upload_bucket, &key));
        while let Some(record) = records.next().await {
            match record {
                Ok(Stored { record, .. }) => {
                    is_known |= current.as_ref().is_some_and(|job| job.id == record.job_id);
                    if record.state == State::Running {
                        jobs.push(record.job_id);
                    } else {
                        others += 1;
                    }
                }
                Err(LoadError::Call(call)) => return Err(call.into()),
                Err(error) => warn!(%error, "a record cannot be read, so its job is not cancelled"),
            }
        }
        // The event of the upload may still wait in the queue.
        if let Some(job) = current.filter(|_| !is_known) {
            if cancellation::cancel_unseen(&self.records, &job, self.now).await? {
                let name = self.name();
                writeln!(
                    out,
                    "{name}: cancelled before any consumer saw it (job {}, profile {profile})",
                    job.id
                )?;
                return Ok(jobs);
            }
            jobs.push(job.id);
        }
        if !jobs.is_empty() {
            return Ok(jobs);
        }
        let name = self.name();
        Err(CancelError::Nothing(if others > 0 {
            format!("no job of \"{name}\" is running: \"vidstreamx-consumer history\" shows how they ended")
        } else {
            format!("there is neither an upload nor a job of the key \"{name}\"")
        }))
    }

    /// Ends a job. Returns false if it has not ended yet.
    async fn end(&self, job: &JobId, out: &mut impl Write) -> Result<bool, CancelError> {
        let name = match self.records.load(job).await? {
            Some(Stored { record, .. }) => format::clean(record.source.key.as_str()),
            None => self.name(),
        };
        match self.follow(job).await? {
            Cancellation::Cancelled => {
                writeln!(out, "{name}: cancelled (job {job})")?;
                self.remove_stream(job, out).await?;
            }
            Cancellation::HadEnded(state) => {
                writeln!(out, "{name}: had ended before, as {} (job {job})", state.name())?;
            }
            Cancellation::Unknown => {
                return Err(CancelError::Nothing(format!("there is no record of the job {job}")));
            }
            Cancellation::Requested { task_arn } => {
                let task = task_arn.map(|arn| format!("; its task {arn} was stopped")).unwrap_or_default();
                writeln!(out, "{name}: cancellation requested (job {job}){task}")?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Repeats the steps of a cancellation until the job has ended, or the time is over.
    async fn follow(&self, job: &JobId) -> Result<Cancellation, CancelError> {
        let progress = ProgressDisplay::new("looks whether a consumer has ended the job", None);
        let begun = Instant::now();
        loop {
            let state = cancellation::cancel(&self.records, &*self.services.tasks, job, self.now).await?;
            if !matches!(state, Cancellation::Requested { .. }) || begun.elapsed() >= PATIENCE {
                return Ok(state);
            }
            progress.step(1);
            sleep(LOOK_EVERY).await;
        }
    }

    async fn remove_stream(&self, job: &JobId, out: &mut impl Write) -> Result<(), CancelError> {
        if self.arguments.keep_stream {
            return Ok(());
        }
        let Some(stored) = self.records.load(job).await? else { return Ok(()) };
        let output = &self.arguments.settings.output_bucket;
        match stream::remove(&self.services.s3, &self.records, output, &stored).await? {
            Some(totals) => write!(out, "{}", totals.lines("deleted"))?,
            None => writeln!(
                out,
                "its stream stays, because the job was done before, or its task had completed the stream"
            )?,
        }
        Ok(())
    }
}
