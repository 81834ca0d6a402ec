//! The task's error and its exit code.

use vidstreamx_job::Exit;

use crate::{
    analysis::rejection::ProbeError, package::progressive::Mp4Error, process::FfmpegError, store::S3Error,
    store::StoreError,
};

/// A failed task.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    /// The source object cannot be read.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// A local file cannot be read.
    #[error("cannot read {path}: {error}")]
    Input { path: String, error: std::io::Error },
    /// The source is not a usable video. The text is for the uploader.
    #[error("{0}")]
    Unusable(String),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error(transparent)]
    Ffmpeg(#[from] FfmpegError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Mp4(#[from] Mp4Error),
    /// FFmpeg's output is not the expected fragmented MP4. `rendition` is `video/1080p`, for example.
    #[error("FFmpeg's output for {rendition} is not valid: {reason}")]
    Output { rendition: String, reason: String },
    /// This attempt's output does not match the segments of an earlier attempt.
    #[error("this attempt cannot resume after the last one: {0}")]
    Resume(String),
    /// The published output does not match the plan.
    #[error("the output is wrong: {0}")]
    Verify(String),
    /// SIGTERM or SIGINT.
    #[error("terminated by a signal")]
    Terminated,
}

impl TaskError {
    /// The exit code that tells the consumer what to do.
    #[must_use]
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::S3(error) => error.exit(),
            Self::Store(error) => error.exit(),
            Self::Mp4(error) => error.exit(),
            Self::Probe(error) => error.exit(),
            Self::Ffmpeg(error) => error.exit(),
            Self::Unusable(_) => Exit::Unusable,
            Self::Input { .. } => Exit::Misconfigured,
            Self::Output { .. } | Self::Resume(_) | Self::Verify(_) => Exit::Internal,
            Self::Terminated => Exit::Terminated,
        }
    }
}
