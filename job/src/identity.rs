//! A job's identity. Two requests for the same content and profile are one job.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    location::{BucketName, ObjectKey},
    text::hex_prefix,
};

/// 32 lower-case hex digits: the first half of a SHA-256 over bucket, key, content and profile.
///
/// It fits RunTask's fields: `startedBy` has up to 128 characters, and `clientToken`, which also contains the
/// attempt number, has up to 64.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(String);

/// The text is not 32 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a job id (32 lower-case hex digits)")]
pub struct InvalidJobId(String);

impl JobId {
    const HEX_DIGITS: usize = 32;

    /// The identity of one content (version id, else ETag) of an object, encoded with one profile.
    #[must_use]
    pub fn new(bucket: &BucketName, key: &ObjectKey, content: &str, profile: &str) -> Self {
        Self::hash(&[bucket.as_str(), key.as_str(), content, profile])
    }

    /// The identity of a local file's content, for runs from the command line.
    #[must_use]
    pub fn of_file(content: &str, profile: &str) -> Self {
        Self::hash(&[content, profile])
    }

    fn hash(parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hex_prefix(hash.finalize(), Self::HEX_DIGITS / 2))
    }

    /// The 32 hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        if text.len() == Self::HEX_DIGITS && text.as_bytes().iter().all(digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidJobId(text.to_owned()))
        }
    }
}

impl TryFrom<String> for JobId {
    type Error = InvalidJobId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(bucket: &str, key: &str, content: &str, profile: &str) -> JobId {
        JobId::new(&bucket.parse().unwrap(), &key.parse().unwrap(), content, profile)
    }

    #[test]
    fn equal_content_has_an_equal_id_and_parts_are_separated() {
        let one = id("bucket", "a.mp4", "v1", "default");
        assert_eq!(one, id("bucket", "a.mp4", "v1", "default"));
        assert_eq!(one.to_string().parse(), Ok(one.clone()));
        for other in [
            id("bucket2", "a.mp4", "v1", "default"),
            id("bucket", "a.mp4v", "1", "default"),
            id("bucket", "a.mp4", "v1d", "efault"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn only_hex_is_an_id() {
        for bad in ["", "0123", &"g".repeat(32), &"A".repeat(32), &"0".repeat(33)] {
            assert!(bad.parse::<JobId>().is_err());
        }
    }
}
