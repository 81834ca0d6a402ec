//! Progressive MP4 files: a rung and its audio, remuxed from their published segments.
//!
//! Fragments describe samples in many small tables, a progressive file in one large table at the front. So
//! each segment is read twice: first for the sizes and times of samples, which become the table, then for the
//! samples, which stream into the store. The disk is not used, and only a few segments are in memory at a
//! time.
//!
//! FFmpeg could also copy the samples. But up to version 5 it treats growing composition offsets, which any
//! variable frame rate has, as a delay, and shifts video against audio by seconds.

use std::cmp::Ordering;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use mp4_atom::{
    Atom, Co64, Ctts, CttsEntry, Edts, Elst, ElstEntry, Encode, FixedPoint, FourCC, Ftyp, Header, Mdat, Moof,
    Moov, Stco, Stsc, StscEntry, Stss, Stsz, StszSamples, SttsEntry, Trak,
};
use vidstreamx_isobmff::{
    BoxType,
    boxes::all_boxes,
    fragment::{self, SampleDefaults, track_fragment},
};
use vidstreamx_job::Exit;

use crate::store::{CachePolicy, Store, StoreError};

use super::{file_names, init_segment::CmafError};

/// Segments to read ahead: enough to hide a round trip, few enough to bound memory.
const READ_AHEAD: usize = 3;
/// Ticks per second of the file's clock, in which edits are counted.
const MOVIE_TIMESCALE: u64 = 1000;
/// Chunk offsets have 64 bits if all samples together have at least this size. The rest up to 4 GiB is room
/// for the boxes in front of the samples.
const MAX_SHORT_OFFSET: u64 = 3 << 30;
/// Latest start of a sample in ticks. FFmpeg writes negative times as values far beyond it.
const LATEST_START: u64 = 1 << 53;
/// Alternate group of audio tracks; players play one track of a group. 0 means no group.
const ALTERNATE_AUDIO: u16 = 1;

/// A published rendition to put into the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Folder in the store: `<job id>/<plan id>/video/1080p`.
    pub(crate) folder: String,
    /// Number of segments.
    pub(crate) segments: usize,
    /// ISO 639-2 code, for audio.
    pub(crate) language: Option<String>,
    /// Name in the player's menu; empty for video.
    pub(crate) label: String,
}

/// A written file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mp4 {
    /// Size of the file.
    pub(crate) bytes: u64,
}

/// A file that cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Mp4Error {
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A published object is missing or has changed.
    #[error("{0} was published and is gone or has changed")]
    Gone(String),
    /// A segment does not fit into a progressive file.
    #[error("{path} cannot become part of an MP4 file: {reason}")]
    Segment { path: String, reason: CmafError },
    /// The sample table cannot be written.
    #[error("the table of {path} cannot be written: {error}")]
    Table { path: String, error: mp4_atom::Error },
}

impl Mp4Error {
    #[must_use]
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Store(error) => error.exit(),
            // The next attempt publishes it again.
            Self::Gone(_) => Exit::Transient,
            Self::Segment { .. } | Self::Table { .. } => Exit::Internal,
        }
    }
}

/// Writes `path` from the published segments of `parts`, the rung first. Samples, frame times and the offset
/// between audio and video stay as in the segments. Each segment is read twice; each read calls `read_bytes`
/// with the segment's size.
///
/// # Errors
/// A segment is missing or does not fit into the file, the sample table cannot be encoded, or the store
/// fails.
pub(crate) async fn remux(
    store: &Store,
    parts: &[Part],
    path: &str,
    read_bytes: impl Fn(u64),
) -> Result<Mp4, Mp4Error> {
    let mut tracks = Vec::with_capacity(parts.len());
    for part in parts {
        let init = format!("{}/{}", part.folder, file_names::INIT_NAME);
        let bytes = read(store, &init).await?;
        let track =
            RemuxTrack::new(part, &bytes).map_err(|reason| Mp4Error::Segment { path: init, reason })?;
        tracks.push(track);
    }
    let mut chunks = Vec::new();
    for (index, (part, track)) in parts.iter().zip(&mut tracks).enumerate() {
        let names = (0..part.segments).map(|number| segment_path(part, number));
        let mut segments = std::pin::pin!(segments(store, names));
        while let Some((path, bytes)) = segments.try_next().await? {
            read_bytes(bytes.len() as u64);
            let chunk =
                track.add(&bytes).map_err(|reason| Mp4Error::Segment { path: path.clone(), reason })?;
            chunks.push(RemuxChunk { track: index, path, ..chunk });
        }
    }
    // Interleave the tracks by time, so that players need not seek in the file.
    chunks.sort_by(|a, b| a.start_seconds.partial_cmp(&b.start_seconds).unwrap_or(Ordering::Equal));
    let head = head(&tracks, &chunks).map_err(|error| Mp4Error::Table { path: path.to_owned(), error })?;
    let bytes = head.len() as u64 + chunks.iter().map(|chunk| chunk.bytes).sum::<u64>();
    let content = stream::iter([Ok(Bytes::from(head))]).chain(samples(store, &chunks, &read_bytes));
    store.put_stream(path, CachePolicy::Immutable("video/mp4"), bytes, content).await?;
    Ok(Mp4 { bytes })
}

fn segment_path(part: &Part, number: usize) -> String {
    format!("{}/{}", part.folder, file_names::segment_name(number))
}

async fn read(store: &Store, path: &str) -> Result<Bytes, Mp4Error> {
    store.get(path).await?.ok_or_else(|| Mp4Error::Gone(store.locate(path)))
}

fn segments(
    store: &Store,
    paths: impl Iterator<Item = String>,
) -> impl Stream<Item = Result<(String, Bytes), Mp4Error>> {
    stream::iter(paths)
        .map(async |path| {
            let bytes = read(store, &path).await?;
            Ok((path, bytes))
        })
        .buffered(READ_AHEAD)
}

/// Reads the segments of the chunks again, and streams their samples without the boxes around them.
fn samples(
    store: &Store,
    chunks: &[RemuxChunk],
    read_bytes: &impl Fn(u64),
) -> impl Stream<Item = Result<Bytes, Mp4Error>> {
    segments(store, chunks.iter().map(|chunk| chunk.path.clone()))
        .zip(stream::iter(chunks))
        .map(|(segment, chunk)| {
            let (path, segment) = segment?;
            read_bytes(segment.len() as u64);
            let boxes = boxes(&segment).map_err(|reason| Mp4Error::Segment { path, reason })?;
            let samples: Vec<_> =
                boxes.into_iter().filter(|(kind, _)| kind == b"mdat").map(|(_, body)| body).collect();
            let bytes: u64 = samples.iter().map(|samples| samples.len() as u64).sum();
            if bytes != chunk.bytes {
                return Err(Mp4Error::Gone(store.locate(&chunk.path)));
            }
            Ok(stream::iter(samples).map(Ok))
        })
        .try_flatten()
}

/// The boxes in `bytes`, with bodies that share its memory.
fn boxes(bytes: &Bytes) -> Result<Vec<(BoxType, Bytes)>, CmafError> {
    Ok(all_boxes(bytes)?.into_iter().map(|(kind, body)| (kind, bytes.slice_ref(body))).collect())
}

/// The samples of one segment, which form a chunk of the file.
#[derive(Debug)]
struct RemuxChunk {
    /// Index of its rendition among the [`Part`]s of the file.
    track: usize,
    /// Path of the segment in the store.
    path: String,
    start_seconds: f64,
    bytes: u64,
    samples: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct RemuxSample {
    bytes: u32,
    /// Duration: from its decoding time to that of the next sample.
    ticks: u32,
    /// Composition offset: from its decoding time to its presentation time.
    offset: i32,
    sync: bool,
}

/// A rendition, with the samples that have been read so far.
#[derive(Debug)]
struct RemuxTrack {
    trak: Trak,
    /// Values for samples without their own.
    defaults: SampleDefaults,
    /// Decoding time of the first sample.
    start_ticks: u64,
    /// Ticks from `start_ticks` to the end of the last sample.
    ticks: u64,
    samples: Vec<RemuxSample>,
}

impl RemuxTrack {
    fn new(part: &Part, init: &Bytes) -> Result<Self, CmafError> {
        let moov = boxes(init)?.into_iter().find(|(kind, _)| kind == b"moov");
        let (_, body) = moov.ok_or(CmafError::Unexpected("it is not an init segment"))?;
        let moov = Moov::decode_body(&mut body.as_ref())?;
        let defaults = SampleDefaults::of_init(&moov);
        let [trak] = <[Trak; 1]>::try_from(moov.trak)
            .map_err(|_| CmafError::Unexpected("it does not have exactly one track"))?;
        let mut track = Self { trak, defaults, start_ticks: 0, ticks: 0, samples: Vec::new() };
        let mdia = &mut track.trak.mdia;
        mdia.mdhd.timescale = mdia.mdhd.timescale.max(1);
        // The field holds three lower-case letters.
        if let Some(language) = part
            .language
            .as_deref()
            .filter(|language| language.len() == 3 && language.bytes().all(|byte| byte.is_ascii_lowercase()))
        {
            language.clone_into(&mut mdia.mdhd.language);
        }
        // The track's name in players. A zero byte would end it.
        if !part.label.is_empty() {
            mdia.hdlr.name = part.label.replace('\0', "");
        }
        Ok(track)
    }

    fn is_audio(&self) -> bool {
        self.trak.mdia.minf.smhd.is_some()
    }

    fn seconds(&self, ticks: u64) -> f64 {
        ticks as f64 / f64::from(self.trak.mdia.mdhd.timescale)
    }

    /// Adds the samples of the next segment. The caller sets the chunk's track and path.
    fn add(&mut self, segment: &Bytes) -> Result<RemuxChunk, CmafError> {
        let known = self.samples.len();
        let (mut start, mut bytes, mut expected) = (None, 0, 0);
        for (kind, body) in boxes(segment)? {
            if kind == *b"moof" {
                let (ticks, size) = self.add_fragment(&Moof::decode_body(&mut body.as_ref())?)?;
                start.get_or_insert(ticks);
                expected += size;
            } else if kind == *b"mdat" {
                bytes += body.len() as u64;
                if bytes != expected {
                    return Err(CmafError::Unexpected("a fragment's samples do not match its header"));
                }
            }
        }
        if bytes != expected {
            return Err(CmafError::Unexpected("a fragment lacks its samples"));
        }
        let samples = u32::try_from(self.samples.len() - known)
            .map_err(|_| CmafError::Unexpected("it has more samples than can be counted"))?;
        let start_seconds = self.seconds(start.ok_or(CmafError::Unexpected("it has no fragment"))?);
        Ok(RemuxChunk { track: 0, path: String::new(), start_seconds, bytes, samples })
    }

    /// Adds a fragment's samples. Returns the first decoding time and the size of all samples.
    fn add_fragment(&mut self, moof: &Moof) -> Result<(u64, u64), CmafError> {
        let (traf, start) = track_fragment(moof)?;
        let start = Some(start)
            .filter(|start| *start < LATEST_START)
            .ok_or(CmafError::Unexpected("a fragment's time is out of range"))?;
        self.extend_last_to(start)?;
        let mut size = 0;
        for sample in fragment::samples(traf, start, self.defaults) {
            let sample = RemuxSample {
                bytes: sample.size,
                ticks: sample.duration,
                offset: i32::try_from(sample.composition_offset)
                    .map_err(|_| CmafError::Unexpected("a frame is presented too long after its decoding"))?,
                sync: sample.is_sync,
            };
            size += u64::from(sample.bytes);
            self.ticks += u64::from(sample.ticks);
            self.samples.push(sample);
        }
        Ok((start, size))
    }

    /// Extends the last sample to the start of the next fragment. A fragment has a start time, but a
    /// progressive file has only durations.
    fn extend_last_to(&mut self, start: u64) -> Result<(), CmafError> {
        let Some(last) = self.samples.last_mut() else {
            self.start_ticks = start;
            return Ok(());
        };
        let last_began = self.start_ticks + self.ticks - u64::from(last.ticks);
        let ticks = start.checked_sub(last_began).and_then(|ticks| u32::try_from(ticks).ok());
        last.ticks = ticks
            .ok_or(CmafError::Unexpected("a fragment begins before the last sample or long after it"))?;
        self.ticks = start - self.start_ticks;
        Ok(())
    }

    /// The track's presentation times.
    fn times(&self) -> TrackTimes {
        let delay = self.samples.iter().map(|sample| -i64::from(sample.offset)).max().unwrap_or(0).max(0);
        let (mut decoded, mut first, mut last) = (0, i64::MAX, 0);
        for sample in &self.samples {
            let shown = decoded + i64::from(sample.offset);
            first = first.min(shown);
            last = last.max(shown);
            decoded += i64::from(sample.ticks);
        }
        let first = if self.samples.is_empty() { 0 } else { first };
        let last_ticks = self.samples.last().map_or(0, |sample| i64::from(sample.ticks));
        TrackTimes {
            delay,
            start: self.start_ticks.saturating_add_signed(first),
            media_start: (first + delay).unsigned_abs(),
            duration: (last - first + last_ticks).unsigned_abs(),
        }
    }

    /// Converts ticks of the track to ticks of the movie. Rounds up, so that no sample is cut off.
    fn movie_ticks(&self, ticks: u64) -> u64 {
        (ticks * MOVIE_TIMESCALE).div_ceil(u64::from(self.trak.mdia.mdhd.timescale))
    }
}

/// Presentation times of a track, in ticks of the track.
#[derive(Debug, PartialEq)]
struct TrackTimes {
    /// Delay of all presentation times, so that no sample is presented before it is decoded.
    delay: i64,
    /// Earliest presentation time.
    start: u64,
    /// The earliest presentation time, counted from the first decoding time, plus the delay.
    media_start: u64,
    /// Duration of the presentation.
    duration: u64,
}

/// The boxes before the samples: `ftyp`, `moov`, and the header of `mdat`.
fn head(tracks: &[RemuxTrack], chunks: &[RemuxChunk]) -> mp4_atom::Result<Vec<u8>> {
    let bytes: u64 = chunks.iter().map(|chunk| chunk.bytes).sum();
    let mut head = Vec::new();
    Ftyp {
        major_brand: FourCC::new(b"isom"),
        minor_version: 512,
        compatible_brands: [b"isom", b"iso2", b"mp41"].map(FourCC::new).into(),
    }
    .encode(&mut head)?;
    let mut mdat = Vec::new();
    Header { kind: Mdat::KIND, size: usize::try_from(bytes).ok() }.encode(&mut mdat)?;
    // The table's size does not depend on the offsets in it.
    let mut table = Vec::new();
    movie(tracks, chunks, 0).encode(&mut table)?;
    let first_sample = (head.len() + table.len() + mdat.len()) as u64;
    movie(tracks, chunks, first_sample).encode(&mut head)?;
    head.extend(mdat);
    Ok(head)
}

fn movie(tracks: &[RemuxTrack], chunks: &[RemuxChunk], first_sample: u64) -> Moov {
    let mut moov = Moov::default();
    let mut enabled_audio = false;
    let mut number = 0;
    for (index, track) in tracks.iter().enumerate() {
        number += 1;
        let mut trak = track.trak.clone();
        let times = track.times();
        let (start, duration) = (track.movie_ticks(times.start), track.movie_ticks(times.duration));
        trak.tkhd.track_id = number;
        trak.tkhd.duration = start + duration;
        trak.tkhd.in_movie = true;
        trak.tkhd.enabled = !(track.is_audio() && enabled_audio);
        if track.is_audio() {
            enabled_audio = true;
            trak.tkhd.alternate_group = ALTERNATE_AUDIO;
        }
        trak.edts = Some(edits(start, duration, times.media_start));
        trak.mdia.mdhd.duration = track.ticks;
        // The user data names the program that wrote the fragments.
        trak.udta = None;
        let stbl = &mut trak.mdia.minf.stbl;
        let ticks = runs(track.samples.iter().map(|sample| sample.ticks));
        let offsets = runs(track.samples.iter().map(|sample| i64::from(sample.offset) + times.delay));
        let sync = track.samples.iter().zip(1..).filter(|(sample, _)| sample.sync).map(|(_, number)| number);
        stbl.stts.entries = ticks
            .into_iter()
            .map(|(sample_count, sample_delta)| SttsEntry { sample_count, sample_delta })
            .collect();
        stbl.ctts = (!matches!(offsets.as_slice(), [] | [(_, 0)])).then(|| Ctts {
            entries: offsets
                .into_iter()
                .map(|(sample_count, sample_offset)| CttsEntry { sample_count, sample_offset })
                .collect(),
        });
        // Without this table every sample is a sync sample.
        stbl.stss = track.samples.iter().any(|sample| !sample.sync).then(|| Stss { entries: sync.collect() });
        stbl.stsz = Stsz {
            samples: StszSamples::Different {
                sizes: track.samples.iter().map(|sample| sample.bytes).collect(),
            },
        };
        (stbl.stsc, stbl.stco, stbl.co64) = chunk_tables(index, chunks, first_sample);
        moov.mvhd.duration = moov.mvhd.duration.max(trak.tkhd.duration);
        moov.trak.push(trak);
    }
    moov.mvhd.timescale = MOVIE_TIMESCALE as u32;
    moov.mvhd.rate = 1.into();
    moov.mvhd.volume = 1.into();
    moov.mvhd.next_track_id = number + 1;
    moov
}

/// Edit list: an empty edit until the track starts, then the track from its first sample.
fn edits(start: u64, duration: u64, media_start: u64) -> Edts {
    let edit = |segment_duration, media_time| ElstEntry {
        segment_duration,
        media_time,
        media_rate: FixedPoint::from(1),
    };
    let nothing = (start > 0).then(|| edit(start, None));
    let track = edit(duration, Some(media_start));
    Edts { elst: Some(Elst { entries: nothing.into_iter().chain([track]).collect() }) }
}

/// The chunk tables of a track: samples per chunk, and chunk offsets of 32 or 64 bits.
fn chunk_tables(
    track: usize,
    chunks: &[RemuxChunk],
    first_sample: u64,
) -> (Stsc, Option<Stco>, Option<Co64>) {
    let mut offset = first_sample;
    let mut offsets = Vec::new();
    let mut counts = Vec::new();
    for chunk in chunks {
        if chunk.track == track {
            offsets.push(offset);
            counts.push(chunk.samples);
        }
        offset += chunk.bytes;
    }
    let mut first_chunk = 1;
    let mut entries = Vec::new();
    for (chunks, samples_per_chunk) in runs(counts) {
        entries.push(StscEntry { first_chunk, samples_per_chunk, sample_description_index: 1 });
        first_chunk += chunks;
    }
    let bytes: u64 = chunks.iter().map(|chunk| chunk.bytes).sum();
    let short = if bytes < MAX_SHORT_OFFSET {
        offsets.iter().map(|offset| u32::try_from(*offset)).collect::<Result<Vec<_>, _>>().ok()
    } else {
        None
    };
    match short {
        Some(entries_of_32_bits) => (Stsc { entries }, Some(Stco { entries: entries_of_32_bits }), None),
        None => (Stsc { entries }, None, Some(Co64 { entries: offsets })),
    }
}

/// Run-length encodes values.
fn runs<T: PartialEq>(values: impl IntoIterator<Item = T>) -> Vec<(u32, T)> {
    let mut runs: Vec<(u32, T)> = Vec::new();
    for value in values {
        match runs.last_mut() {
            Some((count, last)) if *last == value => *count += 1,
            _ => runs.push((1, value)),
        }
    }
    runs
}

#[cfg(test)]
mod tests;
