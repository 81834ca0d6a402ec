//! Splits FFmpeg's fragmented MP4 into an init segment and media segments while it arrives.
//!
//! FFmpeg writes `ftyp moov (moof mdat)*` to a pipe. A video fragment (`moof` and `mdat`) spans the time from
//! one keyframe to the next; an audio fragment lasts a quarter of a second. Fragments that begin in the same
//! interval between the plan's boundaries become one segment.
//!
//! Segment times are presentation times. Decoding times of a variable frame rate may be early by the longest
//! frame duration, and players that align segments by decoding times (hls.js does) would see gaps. So such
//! fragments get new decoding times: the presentation times in ascending order.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use mp4_atom::{Decode, Encode, Moof, Traf, TrunEntry};
use tokio::io::{AsyncRead, AsyncReadExt};
use vidstreamx_isobmff::{
    BoxType,
    boxes::BoxHeader,
    fragment::{Sample, SampleDefaults, samples, track_fragment},
};

use crate::plan::segmentation::Boundaries;

use super::init_segment::{CmafError, Init, TrackHeader};

/// Largest segment in bytes: 10 seconds at 200 Mbit/s.
const LARGEST_SEGMENT: usize = 256 << 20;

/// An output of a segmenter: the init segment, which comes first, or a media segment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Output {
    Init(Init),
    Segment(Segment),
}

/// A media segment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Segment {
    /// Counts from 0.
    pub(crate) number: usize,
    /// The number of its interval between the plan's boundaries.
    pub(crate) interval: i64,
    /// Earliest presentation time of its samples in ticks.
    pub(crate) start_ticks: u64,
    /// Time in ticks from `start_ticks` to the end of the last presented sample.
    pub(crate) duration_ticks: u64,
    /// Number of samples (frames).
    pub(crate) samples: usize,
    /// Bytes from its start to the end of its first sample.
    pub(crate) key_bytes: u64,
    /// True if its first sample is a sync sample.
    pub(crate) starts_with_keyframe: bool,
    /// True if the end of the pipe closed it. It may be incomplete.
    pub(crate) is_last: bool,
    /// Its fragments, as published.
    pub(crate) bytes: Bytes,
}

/// Yields the outputs of a rendition as soon as they are complete. Segment numbers begin with `first_number`.
pub(crate) fn outputs<R: AsyncRead + Unpin>(
    reader: R,
    boundaries: Boundaries,
    first_number: usize,
) -> impl Stream<Item = Result<Output, CmafError>> {
    stream::try_unfold(Segmenter::new(reader, boundaries, first_number), |mut segmenter| async move {
        Ok(segmenter.next().await?.map(|output| (output, segmenter)))
    })
}

/// The state of segmenting one pipe.
pub(super) struct Segmenter<R> {
    reader: R,
    boundaries: Boundaries,
    track: Option<TrackHeader>,
    open: Option<Open>,
    ready: VecDeque<Segment>,
    pub(super) next_number: usize,
}

/// The segment under construction.
struct Open {
    interval: i64,
    start_ticks: u64,
    end_ticks: u64,
    samples: usize,
    key_bytes: u64,
    starts_with_keyframe: bool,
    bytes: BytesMut,
}

/// A fragment, without its samples.
struct Fragment {
    /// Its `moof` box, as published.
    moof: Bytes,
    start_ticks: u64,
    /// Time of the last presented sample.
    last_ticks: u64,
    end_ticks: u64,
    samples: usize,
    first_size: u64,
    starts_with_keyframe: bool,
}

impl<R: AsyncRead + Unpin> Segmenter<R> {
    pub(super) fn new(reader: R, boundaries: Boundaries, first_number: usize) -> Self {
        Self {
            reader,
            boundaries,
            track: None,
            open: None,
            ready: VecDeque::new(),
            next_number: first_number,
        }
    }

    pub(super) async fn next(&mut self) -> Result<Option<Output>, CmafError> {
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
                    let (init, track) = Init::with_track(pending.freeze())?;
                    self.track = Some(track);
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
                // Segments have no use for mfra and other boxes.
                _ => {}
            }
        }
        self.close();
        Ok(self.ready.pop_front().map(|segment| Output::Segment(Segment { is_last: true, ..segment })))
    }

    /// Adds a fragment to the open segment, or to a new one if it begins after a boundary. A fragment that
    /// reaches the next boundary closes its segment immediately; waiting for the next fragment would delay
    /// every segment.
    async fn add(
        &mut self,
        fragment: &Fragment,
        track: TrackHeader,
        mdat: &StreamedHeader,
    ) -> Result<(), CmafError> {
        let seconds = |ticks: u64| ticks as f64 / f64::from(track.timescale);
        let interval = if track.is_audio {
            // Audio has no keyframes, so the fragment nearest to the boundary begins the segment.
            let middle = u64::midpoint(fragment.start_ticks, fragment.end_ticks);
            self.boundaries.audio_interval(seconds(middle))
        } else {
            self.boundaries.interval(seconds(fragment.start_ticks))
        };
        if let Some(open) = self.open.as_mut().filter(|open| open.interval != interval) {
            // This is the exact end. The stated duration of the last frame may be wrong.
            open.end_ticks = fragment.start_ticks.max(open.start_ticks);
            self.close();
        }
        let bytes = fragment.moof.len() + mdat.bytes.len() + mdat.body;
        let open = self.open.get_or_insert_with(|| Open {
            interval,
            start_ticks: fragment.start_ticks,
            end_ticks: fragment.end_ticks,
            samples: 0,
            key_bytes: fragment.moof.len() as u64 + BoxHeader::SHORT as u64 + fragment.first_size,
            starts_with_keyframe: fragment.starts_with_keyframe,
            // Most video segments are one fragment.
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
        if !track.is_audio && self.boundaries.filled(interval, seconds(fragment.last_ticks)) {
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

/// A box header from the pipe.
struct StreamedHeader {
    kind: BoxType,
    bytes: Vec<u8>,
    /// Bytes of the body.
    body: usize,
}

/// Reads a box header; `None` at the end of the pipe.
async fn read_header<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Option<StreamedHeader>, CmafError> {
    let mut bytes = vec![0; BoxHeader::SHORT];
    if reader.read(&mut bytes[..1]).await? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut bytes[1..]).await?;
    let length = BoxHeader::length(&bytes);
    bytes.resize(length, 0);
    reader.read_exact(&mut bytes[BoxHeader::SHORT..]).await?;
    let header = BoxHeader::parse(&bytes);
    let (kind, body) = header
        .and_then(|header| Some((header.kind, header.body?)))
        .filter(|(_, body)| *body <= LARGEST_SEGMENT)
        .ok_or(CmafError::Unexpected("a box of an invalid size"))?;
    Ok(Some(StreamedHeader { kind, bytes, body }))
}

/// Reads a box with its header. Returns its type and bytes; `None` at the end of the pipe.
async fn read_box<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Option<(BoxType, Bytes)>, CmafError> {
    let Some(StreamedHeader { kind, mut bytes, body }) = read_header(reader).await? else { return Ok(None) };
    let start = bytes.len();
    bytes.resize(start + body, 0);
    reader.read_exact(&mut bytes[start..]).await?;
    Ok(Some((kind, bytes.into())))
}

/// Reads a fragment's times. Replaces its decoding times with the sorted presentation times, if the two
/// differ and the fragment can express the change.
fn measure(bytes: Bytes, defaults: SampleDefaults) -> Result<Fragment, CmafError> {
    let mut moof = Moof::decode(&mut bytes.as_ref())?;
    let size = bytes.len();
    let (traf, start) = track_fragment(&moof)?;
    let samples: Vec<Sample> = samples(traf, start, defaults).collect();
    let presented: Vec<u64> = samples.iter().map(Sample::presented).collect();
    let last = samples.iter().map(|sample| (sample.presented(), u64::from(sample.duration))).max();
    let (Some(first), Some((last_ticks, last_duration))) = (samples.first(), last) else {
        return Err(CmafError::Unexpected("a fragment without samples"));
    };
    let mut ascending = presented.clone();
    ascending.sort_unstable();
    let fragment = Fragment {
        start_ticks: ascending.first().copied().unwrap_or(0),
        last_ticks,
        end_ticks: last_ticks + last_duration,
        samples: samples.len(),
        first_size: first.size.into(),
        starts_with_keyframe: first.is_sync,
        moof: bytes,
    };
    let Some(traf) = moof.traf.first_mut() else { return Ok(fragment) };
    if !retime(traf, defaults, &presented, &ascending, last_duration) {
        return Ok(fragment);
    }
    let mut retimed = Vec::with_capacity(size);
    moof.encode(&mut retimed)?;
    // The samples follow the `moof` box, whose size may have changed.
    let grown = retimed.len() as i64 - size as i64;
    for trun in moof.traf.iter_mut().flat_map(|traf| &mut traf.trun) {
        trun.data_offset = trun.data_offset.and_then(|offset| i32::try_from(i64::from(offset) + grown).ok());
    }
    retimed.clear();
    moof.encode(&mut retimed)?;
    Ok(Fragment { moof: retimed.into(), ..fragment })
}

/// Sets the decoding times to the presentation times in ascending order. Returns false if both are already
/// equal, or if the fragment cannot express the change.
fn retime(
    traf: &mut Traf,
    defaults: SampleDefaults,
    presented: &[u64],
    ascending: &[u64],
    last_duration: u64,
) -> bool {
    let defaults = defaults.of_fragment(traf);
    let [trun] = traf.trun.as_mut_slice() else { return false };
    let Some(tfdt) = &mut traf.tfdt else { return false };
    let mut decoded = tfdt.base_media_decode_time;
    let mut unchanged = true;
    let samples: Option<Vec<TrunEntry>> = trun
        .samples
        .iter()
        .enumerate()
        .map(|(index, sample)| {
            let at = ascending.get(index).copied()?;
            let next = ascending.get(index + 1).copied().unwrap_or(at + last_duration);
            unchanged &= decoded == at;
            decoded += u64::from(sample.duration.unwrap_or(defaults.duration));
            Some(TrunEntry {
                duration: Some(u32::try_from(next - at).ok()?),
                size: Some(sample.size.unwrap_or(defaults.size)),
                flags: Some(sample.flags.unwrap_or(defaults.flags)),
                cts: Some(presented.get(index)?.checked_signed_diff(at)?),
            })
        })
        .collect();
    let (false, Some(samples), Some(first)) = (unchanged, samples, ascending.first()) else { return false };
    trun.samples = samples.into();
    tfdt.base_media_decode_time = *first;
    true
}

#[cfg(test)]
mod tests;
