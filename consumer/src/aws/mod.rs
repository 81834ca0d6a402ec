//! AWS as the consumer uses it: the only room that builds requests to SQS, ECS and the output bucket.
//!
//! [`client`] sets up the SDK; [`error`] sorts what a failed call means for the caller. [`sqs`] receives and
//! deletes messages, [`sqs_send`] sends them in batches. [`run_task`] builds a RunTask request and reads its
//! answer; [`ecs`] starts, finds and describes tasks. [`record_store`] keeps the jobs' records.

pub mod client;
pub mod ecs;
pub mod error;
pub mod names;
pub mod record_store;
pub mod run_task;
pub mod sqs;
pub mod sqs_send;
pub mod task_definition;
