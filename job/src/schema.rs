//! Versioned JSON documents: a reader of another version gets a clear message, never a crash.

use serde::{Deserialize, de::DeserializeOwned};

/// Why a stored document cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Written by a version with another layout.
    #[error("it has schema version {found}, this program reads {expected}: run the version that wrote it")]
    Version {
        /// The document's version.
        found: u32,
        /// The version this program reads.
        expected: u32,
    },
    /// Not the JSON it should be.
    #[error("it is not a valid document: {0}")]
    Malformed(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct Version {
    schema: u32,
}

/// Reads a document after looking at its version alone.
pub(crate) fn parse<T: DeserializeOwned>(json: &[u8], expected: u32) -> Result<T, SchemaError> {
    let Version { schema: found } = serde_json::from_slice(json)?;
    if found != expected {
        return Err(SchemaError::Version { found, expected });
    }
    Ok(serde_json::from_slice(json)?)
}
