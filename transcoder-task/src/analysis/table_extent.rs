//! The extent of a track by its sample tables and edit list.
//!
//! It is computed from runs of samples, because uncompressed audio has a sample per 1/48000 s. So it also
//! exists for tracks that are too long to be copied.

use mp4_atom::{Co64, Ctts, Elst, Mdhd, Stco, Stsc, Stsz, StszSamples, Stts};
use vidstreamx_isobmff::boxes::{decode_optional, decode_required, find, require};

use super::{
    extents::Extent,
    sample_table::{LARGEST_OFFSET, in_this_file, offset},
};

/// A part of the presentation in ticks of the track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    ticks: i64,
    /// Start in ticks of the unedited track; absent for a pause.
    from: Option<i64>,
}

/// The times of a range of samples, in ticks of the unedited track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    first: i64,
    end: i64,
}

/// The extent of the track in a `trak` box, on the clock of FFmpeg's input; `None` if it has no samples or
/// its tables cannot be used.
pub(super) fn table_extent(trak: &[u8], movie_timescale: u32, file_size: u64) -> Option<Extent> {
    let mdia = require(trak, *b"mdia").ok()?;
    let timescale = decode_required::<Mdhd>(mdia).ok()?.timescale;
    if timescale == 0 || timescale > i32::MAX as u32 {
        return None;
    }
    let parts = parts(trak, movie_timescale, timescale)?;
    let minf = require(mdia, *b"minf").ok()?;
    // The size of this file says nothing about samples in another one.
    if find(minf, *b"dinf").ok()?.is_some_and(|dinf| !in_this_file(dinf)) {
        return None;
    }
    let stbl = require(minf, *b"stbl").ok()?;
    let stts: Stts = decode_required(stbl).ok()?;
    if stts.entries.iter().any(|entry| entry.sample_delta > i32::MAX as u32) {
        return None;
    }
    let ctts: Option<Ctts> = decode_optional(stbl).ok()?;
    let ctts = ctts.filter(|ctts| ctts.entries.iter().all(|entry| offset(entry).abs() <= LARGEST_OFFSET));
    let (promised, present) = sample_counts(stbl, file_size)?;
    let end = |samples: u64| {
        let span = span(&stts, ctts.as_ref(), samples)?;
        Some(presented(&parts, span)?.end as f64 / f64::from(timescale))
    };
    let promised_end = end(promised)?;
    let end = if present < promised { end(present).unwrap_or(0.0) } else { promised_end };
    // ffprobe knows the start of a track with sample tables.
    Some(Extent { start: None, end: Some(end), promised_end: Some(promised_end) })
}

/// The edit list; empty if there is none. `None` if it cannot be used.
fn parts(trak: &[u8], movie_timescale: u32, timescale: u32) -> Option<Vec<Part>> {
    let Some(edts) = find(trak, *b"edts").ok()? else { return Some(Vec::new()) };
    let Some(elst) = decode_optional::<Elst>(edts).ok()? else { return Some(Vec::new()) };
    let part = |entry: &mp4_atom::ElstEntry| {
        let ticks = i128::from(entry.segment_duration) * i128::from(timescale);
        let ticks = i64::try_from(ticks / i128::from(movie_timescale.max(1))).ok()?;
        let from = entry.media_time.map(i64::try_from).transpose().ok()?;
        (ticks < i64::MAX / 4 && from.is_none_or(|from| from < i64::MAX / 4)).then_some(Part { ticks, from })
    };
    elst.entries.iter().map(part).collect()
}

/// The shift in ticks from decoding to presentation times that an edit list causes in fragments, where
/// FFmpeg uses only its start; `None` if the edit list cannot be used.
pub(super) fn fragment_shift(trak: &[u8], movie_timescale: u32, timescale: u32) -> Option<i64> {
    let parts = parts(trak, movie_timescale, timescale)?;
    let pause = parts.first().filter(|part| part.from.is_none()).map_or(0, |part| part.ticks);
    let from = parts.iter().take(2).find_map(|part| part.from).unwrap_or(0);
    Some(pause - from)
}

/// The number of samples in the tables, and how many of them lie before the end of the file.
fn sample_counts(stbl: &[u8], file_size: u64) -> Option<(u64, u64)> {
    let stsz: Stsz = decode_required(stbl).ok()?;
    let stsc: Stsc = decode_required(stbl).ok()?;
    let chunks: Vec<u64> = match (decode_optional::<Stco>(stbl).ok()?, decode_optional::<Co64>(stbl).ok()?) {
        (Some(stco), None) => stco.entries.into_iter().map(u64::from).collect(),
        (None, Some(co64)) => co64.entries,
        _ => return None,
    };
    let samples = match &stsz.samples {
        StszSamples::Identical { count, .. } => u64::from(*count),
        StszSamples::Different { sizes } => sizes.len() as u64,
    };
    let (mut promised, mut present) = (0_u64, 0_u64);
    let mut runs = stsc.entries.iter().peekable();
    let mut in_chunk = 0;
    for (chunk, start) in (1_u64..).zip(chunks) {
        while let Some(run) = runs.next_if(|run| u64::from(run.first_chunk) <= chunk) {
            in_chunk = u64::from(run.samples_per_chunk);
        }
        let count = in_chunk.min(samples - promised);
        let complete = match &stsz.samples {
            StszSamples::Identical { size: 0, .. } => {
                if start < file_size {
                    count
                } else {
                    0
                }
            }
            StszSamples::Identical { size, .. } => {
                (file_size.saturating_sub(start) / u64::from(*size)).min(count)
            }
            StszSamples::Different { sizes } => {
                let sizes = sizes.iter().skip(promised as usize).take(count as usize);
                let ends = sizes.scan(start, |end, size| {
                    *end = end.saturating_add(u64::from(*size));
                    Some(*end)
                });
                ends.take_while(|end| *end <= file_size).count() as u64
            }
        };
        // Samples after the first missing one do not count.
        if present == promised {
            present += complete;
        }
        promised += count;
    }
    Some((promised, present))
}

/// The presentation times of the first `samples` samples, before the edit list is applied.
fn span(stts: &Stts, ctts: Option<&Ctts>, samples: u64) -> Option<Span> {
    let offsets = ctts.map(|ctts| ctts.entries.as_slice()).unwrap_or_default();
    let mut offsets = offsets.iter().map(|entry| (u64::from(entry.sample_count), offset(entry)));
    let mut offset_run = (0, 0);
    let mut next_offset = |offset_run: &mut (u64, i64)| {
        while offset_run.0 == 0 {
            // Samples behind the last entry have no offset.
            *offset_run = offsets.next().unwrap_or((u64::MAX, 0));
        }
    };
    let last = stts.entries.len().checked_sub(1)?;
    let (mut rest, mut decoded, mut before) = (samples, 0_i64, 1_i64);
    let mut span: Option<Span> = None;
    for (index, entry) in stts.entries.iter().enumerate() {
        // FFmpeg uses the last duration for samples behind the last entry.
        let mut count = if index == last { rest } else { rest.min(u64::from(entry.sample_count)) };
        let delta = i64::from(entry.sample_delta);
        while count > 0 {
            next_offset(&mut offset_run);
            let run = count.min(offset_run.0);
            let ticks = i64::try_from(run - 1).ok()?.checked_mul(delta)?;
            let first = decoded.checked_add(offset_run.1)?;
            // A last sample without a duration gets the previous one.
            let duration = if delta > 0 { delta } else { before };
            let end = first.checked_add(ticks)?.checked_add(duration)?;
            span = Some(span.map_or(Span { first, end }, |span| Span {
                first: span.first.min(first),
                end: span.end.max(end),
            }));
            decoded = decoded.checked_add(ticks)?.checked_add(delta)?;
            (count, rest, offset_run.0) = (count - run, rest - run, offset_run.0 - run);
            before = duration;
        }
    }
    span
}

/// The presentation of samples with these times. `None` if the edit list shows none of them.
fn presented(parts: &[Part], span: Span) -> Option<Span> {
    if parts.is_empty() {
        return Some(span);
    }
    let (mut at, mut shown): (i64, Option<Span>) = (0, None);
    for part in parts {
        if let Some(from) = part.from {
            // FFmpeg presents the first sample at the start of the part, even if the part begins before that
            // sample.
            let from = from.max(span.first);
            let end = from.checked_add(part.ticks)?.min(span.end);
            if end > from {
                let first = shown.map_or(at, |shown| shown.first);
                shown = Some(Span { first, end: at.checked_add(end - from)? });
            }
        }
        at = at.checked_add(part.ticks)?;
    }
    shown
}

#[cfg(test)]
mod tests {
    use mp4_atom::{CttsEntry, SttsEntry};
    use proptest::prelude::*;

    use super::*;

    fn stts(runs: &[(u32, u32)]) -> Stts {
        let entry = |(sample_count, sample_delta): &(u32, u32)| SttsEntry {
            sample_count: *sample_count,
            sample_delta: *sample_delta,
        };
        Stts { entries: runs.iter().map(entry).collect() }
    }

    fn ctts(runs: &[(u32, i64)]) -> Ctts {
        let entry = |(sample_count, sample_offset): &(u32, i64)| CttsEntry {
            sample_count: *sample_count,
            sample_offset: *sample_offset,
        };
        Ctts { entries: runs.iter().map(entry).collect() }
    }

    #[test]
    fn the_last_sample_keeps_its_duration() {
        let screen = stts(&[(10, 4), (1, 150)]);
        assert_eq!(span(&screen, None, 11), Some(Span { first: 0, end: 190 }));
        assert_eq!(span(&screen, None, 10), Some(Span { first: 0, end: 40 }), "a truncated file");
        assert_eq!(span(&stts(&[(3, 4), (1, 0)]), None, 4), Some(Span { first: 0, end: 16 }));
        assert_eq!(span(&stts(&[(3, 4)]), None, 5), Some(Span { first: 0, end: 20 }), "as FFmpeg");
        assert_eq!(span(&stts(&[]), None, 5), None);
        assert_eq!(span(&stts(&[(3, 4)]), None, 0), None);
    }

    #[test]
    fn uncompressed_audio_of_a_day_and_absurd_tables_take_no_time() {
        let day = 24 * 3600 * 48_000_u64;
        assert_eq!(span(&stts(&[(1, 1)]), None, day), Some(Span { first: 0, end: day as i64 }));
        assert_eq!(span(&stts(&[(1, i32::MAX as u32)]), None, u64::MAX), None);
    }

    #[test]
    fn edit_lists_cut_repeat_and_pause() {
        let part = |ticks, from| Part { ticks, from: Some(from) };
        let pause = |ticks| Part { ticks, from: None };
        let media = Span { first: 8, end: 108 };
        for (parts, expected) in [
            (&[][..], Some((8, 108))),
            (&[part(100, 8)], Some((0, 100))),
            (&[part(500, 0)], Some((0, 100))),
            (&[pause(50), part(100, 8)], Some((50, 150))),
            (&[part(30, 8), part(40, 58)], Some((0, 70))),
            (&[part(30, 8), pause(10), part(1000, 58)], Some((0, 90))),
            (&[part(30, 200)], None),
            (&[part(0, 8)], None),
            (&[pause(50)], None),
            (&[pause(i64::MAX), part(30, 8)], None),
        ] {
            let shown = presented(parts, media).map(|shown| (shown.first, shown.end));
            assert_eq!(shown, expected, "{parts:?}");
        }
    }

    proptest! {
        #[test]
        fn runs_are_as_the_samples_one_by_one(
            times in proptest::collection::vec((0_u32..5, 1_u32..9), 1..6),
            offsets in proptest::collection::vec((0_u32..5, -9_i64..9), 0..6),
            samples in 1_u64..30,
        ) {
            let all = |runs: &[(u32, i64)]| -> Vec<i64> {
                runs.iter().flat_map(|(count, value)| std::iter::repeat_n(*value, *count as usize)).collect()
            };
            let signed = times.iter().map(|(count, delta)| (*count, i64::from(*delta)));
            let deltas = all(&signed.collect::<Vec<_>>());
            let shifts = all(&offsets);
            let (mut decoded, mut expected) = (0, Span { first: i64::MAX, end: i64::MIN });
            for sample in 0..samples as usize {
                let last = i64::from(times.last().unwrap().1);
                let delta = deltas.get(sample).copied().unwrap_or(last);
                let shown = decoded + shifts.get(sample).copied().unwrap_or(0);
                expected = Span { first: expected.first.min(shown), end: expected.end.max(shown + delta) };
                decoded += delta;
            }
            prop_assert_eq!(span(&stts(&times), Some(&ctts(&offsets)), samples), Some(expected));
        }
    }
}
