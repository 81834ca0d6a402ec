//! The command `prune`.

use std::{
    io::{self, Write},
    pin::pin,
};

use aws_sdk_s3::Client;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use vidstreamx_job::JobId;

use super::{
    arguments::Arguments,
    decide::{self, SAFE_AGE},
    stem::Pruner,
    walk,
};
use crate::{
    aws::error::CallError,
    aws::record_store::{LoadError, RecordStore as _, S3RecordStore},
    aws::versions::{Scope, Version, VersionedBucket},
    commands::{
        format,
        progress::ProgressDisplay,
        removal::{
            kind::{self, Kind, job_of_object},
            remover::{RemovalError, Remover},
        },
    },
};

/// An incomplete run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PruneError {
    /// The run ended early.
    #[error(transparent)]
    Removal(#[from] RemovalError),
    /// Some videos were left out. The log names them.
    #[error("{} not pruned: run prune again", format::count(*.0, "video"))]
    Incomplete(u64),
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// Number of videos that are pruned concurrently.
const CONCURRENT_STEMS: usize = 16;
/// Number of concurrent reads of records.
const CONCURRENT_READS: usize = 32;

#[derive(Debug, Default)]
struct Summary {
    stems: u64,
    in_use: u64,
    unknown: u64,
    failed: u64,
}

/// Removes what nothing uses any more, or in a dry run counts it. Prints what was removed, even if the run
/// ends early.
///
/// # Errors
/// The run is incomplete.
pub(crate) async fn prune(
    client: &Client,
    arguments: &Arguments,
    now: Timestamp,
    stop: &CancellationToken,
    out: &mut impl Write,
) -> Result<(), PruneError> {
    let settings = &arguments.settings;
    let progress = ProgressDisplay::new("videos and object versions", None);
    let pruner = Pruner {
        bucket: VersionedBucket::new(client.clone(), settings.output_bucket.clone()),
        records: S3RecordStore::new(client.clone(), settings.output_bucket.clone()),
        uploads: settings.upload_bucket.clone(),
        remover: Remover::new("prune", arguments.dry_run, stop, &progress),
        superseded_for: arguments.superseded_for.map(|days| SignedDuration::from_hours(24 * i64::from(days))),
        now,
    };
    let mut summary = Summary::default();
    let result = match progress_objects(&pruner).await {
        Ok(()) => stems(&pruner, stop, &progress, &mut summary).await,
        Err(error) => Err(error),
    };
    let verb = if arguments.dry_run { "would be removed" } else { "removed" };
    let lines = pruner.remover.totals().lines(verb);
    progress.aside(|| writeln!(out, "{lines}{}", summary.line()))?;
    result?;
    if summary.failed > 0 { Err(PruneError::Incomplete(summary.failed)) } else { Ok(()) }
}

/// Removes the progress objects of jobs that have ended or have no record.
async fn progress_objects(pruner: &Pruner<'_>) -> Result<(), RemovalError> {
    let prefix = kind::progress_objects();
    let pages = pruner.bucket.pages(&prefix, Scope::All);
    let pages = pages.and_then(|page| async move {
        let old = page
            .versions
            .into_iter()
            .filter(|version| decide::is_older(pruner.now, version.written, SAFE_AGE));
        let ended = stream::iter(old)
            .map(|version| async move {
                match job_of_object(&version.key) {
                    Some(job) if has_ended(pruner, &job).await? => Ok(Some(version)),
                    _ => Ok::<_, CallError>(None),
                }
            })
            .buffered(CONCURRENT_READS);
        ended.try_filter_map(|version| async { Ok(version) }).try_collect::<Vec<Version>>().await
    });
    // A task that starts now writes its progress again.
    pruner.remover.remove(&pruner.bucket, pages, |_| Some(Kind::Progress), async || Ok(true)).await
}

async fn has_ended(pruner: &Pruner<'_>, job: &JobId) -> Result<bool, CallError> {
    match pruner.records.load(job).await {
        Ok(stored) => Ok(stored.is_none_or(|stored| stored.record.state.is_end())),
        Err(LoadError::Call(error)) => Err(error),
        Err(LoadError::Unreadable { .. }) => Ok(false),
    }
}

async fn stems(
    pruner: &Pruner<'_>,
    stop: &CancellationToken,
    progress: &ProgressDisplay,
    summary: &mut Summary,
) -> Result<(), RemovalError> {
    let stems = walk::stems(&pruner.bucket).take_until(stop.cancelled());
    let pruning = stems.map(|stem| async move {
        let stem = stem?;
        let pruned = pruner.prune(&stem).await;
        Ok::<_, CallError>((stem, pruned))
    });
    let mut pruning = pin!(pruning.buffer_unordered(CONCURRENT_STEMS));
    while let Some(result) = pruning.next().await {
        let (stem, pruned) = result?;
        progress.step(1);
        summary.stems += 1;
        match pruned {
            Ok(pruned) => {
                summary.in_use += u64::from(pruned.is_in_use);
                summary.unknown += pruned.unknown;
            }
            Err(RemovalError::Changed { .. }) => {
                progress.aside(|| warn!(key = stem.name, "a job of the video was restarted"));
                summary.in_use += 1;
            }
            // The other videos are independent of this one.
            Err(error @ (RemovalError::Call(CallError::Passing { .. }) | RemovalError::Refused { .. })) => {
                progress.aside(|| error!(key = stem.name, %error, "not pruned"));
                summary.failed += 1;
            }
            Err(error) => return Err(error),
        }
    }
    if stop.is_cancelled() { Err(RemovalError::Interrupted { command: "prune" }) } else { Ok(()) }
}

impl Summary {
    fn line(&self) -> String {
        let mut line = format!("{} examined", format::count(self.stems, "video"));
        for (count, what) in
            [(self.in_use, "left, because a job runs or its record cannot be read"), (self.failed, "failed")]
        {
            if count > 0 {
                line = format!("{line}; {count} {what}");
            }
        }
        if self.unknown > 0 {
            let folders = format::count(self.unknown, "folder");
            line = format!("{line}; {folders} left, because no record shows whose they are");
        }
        line
    }
}

#[cfg(test)]
mod tests;
