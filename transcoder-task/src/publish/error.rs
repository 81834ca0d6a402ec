//! Errors of publication.

use vidstreamx_job::Exit;

use crate::{
    analysis::rejection::ProbeError,
    package::progressive::Mp4Error,
    store::{S3Error, StoreError},
};

/// An error that ends the publication of a stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// FFmpeg's output is not the expected fragmented MP4. `rendition` is `video/1080p`, for example.
    #[error("FFmpeg's output for {rendition} is not valid: {reason}")]
    Output { rendition: String, reason: String },
    /// This attempt's output does not match the segments of an earlier attempt.
    #[error("this attempt cannot resume the output of an earlier one: {0}")]
    Resume(String),
    /// The published output does not match the plan.
    #[error("the output is wrong: {0}")]
    Mismatch(String),
    /// Too little of the source can be decoded. The text is for the person who uploaded it.
    #[error("{0}")]
    Unusable(String),
    /// SIGTERM or SIGINT.
    #[error("terminated by a signal")]
    Terminated,
    /// The source was replaced or removed, or S3 fails.
    #[error(transparent)]
    Source(S3Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Mp4(#[from] Mp4Error),
    /// ffprobe fails for a reason outside the output.
    #[error(transparent)]
    Probe(ProbeError),
}

impl PublishError {
    #[must_use]
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Output { .. } | Self::Resume(_) | Self::Mismatch(_) => Exit::Internal,
            Self::Unusable(_) => Exit::Unusable,
            Self::Terminated => Exit::Terminated,
            Self::Source(error) => error.exit(),
            Self::Store(error) => error.exit(),
            Self::Mp4(error) => error.exit(),
            Self::Probe(error) => error.exit(),
        }
    }
}
