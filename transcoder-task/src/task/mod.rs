//! One video, from source to report.
//!
//! [`context`] opens source and output. [`attempt`] analyses the source, plans, finds the segments of an
//! earlier attempt, and runs passes over the source; [`inputs`] has the types for an attempt and a pass.
//! [`encode`] runs FFmpeg and publishes the segments; [`finish`] verifies them and publishes the rest.
//! [`report`] writes `job.json` and chooses the exit code. Only [`run`] is called from outside.

mod attempt;
mod context;
mod encode;
mod finish;
mod inputs;
mod report;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use vidstreamx_job::Exit;

use crate::{
    config::{profile::Profile, settings::Settings},
    error::TaskError,
    progress::{self, ProgressState, Writer},
};

use context::{StartTime, TaskContext};
use inputs::Attempt;
use report::ReportDraft;

/// Time to stop after a signal. ECS kills the task 30 s after SIGTERM by default.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// Runs the task, writes the report, and returns the exit code.
pub(crate) async fn run(settings: Settings) -> Exit {
    let start_time = StartTime { at: Timestamp::now(), instant: Instant::now() };
    let context = match TaskContext::open(settings.work, &settings.profile).await {
        Ok(context) => context,
        Err(error) => {
            tracing::error!("{error}");
            return error.exit();
        }
    };
    // The span has the level of errors, so that its fields appear at every log level.
    let span = tracing::error_span!("job", id = %context.job_id, source = context.name);
    transcode(context, settings.profile, start_time).instrument(span).await
}

async fn transcode(context: TaskContext, profile: Profile, start_time: StartTime) -> Exit {
    tracing::info!(output = context.store.locate(""), "started");
    let progress_state = ProgressState::default();
    let writer = context
        .progress
        .clone()
        .map(|object| Writer::start(&progress_state, context.job_id.clone(), start_time.at, object));
    let mut draft = ReportDraft::default();
    let stop = CancellationToken::new();
    let attempt = Attempt {
        context: &context,
        profile: &profile,
        start_time: &start_time,
        progress_state: &progress_state,
        stop: &stop,
    };
    let stop_limit = async {
        termination_signal().await;
        stop.cancel();
        tokio::time::sleep(STOP_LIMIT).await;
    };
    let result = tokio::select! {
        result = attempt.run(&mut draft) => result,
        () = stop_limit => Err(TaskError::Terminated),
        never = progress::show(&progress_state) => match never {},
    };
    let exit = report::conclude(&context, draft, result, &start_time).await;
    progress_state.end(exit);
    if let Some(writer) = writer {
        writer.end().await;
    }
    exit
}

async fn termination_signal() {
    let Ok(mut term) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    let Ok(mut interrupt) = signal(SignalKind::interrupt()) else { return std::future::pending().await };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
}
