//! Identification of an object's content.

use std::{
    io::{self, Read},
    path::Path,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use vidstreamx_job::hex_prefix;

/// Bytes read at a time for a file's hash.
const HASH_BUFFER: usize = 64 << 10;

/// Distinguishes an object's content from any other content at its path: the ETag in S3, a hash in a local
/// folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Tag(String);

impl Tag {
    /// A hash of content that is not in S3.
    pub(crate) fn of(content: &[u8]) -> Self {
        Self::from_hash(Sha256::new_with_prefix(content))
    }

    /// Hashes a file in constant memory.
    pub(super) fn of_file(path: &Path) -> io::Result<Self> {
        let mut file = std::fs::File::open(path)?;
        let (mut hash, mut buffer) = (Sha256::new(), vec![0; HASH_BUFFER]);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(Self::from_hash(hash)),
                bytes => hash.update(&buffer[..bytes]),
            }
        }
    }

    /// S3's ETag, quotes included.
    pub(super) fn from_etag(etag: String) -> Self {
        Self(etag)
    }

    fn from_hash(hash: Sha256) -> Self {
        Self(hex_prefix(hash.finalize(), 16))
    }
}
