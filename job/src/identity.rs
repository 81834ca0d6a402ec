//! A job's identity. Two requests for the same content and profile are one job.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    location::{BucketName, ObjectKey},
    text::hex_prefix,
};

/// 32 lower-case hex digits: the first 12 of a SHA-256 over bucket and key, and the first 20 of a SHA-256
/// over bucket, key, content and profile. All jobs of one key therefore begin with the same digits
/// ([`JobId::prefix`]), and so do their records, which can be listed without an index.
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
    const PREFIX_DIGITS: usize = 12;

    /// The identity of one content (version id, else ETag) of an object, encoded with one profile.
    #[must_use]
    pub fn new(bucket: &BucketName, key: &ObjectKey, content: &str, profile: &str) -> Self {
        let content =
            hash(&[bucket.as_str(), key.as_str(), content, profile], Self::HEX_DIGITS - Self::PREFIX_DIGITS);
        Self(Self::prefix(bucket, key) + &content)
    }

    /// The first digits of the ids of all jobs of one key. Other keys can have the same ones, by chance.
    #[must_use]
    pub fn prefix(bucket: &BucketName, key: &ObjectKey) -> String {
        hash(&[bucket.as_str(), key.as_str()], Self::PREFIX_DIGITS)
    }

    /// The identity of a local file's content, for runs from the command line.
    #[must_use]
    pub fn of_file(content: &str, profile: &str) -> Self {
        Self(hash(&[content, profile], Self::HEX_DIGITS))
    }

    /// The 32 hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The first hex digits of a SHA-256 over parts, whose lengths are hashed, too.
fn hash(parts: &[&str], digits: usize) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex_prefix(hash.finalize(), digits / 2)
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
    fn all_jobs_of_a_key_begin_with_its_prefix() {
        let prefix = JobId::prefix(&"bucket".parse().unwrap(), &"a.mp4".parse().unwrap());
        assert!(id("bucket", "a.mp4", "v1", "default").as_str().starts_with(&prefix));
        assert!(id("bucket", "a.mp4", "v2", "small").as_str().starts_with(&prefix));
        assert!(!id("bucket", "b.mp4", "v1", "default").as_str().starts_with(&prefix));
    }

    #[test]
    fn only_hex_is_an_id() {
        for bad in ["", "0123", &"g".repeat(32), &"A".repeat(32), &"0".repeat(33)] {
            assert!(bad.parse::<JobId>().is_err());
        }
    }
}
