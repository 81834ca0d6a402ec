//! One job, from its record to its end.
//!
//! [`reconciler`] reads a job's record, takes the next step and writes the record, until the job has ended.
//! A launch passes the [`launch_throttle`]; [`task_watcher`] waits for the task's end; [`task_outcome`]
//! classifies the end and names the next step.

pub mod launch_throttle;
pub mod reconciler;
pub mod restart;
pub mod task_outcome;
pub mod task_watcher;
