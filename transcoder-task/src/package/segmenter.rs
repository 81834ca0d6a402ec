//! Cuts FFmpeg's fragmented MP4 into an init segment and media segments as it comes.
//!
//! FFmpeg writes `ftyp moov (moof mdat)*` into a pipe; a fragment (`moof` and `mdat`) of video is everything
//! from one keyframe to the next, one of audio a quarter of a second. Fragments that begin in the same
//! interval between the plan's boundaries make one segment.
//!
//! Times are those of presentation. Decoding times of variable frame rates run ahead of them by as much as
//! the longest frame lasts, and players that line segments up by decoding times (hls.js does) would see gaps.
//! So such fragments get new decoding times: the presentation times in ascending order.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use mp4_atom::{
    Atom, Avc1, Codec, Decode, DecodeMaybe, Encode, FourCC, Header, Hvcc, Moof, Moov, Traf, TrunEntry,
};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::plan::segmentation::Boundaries;

/// No segment is larger: 10 seconds at 200 Mbit/s.
const LARGEST_SEGMENT: usize = 256 << 20;

/// Why FFmpeg's output cannot be cut.
#[derive(Debug, thiserror::Error)]
pub enum CmafError {
    /// The pipe broke.
    #[error("reading it failed: {0}")]
    Read(#[from] std::io::Error),
    /// A box that cannot be decoded.
    #[error("a box is malformed: {0}")]
    Box(#[from] mp4_atom::Error),
    /// Boxes in an order that FFmpeg never writes, or without what is needed.
    #[error("{0}")]
    Unexpected(&'static str),
    /// What was encoded, and what is to follow on it.
    #[error("what is encoded and the source's own picture make no rendition: {0}")]
    Splice(&'static str),
}

/// What comes out of a rendition, in order: one init segment, then media segments.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// `ftyp` and `moov`.
    Init(Init),
    /// One or more fragments.
    Segment(Segment),
}

/// The init segment.
#[derive(Debug, Clone, PartialEq)]
pub struct Init {
    /// As published.
    pub bytes: Bytes,
    /// RFC 6381: `avc1.64001f`, `hvc1.1.6.L93.90`, `av01.0.04M.08`, `mp4a.40.2`.
    pub codecs: String,
    /// Ticks per second of the segments' times.
    pub timescale: u32,
}

impl Init {
    /// This one with the parameter sets of `other`, too, for segments of both in one rendition of H.264.
    ///
    /// # Errors
    /// Splice, if they make no such rendition.
    pub fn with_parameter_sets_of(&self, other: &Self) -> Result<Self, CmafError> {
        if self.timescale != other.timescale {
            return Err(CmafError::Splice("their clocks differ"));
        }
        let (front, mut moov) = self.moov()?;
        let (_, mut theirs) = other.moov()?;
        let (ours, theirs) = (avc1(&mut moov)?, avc1(&mut theirs)?.clone());
        if (ours.visual.width, ours.visual.height) != (theirs.visual.width, theirs.visual.height) {
            return Err(CmafError::Splice("their sizes differ"));
        }
        let (ours, theirs) = (&mut ours.avcc, theirs.avcc);
        // What decodes the higher of Baseline, Main and High in this way decodes the lower ones.
        ours.avc_profile_indication = ours.avc_profile_indication.max(theirs.avc_profile_indication);
        ours.profile_compatibility &= theirs.profile_compatibility;
        ours.avc_level_indication = ours.avc_level_indication.max(theirs.avc_level_indication);
        ours.ext = ours.ext.take().or(theirs.ext);
        add(&mut ours.sequence_parameter_sets, theirs.sequence_parameter_sets);
        add(&mut ours.picture_parameter_sets, theirs.picture_parameter_sets);
        let mut bytes = front.to_vec();
        moov.encode(&mut bytes)?;
        let (_, codecs) = describe(moov)?;
        Ok(Self { bytes: bytes.into(), codecs, timescale: self.timescale })
    }

    /// What is in front of it, and `moov`.
    fn moov(&self) -> Result<(&[u8], Moov), CmafError> {
        let (mut rest, mut front) = (&*self.bytes, 0);
        while let Some(header) = Header::decode_maybe(&mut rest)? {
            let body = header.size.unwrap_or(rest.len());
            if header.kind == Moov::KIND {
                return Ok((&self.bytes[..front], Moov::decode(&mut &self.bytes[front..])?));
            }
            rest = rest.get(body..).ok_or(mp4_atom::Error::OutOfBounds)?;
            front = self.bytes.len() - rest.len();
        }
        Err(CmafError::Unexpected("an init segment without a track"))
    }
}

fn avc1(moov: &mut Moov) -> Result<&mut Avc1, CmafError> {
    let trak = moov.trak.first_mut().ok_or(CmafError::Unexpected("an init segment without a track"))?;
    match trak.mdia.minf.stbl.stsd.codecs.first_mut() {
        Some(Codec::Avc1(avc1)) => Ok(avc1),
        _ => Err(CmafError::Splice("one of them is not H.264")),
    }
}

fn add(sets: &mut Vec<Vec<u8>>, others: Vec<Vec<u8>>) {
    for other in others {
        if !sets.contains(&other) {
            sets.push(other);
        }
    }
}

/// A media segment.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// From 0.
    pub number: usize,
    /// Which interval between boundaries it fills.
    pub interval: i64,
    /// When its first sample is presented, in ticks.
    pub start_ticks: u64,
    /// From there to the end of its last sample, in ticks.
    pub duration_ticks: u64,
    /// How many samples (frames).
    pub samples: usize,
    /// From its beginning to the end of its first sample.
    pub key_bytes: u64,
    /// Whether its first sample is a sync sample.
    pub starts_with_keyframe: bool,
    /// Whether the pipe's end closed it: then it may not be all that there is up to the next boundary.
    pub is_last: bool,
    /// As published.
    pub bytes: Bytes,
}

/// The pieces of a rendition, as they are ready; the segments are numbered from `first_number` on.
pub fn outputs<R: AsyncRead + Unpin>(
    reader: R,
    boundaries: Boundaries,
    first_number: usize,
) -> impl Stream<Item = Result<Output, CmafError>> {
    stream::try_unfold(Segmenter::new(reader, boundaries, first_number), |mut cutter| async move {
        Ok(cutter.next().await?.map(|piece| (piece, cutter)))
    })
}

/// As [`pieces`], of a rendition of H.264 whose segments before the interval `until` come from `encoded
/// prefix`. One init segment serves both.
pub fn outputs_after_prefix<R: AsyncRead + Unpin>(
    encoded_prefix: R,
    until: i64,
    reader: R,
    boundaries: Boundaries,
    first_number: usize,
) -> impl Stream<Item = Result<Output, CmafError>> {
    let encoded_prefix = Segmenter::new(encoded_prefix, boundaries.clone(), first_number);
    let spliced = Spliced {
        encoded_prefix: Some(encoded_prefix),
        until,
        reached: None,
        rest: Segmenter::new(reader, boundaries, 0),
    };
    stream::try_unfold(spliced, |mut spliced| async move {
        Ok(spliced.next().await?.map(|piece| (piece, spliced)))
    })
}

struct Spliced<R> {
    /// Until its end.
    encoded_prefix: Option<Segmenter<R>>,
    until: i64,
    /// The last interval that the encoded prefix has filled.
    reached: Option<i64>,
    rest: Segmenter<R>,
}

impl<R: AsyncRead + Unpin> Spliced<R> {
    async fn next(&mut self) -> Result<Option<Output>, CmafError> {
        let Some(encoded_prefix) = &mut self.encoded_prefix else { return self.rest.next().await };
        match encoded_prefix.next().await? {
            Some(Output::Init(encoded_prefix)) => match self.rest.next().await? {
                Some(Output::Init(rest)) => {
                    Ok(Some(Output::Init(rest.with_parameter_sets_of(&encoded_prefix)?)))
                }
                _ => Err(CmafError::Unexpected("segments without an init segment")),
            },
            Some(Output::Segment(segment)) if !segment.is_last => {
                self.reached = Some(segment.interval);
                Ok(Some(Output::Segment(segment)))
            }
            None if self.reached == Some(self.until - 1) => {
                self.rest.next_number = encoded_prefix.next_number;
                self.encoded_prefix = None;
                self.rest.next().await
            }
            _ => Err(CmafError::Splice("the encoded part ends too early")),
        }
    }
}

struct Segmenter<R> {
    reader: R,
    boundaries: Boundaries,
    track: Option<Track>,
    open: Option<Open>,
    ready: VecDeque<Segment>,
    next_number: usize,
}

/// What the init segment says about the samples.
#[derive(Clone, Copy)]
struct Track {
    timescale: u32,
    is_sound: bool,
    defaults: Defaults,
}

/// Of samples whose fragment says nothing else.
#[derive(Clone, Copy, Default)]
struct Defaults {
    ticks: u32,
    size: u32,
    flags: u32,
}

/// The segment that is being put together.
struct Open {
    interval: i64,
    start_ticks: u64,
    end_ticks: u64,
    samples: usize,
    key_bytes: u64,
    starts_with_keyframe: bool,
    bytes: BytesMut,
}

struct Fragment {
    /// As published.
    moof: Bytes,
    start_ticks: u64,
    /// Of the sample that is shown last.
    last_ticks: u64,
    end_ticks: u64,
    samples: usize,
    first_size: u64,
    starts_with_keyframe: bool,
}

/// Set in a sample's flags if it is no sync sample (ISO/IEC 14496-12, 8.8.3.1).
const IS_NON_SYNC: u32 = 0x0001_0000;

impl<R: AsyncRead + Unpin> Segmenter<R> {
    fn new(reader: R, boundaries: Boundaries, first_number: usize) -> Self {
        Self {
            reader,
            boundaries,
            track: None,
            open: None,
            ready: VecDeque::new(),
            next_number: first_number,
        }
    }

    async fn next(&mut self) -> Result<Option<Output>, CmafError> {
        let mut pending = BytesMut::new();
        loop {
            if let Some(segment) = self.ready.pop_front() {
                return Ok(Some(Output::Segment(segment)));
            }
            let Some((kind, bytes)) = read_box(&mut self.reader).await? else { break };
            match &kind {
                b"ftyp" => pending.extend_from_slice(&bytes),
                b"moov" => {
                    pending.extend_from_slice(&bytes);
                    let (track, codecs) = describe(Moov::decode(&mut bytes.as_ref())?)?;
                    self.track = Some(track);
                    let init = Init { bytes: pending.freeze(), codecs, timescale: track.timescale };
                    return Ok(Some(Output::Init(init)));
                }
                b"moof" => {
                    let track =
                        self.track.ok_or(CmafError::Unexpected("a fragment before the init segment"))?;
                    let fragment = measure(bytes, track.defaults)?;
                    let Some(header) = read_header(&mut self.reader).await? else { break };
                    if &header.kind != b"mdat" {
                        return Err(CmafError::Unexpected("a fragment without its samples"));
                    }
                    self.add(&fragment, track, &header).await?;
                }
                // mfra and the like: of no use in segments.
                _ => {}
            }
        }
        self.close();
        Ok(self.ready.pop_front().map(|segment| Output::Segment(Segment { is_last: true, ..segment })))
    }

    /// Adds a fragment to the open segment, or to a new one if it begins behind a boundary. A fragment that
    /// reaches the next boundary closes its segment at once: waiting for the next fragment would hold every
    /// segment back by the length of another.
    async fn add(&mut self, fragment: &Fragment, track: Track, mdat: &BoxHeader) -> Result<(), CmafError> {
        let seconds = |ticks: u64| ticks as f64 / f64::from(track.timescale);
        let interval = if track.is_sound {
            // There are no keyframes to go by: the boundary goes to the fragment that is nearest to it.
            let middle = u64::midpoint(fragment.start_ticks, fragment.end_ticks);
            self.boundaries.audio_interval(seconds(middle))
        } else {
            self.boundaries.interval(seconds(fragment.start_ticks))
        };
        if let Some(open) = self.open.as_mut().filter(|open| open.interval != interval) {
            // Exactly, whatever the last frame is said to last.
            open.end_ticks = fragment.start_ticks.max(open.start_ticks);
            self.close();
        }
        let bytes = fragment.moof.len() + mdat.bytes.len() + mdat.body;
        let open = self.open.get_or_insert_with(|| Open {
            interval,
            start_ticks: fragment.start_ticks,
            end_ticks: fragment.end_ticks,
            samples: 0,
            key_bytes: fragment.moof.len() as u64 + BOX_HEADER + fragment.first_size,
            starts_with_keyframe: fragment.starts_with_keyframe,
            // Most segments of video are one fragment.
            bytes: BytesMut::with_capacity(bytes),
        });
        if open.bytes.len() + bytes > LARGEST_SEGMENT {
            return Err(CmafError::Unexpected("a segment that is too large"));
        }
        open.end_ticks = fragment.end_ticks;
        open.samples += fragment.samples;
        open.bytes.extend_from_slice(&fragment.moof);
        open.bytes.extend_from_slice(&mdat.bytes);
        let samples = open.bytes.len();
        open.bytes.resize(samples + mdat.body, 0);
        self.reader.read_exact(&mut open.bytes[samples..]).await?;
        if !track.is_sound && self.boundaries.filled(interval, seconds(fragment.last_ticks)) {
            self.close();
        }
        Ok(())
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        self.ready.push_back(Segment {
            number: self.next_number,
            interval: open.interval,
            start_ticks: open.start_ticks,
            duration_ticks: open.end_ticks.saturating_sub(open.start_ticks),
            samples: open.samples,
            key_bytes: open.key_bytes,
            starts_with_keyframe: open.starts_with_keyframe,
            is_last: false,
            bytes: open.bytes.freeze(),
        });
        self.next_number += 1;
    }
}

/// Of a box under 4 GB.
const BOX_HEADER: u64 = 8;

/// Everything of a box in front of its body.
struct BoxHeader {
    kind: [u8; 4],
    bytes: Vec<u8>,
    /// Size of the body.
    body: usize,
}

/// `None` at the end of the pipe.
async fn read_header<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Option<BoxHeader>, CmafError> {
    let mut bytes = vec![0; 8];
    if reader.read(&mut bytes[..1]).await? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut bytes[1..]).await?;
    let mut kind = [0; 4];
    kind.copy_from_slice(&bytes[4..]);
    if bytes.starts_with(&[0, 0, 0, 1]) {
        bytes.resize(16, 0);
        reader.read_exact(&mut bytes[8..]).await?;
    }
    let header = Header::decode_maybe(&mut bytes.as_slice())?;
    let size = header
        .and_then(|header| header.size)
        .filter(|size| *size <= LARGEST_SEGMENT)
        .ok_or(CmafError::Unexpected("a box without a sensible size"))?;
    Ok(Some(BoxHeader { kind, bytes, body: size }))
}

/// A whole box with its header, and its type; `None` at the end of the pipe.
async fn read_box<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Option<([u8; 4], Bytes)>, CmafError> {
    let Some(BoxHeader { kind, mut bytes, body }) = read_header(reader).await? else { return Ok(None) };
    let start = bytes.len();
    bytes.resize(start + body, 0);
    reader.read_exact(&mut bytes[start..]).await?;
    Ok(Some((kind, bytes.into())))
}

/// Reads a published init segment.
pub fn init(bytes: Bytes) -> Result<Init, CmafError> {
    let mut rest = bytes.as_ref();
    while let Some(header) = Header::decode_maybe(&mut rest)? {
        let body = header.size.filter(|size| *size <= rest.len());
        let body = body.ok_or(CmafError::Unexpected("an init segment that is cut off"))?;
        if header.kind == FourCC::new(b"moov") {
            let (track, codecs) = describe(Moov::decode_body(&mut &rest[..body])?)?;
            return Ok(Init { codecs, timescale: track.timescale, bytes });
        }
        rest = &rest[body..];
    }
    Err(CmafError::Unexpected("an init segment without a track"))
}

fn describe(moov: Moov) -> Result<(Track, String), CmafError> {
    let trak = moov.trak.first().ok_or(CmafError::Unexpected("an init segment without a track"))?;
    let trex = moov.mvex.as_ref().and_then(|mvex| mvex.trex.first());
    let track = Track {
        timescale: trak.mdia.mdhd.timescale.max(1),
        is_sound: <[u8; 4]>::from(trak.mdia.hdlr.handler) == *b"soun",
        defaults: trex.map_or(Defaults::default(), |trex| Defaults {
            ticks: trex.default_sample_duration,
            size: trex.default_sample_size,
            flags: trex.default_sample_flags,
        }),
    };
    let codecs = match trak.mdia.minf.stbl.stsd.codecs.first() {
        Some(Codec::Avc1(avc1)) => format!(
            "avc1.{:02x}{:02x}{:02x}",
            avc1.avcc.avc_profile_indication, avc1.avcc.profile_compatibility, avc1.avcc.avc_level_indication
        ),
        Some(Codec::Hvc1(hvc1)) => hevc_codecs(&hvc1.hvcc),
        Some(Codec::Av01(av01)) => {
            let config = &av01.av1c;
            format!(
                "av01.{}.{:02}{}.{:02}",
                config.seq_profile,
                config.seq_level_idx_0,
                if config.seq_tier_0 { 'H' } else { 'M' },
                match (config.high_bitdepth, config.twelve_bit) {
                    (false, _) => 8,
                    (true, false) => 10,
                    (true, true) => 12,
                }
            )
        }
        Some(Codec::Mp4a(mp4a)) => {
            let config = &mp4a.esds.es_desc.dec_config;
            let audio_object_type = config.dec_specific.as_ref().map_or(2, |specific| specific.profile);
            format!("mp4a.{:02x}.{audio_object_type}", config.object_type_indication)
        }
        _ => return Err(CmafError::Unexpected("an init segment of a codec that was not asked for")),
    };
    Ok((track, codecs))
}

/// ISO/IEC 14496-15, annex E.3: profile, compatibility with its bits reversed, tier and level, constraints
/// without trailing zero bytes.
fn hevc_codecs(hvcc: &Hvcc) -> String {
    let space = ["", "A", "B", "C"].get(usize::from(hvcc.general_profile_space)).copied().unwrap_or("");
    let compatibility = u32::from_be_bytes(hvcc.general_profile_compatibility_flags).reverse_bits();
    let constraints = &hvcc.general_constraint_indicator_flags;
    let used = constraints.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut text = format!(
        "hvc1.{space}{}.{compatibility:X}.{}{}",
        hvcc.general_profile_idc,
        if hvcc.general_tier_flag { 'H' } else { 'L' },
        hvcc.general_level_idc
    );
    for byte in constraints.iter().take(used) {
        text.push_str(&format!(".{byte:X}"));
    }
    text
}

/// Reads a fragment's times, and corrects them where decoding and presentation run apart.
fn measure(bytes: Bytes, track: Defaults) -> Result<Fragment, CmafError> {
    let mut moof = Moof::decode(&mut bytes.as_ref())?;
    let size = bytes.len();
    let [traf] = moof.traf.as_mut_slice() else {
        return Err(CmafError::Unexpected("a fragment of other than one track"));
    };
    let defaults = Defaults {
        ticks: traf.tfhd.default_sample_duration.unwrap_or(track.ticks),
        size: traf.tfhd.default_sample_size.unwrap_or(track.size),
        flags: traf.tfhd.default_sample_flags.unwrap_or(track.flags),
    };
    let start = traf.tfdt.as_ref().ok_or(CmafError::Unexpected("a fragment without a time"))?;
    let mut decoded = start.base_media_decode_time;
    let mut shown = Vec::new();
    let mut first = None;
    let mut last = (0, 0);
    for sample in traf.trun.iter().flat_map(|trun| trun.samples.iter()) {
        let ticks = sample.duration.unwrap_or(defaults.ticks);
        let at = decoded.saturating_add_signed(sample.cts.unwrap_or(0));
        shown.push(at);
        last = last.max((at, u64::from(ticks)));
        first.get_or_insert(sample);
        decoded += u64::from(ticks);
    }
    let Some(first) = first else { return Err(CmafError::Unexpected("a fragment without samples")) };
    let mut ascending = shown.clone();
    ascending.sort_unstable();
    let (last_ticks, last_duration) = last;
    let fragment = Fragment {
        start_ticks: ascending.first().copied().unwrap_or(0),
        last_ticks,
        end_ticks: last_ticks + last_duration,
        samples: shown.len(),
        first_size: first.size.unwrap_or(defaults.size).into(),
        starts_with_keyframe: first.flags.unwrap_or(defaults.flags) & IS_NON_SYNC == 0,
        moof: bytes,
    };
    if !retime(traf, defaults, &shown, &ascending, last_duration) {
        return Ok(fragment);
    }
    let mut retimed = Vec::with_capacity(size);
    moof.encode(&mut retimed)?;
    // Samples begin behind this box, whose size may have changed.
    let grown = retimed.len() as i64 - size as i64;
    for trun in moof.traf.iter_mut().flat_map(|traf| &mut traf.trun) {
        trun.data_offset = trun.data_offset.and_then(|offset| i32::try_from(i64::from(offset) + grown).ok());
    }
    retimed.clear();
    moof.encode(&mut retimed)?;
    Ok(Fragment { moof: retimed.into(), ..fragment })
}

/// Makes decoding times of the presentation times in ascending order; false if they are that already, or if
/// that cannot be said in this fragment.
fn retime(traf: &mut Traf, defaults: Defaults, shown: &[u64], ascending: &[u64], last_duration: u64) -> bool {
    let [trun] = traf.trun.as_mut_slice() else { return false };
    let Some(tfdt) = &mut traf.tfdt else { return false };
    let mut decoded = tfdt.base_media_decode_time;
    let mut right = true;
    let samples: Option<Vec<TrunEntry>> = trun
        .samples
        .iter()
        .enumerate()
        .map(|(index, sample)| {
            let at = ascending.get(index).copied()?;
            let next = ascending.get(index + 1).copied().unwrap_or(at + last_duration);
            right &= decoded == at;
            decoded += u64::from(sample.duration.unwrap_or(defaults.ticks));
            Some(TrunEntry {
                duration: Some(u32::try_from(next - at).ok()?),
                size: Some(sample.size.unwrap_or(defaults.size)),
                flags: Some(sample.flags.unwrap_or(defaults.flags)),
                cts: Some(shown.get(index)?.checked_signed_diff(at)?),
            })
        })
        .collect();
    let (false, Some(samples), Some(first)) = (right, samples, ascending.first()) else { return false };
    trun.samples = samples.into();
    tfdt.base_media_decode_time = *first;
    true
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use tokio::io::AsyncWriteExt;

    use super::*;

    const BOUNDARIES: Boundaries =
        Boundaries::Every { seconds: 1.0, tolerance_seconds: 0.02, frame_seconds: 0.04 };

    /// The interval that begins there: the first segments are short.
    const TWO_SECONDS: i64 = 5;

    async fn cut(arguments: &str) -> Vec<Output> {
        outputs(made(arguments).await.as_slice(), BOUNDARIES, 0).try_collect().await.unwrap()
    }

    async fn made(arguments: &str) -> Vec<u8> {
        let output = crate::process::command("ffmpeg")
            .args(["-loglevel", "error"])
            .args(arguments.split_whitespace())
            .args(["-f", "mp4", "pipe:1"])
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn split(outputs: Vec<Output>) -> (Init, Vec<Segment>) {
        let mut outputs = outputs.into_iter();
        let Some(Output::Init(init)) = outputs.next() else { panic!("no init segment") };
        let segments = outputs.map(|piece| match piece {
            Output::Segment(segment) => segment,
            Output::Init(_) => panic!("a second init segment"),
        });
        (init, segments.collect())
    }

    #[tokio::test]
    async fn video_is_cut_at_keyframes_and_loses_nothing() {
        let (init, segments) = split(
            cut("-f lavfi -i testsrc2=size=64x64:rate=25:duration=2.6 -c:v libx264 -g 25 -sc_threshold 0 \
                 -movflags +frag_keyframe+empty_moov+default_base_moof+negative_cts_offsets")
            .await,
        );
        assert!(init.codecs.starts_with("avc1.64"), "{}", init.codecs);
        let frame = u64::from(init.timescale) / 25;
        let timeline: Vec<_> = segments
            .iter()
            .map(|s| (s.number, s.start_ticks / frame, s.duration_ticks / frame, s.samples))
            .collect();
        assert_eq!(timeline, [(0, 0, 25, 25), (1, 25, 25, 25), (2, 50, 15, 15)]);
        for segment in &segments {
            assert!(segment.starts_with_keyframe);
            // What is left out are the other frames.
            let mdat = segment.bytes.windows(4).position(|four| four == b"mdat").unwrap() as u64 + 4;
            assert!(mdat < segment.key_bytes && segment.key_bytes < segment.bytes.len() as u64);
        }
    }

    /// Two seconds of black, then three of white that come from elsewhere.
    async fn lead_and_rest(of_the_lead: &str) -> (Vec<u8>, Vec<u8>) {
        let encoded = "-pix_fmt yuv420p -g 25 -sc_threshold 0 -video_track_timescale 25 \
                       -movflags +frag_keyframe+empty_moov+default_base_moof+negative_cts_offsets+frag_discont \
                       -avoid_negative_ts disabled -c:v";
        let encoded_prefix =
            format!("-f lavfi -i color=black:size=64x64:rate=25:duration=2 {encoded} {of_the_lead}");
        let rest = format!(
            "-f lavfi -i color=white:size=64x64:rate=25:duration=3 -vf setpts=PTS+2/TB {encoded} libx264 \
             -preset ultrafast"
        );
        tokio::join!(made(&encoded_prefix), made(&rest))
    }

    async fn joined(encoded_prefix: &[u8], until: i64, rest: &[u8]) -> Result<Vec<Output>, CmafError> {
        outputs_after_prefix(encoded_prefix, until, rest, BOUNDARIES, 0).try_collect().await
    }

    #[tokio::test]
    async fn what_is_encoded_and_what_is_copied_make_one_rendition() {
        let (encoded_prefix, rest) = lead_and_rest("libx264 -preset fast -x264-params sps-id=31").await;
        let (init, segments) = split(joined(&encoded_prefix, TWO_SECONDS, &rest).await.unwrap());
        // High, as the encoded prefix is; the rest is Baseline.
        assert!(init.codecs.starts_with("avc1.64"), "{}", init.codecs);
        let timeline: Vec<_> = segments.iter().map(|s| (s.number, s.start_ticks, s.samples)).collect();
        assert_eq!(timeline, [(0, 0, 25), (1, 25, 25), (2, 50, 25), (3, 75, 25), (4, 100, 25)]);
        for (segment, is_white) in segments.iter().zip([false, false, true, true, true]) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("alone.mp4");
            std::fs::write(&path, [&init.bytes[..], &segment.bytes].concat()).unwrap();
            let decode = format!("-xerror -i {} -f rawvideo -pix_fmt gray pipe:1", path.display());
            let output =
                crate::process::command("ffmpeg").args(decode.split_whitespace()).output().await.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(output.stdout.len(), 25 * 64 * 64);
            assert!(
                output.stdout.iter().all(|pixel| (*pixel > 128) == is_white),
                "segment {}",
                segment.number
            );
        }
        // An attempt that goes on behind the encoded prefix has the rest alone.
        let (alone, _) = split(outputs(rest.as_slice(), BOUNDARIES, 0).try_collect().await.unwrap());
        assert_ne!(alone, init);
        assert_eq!(alone.with_parameter_sets_of(&init).unwrap(), init);
    }

    #[tokio::test]
    async fn nothing_follows_on_an_encoded_part_that_is_not_whole() {
        let (encoded_prefix, rest) = lead_and_rest("libx264").await;
        for (encoded_prefix, until) in [
            (&encoded_prefix[..], 6),
            (&encoded_prefix[..], 4),
            (&encoded_prefix[..encoded_prefix.len() / 2], TWO_SECONDS),
        ] {
            joined(encoded_prefix, until, &rest).await.unwrap_err();
        }
        let (encoded_prefix, rest) = lead_and_rest("libx264 -s 32x32").await;
        assert!(matches!(
            joined(&encoded_prefix, TWO_SECONDS, &rest).await,
            Err(CmafError::Splice("their sizes differ"))
        ));
    }

    #[tokio::test]
    async fn variable_frame_rate_decodes_in_the_order_of_time() {
        // Frames last 40 ms and 1 s, and are reordered.
        let (init, segments) = split(
            cut("-f lavfi -i testsrc2=size=64x64:rate=25:duration=8 \
                 -vf select='lt(n,20)+not(mod(n,25))' -fps_mode vfr -enc_time_base 1:1000 \
                 -c:v libx264 -bf 3 -b_strategy 0 -g 1000 -video_track_timescale 1000 \
                 -movflags +frag_keyframe+empty_moov+default_base_moof+frag_discont+negative_cts_offsets \
                 -avoid_negative_ts disabled")
            .await,
        );
        assert_eq!((init.timescale, segments.len()), (1000, 1));
        let segment = &segments[0];
        assert_eq!((segment.start_ticks, segment.samples), (0, 27));
        let mut moof = segment.bytes.as_ref();
        let moof = Moof::decode(&mut moof).unwrap();
        let traf = &moof.traf[0];
        let mut decoded = traf.tfdt.as_ref().unwrap().base_media_decode_time;
        let mut shown = Vec::new();
        let mut all_decoded = Vec::new();
        for sample in traf.trun[0].samples.iter() {
            all_decoded.push(decoded);
            shown.push(decoded.checked_add_signed(sample.cts.unwrap()).unwrap());
            decoded += u64::from(sample.duration.unwrap());
        }
        assert_ne!(shown, all_decoded, "frames are reordered");
        shown.sort_unstable();
        assert_eq!(shown, all_decoded);
        let expected: Vec<u64> = (0..20).map(|n| n * 40).chain((1..8).map(|n| n * 1000)).collect();
        assert_eq!(shown, expected);
        // Samples are where the box says they are: it is whole, and decodes.
        let mut file = init.bytes.to_vec();
        file.extend(&segment.bytes);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("whole.mp4");
        std::fs::write(&path, file).unwrap();
        let output = crate::process::command("ffmpeg")
            .args(["-loglevel", "error", "-xerror", "-i"])
            .arg(&path)
            .args(["-fps_mode", "vfr", "-f", "framecrc", "-"])
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let frames =
            String::from_utf8(output.stdout).unwrap().lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(frames, 27);
    }

    #[tokio::test]
    async fn audio_fragments_are_grouped_by_the_boundaries() {
        let (init, segments) = split(
            cut("-f lavfi -i sine=sample_rate=48000:duration=3 -c:a aac -frag_duration 250000 \
                 -movflags +empty_moov+default_base_moof")
            .await,
        );
        assert_eq!(init.codecs, "mp4a.40.2");
        assert_eq!(segments.len(), 5);
        let mut expected_start = segments[0].start_ticks;
        for segment in &segments {
            assert_eq!(segment.start_ticks, expected_start);
            expected_start += segment.duration_ticks;
        }
    }

    #[tokio::test]
    async fn a_segment_is_there_as_soon_as_its_last_fragment_is() {
        let (mut writer, reader) = tokio::io::duplex(1 << 20);
        let output = crate::process::command("ffmpeg")
            .args(
                "-loglevel error -f lavfi -i testsrc2=size=64x64:rate=25:duration=2 -c:v libx264 -g 25"
                    .split(' '),
            )
            .args("-sc_threshold 0 -movflags +frag_keyframe+empty_moov+default_base_moof".split(' '))
            .args(["-f", "mp4", "pipe:1"])
            .output()
            .await
            .unwrap();
        let second_moof =
            output.stdout.windows(4).enumerate().filter(|(_, four)| four == b"moof").nth(1).unwrap().0;
        writer.write_all(&output.stdout[..second_moof - 4]).await.unwrap();
        // The pipe stays open, and nothing of the second segment is in it.
        let mut outputs = std::pin::pin!(outputs(reader, BOUNDARIES, 0));
        assert!(matches!(outputs.try_next().await, Ok(Some(Output::Init(_)))));
        let Ok(Some(Output::Segment(segment))) = outputs.try_next().await else { panic!("no segment") };
        assert_eq!((segment.number, segment.samples), (0, 25));
    }

    #[tokio::test]
    async fn rubbish_and_broken_pipes_are_errors() {
        for rubbish in [&b"rubbish rubbish rubbish"[..], &[0, 0, 0, 9], &[0, 0, 0, 0, b'm', b'o', b'o', b'f']]
        {
            let result: Result<Vec<_>, _> = outputs(rubbish, BOUNDARIES, 0).try_collect().await;
            assert!(result.is_err());
        }
    }
}
