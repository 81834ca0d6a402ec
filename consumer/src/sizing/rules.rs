//! The rules: conditions on a video, and the size for it.

use serde::Deserialize;
use vidstreamx_job::Size;

use super::{
    error::SizingError,
    fargate::{self, GIB, STORAGE_GIB, VCPU},
};
use crate::inspect::media_facts::{MediaFacts, codecs};

/// A rule: the conditions on a video, and the size.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub name: String,
    max_gib: Option<f64>,
    min_megapixels: Option<f64>,
    max_megapixels: Option<f64>,
    max_minutes: Option<f64>,
    codecs: Option<Vec<String>>,
    vcpu: Option<f64>,
    memory_gib: Option<f64>,
    storage_gib: Option<u32>,
}

impl Rule {
    pub(super) fn validate(&self) -> Result<(), SizingError> {
        let wrong = |field, value: String, expected: &str| {
            Err(SizingError::Rule { rule: self.name.clone(), field, value, expected: expected.into() })
        };
        if self.name.trim().is_empty() {
            return wrong("name", "empty".into(), "a name, because records give it as the reason for a size");
        }
        for (field, value) in [
            ("max_gib", self.max_gib),
            ("min_megapixels", self.min_megapixels),
            ("max_megapixels", self.max_megapixels),
            ("max_minutes", self.max_minutes),
        ] {
            if let Some(value) = value.filter(|value| !(value.is_finite() && *value > 0.0)) {
                return wrong(field, value.to_string(), "more than 0");
            }
        }
        if let (Some(min), Some(max)) = (self.min_megapixels, self.max_megapixels)
            && min > max
        {
            return wrong("min_megapixels", min.to_string(), "at most max_megapixels");
        }
        if let Some(unknown) =
            self.codecs.iter().flatten().find(|codec| !codecs().any(|known| known == **codec))
        {
            let expected = format!("any of {}", codecs().collect::<Vec<_>>().join(", "));
            return wrong("codecs", format!("\"{unknown}\""), &expected);
        }
        if self.codecs.as_ref().is_some_and(Vec::is_empty) {
            return wrong("codecs", "empty".into(), "at least one codec, or no such line");
        }
        let storage_gib = self.storage_gib.unwrap_or(*STORAGE_GIB.start());
        let size = match (self.vcpu, self.memory_gib) {
            (None, None) => Size { cpu: VCPU, memory_mib: 2 * GIB, storage_gib },
            (Some(vcpu), Some(memory)) => {
                let Some(cpu) = whole(vcpu, VCPU) else {
                    return wrong("vcpu", vcpu.to_string(), "0.25, 0.5, 1, 2, 4, 8 or 16");
                };
                let Some(memory_mib) = whole(memory, GIB) else {
                    return wrong("memory_gib", memory.to_string(), "an integer, or 0.5");
                };
                Size { cpu, memory_mib, storage_gib }
            }
            (Some(_), None) => return wrong("memory_gib", "missing".into(), "a value, because vcpu is set"),
            (None, Some(_)) => return wrong("vcpu", "missing".into(), "a value, because memory_gib is set"),
        };
        fargate::check(size).map_err(|error| SizingError::Size { rule: self.name.clone(), error })
    }

    #[must_use]
    pub(super) fn has_condition(&self) -> bool {
        self.max_gib.is_some()
            || self.min_megapixels.is_some()
            || self.max_megapixels.is_some()
            || self.max_minutes.is_some()
            || self.codecs.is_some()
    }

    #[must_use]
    pub(super) fn applies(&self, object_bytes: Option<u64>, facts: &MediaFacts) -> bool {
        let at_most = |most: Option<f64>, value: Option<f64>| {
            most.is_none_or(|most| value.is_some_and(|value| value <= most))
        };
        let megapixels = facts.megapixels();
        at_most(self.max_gib, object_bytes.map(gib))
            && at_most(self.max_megapixels, megapixels)
            && self.min_megapixels.is_none_or(|min| megapixels.is_some_and(|value| value >= min))
            && at_most(self.max_minutes, facts.duration_seconds.map(|seconds| seconds / 60.0))
            && self
                .codecs
                .as_ref()
                .is_none_or(|codecs| facts.codec.is_some_and(|codec| codecs.iter().any(|one| one == codec)))
    }

    #[must_use]
    pub(super) fn size(&self, base: Size) -> Size {
        let storage_gib = self.storage_gib.unwrap_or(base.storage_gib);
        let units = |value: Option<f64>, of: u32| value.and_then(|value| whole(value, of));
        match (units(self.vcpu, VCPU), units(self.memory_gib, GIB)) {
            (Some(cpu), Some(memory_mib)) => Size { cpu, memory_mib, storage_gib },
            _ => Size { storage_gib, ..base },
        }
    }
}

/// Converts a number to a unit that is `of` times smaller; `None` if the result is not a whole number.
fn whole(value: f64, of: u32) -> Option<u32> {
    let units = value * f64::from(of);
    (units.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&units)).then_some(units as u32)
}

pub(super) fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
