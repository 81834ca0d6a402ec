//! Failures of FFmpeg.

use std::process::ExitStatus;

use vidstreamx_job::Exit;

/// A failed FFmpeg process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FfmpegError {
    /// It cannot be started, or a pipe cannot be created.
    #[error("cannot run ffmpeg: {0} (is it installed?)")]
    Run(std::io::Error),
    /// The source is unusable. The text is for the uploader.
    #[error("{0}")]
    Source(String),
    #[error("ffmpeg was killed, most likely for lack of memory")]
    Killed,
    /// Any other failure.
    #[error("ffmpeg failed ({status}): {complaint}")]
    Failed {
        /// Exit code or signal.
        status: ExitStatus,
        /// Last line of its stderr.
        complaint: String,
    },
    #[error("ffmpeg made no progress for {0} seconds and was stopped")]
    Stalled(u64),
}

impl FfmpegError {
    #[must_use]
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Run(_) => Exit::Misconfigured,
            Self::Source(_) => Exit::Unusable,
            Self::Killed => Exit::OutOfMemory,
            Self::Failed { .. } => Exit::Internal,
            Self::Stalled(_) => Exit::Transient,
        }
    }
}
