//! Splits FFmpeg's fragmented MP4 into an init segment and media segments while it arrives.
//!
//! FFmpeg writes `ftyp moov (moof mdat)*` to a pipe. A video fragment (`moof` and `mdat`) spans the time from
//! one keyframe to the next; an audio fragment lasts a quarter of a second. Fragments that begin in the same
//! interval between the plan's boundaries become one segment.
//!
//! Segment times are presentation times. Decoding times of a variable frame rate may be early by the longest
//! frame duration, and players that align segments by decoding times (hls.js does) would see gaps. So such
//! fragments get new decoding times: the presentation times in ascending order.
//!
//! The samples of a segment last until the next segment starts, without a gap. FFmpeg states the duration of
//! the last sample from the frame rate, which may be wrong. The right end is in the `sidx` box that FFmpeg
//! writes before each video fragment: the presentation time of the next keyframe.

use std::{collections::VecDeque, ops::Range};

use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use mp4_atom::{Avcc, Decode, Encode, Moof, Sidx, Traf, TrunEntry};
use tokio::io::{AsyncRead, AsyncReadExt};
use vidstreamx_isobmff::{
    BoxType,
    boxes::BoxHeader,
    fragment::{Sample, SampleDefaults, samples, track_fragment},
};

use crate::{
    analysis::h264::departure,
    plan::{model::Plan, segmentation::Boundaries},
};

use super::init_segment::{CmafError, Init, TrackHeader};

/// Largest segment in bytes: 10 seconds at 200 Mbit/s.
const LARGEST_SEGMENT: usize = 256 << 20;

/// The last sample of a rung is extended by at most this many seconds to end with the stream.
const LONGEST_EXTENSION_SECONDS: f64 = 1.0;

/// The plan's properties that decide how a rendition is segmented.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SegmentationRules {
    pub(crate) boundaries: Boundaries,
    /// End of the stream in seconds; 0 if unknown. The last frame of a rung lasts until then.
    pub(crate) end_seconds: f64,
    /// True if frames at odd ticks are repeated frames, see [`crate::plan::hold::Hold`].
    pub(crate) repeats_at_odd_ticks: bool,
}

impl SegmentationRules {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            boundaries: plan.boundaries.clone(),
            end_seconds: plan.duration_seconds,
            repeats_at_odd_ticks: plan.picture.as_ref().is_some_and(|picture| picture.hold.is_some()),
        }
    }
}

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
    /// Sum of the durations of its samples in ticks.
    pub(crate) duration_ticks: u64,
    /// Number of samples (frames).
    pub(crate) samples: usize,
    /// Number of samples that repeat the frame before them.
    pub(crate) repeats: usize,
    /// Time in ticks that the repeats at its end last.
    pub(crate) repeated_ticks: u64,
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
    rules: SegmentationRules,
    first_number: usize,
) -> impl Stream<Item = Result<Output, CmafError>> {
    stream::try_unfold(Segmenter::new(reader, rules, first_number), |mut segmenter| async move {
        Ok(segmenter.next().await?.map(|output| (output, segmenter)))
    })
}

/// The state of segmenting one pipe.
pub(super) struct Segmenter<R> {
    reader: R,
    rules: SegmentationRules,
    track: Option<TrackHeader>,
    /// End of the next fragment in ticks, if a `sidx` box states it.
    fragment_end: Option<u64>,
    /// H.264's configuration. All keyframes must agree with it.
    avcc: Option<Avcc>,
    open: Option<Open>,
    ready: VecDeque<Segment>,
    pub(super) next_number: usize,
}

/// The segment under construction.
struct Open {
    interval: i64,
    start_ticks: u64,
    end_ticks: u64,
    duration_ticks: u64,
    /// Presentation time of the sample that is presented last.
    last_ticks: u64,
    /// Sum of the durations of the last fragment's samples.
    last_duration_ticks: u64,
    samples: usize,
    repeats: usize,
    repeated_ticks: u64,
    key_bytes: u64,
    starts_with_keyframe: bool,
    bytes: BytesMut,
    /// The range of the last fragment's `moof` box in `bytes`.
    last_moof: Range<usize>,
}

/// A fragment, without its samples.
struct Fragment {
    /// Its `moof` box, as published.
    moof: Bytes,
    start_ticks: u64,
    /// Time of the last presented sample.
    last_ticks: u64,
    end_ticks: u64,
    /// Sum of the durations of its samples.
    duration_ticks: u64,
    samples: usize,
    /// Number of samples at odd ticks.
    at_odd_ticks: usize,
    /// Time from its first sample after the last one at an even tick to its end.
    odd_end_ticks: u64,
    first_size: u64,
    starts_with_keyframe: bool,
}

impl<R: AsyncRead + Unpin> Segmenter<R> {
    pub(super) fn new(reader: R, rules: SegmentationRules, first_number: usize) -> Self {
        Self {
            reader,
            rules,
            track: None,
            fragment_end: None,
            avcc: None,
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
                    self.avcc = init.avcc();
                    return Ok(Some(Output::Init(init)));
                }
                b"sidx" => self.fragment_end = end_of_subsegment(&bytes)?,
                b"moof" => {
                    let track =
                        self.track.ok_or(CmafError::Unexpected("a fragment before the init segment"))?;
                    let fragment = measure(bytes, track.defaults, self.fragment_end.take())?;
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
        self.end_with_the_stream()?;
        self.close();
        Ok(self.ready.pop_front().map(|segment| Output::Segment(Segment { is_last: true, ..segment })))
    }

    /// Adds a fragment to the open segment, or to a new one if it begins after a boundary. A fragment that
    /// ends at the next boundary closes its segment immediately; waiting for the next fragment would delay
    /// every segment.
    async fn add(
        &mut self,
        fragment: &Fragment,
        track: TrackHeader,
        mdat: &StreamedHeader,
    ) -> Result<(), CmafError> {
        let boundaries = &self.rules.boundaries;
        let interval = if track.is_audio {
            // Audio has no keyframes, so the fragment nearest to the boundary begins the segment.
            let middle = u64::midpoint(fragment.start_ticks, fragment.end_ticks);
            boundaries.audio_interval(track.seconds(middle))
        } else {
            boundaries.interval(track.seconds(fragment.start_ticks))
        };
        if self.open.as_ref().is_some_and(|open| open.interval != interval) {
            self.close();
        }
        let bytes = fragment.moof.len() + mdat.bytes.len() + mdat.body;
        let open = self.open.get_or_insert_with(|| Open {
            interval,
            start_ticks: fragment.start_ticks,
            end_ticks: fragment.end_ticks,
            duration_ticks: 0,
            last_ticks: fragment.last_ticks,
            last_duration_ticks: 0,
            samples: 0,
            repeats: 0,
            repeated_ticks: 0,
            key_bytes: fragment.moof.len() as u64 + BoxHeader::SHORT as u64 + fragment.first_size,
            starts_with_keyframe: fragment.starts_with_keyframe,
            // Most video segments are one fragment.
            bytes: BytesMut::with_capacity(bytes),
            last_moof: 0..0,
        });
        if open.bytes.len() + bytes > LARGEST_SEGMENT {
            return Err(CmafError::Unexpected("a segment that is too large"));
        }
        open.end_ticks = fragment.end_ticks;
        open.duration_ticks += fragment.duration_ticks;
        open.last_ticks = fragment.last_ticks;
        open.last_duration_ticks = fragment.duration_ticks;
        open.samples += fragment.samples;
        if self.rules.repeats_at_odd_ticks && !track.is_audio {
            open.repeats += fragment.at_odd_ticks;
            let only_repeats = fragment.at_odd_ticks == fragment.samples;
            open.repeated_ticks = fragment.odd_end_ticks + if only_repeats { open.repeated_ticks } else { 0 };
        }
        open.last_moof = open.bytes.len()..open.bytes.len() + fragment.moof.len();
        open.bytes.extend_from_slice(&fragment.moof);
        open.bytes.extend_from_slice(&mdat.bytes);
        let samples = open.bytes.len();
        open.bytes.resize(samples + mdat.body, 0);
        self.reader.read_exact(&mut open.bytes[samples..]).await?;
        // The first sample is a keyframe. Only a copied track can depart from its init segment.
        let keyframe = open.bytes[samples..].get(..fragment.first_size as usize).unwrap_or_default();
        let departure = self
            .avcc
            .as_ref()
            .and_then(|avcc| departure(keyframe, avcc.length_size, &avcc.sequence_parameter_sets));
        if let Some(departure) = departure {
            return Err(CmafError::Departure(departure));
        }
        if !track.is_audio {
            self.close_if_complete(interval, fragment, track)?;
        }
        Ok(())
    }

    /// Closes the open segment if its last frame is known to be its last.
    fn close_if_complete(
        &mut self,
        interval: i64,
        fragment: &Fragment,
        track: TrackHeader,
    ) -> Result<(), CmafError> {
        let SegmentationRules { boundaries, end_seconds, .. } = &self.rules;
        // The last frame of the stream gets its end when the pipe ends.
        if *end_seconds > 0.0 && end_seconds - track.seconds(fragment.end_ticks) < LONGEST_EXTENSION_SECONDS {
            return Ok(());
        }
        let of_index = boundaries.end_after(interval, track.seconds(fragment.last_ticks));
        if let Some(end) = of_index.map(|end| track.ticks(end)) {
            // Without a next keyframe, FFmpeg's end comes from the frame rate. A difference of a tick is
            // rounding.
            if end.abs_diff(fragment.end_ticks) > 1 {
                self.end_at(end)?;
            }
            self.close();
        } else if boundaries.interval(track.seconds(fragment.end_ticks)) > interval {
            self.close();
        }
        Ok(())
    }

    /// Lets the last frame of a rung end with the stream, unless that is much later. It is never much
    /// earlier, but encoders state long durations at low rates.
    fn end_with_the_stream(&mut self) -> Result<(), CmafError> {
        let (Some(track), Some(open)) = (self.track, &self.open) else { return Ok(()) };
        let end = self.rules.end_seconds;
        let difference = end - track.seconds(open.end_ticks);
        if track.is_audio || end <= 0.0 || difference > LONGEST_EXTENSION_SECONDS {
            return Ok(());
        }
        self.end_at(track.ticks(end))
    }

    /// Changes the duration of the open segment's last presented sample, so that the segment ends here. Does
    /// nothing if that sample starts later.
    fn end_at(&mut self, end_ticks: u64) -> Result<(), CmafError> {
        let (Some(track), Some(open)) = (self.track, &mut self.open) else { return Ok(()) };
        if end_ticks <= open.last_ticks {
            return Ok(());
        }
        let moof = Bytes::copy_from_slice(&open.bytes[open.last_moof.clone()]);
        let fragment = measure(moof, track.defaults, Some(end_ticks))?;
        if open.last_moof.start == 0 {
            open.key_bytes += (fragment.moof.len() - open.last_moof.len()) as u64;
        }
        let samples = open.bytes.split_off(open.last_moof.end);
        open.bytes.truncate(open.last_moof.start);
        open.bytes.extend_from_slice(&fragment.moof);
        open.bytes.unsplit(samples);
        if open.repeated_ticks > 0 {
            open.repeated_ticks = (open.repeated_ticks + fragment.end_ticks).saturating_sub(open.end_ticks);
        }
        open.end_ticks = fragment.end_ticks;
        open.duration_ticks = open.duration_ticks + fragment.duration_ticks - open.last_duration_ticks;
        open.last_duration_ticks = fragment.duration_ticks;
        Ok(())
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        self.ready.push_back(Segment {
            number: self.next_number,
            interval: open.interval,
            start_ticks: open.start_ticks,
            duration_ticks: open.duration_ticks,
            samples: open.samples,
            repeats: open.repeats,
            repeated_ticks: open.repeated_ticks,
            key_bytes: open.key_bytes,
            starts_with_keyframe: open.starts_with_keyframe,
            is_last: false,
            bytes: open.bytes.freeze(),
        });
        self.next_number += 1;
    }
}

/// The end of the fragment that a `sidx` box describes, in ticks of the track's clock. FFmpeg uses that clock
/// for the box.
fn end_of_subsegment(bytes: &Bytes) -> Result<Option<u64>, CmafError> {
    let sidx = Sidx::decode(&mut bytes.as_ref())?;
    let duration = sidx.references.first().map(|reference| u64::from(reference.subsegment_duration));
    Ok(duration.and_then(|duration| sidx.earliest_presentation_time.checked_add(duration)))
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

/// Reads a fragment's times. Its last presented sample ends at `end`, if that is given and later than the
/// sample's start. Rewrites the fragment if its decoding times differ from the sorted presentation times, or
/// its last sample ends elsewhere, and if it can express the change.
fn measure(bytes: Bytes, defaults: SampleDefaults, end: Option<u64>) -> Result<Fragment, CmafError> {
    let mut moof = Moof::decode(&mut bytes.as_ref())?;
    let size = bytes.len();
    let (traf, start) = track_fragment(&moof)?;
    let samples: Vec<Sample> = samples(traf, start, defaults).collect();
    let presented: Vec<u64> = samples.iter().map(Sample::presented).collect();
    let last = samples.iter().map(|sample| (sample.presented(), u64::from(sample.duration))).max();
    let (Some(first), Some((last_ticks, stated))) = (samples.first(), last) else {
        return Err(CmafError::Unexpected("a fragment without samples"));
    };
    let mut ascending = presented.clone();
    ascending.sort_unstable();
    let end_ticks = end.filter(|end| *end > last_ticks).unwrap_or(last_ticks + stated);
    let start_ticks = ascending.first().copied().unwrap_or(0);
    let last_even = ascending.iter().rposition(|ticks| ticks % 2 == 0);
    let first_odd = ascending.get(last_even.map_or(0, |last| last + 1)).copied().unwrap_or(end_ticks);
    let fragment = Fragment {
        start_ticks,
        last_ticks,
        end_ticks,
        duration_ticks: samples.iter().map(|sample| u64::from(sample.duration)).sum(),
        samples: samples.len(),
        at_odd_ticks: presented.iter().filter(|ticks| *ticks % 2 == 1).count(),
        odd_end_ticks: end_ticks - first_odd,
        first_size: first.size.into(),
        starts_with_keyframe: first.is_sync,
        moof: bytes,
    };
    let Some(traf) = moof.traf.first_mut() else { return Ok(fragment) };
    if !retime(traf, defaults, &presented, &ascending, end_ticks) {
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
    Ok(Fragment { moof: retimed.into(), duration_ticks: end_ticks - start_ticks, ..fragment })
}

/// Sets the decoding times to the presentation times in ascending order, with the last sample's end at
/// `end_ticks`. Returns false if nothing would change, or if the fragment cannot express the change.
fn retime(
    traf: &mut Traf,
    defaults: SampleDefaults,
    presented: &[u64],
    ascending: &[u64],
    end_ticks: u64,
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
            let next = ascending.get(index + 1).copied().unwrap_or(end_ticks);
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
    unchanged &= decoded == end_ticks;
    let (false, Some(samples), Some(first)) = (unchanged, samples, ascending.first()) else { return false };
    trun.samples = samples.into();
    tfdt.base_media_decode_time = *first;
    true
}

#[cfg(test)]
mod tests;
