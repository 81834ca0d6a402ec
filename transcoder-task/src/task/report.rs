//! The task's report and exit code.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use vidstreamx_job::{Exit, Outcome, Probe, Rendition, Report, Timings};

use crate::{
    error::TaskError,
    publish::{
        checkpoint,
        stable_address::{MASTER, retract},
    },
    store::{CachePolicy, JSON, Store, StoreError},
};

use super::context::{StartTime, TaskContext, TaskInput};

const REPORT: &str = "job.json";
/// Time to remove a checkpoint. The stream is complete, so the task does not wait longer.
const CLEANUP_LIMIT: Duration = Duration::from_secs(5);

/// The results so far, for the report.
#[derive(Default)]
pub(super) struct ReportDraft {
    pub(super) folder: Option<String>,
    pub(super) probe: Option<Probe>,
    pub(super) renditions: Vec<Rendition>,
    pub(super) warnings: Vec<String>,
    pub(super) probe_seconds: Option<f64>,
    pub(super) playable_seconds: Option<f64>,
    pub(super) encode_seconds: Option<f64>,
}

impl ReportDraft {
    fn finish(
        self,
        context: &TaskContext,
        outcome: Outcome,
        reason: Option<String>,
        start_time: &StartTime,
    ) -> Report {
        Report {
            schema: Report::SCHEMA,
            job_id: context.job_id.clone(),
            launch: context.launch.clone(),
            outcome,
            reason,
            source: context.source.clone(),
            folder: self.folder,
            probe: self.probe,
            renditions: self.renditions,
            warnings: self.warnings,
            timings: Timings {
                started_at: start_time.at,
                finished_at: Timestamp::now(),
                probe_seconds: self.probe_seconds,
                first_playable_seconds: self.playable_seconds,
                encode_seconds: self.encode_seconds,
                total_seconds: start_time.instant.elapsed().as_secs_f64(),
            },
        }
    }
}

/// Writes the report and returns the exit code. Also takes an incomplete stream off the stable address if
/// viewers must not see it any more.
pub(super) async fn conclude(
    context: &TaskContext,
    draft: ReportDraft,
    result: Result<(), TaskError>,
    start_time: &StartTime,
) -> Exit {
    let exit = match &result {
        Ok(()) => Exit::Done,
        Err(error) => error.exit(),
    };
    let reason = result.err().map(|error| error.to_string());
    if let Some(reason) = &reason {
        tracing::error!(exit_code = exit.code(), "{reason}");
    }
    match exit {
        // There may be no time for a report.
        Exit::Terminated => return exit,
        // The incomplete stream is of no use, or may be wrong. A later attempt publishes its own output at
        // the stable address.
        Exit::Unusable | Exit::Obsolete | Exit::Internal => {
            if let Err(error) = retract(&context.store, &context.job_id).await {
                tracing::warn!("the incomplete stream stays at the stable address: {error}");
            }
        }
        // The stream is complete, or the next attempt continues it.
        Exit::Done | Exit::Transient | Exit::Misconfigured | Exit::OutOfMemory => {}
    }
    let report = draft.finish(context, exit.into(), reason, start_time);
    match write_report(context, &report).await {
        Ok(()) if exit == Exit::Done => {
            if let Some(folder) = &report.folder {
                remove_checkpoint(&context.store, folder).await;
            }
            tracing::info!(
                total_seconds = report.timings.total_seconds,
                renditions = report.renditions.len(),
                master = context.store.locate(MASTER),
                "done"
            );
            exit
        }
        Ok(()) => exit,
        Err(error) if exit == Exit::Done => {
            tracing::error!("the stream is complete, but its report cannot be written: {error}");
            error.exit()
        }
        Err(error) => {
            tracing::warn!("the report cannot be written: {error}");
            exit
        }
    }
}

/// Tries to remove the checkpoint of a complete stream.
async fn remove_checkpoint(store: &Store, folder: &str) {
    match tokio::time::timeout(CLEANUP_LIMIT, checkpoint::remove(store, folder)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("the checkpoint of the complete stream was not removed: {error}"),
        Err(_) => tracing::warn!(
            "the checkpoint of the complete stream was not removed within {} s",
            CLEANUP_LIMIT.as_secs()
        ),
    }
}

/// Writes the report into the job's folder. Also writes it to the stable address if it describes the stream
/// there, or the rejection of the latest upload.
async fn write_report(context: &TaskContext, report: &Report) -> Result<(), StoreError> {
    let json: Bytes = serde_json::to_vec_pretty(report)
        .map_err(|error| StoreError::File { path: REPORT.into(), error: error.into() })?
        .into();
    let policy = CachePolicy::Replaceable(JSON);
    context.store.put(&format!("{}/{REPORT}", context.job_id), policy, json.clone()).await?;
    let is_latest = match report.outcome {
        Outcome::Complete => true,
        Outcome::Rejected => match &context.input {
            TaskInput::Object(object) => object.check_current().await.is_ok(),
            TaskInput::File(_) | TaskInput::Unavailable(_) => true,
        },
        Outcome::Obsolete | Outcome::Failed => false,
    };
    if is_latest {
        context.store.put(REPORT, policy, json).await?;
    }
    Ok(())
}
