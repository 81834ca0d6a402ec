//! One error for the whole task, with the exit code each kind means.

use vidstreamx_job::Exit;

use crate::{
    analysis::ffprobe::ProbeError, package::progressive::Mp4Error, process::FfmpegError, store::S3Error,
    store::StoreError,
};

/// Why the task could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// Reading the source object failed.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// A file on this machine could not be read.
    #[error("cannot read {path}: {error}")]
    Input {
        /// The file.
        path: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The source is not a usable video; the text is for its uploader.
    #[error("{0}")]
    Unusable(String),
    /// The source cannot be probed.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// FFmpeg failed.
    #[error(transparent)]
    Ffmpeg(#[from] FfmpegError),
    /// Writing the output failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A progressive file could not be made.
    #[error(transparent)]
    Mp4(#[from] Mp4Error),
    /// FFmpeg wrote something that is not the fragmented MP4 it was asked for.
    #[error("FFmpeg's output for {rendition} is not as it should be: {reason}")]
    Output {
        /// `video/1080p` or the like.
        rendition: String,
        /// What is wrong.
        reason: String,
    },
    /// What this attempt makes does not fit to what an earlier one published.
    #[error("this attempt cannot go on where the last one stopped: {0}")]
    Resume(String),
    /// What was made is not what was planned.
    #[error("the output is wrong: {0}")]
    Verify(String),
    /// SIGTERM or SIGINT.
    #[error("terminated by a signal")]
    Terminated,
}

impl TaskError {
    /// The exit code that tells the consumer what to do.
    pub fn exit(&self) -> Exit {
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
