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
