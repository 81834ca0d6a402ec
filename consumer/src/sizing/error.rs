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
        /// Its name.
        rule: String,
        /// The field's name.
        field: &'static str,
        /// The given value.
        value: String,
        /// The possible values.
        expected: String,
    },
    /// A rule's vCPUs, memory and storage are not a size of Fargate.
    #[error("rule \"{rule}\": {error}")]
    Size {
        /// Its name.
        rule: String,
        /// The part that Fargate does not offer.
        error: InvalidSize,
    },
    /// A rule without a condition, which hides the rules after it.
    #[error("rule \"{rule}\" has no condition, so that \"{next}\" behind it never applies: put it last")]
    Unreachable {
        /// Name of the rule without a condition.
        rule: String,
        /// Name of the rule after it.
        next: String,
    },
    /// A price that is not a number of dollars.
    #[error("prices: {field} is {value}, expected {expected}")]
    Price {
        /// The field's name.
        field: &'static str,
        /// The given value.
        value: f64,
        /// The possible values.
        expected: &'static str,
    },
}
