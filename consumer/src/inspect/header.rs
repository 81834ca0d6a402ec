//! What an upload is, from a few small reads of it, before a task is paid for.
//!
//! A video's size in pixels, its codec and its length say how large a task it needs ([`crate::sizing`]). They stand
//! in the movie header of an MP4 or QuickTime file, at its start or its end, and a walk over the boxes finds
//! it in one to three reads. What a walk does not find is unknown and no error: FFmpeg reads a lot that is
//! not worth understanding twice.
//!
//! The other use is to refuse what is evidently no video. FFmpeg has the last word on that: refused here is
//! only what the task would certainly refuse as well, and in any doubt it is a video.
//!
//! Uploads are hostile. A walk looks only at bytes that were read, moves forward only, and takes no
//! memory by a size that the file claims.

use std::ops::Range;

use aws_sdk_s3::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::get_object::GetObjectOutput,
};
use file_format::{FileFormat, Kind};
use mp4_atom::{Atom, DecodeMaybe, Header, Mdhd, Mehd, Mvhd};
use vidstreamx_job::Source;

use crate::aws::error::{self, CallError};

/// Of one read, in bytes. As a rule it holds a movie header up to its first large table; S3 takes about as
/// long to answer with one byte, and hundreds of uploads may be looked into at a time.
pub const READ: u64 = 16 << 10;
/// The file's start; the movie header, where it is at the end; the track of pictures, where a track of sound
/// with large tables comes before it.
pub const MOST_READS: usize = 3;
/// Boxes whose fields are decoded: `mvhd`, the largest, has 112 bytes.
const LARGEST_FIELDS: u64 = 256;
/// Up to and with the height of the first sample entry in `stsd` (ISO/IEC 14496-12, 8.5.2 and 12.1.3).
const SAMPLE_ENTRY: u64 = 44;
/// FFmpeg looks for a known box in at most this much of a file's beginning (`PROBE_BUF_MAX`).
const FFMPEG_PROBES: u32 = 1 << 20;

/// What is known about a video. What is `None` was not found within the reads.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MediaFacts {
    /// For people.
    pub container: Option<&'static str>,
    /// One of [`codecs`], FFmpeg's names.
    pub codec: Option<&'static str>,
    /// In pixels, as coded: before it is turned or stretched.
    pub width: Option<u32>,
    /// In pixels, as coded.
    pub height: Option<u32>,
    /// Frames per second, the average.
    pub frame_rate: Option<f64>,
    /// Of the whole file.
    pub duration_seconds: Option<f64>,
    /// Whether there is a track of pictures.
    pub has_video: Option<bool>,
    /// Whether there is a track of sound.
    pub has_audio: Option<bool>,
}

impl MediaFacts {
    /// Millions of pixels in a frame; none where there is only sound.
    #[must_use]
    pub fn megapixels(&self) -> Option<f64> {
        if self.has_video == Some(false) {
            return Some(0.0);
        }
        Some(f64::from(self.width?) * f64::from(self.height?) / 1e6)
    }

    /// Whether another read could tell nothing that decides anything.
    const fn are_enough(&self) -> bool {
        self.codec.is_some() && self.width.is_some() && self.duration_seconds.is_some()
    }
}

/// The codecs that can be told, by FFmpeg's names, with the sample entries of MP4 and QuickTime that mean
/// them (MP4RA's registry and FFmpeg's `isom_tags.c`).
const SAMPLE_ENTRIES: [(&str, &[&[u8; 4]]); 13] = [
    ("av1", &[b"av01", b"dav1"]),
    ("cfhd", &[b"CFHD"]),
    ("dnxhd", &[b"AVdn", b"AVdh"]),
    ("h263", &[b"s263", b"h263"]),
    ("h264", &[b"avc1", b"avc2", b"avc3", b"avc4", b"dva1", b"dvav"]),
    ("hevc", &[b"hvc1", b"hev1", b"dvh1", b"dvhe"]),
    ("mjpeg", &[b"jpeg", b"mjpa", b"mjpb"]),
    // Or what its `esds` says, which in uploads is this.
    ("mpeg4", &[b"mp4v"]),
    ("png", &[b"png "]),
    ("prores", &[b"apco", b"apcs", b"apcn", b"apch", b"ap4h", b"ap4x"]),
    ("vp8", &[b"vp08"]),
    ("vp9", &[b"vp09"]),
    ("vvc", &[b"vvc1", b"vvi1"]),
];

/// The codecs that can be told, by FFmpeg's names.
pub fn codecs() -> impl Iterator<Item = &'static str> {
    SAMPLE_ENTRIES.iter().map(|(codec, _)| *codec)
}

/// What a walk wants or has found.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// These bytes of the object are to be read next; at most [`READ`].
    Read(Range<u64>),
    /// The walk is over.
    Video(MediaFacts),
    /// The walk is over: one sentence for the uploader.
    NotVideo(String),
}

/// A walk over the boxes of an object, as far as it was read.
#[derive(Debug)]
pub struct Walk {
    object_bytes: u64,
    reads: Vec<Window>,
}

/// Bytes of the object, from a place in it.
#[derive(Debug)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

/// Why bytes are not at hand.
enum Missing {
    /// They begin here and were not read.
    At(u64),
    /// There are none, or they make no sense.
    Never,
}

/// A box, by where its body is in the object.
struct Found {
    kind: [u8; 4],
    body: Range<u64>,
}

/// A track, as far as it was read.
#[derive(Default)]
struct Track {
    handler: Option<[u8; 4]>,
    /// Ticks per second.
    timescale: u32,
    /// In ticks.
    duration: u64,
    sample_entry: Option<[u8; 4]>,
    size: Option<(u32, u32)>,
    frame_rate: Option<f64>,
}

impl Walk {
    /// What is to be read first, of an object of any size.
    pub const FIRST: Range<u64> = 0..READ;

    /// A walk over an object of this size. It begins with [`Walk::FIRST`].
    #[must_use]
    pub const fn new(object_bytes: u64) -> Self {
        Self { object_bytes, reads: Vec::new() }
    }

    /// Takes what was read at `offset`, and goes on from there.
    pub fn feed(&mut self, offset: u64, bytes: Vec<u8>) -> Step {
        if self.object_bytes == 0 {
            return Step::NotVideo("the file is empty".into());
        }
        if self.reads.is_empty()
            && offset == 0
            && let Some(reason) = not_a_video(&bytes, self.object_bytes)
        {
            return Step::NotVideo(reason);
        }
        self.reads.push(Window { start: offset, bytes });
        let mut facts = MediaFacts::default();
        let unread = self.file(&mut facts);
        match unread.filter(|_| self.reads.len() < MOST_READS && !facts.are_enough()) {
            Some(start) => Step::Read(start..self.object_bytes.min(start.saturating_add(READ))),
            None => Step::Video(facts),
        }
    }

    /// Collects what the reads tell; the answer is the first place at which they do not suffice.
    fn file(&self, facts: &mut MediaFacts) -> Option<u64> {
        if self.slice(0..4).is_ok_and(|bytes| bytes == EBML) {
            facts.container = Some("Matroska");
            return None;
        }
        let mut boxes = Boxes::new(self, 0..self.object_bytes);
        loop {
            match boxes.next() {
                Ok(found) if found.kind == *b"ftyp" => {
                    let brand = self.slice(found.body.start..found.body.start.saturating_add(4));
                    let quicktime = brand.is_ok_and(|brand| brand == b"qt  ");
                    facts.container = Some(if quicktime { "QuickTime" } else { "MP4" });
                }
                Ok(found) if found.kind == *b"moov" => {
                    facts.container.get_or_insert("QuickTime");
                    return self.movie(found.body, facts);
                }
                Ok(_) => {}
                Err(Missing::At(place)) => return Some(place),
                Err(Missing::Never) => return None,
            }
        }
    }

    fn movie(&self, body: Range<u64>, facts: &mut MediaFacts) -> Option<u64> {
        let mut tracks: Vec<Track> = Vec::new();
        let mut length = Length::default();
        let mut boxes = Boxes::new(self, body);
        let mut complete = false;
        let unread = loop {
            let found = match boxes.next() {
                Ok(found) => found,
                Err(Missing::At(place)) => break Some(place),
                Err(Missing::Never) => {
                    complete = boxes.at_end();
                    break None;
                }
            };
            let read = match &found.kind {
                b"mvhd" => self.fields::<Mvhd>(&found.body).map(|mvhd| {
                    (length.timescale, length.movie) = (mvhd.timescale, mvhd.duration);
                }),
                b"mvex" => {
                    length.fragmented = true;
                    self.fragments(found.body, &mut length)
                }
                b"trak" => {
                    let mut track = Track::default();
                    let read = self.track(found.body, Level::Track, &mut track);
                    tracks.push(track);
                    read
                }
                _ => Ok(()),
            };
            if let Err(Missing::At(place)) = read {
                break Some(place);
            }
        };
        facts.take(&tracks, &length, complete);
        unread
    }

    fn fragments(&self, body: Range<u64>, length: &mut Length) -> Result<(), Missing> {
        let mut boxes = Boxes::new(self, body);
        while let Some(found) = boxes.whole()? {
            if found.kind == *b"mehd" {
                length.fragments = self.fields::<Mehd>(&found.body)?.fragment_duration;
            }
        }
        Ok(())
    }

    /// Goes down to `stsd` and `stts`, four levels deep, and no further: tables may be long.
    fn track(&self, body: Range<u64>, level: Level, track: &mut Track) -> Result<(), Missing> {
        let mut boxes = Boxes::new(self, body);
        loop {
            let found = match boxes.whole() {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(()),
                // Tables follow on it that nobody needs.
                Err(_) if track.sample_entry.is_some() => return Ok(()),
                Err(unread) => return Err(unread),
            };
            match (level, &found.kind) {
                (Level::Track, b"mdia") => self.track(found.body, Level::Media, track)?,
                (Level::Media, b"minf") => self.track(found.body, Level::Information, track)?,
                (Level::Information, b"stbl") => self.track(found.body, Level::Samples, track)?,
                (Level::Media, b"mdhd") => {
                    let mdhd = self.fields::<Mdhd>(&found.body)?;
                    (track.timescale, track.duration) = (mdhd.timescale, mdhd.duration);
                }
                (Level::Media, b"hdlr") => {
                    let handler = self.prefix(&found.body, 12)?.get(8..12);
                    track.handler = handler.and_then(|handler| handler.try_into().ok());
                }
                (Level::Samples, b"stsd") => {
                    let entry = self.prefix(&found.body, SAMPLE_ENTRY)?;
                    track.sample_entry = entry.get(12..16).and_then(|kind| kind.try_into().ok());
                    let side =
                        |at| Some(u32::from(u16::from_be_bytes(entry.get(at..at + 2)?.try_into().ok()?)));
                    track.size = side(40).zip(side(42)).filter(|(width, height)| *width > 0 && *height > 0);
                }
                (Level::Samples, b"stts") => {
                    let table = self.slice(found.body).unwrap_or_default();
                    track.frame_rate = frame_rate(table, track.timescale);
                }
                _ => {}
            }
        }
    }

    /// A box's fields.
    fn fields<T: Atom>(&self, body: &Range<u64>) -> Result<T, Missing> {
        T::decode_body(&mut self.prefix(body, LARGEST_FIELDS)?).map_err(|_| Missing::Never)
    }

    /// A body's first `most` bytes, or all of it.
    fn prefix(&self, body: &Range<u64>, most: u64) -> Result<&[u8], Missing> {
        self.slice(body.start..body.end.min(body.start.saturating_add(most)))
    }

    /// Bytes out of one of the reads.
    fn slice(&self, place: Range<u64>) -> Result<&[u8], Missing> {
        if place.start >= place.end {
            return Err(Missing::Never);
        }
        let inside = |window: &Window| {
            let start = usize::try_from(place.start.checked_sub(window.start)?).ok()?;
            let end = usize::try_from(place.end.checked_sub(window.start)?).ok()?;
            (end <= window.bytes.len()).then_some(start..end)
        };
        let found = self.reads.iter().find_map(|window| window.bytes.get(inside(window)?));
        found.ok_or(Missing::At(place.start))
    }
}

/// How deep in a track's boxes.
#[derive(Clone, Copy)]
enum Level {
    /// In `trak`.
    Track,
    /// In `mdia`.
    Media,
    /// In `minf`. QuickTime has another `hdlr` there.
    Information,
    /// In `stbl`.
    Samples,
}

/// What the movie header says about its length, in ticks.
#[derive(Default)]
struct Length {
    /// Ticks per second.
    timescale: u32,
    movie: u64,
    fragmented: bool,
    fragments: u64,
}

impl MediaFacts {
    fn take(&mut self, tracks: &[Track], length: &Length, complete: bool) {
        let of =
            |kind: &'static [u8; 4]| tracks.iter().filter(move |track| track.handler.as_ref() == Some(kind));
        let known = |found: bool| (found || complete).then_some(found);
        self.has_video = known(of(b"vide").next().is_some());
        self.has_audio = known(of(b"soun").next().is_some());
        // Beside the pictures, a file may have a still one.
        let video = of(b"vide")
            .max_by_key(|track| track.size.map(|(width, height)| u64::from(width) * u64::from(height)));
        if let Some(video) = video {
            self.codec = SAMPLE_ENTRIES
                .iter()
                .find(|(_, kinds)| video.sample_entry.is_some_and(|kind| kinds.contains(&&kind)))
                .map(|(codec, _)| *codec);
            (self.width, self.height) = video.size.unzip();
            self.frame_rate = video.frame_rate;
        }
        // The header of a fragmented file speaks of what is in no fragment.
        let movie = if length.fragmented { length.fragments } else { length.movie };
        self.duration_seconds = seconds(movie, length.timescale).or_else(|| {
            video.filter(|_| !length.fragmented).and_then(|video| seconds(video.duration, video.timescale))
        });
    }
}

/// `None` for no length, and for the one that means unknown: all ones.
fn seconds(ticks: u64, timescale: u32) -> Option<f64> {
    let known = timescale > 0 && !matches!(ticks, 0 | 0xffff_ffff | u64::MAX);
    known.then(|| ticks as f64 / f64::from(timescale))
}

/// Frames per second by the table of times, `stts`.
fn frame_rate(table: &[u8], timescale: u32) -> Option<f64> {
    let number = |bytes: &[u8]| Some(u64::from(u32::from_be_bytes(bytes.try_into().ok()?)));
    let (frames, ticks) =
        table.get(8..)?.chunks_exact(8).try_fold((0_u64, 0_u64), |(frames, ticks), entry| {
            let (count, delta) = (number(entry.get(..4)?)?, number(entry.get(4..)?)?);
            Some((frames.saturating_add(count), ticks.saturating_add(count.saturating_mul(delta))))
        })?;
    (frames > 1 && ticks > 0)
        .then(|| frames as f64 * f64::from(timescale) / ticks as f64)
        .filter(|rate| *rate > 0.0)
}

/// The boxes in a part of an object, one behind the other.
struct Boxes<'a> {
    walk: &'a Walk,
    rest: Range<u64>,
}

impl<'a> Boxes<'a> {
    const fn new(walk: &'a Walk, rest: Range<u64>) -> Self {
        Self { walk, rest }
    }

    const fn at_end(&self) -> bool {
        self.rest.start >= self.rest.end
    }

    /// The next box; [`Missing::Never`] at the end too. A box that claims more than there is ends with what it
    /// is in.
    fn next(&mut self) -> Result<Found, Missing> {
        // Where the size does not fit into four bytes, eight follow.
        let mut bytes = self.walk.prefix(&self.rest, 16)?;
        let before = bytes.len();
        let Ok(Some(header)) = Header::decode_maybe(&mut bytes) else { return Err(Missing::Never) };
        let start = self.rest.start + (before - bytes.len()) as u64;
        let end =
            header.size.map_or(self.rest.end, |size| start.saturating_add(size as u64)).min(self.rest.end);
        self.rest.start = end;
        Ok(Found { kind: header.kind.into(), body: start..end })
    }

    /// As [`Boxes::next`], but `None` at the end, and at what makes no sense.
    fn whole(&mut self) -> Result<Option<Found>, Missing> {
        match self.next() {
            Ok(found) => Ok(Some(found)),
            Err(Missing::Never) => Ok(None),
            Err(unread) => Err(unread),
        }
    }
}

/// How a Matroska or WebM file begins.
const EBML: [u8; 4] = [0x1a, 0x45, 0xdf, 0xa3];

/// Why a file that begins so is certainly refused by the task, in a sentence for its uploader.
///
/// The task lets FFmpeg use two demuxers, `mov` and `matroska`, and refuses what neither of them takes for
/// its own. Only what is also recognised as something else is refused here.
fn not_a_video(head: &[u8], object_bytes: u64) -> Option<String> {
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
                "the file is a video in a format ({name}) that is not accepted: MP4, QuickTime, Matroska and WebM are"
            ));
        }
        Kind::Audio => "sound",
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

/// Whether FFmpeg's probes for `mov` and `matroska` could say yes (`mov_probe`, `matroska_probe`). The first
/// looks at box after box; where the first box is no known one and ends behind what is probed, it says no.
fn may_be_readable(head: &[u8]) -> bool {
    // Those that the probe knows, and others that can come first in what other programs take for MP4.
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
    // What follows on an ID3 tag is probed as if there were none.
    if head.starts_with(&EBML) || head.starts_with(b"ID3") {
        return true;
    }
    let Some((size, rest)) = head.split_first_chunk() else { return false };
    let Some(kind) = rest.first_chunk() else { return false };
    u32::from_be_bytes(*size) <= FFMPEG_PROBES || FIRST.contains(&kind)
}

/// Whether bytes are text in UTF-8 that people or programs write. A character may be cut off at the end.
fn is_text(bytes: &[u8], whole: bool) -> bool {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if !whole && error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.is_empty() && !text.chars().any(|letter| letter.is_control() && !"\t\n\r\u{c}".contains(letter))
}

/// What a look at an upload shows.
#[derive(Debug, Clone, PartialEq)]
pub enum Inspection {
    /// It is, or may be, a video.
    Video(MediaFacts),
    /// It is evidently none; one sentence for the uploader.
    NotVideo(String),
    /// It was deleted.
    Gone,
    /// Its key has another content now.
    Replaced,
}

/// Reads what an upload is, and whether it is still the current content of its key.
///
/// # Errors
/// A call failed, or may not be made.
pub async fn look(client: &Client, source: &Source) -> Result<Inspection, CallError> {
    let mut wanted = Walk::FIRST;
    // Once the first read has told which content this is.
    let mut under_way: Option<(Walk, String)> = None;
    loop {
        let answer = client
            .get_object()
            .bucket(source.bucket.as_str())
            .key(source.key.as_str())
            .range(format!("bytes={}-{}", wanted.start, wanted.end - 1))
            .set_if_match(under_way.as_ref().map(|(_, etag)| etag.clone()))
            .send()
            .await;
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(error) => return ended(source, under_way.is_none(), &error),
        };
        let (walk, _) = match &mut under_way {
            Some(walk) => walk,
            None if !is_current(source, &answer) => return Ok(Inspection::Replaced),
            None => {
                let etag = answer.e_tag.clone().unwrap_or_default();
                under_way.insert((Walk::new(object_bytes(source, &answer)), etag))
            }
        };
        let start = range_start(&answer);
        let bytes = body(&mut answer).await?;
        match walk.feed(start, bytes) {
            Step::Read(next) => wanted = next,
            Step::Video(facts) => return Ok(Inspection::Video(facts)),
            Step::NotVideo(reason) => return Ok(Inspection::NotVideo(reason)),
        }
    }
}

/// What a refusal says about the object, if anything.
fn ended<E>(source: &Source, is_first: bool, error: &SdkError<E>) -> Result<Inspection, CallError>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let status = error::status(error);
    let code = error.as_service_error().and_then(|error| error.meta().code());
    match status {
        Some(404) if code != Some("NoSuchBucket") => Ok(Inspection::Gone),
        Some(412) => Ok(Inspection::Replaced),
        // No byte of the object is in the first range: it has none.
        Some(416) if is_first && source.size.is_some_and(|size| size > 0) => Ok(Inspection::Replaced),
        Some(416) if is_first => Ok(Inspection::NotVideo("the file is empty".into())),
        _ => Err(CallError::new("GetObject", error)),
    }
}

/// Whether what was read is what the source speaks of.
fn is_current(source: &Source, answer: &GetObjectOutput) -> bool {
    match (&source.version_id, &answer.version_id) {
        (Some(wanted), Some(current)) => wanted == current,
        // Without versions, or at a store that does not tell them.
        _ => {
            let etag = answer.e_tag.as_deref().map(|etag| etag.trim_matches('"'));
            source.etag.is_none() || source.etag.as_deref() == etag
        }
    }
}

/// The object's size, by `bytes 0-16383/1000000`, or by the length of an answer that is all of it. Where
/// nothing tells it, the walk must not take the end of what it has for the file's.
fn object_bytes(source: &Source, answer: &GetObjectOutput) -> u64 {
    let told = match &answer.content_range {
        Some(range) => range.rsplit_once('/').and_then(|(_, total)| total.parse().ok()),
        None => answer.content_length.and_then(|length| u64::try_from(length).ok()),
    };
    told.or(source.size).unwrap_or(u64::MAX)
}

/// Where an answer begins in the object: not where it was asked to, if the store knows no ranges.
fn range_start(answer: &GetObjectOutput) -> u64 {
    let start = |range: &str| range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok();
    answer.content_range.as_deref().and_then(start).unwrap_or_default()
}

/// At most [`READ`] bytes, whatever is sent.
async fn body(answer: &mut GetObjectOutput) -> Result<Vec<u8>, CallError> {
    let most = READ as usize;
    let mut bytes = Vec::new();
    while bytes.len() < most {
        let chunk = answer.body.try_next().await;
        let chunk =
            chunk.map_err(|error| CallError::Passing { call: "GetObject", reason: error.to_string() })?;
        let Some(chunk) = chunk else { break };
        bytes.extend_from_slice(&chunk[..chunk.len().min(most - bytes.len())]);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use aws_sdk_s3::primitives::ByteStream;
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
    use proptest::prelude::*;

    use super::*;

    /// An object of which only the parts at hand matter: everything else in it is zeros.
    #[derive(Debug, Clone)]
    struct Object {
        bytes: u64,
        parts: Vec<(u64, Vec<u8>)>,
    }

    impl Object {
        fn new(bytes: Vec<u8>) -> Self {
            Self { bytes: bytes.len() as u64, parts: vec![(0, bytes)] }
        }

        /// Behind everything so far, and after a gap.
        fn then(mut self, gap: u64, part: Vec<u8>) -> Self {
            let start = self.bytes + gap;
            self.bytes = start + part.len() as u64;
            self.parts.push((start, part));
            self
        }

        fn read(&self, place: Range<u64>) -> Vec<u8> {
            let place = place.start..place.end.min(self.bytes);
            let mut read = vec![0; (place.end - place.start) as usize];
            for (start, part) in &self.parts {
                let from = place.start.max(*start);
                let to = place.end.min(start + part.len() as u64);
                if from < to {
                    read[(from - place.start) as usize..(to - place.start) as usize]
                        .copy_from_slice(&part[(from - start) as usize..(to - start) as usize]);
                }
            }
            read
        }
    }

    /// What a walk ends with, and how often it read.
    fn walk(object: &Object) -> (Step, usize) {
        let mut walk = Walk::new(object.bytes);
        let mut place = Walk::FIRST;
        for reads in 1.. {
            assert!(reads <= MOST_READS);
            match walk.feed(place.start, object.read(place)) {
                Step::Read(next) => {
                    assert!(
                        next.start < next.end && next.end <= object.bytes && next.end - next.start <= READ
                    );
                    place = next;
                }
                end => return (end, reads),
            }
        }
        unreachable!()
    }

    fn facts(object: &Object) -> (MediaFacts, usize) {
        match walk(object) {
            (Step::Video(facts), reads) => (facts, reads),
            (end, _) => panic!("{end:?}"),
        }
    }

    fn wrap(kind: &[u8; 4], parts: &[Vec<u8>]) -> Vec<u8> {
        let body = parts.concat();
        [&(body.len() as u32 + 8).to_be_bytes()[..], kind, &body].concat()
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn ftyp(brand: &[u8; 4]) -> Vec<u8> {
        wrap(b"ftyp", &[brand.to_vec(), words(&[0])])
    }

    /// In milliseconds.
    fn mvhd(duration: u32) -> Vec<u8> {
        wrap(b"mvhd", &[words(&[0, 0, 0, 1000, duration]), vec![0; 80]])
    }

    /// A track at 25 frames per second, and sound at 44,100 samples, with two tables of so many bytes
    /// behind what matters.
    fn trak(entry: &[u8; 4], size: Option<(u16, u16)>, frames: u32, table: usize) -> Vec<u8> {
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
                                // As QuickTime's `hdlr` of the data.
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

    fn moov(parts: &[Vec<u8>]) -> Vec<u8> {
        wrap(b"moov", parts)
    }

    /// An `mdat` box's header in its long form.
    fn mdat(bytes: u64) -> Vec<u8> {
        [&words(&[1])[..], b"mdat", &(bytes + 16).to_be_bytes()].concat()
    }

    const FULL_HD: Option<(u16, u16)> = Some((1920, 1080));

    fn expected(codec: &'static str, has_audio: Option<bool>) -> MediaFacts {
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

    #[test]
    fn a_header_at_the_start_takes_one_read() {
        let header = moov(&[mvhd(60_000), trak(b"avc1", FULL_HD, 1500, 6000), trak(b"mp4a", None, 9, 9)]);
        let object = Object::new([ftyp(b"isom"), header].concat()).then(0, mdat(1 << 40));
        assert_eq!(facts(&object), (expected("h264", Some(true)), 1));
    }

    #[test]
    fn what_lies_behind_a_large_table_of_the_pictures_is_not_read() {
        let header = moov(&[mvhd(60_000), trak(b"hvc1", FULL_HD, 1500, 1 << 20), trak(b"mp4a", None, 9, 9)]);
        let object = Object::new([ftyp(b"isom"), header].concat());
        assert_eq!(facts(&object), (expected("hevc", None), 1));
    }

    #[test]
    fn a_header_at_the_end_takes_two_and_large_tables_of_sound_before_it_a_third() {
        for (table, reads) in [(6000, 2), (1 << 20, 3)] {
            let header =
                moov(&[mvhd(60_000), trak(b"mp4a", None, 9, table), trak(b"av01", FULL_HD, 1500, 9)]);
            let object = Object::new([ftyp(b"isom"), mdat(5 << 30)].concat()).then(5 << 30, header.clone());
            assert_eq!(facts(&object), (expected("av1", Some(true)), reads));
            // And where the header is at the start, one less.
            let object = Object::new([ftyp(b"isom"), header, mdat(5 << 30)].concat()).then(5 << 30, vec![]);
            assert_eq!(facts(&object), (expected("av1", Some(true)), reads - 1));
        }
    }

    #[test]
    fn a_header_that_a_read_cuts_anywhere_is_read_on_from_there() {
        let header = moov(&[mvhd(60_000), trak(b"avc1", FULL_HD, 1500, 70_000)]);
        // Up to the table of times, so that the last of these reads all of it.
        let needed = header.len() - 2 * (70_000 + 8);
        for cut in 0..=needed {
            let free = READ as usize - cut - ftyp(b"isom").len() - 8;
            let object =
                Object::new([ftyp(b"isom"), wrap(b"free", &[vec![0; free]]), header.clone()].concat());
            let (mut found, reads) = facts(&object);
            assert!(reads <= 2, "{cut}");
            // The only one that is not worth another read.
            found.frame_rate = Some(25.0);
            found.has_audio = None;
            assert_eq!(found, expected("h264", None), "{cut}");
        }
    }

    #[test]
    fn the_fourth_read_is_not_made() {
        let sound = || trak(b"mp4a", None, 9, 1 << 20);
        let header = moov(&[mvhd(60_000), sound(), sound(), trak(b"avc1", FULL_HD, 1500, 9)]);
        let object = Object::new([ftyp(b"qt  "), mdat(5 << 30)].concat()).then(5 << 30, header);
        let (found, reads) = facts(&object);
        assert_eq!(
            (found.container, found.codec, found.duration_seconds),
            (Some("QuickTime"), None, Some(60.0))
        );
        assert_eq!((found.has_video, found.has_audio, reads), (None, Some(true), 3));
    }

    #[test]
    fn a_fragmented_file_is_as_long_as_its_fragments_if_it_says_so() {
        let mehd = wrap(b"mehd", &[words(&[0, 3_600_000])]);
        for (mvex, duration) in [(wrap(b"mvex", &[mehd]), Some(3600.0)), (wrap(b"mvex", &[]), None)] {
            let header = moov(&[mvhd(40), trak(b"avc1", FULL_HD, 1, 0), mvex]);
            let (found, _) = facts(&Object::new([ftyp(b"iso6"), header].concat()));
            assert_eq!((found.codec, found.duration_seconds), (Some("h264"), duration));
        }
    }

    #[test]
    fn of_several_tracks_of_pictures_the_largest_counts() {
        let still = trak(b"jpeg", Some((320, 180)), 1, 0);
        let header = moov(&[mvhd(60_000), still, trak(b"apch", FULL_HD, 1500, 0)]);
        let object = Object::new([ftyp(b"isom"), header].concat());
        assert_eq!(facts(&object).0, expected("prores", Some(false)));
    }

    #[test]
    fn unknown_lengths_sizes_and_codecs_stay_unknown() {
        let header = moov(&[mvhd(u32::MAX), trak(b"abcd", Some((0, 1080)), 0, 0)]);
        let (found, _) = facts(&Object::new([ftyp(b"isom"), header].concat()));
        let unknown = MediaFacts {
            container: Some("MP4"),
            has_video: Some(true),
            has_audio: Some(false),
            ..MediaFacts::default()
        };
        assert_eq!(found, unknown);
    }

    #[test]
    fn what_is_evidently_something_else_is_named() {
        let mut ts = vec![0_u8; 188 * 20];
        ts.iter_mut().step_by(188).for_each(|byte| *byte = 0x47);
        let cases: [(&[u8], &str); 17] = [
            (b"", "the file is empty"),
            (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "the file is a document (PDF), not a video"),
            (b"this is not a video\n", "the file is text, not a video"),
            ("Über Straßen, Ä".as_bytes(), "the file is text, not a video"),
            (b"hi", "the file is text, not a video"),
            (b"#EXTM3U\nhttp://169.254.169.254/\n", "the file is text, not a video"),
            (b"{\"a\": 1}", "the file is text, not a video"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01", "the file is an image (JPEG), not a video"),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "the file is an image (PNG), not a video"),
            (b"PK\x03\x04\x14\0\0\0\x08\0", "the file is an archive (ZIP), not a video"),
            (b"\x1f\x8b\x08\0\0\0\0\0\0\x03", "the file is an archive (GZ), not a video"),
            (b"\x7fELF\x02\x01\x01\0\0\0", "the file is a program (ELF), not a video"),
            (b"RIFF\x24\x08\0\0WAVEfmt ", "the file is sound (WAV), not a video"),
            (
                b"OggS\0\x02\0\0\0\0\0\0\0\0\x01\x02\x03\x04\0\0\0\0\0\0\0\0\x01\x2a\x80theora",
                "a video in a format (",
            ),
            (b"RIFF\x24\x08\0\0AVI LIST", "a video in a format (AVI) that is not accepted: MP4, QuickTime, "),
            (b"FLV\x01\x05\0\0\0\x09\0\0\0\0", "a video in a format (FLV) that is not accepted"),
            (&ts, "a video in a format (TS) that is not accepted"),
        ];
        for (bytes, reason) in cases {
            match walk(&Object::new(bytes.to_vec())) {
                (Step::NotVideo(said), 1) => assert!(said.contains(reason), "{said}"),
                (end, _) => panic!("{reason}: {end:?}"),
            }
        }
    }

    #[test]
    fn what_the_task_may_read_is_never_refused() {
        let readable: [&[u8]; 8] = [
            b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x1f\x42\x86\x81\x01",
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
            // Sound with a tag is not told from a video with one.
            b"ID3\x04\0\0\0\0\0\x0a0123456789\0\0\0\x18ftypisom",
            // No size fits, but the type does.
            b"\xff\xff\xff\xffmoov",
            b"Thismdat is a sentence",
            // The probe goes on four bytes later where the size makes no sense.
            b"\0\0\0\0\0\0\0\0%PDF-1.7\n",
            b"\0\0\x01\xba\x44\0\x04\0\x04\x01",
            &[0; 100],
        ];
        // Certainly not, but nothing that is known.
        let unknown: [&[u8]; 3] = [b"\x93\x17\x82\x11\xfe\x01\x02\x88\x99", b"\x93\x17", &[0xff; 100]];
        for (bytes, may) in
            readable.map(|bytes| (bytes, true)).into_iter().chain(unknown.map(|bytes| (bytes, false)))
        {
            assert_eq!(may_be_readable(bytes), may, "{bytes:x?}");
            assert!(matches!(walk(&Object::new(bytes.to_vec())), (Step::Video(_), 1)), "{bytes:x?}");
        }
    }

    #[test]
    fn sizes_beyond_all_bounds_end_with_the_file() {
        let boundless = |kind: &[u8; 4], size: u64| [&words(&[1])[..], kind, &size.to_be_bytes()].concat();
        let header = [mvhd(60_000), trak(b"avc1", FULL_HD, 1500, 9)].concat();
        for size in [u64::MAX, u64::MAX - 15, 1 << 63] {
            let object = Object::new([ftyp(b"isom"), boundless(b"moov", size), header.clone()].concat());
            assert_eq!(facts(&object), (expected("h264", Some(false)), 1));
            let object = Object::new(
                [ftyp(b"isom"), boundless(b"mdat", size), moov(std::slice::from_ref(&header))].concat(),
            );
            assert_eq!(facts(&object).0, MediaFacts { container: Some("MP4"), ..MediaFacts::default() });
        }
        // And those that leave no room for themselves.
        for size in [2_u32, 7] {
            let object = Object::new(
                [ftyp(b"isom"), words(&[size]), b"free".to_vec(), moov(std::slice::from_ref(&header))]
                    .concat(),
            );
            assert_eq!(facts(&object).0, MediaFacts { container: Some("MP4"), ..MediaFacts::default() });
        }
    }

    #[test]
    fn text_may_be_cut_off_within_a_letter_only_where_the_read_ends() {
        let text = "ä".repeat(READ as usize);
        assert!(matches!(walk(&Object::new(format!("x{text}").into_bytes())), (Step::NotVideo(_), 1)));
        assert!(matches!(walk(&Object::new(b"text, cut: \xc3".to_vec())), (Step::Video(_), 1)));
    }

    /// `may_be_readable` and its sentence name the same demuxers.
    #[test]
    fn readable_file_types_are_those_of_the_shared_demuxers() {
        assert_eq!(vidstreamx_job::DEMUXERS, "mov,matroska", "adapt may_be_readable and its sentence");
    }

    fn corpus() -> Option<PathBuf> {
        let folder = std::env::var_os("VIDSTREAMX_CORPUS")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"), PathBuf::from);
        folder.join("MANIFEST.tsv").exists().then_some(folder)
    }

    #[test]
    fn the_corpus_is_what_its_manifest_says() {
        let Some(folder) = corpus() else { return };
        let manifest = std::fs::read_to_string(folder.join("MANIFEST.tsv")).unwrap();
        let (mut videos, mut known) = (0, [0; MOST_READS + 1]);
        for line in manifest.lines().skip(1) {
            let columns: Vec<_> = line.split('\t').collect();
            let (name, streams, decodes) = (columns[0], columns[7], columns[8]);
            let (end, reads) = walk(&Object::new(std::fs::read(folder.join(name)).unwrap()));
            let found = match end {
                Step::Video(found) => found,
                end => {
                    assert!(decodes != "ok", "{name}: {end:?}");
                    continue;
                }
            };
            let field = |part: &str, name: &str| {
                let value = part.split(' ').find_map(|word| word.strip_prefix(name))?;
                value.parse::<f64>().ok()
            };
            let near = |found: Option<f64>, said: Option<f64>, what: &str| {
                let (Some(found), Some(said)) = (found, said) else { return };
                assert!(
                    (found - said).abs() <= 0.02 * said,
                    "{name}: {what} {found}, {said} by the manifest"
                );
            };
            // What FFmpeg cannot decode may be less than its header says.
            if decodes == "ok" || decodes.starts_with("exit 0") {
                near(found.duration_seconds, field(streams, "dur="), "duration");
            }
            let videos_said: Vec<_> = streams.split(" || ").filter(|part| part.starts_with("v:")).collect();
            let said = videos_said.first().copied();
            if let (Some(codec), Some(said)) =
                (found.codec, said.and_then(|said| said[2..].split(['/', ' ']).next()))
            {
                assert!(said == codec || said == "?", "{name}: {codec}, {said} by the manifest");
            }
            if let (Some(size), Some(said)) = (found.width.zip(found.height), said) {
                let size = format!(" {}x{} ", size.0, size.1);
                assert!(
                    said.contains(&size) || !said.contains(" sar="),
                    "{name}: {size}, {said} by the manifest"
                );
            }
            near(found.frame_rate, said.and_then(|said| field(said, "avg=")), "frame rate");
            if decodes == "ok" {
                let has_audio = streams.contains("|| a:") || streams.contains(" a:");
                assert_eq!(found.has_video.unwrap_or(said.is_some()), said.is_some(), "{name}");
                assert_eq!(found.has_audio.unwrap_or(has_audio), has_audio, "{name}");
                videos += usize::from(said.is_some());
                known[reads] += usize::from(said.is_some() && found.are_enough());
            }
        }
        assert!(known.iter().sum::<usize>() * 10 >= videos * 9, "{known:?} of {videos}");
    }

    /// A header in one of the places where it may be, with sound before or behind the pictures.
    fn any_object() -> impl Strategy<Value = Object> {
        let table = prop_oneof![0_usize..200, 60_000_usize..70_000];
        let track = (prop_oneof![Just(None), Just(FULL_HD)], 0_u32..5000, table)
            .prop_map(|(size, frames, table)| trak(b"avc1", size, frames, table));
        let tracks = prop::collection::vec(track, 0..4);
        (tracks, any::<bool>(), any::<bool>(), 0_u64..200_000).prop_map(
            |(tracks, at_end, fragmented, gap)| {
                let mut parts = vec![mvhd(60_000)];
                parts.extend(tracks);
                if fragmented {
                    parts.push(wrap(b"mvex", &[wrap(b"mehd", &[words(&[0, 5])])]));
                }
                let header = moov(&parts);
                if at_end {
                    Object::new([ftyp(b"isom"), mdat(gap)].concat()).then(gap, header)
                } else {
                    Object::new([ftyp(b"isom"), header, mdat(gap)].concat()).then(gap, vec![])
                }
            },
        )
    }

    /// Damage to one byte or word: where, counted from a part's start, and what is there instead.
    fn damage() -> impl Strategy<Value = Vec<(prop::sample::Index, u32, bool)>> {
        let value = prop_oneof![Just(0), Just(1), Just(u32::MAX), Just(7), any::<u32>()];
        prop::collection::vec((any::<prop::sample::Index>(), value, any::<bool>()), 0..8)
    }

    proptest! {
        // `walk` checks every read that a walk asks for, and their number.
        #[test]
        fn a_damaged_header_ends_the_walk_within_its_reads(
            mut object in any_object(),
            damage in damage(),
            cut in any::<prop::sample::Index>(),
            is_cut in any::<bool>(),
        ) {
            let parts = object.parts.len();
            for (place, value, word) in damage {
                let (_, part) = &mut object.parts[place.index(parts)];
                // Most of what matters is in the first half thousand bytes.
                let end = part.len().min(600);
                if end < 4 { continue }
                let at = place.index(end - 3);
                let bytes = value.to_be_bytes();
                let length = if word { 4 } else { 1 };
                part[at..at + length].copy_from_slice(&bytes[4 - length..]);
            }
            if is_cut {
                object.bytes = cut.index(object.bytes as usize) as u64;
            }
            let (end, _) = walk(&object);
            if let Step::Video(facts) = end {
                prop_assert!(facts.duration_seconds.is_none_or(|seconds| seconds.is_finite() && seconds > 0.0));
                prop_assert!(facts.frame_rate.is_none_or(|rate| rate.is_finite() && rate > 0.0));
                prop_assert!(facts.megapixels().is_none_or(|pixels| pixels >= 0.0));
            }
        }

        #[test]
        fn any_answer_to_any_read_ends_the_walk(
            object_bytes in any::<u64>(),
            answers in prop::collection::vec((any::<u64>(), prop::collection::vec(any::<u8>(), 0..100)), MOST_READS),
        ) {
            let mut walk = Walk::new(object_bytes);
            let last = answers.into_iter().map(|(offset, bytes)| walk.feed(offset, bytes)).last();
            prop_assert!(!matches!(last, Some(Step::Read(_))));
        }
    }

    fn source(version_id: Option<&str>, size: Option<u64>) -> Source {
        Source {
            bucket: "uploads".parse().unwrap(),
            key: "a.mp4".parse().unwrap(),
            version_id: version_id.map(str::to_owned),
            etag: Some("e".into()),
            size,
        }
    }

    fn client(rules: &[&Rule]) -> Client {
        mock_client!(aws_sdk_s3, RuleMode::MatchAny, rules)
    }

    /// S3's answer to a GET of a range of an object.
    fn part(object: &Object, place: Range<u64>) -> GetObjectOutput {
        let bytes = object.read(place.clone());
        GetObjectOutput::builder()
            .e_tag("\"e\"")
            .version_id("v")
            .content_range(format!(
                "bytes {}-{}/{}",
                place.start,
                place.start + bytes.len() as u64 - 1,
                object.bytes
            ))
            .content_length(bytes.len() as i64)
            .body(ByteStream::from(bytes))
            .build()
    }

    fn refusal(http: u16, code: &str) -> Rule {
        let body = format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
        mock!(Client::get_object).sequence().http_status(http, Some(body)).repeatedly().build()
    }

    fn at_end() -> Object {
        let header = moov(&[mvhd(60_000), trak(b"mp4a", None, 9, 9), trak(b"avc1", FULL_HD, 1500, 9)]);
        Object::new([ftyp(b"isom"), mdat(5 << 30)].concat()).then(5 << 30, header)
    }

    #[tokio::test]
    async fn only_the_first_read_is_of_whatever_is_there() {
        let object = at_end();
        let place = object.parts[1].0..object.bytes;
        let (start, header) = (object.clone(), object.clone());
        let first = mock!(Client::get_object)
            .match_requests(|get| {
                get.range() == Some("bytes=0-16383") && get.if_match().is_none() && get.version_id().is_none()
            })
            .then_output(move || part(&start, Walk::FIRST));
        let range = format!("bytes={}-{}", place.start, place.end - 1);
        let second = mock!(Client::get_object)
            .match_requests(move |get| {
                get.range() == Some(range.as_str())
                    && get.if_match() == Some("\"e\"")
                    && get.version_id().is_none()
            })
            .then_output(move || part(&header, place.clone()));
        let client = client(&[&first, &second]);
        for version_id in [None, Some("v")] {
            let found = look(&client, &source(version_id, None)).await;
            assert_eq!(found, Ok(Inspection::Video(expected("h264", Some(true)))));
        }
        assert_eq!((first.num_calls(), second.num_calls()), (2, 2));
    }

    #[tokio::test]
    async fn another_content_or_none_is_told_from_trouble() {
        let rule = mock!(Client::get_object).then_output(|| part(&at_end(), Walk::FIRST));
        let other = Source { etag: Some("f".into()), ..source(None, None) };
        for source in [source(Some("w"), None), other] {
            assert_eq!(look(&client(&[&rule]), &source).await, Ok(Inspection::Replaced));
        }
        let empty = || Ok(Inspection::NotVideo("the file is empty".into()));
        for (http, code, size, expected) in [
            (404, "NoSuchKey", None, Ok(Inspection::Gone)),
            (412, "PreconditionFailed", None, Ok(Inspection::Replaced)),
            (416, "InvalidRange", None, empty()),
            (416, "InvalidRange", Some(0), empty()),
            (416, "InvalidRange", Some(9), Ok(Inspection::Replaced)),
            (404, "NoSuchBucket", None, Err(true)),
            (403, "AccessDenied", None, Err(true)),
            (400, "ExpiredToken", None, Err(false)),
        ] {
            let found = look(&client(&[&refusal(http, code)]), &source(None, size)).await;
            assert_eq!(found.map_err(|error| error.is_configuration()), expected, "{code}");
        }
    }

    #[tokio::test]
    async fn a_replacement_between_two_reads_is_seen() {
        let first = mock!(Client::get_object)
            .match_requests(|get| get.if_match().is_none())
            .then_output(|| part(&at_end(), Walk::FIRST));
        for (http, code, expected) in
            [(412, "PreconditionFailed", Inspection::Replaced), (404, "NoSuchKey", Inspection::Gone)]
        {
            let found = look(&client(&[&first, &refusal(http, code)]), &source(None, None)).await;
            assert_eq!(found, Ok(expected));
        }
    }

    #[tokio::test]
    async fn only_the_first_read_can_say_that_a_file_is_empty() {
        let first = mock!(Client::get_object)
            .match_requests(|get| get.if_match().is_none())
            .then_output(|| part(&at_end(), Walk::FIRST));
        let found = look(&client(&[&first, &refusal(416, "InvalidRange")]), &source(None, None)).await;
        assert!(matches!(found, Err(CallError::Passing { .. })), "{found:?}");
        for range in [None, Some("bytes 0-15/*"), Some("nonsense")] {
            let rule = mock!(Client::get_object).then_output(move || {
                let head = ByteStream::from(ftyp(b"isom"));
                GetObjectOutput::builder()
                    .e_tag("\"e\"")
                    .set_content_range(range.map(str::to_owned))
                    .body(head)
                    .build()
            });
            let found = look(&client(&[&rule]), &source(None, None)).await;
            assert!(matches!(found, Ok(Inspection::Video(_))), "{range:?}: {found:?}");
        }
    }

    #[tokio::test]
    async fn a_store_without_ranges_is_not_read_to_its_end() {
        let rule = mock!(Client::get_object).then_output(|| {
            let whole = at_end().read(0..1 << 20);
            GetObjectOutput::builder()
                .e_tag("\"e\"")
                .content_length(at_end().bytes as i64)
                .body(ByteStream::from(whole))
                .build()
        });
        let Ok(Inspection::Video(found)) = look(&client(&[&rule]), &source(None, None)).await else {
            panic!()
        };
        assert_eq!((found.container, found.codec), (Some("MP4"), None));
        assert_eq!(rule.num_calls(), MOST_READS);
    }

    #[tokio::test]
    async fn a_document_is_refused_after_one_read() {
        let pdf = Object::new(b"%PDF-1.7\n\xe2\xe3\xcf\xd3".to_vec());
        let rule = mock!(Client::get_object).then_output(move || part(&pdf, Walk::FIRST));
        let reason = "the file is a document (PDF), not a video".to_owned();
        assert_eq!(look(&client(&[&rule]), &source(None, None)).await, Ok(Inspection::NotVideo(reason)));
        assert_eq!(rule.num_calls(), 1);
    }
}
