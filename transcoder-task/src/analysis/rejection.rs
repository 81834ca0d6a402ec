//! Errors of probing, and the texts that the uploader of a rejected file reads.

use std::process::ExitStatus;

use vidstreamx_job::Exit;

use super::limits::{LONGEST_SIDE, MOST_PIXELS};

/// The text for an encrypted file.
pub(crate) const ENCRYPTED: &str = "the file is encrypted (copy protection); upload an unprotected version";

/// A failed probe.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    /// The file is not a usable video. The text is for the uploader.
    #[error("{0}")]
    Unusable(String),
    #[error("cannot run ffprobe: {0} (is FFmpeg installed?)")]
    Run(std::io::Error),
    #[error("the file's header could not be read from S3 within a minute")]
    Slow,
    #[error("ffprobe was killed, most likely for lack of memory")]
    Killed,
    #[error("ffprobe crashed ({0})")]
    Crashed(ExitStatus),
    #[error("ffprobe's output cannot be read: {0}")]
    Answer(String),
}

impl ProbeError {
    #[must_use]
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Unusable(_) => Exit::Unusable,
            Self::Run(_) => Exit::Misconfigured,
            Self::Slow => Exit::Transient,
            Self::Killed => Exit::OutOfMemory,
            Self::Crashed(_) | Self::Answer(_) => Exit::Internal,
        }
    }
}

pub(super) fn unusable(reason: impl Into<String>) -> ProbeError {
    ProbeError::Unusable(reason.into())
}

pub(super) fn oversize(width: u32, height: u32) -> ProbeError {
    unusable(format!(
        "the picture is {width} × {height} pixels; the limits are {LONGEST_SIDE} pixels a side and {} million pixels \
         in all",
        MOST_PIXELS / 1_000_000
    ))
}
