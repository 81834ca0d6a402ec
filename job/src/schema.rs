//! Parses JSON documents that have a schema version.
//!
//! During an upgrade, consumers of two neighbouring versions work side by side. A document of the next or the
//! previous version is therefore read if it has all fields that this program needs. If it cannot be read, the
//! error names both versions.

use serde::{Deserialize, de::DeserializeOwned};

/// The error of parsing a stored document.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The document has another schema version, and not the fields of this one.
    #[error("it has schema version {found}, this program reads {expected}: run the version that wrote it")]
    Version {
        /// The document's version.
        found: u32,
        /// The version this program reads.
        expected: u32,
    },
    /// The JSON does not fit the schema.
    #[error("it is not a valid document: {0}")]
    Malformed(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct Version {
    schema: u32,
}

/// Checks the version first, then parses the document.
pub(crate) fn parse<T: DeserializeOwned>(json: &[u8], expected: u32) -> Result<T, SchemaError> {
    let Version { schema: found } = serde_json::from_slice(json)?;
    if found.abs_diff(expected) > 1 {
        return Err(SchemaError::Version { found, expected });
    }
    match serde_json::from_slice(json) {
        Err(_) if found != expected => Err(SchemaError::Version { found, expected }),
        parsed => Ok(parsed?),
    }
}
