//! The services and the clock that a consumer works with. Tests replace them.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    aws::{ecs::Tasks, record_store::RecordStore, sqs::Queue},
    inspect::Uploads,
    metrics::Metrics,
};

/// Returns the current time, for records.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// All that a consumer calls.
#[derive(Clone)]
pub struct Services {
    /// The queue of upload events, with its dead-letter queue.
    pub queue: Arc<dyn Queue>,
    /// The cluster that runs tasks.
    pub tasks: Arc<dyn Tasks>,
    /// The records and reports of jobs.
    pub records: Arc<dyn RecordStore>,
    /// The uploaded objects.
    pub uploads: Arc<dyn Uploads>,
    /// The time, for records.
    pub clock: Clock,
    /// The consumer's own counts.
    pub metrics: Arc<Metrics>,
}
