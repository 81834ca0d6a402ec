//! stub
#![allow(missing_docs)]
use crate::header::Facts;
use vidstreamx_job::{Capacity, Size};
#[derive(Debug, Clone, Default)]
pub struct Sizing;
impl Sizing {
    #[must_use]
    pub fn choose(&self, _: Option<u64>, _: Option<&Facts>, base: Size) -> (Size, String) {
        (base, "stub".into())
    }
    #[must_use]
    pub fn cost(&self, size: Size, _: Capacity, _arm: bool, seconds: f64) -> f64 {
        f64::from(size.cpu) / 1024.0 * 0.04048 / 3600.0 * seconds.max(60.0)
    }
}
#[must_use]
pub fn larger(size: Size) -> Option<Size> {
    (size.memory_mib < 30720).then_some(Size { memory_mib: (size.memory_mib * 2).min(30720), ..size })
}
