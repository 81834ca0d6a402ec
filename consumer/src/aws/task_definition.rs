//! What the transcoder's task definition gives a task that a launch does not override.

use aws_sdk_ecs::types::{CpuArchitecture, TaskDefinition};
use vidstreamx_job::Size;

/// Ephemeral storage that is part of every Fargate task's price, in GiB.
pub const FREE_STORAGE_GIB: u32 = 20;

/// Ephemeral storage of a Fargate task whose definition names none, in GiB.
const DEFAULT_STORAGE_GIB: u32 = 21;

/// The defaults of every task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskDefaults {
    /// CPU, memory and storage of a task without overrides.
    pub size: Size,
    /// Whether tasks run on ARM, which has its own prices.
    pub arm: bool,
}

impl TaskDefaults {
    /// Reads a task definition; `None` if it names no CPU or memory.
    #[must_use]
    pub fn read(definition: &TaskDefinition) -> Option<Self> {
        let storage = definition.ephemeral_storage().map(|storage| storage.size_in_gib());
        let size = Size {
            cpu: definition.cpu()?.parse().ok()?,
            memory_mib: definition.memory()?.parse().ok()?,
            storage_gib: storage.and_then(|gib| gib.try_into().ok()).unwrap_or(DEFAULT_STORAGE_GIB),
        };
        let platform = definition.runtime_platform().and_then(|platform| platform.cpu_architecture());
        Some(Self { size, arm: platform == Some(&CpuArchitecture::Arm64) })
    }
}
