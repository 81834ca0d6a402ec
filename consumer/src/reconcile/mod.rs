pub mod launch_throttle;
pub mod reconciler;
pub mod task_outcome;
pub mod task_watcher;
