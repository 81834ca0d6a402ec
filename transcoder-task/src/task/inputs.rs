//! The types for an attempt at a job, and for a pass over its source.

use tokio_util::sync::CancellationToken;

use crate::{
    config::profile::Profile,
    error::TaskError,
    plan::{model::Plan, resume_point::ResumePoint},
    progress::ProgressState,
    source::loopback::Input,
};

use super::context::{StartTime, TaskContext};

/// The inputs that all steps of an attempt share.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) context: &'a TaskContext,
    pub(super) profile: &'a Profile,
    pub(super) start_time: &'a StartTime,
    pub(super) progress_state: &'a ProgressState,
    /// Cancelled by a termination signal.
    pub(super) stop: &'a CancellationToken,
}

/// One pass over the source: its plan, and the point where the pass starts.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) attempt: Attempt<'a>,
    pub(super) plan: &'a Plan,
    /// Absent if the pass starts at the beginning of the source.
    pub(super) resume_point: Option<&'a ResumePoint>,
    pub(super) input: &'a Input,
}

impl Attempt<'_> {
    /// Runs `work` until a termination signal.
    ///
    /// # Errors
    /// `work` fails; [`TaskError::Terminated`] after a signal.
    pub(super) async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = Result<T, TaskError>>,
    ) -> Result<T, TaskError> {
        self.stop.run_until_cancelled(work).await.unwrap_or(Err(TaskError::Terminated))
    }
}
