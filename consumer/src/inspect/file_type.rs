//! Rejects files whose first bytes show that they are not a video.

use file_format::{FileFormat, Kind};

/// Bytes at the start of a file in which FFmpeg looks for a known box (`PROBE_BUF_MAX`).
const FFMPEG_PROBES: u32 = 1 << 20;

/// First bytes of Matroska and WebM files.
pub(super) const EBML: [u8; 4] = [0x1a, 0x45, 0xdf, 0xa3];

/// The reason to reject a file with these first bytes, as a sentence for the uploader.
///
/// The task opens uploads only with the demuxers [`vidstreamx_job::DEMUXERS`]. A file is rejected here only
/// if none of them would open it and its type is recognised.
#[must_use]
pub(super) fn not_a_video(head: &[u8], object_bytes: u64) -> Option<String> {
    if may_be_readable(head) {
        return None;
    }
    let whole = head.len() as u64 >= object_bytes;
    if is_text(head, whole) {
        return Some("the file is text, not a video".into());
    }
    let format = FileFormat::from_bytes(head);
    let name = format.short_name().unwrap_or(format.name());
    let what = match format.kind() {
        Kind::Video => {
            return Some(format!(
                "the file is a video in a format ({name}) that is not accepted; use MP4, QuickTime, Matroska or WebM"
            ));
        }
        Kind::Audio => "audio",
        Kind::Archive | Kind::Compressed | Kind::Package => "an archive",
        Kind::Database => "a database",
        Kind::Disk => "a disk image",
        Kind::Document | Kind::Ebook => "a document",
        Kind::Executable => "a program",
        Kind::Font => "a font",
        Kind::Image => "an image",
        Kind::Presentation => "a presentation",
        Kind::Spreadsheet => "a spreadsheet",
        _ => return None,
    };
    Some(format!("the file is {what} ({name}), not a video"))
}

/// Whether FFmpeg's probes `mov_probe` and `matroska_probe` might accept the file. `mov_probe` checks box
/// after box. It fails if the first box is unknown and ends beyond the probed bytes.
#[must_use]
pub(super) fn may_be_readable(head: &[u8]) -> bool {
    // The boxes that the probe knows, and others with which MP4 files can begin.
    const FIRST: [&[u8; 4]; 18] = [
        b"ftyp",
        b"moov",
        b"mdat",
        b"pnot",
        b"udta",
        b"wide",
        b"ediw",
        b"free",
        b"junk",
        b"pict",
        b"skip",
        b"uuid",
        b"prfl",
        b"styp",
        b"sidx",
        b"moof",
        b"meta",
        b"\x82\x82\x7f\x7d",
    ];
    // FFmpeg skips an ID3 tag before it probes.
    if head.starts_with(&EBML) || head.starts_with(b"ID3") {
        return true;
    }
    let Some((size, rest)) = head.split_first_chunk() else { return false };
    let Some(kind) = rest.first_chunk() else { return false };
    u32::from_be_bytes(*size) <= FFMPEG_PROBES || FIRST.contains(&kind)
}

/// Whether the bytes are UTF-8 text. Unless `whole` is set, the last character may be cut off.
#[must_use]
pub(super) fn is_text(bytes: &[u8], whole: bool) -> bool {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if !whole && error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.is_empty()
        && !text.chars().any(|character| character.is_control() && !"\t\n\r\u{c}".contains(character))
}
