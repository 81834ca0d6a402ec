//! Walks over the boxes of an MP4 upload until the facts about the video are known. It does no I/O: it
//! returns the range to read next.
//!
//! The facts are in the movie header, at the start or end of the file, so one to three reads suffice. A
//! missing fact is not an error, because FFmpeg reads many files with an unusual header.
//!
//! Uploads can be hostile. A walk only moves forward, and no size in the file determines how much memory it
//! allocates.

use std::ops::Range;

use mp4_atom::{Mdhd, Mehd, Mvhd};
use vidstreamx_isobmff::{
    boxes::handler_type,
    walk::{BoxesIn, Missing, Windows},
};

use super::{
    file_type::{EBML, not_a_video},
    media_facts::{MediaFacts, SAMPLE_ENTRIES},
};

/// Bytes of one read. They usually contain the movie header up to its first large table. A smaller read would
/// not be faster, and a larger one would cost memory when hundreds of uploads are inspected concurrently.
pub(super) const READ: u64 = 16 << 10;
/// Maximum number of reads of an upload: the start of the file, the movie header at the end, and the video
/// track after an audio track with large tables.
pub(super) const MOST_READS: usize = 3;
/// Bytes of `stsd` up to the end of the first sample entry's height (ISO/IEC 14496-12, 8.5.2 and 12.1.3).
const SAMPLE_ENTRY: u64 = 44;
/// Bytes of `hdlr` up to the end of the handler type (ISO/IEC 14496-12, 8.4.3.2).
const HANDLER: u64 = 12;

/// The next step of a walk.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub(super) enum Step {
    /// Read this range of the object, at most [`READ`] bytes, and pass it to [`Walk::feed`].
    Read(Range<u64>),
    /// The walk has ended with these facts.
    Video(MediaFacts),
    /// The walk has ended: the file is not a video. Holds a sentence for the uploader.
    NotVideo(String),
}

/// A walk over the boxes of an object.
#[derive(Debug)]
pub(super) struct Walk {
    object_bytes: u64,
    windows: Windows<Vec<u8>>,
}

/// The facts of a track, as far as it was read.
#[derive(Default)]
struct Track {
    handler: Option<[u8; 4]>,
    /// Ticks per second.
    timescale: u32,
    /// Duration in ticks.
    duration: u64,
    sample_entry: Option<[u8; 4]>,
    size: Option<(u32, u32)>,
    frame_rate: Option<f64>,
}

impl Walk {
    /// The first range to read.
    pub(super) const FIRST: Range<u64> = 0..READ;

    /// A walk over an object of this size. It begins with the range [`Walk::FIRST`].
    #[must_use]
    pub(super) const fn new(object_bytes: u64) -> Self {
        Self { object_bytes, windows: Windows::new() }
    }

    /// Takes the bytes at `offset`, and returns the next step.
    pub(super) fn feed(&mut self, offset: u64, bytes: Vec<u8>) -> Step {
        if self.object_bytes == 0 {
            return Step::NotVideo("the file is empty".into());
        }
        if self.windows.count() == 0
            && offset == 0
            && let Some(reason) = not_a_video(&bytes, self.object_bytes)
        {
            return Step::NotVideo(reason);
        }
        self.windows.add(offset, bytes);
        let mut facts = MediaFacts::default();
        let unread = self.file(&mut facts);
        match unread.filter(|_| self.windows.count() < MOST_READS && !facts.are_enough()) {
            Some(start) => Step::Read(start..self.object_bytes.min(start.saturating_add(READ))),
            None => Step::Video(facts),
        }
    }

    /// Collects facts from the windows. Returns the offset of the next read, if one is needed.
    fn file(&self, facts: &mut MediaFacts) -> Option<u64> {
        if self.windows.slice(0..4).is_ok_and(|bytes| bytes == EBML) {
            facts.container = Some("Matroska");
            return None;
        }
        let mut boxes = BoxesIn::new(&self.windows, 0..self.object_bytes);
        loop {
            match boxes.advance() {
                Ok(found) if found.kind == *b"ftyp" => {
                    let brand = self.windows.slice(found.body.start..found.body.start.saturating_add(4));
                    let quicktime = brand.is_ok_and(|brand| brand == b"qt  ");
                    facts.container = Some(if quicktime { "QuickTime" } else { "MP4" });
                }
                Ok(found) if found.kind == *b"moov" => {
                    facts.container.get_or_insert("QuickTime");
                    return self.movie(found.body, facts);
                }
                Ok(_) => {}
                Err(Missing::At(offset)) => return Some(offset),
                Err(Missing::Never) => return None,
            }
        }
    }

    fn movie(&self, body: Range<u64>, facts: &mut MediaFacts) -> Option<u64> {
        let mut tracks: Vec<Track> = Vec::new();
        let mut length = Length::default();
        let mut boxes = BoxesIn::new(&self.windows, body);
        let mut complete = false;
        let unread = loop {
            let found = match boxes.advance() {
                Ok(found) => found,
                Err(Missing::At(offset)) => break Some(offset),
                Err(Missing::Never) => {
                    complete = boxes.at_end();
                    break None;
                }
            };
            let read = match &found.kind {
                b"mvhd" => self.windows.decode::<Mvhd>(&found.body).map(|mvhd| {
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
            if let Err(Missing::At(offset)) = read {
                break Some(offset);
            }
        };
        facts.take(&tracks, &length, complete);
        unread
    }

    fn fragments(&self, body: Range<u64>, length: &mut Length) -> Result<(), Missing> {
        let mut boxes = BoxesIn::new(&self.windows, body);
        while let Some(found) = boxes.advance_or_end()? {
            if found.kind == *b"mehd" {
                length.fragments = self.windows.decode::<Mehd>(&found.body)?.fragment_duration;
            }
        }
        Ok(())
    }

    /// Descends to `stsd` and `stts`, four levels deep.
    fn track(&self, body: Range<u64>, level: Level, track: &mut Track) -> Result<(), Missing> {
        let mut boxes = BoxesIn::new(&self.windows, body);
        loop {
            let found = match boxes.advance_or_end() {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(()),
                // The tables after the sample entry are not needed.
                Err(_) if track.sample_entry.is_some() => return Ok(()),
                Err(unread) => return Err(unread),
            };
            match (level, &found.kind) {
                (Level::Track, b"mdia") => self.track(found.body, Level::Media, track)?,
                (Level::Media, b"minf") => self.track(found.body, Level::Information, track)?,
                (Level::Information, b"stbl") => self.track(found.body, Level::Samples, track)?,
                (Level::Media, b"mdhd") => {
                    let mdhd = self.windows.decode::<Mdhd>(&found.body)?;
                    (track.timescale, track.duration) = (mdhd.timescale, mdhd.duration);
                }
                (Level::Media, b"hdlr") => {
                    track.handler = handler_type(self.windows.prefix(&found.body, HANDLER)?);
                }
                (Level::Samples, b"stsd") => {
                    let entry = self.windows.prefix(&found.body, SAMPLE_ENTRY)?;
                    track.sample_entry = entry.get(12..16).and_then(|kind| kind.try_into().ok());
                    let side =
                        |at| Some(u32::from(u16::from_be_bytes(entry.get(at..at + 2)?.try_into().ok()?)));
                    track.size = side(40).zip(side(42)).filter(|(width, height)| *width > 0 && *height > 0);
                }
                (Level::Samples, b"stts") => {
                    let table = self.windows.slice(found.body).unwrap_or_default();
                    track.frame_rate = frame_rate(table, track.timescale);
                }
                _ => {}
            }
        }
    }
}

/// The nesting level of a track's boxes.
#[derive(Clone, Copy)]
enum Level {
    /// In `trak`.
    Track,
    /// In `mdia`.
    Media,
    /// In `minf`. QuickTime files have another `hdlr` there.
    Information,
    /// In `stbl`.
    Samples,
}

/// Durations in the movie header, in ticks.
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
        // The largest picture, because a file can also have a video track with a still image.
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
        // In a fragmented file, the duration in `mvhd` excludes the fragments.
        let movie = if length.fragmented { length.fragments } else { length.movie };
        self.duration_seconds = seconds(movie, length.timescale).or_else(|| {
            video.filter(|_| !length.fragmented).and_then(|video| seconds(video.duration, video.timescale))
        });
    }
}

/// Converts ticks to seconds; `None` for 0, and for the value with all bits set, which means unknown.
fn seconds(ticks: u64, timescale: u32) -> Option<f64> {
    let known = timescale > 0 && !matches!(ticks, 0 | 0xffff_ffff | u64::MAX);
    known.then(|| ticks as f64 / f64::from(timescale))
}

/// Frames per second from the body of `stts`.
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

#[cfg(test)]
mod tests;
