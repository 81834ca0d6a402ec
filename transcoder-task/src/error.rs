//! The task's error and its exit code.

use vidstreamx_job::Exit;

use crate::{
    analysis::rejection::ProbeError,
    ffmpeg::loudness::LoudnessError,
    process::FfmpegError,
    publish::PublishError,
    store::{S3Error, StoreError},
};

/// A failed task.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    /// The source object cannot be read.
    #[error(transparent)]
    Source(#[from] S3Error),
    /// A local file cannot be read.
    #[error("cannot read {path}: {error}")]
    Input { path: String, error: std::io::Error },
    /// The source is not a usable video. The text is for the uploader.
    #[error("{0}")]
    Unusable(String),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error(transparent)]
    Loudness(#[from] LoudnessError),
    #[error(transparent)]
    Ffmpeg(#[from] FfmpegError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// SIGTERM or SIGINT.
    #[error("terminated by a signal")]
    Terminated,
}

impl TaskError {
    #[must_use]
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Source(error) => error.exit(),
            Self::Input { .. } => Exit::Misconfigured,
            Self::Unusable(_) => Exit::Unusable,
            Self::Probe(error) => error.exit(),
            Self::Loudness(error) => error.exit(),
            Self::Ffmpeg(error) => error.exit(),
            Self::Publish(error) => error.exit(),
            Self::Store(error) => error.exit(),
            Self::Terminated => Exit::Terminated,
        }
    }
}
