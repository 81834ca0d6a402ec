//! The extents of the tracks of a fragmented MP4 file.
//!
//! A fragmented file has no index of its samples. Reading the header of each fragment would take thousands of
//! reads, so only the first and last fragments are read. Their times are absolute.

use std::ops::Range;

use mp4_atom::{Mdhd, Mvhd, Tfdt, Tfhd, Tkhd, Trex};
use vidstreamx_isobmff::boxes::{
    BoxHeader, boxes, decode, decode_optional, decode_required, find, handler_type, require,
};

use crate::{source::loopback::Input, store::S3Error};

use super::{
    extents::{Extent, latest_plausible},
    limits::MOST_TRACKS,
    table_extent::fragment_shift,
    tail::Tail,
};

/// Bytes of a read of fragments at the beginning, and the most reads. Usually the first read has a fragment
/// of every track.
const HEAD_READ: u64 = 1 << 20;
const HEAD_READS: usize = 8;
/// Most fragments that are kept of a window. A fragment of a live stream lasts a frame at least, and its
/// header takes 100 bytes.
const MOST_FRAGMENTS: usize = 200_000;

/// A track of the movie header.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FragmentTrack {
    pub(super) id: u32,
    /// True if it is video or audio, so that its extent must be known.
    pub(super) plays: bool,
    timescale: u32,
    /// From decoding to presentation times, in ticks.
    shift: i64,
    /// Default duration and size of a sample.
    default_ticks: u32,
    default_size: u32,
}

/// The tracks in the body of a `moov` box; none if the file has no fragments.
pub(super) fn fragment_tracks(moov: &[u8]) -> Vec<FragmentTrack> {
    let (Ok(Some(mvex)), Ok(mvhd)) = (find(moov, *b"mvex"), decode_required::<Mvhd>(moov)) else {
        return Vec::new();
    };
    let defaults: Vec<Trex> = boxes(mvex)
        .filter(|(kind, _)| kind == b"trex")
        .take(MOST_TRACKS)
        .filter_map(|(_, trex)| decode(trex).ok())
        .collect();
    let track = |trak: &[u8]| {
        let id = decode_required::<Tkhd>(trak).ok()?.track_id;
        let mdia = require(trak, *b"mdia").ok()?;
        let timescale = decode_required::<Mdhd>(mdia).ok()?.timescale;
        let handler = handler_type(require(mdia, *b"hdlr").ok()?)?;
        let trex = defaults.iter().find(|trex| trex.track_id == id);
        (timescale > 0).then(|| FragmentTrack {
            id,
            plays: matches!(&handler, b"vide" | b"soun"),
            timescale,
            shift: fragment_shift(trak, mvhd.timescale, timescale).unwrap_or(0),
            default_ticks: trex.map_or(0, |trex| trex.default_sample_duration),
            default_size: trex.map_or(0, |trex| trex.default_sample_size),
        })
    };
    boxes(moov)
        .filter(|(kind, _)| kind == b"trak")
        .take(MOST_TRACKS)
        .filter_map(|(_, trak)| track(trak))
        .collect()
}

/// The samples of a track in one fragment, in ticks of the track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// Position in the list of tracks.
    track: usize,
    first: i64,
    /// End of the samples that the file has.
    end: i64,
    promised_end: i64,
}

/// The extents of the tracks, in their order.
///
/// # Errors
/// S3 fails.
pub(super) async fn fragment_extents(
    input: &Input,
    tracks: &[FragmentTrack],
    moov_end: u64,
    file_size: u64,
) -> Result<Vec<Extent>, S3Error> {
    let seconds = |run: &Run, ticks: i64| {
        let track = tracks.get(run.track);
        track.map_or(0.0, |track| ticks as f64 / f64::from(track.timescale))
    };
    let mut extents = vec![Extent::default(); tracks.len()];
    let complete = |extents: &[Extent], known: fn(&Extent) -> Option<f64>| {
        tracks.iter().zip(extents).all(|(track, extent)| !track.plays || known(extent).is_some())
    };

    let mut at = moov_end;
    for _ in 0..HEAD_READS {
        if at >= file_size || complete(&extents, |extent| extent.start) {
            break;
        }
        let Some(window) = input.bytes(at, at.saturating_add(HEAD_READ)).await? else { break };
        let (runs, next) = fragments(&window, at, 0, tracks, file_size);
        for run in &runs {
            if let Some(extent) = extents.get_mut(run.track) {
                extent.add_start(seconds(run, run.first));
            }
        }
        if next <= at {
            break;
        }
        at = next;
    }

    let mut tail = Tail::new(moov_end, file_size);
    while let Some((offset, window)) = tail.grow(input).await? {
        let Some(first) = first_fragment(window) else { continue };
        let (runs, _) = fragments(window, offset, first, tracks, file_size);
        let limit = latest_plausible(runs.iter().map(|run| seconds(run, run.first)).collect(), None);
        for run in runs.iter().filter(|run| seconds(run, run.first) <= limit) {
            if let Some(extent) = extents.get_mut(run.track) {
                extent.add_end(seconds(run, run.end), seconds(run, run.promised_end));
            }
        }
        if complete(&extents, |extent| extent.end) || tail.is_enough(!runs.is_empty()) {
            break;
        }
    }
    Ok(extents)
}

/// The offset of the first fragment in a window that begins anywhere: a `moof` box begins with `mfhd`, which
/// has 16 bytes.
fn first_fragment(window: &[u8]) -> Option<usize> {
    const START: &[u8] = b"moof\0\0\0\x10mfhd";
    let found = window.windows(START.len()).position(|bytes| bytes == START)?;
    found.checked_sub(4)
}

/// The track fragments in the bytes at `window_offset` of the file, from `at` on. Also returns the offset in
/// the file of the first byte that was not used. Bytes that are no boxes are skipped up to the next fragment.
fn fragments(
    window: &[u8],
    window_offset: u64,
    mut at: usize,
    tracks: &[FragmentTrack],
    file_size: u64,
) -> (Vec<Run>, u64) {
    let mut runs = Vec::new();
    while let Some(rest) = window.get(at..).filter(|rest| rest.len() >= BoxHeader::LONG) {
        if runs.len() >= MOST_FRAGMENTS {
            break;
        }
        let Some(header) = BoxHeader::parse(rest) else {
            match first_fragment(rest.get(1..).unwrap_or_default()) {
                Some(skipped) => {
                    at += 1 + skipped;
                    continue;
                }
                None => return (runs, window_offset + window.len() as u64),
            }
        };
        let Some(body) = header.body else { return (runs, file_size) };
        let end = at.saturating_add(header.length).saturating_add(body);
        if header.kind == *b"moof" {
            let Some(moof) = window.get(at + header.length..end) else {
                // The next window begins with the fragment, unless it began this one.
                let used = if at == 0 { end } else { at };
                return (runs, window_offset.saturating_add(used as u64));
            };
            runs.extend(track_runs(moof, window_offset + at as u64, tracks, file_size));
        }
        at = end;
    }
    (runs, window_offset.saturating_add(at as u64))
}

/// The runs in the body of a `moof` box, whose header is at `moof_offset`.
fn track_runs(moof: &[u8], moof_offset: u64, tracks: &[FragmentTrack], file_size: u64) -> Vec<Run> {
    let run = |traf: &[u8]| {
        let tfhd: Tfhd = decode_required(traf).ok()?;
        let position = tracks.iter().position(|track| track.id == tfhd.track_id)?;
        let track = tracks.get(position)?;
        let tfdt: Tfdt = decode_optional(traf).ok()??;
        let mut decoded = i64::try_from(tfdt.base_media_decode_time).ok()?.checked_add(track.shift)?;
        let base = tfhd.base_data_offset.unwrap_or(moof_offset);
        let defaults = (
            tfhd.default_sample_duration.unwrap_or(track.default_ticks),
            tfhd.default_sample_size.unwrap_or(track.default_size),
        );
        let (mut all, mut present, mut is_present): (Option<Range<i64>>, Option<Range<i64>>, bool) =
            (None, None, true);
        let mut data = base;
        for (_, trun) in boxes(traf).filter(|(kind, _)| kind == b"trun") {
            let samples = samples(trun, defaults)?;
            if let Some(offset) = samples.data_offset {
                data = base.saturating_add_signed(i64::from(offset));
            }
            for (count, sample) in samples.runs {
                let count = i64::from(count);
                let times = |count: i64| {
                    let first = decoded.checked_add(sample.offset)?;
                    Some(first..first.checked_add(count.checked_mul(i64::from(sample.ticks))?)?)
                };
                let bytes = u64::from(sample.size);
                let fits = file_size.saturating_sub(data).checked_div(bytes).unwrap_or(u64::MAX);
                let fitting = i64::try_from(fits).unwrap_or(i64::MAX).min(count);
                join(&mut all, times(count)?);
                if is_present && fitting > 0 {
                    join(&mut present, times(fitting)?);
                }
                is_present &= fitting == count;
                data = data.saturating_add(bytes.saturating_mul(count as u64));
                decoded = decoded.checked_add(count.checked_mul(i64::from(sample.ticks))?)?;
            }
        }
        let all = all?;
        let end = present.map_or(all.start, |present| present.end);
        Some(Run { track: position, first: all.start, end, promised_end: all.end })
    };
    boxes(moof)
        .filter(|(kind, _)| kind == b"traf")
        .take(MOST_TRACKS)
        .filter_map(|(_, traf)| run(traf))
        .collect()
}

fn join(range: &mut Option<Range<i64>>, other: Range<i64>) {
    *range = Some(match range.take() {
        Some(range) => range.start.min(other.start)..range.end.max(other.end),
        None => other,
    });
}

/// A sample of a fragment. Unlike `mp4-atom`'s, it takes no memory for samples that have no fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    ticks: u32,
    size: u32,
    offset: i64,
}

/// The samples of a `trun` box.
struct Samples<I> {
    data_offset: Option<i32>,
    /// Numbers of equal samples.
    runs: I,
}

/// Parses a `trun` box (ISO/IEC 14496-12, 8.8.8). `defaults` are the duration and size of samples without
/// their own.
fn samples(trun: &[u8], defaults: (u32, u32)) -> Option<Samples<impl Iterator<Item = (u32, Sample)>>> {
    let word = |at: usize| Some(u32::from_be_bytes(trun.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let flags = word(0)?;
    let count = word(4)?;
    let has = |flag: u32| flags & flag != 0;
    let data_offset = if has(1) { Some(word(8)? as i32) } else { None };
    let start = 8 + 4 * usize::from(has(1)) + 4 * usize::from(has(4));
    let fields = [0x100, 0x200, 0x400, 0x800].map(has);
    let length = 4 * fields.iter().filter(|has| **has).count();
    let entries = trun.get(start..)?;
    let default = Sample { ticks: defaults.0, size: defaults.1, offset: 0 };
    let parse = move |entry: &[u8]| {
        let (words, _) = entry.as_chunks::<4>();
        let mut words = words.iter().map(|word| u32::from_be_bytes(*word));
        let [ticks, size, _, offset] = fields.map(|has| if has { words.next() } else { None });
        Sample {
            // Some muxers write a negative duration of the last sample.
            ticks: ticks.map_or(default.ticks, |ticks| if ticks > i32::MAX as u32 { 0 } else { ticks }),
            size: size.unwrap_or(default.size),
            // Signed in both versions, as FFmpeg reads it.
            offset: offset.map_or(0, |offset| i64::from(offset as i32)),
        }
    };
    let alike = (length == 0 && count > 0).then_some((count, default));
    let own = entries.chunks_exact(length.max(4)).take(if length > 0 { count as usize } else { 0 });
    Some(Samples { data_offset, runs: alike.into_iter().chain(own.map(move |entry| (1, parse(entry)))) })
}
