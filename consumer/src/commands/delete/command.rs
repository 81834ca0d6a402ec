//! The command `delete`.

use std::io::{self, Write};

use aws_sdk_s3::Client;
use futures::{Stream, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;
use vidstreamx_job::{BucketName, InvalidLocation, JobId, Layout, ObjectKey, SchemaError};

use super::{arguments::Arguments, jobs};
use crate::{
    aws::error::CallError,
    aws::versions::{Scope, Version, VersionedBucket},
    commands::{
        format,
        progress::ProgressDisplay,
        removal::{
            kind::{self, Kind, job_of_folder},
            remover::{RemovalError, Remover},
        },
    },
};

/// An incomplete deletion.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeleteError {
    /// The argument has no key.
    #[error(transparent)]
    Key(#[from] InvalidLocation),
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A job runs or waits for its next attempt.
    #[error(
        "job {job} is running: run \"vidstreamx-consumer cancel {}\" first, and delete again when it has ended",
        format::clean(key.as_str())
    )]
    Running {
        /// The upload.
        key: ObjectKey,
        /// The job.
        job: JobId,
    },
    /// A record has another schema version or is damaged, so its job may run.
    #[error("{record}: {error}; if it is damaged, delete this object first")]
    Unreadable {
        /// The record's address.
        record: String,
        /// The fault.
        error: SchemaError,
    },
    /// There is nothing to delete.
    #[error("there is nothing of \"{key}\" in {buckets}")]
    Nothing {
        /// The argument.
        key: String,
        /// The buckets that were searched.
        buckets: String,
    },
    /// Some objects were not deleted.
    #[error(transparent)]
    Removal(#[from] RemovalError),
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// The upload to delete.
#[derive(Debug)]
pub(super) struct Upload {
    pub bucket: BucketName,
    pub key: ObjectKey,
    /// Its stable address.
    pub stem: String,
}

/// Deletes everything about the upload, or in a dry run counts it. Prints what was deleted, even if the
/// deletion is incomplete.
///
/// # Errors
/// A job runs, there is nothing to delete, or the deletion is incomplete.
pub(crate) async fn delete(
    client: &Client,
    arguments: &Arguments,
    stop: &CancellationToken,
    out: &mut impl Write,
) -> Result<(), DeleteError> {
    let key = arguments.key()?;
    let settings = &arguments.settings;
    let progress = ProgressDisplay::new("object versions", None);
    let run = Run {
        client,
        output: VersionedBucket::new(client.clone(), settings.output_bucket.clone()),
        uploads: VersionedBucket::new(client.clone(), settings.upload_bucket.clone()),
        upload: Upload { stem: Layout::stem_of(&key), bucket: settings.upload_bucket.clone(), key },
        remover: Remover::new("delete", arguments.dry_run, stop, &progress),
    };
    let result = run.all(arguments).await;
    let totals = run.remover.totals();
    let verb = if arguments.dry_run { "would be deleted" } else { "deleted" };
    progress.aside(|| write!(out, "{}", totals.lines(verb)))?;
    result?;
    if totals.is_empty() {
        let output = format!("s3://{}", settings.output_bucket);
        let uploads = arguments.source.then(|| format!("s3://{}", settings.upload_bucket));
        let buckets = [Some(output), uploads].into_iter().flatten().collect::<Vec<_>>().join(" and ");
        return Err(DeleteError::Nothing { key: format::clean(run.upload.key.as_str()), buckets });
    }
    Ok(())
}

struct Run<'a> {
    client: &'a Client,
    output: VersionedBucket,
    uploads: VersionedBucket,
    upload: Upload,
    remover: Remover<'a>,
}

impl Run<'_> {
    async fn all(&self, arguments: &Arguments) -> Result<(), DeleteError> {
        let Self { output, upload, .. } = self;
        let jobs = jobs::find(self.client, output, upload).await?;
        if arguments.source {
            let versions = self.uploads.object(upload.key.as_str()).await?;
            self.remove(&self.uploads, one_page(versions), |_| Some(Kind::Upload)).await?;
        }
        let stem = format!("{}/", upload.stem);
        let kind = |version: &Version| kind::below_stem(&upload.stem, &version.key);
        let children = output.pages(&stem, Scope::Children).map_ok(|page| page.versions);
        self.remove(output, children, kind).await?;
        let mut pages = std::pin::pin!(output.pages(&stem, Scope::Children));
        while let Some(page) = pages.try_next().await? {
            for folder in page.folders.iter().filter(|folder| job_of_folder(folder).is_some()) {
                let objects = output.pages(folder, Scope::All).map_ok(|page| page.versions);
                self.remove(output, objects, kind).await?;
            }
        }
        for job in &jobs {
            let versions = output.object(&Layout::progress(job)).await?;
            self.remove(output, one_page(versions), |_| Some(Kind::Progress)).await?;
        }
        if !arguments.dry_run {
            // A message may have restarted a job meanwhile. Its task needs the record.
            jobs::find(self.client, output, upload).await?;
        }
        for job in &jobs {
            let versions = output.object(&Layout::record(job)).await?;
            self.remove(output, one_page(versions), |_| Some(Kind::Record)).await?;
        }
        Ok(())
    }

    async fn remove(
        &self,
        bucket: &VersionedBucket,
        pages: impl Stream<Item = Result<Vec<Version>, CallError>>,
        kind: impl Fn(&Version) -> Option<Kind>,
    ) -> Result<(), RemovalError> {
        // No job of the upload runs, so nothing uses its objects.
        self.remover.remove(bucket, pages, kind, async || Ok(true)).await
    }
}

fn one_page(versions: Vec<Version>) -> impl Stream<Item = Result<Vec<Version>, CallError>> {
    stream::once(async { Ok(versions) })
}

#[cfg(test)]
mod tests;
