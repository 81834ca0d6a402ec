//! Boxes in memory.

use mp4_atom::{Atom, DecodeMaybe, Header};

use crate::BoxType;

/// A box that is missing, ambiguous or malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoxError {
    /// A required box does not exist.
    #[error("it has no {} box", .0.escape_ascii())]
    Missing(BoxType),
    /// A box exists more than once.
    #[error("it has several {} boxes", .0.escape_ascii())]
    Several(BoxType),
    /// A box cannot be decoded.
    #[error("its {} box is malformed: {reason}", .kind.escape_ascii())]
    Malformed {
        /// The box's type.
        kind: BoxType,
        /// The decoder's message.
        reason: String,
    },
    /// A box extends beyond the end of the bytes.
    #[error("it is cut off")]
    Truncated,
}

/// The header of a box, in front of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoxHeader {
    /// The box's type.
    pub kind: BoxType,
    /// Bytes of the header: 8, or 16 with a 64-bit size.
    pub length: usize,
    /// Bytes of the body; absent for a box that extends to the end of the file.
    pub body: Option<usize>,
}

impl BoxHeader {
    /// Bytes of the shortest header.
    pub const SHORT: usize = 8;
    /// Bytes of the longest header, with a 64-bit size.
    pub const LONG: usize = 16;

    /// The length of the header that begins with these [`BoxHeader::SHORT`] bytes.
    #[must_use]
    pub fn length(start: &[u8]) -> usize {
        if start.starts_with(&[0, 0, 0, 1]) { Self::LONG } else { Self::SHORT }
    }

    /// Parses the header at the start of `bytes`; `None` if the bytes do not hold a valid one.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let header = Header::decode_maybe(&mut rest).ok()??;
        Some(Self { kind: header.kind.into(), length: bytes.len() - rest.len(), body: header.size })
    }
}

/// Takes the first box from `bytes`; `None` if it is invalid or incomplete.
fn next_box<'a>(bytes: &mut &'a [u8]) -> Option<(BoxType, &'a [u8])> {
    let header = BoxHeader::parse(bytes)?;
    let content = bytes.get(header.length..)?;
    // A box without a size extends to the end.
    let (body, rest) = content.split_at_checked(header.body.unwrap_or(content.len()))?;
    *bytes = rest;
    Some((header.kind, body))
}

/// Iterates over the boxes in `bytes`, up to the first invalid or incomplete one. Yields types and bodies.
pub fn boxes(mut bytes: &[u8]) -> impl Iterator<Item = (BoxType, &[u8])> {
    std::iter::from_fn(move || next_box(&mut bytes))
}

/// All boxes in `bytes`, which must end with the last box.
///
/// # Errors
/// [`BoxError::Truncated`] if the last box is incomplete or its header is invalid.
pub fn all_boxes(mut bytes: &[u8]) -> Result<Vec<(BoxType, &[u8])>, BoxError> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        all.push(next_box(&mut bytes).ok_or(BoxError::Truncated)?);
    }
    Ok(all)
}

/// The offset of the first box of this type. The offset points to the box's header.
#[must_use]
pub fn offset_of(bytes: &[u8], kind: BoxType) -> Option<usize> {
    let mut rest = bytes;
    loop {
        let offset = bytes.len() - rest.len();
        if next_box(&mut rest)?.0 == kind {
            return Some(offset);
        }
    }
}

/// The body of the box of this type, if there is one.
///
/// # Errors
/// [`BoxError::Several`] if there are several.
pub fn find(bytes: &[u8], kind: BoxType) -> Result<Option<&[u8]>, BoxError> {
    let mut same = boxes(bytes).filter(|(other, _)| *other == kind).map(|(_, body)| body);
    match (same.next(), same.next()) {
        (found, None) => Ok(found),
        _ => Err(BoxError::Several(kind)),
    }
}

/// The body of the box of this type.
///
/// # Errors
/// There is none, or there are several.
pub fn require(bytes: &[u8], kind: BoxType) -> Result<&[u8], BoxError> {
    find(bytes, kind)?.ok_or(BoxError::Missing(kind))
}

/// Decodes the body of a box.
///
/// # Errors
/// [`BoxError::Malformed`].
pub fn decode<T: Atom>(mut body: &[u8]) -> Result<T, BoxError> {
    T::decode_body(&mut body)
        .map_err(|error| BoxError::Malformed { kind: T::KIND.into(), reason: error.to_string() })
}

/// Finds and decodes the box of this type, if there is one.
///
/// # Errors
/// There are several, or it is malformed.
pub fn decode_optional<T: Atom>(bytes: &[u8]) -> Result<Option<T>, BoxError> {
    find(bytes, T::KIND.into())?.map(decode).transpose()
}

/// Finds and decodes the box of this type.
///
/// # Errors
/// There is none, there are several, or it is malformed.
pub fn decode_required<T: Atom>(bytes: &[u8]) -> Result<T, BoxError> {
    decode(require(bytes, T::KIND.into())?)
}

/// The handler type in the body of an `hdlr` box, for example `*b"vide"` or `*b"soun"`.
#[must_use]
pub fn handler_type(hdlr: &[u8]) -> Option<BoxType> {
    hdlr.get(8..12)?.try_into().ok()
}

/// Bytes of a `VisualSampleEntry` before its boxes (ISO/IEC 14496-12, 12.1.3).
const VISUAL_SAMPLE_ENTRY: usize = 78;
/// Bytes of an `AudioSampleEntry` before its boxes (ISO/IEC 14496-12, 12.2.3).
const AUDIO_SAMPLE_ENTRY: usize = 28;

/// The boxes of a visual sample entry.
#[must_use]
pub fn visual_entry_boxes(entry: &[u8]) -> &[u8] {
    entry.get(VISUAL_SAMPLE_ENTRY..).unwrap_or_default()
}

/// The boxes of an audio sample entry, after the fields that QuickTime's versions 1 and 2 add.
#[must_use]
pub fn audio_entry_boxes(entry: &[u8]) -> &[u8] {
    let fields = match entry.get(8..10) {
        Some([0, 1]) => AUDIO_SAMPLE_ENTRY + 16,
        Some([0, 2]) => AUDIO_SAMPLE_ENTRY + 36,
        _ => AUDIO_SAMPLE_ENTRY,
    };
    entry.get(fields..).unwrap_or_default()
}

/// The sample entries in the body of an `stsd` box.
#[must_use]
pub fn sample_entries(stsd: &[u8]) -> &[u8] {
    stsd.get(8..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wrap;

    #[test]
    fn boxes_end_at_the_first_incomplete_one() {
        let two = [wrap(b"free", b"ab"), wrap(b"skip", b"")].concat();
        let found: Vec<_> = boxes(&two).collect();
        assert_eq!(found, [(*b"free", &b"ab"[..]), (*b"skip", &b""[..])]);
        assert_eq!(all_boxes(&two).unwrap(), found);
        assert_eq!(boxes(&two[..17]).count(), 1);
        assert_eq!(all_boxes(&two[..17]), Err(BoxError::Truncated));
        assert_eq!(all_boxes(&[]), Ok(Vec::new()));
        assert_eq!((offset_of(&two, *b"skip"), offset_of(&two, *b"moov")), (Some(10), None));
    }

    #[test]
    fn a_size_may_have_64_bits_or_extend_to_the_end_of_the_file() {
        let long = [&[0, 0, 0, 1][..], b"mdat", &18_u64.to_be_bytes(), b"ab"].concat();
        assert_eq!(BoxHeader::length(&long), BoxHeader::LONG);
        let header = BoxHeader { kind: *b"mdat", length: 16, body: Some(2) };
        assert_eq!(BoxHeader::parse(&long), Some(header));
        let open = [&[0, 0, 0, 0][..], b"mdat", b"abc"].concat();
        assert_eq!(boxes(&open).collect::<Vec<_>>(), [(*b"mdat", &b"abc"[..])]);
        assert_eq!(BoxHeader::parse(&[0, 0, 0, 7, b'f', b'r', b'e', b'e']), None);
    }

    #[test]
    fn errors_name_the_box() {
        let twice = [wrap(b"mdia", b""), wrap(b"mdia", b"")].concat();
        assert_eq!(find(&twice, *b"mdia").unwrap_err().to_string(), "it has several mdia boxes");
        assert_eq!(require(&twice, *b"trak").unwrap_err().to_string(), "it has no trak box");
        let error = decode_required::<mp4_atom::Mdhd>(&wrap(b"mdhd", b"x")).unwrap_err();
        assert!(error.to_string().starts_with("its mdhd box is malformed: "), "{error}");
        assert_eq!(find(&twice, *b"trak"), Ok(None));
    }

    #[test]
    fn boxes_of_sample_entries_follow_their_fields() {
        let mut quicktime = vec![0; AUDIO_SAMPLE_ENTRY + 16 + 3];
        quicktime[9] = 1;
        assert_eq!(audio_entry_boxes(&quicktime).len(), 3);
        assert_eq!(audio_entry_boxes(&[0; AUDIO_SAMPLE_ENTRY + 3]).len(), 3);
        assert_eq!(visual_entry_boxes(&[0; VISUAL_SAMPLE_ENTRY + 3]).len(), 3);
        assert_eq!((audio_entry_boxes(b"").len(), sample_entries(b"abc").len()), (0, 0));
    }
}
