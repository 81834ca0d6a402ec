//! Opens the source and the output of a task.

use std::{
    path::{Path, PathBuf},
    time::{Instant, SystemTime},
};

use jiff::Timestamp;
use vidstreamx_job::{Job, JobId, Layout, S3Uri, Source};

use crate::{
    config::{
        profile::Profile,
        settings::{InputLocation, OutputLocation, Work},
    },
    error::TaskError,
    source::object::PinnedObject,
    store::{Bucket, S3Error, StatusObject, Store, s3},
};

/// Start of the task, as a time for the report and as an instant for durations.
pub(super) struct StartTime {
    pub(super) at: Timestamp,
    pub(super) instant: Instant,
}

/// Source and output, for a job from the consumer and for a run from the command line.
pub(super) struct TaskContext {
    pub(super) job_id: JobId,
    /// The launch token of the attempt; absent for a run from the command line.
    pub(super) launch: Option<String>,
    /// Path or `s3://` URI of the source, for log lines.
    pub(super) name: String,
    /// Absent for a local file.
    pub(super) source: Option<Source>,
    pub(super) input: TaskInput,
    pub(super) store: Store,
    /// Absent for a run from the command line.
    pub(super) progress: Option<StatusObject>,
}

pub(super) enum TaskInput {
    File(PathBuf),
    Object(Box<PinnedObject>),
    /// The object cannot be opened. The error becomes the report's reason.
    Unavailable(S3Error),
}

impl TaskContext {
    /// Opens source and output.
    ///
    /// # Errors
    /// The source of a run from the command line cannot be opened. The error of a job's source becomes
    /// [`TaskInput::Unavailable`], so that the job gets a report.
    pub(super) async fn open(work: Work, profile: &Profile) -> Result<Self, TaskError> {
        match work {
            Work::Job { job, launch } => Ok(Self::for_job(*job, launch).await),
            Work::CommandLine { input, output } => {
                let store = match output {
                    OutputLocation::Folder(folder) => Store::Folder(folder),
                    OutputLocation::Prefix(S3Uri { bucket: name, path }) => Store::Bucket(Bucket {
                        client: s3::client().await,
                        name,
                        prefix: path.trim_end_matches('/').into(),
                    }),
                };
                match input {
                    InputLocation::Object(uri) => Self::for_object(&uri, store, profile).await,
                    InputLocation::File(path) => Self::for_file(&path, store, profile),
                }
            }
        }
    }

    async fn for_job(job: Job, launch: Option<String>) -> Self {
        let client = s3::client().await;
        let name = s3::uri(&job.source.bucket, job.source.key.as_str());
        let prefix = job.layout().stem().to_owned();
        let input = match PinnedObject::open(client.clone(), job.source.clone()).await {
            Ok(object) => TaskInput::Object(Box::new(object)),
            Err(error) => TaskInput::Unavailable(error),
        };
        let progress = StatusObject {
            client: client.clone(),
            bucket: job.output.clone(),
            key: Layout::progress(&job.id),
        };
        let store = Store::Bucket(Bucket { client, name: job.output, prefix });
        let source = Some(job.source);
        Self { job_id: job.id, launch, name, source, input, store, progress: Some(progress) }
    }

    /// # Errors
    /// The object is missing, or S3 fails.
    async fn for_object(uri: &S3Uri, store: Store, profile: &Profile) -> Result<Self, TaskError> {
        let object = PinnedObject::open_latest(s3::client().await, uri).await?;
        let source = object.source().clone();
        let job_id = JobId::new(&source.bucket, &source.key, source.content(), &profile.fingerprint());
        let (name, source) = (object.uri(), Some(source));
        let input = TaskInput::Object(Box::new(object));
        Ok(Self { job_id, launch: None, name, source, input, store, progress: None })
    }

    /// # Errors
    /// The path is not a readable file.
    fn for_file(path: &Path, store: Store, profile: &Profile) -> Result<Self, TaskError> {
        let name = path.display().to_string();
        let failed = |error| TaskError::Input { path: name.clone(), error };
        let path = std::fs::canonicalize(path).map_err(failed)?;
        let metadata = std::fs::metadata(&path).map_err(failed)?;
        if !metadata.is_file() {
            return Err(failed(std::io::Error::other("it is not a file")));
        }
        let modified = metadata.modified().ok();
        let modified_nanos = modified
            .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
            .map_or(0, |since| since.as_nanos());
        let content = format!("{}:{}:{modified_nanos}", path.display(), metadata.len());
        let job_id = JobId::of_file(&content, &profile.fingerprint());
        let input = TaskInput::File(path);
        Ok(Self { job_id, launch: None, name, source: None, input, store, progress: None })
    }
}
