//! The extents of the tracks of a Matroska or WebM file.
//!
//! Recordings of browsers have neither a duration nor an index, and the durations in tags may be stale. So
//! the times come from the blocks in the first and last clusters. Libraries for Matroska read a file from its
//! start; here most of the file is not read at all, and the end is read from the middle of a cluster on.

use bytes::Bytes;

use crate::{source::loopback::Input, store::S3Error};

use super::{
    ebml::{Header, elements, id, number},
    extents::{Claim, Extent, Extents, TrackKey, latest_plausible},
    limits::MOST_TRACKS,
    tail::Tail,
};

/// Bytes of the first read, and of each read for a header element.
const HEADER_READ: u64 = 64 << 10;
/// Most elements before the first cluster; files have about eight.
const MOST_ELEMENTS: usize = 64;
/// Largest element with the tracks. Subtitle tracks may contain style sheets, and tracks parameter sets.
const LARGEST_TRACKS: u64 = 4 << 20;
/// Bytes of a read of clusters at the beginning, and the most reads. Usually the first read has a block of
/// every track.
const CLUSTERS_READ: u64 = 1 << 20;
const CLUSTERS_READS: usize = 16;
/// Most clusters of a window whose times are compared.
const MOST_CLUSTERS: usize = 100_000;
/// Longest duration in seconds of a last block that states none. The distance to the block before it may be a
/// pause.
const LONGEST_LAST: f64 = 1.0;

/// An unsigned integer of at most eight bytes.
fn unsigned(content: &[u8]) -> Option<u64> {
    (content.len() <= 8).then(|| content.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn float(content: &[u8]) -> Option<f64> {
    match content.len() {
        4 => Some(f64::from(f32::from_be_bytes(content.try_into().ok()?))),
        8 => Some(f64::from_be_bytes(content.try_into().ok()?)),
        _ => None,
    }
}

/// A track that FFmpeg makes a stream of.
#[derive(Debug, Clone, PartialEq)]
struct Track {
    number: u64,
    /// True if it is video or audio, so that its extent must be known.
    plays: bool,
    /// Duration of a frame in seconds, if stated.
    frame_seconds: Option<f64>,
    /// FFmpeg moves the track by this many seconds towards 0.
    delay_seconds: f64,
}

/// The header of a file.
#[derive(Debug, Clone, PartialEq)]
struct FileHeader {
    /// Seconds per tick of the file's clock.
    tick_seconds: f64,
    claimed_seconds: Option<f64>,
    /// In the order of FFmpeg's streams.
    tracks: Vec<Track>,
    /// Offset of the first cluster.
    clusters: u64,
}

/// The extents of the tracks; `None` for a file in another format.
///
/// # Errors
/// S3 fails.
pub(crate) async fn matroska_extents(input: &Input) -> Result<Option<Extents>, S3Error> {
    let Some(file_size) = input.size().await else { return Ok(None) };
    let Some(header) = file_header(input, file_size).await? else { return Ok(None) };
    let mut extents = vec![Extent::default(); header.tracks.len()];
    add_starts(input, &header, file_size, &mut extents).await?;
    add_ends(input, &header, file_size, &mut extents).await?;
    if extents.iter().all(|extent| extent.end.is_none()) {
        return Ok(None);
    }
    let claims = header.claimed_seconds.map(|seconds| Claim { header: "segment header".to_owned(), seconds });
    let tracks = extents.into_iter().enumerate().map(|(stream, extent)| (TrackKey::Stream(stream), extent));
    Ok(Some(Extents { tracks: tracks.collect(), claims: claims.into_iter().collect() }))
}

/// Reads the elements before the first cluster; `None` for a file in another format.
async fn file_header(input: &Input, file_size: u64) -> Result<Option<FileHeader>, S3Error> {
    let mut window = Window { input, file_size, start: 0, bytes: Bytes::new() };
    let (mut at, mut tick_nanos, mut claimed_ticks) = (0, 1_000_000, None);
    let mut tracks: Option<Vec<(Track, u64)>> = None;
    for element in 0..MOST_ELEMENTS {
        let Some(bytes) = window.read(at, Header::LONGEST as u64).await? else { return Ok(None) };
        let Some(header) = Header::parse(&bytes) else { return Ok(None) };
        if (element == 0) != (header.id == id::EBML) {
            return Ok(None);
        }
        let content = at + header.length as u64;
        match (header.id, header.size) {
            (id::SEGMENT, _) => {
                at = content;
                continue;
            }
            (id::CLUSTER, _) => {
                let Some(tracks) = tracks else { return Ok(None) };
                let tick_seconds = tick_nanos as f64 / 1e9;
                let of_file = |(track, delay_nanos): (Track, u64)| Track {
                    // FFmpeg rounds to ticks.
                    delay_seconds: (delay_nanos as f64 / tick_nanos as f64).round() * tick_seconds,
                    ..track
                };
                return Ok(Some(FileHeader {
                    tick_seconds,
                    claimed_seconds: claimed_ticks.map(|ticks: f64| ticks * tick_seconds),
                    tracks: tracks.into_iter().map(of_file).collect(),
                    clusters: at,
                }));
            }
            (id::INFO | id::TRACKS, Some(size @ ..LARGEST_TRACKS)) => {
                let Some(bytes) = window.read(content, size).await? else { return Ok(None) };
                if header.id == id::TRACKS {
                    tracks.get_or_insert_with(|| self::tracks(&bytes));
                } else {
                    let value = |id| elements(&bytes).find(|(other, _)| *other == id).map(|(_, value)| value);
                    tick_nanos = value(id::TIMESTAMP_SCALE).and_then(unsigned).unwrap_or(tick_nanos).max(1);
                    claimed_ticks = value(id::DURATION).and_then(float).filter(|ticks| ticks.is_finite());
                }
            }
            _ => {}
        }
        let Some(next) = header.size.and_then(|size| content.checked_add(size)) else { return Ok(None) };
        at = next;
    }
    Ok(None)
}

/// The last bytes that were read of a file.
struct Window<'a> {
    input: &'a Input,
    file_size: u64,
    start: u64,
    bytes: Bytes,
}

impl Window<'_> {
    /// These bytes, cut at the end of the file; `None` if they lie behind it, or cannot be read.
    async fn read(&mut self, at: u64, length: u64) -> Result<Option<Bytes>, S3Error> {
        let end = at.saturating_add(length).min(self.file_size);
        if at >= end {
            return Ok(None);
        }
        if at < self.start || end > self.start + self.bytes.len() as u64 {
            let until = at.saturating_add(length.max(HEADER_READ));
            let Some(bytes) = self.input.bytes(at, until).await? else { return Ok(None) };
            (self.start, self.bytes) = (at, bytes);
        }
        let range = usize::try_from(at - self.start).ok().zip(usize::try_from(end - self.start).ok());
        Ok(range.filter(|(_, end)| *end <= self.bytes.len()).map(|(start, end)| self.bytes.slice(start..end)))
    }
}

/// The tracks that FFmpeg makes streams of, with their delays in nanoseconds.
fn tracks(content: &[u8]) -> Vec<(Track, u64)> {
    let track = |entry: &[u8]| {
        let (mut number, mut kind, mut frame_nanos, mut delay_nanos, mut has_codec) = (0, 0, None, 0, false);
        for (id, value) in elements(entry) {
            match id {
                id::TRACK_NUMBER => number = unsigned(value)?,
                id::TRACK_TYPE => kind = unsigned(value)?,
                id::DEFAULT_DURATION => frame_nanos = unsigned(value).filter(|nanos| *nanos > 0),
                id::CODEC_DELAY => delay_nanos = unsigned(value)?,
                id::CODEC_ID => has_codec = true,
                _ => {}
            }
        }
        // Video, audio, subtitles, metadata.
        let is_stream = has_codec && matches!(kind, 1 | 2 | 0x11 | 0x21);
        let frame_seconds = frame_nanos.map(|nanos| nanos as f64 / 1e9);
        let track = Track { number, plays: matches!(kind, 1 | 2), frame_seconds, delay_seconds: 0.0 };
        is_stream.then_some((track, delay_nanos))
    };
    let entries = elements(content).filter(|(id, _)| *id == id::TRACK_ENTRY).take(MOST_TRACKS);
    entries.filter_map(|(_, entry)| track(entry)).collect()
}

/// Adds the first block of each track, as far as the first clusters have one.
async fn add_starts(
    input: &Input,
    header: &FileHeader,
    file_size: u64,
    extents: &mut [Extent],
) -> Result<(), S3Error> {
    let mut blocks = Blocks { at: header.clusters, cluster: None, last: None };
    for _ in 0..CLUSTERS_READS {
        let mut plays = header.tracks.iter().zip(extents.iter()).filter(|(track, _)| track.plays);
        if blocks.at >= file_size || plays.all(|(_, extent)| extent.start.is_some()) {
            break;
        }
        let start = blocks.at;
        let Some(window) = input.bytes(start, start.saturating_add(CLUSTERS_READ)).await? else { break };
        while let Some(block) = blocks.next(&window, start, file_size) {
            if let Some((track, extent)) = header.track(&block, extents) {
                extent.add_start(header.seconds(track, block.ticks));
            }
        }
        if blocks.at <= start {
            break;
        }
    }
    Ok(())
}

/// Adds the last block of each track, as far as the last clusters have one.
async fn add_ends(
    input: &Input,
    header: &FileHeader,
    file_size: u64,
    extents: &mut [Extent],
) -> Result<(), S3Error> {
    let mut tail = Tail::new(header.clusters, file_size);
    while let Some((offset, window)) = tail.grow(input).await? {
        let Some(first) = first_cluster(window, 0) else { continue };
        let from = || Blocks { at: offset + first as u64, cluster: None, last: None };
        let mut clusters = Vec::new();
        let mut blocks = from();
        while blocks.next(window, offset, file_size).is_some() {
            clusters.extend(blocks.cluster.filter(|cluster| clusters.last() != Some(cluster)));
            clusters.truncate(MOST_CLUSTERS);
        }
        let clusters = clusters.into_iter().map(|ticks| ticks as f64 * header.tick_seconds).collect();
        let latest = latest_plausible(clusters, header.claimed_seconds);
        let mut ends = vec![LastBlock::default(); extents.len()];
        let mut blocks = from();
        while let Some(block) = blocks.next(window, offset, file_size) {
            let position = header.tracks.iter().position(|track| track.number == block.track);
            let Some((track, last)) = position.and_then(|at| header.tracks.get(at).zip(ends.get_mut(at)))
            else {
                continue;
            };
            if header.seconds(track, block.ticks) <= latest {
                last.add(block);
            }
        }
        let mut is_complete = true;
        for ((track, last), extent) in header.tracks.iter().zip(&ends).zip(extents.iter_mut()) {
            match last.end_seconds(header, track) {
                Some(end) => extent.add_end(end, end),
                None => is_complete &= !track.plays,
            }
        }
        if is_complete || tail.is_enough(extents.iter().any(|extent| extent.end.is_some())) {
            break;
        }
    }
    Ok(())
}

impl FileHeader {
    /// A time of the file's clock in seconds on FFmpeg's clock.
    fn seconds(&self, track: &Track, ticks: i64) -> f64 {
        ticks as f64 * self.tick_seconds - track.delay_seconds
    }

    /// The track of a block, and its extent.
    fn track<'a>(&self, block: &Block, extents: &'a mut [Extent]) -> Option<(&Track, &'a mut Extent)> {
        let position = self.tracks.iter().position(|track| track.number == block.track)?;
        self.tracks.get(position).zip(extents.get_mut(position))
    }
}

/// The last blocks of a track in presentation order.
#[derive(Debug, Clone, Copy, Default)]
struct LastBlock {
    last: Option<Block>,
    before: Option<Block>,
    /// Latest end in ticks of the blocks that state their duration.
    stated_end: Option<i64>,
}

impl LastBlock {
    fn add(&mut self, block: Block) {
        if let Some(duration) = block.duration {
            let end = block.ticks.saturating_add_unsigned(duration);
            self.stated_end = Some(self.stated_end.map_or(end, |known| known.max(end)));
        }
        match self.last {
            Some(last) if block.ticks == last.ticks => self.last = Some(block),
            Some(last) if block.ticks < last.ticks => {
                if self.before.is_none_or(|before| before.ticks < block.ticks) {
                    self.before = Some(block);
                }
            }
            last => (self.last, self.before) = (Some(block), last),
        }
    }

    fn end_seconds(&self, header: &FileHeader, track: &Track) -> Option<f64> {
        let last = self.last?;
        let start = header.seconds(track, last.ticks);
        let distance = self.before.map(|before| {
            let seconds = last.ticks.saturating_sub(before.ticks) as f64 * header.tick_seconds;
            seconds / f64::from(before.frames)
        });
        let frame = track.frame_seconds.or(distance).unwrap_or(0.0).min(LONGEST_LAST);
        let unstated = if last.duration.is_some() { start } else { start + frame * f64::from(last.frames) };
        let stated = self.stated_end.map_or(start, |end| header.seconds(track, end));
        Some(unstated.max(stated))
    }
}

/// A block of one or several frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    /// Number of its track.
    track: u64,
    ticks: i64,
    frames: u32,
    /// In ticks, if stated.
    duration: Option<u64>,
}

/// Walks over the blocks of clusters. Of each block, only the header must be in the window.
#[derive(Debug)]
struct Blocks {
    /// Offset in the file of the next element.
    at: u64,
    /// Time of the current cluster.
    cluster: Option<i64>,
    /// The block of the current group.
    last: Option<Block>,
}

impl Blocks {
    /// The next block in the window at `window_start` of the file; `None` at the end of the window. A block
    /// whose group states a duration is returned twice, the second time with its duration.
    fn next(&mut self, window: &[u8], window_start: u64, file_size: u64) -> Option<Block> {
        loop {
            let at = usize::try_from(self.at.checked_sub(window_start)?).ok()?;
            let rest = window.get(at..).filter(|rest| !rest.is_empty())?;
            let Some(header) = Header::parse(rest).filter(|header| header.fits(self.at, file_size)) else {
                if rest.len() < Header::LONGEST && window_start + (window.len() as u64) < file_size {
                    return None;
                }
                // Damaged bytes.
                self.cluster = None;
                self.at = window_start + first_cluster(window, at + 1)? as u64;
                continue;
            };
            let content = rest.get(header.length..).unwrap_or_default();
            let size = header.size.unwrap_or(0);
            let value = || content.get(..usize::try_from(size).ok()?).and_then(unsigned);
            let next = self.at + header.length as u64;
            match header.id {
                id::SEGMENT | id::CLUSTER | id::BLOCK_GROUP => {
                    if header.id != id::BLOCK_GROUP {
                        self.cluster = None;
                    }
                    (self.at, self.last) = (next, None);
                }
                id::TIMESTAMP => {
                    self.cluster = value().and_then(|ticks| i64::try_from(ticks).ok());
                    self.at = next.saturating_add(size);
                }
                id::BLOCK_DURATION => {
                    let duration = value();
                    self.at = next.saturating_add(size);
                    if let Some(block) = self.last.take().filter(|_| duration.is_some()) {
                        return Some(Block { duration, ..block });
                    }
                }
                id::SIMPLE_BLOCK | id::BLOCK => {
                    if content.len() < Header::LONGEST && (content.len() as u64) < size {
                        // The next window begins with this element, unless this one did.
                        self.at = if at == 0 { next.saturating_add(size) } else { self.at };
                        return None;
                    }
                    self.at = next.saturating_add(size);
                    let block = self.cluster.and_then(|cluster| block(content, cluster));
                    self.last = block.filter(|_| header.id == id::BLOCK);
                    if block.is_some() {
                        return block;
                    }
                }
                _ => self.at = next.saturating_add(size),
            }
        }
    }
}

impl Header {
    /// Returns true if the element at this offset ends within the file. Only segments and clusters may have
    /// an unknown size.
    fn fits(&self, at: u64, file_size: u64) -> bool {
        let opens = matches!(self.id, id::SEGMENT | id::CLUSTER);
        let end = self.size.map(|size| at.saturating_add(self.length as u64).saturating_add(size));
        // The end of an interrupted recording has a cluster that is not complete.
        opens || end.is_some_and(|end| end <= file_size)
    }
}

/// Parses the header of a block.
fn block(content: &[u8], cluster: i64) -> Option<Block> {
    let (track, length) = number(content)?;
    let rest = content.get(length..)?;
    let relative = i16::from_be_bytes(rest.get(..2)?.try_into().ok()?);
    let has_lacing = rest.get(2)? & 6 != 0;
    let frames = if has_lacing { u32::from(*rest.get(3)?) + 1 } else { 1 };
    Some(Block { track, ticks: cluster.checked_add(i64::from(relative))?, frames, duration: None })
}

/// The offset of the first cluster in the window from `from` on. Its first child tells it from other bytes.
fn first_cluster(window: &[u8], from: usize) -> Option<usize> {
    let cluster = id::CLUSTER.to_be_bytes();
    let mut at = from;
    loop {
        at += window.get(at..)?.windows(cluster.len()).position(|bytes| bytes == cluster)?;
        let child = |header: Header| Header::parse(window.get(at + header.length..)?);
        let child = window.get(at..).and_then(Header::parse).and_then(child);
        if child.is_some_and(|child| {
            matches!(child.id, id::TIMESTAMP | id::CRC | id::POSITION | id::PREVIOUS_SIZE)
                && child.size.is_some_and(|size| size <= 8)
        }) {
            return Some(at);
        }
        at += 1;
    }
}
