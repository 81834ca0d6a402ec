//! Where a source's frames are, read from an MP4 file's movie header before anything is encoded.
//!
//! A rung is copied instead of encoded where the source is already what the rung wants, and all other rungs
//! then take its keyframes as segment boundaries. So they must be known exactly, on FFmpeg's clock, first.
//! Whatever is odd about a file only means that it is encoded: FFmpeg reads a lot that is not worth
//! understanding twice.
//!
//! Uploads are hostile. The walk through the containers is bounded by their size and never recurses; the
//! `mp4-atom` crate, whose whole-`moov` decoder recurses as deep as boxes nest, only decodes single boxes.

use std::{
    borrow::Cow,
    iter::{repeat, repeat_n},
};

use bytes::Bytes;
use futures::future::try_join_all;
use mp4_atom::{
    Atom, Avcc, Co64, Ctts, CttsEntry, DecodeMaybe, Elst, Esds, Header, Mdhd, Mvhd, Stco, Stsc, Stss, Stsz,
    StszSamples, Stts, SttsEntry, Tkhd,
};

use crate::{
    analysis::ffprobe::{ENCRYPTED, MOST_SECONDS},
    source::loopback::Input,
    store::S3Error,
};

/// The first read: small files whole, and of others as a rule every top-level header before `mdat`.
const FIRST_READ: u64 = 64 << 10;
/// Files have about five boxes at the top level.
const MOST_BOXES: usize = 64;
/// `moov` takes about 12 bytes per frame: 24 hours at 30 frames per second are 50 MB with sound.
const LARGEST_MOOV: u64 = 64 << 20;
/// As many as the probe accepts.
const MOST_TRACKS: usize = 100;
/// FFmpeg goes through a track once for every edit: a thousand take it half a minute, and films have none.
const MOST_EDITS: u32 = 100;
/// Of one track: 24 hours at 60 frames per second are 5.2 million.
const MOST_SAMPLES: u32 = 6_000_000;
/// Of all tracks together, so that a small file cannot claim to hold a hundred long tracks.
const MOST_SAMPLES_OF_ALL: u32 = 4 * MOST_SAMPLES;
/// 24 hours with a keyframe ten times a second.
const MOST_KEYFRAMES: usize = 1_000_000;
/// Descriptors in `esds` nest, and are decoded by recursion: 1 KB is room for 20 times what is usual.
const LARGEST_ESDS: usize = 1 << 10;
/// FFmpeg takes composition offsets beyond this for damage and drops them all.
const LARGEST_OFFSET: i64 = 1 << 28;
/// FFmpeg starts to read sound this much before an edit.
const LONGEST_PRIMING_SECONDS: i64 = 1;
/// Where iTunes says how many samples of sound are priming. FFmpeg believes it where there is no edit list.
const PRIMING_TAG: &[u8] = b"iTunSMPB";
/// Keyframes that are looked at in the file.
const KEYFRAMES_LOOKED_AT: usize = 8;
/// Parameter sets, captions and the encoder's settings come before the picture, in 1 KB as a rule.
const KEYFRAME_READ: u64 = 16 << 10;
/// The number of x264's parameter sets where what it encodes is followed by frames of the source, whose own have others:
/// the highest there is, as encoders begin with 0.
pub const PREFIX_PARAMETER_SETS: u32 = 31;
/// Length of the beginning whose frame times are kept: an encoded prefix replaces at most the first two segments, of
/// 10.5 s each.
pub(crate) const OPENING_SECONDS: f64 = 21.0;
/// Bit rates are measured over at least this long, as shorter segments are put together in a player's buffer.
const PEAK_SECONDS: f64 = 2.0;

/// Why a track can only be encoded; the text is for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotCopyable(pub(crate) Cow<'static, str>);

fn why<T>(reason: impl Into<Cow<'static, str>>) -> Result<T, NotCopyable> {
    Err(NotCopyable(reason.into()))
}

/// The time of a frame, on the clock that the context names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrameTime {
    /// Presentation time in seconds.
    pub at_seconds: f64,
    /// Presentation time of the frame before it; equal to `at_seconds` for the first frame.
    pub before_seconds: f64,
}

impl FrameTime {
    /// Midpoint between the two frames, which no rounding of a clock can cross.
    #[must_use]
    pub(crate) fn threshold(&self) -> f64 {
        f64::midpoint(self.at_seconds, self.before_seconds)
    }
}

/// A file's tracks in their order in the file, which is that of FFmpeg's streams unless cover art is among
/// them.
#[derive(Debug, Clone, PartialEq)]
pub struct Index {
    /// All that have an id.
    pub tracks: Vec<Track>,
    /// Why the file is not worth trying; the text is for its uploader.
    pub rejection: Option<String>,
}

/// A track.
#[derive(Debug, Clone, PartialEq)]
pub struct Track {
    /// FFmpeg's stream id, which ffprobe prints as `0x1`.
    pub id: u32,
    /// Nothing of it can be decoded, whatever FFmpeg says.
    pub encrypted: bool,
    /// What is in it.
    pub content: Content,
}

/// What is in a track, and whether it can be copied.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Pictures.
    Video(Result<CopyableVideo, NotCopyable>),
    /// Sound.
    Audio(Result<CopyableAudio, NotCopyable>),
    /// Subtitles, chapters, time code.
    Other,
}

/// H.264, 8 bit, 4:2:0, of which every frame is in the file and shown once.
///
/// Times are FFmpeg's presentation times in ticks of the track's clock: after edit lists, before the
/// earliest track's start is moved to 0 (which the `ffmpeg` program does, but not ffprobe).
#[derive(Debug, Clone, PartialEq)]
pub struct CopyableVideo {
    /// `profile_idc`: 66 (Baseline), 77 (Main) or 100 (High).
    pub profile: u8,
    /// `level_idc`: 41 is level 4.1.
    pub level: u8,
    /// Bytes of the length in front of every NAL unit.
    pub nal_length_size: u8,
    /// Whether it can follow, as one rendition, on frames that x264 has encoded with [`PREFIX_PARAMETER_SETS`].
    pub accepts_encoded_prefix: bool,
    /// Ticks per second.
    pub timescale: u32,
    /// How many frames.
    pub samples: u32,
    /// Of all frames.
    pub bytes: u64,
    /// When the last frame is shown, in ticks.
    pub last: i64,
    /// When it ends.
    pub end: i64,
    /// In order; the first is the first frame and closed.
    pub keyframes: Vec<Keyframe>,
    /// When each of the first frames is shown, in ticks, in order: of 21 seconds.
    pub opening: Vec<i64>,
}

/// A keyframe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keyframe {
    /// When it is shown, in ticks.
    pub at: i64,
    /// When the last of the frames stored before it is shown, in ticks: just before it, if it is closed. The
    /// first keyframe's own time.
    pub before: i64,
    /// No frame stored behind it is shown before it, none stored before it is shown after it.
    pub closed: bool,
    /// Where it is in the file, in bytes.
    pub offset: u64,
    /// The track's bytes stored before it.
    pub bytes_before: u64,
}

/// AAC-LC in frames of 1024 samples without gaps.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyableAudio {
    /// AAC's channel configuration: as many channels, but 8 for 7.
    pub channels: u8,
    /// In Hz.
    pub sample_rate: u32,
    /// AAC frames in the file.
    pub frames: u32,
    /// Of all frames.
    pub bytes: u64,
    /// When the first sample that is to be heard is, in seconds on the clock of [`CopyableVideo`].
    pub start_seconds: f64,
    /// When the last one ends, likewise.
    pub end_seconds: f64,
    /// Samples before the first one that is to be heard.
    pub primed_samples: u64,
    /// Bits per second.
    pub average_bitrate: u64,
}

impl Index {
    /// Reads the index of an MP4 or QuickTime file; `None` if it has none that is worth reading.
    ///
    /// # Errors
    /// Those of S3. A file on this machine that cannot be read has no index: FFmpeg says why.
    pub async fn read(input: &Input) -> Result<Option<Self>, S3Error> {
        let Some(size) = input.size().await else { return Ok(None) };
        let Some(moov) = find_moov(input, size).await? else { return Ok(None) };
        let Some(mut index) = Self::of_moov(&moov, size) else { return Ok(None) };
        drop(moov);
        for track in &mut index.tracks {
            let Content::Video(content) = &mut track.content else { continue };
            let Ok(video) = content else { continue };
            if let Err(reason) = video.look_at_keyframes(input).await? {
                *content = Err(reason);
            }
        }
        Ok(Some(index))
    }

    /// Why nothing should be made of the file, in words for its uploader.
    pub fn refusal(&self) -> Option<String> {
        if self.tracks.iter().any(|track| track.encrypted) {
            return Some(ENCRYPTED.to_owned());
        }
        self.rejection.clone()
    }

    /// The track that ffprobe calls `id`, unless several do.
    pub fn track(&self, id: u32) -> Option<&Track> {
        let mut same = self.tracks.iter().filter(|track| track.id == id);
        same.next().filter(|_| same.next().is_none())
    }

    /// The index in the body of a `moov` box of a file of `file_size` bytes.
    fn of_moov(moov: &[u8], file_size: u64) -> Option<Self> {
        let mvhd = only(moov, b"mvhd").ok()?.map(decode::<Mvhd>)?.ok()?;
        let movie = Movie {
            timescale: mvhd.timescale,
            fragmented: boxes(moov).any(|(kind, _)| kind == *b"mvex"),
            priming_tag: boxes(moov).any(|(kind, tags)| {
                kind == *b"udta" && tags.windows(PRIMING_TAG.len()).any(|name| name == PRIMING_TAG)
            }),
            file_size,
        };
        let mut budget = MOST_SAMPLES_OF_ALL;
        let mut tracks: Vec<Track> = Vec::new();
        for (_, trak) in boxes(moov).filter(|(kind, _)| kind == b"trak").take(MOST_TRACKS) {
            let Some(mut track) = track(trak, &movie, &mut budget) else { continue };
            // One is enough, and a hundred would take a lot of memory.
            if track.is_copyable_video() && tracks.iter().any(Track::is_copyable_video) {
                track.content = Content::Video(why("another track of pictures comes before it"));
            }
            tracks.push(track);
        }
        Some(Self { tracks, rejection: rejection(moov, &mvhd) })
    }
}

/// What no video is like, and what FFmpeg would take hours over.
fn rejection(moov: &[u8], mvhd: &Mvhd) -> Option<String> {
    let hours = mvhd.duration as f64 / f64::from(mvhd.timescale.max(1)) / 3600.0;
    // An unknown duration is all ones.
    if !matches!(mvhd.duration, u64::MAX | 0xffff_ffff) && hours * 3600.0 > MOST_SECONDS {
        let most = MOST_SECONDS / 3600.0;
        return Some(format!(
            "the file claims to last {hours:.0} hours, more than the {most:.0} that are accepted"
        ));
    }
    let edits = |trak: &[u8]| {
        let elst = only(only(trak, b"edts").ok()??, b"elst").ok()??;
        Some(u32::from_be_bytes(elst.get(4..8)?.try_into().ok()?))
    };
    let traks = boxes(moov).filter(|(kind, _)| kind == b"trak").take(MOST_TRACKS);
    let most = traks.filter_map(|(_, trak)| edits(trak)).max().unwrap_or(0);
    (most > MOST_EDITS).then(|| format!("the file is cut into {most} pieces, more than any video is"))
}

impl Track {
    fn is_copyable_video(&self) -> bool {
        matches!(self.content, Content::Video(Ok(_)))
    }
}

impl CopyableVideo {
    /// Ticks in seconds.
    pub fn seconds(&self, ticks: i64) -> f64 {
        ticks as f64 / f64::from(self.timescale)
    }

    /// How long the frames are shown, in seconds.
    pub fn duration_seconds(&self) -> f64 {
        self.seconds(self.end - self.start())
    }

    /// Bits per second.
    pub fn average_bitrate(&self) -> u64 {
        bitrate(self.bytes, self.duration_seconds())
    }

    /// The highest bit rate of any two seconds or more between closed keyframes, in bits per second.
    pub fn peak_bitrate(&self) -> u64 {
        let ends = self.closed().map(|keyframe| (keyframe.at, keyframe.bytes_before));
        let mut ends = ends.chain([(self.end, self.bytes)]).peekable();
        let rates = self.closed().filter_map(|from| {
            let length = |at: i64| self.seconds(at - from.at);
            while ends.next_if(|(at, _)| length(*at) < PEAK_SECONDS).is_some() {}
            let (at, bytes) = ends.peek()?;
            Some(bitrate(bytes - from.bytes_before, length(*at)))
        });
        // What is left at the end may be too short to be measured alone.
        rates.max().unwrap_or_default().max(self.average_bitrate())
    }

    /// Closed keyframes: no frame before one depends on a frame after it, nor the other way round.
    pub(crate) fn keyframe_times(&self) -> impl Iterator<Item = FrameTime> + Clone {
        self.closed().map(|keyframe| FrameTime {
            at_seconds: self.seconds(keyframe.at),
            before_seconds: self.seconds(keyframe.before),
        })
    }

    /// The frames of the source's beginning after the first one.
    pub(crate) fn opening_times(&self) -> impl Iterator<Item = FrameTime> {
        self.opening.windows(2).filter_map(|pair| match pair {
            [before, at] => {
                Some(FrameTime { at_seconds: self.seconds(*at), before_seconds: self.seconds(*before) })
            }
            _ => None,
        })
    }

    /// End of the last frame.
    pub(crate) fn end_time(&self) -> FrameTime {
        FrameTime { at_seconds: self.seconds(self.end), before_seconds: self.seconds(self.last) }
    }

    fn start(&self) -> i64 {
        self.keyframes.first().map_or(0, |keyframe| keyframe.at)
    }

    fn closed(&self) -> impl Iterator<Item = &Keyframe> + Clone {
        self.keyframes.iter().filter(|keyframe| keyframe.closed)
    }

    /// The index calls keyframe what an encoder called so. Only at an instantaneous decoder refresh does
    /// nothing behind it need anything before it; an encoder makes all its keyframes alike.
    async fn look_at_keyframes(&self, input: &Input) -> Result<Result<(), NotCopyable>, S3Error> {
        let closed: Vec<_> = self.closed().collect();
        let step = closed.len().div_ceil(KEYFRAMES_LOOKED_AT).max(1);
        let looks = closed.iter().step_by(step).map(|keyframe| async move {
            let bytes = input.bytes(keyframe.offset, keyframe.offset + KEYFRAME_READ).await?;
            Ok(bytes.is_some_and(|bytes| refreshes(&bytes, self.nal_length_size)))
        });
        let all = try_join_all(looks).await?.into_iter().all(|refreshes| refreshes);
        Ok(if all { Ok(()) } else { why("its keyframes need frames before them") })
    }
}

fn bitrate(bytes: u64, seconds: f64) -> u64 {
    if seconds > 0.0 { (bytes as f64 * 8.0 / seconds).round() as u64 } else { 0 }
}

/// Whether the first slice in a sample belongs to an instantaneous decoder refresh.
fn refreshes(mut sample: &[u8], nal_length_size: u8) -> bool {
    loop {
        let Some((length, rest)) = sample.split_at_checked(usize::from(nal_length_size)) else {
            return false;
        };
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        match rest.first().map(|header| header & 0x1f) {
            Some(5) => return length > 0,
            // Other slices.
            None | Some(1..=4) => return false,
            Some(_) => {}
        }
        let Some(next) = rest.get(length..) else { return false };
        sample = next;
    }
}

/// The body of the first `moov` box.
async fn find_moov(input: &Input, size: u64) -> Result<Option<Bytes>, S3Error> {
    let Some(head) = input.bytes(0, FIRST_READ).await? else { return Ok(None) };
    let read = async |start: u64, end: u64| match (usize::try_from(start), usize::try_from(end)) {
        (Ok(start), Ok(end)) if end <= head.len() => Ok(Some(head.slice(start..end))),
        _ => input.bytes(start, end).await,
    };
    let mut at: u64 = 0;
    for _ in 0..MOST_BOXES {
        let Some(bytes) = read(at, size.min(at.saturating_add(16))).await? else { return Ok(None) };
        let mut rest = &*bytes;
        let Ok(Some(header)) = Header::decode_maybe(&mut rest) else { return Ok(None) };
        let body = at + (bytes.len() - rest.len()) as u64;
        let Some(end) = header.size.map_or(Some(size), |length| body.checked_add(length as u64)) else {
            return Ok(None);
        };
        if end > size {
            return Ok(None);
        }
        if <[u8; 4]>::from(header.kind) == *b"moov" {
            return if end - body > LARGEST_MOOV { Ok(None) } else { read(body, end).await };
        }
        at = end;
    }
    Ok(None)
}

/// The boxes in a body, up to the first that is not whole. At most one per eight bytes.
fn boxes(mut body: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let header = Header::decode_maybe(&mut body).ok()??;
        let (content, rest) = body.split_at_checked(header.size.unwrap_or(body.len()))?;
        body = rest;
        Some((header.kind.into(), content))
    })
}

/// The body of the one box of a type, if there is one.
fn only<'a>(body: &'a [u8], kind: &[u8; 4]) -> Result<Option<&'a [u8]>, NotCopyable> {
    let mut same = boxes(body).filter(|(other, _)| other == kind).map(|(_, content)| content);
    match (same.next(), same.next()) {
        (found, None) => Ok(found),
        _ => why(format!("it has several {} boxes", kind.escape_ascii())),
    }
}

fn required<'a>(body: &'a [u8], kind: &[u8; 4]) -> Result<&'a [u8], NotCopyable> {
    only(body, kind)?.ok_or_else(|| NotCopyable(format!("it has no {} box", kind.escape_ascii()).into()))
}

fn decode<T: Atom>(mut body: &[u8]) -> Result<T, NotCopyable> {
    T::decode_body(&mut body)
        .map_err(|error| NotCopyable(format!("its {} box is malformed: {error}", T::KIND).into()))
}

fn optional<T: Atom>(body: &[u8], kind: &[u8; 4]) -> Result<Option<T>, NotCopyable> {
    only(body, kind)?.map(decode).transpose()
}

/// What concerns all tracks.
struct Movie {
    timescale: u32,
    fragmented: bool,
    priming_tag: bool,
    /// In bytes.
    file_size: u64,
}

fn track(trak: &[u8], movie: &Movie, budget: &mut u32) -> Option<Track> {
    let id = optional::<Tkhd>(trak, b"tkhd").ok()??.track_id;
    let mdia = required(trak, b"mdia").unwrap_or_default();
    let handler = required(mdia, b"hdlr").ok().and_then(|hdlr| hdlr.get(8..12));
    let stbl = required(mdia, b"minf").and_then(|minf| required(minf, b"stbl")).unwrap_or_default();
    let entries = required(stbl, b"stsd").ok().and_then(|stsd| stsd.get(8..)).unwrap_or_default();
    let encrypted = boxes(entries).any(|(kind, entry)| is_encrypted(kind, entry));
    let tables = || {
        if movie.fragmented {
            return why("the file is fragmented");
        }
        let tables = Tables::new(trak, movie.timescale)?;
        *budget =
            budget.checked_sub(tables.samples).ok_or(NotCopyable("the file has too many samples".into()))?;
        Ok(tables)
    };
    let content = match handler {
        Some(b"vide") if encrypted => Content::Video(why("it is encrypted")),
        Some(b"soun") if encrypted => Content::Audio(why("it is encrypted")),
        Some(b"vide") => Content::Video(video(entries, tables, movie)),
        Some(b"soun") => Content::Audio(audio(entries, tables, movie)),
        _ => Content::Other,
    };
    Some(Track { id, encrypted, content })
}

/// Common encryption hides the entry's type and says how in `sinf`; iTunes' has types of its own. A `pssh`
/// box alone says nothing: it stays behind when a file is decrypted.
fn is_encrypted(kind: [u8; 4], entry: &[u8]) -> bool {
    matches!(&kind, b"encv" | b"enca" | b"enct" | b"encs" | b"encf" | b"encm" | b"drms" | b"drmi")
        || [children_of_visual(entry), children_of_audio(entry)]
            .into_iter()
            .any(|children| boxes(children).any(|(kind, _)| kind == *b"sinf"))
}

/// Behind a `VisualSampleEntry`'s 78 bytes (ISO/IEC 14496-12, 12.1.3).
fn children_of_visual(entry: &[u8]) -> &[u8] {
    entry.get(78..).unwrap_or_default()
}

/// Behind an `AudioSampleEntry`'s 28 bytes (ISO/IEC 14496-12, 12.2.3), or what QuickTime's versions 1 and 2
/// add.
fn children_of_audio(entry: &[u8]) -> &[u8] {
    let fixed = match entry.get(8..10) {
        Some([0, 1]) => 28 + 16,
        Some([0, 2]) => 28 + 36,
        _ => 28,
    };
    entry.get(fixed..).unwrap_or_default()
}

/// The only sample entry.
fn entry(entries: &[u8]) -> Result<([u8; 4], &[u8]), NotCopyable> {
    let mut all = boxes(entries);
    match (all.next(), all.next()) {
        (Some(entry), None) => Ok(entry),
        _ => why("it has other than one description of its samples"),
    }
}

/// A track's sample tables. They agree on the number of samples.
struct Tables {
    timescale: u32,
    samples: u32,
    edit: Option<Edit>,
    stts: Stts,
    ctts: Option<Ctts>,
    stss: Option<Stss>,
    stsc: Stsc,
    stsz: Stsz,
    chunks: Vec<u64>,
}

/// One stretch of a track at its own speed, perhaps after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Edit {
    /// In ticks of the track.
    pause: i64,
    /// From here, in ticks of the track before the edit.
    from: i64,
    /// Up to and without this.
    to: i64,
}

/// In the order of the file.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// From 1.
    number: u32,
    /// Before the edit, in ticks.
    shown: i64,
    ticks: u32,
    size: u32,
    offset: u64,
    sync: bool,
}

impl Tables {
    fn new(trak: &[u8], movie_timescale: u32) -> Result<Self, NotCopyable> {
        let mdia = required(trak, b"mdia")?;
        let timescale = decode::<Mdhd>(required(mdia, b"mdhd")?)?.timescale;
        if timescale == 0 || timescale > i32::MAX as u32 {
            return why("its clock does not run");
        }
        let edit = match only(trak, b"edts")?.map(|edts| optional::<Elst>(edts, b"elst")) {
            Some(elst) => elst?.map_or(Ok(None), |elst| edit(&elst, movie_timescale, timescale))?,
            None => None,
        };
        let minf = required(mdia, b"minf")?;
        if let Some(dinf) = only(minf, b"dinf")?
            && !in_this_file(dinf)
        {
            return why("its samples are in another file");
        }
        let stbl = required(minf, b"stbl")?;
        let stsz: Stsz = decode(required(stbl, b"stsz")?)?;
        let samples = match &stsz.samples {
            StszSamples::Identical { count, .. } => *count,
            StszSamples::Different { sizes } => u32::try_from(sizes.len()).unwrap_or(u32::MAX),
        };
        if samples == 0 || samples > MOST_SAMPLES {
            return why(format!("it has {samples} samples"));
        }
        let stts: Stts = decode(required(stbl, b"stts")?)?;
        let ctts: Option<Ctts> = optional(stbl, b"ctts")?;
        let ctts = ctts.filter(|ctts| ctts.entries.iter().any(|entry| entry.sample_offset != 0));
        let stsc: Stsc = decode(required(stbl, b"stsc")?)?;
        let chunks = match (optional::<Stco>(stbl, b"stco")?, optional::<Co64>(stbl, b"co64")?) {
            (Some(stco), None) => stco.entries.into_iter().map(u64::from).collect(),
            (None, Some(co64)) => co64.entries,
            _ => return why("it has other than one list of chunks"),
        };
        let stss: Option<Stss> = optional(stbl, b"stss")?;
        let tables = Self { timescale, samples, edit, stts, ctts, stss, stsc, stsz, chunks };
        tables.check().map(|()| tables)
    }

    /// What every other function relies on. FFmpeg makes something of tables that contradict each other.
    fn check(&self) -> Result<(), NotCopyable> {
        let samples = u64::from(self.samples);
        let deltas = &self.stts.entries;
        if deltas.iter().map(|entry| u64::from(entry.sample_count)).sum::<u64>() != samples {
            return why("the number of its times is not that of its samples");
        }
        if deltas.iter().any(|entry| entry.sample_delta > i32::MAX as u32) {
            return why("its times go backwards");
        }
        if let Some(ctts) = &self.ctts {
            if ctts.entries.iter().map(|entry| u64::from(entry.sample_count)).sum::<u64>() != samples {
                return why("the number of its composition offsets is not that of its samples");
            }
            if ctts.entries.iter().any(|entry| offset(entry).abs() > LARGEST_OFFSET) {
                return why("its composition offsets are too large");
            }
        }
        if let Some(stss) = &self.stss
            && !(stss.entries.first().is_none_or(|first| *first > 0)
                && stss.entries.is_sorted_by(|a, b| a < b))
        {
            return why("its keyframes are not in order");
        }
        let runs = &self.stsc.entries;
        if runs.first().is_none_or(|run| run.first_chunk != 1)
            || !runs.is_sorted_by(|a, b| a.first_chunk < b.first_chunk)
            || runs.iter().any(|run| run.samples_per_chunk == 0 || run.sample_description_index != 1)
        {
            return why("its chunks are not in order");
        }
        let chunks = self
            .samples_per_chunk()
            .try_fold(0_u64, |sum, in_chunk| Some(sum + u64::from(in_chunk)).filter(|sum| *sum <= samples));
        if chunks != Some(samples) {
            return why("the number of samples in its chunks is not that of its samples");
        }
        Ok(())
    }

    fn samples_per_chunk(&self) -> impl Iterator<Item = u32> {
        let runs = &self.stsc.entries;
        let chunks = self.chunks.len();
        let first =
            move |run: usize| runs.get(run).map_or(chunks, |run| (run.first_chunk as usize - 1).min(chunks));
        runs.iter()
            .enumerate()
            .flat_map(move |(index, run)| repeat_n(run.samples_per_chunk, first(index + 1) - first(index)))
    }

    /// Every sample in the order of the file.
    ///
    /// # Errors
    /// What `visit` says, or that a sample lies behind the file's end.
    fn walk(
        &self,
        file_size: u64,
        mut visit: impl FnMut(Sample) -> Result<(), NotCopyable>,
    ) -> Result<(), NotCopyable> {
        let ticks = |entry: &SttsEntry| repeat_n(entry.sample_delta, entry.sample_count as usize);
        let mut ticks = self.stts.entries.iter().flat_map(ticks);
        let repeated = |entry: &CttsEntry| repeat_n(offset(entry), entry.sample_count as usize);
        let mut offsets = self.ctts.iter().flat_map(|ctts| &ctts.entries).flat_map(repeated).chain(repeat(0));
        let mut sync = self.stss.as_ref().map(|stss| stss.entries.iter().copied().peekable());
        let mut decoded: i64 = 0;
        let mut number = 0;
        for (start, in_chunk) in self.chunks.iter().zip(self.samples_per_chunk()) {
            let mut offset = *start;
            for _ in 0..in_chunk {
                let size = match &self.stsz.samples {
                    StszSamples::Identical { size, .. } => *size,
                    StszSamples::Different { sizes } => sizes.get(number as usize).copied().unwrap_or(0),
                };
                let end = offset.checked_add(u64::from(size)).filter(|end| *end <= file_size);
                let Some(end) = end else { return why("the file ends before its samples do") };
                number += 1;
                let ticks = ticks.next().unwrap_or(0);
                visit(Sample {
                    number,
                    shown: decoded + offsets.next().unwrap_or(0),
                    ticks,
                    size,
                    offset,
                    sync: sync.as_mut().is_none_or(|sync| sync.next_if_eq(&number).is_some()),
                })?;
                decoded += i64::from(ticks);
                offset = end;
            }
        }
        Ok(())
    }
}

/// A composition offset. QuickTime's are signed in version 0 too.
fn offset(entry: &CttsEntry) -> i64 {
    i64::from(entry.sample_offset as i32)
}

/// Whether the first data reference says that the samples are in the same file (ISO/IEC 14496-12, 8.7.2).
fn in_this_file(dinf: &[u8]) -> bool {
    let dref = only(dinf, b"dref").ok().flatten().and_then(|dref| dref.get(8..)).unwrap_or_default();
    boxes(dref).all(|(_, reference)| reference.get(3).is_some_and(|flags| flags & 1 == 1))
}

/// The edit list in ticks of the track, if it is of the kind that almost all files have.
fn edit(elst: &Elst, movie_timescale: u32, timescale: u32) -> Result<Option<Edit>, NotCopyable> {
    if movie_timescale == 0 {
        return why("the file's clock does not run");
    }
    let rescale = |duration: u64| {
        let (from, to) = (i128::from(movie_timescale), i128::from(timescale));
        // As FFmpeg rounds.
        i64::try_from((i128::from(duration) * to + from / 2) / from)
            .ok()
            .filter(|ticks| *ticks < i64::MAX / 4)
            .ok_or(NotCopyable("its edit list is too long".into()))
    };
    let (pause, rest) = match elst.entries.as_slice() {
        [first, rest @ ..] if first.media_time.is_none() => (rescale(first.segment_duration)?, rest),
        all => (0, all),
    };
    match rest {
        [] if elst.entries.is_empty() => Ok(None),
        [only] => {
            if only.media_rate != 1.into() {
                return why("its edit list changes its speed");
            }
            let from =
                only.media_time.and_then(|time| i64::try_from(time).ok()).filter(|t| *t < i64::MAX / 4);
            let Some(from) = from else { return why("its edit list shows nothing") };
            Ok(Some(Edit { pause, from, to: from + rescale(only.segment_duration)? }))
        }
        _ => why("its edit list has several parts"),
    }
}

fn video(
    entries: &[u8],
    tables: impl FnOnce() -> Result<Tables, NotCopyable>,
    movie: &Movie,
) -> Result<CopyableVideo, NotCopyable> {
    let (kind, entry) = entry(entries)?;
    if kind != *b"avc1" {
        return why(format!("it is {} and not avc1", kind.escape_ascii()));
    }
    let children = children_of_visual(entry);
    // Newer versions of FFmpeg crop what they decode.
    if only(children, b"clap")?.is_some() {
        return why("it is to be cropped");
    }
    let avcc: Avcc = decode(required(children, b"avcC")?)?;
    check_avcc(&avcc)?;
    let tables = tables()?;

    let mut keyframes: Vec<Keyframe> = Vec::new();
    // The closed ones among them so far. Their times rise.
    let mut closed: Vec<usize> = Vec::new();
    let mut times = Vec::with_capacity(tables.samples as usize);
    let (mut bytes, mut latest, mut end) = (0_u64, i64::MIN, 0);
    // A last frame that takes no time takes as long as the one before it.
    let mut ticks = 1;
    tables.walk(movie.file_size, |sample| {
        if sample.size == 0 {
            return why("some of its frames are empty");
        }
        if sample.ticks == 0 && sample.number < tables.samples {
            return why("some of its frames take no time");
        }
        while let Some(index) = closed.pop_if(|index| keyframes[*index].at > sample.shown) {
            keyframes[index].closed = false;
        }
        if sample.sync {
            if keyframes.len() == MOST_KEYFRAMES {
                return why("it has too many keyframes");
            }
            let is_closed = sample.shown > latest;
            if is_closed {
                closed.push(keyframes.len());
            }
            keyframes.push(Keyframe {
                at: sample.shown,
                before: if sample.number == 1 { sample.shown } else { latest },
                closed: is_closed,
                offset: sample.offset,
                bytes_before: bytes,
            });
        }
        ticks = if sample.ticks > 0 { sample.ticks } else { ticks };
        if sample.shown > latest {
            (latest, end) = (sample.shown, sample.shown + i64::from(ticks));
        }
        bytes += u64::from(sample.size);
        times.push(sample.shown);
        Ok(())
    })?;
    if keyframes.first().is_none_or(|first| first.bytes_before > 0 || !first.closed) {
        return why("its first frame is not a keyframe of its own");
    }
    times.sort_unstable();
    if times.windows(2).any(|pair| pair[0] == pair[1]) {
        return why("two of its frames are shown at the same time");
    }
    let (first, last) = (times.first().copied().unwrap_or(0), latest);
    // FFmpeg shows the first frame where the edit begins, even if the edit begins before it.
    let shift = match tables.edit {
        None => 0,
        Some(edit) if edit.from > first => return why("its edit list leaves out frames at the start"),
        Some(edit) if edit.to <= last => return why("its edit list leaves out frames at the end"),
        Some(edit) => edit.pause - first,
    };
    for keyframe in &mut keyframes {
        keyframe.at += shift;
        keyframe.before += shift;
    }
    let opening_ticks = (OPENING_SECONDS * f64::from(tables.timescale)) as i64;
    times.truncate(times.partition_point(|at| at - first < opening_ticks));
    times.iter_mut().for_each(|at| *at += shift);
    times.shrink_to_fit();
    Ok(CopyableVideo {
        profile: avcc.avc_profile_indication,
        level: avcc.avc_level_indication,
        nal_length_size: avcc.length_size,
        accepts_encoded_prefix: accepts_encoded_prefix(&avcc),
        timescale: tables.timescale,
        samples: tables.samples,
        bytes,
        last: last + shift,
        end: end + shift,
        keyframes,
        opening: times,
    })
}

/// Baseline, Main and High are 8 bit and, but for the rare grey, 4:2:0.
fn check_avcc(avcc: &Avcc) -> Result<(), NotCopyable> {
    if !matches!(avcc.avc_profile_indication, 66 | 77 | 100) {
        return why(format!("its H.264 profile is {}", avcc.avc_profile_indication));
    }
    if avcc.sequence_parameter_sets.is_empty() || avcc.picture_parameter_sets.is_empty() {
        return why("its parameter sets are missing");
    }
    match &avcc.ext {
        Some(ext) if (ext.chroma_format, ext.bit_depth_luma, ext.bit_depth_chroma) != (1, 8, 8) => {
            why("it is not 4:2:0 in 8 bits")
        }
        _ => Ok(()),
    }
}

/// Lengths as FFmpeg writes them, room for another two parameter sets, and none of the same number.
fn accepts_encoded_prefix(avcc: &Avcc) -> bool {
    const MOST_SEQUENCE_SETS: usize = 31;
    const MOST_PICTURE_SETS: usize = 255;
    // Behind the NAL unit's header; in a sequence parameter set behind profile, constraints and level, too.
    let of_the_sequence = avcc.sequence_parameter_sets.iter().map(|set| ue(set, 4));
    let of_pictures = avcc.picture_parameter_sets.iter().map(|set| ue(set, 1));
    avcc.length_size == 4
        && avcc.sequence_parameter_sets.len() < MOST_SEQUENCE_SETS
        && avcc.picture_parameter_sets.len() < MOST_PICTURE_SETS
        && of_the_sequence.chain(of_pictures).all(|id| id.is_some_and(|id| id != PREFIX_PARAMETER_SETS))
}

/// An unsigned Exp-Golomb code (ITU-T H.264, 9.1) of under 16 bits that begins with a byte.
fn ue(nal: &[u8], byte: usize) -> Option<u32> {
    let code = u32::from_be_bytes([
        *nal.get(byte)?,
        *nal.get(byte + 1)?,
        nal.get(byte + 2).copied().unwrap_or(0),
        0,
    ]);
    let zeros = code.leading_zeros();
    (zeros < 8).then(|| (code >> (31 - 2 * zeros)) - 1)
}

fn audio(
    entries: &[u8],
    tables: impl FnOnce() -> Result<Tables, NotCopyable>,
    movie: &Movie,
) -> Result<CopyableAudio, NotCopyable> {
    let (kind, entry) = entry(entries)?;
    if kind != *b"mp4a" {
        return why(format!("it is {} and not mp4a", kind.escape_ascii()));
    }
    let children = children_of_audio(entry);
    // QuickTime wraps it.
    let children = only(children, b"wave")?.unwrap_or(children);
    let esds = required(children, b"esds")?;
    if esds.len() > LARGEST_ESDS {
        return why("its description is too long");
    }
    let config = decode::<Esds>(esds)?.es_desc.dec_config;
    let specific = config.dec_specific.map(|specific| specific.raw).unwrap_or_default();
    if config.object_type_indication != 0x40 {
        return why("it is not AAC");
    }
    let (channels, sample_rate) = aac_lc(&specific)?;
    let tables = tables()?;

    if tables.edit.is_none() && movie.priming_tag {
        return why("its priming is in a tag");
    }
    let timescale = i64::from(tables.timescale);
    let frame_ticks = |ticks: u32| i64::from(ticks) * i64::from(sample_rate) == 1024 * timescale;
    let (mut bytes, mut end) = (0_u64, 0);
    tables.walk(movie.file_size, |sample| {
        if !frame_ticks(sample.ticks) && sample.number < tables.samples {
            return why("its frames do not follow each other without gaps");
        }
        bytes += u64::from(sample.size);
        end = sample.shown + i64::from(sample.ticks);
        Ok(())
    })?;
    if tables.ctts.is_some() {
        return why("its frames are not in order");
    }
    let edit = tables.edit.unwrap_or(Edit { pause: 0, from: 0, to: end });
    if edit.from > timescale * LONGEST_PRIMING_SECONDS {
        return why("its edit list leaves out much at the start");
    }
    let heard = edit.to.min(end) - edit.from;
    if heard <= 0 {
        return why("its edit list leaves out everything");
    }
    let seconds = |ticks: i64| ticks as f64 / timescale as f64;
    Ok(CopyableAudio {
        channels,
        sample_rate,
        frames: tables.samples,
        bytes,
        start_seconds: seconds(edit.pause),
        end_seconds: seconds(edit.pause + heard),
        primed_samples: u64::try_from(edit.from * i64::from(sample_rate) / timescale).unwrap_or(0),
        average_bitrate: bitrate(bytes, seconds(end)),
    })
}

/// Channels and sample rate of an `AudioSpecificConfig` (ISO/IEC 14496-3, 1.6.2.1) of AAC-LC.
fn aac_lc(config: &[u8]) -> Result<(u8, u32), NotCopyable> {
    const SAMPLE_RATES: [u32; 13] = [
        96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
    ];
    let mut start = [0; 8];
    start.iter_mut().zip(config).for_each(|(to, from)| *to = *from);
    let bits = u64::from_be_bytes(start);
    let field = |at: u32, length: u32| (bits << at) >> (64 - length);
    if field(0, 5) != 2 {
        return why("its AAC is not of the LC kind");
    }
    let Some(sample_rate) = SAMPLE_RATES.get(field(5, 4) as usize) else {
        return why("its sample rate is unusual");
    };
    let channels = field(9, 4) as u8;
    if !(1..=7).contains(&channels) {
        return why("its channels are in an unusual order");
    }
    // Frame length, core coder, extension.
    if field(13, 3) != 0 {
        return why("its AAC is unusual");
    }
    // A sync word, the extension's type (spectral band replication) and whether it is there at all.
    if field(16, 11) == 0x2b7 && field(32, 1) == 1 {
        return why("its AAC is of the HE kind");
    }
    Ok((channels, *sample_rate))
}

#[cfg(test)]
mod tests {
    use std::{
        path::{Path, PathBuf},
        process::Command,
        sync::{Arc, LazyLock, Mutex},
    };

    use aws_sdk_s3::{
        Client,
        operation::{
            get_object::{GetObjectError, GetObjectOutput},
            head_object::HeadObjectOutput,
        },
        primitives::ByteStream,
    };
    use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
    use aws_smithy_types::error::ErrorMetadata;
    use mp4_atom::{ElstEntry, Encode, StscEntry};
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::{source::loopback::ServedObject, source::object::PinnedObject};

    /// A track's frames as ffprobe sees them, in the file's order.
    #[derive(Debug, Clone, Copy)]
    struct Packet {
        pts: i64,
        size: u64,
        key: bool,
    }

    fn run(program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn clip(folder: &TempDir, name: &str, arguments: &str) -> PathBuf {
        let file = folder.path().join(name);
        let mut all: Vec<_> = "-y -loglevel error".split(' ').chain(arguments.split_whitespace()).collect();
        all.push(file.to_str().unwrap());
        run("ffmpeg", &all);
        file
    }

    fn packets(file: &Path, stream: usize) -> Vec<Packet> {
        let stream = stream.to_string();
        let answer = run(
            "ffprobe",
            &[
                "-v",
                "error",
                "-select_streams",
                &stream,
                "-show_entries",
                "packet=pts,size,flags",
                "-of",
                "csv=p=0:nk=1",
                file.to_str().unwrap(),
            ],
        );
        answer
            .lines()
            .map(|line| {
                let fields: Vec<_> = line.split(',').collect();
                assert!(!fields[2].contains('D'), "{line}");
                Packet {
                    pts: fields[0].parse().unwrap(),
                    size: fields[1].parse().unwrap(),
                    key: fields[2].starts_with('K'),
                }
            })
            .collect()
    }

    async fn index(file: &Path) -> Option<Index> {
        Index::read(&Input::File(file.to_owned())).await.unwrap()
    }

    /// The first video track and its place.
    fn video_of(index: &Index) -> (usize, &Result<CopyableVideo, NotCopyable>) {
        let mut tracks = index.tracks.iter().enumerate();
        let found = tracks.find_map(|(at, track)| match &track.content {
            Content::Video(video) => Some((at, video)),
            _ => None,
        });
        found.unwrap()
    }

    async fn copyable(file: &Path) -> CopyableVideo {
        video_of(&index(file).await.unwrap())
            .1
            .clone()
            .unwrap_or_else(|why| panic!("{}: {why}", file.display()))
    }

    async fn why_not(file: &Path) -> String {
        video_of(&index(file).await.unwrap()).1.clone().unwrap_err().to_string()
    }

    fn agrees(name: &str, video: &CopyableVideo, packets: &[Packet]) {
        assert_eq!(video.samples as usize, packets.len(), "{name}");
        assert_eq!(video.bytes, packets.iter().map(|packet| packet.size).sum::<u64>(), "{name}");
        let last = packets.iter().max_by_key(|packet| packet.pts).unwrap();
        // FFmpeg makes durations up where frames are not stored in the order in which they are shown.
        assert!(video.end > last.pts, "{name}");
        let mut expected = Vec::new();
        for (at, packet) in packets.iter().enumerate().filter(|(_, packet)| packet.key) {
            let before = packets[..at].iter().map(|packet| packet.pts).max();
            let closed = before.is_none_or(|before| before < packet.pts)
                && packets[at + 1..].iter().all(|later| later.pts > packet.pts);
            if closed && at > 0 {
                let shown_before =
                    packets.iter().map(|packet| packet.pts).filter(|pts| *pts < packet.pts).max();
                assert_eq!(before, shown_before, "{name}");
            }
            let bytes_before = packets[..at].iter().map(|packet| packet.size).sum::<u64>();
            expected.push((packet.pts, before.unwrap_or(packet.pts), closed, bytes_before));
        }
        let found: Vec<_> =
            video.keyframes.iter().map(|key| (key.at, key.before, key.closed, key.bytes_before)).collect();
        assert_eq!(found, expected, "{name}");
    }

    const SOURCE: &str = "-f lavfi -i testsrc2=size=64x64:rate=25:duration=6";

    #[tokio::test]
    async fn times_and_keyframes_are_those_that_ffprobe_gives() {
        let folder = tempfile::tempdir().unwrap();
        let x264 = "-c:v libx264 -pix_fmt yuv420p";
        for (name, options) in [
            ("closed.mp4", "-preset ultrafast -bf 0 -g 50"),
            ("b_frames.mp4", "-preset fast -g 48"),
            ("b_frames_in_front.mp4", "-preset fast -g 48 -movflags +faststart"),
            ("negative_offsets.mp4", "-preset fast -g 48 -movflags +negative_cts_offsets"),
            ("no_edit_list.mp4", "-preset fast -g 48 -use_editlist 0"),
            ("quicktime.mov", "-preset fast -g 48"),
            ("all_keyframes.mp4", "-preset fast -g 1"),
            // With an edit list FFmpeg 7 makes it too short for the last frame.
            (
                "variable.mp4",
                "-preset fast -g 40 -vf setpts=PTS+0.01*mod(N\\,3)/TB -fps_mode vfr -use_editlist 0",
            ),
            ("late.mp4", "-preset fast -g 40 -output_ts_offset 1.5"),
            ("one_frame.mp4", "-preset fast -frames:v 1"),
            ("coarse_clock.mp4", "-preset fast -video_track_timescale 25"),
        ] {
            let file = clip(&folder, name, &format!("{SOURCE} {x264} {options}"));
            let video = copyable(&file).await;
            assert!(video.closed().count() >= video.keyframes.len().min(2), "{name}");
            agrees(name, &video, &packets(&file, 0));
        }
    }

    #[tokio::test]
    async fn sound_before_and_after_the_picture_moves_no_time() {
        let folder = tempfile::tempdir().unwrap();
        let picture = clip(&folder, "picture.mp4", &format!("{SOURCE} -c:v libx264 -preset fast -g 30"));
        let sound = clip(&folder, "sound.mp4", "-f lavfi -i sine=sample_rate=48000:duration=5 -c:a aac");
        let (picture, sound) = (picture.display(), sound.display());
        for (name, inputs, picture_start, primed_samples) in [
            ("both.mp4", format!("-i {sound} -i {picture}"), 0.0, 1024),
            ("picture_late.mp4", format!("-i {sound} -itsoffset 0.5 -i {picture}"), 0.5, 1024),
            // The priming is heard here: the file is made so.
            ("sound_late.mp4", format!("-itsoffset 0.5 -i {sound} -i {picture}"), 0.0, 0),
        ] {
            let file = clip(&folder, name, &format!("{inputs} -map 0 -map 1 -c copy"));
            let index = index(&file).await.unwrap();
            let (at, video) = video_of(&index);
            let video = video.as_ref().unwrap();
            agrees(name, video, &packets(&file, at));
            assert!((video.seconds(video.start()) - picture_start).abs() < 1e-3, "{name}: {video:?}");
            let Content::Audio(Ok(audio)) = &index.track(1).unwrap().content else { panic!("{index:?}") };
            assert_eq!((audio.channels, audio.sample_rate), (1, 48_000), "{name}");
            assert_eq!(audio.primed_samples, primed_samples, "{name}");
            let of_audio = ["-v", "error", "-select_streams", "a", "-of", "csv=p=0", "-show_entries"];
            let ask = |entries| {
                let arguments = [&of_audio[..], &[entries, file.to_str().unwrap()]].concat();
                run("ffprobe", &arguments).trim().parse::<f64>().unwrap()
            };
            let start = ask("stream=start_time");
            assert!((audio.start_seconds - start).abs() < 1e-3, "{name}: {audio:?}");
            let end = start + ask("stream=duration");
            assert!((audio.end_seconds - end).abs() < 1e-3, "{name}: {end} {audio:?}");
        }
    }

    #[tokio::test]
    async fn keyframes_of_open_gops_are_no_boundaries() {
        let folder = tempfile::tempdir().unwrap();
        let options = "-c:v libx264 -preset fast -g 24 -keyint_min 24 -sc_threshold 0";
        let open = clip(
            &folder,
            "open.mp4",
            &format!("{SOURCE} {options} -x264-params open-gop=1:b-adapt=0:bframes=3"),
        );
        let packets = packets(&open, 0);
        assert!(packets.iter().filter(|packet| packet.key).count() > 2, "{packets:?}");
        let video = copyable(&open).await;
        agrees("open.mp4", &video, &packets);
        assert_eq!(video.closed().count(), 1, "{video:?}");
        assert_eq!(video.keyframe_times().count(), 1);
    }

    #[tokio::test]
    async fn keyframes_that_are_no_refresh_are_found_out() {
        let folder = tempfile::tempdir().unwrap();
        let options = "-c:v libx264 -preset fast -bf 0 -g 25 -x264-params intra-refresh=1";
        let file = clip(&folder, "refresh.mp4", &format!("{SOURCE} {options}"));
        let packets = packets(&file, 0);
        assert!(packets.iter().filter(|packet| packet.key).count() > 1, "{packets:?}");
        assert_eq!(why_not(&file).await, "its keyframes need frames before them");
    }

    #[tokio::test]
    async fn cuts_by_edit_lists_are_not_copied() {
        let folder = tempfile::tempdir().unwrap();
        let options = "-c:v libx264 -preset fast -g 50";
        let whole = clip(&folder, "whole.mp4", &format!("{SOURCE} {options}"));
        let whole = whole.to_str().unwrap();
        let cut = clip(&folder, "cut.mp4", &format!("-ss 1 -i {whole} -c copy"));
        assert_eq!(why_not(&cut).await, "its edit list leaves out frames at the start");
        let at_keyframe = clip(&folder, "at_keyframe.mp4", &format!("-ss 2 -i {whole} -c copy"));
        let video = copyable(&at_keyframe).await;
        agrees("at_keyframe.mp4", &video, &packets(&at_keyframe, 0));
    }

    #[tokio::test]
    async fn other_files_say_why_they_are_encoded() {
        let folder = tempfile::tempdir().unwrap();
        for (name, options, expected) in [
            ("high10.mp4", "-c:v libx264 -preset fast -pix_fmt yuv420p10le", "its H.264 profile is 110"),
            ("high422.mp4", "-c:v libx264 -preset fast -pix_fmt yuv422p", "its H.264 profile is 122"),
            ("mpeg4.mp4", "-c:v mpeg4", "it is mp4v and not avc1"),
            ("frag.mp4", "-c:v libx264 -movflags +frag_keyframe+empty_moov", "the file is fragmented"),
        ] {
            let file = clip(&folder, name, &format!("{SOURCE} {options}"));
            assert_eq!(why_not(&file).await, expected, "{name}");
        }
        let key = "00112233445566778899aabbccddeeff";
        let encrypted = clip(
            &folder,
            "encrypted.mp4",
            &format!(
                "{SOURCE} -c:v libx264 -encryption_scheme cenc-aes-ctr -encryption_key {key} -encryption_kid {key}"
            ),
        );
        let index_of_encrypted = index(&encrypted).await.unwrap();
        assert!(index_of_encrypted.tracks[0].encrypted);
        assert_eq!(why_not(&encrypted).await, "it is encrypted");

        let matroska = clip(&folder, "matroska.mkv", &format!("{SOURCE} -c:v libx264"));
        assert_eq!(index(&matroska).await, None);
        assert_eq!(index(&folder.path().join("missing.mp4")).await, None);
        let whole = clip(&folder, "whole.mp4", &format!("{SOURCE} -c:v libx264 -movflags +faststart"));
        let bytes = std::fs::read(&whole).unwrap();
        std::fs::write(&whole, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(why_not(&whole).await, "the file ends before its samples do");
    }

    /// An object behind the loopback server, and the ranges that were read.
    async fn served(bytes: Vec<u8>, denied_from: u64) -> (Input, Arc<Mutex<Vec<(u64, u64)>>>) {
        let size = bytes.len() as i64;
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let seen = ranges.clone();
        let head = mock!(Client::head_object)
            .then_output(move || HeadObjectOutput::builder().e_tag("\"abc\"").content_length(size).build());
        let get = mock!(Client::get_object).then_compute_response(move |request| {
            let range = request.range().unwrap().strip_prefix("bytes=").unwrap();
            let (start, last) = range.split_once('-').unwrap();
            let (start, end): (u64, u64) = (start.parse().unwrap(), last.parse::<u64>().unwrap() + 1);
            seen.lock().unwrap().push((start, end));
            if start >= denied_from {
                let meta = ErrorMetadata::builder().code("AccessDenied").message("not yours").build();
                return MockResponse::Error(GetObjectError::generic(meta));
            }
            let body = ByteStream::from(bytes[start as usize..end as usize].to_vec());
            let range = format!("bytes {start}-{last}/{size}");
            MockResponse::Output(GetObjectOutput::builder().content_range(range).body(body).build())
        });
        let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&head, &get]);
        let object = PinnedObject::of_tests(client).await;
        (Input::Served(ServedObject::start(object).await.unwrap()), ranges)
    }

    #[tokio::test]
    async fn an_objects_index_takes_few_reads_wherever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let options = "-c:v libx264 -preset ultrafast -g 50";
        let noise = "-f lavfi -i testsrc2=size=320x240:rate=25:duration=6";
        for (flags, most) in [("+faststart", 1), ("-faststart", 3)] {
            let file = clip(&folder, "clip.mp4", &format!("{noise} {options} -movflags {flags}"));
            let bytes = std::fs::read(&file).unwrap();
            assert!(bytes.len() as u64 > 2 * FIRST_READ);
            let (input, ranges) = served(bytes, u64::MAX).await;
            let read = Index::read(&input).await.unwrap();
            assert_eq!(read, index(&file).await);
            let keyframes = video_of(&read.unwrap()).1.as_ref().unwrap().keyframes.len();
            let ranges = ranges.lock().unwrap();
            assert!(ranges.len() <= most + keyframes, "{ranges:?}");
        }
    }

    #[tokio::test]
    async fn an_object_that_cannot_be_read_is_an_error_and_not_an_odd_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = clip(&folder, "clip.mp4", &format!("{SOURCE} -c:v libx264"));
        let mut bytes = std::fs::read(file).unwrap();
        // A box that puts the rest behind the first read.
        let free = wrap(b"free", &[vec![0; FIRST_READ as usize]]);
        bytes.splice(0..0, free);
        let (input, _) = served(bytes, 1).await;
        let error = Index::read(&input).await.unwrap_err();
        assert_eq!(error.exit(), vidstreamx_job::Exit::Misconfigured, "{error}");
    }

    /// Id and start in seconds of what ffprobe lists.
    fn streams(file: &Path) -> Vec<(u32, f64)> {
        let arguments = ["-v", "error", "-show_entries", "stream=id,start_time", "-of", "csv=p=0:nk=1"];
        let answer = run("ffprobe", &[&arguments[..], &[file.to_str().unwrap()]].concat());
        let lines = answer.lines().map(|line| line.trim_end_matches(',').split_once(','));
        lines
            .flatten()
            .map(|(id, start)| {
                let id = id.strip_prefix("0x").map_or(0, |id| u32::from_str_radix(id, 16).unwrap());
                (id, start.parse().unwrap_or(0.0))
            })
            .collect()
    }

    /// The files of the corpus, if it is there.
    fn corpus() -> Option<Vec<PathBuf>> {
        let folder = std::env::var_os("VIDSTREAMX_CORPUS")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"), PathBuf::from);
        let files = std::fs::read_dir(folder).ok()?.map(|entry| entry.unwrap().path());
        Some(files.filter(|file| file.extension().is_some_and(|ext| ext != "tsv" && ext != "md")).collect())
    }

    #[tokio::test]
    async fn all_that_is_copyable_in_the_corpus_is_as_ffprobe_says() {
        let folder = tempfile::tempdir().unwrap();
        let files =
            corpus().unwrap_or_else(|| vec![clip(&folder, "clip.mp4", &format!("{SOURCE} -c:v libx264"))]);
        let mut checked = 0;
        for file in files {
            let Some(index) = index(&file).await else { continue };
            let ids = index.tracks.iter().map(|track| track.id).collect::<Vec<_>>();
            let streams: Vec<_> = streams(&file).into_iter().filter(|(id, _)| *id != 0).collect();
            assert_eq!(ids, streams.iter().map(|(id, _)| *id).collect::<Vec<_>>(), "{}", file.display());
            for (at, track) in index.tracks.iter().enumerate() {
                let start = match &track.content {
                    Content::Video(Ok(video)) => {
                        agrees(&file.display().to_string(), video, &packets(&file, at));
                        video.seconds(video.start())
                    }
                    Content::Audio(Ok(audio)) => audio.start_seconds,
                    _ => continue,
                };
                assert!(
                    (start - streams[at].1).abs() < 1e-3,
                    "{}: {start} {}",
                    file.display(),
                    streams[at].1
                );
                checked += 1;
            }
        }
        assert!(checked > 0);
    }

    fn wrap(kind: &[u8; 4], parts: &[Vec<u8>]) -> Vec<u8> {
        let body = parts.concat();
        let size = u32::try_from(body.len() + 8).unwrap();
        [&size.to_be_bytes()[..], kind, &body].concat()
    }

    fn atom(atom: &impl Encode) -> Vec<u8> {
        let mut bytes = Vec::new();
        atom.encode(&mut bytes).unwrap();
        bytes
    }

    /// One video track of 25 frames per second on a clock of 100 ticks, stored in a file of 1000 bytes.
    #[derive(Debug, Clone)]
    struct Made {
        offsets: Option<Vec<i64>>,
        frames: u32,
        keyframes: Option<Vec<u32>>,
        edits: Vec<(u64, Option<u64>)>,
        chunk: u64,
        size: u32,
        times: Vec<(u32, u32)>,
    }

    impl Made {
        /// Frames of one byte.
        fn new(frames: u32) -> Self {
            Self {
                offsets: None,
                frames,
                keyframes: Some(vec![1]),
                edits: Vec::new(),
                chunk: 100,
                size: 1,
                times: vec![(frames, 4)],
            }
        }

        fn moov(&self) -> Vec<u8> {
            let avcc = Avcc { ext: None, ..Avcc::new(&[0x67, 77, 0, 31], &[0x68]).unwrap() };
            let entry = wrap(b"avc1", &[vec![0; 78], atom(&avcc)]);
            let one = 1_u32.to_be_bytes().to_vec();
            let entries = self.times.iter().map(|(sample_count, sample_delta)| SttsEntry {
                sample_count: *sample_count,
                sample_delta: *sample_delta,
            });
            let stsc =
                StscEntry { first_chunk: 1, samples_per_chunk: self.frames, sample_description_index: 1 };
            let mut stbl = vec![
                wrap(b"stsd", &[vec![0; 4], one, entry]),
                atom(&Stts { entries: entries.collect() }),
                atom(&Stsc { entries: vec![stsc] }),
                atom(&Stsz { samples: StszSamples::Identical { count: self.frames, size: self.size } }),
                atom(&Co64 { entries: vec![self.chunk] }),
            ];
            if let Some(offsets) = &self.offsets {
                let entry = |offset: &i64| CttsEntry { sample_count: 1, sample_offset: *offset };
                stbl.push(atom(&Ctts { entries: offsets.iter().map(entry).collect() }));
            }
            if let Some(keyframes) = &self.keyframes {
                stbl.push(atom(&Stss { entries: keyframes.clone() }));
            }
            let edits = self.edits.iter().map(|(segment_duration, media_time)| ElstEntry {
                segment_duration: *segment_duration,
                media_time: *media_time,
                media_rate: 1.into(),
            });
            let hdlr = mp4_atom::Hdlr { handler: b"vide".into(), name: String::new() };
            let mdhd = Mdhd { timescale: 100, language: "und".into(), ..Default::default() };
            let minf = wrap(b"minf", &[wrap(b"stbl", &stbl)]);
            let trak = [
                atom(&Tkhd { track_id: 7, ..Default::default() }),
                wrap(b"edts", &[atom(&Elst { entries: edits.collect() })]),
                wrap(b"mdia", &[atom(&mdhd), atom(&hdlr), minf]),
            ];
            let mvhd = Mvhd { timescale: 1000, ..Default::default() };
            [atom(&mvhd), wrap(b"trak", &trak)].concat()
        }

        fn video(&self) -> Result<CopyableVideo, String> {
            let index = Index::of_moov(&self.moov(), 1000).unwrap();
            let Content::Video(video) = index.track(7).unwrap().content.clone() else { panic!("{index:?}") };
            video.map_err(|why| why.to_string())
        }

        fn times(&self) -> Vec<(i64, i64, bool)> {
            self.video().unwrap().keyframes.iter().map(|key| (key.at, key.before, key.closed)).collect()
        }
    }

    #[test]
    fn a_keyframe_is_closed_if_frames_on_both_sides_stay_there() {
        // Stored I P B I P B, shown I B P I B P.
        let closed =
            Made { offsets: Some(vec![4, 8, 0, 4, 8, 0]), keyframes: Some(vec![1, 4]), ..Made::new(6) };
        assert_eq!(closed.times(), [(4, 4, true), (16, 12, true)]);
        assert_eq!(closed.video().unwrap().end, 28);
        // Stored I P I B P P: the B is shown before the second I.
        let open =
            Made { offsets: Some(vec![0, 0, 4, -4, 0, 0]), keyframes: Some(vec![1, 3]), ..Made::new(6) };
        assert_eq!(open.times(), [(0, 0, true), (12, 4, false)]);
        // Stored I P I P: the first P is shown after the second I.
        let across = Made { offsets: Some(vec![0, 8, 0, 4]), keyframes: Some(vec![1, 3]), ..Made::new(4) };
        assert_eq!(across.times(), [(0, 0, true), (8, 12, false)]);
    }

    #[test]
    fn quicktimes_composition_offsets_are_signed_whatever_their_version() {
        // Stored I P B, shown I B P.
        let minus_four = (1 << 32) - 4;
        let made =
            Made { offsets: Some(vec![0, 4, minus_four]), keyframes: Some(vec![1, 3]), ..Made::new(3) };
        assert_eq!(made.times(), [(0, 0, true), (4, 8, false)]);
    }

    #[test]
    fn a_last_frame_without_a_length_is_as_long_as_others() {
        assert_eq!(Made { times: vec![(2, 4), (1, 0)], ..Made::new(3) }.video().unwrap().end, 12);
        assert_eq!(Made { times: vec![(1, 0)], ..Made::new(1) }.video().unwrap().end, 1);
    }

    #[test]
    fn without_a_list_of_keyframes_every_frame_is_one() {
        assert_eq!(Made { keyframes: None, ..Made::new(2) }.times(), [(0, 0, true), (4, 0, true)]);
    }

    #[test]
    fn edit_lists_pause_and_shift() {
        let made = |edits: &[(u64, Option<u64>)]| Made {
            offsets: Some(vec![8; 3]),
            keyframes: Some(vec![1, 3]),
            edits: edits.to_vec(),
            ..Made::new(3)
        };
        let starts = |edits: &[_]| made(edits).times().iter().map(|times| times.0).collect::<Vec<_>>();
        assert_eq!(starts(&[]), [8, 16]);
        assert_eq!(starts(&[(120, Some(8))]), [0, 8]);
        assert_eq!(starts(&[(120, Some(8))]), starts(&[(200, Some(4))]), "as FFmpeg does");
        assert_eq!(starts(&[(500, None), (120, Some(8))]), [50, 58]);
        for (edits, expected) in [
            (&[(120, Some(9))][..], "its edit list leaves out frames at the start"),
            (&[(80, Some(8))], "its edit list leaves out frames at the end"),
            (&[(0, Some(8))], "its edit list leaves out frames at the end"),
            (&[(120, None)], "its edit list has several parts"),
            (&[(40, Some(8)), (80, Some(12))], "its edit list has several parts"),
            (&[(120, Some(u64::MAX >> 1))], "its edit list shows nothing"),
        ] {
            assert_eq!(made(edits).video().unwrap_err(), expected, "{edits:?}");
        }
    }

    #[test]
    fn tables_that_contradict_each_other_are_not_believed() {
        let good = Made { keyframes: Some(vec![1, 3]), ..Made::new(5) };
        assert_eq!(good.video().unwrap().bytes, 5);
        for (made, expected) in [
            (Made { chunk: 996, ..good.clone() }, "the file ends before its samples do"),
            (Made { chunk: u64::MAX - 1, ..good.clone() }, "the file ends before its samples do"),
            (
                Made { keyframes: Some(vec![2, 3]), ..good.clone() },
                "its first frame is not a keyframe of its own",
            ),
            (
                Made { keyframes: Some(vec![]), ..good.clone() },
                "its first frame is not a keyframe of its own",
            ),
            (Made { keyframes: Some(vec![1, 1]), ..good.clone() }, "its keyframes are not in order"),
            (
                Made { times: vec![(4, 4)], ..good.clone() },
                "the number of its times is not that of its samples",
            ),
            (Made { times: vec![(3, 0), (2, 4)], ..good.clone() }, "some of its frames take no time"),
            (Made { times: vec![(5, u32::MAX)], ..good.clone() }, "its times go backwards"),
            (
                Made { offsets: Some(vec![6, 0, 0, 0, 0]), ..good.clone() },
                "its first frame is not a keyframe of its own",
            ),
            (
                Made { offsets: Some(vec![0, 8, 4, 0, 0]), ..good.clone() },
                "two of its frames are shown at the same time",
            ),
            (Made::new(0), "it has 0 samples"),
            (Made::new(u32::MAX), "it has 4294967295 samples"),
        ] {
            let made = Made { size: 1, ..made };
            assert_eq!(made.video().unwrap_err(), expected, "{made:?}");
        }
    }

    #[test]
    fn one_track_of_pictures_is_copyable_and_ids_are_unique() {
        let (moov, other) = (Made::new(3).moov(), Made::new(2).moov());
        let trak = boxes(&other).find(|(kind, _)| kind == b"trak").unwrap().1.to_vec();
        let index = Index::of_moov(&[moov, wrap(b"trak", &[trak])].concat(), 1000).unwrap();
        assert!(index.tracks[0].is_copyable_video());
        assert_eq!(index.tracks[1].content, Content::Video(why("another track of pictures comes before it")));
        assert_eq!(index.track(7), None);
    }

    #[test]
    fn samples_of_all_tracks_together_are_bounded() {
        let track = Made::new(MOST_SAMPLES).moov();
        let trak = wrap(b"trak", &[boxes(&track).find(|(kind, _)| kind == b"trak").unwrap().1.to_vec()]);
        let index = Index::of_moov(&[track, trak.repeat(9)].concat(), 1000).unwrap();
        let reasons = index.tracks.iter().filter(|track| {
            matches!(&track.content, Content::Video(Err(why)) if why.0 == "the file has too many samples")
        });
        assert_eq!((index.tracks.len(), reasons.count()), (10, 6));
    }

    #[test]
    fn the_peak_is_over_two_seconds_and_the_average_over_all() {
        // 2 s of 50 bytes, then 1 s and 1 s of 25 bytes each, then 0.4 s of 10.
        let made = Made { keyframes: Some(vec![1, 51, 76, 101]), ..Made::new(110) };
        let video = made.video().unwrap();
        assert_eq!((video.average_bitrate(), video.peak_bitrate()), (200, 200));
        let half_as_fast = Made { times: vec![(50, 4), (60, 8)], ..made };
        let video = half_as_fast.video().unwrap();
        assert_eq!(video.peak_bitrate(), 200);
        assert_eq!(video.average_bitrate(), 129);
        // Shorter than two seconds.
        assert_eq!(Made::new(25).video().unwrap().peak_bitrate(), 200);
    }

    #[test]
    fn parameter_sets_are_told_apart_by_their_numbers() {
        let avcc = |sps: &[u8], pps: &[u8]| Avcc { length_size: 4, ..Avcc::new(sps, pps).unwrap() };
        let sps = [0x67, 0x64, 0x00, 0x28, 0xac, 0xd9];
        // As x264 has it, by default and with the number 31.
        assert!(accepts_encoded_prefix(&avcc(&sps, &[0x68, 0xeb, 0xe3])));
        assert!(!accepts_encoded_prefix(&avcc(&sps, &[0x68, 0x04, 0x1f])));
        assert!(!accepts_encoded_prefix(&avcc(&[0x67, 0x64, 0x00, 0x28, 0x04, 0x1f], &[0x68, 0xeb, 0xe3])));
        assert!(!accepts_encoded_prefix(&avcc(&sps, &[0x68])), "broken off");
        let mut full = avcc(&sps, &[0x68, 0xeb, 0xe3]);
        full.sequence_parameter_sets = vec![sps.to_vec(); 31];
        assert!(!accepts_encoded_prefix(&full), "no room");
        assert!(!accepts_encoded_prefix(&Avcc { length_size: 2, ..avcc(&sps, &[0x68, 0xeb, 0xe3]) }));
        assert_eq!(
            [[0x80, 0], [0x40, 0], [0x60, 0], [0x20, 0], [0x04, 0x00], [0, 0]].map(|code| ue(&code, 0)),
            [Some(0), Some(1), Some(2), Some(3), Some(31), None]
        );
    }

    #[test]
    fn only_instantaneous_refreshes_count() {
        let nal = |header: u8, length: usize| {
            [&u32::try_from(length).unwrap().to_be_bytes()[..], &[header], &vec![0; length - 1]].concat()
        };
        let (settings, refresh, slice) = (nal(6, 700), nal(0x65, 9), nal(0x41, 9));
        assert!(refreshes(&[settings.clone(), refresh.clone()].concat(), 4));
        assert!(refreshes(&refresh[..5], 4));
        for other in
            [[settings.clone(), slice, refresh].concat(), settings[..300].to_vec(), vec![], vec![0; 64]]
        {
            assert!(!refreshes(&other, 4));
        }
    }

    #[test]
    fn audio_specific_configs() {
        assert_eq!(aac_lc(&[0x11, 0x90]), Ok((2, 48_000)));
        assert_eq!(aac_lc(&[0x12, 0x08, 0x56, 0xe5, 0x00]), Ok((1, 44_100)), "FFmpeg's own");
        for (config, expected) in [
            (&[0x13, 0x90, 0x56, 0xe5, 0xa0][..], "its AAC is of the HE kind"),
            (&[0x2b, 0x92, 0x08, 0x00], "its AAC is not of the LC kind"),
            (&[0x11, 0x80], "its channels are in an unusual order"),
            (&[0x17, 0x90], "its sample rate is unusual"),
            (&[0x11, 0x94], "its AAC is unusual"),
            (&[], "its AAC is not of the LC kind"),
        ] {
            assert_eq!(aac_lc(config).unwrap_err().to_string(), expected, "{config:x?}");
        }
    }

    #[test]
    fn boxes_nested_without_end_are_not_followed() {
        for kind in [b"moov", b"trak", b"udta", b"meta"] {
            let nested = (0..100_000).fold(Vec::new(), |inner, _| {
                // Built from the inside would take quadratic time: sizes do not have to fit.
                let mut outer: Vec<u8> = inner;
                outer.extend_from_slice(&[0, 0, 0, 0]);
                outer.extend_from_slice(kind);
                outer
            });
            assert!(Index::of_moov(&[Made::new(3).moov(), nested].concat(), 1000).is_some());
        }
        // Descriptors in descriptors.
        let esds = [0x03, 0x80, 0x80, 0x80, 0x7f, 0, 0, 0].repeat(1 << 20);
        let entry = wrap(b"mp4a", &[vec![0; 28], wrap(b"esds", &[vec![0; 4], esds])]);
        let movie = Movie { timescale: 1, fragmented: false, priming_tag: false, file_size: 1 };
        assert_eq!(
            audio(&entry, || why("no tables"), &movie).unwrap_err().to_string(),
            "its description is too long"
        );
    }

    fn made() -> impl Strategy<Value = Made> {
        (1_u32..40).prop_flat_map(|frames| {
            let offsets = proptest::option::of(proptest::collection::vec(-2_i64..6, frames as usize));
            let keyframes = proptest::option::of(proptest::collection::btree_set(1..=frames, 1..6));
            (offsets, keyframes, Just(frames)).prop_map(|(offsets, keyframes, frames)| Made {
                offsets: offsets.map(|offsets| offsets.iter().map(|offset| offset * 4).collect()),
                keyframes: keyframes.map(|mut keyframes| {
                    keyframes.insert(1);
                    keyframes.into_iter().collect()
                }),
                ..Made::new(frames)
            })
        })
    }

    /// A real file with sound, to be damaged, up to the end of its `moov`.
    static REAL: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        let sound = "-f lavfi -i sine=sample_rate=48000:duration=5";
        let file = clip(&folder, "real.mp4", &format!("{SOURCE} {sound} -c:v libx264 -c:a aac -g 30"));
        let bytes = std::fs::read(file).unwrap();
        let (_, moov) = boxes(&bytes).find(|(kind, _)| kind == b"moov").unwrap();
        moov.to_vec()
    });

    proptest! {
        #[test]
        fn no_damage_makes_it_panic(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut moov = REAL.clone();
            for (at, byte) in changes {
                let at = at.index(moov.len());
                moov[at] = byte;
            }
            let _ = Index::of_moov(&moov, u64::MAX);
        }

        #[test]
        fn closed_keyframes_divide_the_frames(made in made()) {
            if let Ok(video) = made.video() {
                let offsets = made.offsets.clone().unwrap_or_else(|| vec![0; made.frames as usize]);
                let shown: Vec<_> = (0..).step_by(4).zip(&offsets).map(|(at, offset)| at + offset).collect();
                for keyframe in &video.keyframes {
                    let at = keyframe.bytes_before as usize;
                    prop_assert_eq!(keyframe.at, shown[at]);
                    let divides = shown[..at].iter().all(|other| *other < shown[at])
                        && shown[at + 1..].iter().all(|other| *other > shown[at]);
                    prop_assert_eq!(keyframe.closed, divides);
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(
            mut moov in made().prop_map(|made| made.moov()),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<prop::sample::Index>(),
        ) {
            for (at, byte) in changes {
                let at = at.index(moov.len());
                moov[at] = byte;
            }
            let _ = Index::of_moov(&moov, 1000);
            moov.truncate(cut.index(moov.len()));
            let _ = Index::of_moov(&moov, u64::MAX);
        }

        #[test]
        fn no_rubbish_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Index::of_moov(&bytes, 1000);
            let _ = refreshes(&bytes, 4);
            let _ = aac_lc(&bytes);
        }
    }
}
