//! Errors of the store.

use std::io;

use vidstreamx_job::Exit;

use super::s3::S3Error;

/// A failed access to the store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    S3(#[from] S3Error),
    #[error("cannot read or write {path}: {error}")]
    File { path: String, error: io::Error },
}

impl StoreError {
    #[must_use]
    pub(crate) fn exit(&self) -> Exit {
        match self {
            // A missing output bucket does not make the source obsolete.
            Self::S3(S3Error::Gone { .. } | S3Error::Replaced { .. } | S3Error::Archived { .. }) => {
                Exit::Misconfigured
            }
            Self::S3(error) => error.exit(),
            Self::File { error, .. } => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Exit::Transient,
                _ => Exit::Misconfigured,
            },
        }
    }
}
