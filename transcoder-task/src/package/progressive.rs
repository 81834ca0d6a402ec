//! Makes one progressive MP4 of a rung and its audio out of their published segments, without encoding
//! anything.
//!
//! A fragment and a progressive file describe the same samples, once in many small tables and once in a large
//! one at the front. So the segments are read twice: first for the samples' sizes and times, which become the
//! large table, then for the samples themselves, which flow into the store. Nothing touches the disk, and
//! only a few segments are in memory at a time.
//!
//! FFmpeg could copy the samples, too, but up to version 5 it takes composition offsets that grow in the
//! course of a stream (any variable frame rate) for a delay, and shifts the picture against the sound by
//! seconds.

use std::cmp::Ordering;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use mp4_atom::{
    Atom, Co64, Ctts, CttsEntry, DecodeMaybe, Edts, Elst, ElstEntry, Encode, FixedPoint, FourCC, Ftyp,
    Header, Mdat, Moof, Moov, Stco, Stsc, StscEntry, Stss, Stsz, StszSamples, SttsEntry, Trak,
};
use vidstreamx_job::Exit;

use crate::{
    package::presentation,
    store::{CachePolicy, Store, StoreError},
};

/// Segments that are read ahead: enough to hide a round trip, few enough to bound memory.
const READ_AHEAD: usize = 3;
/// Ticks per second of the file's own clock, which edits are counted in.
const MOVIE_TIMESCALE: u64 = 1000;
/// Samples that begin further into the file than this need offsets of 64 bits. The rest up to 4 GiB is left
/// to the table.
const MOST_BYTES_OF_SHORT_OFFSETS: u64 = 3 << 30;
/// No sample of a video begins later, in ticks: what FFmpeg means by a time before 0 is far beyond it.
const LATEST_START: u64 = 1 << 53;
/// In a sample's flags: no decoder can begin here (ISO/IEC 14496-12, section 8.8.3.1).
const NON_SYNC: u32 = 1 << 16;
/// Players choose one of the tracks with the same number, which is not 0.
const ALTERNATE_AUDIO: u16 = 1;

/// A published rendition that goes into the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// In the store: `<job id>/video/1080p`.
    pub folder: String,
    /// How many segments there are.
    pub segments: usize,
    /// ISO 639-2 code, for audio.
    pub language: Option<String>,
    /// For people; empty for video.
    pub label: String,
}

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mp4 {
    /// Size of the file.
    pub bytes: u64,
}

/// Why no file could be made.
#[derive(Debug, thiserror::Error)]
pub enum Mp4Error {
    /// A segment could not be read, or the file not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something that was published is not there any more, or has changed.
    #[error("{0} was published and is gone or has changed")]
    Gone(String),
    /// A segment that a progressive file cannot be made of.
    #[error("{path} cannot become part of an MP4 file: {reason}")]
    Segment {
        /// In the store.
        path: String,
        /// What is wrong with it.
        reason: Unfit,
    },
    /// The file's own table cannot be written.
    #[error("the table of {path} cannot be written: {error}")]
    Table {
        /// The MP4 file in the store.
        path: String,
        /// What does not fit.
        error: mp4_atom::Error,
    },
}

/// What is wrong with a segment.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// A box that cannot be decoded.
    #[error("a box is malformed: {0}")]
    Box(#[from] mp4_atom::Error),
    /// Something that this program never publishes.
    #[error("{0}")]
    Unexpected(&'static str),
}

impl Mp4Error {
    /// The exit code that tells the consumer what to do.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Store(error) => error.exit(),
            // The next attempt publishes it again.
            Self::Gone(_) => Exit::Transient,
            Self::Segment { .. } | Self::Table { .. } => Exit::Internal,
        }
    }
}

/// Writes `path` from the published segments of `parts`, the rung first. Samples, frame times and the sound's
/// place against the picture are those of the segments. `read_bytes` is told the size of every segment, each
/// time it has been read, which is twice.
pub async fn remux(
    store: &Store,
    parts: &[Part],
    path: &str,
    read_bytes: impl Fn(u64),
) -> Result<Mp4, Mp4Error> {
    let mut tracks = Vec::with_capacity(parts.len());
    for part in parts {
        let init = format!("{}/{}", part.folder, presentation::INIT_NAME);
        let bytes = read(store, &init).await?;
        let track = Track::new(part, &bytes).map_err(|reason| Mp4Error::Segment { path: init, reason })?;
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
            chunks.push(Chunk { track: index, path, ..chunk });
        }
    }
    // What is shown together lies together, so that a player need not jump.
    chunks.sort_by(|a, b| a.start_seconds.partial_cmp(&b.start_seconds).unwrap_or(Ordering::Equal));
    let head = head(&tracks, &chunks).map_err(|error| Mp4Error::Table { path: path.to_owned(), error })?;
    let bytes = head.len() as u64 + chunks.iter().map(|chunk| chunk.bytes).sum::<u64>();
    let content = stream::iter([Ok(Bytes::from(head))]).chain(samples(store, &chunks, &read_bytes));
    store.put_stream(path, CachePolicy::Immutable("video/mp4"), bytes, content).await?;
    Ok(Mp4 { bytes })
}

fn segment_path(part: &Part, number: usize) -> String {
    format!("{}/{}", part.folder, presentation::segment_name(number))
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

/// The samples of the chunks, without the boxes around them.
fn samples(
    store: &Store,
    chunks: &[Chunk],
    read_bytes: &impl Fn(u64),
) -> impl Stream<Item = Result<Bytes, Mp4Error>> {
    segments(store, chunks.iter().map(|chunk| chunk.path.clone()))
        .zip(stream::iter(chunks))
        .map(|(segment, chunk)| {
            let (path, segment) = segment?;
            read_bytes(segment.len() as u64);
            let boxes = boxes(&segment).map_err(|reason| Mp4Error::Segment { path, reason })?;
            let samples: Vec<_> =
                boxes.into_iter().filter(|(kind, _)| *kind == Mdat::KIND).map(|(_, body)| body).collect();
            let bytes: u64 = samples.iter().map(|samples| samples.len() as u64).sum();
            if bytes != chunk.bytes {
                return Err(Mp4Error::Gone(store.locate(&chunk.path)));
            }
            Ok(stream::iter(samples).map(Ok))
        })
        .try_flatten()
}

/// The bodies of the boxes that bytes are made of.
fn boxes(bytes: &Bytes) -> Result<Vec<(FourCC, Bytes)>, Unfit> {
    let mut rest = bytes.as_ref();
    let mut found = Vec::new();
    while let Some(header) = Header::decode_maybe(&mut rest)? {
        let size = header.size.unwrap_or(rest.len());
        let body = rest.get(..size).ok_or(Unfit::Unexpected("a box is longer than what holds it"))?;
        found.push((header.kind, bytes.slice_ref(body)));
        rest = &rest[size..];
    }
    Ok(found)
}

/// The samples of one segment, which stay together.
#[derive(Debug)]
struct Chunk {
    /// Index of the part.
    track: usize,
    /// The segment in the store.
    path: String,
    start_seconds: f64,
    bytes: u64,
    samples: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    bytes: u32,
    /// From its decoding to the next one's.
    ticks: u32,
    /// From its decoding to its presentation; negative where decoding has no head start.
    offset: i32,
    sync: bool,
}

/// A rendition, and what is known of its samples.
#[derive(Debug)]
struct Track {
    trak: Trak,
    /// Where fragments say nothing.
    defaults: Sample,
    /// When the first sample is decoded.
    start_ticks: u64,
    /// How long after that the last known sample's time is over.
    ticks: u64,
    samples: Vec<Sample>,
}

impl Track {
    fn new(part: &Part, init: &Bytes) -> Result<Self, Unfit> {
        let moov = boxes(init)?.into_iter().find(|(kind, _)| *kind == Moov::KIND);
        let (_, body) = moov.ok_or(Unfit::Unexpected("it is no init segment"))?;
        let moov = Moov::decode_body(&mut body.as_ref())?;
        let [trak] = <[Trak; 1]>::try_from(moov.trak)
            .map_err(|_| Unfit::Unexpected("it is an init segment of other than one track"))?;
        let trex = moov.mvex.and_then(|mvex| mvex.trex.into_iter().next()).unwrap_or_default();
        let mut track = Self {
            trak,
            defaults: Sample {
                bytes: trex.default_sample_size,
                ticks: trex.default_sample_duration,
                offset: 0,
                sync: trex.default_sample_flags & NON_SYNC == 0,
            },
            start_ticks: 0,
            ticks: 0,
            samples: Vec::new(),
        };
        let mdia = &mut track.trak.mdia;
        mdia.mdhd.timescale = mdia.mdhd.timescale.max(1);
        // The field has room for three small letters.
        if let Some(language) = part
            .language
            .as_deref()
            .filter(|language| language.len() == 3 && language.bytes().all(|byte| byte.is_ascii_lowercase()))
        {
            language.clone_into(&mut mdia.mdhd.language);
        }
        // What players list a track under. A zero would end it.
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

    /// Takes the samples of the next segment; the chunk's place is for the caller to fill in.
    fn add(&mut self, segment: &Bytes) -> Result<Chunk, Unfit> {
        let known = self.samples.len();
        let (mut start, mut bytes, mut expected) = (None, 0, 0);
        for (kind, body) in boxes(segment)? {
            if kind == Moof::KIND {
                let (ticks, size) = self.add_fragment(&Moof::decode_body(&mut body.as_ref())?)?;
                start.get_or_insert(ticks);
                expected += size;
            } else if kind == Mdat::KIND {
                bytes += body.len() as u64;
                if bytes != expected {
                    return Err(Unfit::Unexpected("a fragment's samples are not what it announces"));
                }
            }
        }
        if bytes != expected {
            return Err(Unfit::Unexpected("a fragment lacks its samples"));
        }
        let samples = u32::try_from(self.samples.len() - known)
            .map_err(|_| Unfit::Unexpected("it has more samples than can be counted"))?;
        let start_seconds = self.seconds(start.ok_or(Unfit::Unexpected("it has no fragment"))?);
        Ok(Chunk { track: 0, path: String::new(), start_seconds, bytes, samples })
    }

    /// Takes a fragment's samples; returns when the first one is decoded and the size of all.
    fn add_fragment(&mut self, moof: &Moof) -> Result<(u64, u64), Unfit> {
        let [traf] = moof.traf.as_slice() else {
            return Err(Unfit::Unexpected("a fragment is of other than one track"));
        };
        let start = traf.tfdt.as_ref().ok_or(Unfit::Unexpected("a fragment is without a time"))?;
        let start = Some(start.base_media_decode_time)
            .filter(|start| *start < LATEST_START)
            .ok_or(Unfit::Unexpected("a fragment's time is out of range"))?;
        self.join(start)?;
        let (tfhd, defaults) = (&traf.tfhd, self.defaults);
        let mut size = 0;
        for entry in traf.trun.iter().flat_map(|trun| trun.samples.iter()) {
            let flags = entry.flags.or(tfhd.default_sample_flags);
            let sample = Sample {
                bytes: entry.size.or(tfhd.default_sample_size).unwrap_or(defaults.bytes),
                ticks: entry.duration.or(tfhd.default_sample_duration).unwrap_or(defaults.ticks),
                offset: i32::try_from(entry.cts.unwrap_or_default())
                    .map_err(|_| Unfit::Unexpected("a frame is shown too long after it is decoded"))?,
                sync: flags.map_or(defaults.sync, |flags| flags & NON_SYNC == 0),
            };
            size += u64::from(sample.bytes);
            self.ticks += u64::from(sample.ticks);
            self.samples.push(sample);
        }
        Ok((start, size))
    }

    /// A fragment says when it begins, a progressive file only how long every sample lasts: the last one
    /// lasts until the next fragment begins.
    fn join(&mut self, start: u64) -> Result<(), Unfit> {
        let Some(last) = self.samples.last_mut() else {
            self.start_ticks = start;
            return Ok(());
        };
        let last_began = self.start_ticks + self.ticks - u64::from(last.ticks);
        let ticks = start.checked_sub(last_began).and_then(|ticks| u32::try_from(ticks).ok());
        last.ticks =
            ticks.ok_or(Unfit::Unexpected("a fragment begins before the last one, or long after"))?;
        self.ticks = start - self.start_ticks;
        Ok(())
    }

    /// When and how the track is shown.
    fn timeline(&self) -> Timeline {
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
        Timeline {
            delay,
            start: self.start_ticks.saturating_add_signed(first),
            media_start: (first + delay).unsigned_abs(),
            duration: (last - first + last_ticks).unsigned_abs(),
        }
    }

    /// Ticks of the track as ticks of the file; up, so that no sample is cut off.
    fn movie_ticks(&self, ticks: u64) -> u64 {
        (ticks * MOVIE_TIMESCALE).div_ceil(u64::from(self.trak.mdia.mdhd.timescale))
    }
}

/// All in ticks of the track.
#[derive(Debug, PartialEq)]
struct Timeline {
    /// How much later everything must be shown so that nothing is shown before it is decoded.
    delay: i64,
    /// When the track begins to be shown.
    start: u64,
    /// The same instant on the delayed clock of the samples.
    media_start: u64,
    /// How long it is shown.
    duration: u64,
}

/// Everything in front of the samples.
fn head(tracks: &[Track], chunks: &[Chunk]) -> mp4_atom::Result<Vec<u8>> {
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

fn movie(tracks: &[Track], chunks: &[Chunk], first_sample: u64) -> Moov {
    let mut moov = Moov::default();
    let mut enabled_audio = false;
    let mut number = 0;
    for (index, track) in tracks.iter().enumerate() {
        number += 1;
        let mut trak = track.trak.clone();
        let timeline = track.timeline();
        let (start, duration) = (track.movie_ticks(timeline.start), track.movie_ticks(timeline.duration));
        trak.tkhd.track_id = number;
        trak.tkhd.duration = start + duration;
        trak.tkhd.in_movie = true;
        trak.tkhd.enabled = !(track.is_audio() && enabled_audio);
        if track.is_audio() {
            enabled_audio = true;
            trak.tkhd.alternate_group = ALTERNATE_AUDIO;
        }
        trak.edts = Some(edits(start, duration, timeline.media_start));
        trak.mdia.mdhd.duration = track.ticks;
        // Of the fragments' writer.
        trak.udta = None;
        let stbl = &mut trak.mdia.minf.stbl;
        let ticks = runs(track.samples.iter().map(|sample| sample.ticks));
        let offsets = runs(track.samples.iter().map(|sample| i64::from(sample.offset) + timeline.delay));
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
        // Without the table every sample is one to begin at.
        stbl.stss = track.samples.iter().any(|sample| !sample.sync).then(|| Stss { entries: sync.collect() });
        stbl.stsz = Stsz {
            samples: StszSamples::Different {
                sizes: track.samples.iter().map(|sample| sample.bytes).collect(),
            },
        };
        (stbl.stsc, stbl.stco, stbl.co64) = places(index, chunks, first_sample);
        moov.mvhd.duration = moov.mvhd.duration.max(trak.tkhd.duration);
        moov.trak.push(trak);
    }
    moov.mvhd.timescale = MOVIE_TIMESCALE as u32;
    moov.mvhd.rate = 1.into();
    moov.mvhd.volume = 1.into();
    moov.mvhd.next_track_id = number + 1;
    moov
}

/// Nothing until the track begins, then the track from its first sample on.
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

/// Where the samples of a track are.
fn places(track: usize, chunks: &[Chunk], first_sample: u64) -> (Stsc, Option<Stco>, Option<Co64>) {
    let mut place = first_sample;
    let mut offsets = Vec::new();
    let mut counts = Vec::new();
    for chunk in chunks {
        if chunk.track == track {
            offsets.push(place);
            counts.push(chunk.samples);
        }
        place += chunk.bytes;
    }
    let mut first_chunk = 1;
    let mut entries = Vec::new();
    for (chunks, samples_per_chunk) in runs(counts) {
        entries.push(StscEntry { first_chunk, samples_per_chunk, sample_description_index: 1 });
        first_chunk += chunks;
    }
    let bytes: u64 = chunks.iter().map(|chunk| chunk.bytes).sum();
    let short = if bytes < MOST_BYTES_OF_SHORT_OFFSETS {
        offsets.iter().map(|offset| u32::try_from(*offset)).collect::<Result<Vec<_>, _>>().ok()
    } else {
        None
    };
    match short {
        Some(entries_of_32_bits) => (Stsc { entries }, Some(Stco { entries: entries_of_32_bits }), None),
        None => (Stsc { entries }, None, Some(Co64 { entries: offsets })),
    }
}

/// How often in a row each value comes.
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
mod tests {
    use std::{cell::Cell, collections::BTreeMap};

    use mp4_atom::{Tfdt, Tfhd, Traf, Trun, TrunEntry, TrunSamples};

    use super::*;
    use crate::{
        package::segmenter::{self, Output},
        plan::segmentation::Boundaries,
    };

    const FRAGMENTS: &str = "-movflags +empty_moov+default_base_moof+skip_sidx+frag_discont\
                             +negative_cts_offsets -avoid_negative_ts disabled -f mp4 pipe:1";

    /// Publishes what FFmpeg makes of the arguments in segments of a second.
    async fn publish(store: &Store, folder: &str, language: Option<&str>, arguments: &str) -> Part {
        let output = crate::process::command("ffmpeg")
            .args("-nostdin -loglevel error".split(' '))
            .args(arguments.split_whitespace())
            .args(FRAGMENTS.split_whitespace())
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let boundaries = Boundaries::every(1.0, 25.0);
        let outputs: Vec<_> =
            segmenter::outputs(output.stdout.as_slice(), boundaries, 0).try_collect().await.unwrap();
        let segments = outputs.len() - 1;
        for piece in outputs {
            let (name, bytes) = match piece {
                Output::Init(init) => (presentation::INIT_NAME.to_owned(), init.bytes),
                Output::Segment(segment) => (presentation::segment_name(segment.number), segment.bytes),
            };
            store.put(&format!("{folder}/{name}"), CachePolicy::Immutable("video/mp4"), bytes).await.unwrap();
        }
        Part {
            folder: folder.into(),
            segments,
            language: language.map(str::to_owned),
            label: language.map(|language| format!("In {language}")).unwrap_or_default(),
        }
    }

    /// Pictures at 0 s and from 2 s to 4 s, so that the largest composition offset comes late.
    async fn publish_rung(store: &Store) -> Part {
        publish(
            store,
            "job/video/64p",
            None,
            "-f lavfi -i testsrc2=size=64x64:rate=25:duration=4 -vf select='eq(n,0)+gte(t,2)' -fps_mode vfr \
             -c:v libx264 -bf 3 -g 1000 -force_key_frames expr:gte(t,n_forced) -movflags +frag_keyframe",
        )
        .await
    }

    async fn publish_sound(store: &Store, language: &str, begins: f64) -> Part {
        publish(
            store,
            &format!("job/audio/{language}"),
            Some(language),
            &format!(
                "-itsoffset {begins} -f lavfi -i sine=sample_rate=48000:duration=3 -c:a aac \
                 -bsf:a noise=drop='lt(pts,{begins}*48000)' -frag_duration 250000"
            ),
        )
        .await
    }

    /// What FFmpeg's own reader makes of a file.
    async fn probe(file: &std::path::Path, arguments: &str) -> String {
        let output = crate::process::command("ffprobe")
            .args("-loglevel error -of csv=p=0".split(' '))
            .args(arguments.split(' '))
            .arg(file)
            .output()
            .await
            .unwrap();
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && complaints.is_empty(), "{complaints}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// When the samples of each track are shown, in order.
    async fn times(file: &std::path::Path) -> BTreeMap<usize, Vec<f64>> {
        let mut times: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for line in probe(file, "-show_entries packet=stream_index,pts_time").await.lines() {
            let mut fields = line.split(',');
            let track = fields.next().unwrap().parse().unwrap();
            times.entry(track).or_default().push(fields.next().unwrap().parse().unwrap());
        }
        for track in times.values_mut() {
            track.sort_by(f64::total_cmp);
        }
        times
    }

    #[tokio::test]
    async fn every_sample_is_shown_when_its_segment_says() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::Folder(folder.path().to_owned());
        let parts = [
            publish_rung(&store).await,
            publish_sound(&store, "eng", 0.0).await,
            publish_sound(&store, "deu", 1.5).await,
        ];
        let path = "job/mp4/64p.mp4";
        let read = Cell::new(0);
        let made = remux(&store, &parts, path, |bytes| read.set(read.get() + bytes)).await.unwrap();
        let file = folder.path().join(path);
        let bytes = Bytes::from(std::fs::read(&file).unwrap());
        assert_eq!(made.bytes, bytes.len() as u64);
        let paths = parts.iter().flat_map(|part| (0..part.segments).map(|number| segment_path(part, number)));
        let segments: u64 =
            paths.map(|path| std::fs::metadata(folder.path().join(path)).unwrap().len()).sum();
        assert_eq!(read.get(), 2 * segments);
        let order: Vec<_> = boxes(&bytes).unwrap().into_iter().map(|(kind, _)| kind.to_string()).collect();
        assert_eq!(order, ["ftyp", "moov", "mdat"]);

        let times = times(&file).await;
        let pictures: Vec<_> = [0.0].into_iter().chain((50..100).map(|n| f64::from(n) / 25.0)).collect();
        assert_eq!(times[&0].len(), pictures.len());
        for (shown, expected) in times[&0].iter().zip(pictures) {
            assert!((shown - expected).abs() < 0.001, "{shown} instead of {expected}");
        }
        for (track, begins) in [(1, 0.0), (2, 1.5)] {
            let sound = &times[&track];
            // FFmpeg rounds a delay to whole frames of sound: at most 21 ms.
            assert!((sound[0] - begins).abs() < 0.022, "{} instead of {begins}", sound[0]);
            let frames = sound.windows(2).all(|two| (two[1] - two[0] - 1024.0 / 48_000.0).abs() < 0.001);
            assert!(frames && (140..=142).contains(&sound.len()), "{sound:?}");
        }

        // What is shown together lies together.
        let (_, moov) = boxes(&bytes).unwrap().swap_remove(1);
        let moov = Moov::decode_body(&mut moov.as_ref()).unwrap();
        let place = |track: usize, chunk: usize| {
            moov.trak[track].mdia.minf.stbl.stco.as_ref().map(|stco| stco.entries[chunk]).unwrap()
        };
        let places = [place(0, 0), place(1, 0), place(1, 1), place(2, 0), place(0, 1)];
        assert!(places.is_sorted(), "{places:?}");

        let streams = "-show_entries stream=codec_type:stream_tags=language,handler_name\
                       :stream_disposition=default";
        insta::assert_snapshot!(probe(&file, streams).await, @"
        video,1,und,VideoHandler
        audio,1,eng,In eng
        audio,0,deu,In deu
        ");
    }

    #[tokio::test]
    async fn pictures_and_sound_are_those_of_the_segments() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::Folder(folder.path().to_owned());
        let parts = [publish_rung(&store).await, publish_sound(&store, "eng", 0.0).await];
        remux(&store, &parts, "all.mp4", |_| ()).await.unwrap();
        for (stream, part) in parts.iter().enumerate() {
            let mut segments = std::fs::read(folder.path().join(&part.folder).join("init.mp4")).unwrap();
            for number in 0..part.segments {
                segments.extend(std::fs::read(folder.path().join(segment_path(part, number))).unwrap());
            }
            let published = folder.path().join("published.mp4");
            std::fs::write(&published, segments).unwrap();
            let decoded = async |file: &std::path::Path, stream: usize| {
                let output = crate::process::command("ffmpeg")
                    .args(["-nostdin", "-loglevel", "error", "-i"])
                    .arg(file)
                    .args(
                        format!("-map 0:{stream} -fps_mode passthrough -f framehash -hash md5 -").split(' '),
                    )
                    .output()
                    .await
                    .unwrap();
                let lines = String::from_utf8(output.stdout).unwrap();
                let hashes = lines.lines().filter(|line| !line.starts_with('#'));
                hashes.filter_map(|line| line.rsplit(',').next().map(str::to_owned)).collect::<Vec<_>>()
            };
            let expected = decoded(&published, 0).await;
            assert!(expected.len() > 50);
            assert_eq!(decoded(&folder.path().join("all.mp4"), stream).await, expected);
        }
    }

    #[tokio::test]
    async fn what_is_gone_or_no_segment_makes_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::Folder(folder.path().to_owned());
        let rung = publish_rung(&store).await;
        let one_more = Part { segments: rung.segments + 1, ..rung.clone() };
        let error = remux(&store, &[one_more], "mp4/64p.mp4", |_| ()).await.unwrap_err();
        assert!(
            error.to_string().ends_with("seg-00003.m4s was published and is gone or has changed"),
            "{error}"
        );
        assert_eq!(error.exit(), Exit::Transient);

        let segment = segment_path(&rung, 1);
        let whole = store.get(&segment).await.unwrap().unwrap();
        for broken in [whole.slice(..whole.len() - 1), Bytes::from_static(b"rubbish rubbish"), Bytes::new()] {
            store.put(&segment, CachePolicy::Immutable("video/mp4"), broken).await.unwrap();
            let error = remux(&store, std::slice::from_ref(&rung), "mp4/64p.mp4", |_| ()).await.unwrap_err();
            assert!(matches!(&error, Mp4Error::Segment { path, .. } if *path == segment), "{error}");
            assert_eq!(error.exit(), Exit::Internal);
        }
        assert!(!folder.path().join("mp4").exists());
    }

    #[tokio::test]
    async fn a_segment_that_changes_under_way_is_no_part_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::Folder(folder.path().to_owned());
        let rung = publish_rung(&store).await;
        let chunk =
            |bytes| Chunk { track: 0, path: segment_path(&rung, 0), start_seconds: 0.0, bytes, samples: 1 };
        let error = samples(&store, &[chunk(1)], &|_| ()).try_collect::<Vec<_>>().await.unwrap_err();
        assert!(matches!(error, Mp4Error::Gone(_)), "{error}");
    }

    fn track() -> Track {
        let defaults = Sample { bytes: 10, ticks: 100, offset: 0, sync: true };
        let mut trak = Trak::default();
        trak.mdia.mdhd.timescale = 1000;
        Track { trak, defaults, start_ticks: 0, ticks: 0, samples: Vec::new() }
    }

    fn fragment(start: u64, offsets: &[i64]) -> Moof {
        let entry = |offset: &i64| TrunEntry { cts: Some(*offset), ..TrunEntry::default() };
        let samples = TrunSamples::Explicit(offsets.iter().map(entry).collect());
        let traf = Traf {
            tfhd: Tfhd::default(),
            tfdt: Some(Tfdt { base_media_decode_time: start }),
            trun: vec![Trun { data_offset: None, samples }],
            ..Traf::default()
        };
        Moof { traf: vec![traf], ..Moof::default() }
    }

    #[test]
    fn a_gap_between_fragments_prolongs_the_sample_before_it() {
        let mut track = track();
        track.add_fragment(&fragment(500, &[0, 0])).unwrap();
        track.add_fragment(&fragment(1000, &[0])).unwrap();
        let ticks: Vec<_> = track.samples.iter().map(|sample| sample.ticks).collect();
        assert_eq!((ticks, track.ticks), (vec![100, 400, 100], 600));
        assert!(track.add_fragment(&fragment(900, &[0])).is_err());
        assert!(track.add_fragment(&fragment(u64::MAX, &[0])).is_err());
    }

    #[test]
    fn no_sample_is_shown_before_it_is_decoded_and_none_is_late() {
        let mut track = track();
        // Shown at 500, 800, 600, 700.
        track.add_fragment(&fragment(500, &[0, 200, -100, -100])).unwrap();
        let timeline = Timeline { delay: 100, start: 500, media_start: 100, duration: 400 };
        assert_eq!(track.timeline(), timeline);
        let moov = movie(&[track], &[], 0);
        let stbl = &moov.trak[0].mdia.minf.stbl;
        let offsets: Vec<_> = stbl.ctts.iter().flat_map(|ctts| &ctts.entries).collect();
        let runs: Vec<_> = offsets.iter().map(|entry| (entry.sample_count, entry.sample_offset)).collect();
        assert_eq!(runs, [(1, 100), (1, 300), (2, 0)]);
        assert_eq!(moov.mvhd.duration, 900);
    }

    #[test]
    fn players_can_begin_where_the_segments_let_them() {
        let sync = |flags: &[u32]| {
            let mut track = track();
            let entry = |flags: &u32| TrunEntry { flags: Some(*flags), ..TrunEntry::default() };
            let mut moof = fragment(0, &[]);
            moof.traf[0].trun[0].samples = TrunSamples::Explicit(flags.iter().map(entry).collect());
            track.add_fragment(&moof).unwrap();
            movie(&[track], &[], 0).trak[0].mdia.minf.stbl.stss.as_ref().map(|stss| stss.entries.clone())
        };
        assert_eq!(sync(&[0, NON_SYNC, NON_SYNC, 0, NON_SYNC]), Some(vec![1, 4]));
        assert_eq!(sync(&[0, 0]), None);
    }

    #[test]
    fn samples_beyond_four_gigabytes_are_found() {
        let chunk =
            |track, bytes| Chunk { track, path: String::new(), start_seconds: 0.0, bytes, samples: 7 };
        let chunks = [chunk(0, 5 << 30), chunk(1, 1000), chunk(1, 1000), chunk(0, 1)];
        let (stsc, short, long) = places(1, &chunks, 100);
        assert_eq!(stsc.entries.len(), 1);
        assert_eq!((short, long), (None, Some(Co64 { entries: vec![(5 << 30) + 100, (5 << 30) + 1100] })));
        let (_, short, _) = places(1, &chunks[1..], 100);
        assert_eq!(short, Some(Stco { entries: vec![100, 1100] }));
        let head = head(&[], &chunks).unwrap();
        // A box of more than 4 GiB: size 1, and the size behind its name.
        assert_eq!(head[head.len() - 16..head.len() - 8], *b"\0\0\0\x01mdat");
    }
}
