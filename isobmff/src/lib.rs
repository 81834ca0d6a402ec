//! Reads MP4 and QuickTime boxes (ISO/IEC 14496-12) of untrusted files. `mp4-atom` decodes single boxes; this
//! crate finds them.
//!
//! - [`boxes`]: boxes in memory.
//! - [`walk`]: boxes in a file that is read in windows. It does no I/O, but returns the offset of the next
//!   read.
//! - [`fragment`]: samples of movie fragments, with their default values.
//! - [`codecs`]: RFC 6381 codec strings.
//!
//! No function of this crate recurses, and none allocates memory by a size that a file claims.

pub mod boxes;
pub mod codecs;
pub mod fragment;
pub mod walk;

/// A box's type, for example `*b"moov"`.
pub type BoxType = [u8; 4];

/// A box with this body, for tests.
#[cfg(test)]
fn wrap(kind: &BoxType, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(8 + body.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&size[..], kind, body].concat()
}
