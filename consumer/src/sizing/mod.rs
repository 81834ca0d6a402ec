//! The size of a video's task, and its cost.
//!
//! The rules are data (`sizing.toml` has the defaults and their reasons), because the operator decides what
//! waiting may cost. Fargate accepts only certain combinations of vCPUs and memory, so rules are validated
//! when they are read.

use std::{collections::HashSet, fmt::Write as _, ops::RangeInclusive};

use serde::Deserialize;
use vidstreamx_job::{Capacity, Size};

use crate::aws::task_definition::FREE_STORAGE_GIB;
use crate::inspect::media_facts::{MediaFacts, codecs};

/// The default rules and prices.
const DEFAULT: &str = include_str!("sizing.toml");
/// CPU units of one vCPU.
const VCPU: u32 = 1024;
/// MiB in a GiB.
const GIB: u32 = 1024;
/// Ephemeral storage that Fargate accepts, in GiB.
const STORAGE_GIB: RangeInclusive<u32> = 21..=200;
/// Shortest time that Fargate bills.
const LEAST_SECONDS: f64 = 60.0;

/// Fargate's combinations, smallest first (Amazon ECS Developer Guide, "Task CPU and memory"). The smallest
/// vCPU has a gap in its memory sizes.
const FARGATE: [Combinations; 8] = [
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
const MOST_MEMORY: u32 = 122_880;

/// Sizes with the same CPU units: first, last and step of memory in MiB.
struct Combinations {
    cpu: u32,
    least: u32,
    most: u32,
    step: u32,
}

impl Combinations {
    /// The smallest memory that is not less.
    fn at_least(&self, memory_mib: u32) -> Option<u32> {
        let steps = memory_mib.saturating_sub(self.least).div_ceil(self.step);
        (memory_mib <= self.most).then(|| self.least + steps * self.step)
    }
}

/// A size that Fargate does not offer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSize {
    /// No such number of vCPUs.
    #[error("Fargate has no tasks of {0} CPU units, but of 256, 512, 1024, 2048, 4096, 8192 and 16384")]
    Cpu(u32),
    /// Not with this number of vCPUs.
    #[error("Fargate has no tasks of {cpu} CPU units with {memory_mib} MiB of memory, but with {possible}")]
    Memory {
        /// The CPU units.
        cpu: u32,
        /// The memory.
        memory_mib: u32,
        /// Memory that Fargate offers with these CPU units.
        possible: String,
    },
    /// Too little or too much.
    #[error("Fargate has no tasks with {0} GiB of storage, but with 21 to 200")]
    Storage(u32),
}

/// Checks that Fargate offers a size.
///
/// # Errors
/// The part that Fargate does not offer, and what it offers instead.
pub fn check(size: Size) -> Result<(), InvalidSize> {
    let rows: Vec<_> = FARGATE.iter().filter(|row| row.cpu == size.cpu).collect();
    if rows.is_empty() {
        return Err(InvalidSize::Cpu(size.cpu));
    }
    if !rows.iter().any(|row| row.at_least(size.memory_mib) == Some(size.memory_mib)) {
        let possible = rows.iter().map(|row| match row.step {
            _ if row.least == row.most => row.least.to_string(),
            step => format!("{} to {} in steps of {step}", row.least, row.most),
        });
        let possible = possible.collect::<Vec<_>>().join(", ");
        return Err(InvalidSize::Memory { cpu: size.cpu, memory_mib: size.memory_mib, possible });
    }
    if !STORAGE_GIB.contains(&size.storage_gib) {
        return Err(InvalidSize::Storage(size.storage_gib));
    }
    Ok(())
}

/// The size after an out-of-memory end: twice the memory, with more vCPUs if necessary. `None` if there is no
/// larger one.
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

/// Storage that a request may name. Tasks have 20 GiB by default, but a request for 20 is an error.
fn storage(gib: u32) -> u32 {
    gib.clamp(*STORAGE_GIB.start(), *STORAGE_GIB.end())
}

/// Invalid rules.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum SizingError {
    /// Not TOML, or an unknown or mistyped field. The message names the line.
    #[error("{0}")]
    Syntax(Box<toml::de::Error>),
    /// A value out of range.
    #[error("rule \"{rule}\": {field} is {value}, expected {expected}")]
    Rule {
        /// Its name.
        rule: String,
        /// The field's name.
        field: &'static str,
        /// What was given.
        value: String,
        /// What is possible.
        expected: String,
    },
    /// A rule's vCPUs, memory and storage are not a size of Fargate.
    #[error("rule \"{rule}\": {error}")]
    Size {
        /// Its name.
        rule: String,
        /// What is wrong with the size.
        error: InvalidSize,
    },
    /// A rule after one that always applies.
    #[error("rule \"{rule}\" has no condition, so that \"{next}\" behind it never applies: put it last")]
    Unreachable {
        /// Its name.
        rule: String,
        /// The next one's name.
        next: String,
    },
    /// A price that is not a number of dollars.
    #[error("prices: {field} is {value}, expected {expected}")]
    Price {
        /// The field's name.
        field: &'static str,
        /// What was given.
        value: f64,
        /// What is possible.
        expected: &'static str,
    },
}

/// A rule: the conditions on a video, and the size.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    name: String,
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
    fn validate(&self) -> Result<(), SizingError> {
        let wrong = |field, value: String, expected: &str| {
            Err(SizingError::Rule { rule: self.name.clone(), field, value, expected: expected.into() })
        };
        if self.name.trim().is_empty() {
            return wrong("name", "empty".into(), "a name: it is the reason that records give for a size");
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
            return wrong("codecs", "empty".into(), "at least one, or no such line");
        }
        let storage_gib = self.storage_gib.unwrap_or(*STORAGE_GIB.start());
        let size = match (self.vcpu, self.memory_gib) {
            (None, None) => Size { cpu: VCPU, memory_mib: 2 * GIB, storage_gib },
            (Some(vcpu), Some(memory)) => {
                let Some(cpu) = whole(vcpu, VCPU) else {
                    return wrong("vcpu", vcpu.to_string(), "0.25, 0.5, 1, 2, 4, 8 or 16");
                };
                let Some(memory_mib) = whole(memory, GIB) else {
                    return wrong("memory_gib", memory.to_string(), "GiB, whole ones but for 0.5");
                };
                Size { cpu, memory_mib, storage_gib }
            }
            (Some(_), None) => return wrong("memory_gib", "missing".into(), "it beside vcpu, or neither"),
            (None, Some(_)) => return wrong("vcpu", "missing".into(), "it beside memory_gib, or neither"),
        };
        check(size).map_err(|error| SizingError::Size { rule: self.name.clone(), error })
    }

    fn has_condition(&self) -> bool {
        self.max_gib.is_some()
            || self.min_megapixels.is_some()
            || self.max_megapixels.is_some()
            || self.max_minutes.is_some()
            || self.codecs.is_some()
    }

    fn applies(&self, object_bytes: Option<u64>, facts: &MediaFacts) -> bool {
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

    fn size(&self, base: Size) -> Size {
        let storage_gib = self.storage_gib.unwrap_or(base.storage_gib);
        let units = |value: Option<f64>, of: u32| value.and_then(|value| whole(value, of));
        match (units(self.vcpu, VCPU), units(self.memory_gib, GIB)) {
            (Some(cpu), Some(memory_mib)) => Size { cpu, memory_mib, storage_gib },
            _ => Size { storage_gib, ..base },
        }
    }
}

/// A number in a smaller unit, if it is whole there.
fn whole(value: f64, of: u32) -> Option<u32> {
    let units = value * f64::from(of);
    (units.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&units)).then_some(units as u32)
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// In US dollars per hour.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Prices {
    x86_vcpu_hour: f64,
    x86_gib_hour: f64,
    arm_vcpu_hour: f64,
    arm_gib_hour: f64,
    /// For storage beyond what every task includes.
    storage_gib_hour: f64,
    /// Share of the price of vCPUs and memory on Spot.
    spot_share: f64,
}

impl Prices {
    fn validate(&self) -> Result<(), SizingError> {
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
}

/// The file. Missing fields have their default values.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    rule: Option<Vec<Rule>>,
    prices: Option<Prices>,
}

/// Rules for sizes, and prices.
#[derive(Debug, Clone, PartialEq)]
pub struct Sizing {
    rules: Vec<Rule>,
    prices: Prices,
}

impl Default for Sizing {
    /// The values of `sizing.toml`, which a test checks.
    fn default() -> Self {
        match Self::parse(DEFAULT) {
            Ok(sizing) => sizing,
            Err(error) => unreachable!("sizing.toml: {error}"),
        }
    }
}

impl Sizing {
    /// Reads rules and prices from a TOML file's text. Without rules, or without prices, the default ones are
    /// taken.
    ///
    /// # Errors
    /// Names the line, or the rule and its field, and what it can be.
    pub fn parse(text: &str) -> Result<Self, SizingError> {
        let document: Document =
            toml::from_str(text).map_err(|error| SizingError::Syntax(Box::new(error)))?;
        let rules = document.rule.unwrap_or_else(|| Self::default().rules);
        let prices = document.prices.unwrap_or_else(|| Self::default().prices);
        let mut names = HashSet::new();
        for rule in &rules {
            rule.validate()?;
            if !names.insert(&rule.name) {
                return Err(SizingError::Rule {
                    rule: rule.name.clone(),
                    field: "name",
                    value: "used twice".into(),
                    expected: "another: it is the reason that records give for a size".into(),
                });
            }
        }
        if let Some(pair) = rules.windows(2).find(|pair| !pair[0].has_condition()) {
            let [rule, next] = [0, 1].map(|index| pair[index].name.clone());
            return Err(SizingError::Unreachable { rule, next });
        }
        prices.validate()?;
        Ok(Self { rules, prices })
    }

    /// The size for an upload, and the reason as a sentence. `base` is the task definition's size, for values
    /// that a rule does not set.
    #[must_use]
    pub fn choose(
        &self,
        object_bytes: Option<u64>,
        facts: Option<&MediaFacts>,
        base: Size,
    ) -> (Size, String) {
        let nothing = MediaFacts::default();
        let known = facts.unwrap_or(&nothing);
        let rule = self.rules.iter().find(|rule| rule.applies(object_bytes, known));
        let base = Size { storage_gib: storage(base.storage_gib), ..base };
        let mut reason = describe(object_bytes, known);
        let _ = match rule {
            Some(rule) => write!(reason, ": rule \"{}\"", rule.name),
            None => write!(reason, ": no rule applies"),
        };
        (rule.map_or(base, |rule| rule.size(base)), reason)
    }

    /// Estimated cost of a task in US dollars for the billed time (`arm`: on Graviton).
    #[must_use]
    pub fn cost(&self, size: Size, capacity: Capacity, arm: bool, billed_seconds: f64) -> f64 {
        let prices = &self.prices;
        let (vcpu_hour, gib_hour) = if arm {
            (prices.arm_vcpu_hour, prices.arm_gib_hour)
        } else {
            (prices.x86_vcpu_hour, prices.x86_gib_hour)
        };
        let share = match capacity {
            Capacity::OnDemand => 1.0,
            Capacity::Spot => prices.spot_share,
        };
        let vcpus = f64::from(size.cpu) / f64::from(VCPU);
        let memory = f64::from(size.memory_mib) / f64::from(GIB);
        let storage = f64::from(size.storage_gib.saturating_sub(FREE_STORAGE_GIB));
        let hour = share * (vcpus * vcpu_hour + memory * gib_hour) + storage * prices.storage_gib_hour;
        hour * billed_seconds.max(LEAST_SECONDS) / 3600.0
    }
}

/// The facts about an upload as a text: `h264 1920x1080 at 29.97/s, 12.3 min, 1.2 GiB`.
fn describe(object_bytes: Option<u64>, facts: &MediaFacts) -> String {
    let size = facts.width.zip(facts.height).map(|(width, height)| format!("{width}x{height}"));
    let rate = facts.frame_rate.map(|rate| format!("at {}/s", (rate * 100.0).round() / 100.0));
    let sound_only = (facts.has_video == Some(false)).then(|| "sound only".to_owned());
    let container = facts.codec.is_none().then(|| facts.container.map(str::to_owned)).flatten();
    let picture = [container, facts.codec.map(str::to_owned), size, rate, sound_only];
    let picture = picture.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let duration = facts.duration_seconds.map(|seconds| match seconds {
        ..60.0 => format!("{seconds:.1} s"),
        _ => format!("{:.1} min", seconds / 60.0),
    });
    let bytes = object_bytes.map(|bytes| match gib(bytes) {
        gib @ 1.0.. => format!("{gib:.1} GiB"),
        gib => format!("{:.1} MiB", gib * 1024.0),
    });
    let known = [Some(picture).filter(|picture| !picture.is_empty()), duration, bytes];
    let known = known.into_iter().flatten().collect::<Vec<_>>().join(", ");
    if known.is_empty() { "nothing is known of it".into() } else { known }
}

#[cfg(test)]
mod tests;
