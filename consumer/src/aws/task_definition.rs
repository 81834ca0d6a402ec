//! The defaults in the transcoder's task definition, for tasks without overrides.

use aws_sdk_ecs::types::{CpuArchitecture, TaskDefinition};
use vidstreamx_job::Size;

/// Ephemeral storage, in GiB, that Fargate does not bill.
pub const FREE_STORAGE_GIB: u32 = 20;

/// Ephemeral storage, in GiB, for a task definition without such a setting: the smallest that a request can
/// name.
const DEFAULT_STORAGE_GIB: u32 = 21;

/// The defaults of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskDefaults {
    /// CPU, memory and storage of a task without overrides.
    pub size: Size,
    /// Whether tasks run on ARM, which has different prices.
    pub arm: bool,
}

impl TaskDefaults {
    /// Reads a task definition; `None` if it has no CPU or memory.
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
