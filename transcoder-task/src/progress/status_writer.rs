//! Progress for programs, in the status object in S3.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tracing::Instrument;
use vidstreamx_job::JobId;

use crate::store::{S3Error, StatusObject};

use super::state::{ProgressState, State};

/// Time from one write to the next. Each write costs money.
const WRITE_INTERVAL: Duration = Duration::from_secs(5);
/// Time limit of a write, and of the wait for the last one.
pub(super) const WRITE_LIMIT: Duration = Duration::from_secs(3);

/// Properties that identify the task in the status object.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) job_id: JobId,
    pub(super) started_at: Timestamp,
}

/// A background task that writes the progress.
#[derive(Debug)]
pub(crate) struct Writer(pub(super) JoinHandle<()>);

impl Writer {
    /// Starts the writer. Its first write happens when the first stage begins.
    pub(crate) fn start(
        progress_state: &ProgressState,
        job_id: JobId,
        started_at: Timestamp,
        object: StatusObject,
    ) -> Self {
        let states = progress_state.subscribe();
        let task = Task { job_id, started_at };
        let write = async move { write_regularly(states, &task, |json| object.put(json)).await };
        Self(tokio::spawn(write.in_current_span()))
    }

    /// Waits for the write of the final state, for [`WRITE_LIMIT`] at most.
    pub(crate) async fn end(self) {
        if timeout(WRITE_LIMIT, self.0).await.is_err() {
            tracing::debug!("the final progress was not written in time");
        }
    }
}

/// Writes the current state every [`WRITE_INTERVAL`], one write at a time, and the final state immediately.
/// Also writes if nothing has changed, so that readers see that the task is alive.
pub(super) async fn write_regularly<F>(
    mut states: watch::Receiver<State>,
    task: &Task,
    put: impl Fn(Bytes) -> F,
) where
    F: Future<Output = Result<(), S3Error>>,
{
    // An error means that the sender is gone.
    if states.wait_for(|state| state.stage.is_some()).await.is_err() {
        return;
    }
    loop {
        let began = Instant::now();
        let (progress, is_end) = {
            let state = states.borrow_and_update();
            (state.progress(&task.job_id, task.started_at, began, Timestamp::now()), state.is_end())
        };
        let Some(Ok(json)) = progress.map(|progress| serde_json::to_vec(&progress)) else { return };
        match timeout(WRITE_LIMIT, put(json.into())).await {
            Ok(Ok(())) => {}
            // A missing permission does not change while the task runs.
            Ok(Err(error @ S3Error::Refused { .. })) => {
                tracing::warn!("the task continues without progress reports: {error}");
                return;
            }
            Ok(Err(error)) => tracing::debug!("progress was not written: {error}"),
            Err(_) => tracing::debug!("progress was not written within {} s", WRITE_LIMIT.as_secs()),
        }
        if is_end {
            return;
        }
        tokio::select! {
            () = sleep_until(began + WRITE_INTERVAL) => {}
            end = states.wait_for(State::is_end) => if end.is_err() { return },
        }
    }
}
