//! Deletes listed versions page by page, or counts them in a dry run.

use std::{
    pin::pin,
    sync::{Mutex, PoisonError},
};

use futures::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::kind::{Kind, Totals};
use crate::{
    aws::error::CallError,
    aws::versions::{Refused, Version, VersionedBucket},
    commands::{format, progress::ProgressDisplay},
};

/// Number of pages that are deleted concurrently. S3 accepts 3,500 deletions per second and prefix, and a
/// page takes about a second.
const CONCURRENT_PAGES: usize = 3;

/// An incomplete deletion.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemovalError {
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// S3 refused some versions. The log names them.
    #[error("{} not deleted: run {command} again", format::count(*.count, "object version"))]
    Refused {
        /// Number of versions.
        count: u64,
        /// The command's name.
        command: &'static str,
    },
    /// S3 denied access to some versions. The log names them.
    #[error(
        "access to {} is denied: allow s3:DeleteObjectVersion and s3:DeleteObject, or remove their lock if the \
         bucket has Object Lock, and run {command} again",
        format::count(*.count, "object version")
    )]
    Denied {
        /// Number of versions.
        count: u64,
        /// The command's name.
        command: &'static str,
    },
    /// The job of the objects was restarted, or its record changed in another way.
    #[error("the job's record changed during the deletion: run {command} again")]
    Changed {
        /// The command's name.
        command: &'static str,
    },
    /// The user interrupted the command.
    #[error("interrupted: run {command} again for the rest")]
    Interrupted {
        /// The command's name.
        command: &'static str,
    },
}

/// Deletes versions, or only counts them in a dry run.
#[derive(Debug)]
pub(crate) struct Remover<'a> {
    command: &'static str,
    dry_run: bool,
    stop: &'a CancellationToken,
    /// Counts the versions.
    progress: &'a ProgressDisplay,
    totals: Mutex<Totals>,
}

impl<'a> Remover<'a> {
    #[must_use]
    pub(crate) fn new(
        command: &'static str,
        dry_run: bool,
        stop: &'a CancellationToken,
        progress: &'a ProgressDisplay,
    ) -> Self {
        Self { command, dry_run, stop, progress, totals: Mutex::default() }
    }

    /// What was deleted so far, or would be.
    #[must_use]
    pub(crate) fn totals(&self) -> Totals {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Deletes the versions of all pages that have a kind. Before each page, `is_unchanged` must confirm that
    /// nothing uses the objects.
    ///
    /// # Errors
    /// The deletion is incomplete. Versions after the failure are not deleted, except those of pages in
    /// flight.
    pub(crate) async fn remove(
        &self,
        bucket: &VersionedBucket,
        pages: impl Stream<Item = Result<Vec<Version>, CallError>>,
        kind: impl Fn(&Version) -> Option<Kind>,
        is_unchanged: impl AsyncFn() -> Result<bool, CallError>,
    ) -> Result<(), RemovalError> {
        let halt = self.stop.child_token();
        let (kind, is_unchanged) = (&kind, &is_unchanged);
        let deleting = pages.take_until(halt.cancelled()).map(|page| async move {
            let page: Vec<_> = page?.into_iter().filter(|version| kind(version).is_some()).collect();
            if page.is_empty() {
                return Ok((page, Vec::new()));
            }
            if !is_unchanged().await? {
                return Err(RemovalError::Changed { command: self.command });
            }
            let refused = if self.dry_run { Vec::new() } else { bucket.delete(&page).await? };
            Ok((page, refused))
        });
        let mut deleting = pin!(deleting.buffer_unordered(CONCURRENT_PAGES));
        let mut failure = None;
        let (mut refused, mut denied) = (0, 0);
        while let Some(result) = deleting.next().await {
            match result {
                Ok((page, not_deleted)) => {
                    self.count(&page, &not_deleted, kind);
                    refused += not_deleted.len() as u64;
                    denied += not_deleted.iter().filter(|refused| refused.is_denied).count() as u64;
                }
                // Wait for the pages in flight, so that the totals are right.
                Err(error) => {
                    failure.get_or_insert(error);
                    halt.cancel();
                }
            }
        }
        let command = self.command;
        match failure {
            Some(error) => Err(error),
            None if denied > 0 => Err(RemovalError::Denied { count: denied, command }),
            None if refused > 0 => Err(RemovalError::Refused { count: refused, command }),
            None if self.stop.is_cancelled() => Err(RemovalError::Interrupted { command }),
            None => Ok(()),
        }
    }

    fn count(&self, page: &[Version], refused: &[Refused], kind: impl Fn(&Version) -> Option<Kind>) {
        self.progress.step(page.len() as u64);
        for Refused { key, reason, .. } in refused {
            self.progress.aside(|| error!(key, reason, "not deleted"));
        }
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        for version in page {
            if let Some(kind) =
                kind(version).filter(|_| !refused.iter().any(|refused| refused.key == version.key))
            {
                totals.add(kind, version.bytes);
            }
        }
    }
}
