//! Sample tables (`stbl`) and edit lists of a track.

use std::iter::{repeat, repeat_n};

use mp4_atom::{Co64, Ctts, CttsEntry, Elst, Mdhd, Stco, Stsc, Stss, Stsz, StszSamples, Stts, SttsEntry};

use vidstreamx_isobmff::boxes::{boxes, decode_optional, decode_required, find, require};

use super::not_copyable::{NotCopyable, why};

/// Most samples of a track: 24 hours at 60 frames per second are 5.2 million.
pub(super) const MOST_SAMPLES: u32 = 6_000_000;
/// Largest composition offset in ticks. FFmpeg treats larger ones as damage and ignores all offsets.
pub(super) const LARGEST_OFFSET: i64 = 1 << 28;

/// A track's sample tables, checked to agree on the number of samples.
pub(super) struct Tables {
    pub(super) timescale: u32,
    pub(super) samples: u32,
    pub(super) edit: Option<Edit>,
    pub(super) stts: Stts,
    pub(super) ctts: Option<Ctts>,
    pub(super) stss: Option<Stss>,
    pub(super) stsc: Stsc,
    pub(super) stsz: Stsz,
    pub(super) chunks: Vec<u64>,
}

/// The presented part of a track, after an optional pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edit {
    /// Pause in ticks of the track.
    pub(super) pause: i64,
    /// Start in ticks of the unedited track.
    pub(super) from: i64,
    /// Exclusive end in ticks of the unedited track.
    pub(super) to: i64,
}

/// A sample, in the order of the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Counts from 1.
    pub(super) number: u32,
    /// Presentation time in ticks, before the edit is applied.
    pub(super) shown: i64,
    pub(super) ticks: u32,
    pub(super) size: u32,
    pub(super) offset: u64,
    pub(super) sync: bool,
}

impl Tables {
    pub(super) fn new(trak: &[u8], movie_timescale: u32) -> Result<Self, NotCopyable> {
        let mdia = require(trak, *b"mdia")?;
        let timescale = decode_required::<Mdhd>(mdia)?.timescale;
        if timescale == 0 || timescale > i32::MAX as u32 {
            return why("its timescale is not valid");
        }
        let edit = match find(trak, *b"edts")?.map(decode_optional::<Elst>) {
            Some(elst) => elst?.map_or(Ok(None), |elst| edit(&elst, movie_timescale, timescale))?,
            None => None,
        };
        let minf = require(mdia, *b"minf")?;
        if let Some(dinf) = find(minf, *b"dinf")?
            && !in_this_file(dinf)
        {
            return why("its samples are in another file");
        }
        let stbl = require(minf, *b"stbl")?;
        let stsz: Stsz = decode_required(stbl)?;
        let samples = match &stsz.samples {
            StszSamples::Identical { count, .. } => *count,
            StszSamples::Different { sizes } => u32::try_from(sizes.len()).unwrap_or(u32::MAX),
        };
        if samples == 0 || samples > MOST_SAMPLES {
            return why(format!("it has {samples} samples"));
        }
        let stts: Stts = decode_required(stbl)?;
        let ctts: Option<Ctts> = decode_optional(stbl)?;
        let ctts = ctts.filter(|ctts| ctts.entries.iter().any(|entry| entry.sample_offset != 0));
        let stsc: Stsc = decode_required(stbl)?;
        let chunks = match (decode_optional::<Stco>(stbl)?, decode_optional::<Co64>(stbl)?) {
            (Some(stco), None) => stco.entries.into_iter().map(u64::from).collect(),
            (None, Some(co64)) => co64.entries,
            _ => return why("it does not have exactly one chunk offset table"),
        };
        let stss: Option<Stss> = decode_optional(stbl)?;
        let tables = Self { timescale, samples, edit, stts, ctts, stss, stsc, stsz, chunks };
        tables.check().map(|()| tables)
    }

    /// Checks that the tables agree, as the other functions assume. Contradictory tables are not used,
    /// because FFmpeg may read them differently.
    fn check(&self) -> Result<(), NotCopyable> {
        let samples = u64::from(self.samples);
        let deltas = &self.stts.entries;
        if deltas.iter().map(|entry| u64::from(entry.sample_count)).sum::<u64>() != samples {
            return why("its stts and stsz boxes have different numbers of samples");
        }
        if deltas.iter().any(|entry| entry.sample_delta > i32::MAX as u32) {
            return why("its times go backwards");
        }
        if let Some(ctts) = &self.ctts {
            if ctts.entries.iter().map(|entry| u64::from(entry.sample_count)).sum::<u64>() != samples {
                return why("its ctts and stsz boxes have different numbers of samples");
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
            return why("its stsc and stsz boxes have different numbers of samples");
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

    /// Visits every sample in the order of the file.
    ///
    /// # Errors
    /// `visit` fails, or a sample lies beyond the end of the file.
    pub(super) fn walk(
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

/// A composition offset. QuickTime has signed offsets even in version 0.
pub(super) fn offset(entry: &CttsEntry) -> i64 {
    i64::from(entry.sample_offset as i32)
}

/// Returns true if all data references point into the same file (ISO/IEC 14496-12, 8.7.2).
#[must_use]
pub(super) fn in_this_file(dinf: &[u8]) -> bool {
    let dref = find(dinf, *b"dref").ok().flatten().and_then(|dref| dref.get(8..)).unwrap_or_default();
    boxes(dref).all(|(_, reference)| reference.get(3).is_some_and(|flags| flags & 1 == 1))
}

/// The edit in ticks of the track. As in almost all files, the list must consist of at most a pause and one
/// part.
///
/// # Errors
/// The list has other parts, changes the speed, or has times out of range.
pub(super) fn edit(elst: &Elst, movie_timescale: u32, timescale: u32) -> Result<Option<Edit>, NotCopyable> {
    if movie_timescale == 0 {
        return why("the file's timescale is not valid");
    }
    let rescale = |duration: u64| {
        let (from, to) = (i128::from(movie_timescale), i128::from(timescale));
        // Rounds as FFmpeg does.
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
            let Some(from) = from else { return why("its edit list begins too late") };
            Ok(Some(Edit { pause, from, to: from + rescale(only.segment_duration)? }))
        }
        _ => why("its edit list is not one part after at most one pause"),
    }
}
