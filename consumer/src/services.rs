//! The services and the clock of a consumer. Tests replace them.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    aws::{ecs::Tasks, record_store::RecordStore, sqs::Queue},
    inspect::Uploads,
    metrics::Metrics,
};

/// Returns the current time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The services of a consumer.
#[derive(Clone)]
pub struct Services {
    /// The queue of the upload bucket's events, with its dead-letter queue.
    pub upload_queue: Arc<dyn Queue>,
    /// The queue of the events that operators send, with the same dead-letter queue.
    pub back_fill_queue: Arc<dyn Queue>,
    /// The cluster that runs the tasks.
    pub tasks: Arc<dyn Tasks>,
    /// The records and reports of jobs.
    pub records: Arc<dyn RecordStore>,
    /// The uploaded objects.
    pub uploads: Arc<dyn Uploads>,
    /// The clock for timestamps in records.
    pub clock: Clock,
    /// The consumer's metrics.
    pub metrics: Arc<Metrics>,
}
