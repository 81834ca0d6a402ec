pub mod client;
pub mod ecs;
pub mod error;
pub mod record_store;
pub mod run_task;
pub mod sqs;
pub mod sqs_send;
