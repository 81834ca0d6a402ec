//! Sparse MP4 files for tests.

use std::ops::Range;

use super::media_facts::MediaFacts;

/// An object that stores only some parts. All other bytes are zero.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) bytes: u64,
    pub(super) parts: Vec<(u64, Vec<u8>)>,
}

impl Object {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: bytes.len() as u64, parts: vec![(0, bytes)] }
    }

    /// Appends a part after a gap of zeros.
    pub(super) fn then(mut self, gap: u64, part: Vec<u8>) -> Self {
        let start = self.bytes + gap;
        self.bytes = start + part.len() as u64;
        self.parts.push((start, part));
        self
    }

    pub(super) fn read(&self, range: Range<u64>) -> Vec<u8> {
        let range = range.start..range.end.min(self.bytes);
        let mut read = vec![0; (range.end - range.start) as usize];
        for (start, part) in &self.parts {
            let from = range.start.max(*start);
            let to = range.end.min(start + part.len() as u64);
            if from < to {
                read[(from - range.start) as usize..(to - range.start) as usize]
                    .copy_from_slice(&part[(from - start) as usize..(to - start) as usize]);
            }
        }
        read
    }
}

pub(super) fn wrap(kind: &[u8; 4], parts: &[Vec<u8>]) -> Vec<u8> {
    let body = parts.concat();
    [&(body.len() as u32 + 8).to_be_bytes()[..], kind, &body].concat()
}

pub(super) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

pub(super) fn ftyp(brand: &[u8; 4]) -> Vec<u8> {
    wrap(b"ftyp", &[brand.to_vec(), words(&[0])])
}

/// `mvhd` with a duration in milliseconds.
pub(super) fn mvhd(duration: u32) -> Vec<u8> {
    wrap(b"mvhd", &[words(&[0, 0, 0, 1000, duration]), vec![0; 80]])
}

/// A video track with 25 frames per second, or an audio track at 44.1 kHz if `size` is `None`. Two tables of
/// `table` bytes each follow the boxes that are read.
pub(super) fn trak(entry: &[u8; 4], size: Option<(u16, u16)>, frames: u32, table: usize) -> Vec<u8> {
    let handler = if size.is_some() { b"vide" } else { b"soun" };
    let ticks = if size.is_some() { 512 } else { 1024 };
    let timescale = if size.is_some() { 12_800 } else { 44_100 };
    let (width, height) = size.unwrap_or_default();
    let sample = [vec![0; 24], width.to_be_bytes().into(), height.to_be_bytes().into(), vec![0; 50]];
    wrap(
        b"trak",
        &[
            wrap(b"tkhd", &[vec![0; 84]]),
            wrap(
                b"mdia",
                &[
                    wrap(b"mdhd", &[words(&[0, 0, 0, timescale, frames * ticks, 0x55c4_0000])]),
                    wrap(b"hdlr", &[words(&[0, 0]), handler.to_vec(), vec![0; 13]]),
                    wrap(
                        b"minf",
                        &[
                            // QuickTime's second `hdlr`, for the data.
                            wrap(b"hdlr", &[words(&[0]), b"dhlralis".to_vec(), vec![0; 13]]),
                            wrap(
                                b"stbl",
                                &[
                                    wrap(b"stsd", &[words(&[0, 1]), wrap(entry, &sample)]),
                                    wrap(b"stts", &[words(&[0, 1, frames, ticks])]),
                                    wrap(b"stsz", &[vec![1; table]]),
                                    wrap(b"stco", &[vec![1; table]]),
                                ],
                            ),
                        ],
                    ),
                ],
            ),
        ],
    )
}

pub(super) fn moov(parts: &[Vec<u8>]) -> Vec<u8> {
    wrap(b"moov", parts)
}

/// The header of an `mdat` box, with a 64-bit size.
pub(super) fn mdat(bytes: u64) -> Vec<u8> {
    [&words(&[1])[..], b"mdat", &(bytes + 16).to_be_bytes()].concat()
}

pub(super) const FULL_HD: Option<(u16, u16)> = Some((1920, 1080));

pub(super) fn expected(codec: &'static str, has_audio: Option<bool>) -> MediaFacts {
    MediaFacts {
        container: Some("MP4"),
        codec: Some(codec),
        width: Some(1920),
        height: Some(1080),
        frame_rate: Some(25.0),
        duration_seconds: Some(60.0),
        has_video: Some(true),
        has_audio,
    }
}
