//! The prices, and the cost of a task.

use serde::Deserialize;
use vidstreamx_job::{Capacity, Size};

use super::{
    error::SizingError,
    fargate::{GIB, VCPU},
};
use crate::aws::task_definition::FREE_STORAGE_GIB;

/// Shortest time that Fargate bills.
const LEAST_SECONDS: f64 = 60.0;

/// The prices, in US dollars per hour.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Prices {
    pub x86_vcpu_hour: f64,
    pub x86_gib_hour: f64,
    pub arm_vcpu_hour: f64,
    pub arm_gib_hour: f64,
    /// Price of storage beyond the free 20 GiB.
    pub storage_gib_hour: f64,
    /// Price of vCPUs and memory on Spot, as a share of the on-demand price.
    pub spot_share: f64,
}

impl Prices {
    pub(super) fn validate(&self) -> Result<(), SizingError> {
        for (field, value) in [
            ("x86_vcpu_hour", self.x86_vcpu_hour),
            ("x86_gib_hour", self.x86_gib_hour),
            ("arm_vcpu_hour", self.arm_vcpu_hour),
            ("arm_gib_hour", self.arm_gib_hour),
            ("storage_gib_hour", self.storage_gib_hour),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(SizingError::Price { field, value, expected: "0 or more US dollars" });
            }
        }
        let value = self.spot_share;
        if !(0.0..=1.0).contains(&value) {
            return Err(SizingError::Price { field: "spot_share", value, expected: "0 to 1" });
        }
        Ok(())
    }

    /// Estimated cost of a task in US dollars for the billed time. `arm` selects the prices of Graviton.
    #[must_use]
    pub(super) fn cost(&self, size: Size, capacity: Capacity, arm: bool, billed_seconds: f64) -> f64 {
        let (vcpu_hour, gib_hour) = if arm {
            (self.arm_vcpu_hour, self.arm_gib_hour)
        } else {
            (self.x86_vcpu_hour, self.x86_gib_hour)
        };
        let share = match capacity {
            Capacity::OnDemand => 1.0,
            Capacity::Spot => self.spot_share,
        };
        let vcpus = f64::from(size.cpu) / f64::from(VCPU);
        let memory = f64::from(size.memory_mib) / f64::from(GIB);
        let storage = f64::from(size.storage_gib.saturating_sub(FREE_STORAGE_GIB));
        let hour = share * (vcpus * vcpu_hour + memory * gib_hour) + storage * self.storage_gib_hour;
        hour * billed_seconds.max(LEAST_SECONDS) / 3600.0
    }
}
