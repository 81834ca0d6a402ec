//! Sample entries (`stsd`).

use vidstreamx_isobmff::boxes::{audio_entry_boxes, boxes, visual_entry_boxes};

use super::not_copyable::{NotCopyable, why};

/// Returns true if a sample entry is encrypted. Common encryption replaces the entry's type and adds `sinf`;
/// iTunes has its own types. A `pssh` box is no sign of encryption, because it stays in decrypted files.
pub(super) fn is_encrypted(kind: [u8; 4], entry: &[u8]) -> bool {
    matches!(&kind, b"encv" | b"enca" | b"enct" | b"encs" | b"encf" | b"encm" | b"drms" | b"drmi")
        || [visual_entry_boxes(entry), audio_entry_boxes(entry)]
            .into_iter()
            .any(|children| boxes(children).any(|(kind, _)| kind == *b"sinf"))
}

/// The sample entry of a track, which must have exactly one.
pub(super) fn entry(entries: &[u8]) -> Result<([u8; 4], &[u8]), NotCopyable> {
    let mut all = boxes(entries);
    match (all.next(), all.next()) {
        (Some(entry), None) => Ok(entry),
        _ => why("it does not have exactly one sample entry"),
    }
}
