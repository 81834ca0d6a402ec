//! MP4 files with changed boxes and bits.

use vidstreamx_isobmff::{BoxType, boxes::boxes};

use crate::cases::Cases;

/// A box of an MP4 file.
#[derive(Clone)]
pub(crate) struct Mp4Box {
    pub kind: BoxType,
    /// The body; for a box with children, only the fields in front of them.
    pub content: Vec<u8>,
    pub children: Vec<Self>,
}

impl Mp4Box {
    pub(crate) fn new(kind: &[u8; 4], content: impl Into<Vec<u8>>) -> Self {
        Self { kind: *kind, content: content.into(), children: Vec::new() }
    }

    pub(crate) fn parse(bytes: &[u8]) -> Vec<Self> {
        let parse = |(kind, body): (BoxType, &[u8])| {
            let fields = match &kind {
                b"moov" | b"trak" | b"mdia" | b"minf" | b"stbl" | b"edts" | b"dinf" | b"moof" | b"traf" => 0,
                b"stsd" | b"dref" => 8,
                b"avc1" => 78,
                b"mp4a" | b"sowt" => 28,
                _ => body.len(),
            };
            let (content, children) = body.split_at(fields);
            Self { kind, content: content.into(), children: Self::parse(children) }
        };
        boxes(bytes).map(parse).collect()
    }

    pub(crate) fn write(boxes: &[Self]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for mp4_box in boxes {
            let children = Self::write(&mp4_box.children);
            bytes.extend(((8 + mp4_box.content.len() + children.len()) as u32).to_be_bytes());
            bytes.extend(mp4_box.kind);
            bytes.extend(&mp4_box.content);
            bytes.extend(children);
        }
        bytes
    }

    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.content[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// Changes the first box at a path, for example `moov/trak/tkhd`.
pub(crate) fn with(clip: &[u8], path: &str, change: impl FnOnce(&mut Mp4Box)) -> Vec<u8> {
    let mut boxes = Mp4Box::parse(clip);
    change(find(&mut boxes, path));
    Mp4Box::write(&boxes)
}

pub(crate) fn find<'a>(boxes: &'a mut [Mp4Box], path: &str) -> &'a mut Mp4Box {
    let (kind, rest) = path.split_once('/').map_or((path, None), |(kind, rest)| (kind, Some(rest)));
    let mp4_box = boxes.iter_mut().find(|mp4_box| mp4_box.kind == kind.as_bytes()).unwrap();
    match rest {
        Some(rest) => find(&mut mp4_box.children, rest),
        None => mp4_box,
    }
}

pub(crate) const STBL: &str = "moov/trak/mdia/minf/stbl";
pub(crate) const VIDEO: &str = "-f lavfi -i testsrc2=size=320x180:rate=25:duration=2";
pub(crate) const X264: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 25 -bf 1";
pub(crate) const HUGE: [u8; 4] = 0xffff_fff0_u32.to_be_bytes();

/// A clip with `moov` at its end, so that `moov` can grow.
pub(crate) fn clip(cases: &Cases) -> Vec<u8> {
    cases.generate(&format!("{VIDEO} -f lavfi -i sine=duration=2 {X264} -c:a aac"), "mp4")
}

/// A deterministic generator of numbers below its argument.
pub(crate) fn random(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    }
}

/// The start and end of a box's body.
pub(crate) fn range_of(bytes: &[u8], kind: &[u8; 4]) -> (usize, usize) {
    let at = bytes.windows(4).position(|window| window == kind).unwrap();
    (at + 4, at - 4 + u32::from_be_bytes(bytes[at - 4..at].try_into().unwrap()) as usize)
}

/// Flips `count` bits of a box, between two positions that are fractions of its body.
pub(crate) fn flipped(
    clip: &[u8],
    kind: &[u8; 4],
    fractions: (f64, f64),
    count: usize,
    seed: u64,
) -> Vec<u8> {
    let (start, end) = range_of(clip, kind);
    let length = (end - start) as f64;
    let (from, to) = (start + (length * fractions.0) as usize, start + (length * fractions.1) as usize);
    let (mut bytes, mut random) = (clip.to_vec(), random(seed));
    for _ in 0..count {
        bytes[from + random(to - from)] ^= 1 << random(8);
    }
    bytes
}
