//! WebM recordings that were joined as files: the parts of a browser's recorder, each with a header of its
//! own, one after the other. FFmpeg reads the first one only, or drops what follows because its times begin
//! again.

use memchr::memmem;

use crate::{source::loopback::Input, store::S3Error};

use super::ebml::{Header, id, segment};

/// Bytes of the first read, and of the read where the first recording ends.
const HEAD: u64 = 4 << 10;
/// Bytes of a read while the file is searched.
const WINDOW: u64 = 4 << 20;
/// Most bytes that are searched: about ten hours of a screen recording.
const MOST_SEARCHED: u64 = 4 << 30;
/// Most bytes of an EBML header, which usually has 40.
const LONGEST_HEADER: usize = 256;
/// Id and size of the element with the document type, which is `webm` or `matroska`.
const DOCUMENT_TYPES: [&[u8]; 2] = [b"\x42\x82\x84webm", b"\x42\x82\x88matroska"];

/// The offset of a second recording in the file. A recorder that cannot seek does not state the size of its
/// recording, so the file is searched then. The search is only for a warning, so a failed read ends it;
/// FFmpeg's own reads report the failure.
pub(crate) async fn second_recording(input: &Input) -> Option<u64> {
    find(input).await.ok().flatten()
}

async fn find(input: &Input) -> Result<Option<u64>, S3Error> {
    let Some(size) = input.size().await else { return Ok(None) };
    let Some(head) = input.bytes(0, HEAD).await? else { return Ok(None) };
    let Some((start, end)) = segment(&head) else { return Ok(None) };
    let Some(end) = end else { return search(input, start, size.min(MOST_SEARCHED)).await };
    if end >= size {
        return Ok(None);
    }
    let next = input.bytes(end, end.saturating_add(HEAD)).await?.unwrap_or_default();
    Ok(is_document(&next).then_some(end))
}

/// The warning about a second recording.
pub(crate) fn warning(second_recording: u64, file_size: u64) -> String {
    format!(
        "the file consists of several recordings that were joined as files, and only the first one is published in \
         full: {second_recording} of {file_size} bytes"
    )
}

/// Returns true if these bytes begin with an EBML header of Matroska or WebM.
fn is_document(bytes: &[u8]) -> bool {
    let Some(header) = Header::parse(bytes).filter(|header| header.id == id::EBML) else { return false };
    let content = bytes.get(header.length..).unwrap_or_default();
    let length = header.size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX);
    let content = &content[..length.min(LONGEST_HEADER).min(content.len())];
    DOCUMENT_TYPES.iter().any(|kind| memmem::find(content, kind).is_some())
}

/// The offset of the first document from `start` on.
async fn search(input: &Input, start: u64, end: u64) -> Result<Option<u64>, S3Error> {
    let mut at = start;
    while at < end {
        // Windows overlap by a header.
        let window = input.bytes(at, end.min(at + WINDOW + LONGEST_HEADER as u64)).await?;
        let window = window.unwrap_or_default();
        if let Some(found) = document_in(&window) {
            return Ok(Some(at + found as u64));
        }
        at += WINDOW;
    }
    Ok(None)
}

fn document_in(window: &[u8]) -> Option<usize> {
    memmem::find_iter(window, &id::EBML.to_be_bytes()).find(|at| is_document(&window[*at..]))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::fixtures::clip;

    async fn second(bytes: &[u8]) -> Option<u64> {
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join("joined.webm");
        std::fs::write(&path, bytes).unwrap();
        second_recording(&Input::File(path)).await
    }

    #[tokio::test]
    async fn a_second_recording_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let source = "-f lavfi -i testsrc2=size=64x48:rate=10:duration=1";
        for options in ["", "-live 1"] {
            let file = clip(&folder, "one.webm", &format!("{source} -c:v libvpx {options}"));
            let one = std::fs::read(file).unwrap();
            assert_eq!(second(&one).await, None, "{options}");
            assert_eq!(second(&[&one[..], &one].concat()).await, Some(one.len() as u64), "{options}");
            let garbage = [&one[..], b"\x1a\x45\xdf\xa3\x84none", &[0; 5000]].concat();
            assert_eq!(second(&garbage).await, None, "{options}");
            assert_eq!(second(&one[..one.len() / 2]).await, None, "{options}");
        }
        assert_eq!(second(b"\x1a\x45\xdf\xa3").await, None);
        assert_eq!(second(b"").await, None);
        let mp4 = std::fs::read(clip(&folder, "other.mp4", source)).unwrap();
        assert_eq!(second(&mp4).await, None);
    }
}
