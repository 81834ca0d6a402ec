//! EBML, the format of Matroska and WebM (RFC 8794): headers of elements, in bytes of an upload.

/// Element ids, with their length markers.
pub(super) mod id {
    pub(in crate::analysis) const EBML: u32 = 0x1a45_dfa3;
    pub(in crate::analysis) const SEGMENT: u32 = 0x1853_8067;
    pub(in crate::analysis) const INFO: u32 = 0x1549_a966;
    pub(in crate::analysis) const TIMESTAMP_SCALE: u32 = 0x2a_d7b1;
    pub(in crate::analysis) const DURATION: u32 = 0x4489;
    pub(in crate::analysis) const TRACKS: u32 = 0x1654_ae6b;
    pub(in crate::analysis) const TRACK_ENTRY: u32 = 0xae;
    pub(in crate::analysis) const TRACK_NUMBER: u32 = 0xd7;
    pub(in crate::analysis) const TRACK_TYPE: u32 = 0x83;
    pub(in crate::analysis) const DEFAULT_DURATION: u32 = 0x23_e383;
    pub(in crate::analysis) const CODEC_DELAY: u32 = 0x56aa;
    pub(in crate::analysis) const CODEC_ID: u32 = 0x86;
    pub(in crate::analysis) const CLUSTER: u32 = 0x1f43_b675;
    pub(in crate::analysis) const TIMESTAMP: u32 = 0xe7;
    pub(in crate::analysis) const POSITION: u32 = 0xa7;
    pub(in crate::analysis) const PREVIOUS_SIZE: u32 = 0xab;
    pub(in crate::analysis) const CRC: u32 = 0xbf;
    pub(in crate::analysis) const SIMPLE_BLOCK: u32 = 0xa3;
    pub(in crate::analysis) const BLOCK_GROUP: u32 = 0xa0;
    pub(in crate::analysis) const BLOCK: u32 = 0xa1;
    pub(in crate::analysis) const BLOCK_DURATION: u32 = 0x9b;
    pub(in crate::analysis) const LANGUAGE_BCP47: u32 = 0x22_b59d;
}

/// The header of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: u32,
    /// Bytes of the header.
    pub(super) length: usize,
    /// Bytes of the content; absent if unknown.
    pub(super) size: Option<u64>,
}

impl Header {
    /// Most bytes of a header.
    pub(super) const LONGEST: usize = 12;

    /// Parses the header at the start of `bytes`.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let id_length = bytes.first()?.leading_zeros() as usize + 1;
        if id_length > 4 {
            return None;
        }
        let id = bytes.get(..id_length)?.iter().fold(0, |id, byte| id << 8 | u32::from(*byte));
        let (size, size_length) = number(bytes.get(id_length..)?)?;
        let unknown = (1 << (7 * size_length)) - 1;
        Some(Self { id, length: id_length + size_length, size: Some(size).filter(|size| *size != unknown) })
    }
}

/// A number of one to eight bytes, and its length. The first byte's leading zeros tell the length.
pub(super) fn number(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = first.leading_zeros() as usize + 1;
    if length > 8 {
        return None;
    }
    let rest = bytes.get(1..length)?;
    let start = u64::from(first) & ((1_u64 << (8 - length)) - 1);
    Some((rest.iter().fold(start, |number, byte| number << 8 | u64::from(*byte)), length))
}

/// The complete elements in `bytes`: ids and contents.
pub(super) fn elements(bytes: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header = Header::parse(rest)?;
        let end = header.length.checked_add(usize::try_from(header.size?).ok()?)?;
        let content = rest.get(header.length..end)?;
        rest = rest.get(end..)?;
        Some((header.id, content))
    })
}

/// Start of the content, and end if it is stated, of the segment in a document.
pub(super) fn segment(document: &[u8]) -> Option<(u64, Option<u64>)> {
    let ebml = Header::parse(document).filter(|header| header.id == id::EBML)?;
    let at = ebml.length.checked_add(usize::try_from(ebml.size?).ok()?)?;
    let segment = Header::parse(document.get(at..)?).filter(|header| header.id == id::SEGMENT)?;
    let start = (at + segment.length) as u64;
    Some((start, segment.size.map(|size| start.saturating_add(size))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_have_variable_lengths() {
        let of = |bytes: &[u8]| Header::parse(bytes).map(|header| (header.id, header.length, header.size));
        assert_eq!(of(b"\xae\x85"), Some((0xae, 2, Some(5))));
        assert_eq!(of(b"\x1f\x43\xb6\x75\x01\xff\xff\xff\xff\xff\xff\xff"), Some((id::CLUSTER, 12, None)));
        assert_eq!(of(b"\x42\x82\x40\x08"), Some((0x4282, 4, Some(8))));
        assert_eq!((of(b"\x08\x80"), of(b"\xae\x00"), of(b"\xae"), of(b"")), (None, None, None, None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_accepted(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(elements(&bytes).count() <= 30);
            let _ = segment(&bytes);
        }
    }
}
