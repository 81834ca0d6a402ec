//! The sizes of tasks that Fargate offers.

use std::ops::RangeInclusive;

use vidstreamx_job::Size;

/// CPU units of one vCPU.
pub(super) const VCPU: u32 = 1024;
/// MiB in a GiB.
pub(super) const GIB: u32 = 1024;
/// Ephemeral storage that Fargate accepts, in GiB.
pub(super) const STORAGE_GIB: RangeInclusive<u32> = 21..=200;

/// Fargate's combinations, smallest first (Amazon ECS Developer Guide, "Task CPU and memory"). The smallest
/// vCPU has a gap in its memory sizes.
pub(super) const FARGATE: [Combinations; 8] = [
    Combinations { cpu: 256, least: 512, most: 512, step: 512 },
    Combinations { cpu: 256, least: 1024, most: 2048, step: 1024 },
    Combinations { cpu: 512, least: 1024, most: 4096, step: 1024 },
    Combinations { cpu: 1024, least: 2048, most: 8192, step: 1024 },
    Combinations { cpu: 2048, least: 4096, most: 16_384, step: 1024 },
    Combinations { cpu: 4096, least: 8192, most: 30_720, step: 1024 },
    Combinations { cpu: 8192, least: 16_384, most: 61_440, step: 4096 },
    Combinations { cpu: 16_384, least: 32_768, most: 122_880, step: 8192 },
];
/// Largest memory of any task, in MiB.
pub(super) const MOST_MEMORY: u32 = 122_880;

/// Sizes with the same CPU units: first, last and step of memory in MiB.
pub(super) struct Combinations {
    pub cpu: u32,
    pub least: u32,
    pub most: u32,
    pub step: u32,
}

impl Combinations {
    /// The smallest offered memory that is at least `memory_mib`.
    fn at_least(&self, memory_mib: u32) -> Option<u32> {
        let steps = memory_mib.saturating_sub(self.least).div_ceil(self.step);
        (memory_mib <= self.most).then(|| self.least + steps * self.step)
    }
}

/// A size that Fargate does not offer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSize {
    /// The CPU units are not offered.
    #[error("Fargate does not offer {0} CPU units; allowed: 256, 512, 1024, 2048, 4096, 8192, 16384")]
    Cpu(u32),
    /// The memory is not offered with these CPU units.
    #[error("Fargate does not offer {memory_mib} MiB of memory with {cpu} CPU units; allowed: {allowed}")]
    Memory {
        /// The CPU units.
        cpu: u32,
        /// The memory.
        memory_mib: u32,
        /// Memory that Fargate offers with these CPU units.
        allowed: String,
    },
    /// The storage is too small or too large.
    #[error("Fargate does not offer {0} GiB of storage; allowed: 21 to 200")]
    Storage(u32),
}

/// Checks that Fargate offers a size.
///
/// # Errors
/// Fargate does not offer the size. The error names the wrong value and the allowed ones.
pub(super) fn check(size: Size) -> Result<(), InvalidSize> {
    let rows: Vec<_> = FARGATE.iter().filter(|row| row.cpu == size.cpu).collect();
    if rows.is_empty() {
        return Err(InvalidSize::Cpu(size.cpu));
    }
    if !rows.iter().any(|row| row.at_least(size.memory_mib) == Some(size.memory_mib)) {
        let allowed = rows.iter().map(|row| match row.step {
            _ if row.least == row.most => row.least.to_string(),
            step => format!("{} to {} in steps of {step}", row.least, row.most),
        });
        let allowed = allowed.collect::<Vec<_>>().join(", ");
        return Err(InvalidSize::Memory { cpu: size.cpu, memory_mib: size.memory_mib, allowed });
    }
    if !STORAGE_GIB.contains(&size.storage_gib) {
        return Err(InvalidSize::Storage(size.storage_gib));
    }
    Ok(())
}

/// The size for the attempt after one that ran out of memory: twice the memory, with more vCPUs if necessary.
/// `None` if no size has more memory.
#[must_use]
pub fn larger(size: Size) -> Option<Size> {
    if size.memory_mib >= MOST_MEMORY {
        return None;
    }
    let wanted = size.memory_mib.saturating_mul(2).min(MOST_MEMORY);
    let mut rows = FARGATE.iter().filter(|row| row.cpu >= size.cpu);
    let (cpu, memory_mib) = rows.find_map(|row| Some((row.cpu, row.at_least(wanted)?)))?;
    Some(Size { cpu, memory_mib, storage_gib: storage(size.storage_gib) })
}

/// The size for the attempt after one that ECS refused for its size: half the vCPUs, with the same memory if
/// that is offered. `None` if that is less than one vCPU.
#[must_use]
pub fn smaller(size: Size) -> Option<Size> {
    let row = FARGATE.iter().find(|row| row.cpu == size.cpu / 2 && row.cpu >= VCPU)?;
    let memory_mib = row.at_least(size.memory_mib).unwrap_or(row.most);
    Some(Size { cpu: row.cpu, memory_mib, storage_gib: storage(size.storage_gib) })
}

/// The nearest storage that a request may name. Tasks have 20 GiB by default, but a request for 20 is an
/// error.
pub(super) fn storage(gib: u32) -> u32 {
    gib.clamp(*STORAGE_GIB.start(), *STORAGE_GIB.end())
}
