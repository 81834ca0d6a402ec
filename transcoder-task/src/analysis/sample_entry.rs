//! Sample entries (`stsd`).

use super::{
    boxes::boxes,
    not_copyable::{NotCopyable, why},
};

/// Whether a sample entry is encrypted. Common encryption replaces the entry's type and adds `sinf`; iTunes
/// has types of its own. A `pssh` box means nothing, because it stays in decrypted files.
pub(super) fn is_encrypted(kind: [u8; 4], entry: &[u8]) -> bool {
    matches!(&kind, b"encv" | b"enca" | b"enct" | b"encs" | b"encf" | b"encm" | b"drms" | b"drmi")
        || [children_of_visual(entry), children_of_audio(entry)]
            .into_iter()
            .any(|children| boxes(children).any(|(kind, _)| kind == *b"sinf"))
}

/// The boxes after a `VisualSampleEntry`'s 78 bytes (ISO/IEC 14496-12, 12.1.3).
pub(super) fn children_of_visual(entry: &[u8]) -> &[u8] {
    entry.get(78..).unwrap_or_default()
}

/// The boxes after an `AudioSampleEntry`'s 28 bytes (ISO/IEC 14496-12, 12.2.3), and the fields that
/// QuickTime's versions 1 and 2 add.
pub(super) fn children_of_audio(entry: &[u8]) -> &[u8] {
    let fixed = match entry.get(8..10) {
        Some([0, 1]) => 28 + 16,
        Some([0, 2]) => 28 + 36,
        _ => 28,
    };
    entry.get(fixed..).unwrap_or_default()
}

/// The only sample entry.
///
/// # Errors
/// There is none, or there are several.
pub(super) fn entry(entries: &[u8]) -> Result<([u8; 4], &[u8]), NotCopyable> {
    let mut all = boxes(entries);
    match (all.next(), all.next()) {
        (Some(entry), None) => Ok(entry),
        _ => why("it has other than one description of its samples"),
    }
}
