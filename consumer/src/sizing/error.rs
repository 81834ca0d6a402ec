//! Errors of a file of rules and prices.

use super::fargate::InvalidSize;

/// Invalid rules.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum SizingError {
    /// Not TOML, or an unknown or mistyped field. The message names the line.
    #[error("{0}")]
    Syntax(Box<toml::de::Error>),
    /// A value out of range.
    #[error("rule \"{rule}\": {field} is {value}, expected {expected}")]
    Rule {
        /// The rule's name.
        rule: String,
        /// The field's name.
        field: &'static str,
        /// The given value.
        value: String,
        /// The allowed values.
        expected: String,
    },
    /// Fargate does not offer the size of a rule.
    #[error("rule \"{rule}\": {error}")]
    Size {
        /// The rule's name.
        rule: String,
        /// The fault.
        error: InvalidSize,
    },
    /// There are rules after one that always applies.
    #[error("rule \"{rule}\" has no condition, so the rules after it never apply: put it last")]
    Unreachable {
        /// The name of the rule without a condition.
        rule: String,
    },
    /// A price, or the share for Spot, that is out of range.
    #[error("prices: {field} is {value}, expected {expected}")]
    Price {
        /// The field's name.
        field: &'static str,
        /// The given value.
        value: f64,
        /// The allowed values.
        expected: &'static str,
    },
}
