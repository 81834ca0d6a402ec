//! The size of a video's task, and its cost.
//!
//! The rules are data (`sizing.toml` has the defaults and their reasons), because the operator decides what
//! waiting may cost. Fargate accepts only certain combinations of vCPUs and memory, so rules are validated
//! when they are read.
//!
//! `rules` choose the size for a video, `prices` compute its cost, and `fargate` lists the sizes that Fargate
//! offers. `error` describes an invalid file. The public interface is [`Sizing`]; [`larger`] is the size
//! after a task ran out of memory, and [`smaller`] the one after ECS refused a task.

mod error;
mod fargate;
mod prices;
mod rules;

use std::{collections::HashSet, fmt::Write as _};

use serde::Deserialize;
use vidstreamx_job::{Capacity, Size};

pub use self::{
    error::SizingError,
    fargate::{InvalidSize, larger, smaller},
};
use self::{
    fargate::storage,
    prices::Prices,
    rules::{Rule, gib},
};
use crate::inspect::MediaFacts;

/// The default rules and prices.
const DEFAULT: &str = include_str!("sizing.toml");

/// The content of a sizing file. A missing field has its default value.
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
    /// The values of `sizing.toml`. A test ensures that the file is valid.
    fn default() -> Self {
        match Self::parse(DEFAULT) {
            Ok(sizing) => sizing,
            Err(error) => unreachable!("sizing.toml: {error}"),
        }
    }
}

impl Sizing {
    /// Reads rules and prices from the text of a TOML file. If the file has no rules, the default rules
    /// apply; if it has no prices, the default prices apply.
    ///
    /// # Errors
    /// The text is not valid. The error names the line, or the rule, its field and the allowed values.
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
                    expected: "a unique name, because records give it as the reason for a size".into(),
                });
            }
        }
        if let Some(pair) = rules.windows(2).find(|pair| !pair[0].has_condition()) {
            return Err(SizingError::Unreachable { rule: pair[0].name.clone() });
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

    /// Estimated cost of a task in US dollars for the billed time. `arm` selects the prices of Graviton.
    #[must_use]
    pub fn cost(&self, size: Size, capacity: Capacity, arm: bool, billed_seconds: f64) -> f64 {
        self.prices.cost(size, capacity, arm, billed_seconds)
    }
}

/// The facts about an upload as a text: `h264 1920x1080 at 29.97/s, 12.3 min, 1.2 GiB`.
fn describe(object_bytes: Option<u64>, facts: &MediaFacts) -> String {
    let size = facts.width.zip(facts.height).map(|(width, height)| format!("{width}x{height}"));
    let rate = facts.frame_rate.map(|rate| format!("at {}/s", (rate * 100.0).round() / 100.0));
    let audio_only = (facts.has_video == Some(false)).then(|| "audio only".to_owned());
    let container = facts.codec.is_none().then(|| facts.container.map(str::to_owned)).flatten();
    let picture = [container, facts.codec.map(str::to_owned), size, rate, audio_only];
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
    if known.is_empty() { "no properties known".into() } else { known }
}

#[cfg(test)]
mod tests;
