//! One job, from its record to its end.
//!
//! [`reconciler`] takes the next step of a job until the job has ended. [`next_step`] derives the step from
//! the job's record. [`admission`] decides whether a new job gets a task, and [`restart`] describes requests
//! to restart an ended job. [`launcher`] starts the task when the [`launch_throttle`] permits it.
//! [`task_watcher`] waits for the task's end, and [`task_outcome`] classifies it. [`job_store`] reads and
//! writes the job's objects in S3, [`calls`] retries calls to AWS, and [`attempt_context`] is the state of a
//! job in this consumer.
//!
//! Three modules keep one video's fault from others: [`in_flight`] counts the videos that take a place
//! and [`slots`] limits their tasks,
//! [`evidence`] tells a shared cause from a video's own, and [`shared_causes`] pauses receiving and launches
//! while a cause is shared.
//!
//! Operators steer with [`pause`], which stops launches, and [`cancellation`], which ends a job from outside.
//!
//! To use this module, create a [`Reconciler`] with its [`SharedCauses`], run [`Reconciler::watch_tasks`],
//! and [`Reconciler::follow`] each job to its [`JobEnd`].

mod admission;
mod attempt_context;
mod calls;
pub mod cancellation;
mod evidence;
mod in_flight;
mod job_store;
mod launch_throttle;
mod launcher;
mod next_step;
mod pause;
mod reconciler;
mod restart;
mod shared_causes;
mod slots;
mod task_outcome;
mod task_watcher;

use std::time::Duration;

pub(crate) use in_flight::{InFlight, Place};
pub use next_step::Policy;
pub(crate) use pause::PauseSwitch;
pub use reconciler::JobOptions;
pub(crate) use reconciler::{JobEnd, Reconciler};
pub(crate) use restart::RestartRequest;
pub(crate) use shared_causes::SharedCauses;

/// Pause before the record or the tasks of a job are read again, while another consumer or ECS is at work.
const RECHECK_PAUSE: Duration = Duration::from_secs(2);
