//! One job, from its record to its end.
//!
//! `reconciler` takes the next step of a job until the job has ended. `next_step` derives the step from
//! the job's record, `admission` decides whether a new job is worth a task, and `restart` requests that a
//! job which has ended starts over. `launcher` starts the task after the `launch_throttle` has let it
//! pass; `task_watcher` waits for the task's end; `task_outcome` classifies it. `job_store` reads and
//! writes the job's documents, `calls` retries calls to AWS, and `attempt_context` is what a consumer
//! knows of a job beside its record.
//!
//! From outside, create a `Reconciler` with its `LaunchThrottle`, run `Reconciler::watch_tasks`, and
//! `Reconciler::follow` each job to its `JobEnd`.

mod admission;
mod attempt_context;
mod calls;
mod job_store;
mod launch_throttle;
mod launcher;
mod next_step;
mod reconciler;
mod restart;
mod task_outcome;
mod task_watcher;

use std::time::Duration;

pub(crate) use launch_throttle::LaunchThrottle;
pub use next_step::Policy;
pub use reconciler::JobOptions;
pub(crate) use reconciler::{JobEnd, Reconciler};
pub(crate) use restart::RestartRequest;

/// Between looks at the progress of another consumer, or of ECS.
const RECHECK_PAUSE: Duration = Duration::from_secs(2);
