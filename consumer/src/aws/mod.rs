//! Calls to AWS for the command `run`; the other commands send some requests of their own.
//!
//! [`client`] sets up the SDK, [`names`] checks the names of AWS resources, and [`error`] classifies failed
//! calls. [`sqs`] receives and deletes messages; [`sqs_send`] sends them in batches. [`task_definition`]
//! reads the defaults of tasks. [`run_task`] builds RunTask requests and reads the responses; [`ecs`] starts,
//! finds and describes tasks. [`record_store`] reads and writes job records; [`record_listing`] lists them,
//! all or those of one key. [`versions`] lists and deletes all versions of objects, and [`keys`] encodes
//! their keys.

pub(crate) mod client;
pub mod ecs;
pub mod error;
pub(crate) mod keys;
pub mod names;
pub(crate) mod record_listing;
pub mod record_store;
pub mod run_task;
pub mod sqs;
pub mod sqs_send;
pub mod task_definition;
pub(crate) mod versions;
