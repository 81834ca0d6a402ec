//! S3 names as validated types.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The text is not a valid S3 name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLocation {
    /// The text is not a bucket name.
    #[error("\"{0}\" is not a bucket name (3 to 63 of a-z, 0-9, '-' and '.')")]
    Bucket(String),
    /// The key is empty, or longer than S3's 1,024 bytes.
    #[error("an object key has 1 to 1024 bytes, this one has {0}")]
    Key(usize),
    /// The text is not of the form `s3://bucket/key`.
    #[error("\"{0}\" is not of the form s3://BUCKET/KEY")]
    Uri(String),
}

/// A bucket's name: 3 to 63 of `a-z`, `0-9`, `-`, `.`, beginning and ending with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BucketName(String);

impl BucketName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BucketName {
    type Err = InvalidLocation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = text.as_bytes();
        let valid = (3..=63).contains(&bytes.len())
            && bytes.iter().all(|&byte| alphanumeric(byte) || byte == b'-' || byte == b'.')
            && bytes.first().copied().is_some_and(alphanumeric)
            && bytes.last().copied().is_some_and(alphanumeric);
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidLocation::Bucket(text.to_owned())) }
    }
}

/// An object's key: any UTF-8 text of 1 to 1,024 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectKey(String);

impl ObjectKey {
    /// S3's limit on a key, in bytes of UTF-8.
    pub const MAX_BYTES: usize = 1024;

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ObjectKey {
    type Err = InvalidLocation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if (1..=Self::MAX_BYTES).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidLocation::Key(text.len()))
        }
    }
}

macro_rules! text_newtype {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidLocation;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}
text_newtype!(BucketName);
text_newtype!(ObjectKey);

/// `s3://bucket/path`; the path may be empty (a whole bucket) or end in `/` (a prefix).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Uri {
    /// The bucket.
    pub bucket: BucketName,
    /// Everything after the bucket's `/`, not percent-decoded.
    pub path: String,
}

impl FromStr for S3Uri {
    type Err = InvalidLocation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("s3://").ok_or_else(|| InvalidLocation::Uri(text.to_owned()))?;
        let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
        if path.len() > ObjectKey::MAX_BYTES {
            return Err(InvalidLocation::Key(path.len()));
        }
        Ok(Self { bucket: bucket.parse()?, path: path.to_owned() })
    }
}

impl fmt::Display for S3Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names() {
        for good in ["abc", "my-uploads.example", "0a1"] {
            assert_eq!(good.parse::<BucketName>().unwrap().as_str(), good);
        }
        for bad in ["", "ab", "Upper", "a/b", "-abc", "abc-", "ünï", &"a".repeat(64)] {
            assert!(bad.parse::<BucketName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_any_text_up_to_1024_bytes() {
        assert!("é".repeat(512).parse::<ObjectKey>().is_ok());
        assert_eq!("é".repeat(513).parse::<ObjectKey>(), Err(InvalidLocation::Key(1026)));
        assert_eq!("".parse::<ObjectKey>(), Err(InvalidLocation::Key(0)));
    }

    #[test]
    fn uris() {
        let uri: S3Uri = "s3://my-bucket/a dir/b+c.mp4".parse().unwrap();
        assert_eq!((uri.bucket.as_str(), uri.path.as_str()), ("my-bucket", "a dir/b+c.mp4"));
        assert_eq!(uri.to_string(), "s3://my-bucket/a dir/b+c.mp4");
        assert_eq!("s3://my-bucket".parse::<S3Uri>().unwrap().path, "");
        assert!("https://my-bucket/x".parse::<S3Uri>().is_err());
        assert!("s3:///x".parse::<S3Uri>().is_err());
    }
}
