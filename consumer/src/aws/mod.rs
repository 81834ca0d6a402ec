//! Calls to AWS. Requests to SQS, ECS and the output bucket are built only here.
//!
//! [`client`] sets up the SDK, and [`error`] classifies failed calls. [`sqs`] receives and deletes messages;
//! [`sqs_send`] sends them in batches. [`run_task`] builds RunTask requests and reads the responses; [`ecs`]
//! starts, finds and describes tasks. [`record_store`] reads and writes job records.

pub mod client;
pub mod ecs;
pub mod error;
pub mod names;
pub mod record_store;
pub mod run_task;
pub mod sqs;
pub mod sqs_send;
pub mod task_definition;
