//! Names of AWS resources as validated types.

use std::{fmt, str::FromStr};

/// The expected form of a malformed name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it should be {0}")]
pub struct Malformed(pub &'static str);

macro_rules! text_setting {
    ($(#[$doc:meta])* $name:ident, $valid:expr, $shape:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(String);

        impl $name {
            /// The setting as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Malformed;

            fn from_str(text: &str) -> Result<Self, Malformed> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.to_owned())) } else { Err(Malformed($shape)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_setting!(
    /// The URL of an SQS queue.
    QueueUrl,
    |text| {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        rest.and_then(|rest| rest.rsplit_once('/'))
            .is_some_and(|(prefix, name)| !prefix.is_empty() && !name.is_empty())
            && !text.contains(char::is_whitespace)
            // S3 sends no events to a FIFO queue, and messages would lack their group.
            && !text.ends_with(".fifo")
    },
    "the URL of a standard queue (not FIFO) like https://sqs.eu-central-1.amazonaws.com/123456789012/uploads"
);
text_setting!(
    /// A subnet's id.
    SubnetId,
    |text| has_id_after(text, "subnet-"),
    "subnet ids like subnet-0123456789abcdef0, separated by commas"
);
text_setting!(
    /// A security group's id.
    SecurityGroupId,
    |text| has_id_after(text, "sg-"),
    "security group ids like sg-0123456789abcdef0, separated by commas"
);

fn has_id_after(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|id| {
        !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    })
}
