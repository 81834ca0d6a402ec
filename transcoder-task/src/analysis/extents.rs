//! The extents of the tracks: when their first sample begins and their last one ends.
//!
//! Headers and tags state durations, too, but they may be stale, or may be end times instead. So an extent
//! comes from the samples: from the sample tables of an MP4 file ([`super::table_extent`]), else from the
//! times in the last part of the file ([`super::fragments`], [`super::matroska`]). A header that states more
//! than the tracks have is a warning. A file is damaged if its sample tables promise samples that it does not
//! have.

use super::{
    limits::MOST_SECONDS,
    media::Media,
    rejection::{ProbeError, unusable},
};

/// Least share of the promised samples; a file with less is rejected.
const LEAST_SHARE: f64 = 0.5;
/// A warning needs more missing seconds than the first value, and a larger missing share of the duration than
/// the second, because containers round durations.
const NOTABLE: (f64, f64) = (0.3, 0.02);
/// A later start than ffprobe's counts only from this difference in seconds. ffprobe knows the start exactly,
/// unless the track begins behind the packets that it reads.
const LATER_START: f64 = 1.0;
/// Samples this many seconds after half of the last samples of a file do not count, unless the header
/// confirms them. A damaged or hostile time must not make a stream of days.
const LONGEST_JUMP: f64 = 3600.0;
/// A header that states this many seconds more than the tracks have lies. Headers round, and some count the
/// time before the first sample.
const LEAST_LIE: f64 = 1.0;

/// The extent of a track, in seconds on the clock of FFmpeg's input.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Extent {
    /// Start of the first sample, if known.
    pub(super) start: Option<f64>,
    /// End of the last sample, if known.
    pub(super) end: Option<f64>,
    /// End of the last sample that the file should have according to its index. Equal to `end`, unless the
    /// file is truncated.
    pub(super) promised_end: Option<f64>,
}

impl Extent {
    /// Adds samples at the beginning of the file.
    pub(super) fn add_start(&mut self, start: f64) {
        self.start = Some(self.start.map_or(start, |known| known.min(start)));
    }

    /// Adds samples at the end of the file.
    pub(super) fn add_end(&mut self, end: f64, promised_end: f64) {
        let later = |known: Option<f64>, end: f64| Some(known.map_or(end, |known| known.max(end)));
        self.end = later(self.end, end);
        self.promised_end = later(self.promised_end, promised_end);
    }
}

/// The latest plausible time, for the times of a file's last samples in seconds. `claimed` is the end that
/// the file's header states.
pub(super) fn latest_plausible(mut times: Vec<f64>, claimed: Option<f64>) -> f64 {
    let middle = times.len() / 2;
    times.sort_unstable_by(f64::total_cmp);
    times.get(middle).map_or(f64::MAX, |median| (median + LONGEST_JUMP).max(claimed.unwrap_or(0.0)))
}

/// Identifies one of FFmpeg's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrackKey {
    /// The container's track number.
    Id(u32),
    /// FFmpeg's stream index.
    Stream(usize),
}

/// A duration in a header or tag.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Claim {
    /// The header's name, worded to follow "the file's".
    pub(super) header: String,
    /// A duration or an end time: containers do not agree.
    pub(super) seconds: f64,
}

/// The extents of a file's tracks, subtitles included.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Extents {
    pub(super) tracks: Vec<(TrackKey, Extent)>,
    pub(super) claims: Vec<Claim>,
}

/// Start and duration of a track on the clock of FFmpeg's output.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Times {
    start: f64,
    /// 0 if unknown.
    duration: f64,
    /// True if the duration comes from the samples.
    is_measured: bool,
    /// Seconds of samples that the index has and the file does not.
    missing: f64,
}

impl Extents {
    /// Adds samples to a track.
    pub(super) fn add(&mut self, key: TrackKey, other: Extent) {
        match self.tracks.iter_mut().find(|(known, _)| *known == key) {
            Some((_, extent)) => {
                if let Some(start) = other.start {
                    extent.add_start(start);
                }
                if let (Some(end), Some(promised_end)) = (other.end, other.promised_end) {
                    extent.add_end(end, promised_end);
                }
            }
            None => self.tracks.push((key, other)),
        }
    }

    /// Replaces the durations that ffprobe took from headers by the extents of the tracks, and adds warnings.
    ///
    /// # Errors
    /// The tracks are too long, or less than half of the samples are in the file.
    pub(crate) fn apply(&self, media: &mut Media) -> Result<(), ProbeError> {
        let file_start = media.start_seconds;
        let mut last_end = 0.0_f64;
        let mut damage = Vec::new();
        let has_video = media.video.is_some();
        if let Some(video) = &mut media.video {
            let times =
                self.times(video.index, video.id, file_start, (video.start_seconds, video.duration_seconds));
            (video.start_seconds, video.duration_seconds) = (times.start, times.duration);
            last_end = last_end.max(times.start + times.duration);
            damage.extend(missing(&times, "video", true)?);
        }
        for (number, audio) in media.audio.iter_mut().enumerate() {
            let times =
                self.times(audio.index, audio.id, file_start, (audio.start_seconds, audio.duration_seconds));
            (audio.start_seconds, audio.duration_seconds) = (times.start, times.duration);
            audio.is_measured = times.is_measured;
            last_end = last_end.max(times.start + times.duration);
            let what = if has_video { format!("audio track {}", audio.index) } else { "audio".to_owned() };
            damage.extend(missing(&times, &what, number == 0 && !has_video)?);
        }
        check_length(last_end, "lasts")?;
        media.duration_seconds = last_end;
        media.warnings.extend(damage);
        media.warnings.extend(self.lies(&media.claims, file_start));
        Ok(())
    }

    /// The times of one of FFmpeg's streams. `stated` are its start and duration by ffprobe.
    fn times(&self, index: usize, id: Option<u32>, file_start: f64, stated: (f64, f64)) -> Times {
        let mut same = self.tracks.iter().filter(|(key, _)| match key {
            TrackKey::Id(number) => id == Some(*number),
            TrackKey::Stream(number) => index == *number,
        });
        // Several tracks with one id cannot be told apart.
        let extent =
            same.next().filter(|_| same.next().is_none()).map_or_else(Extent::default, |(_, one)| *one);
        let on_output_clock = |time: Option<f64>| time.map(|time| time - file_start);
        let (stated_start, stated_duration) = stated;
        let start = on_output_clock(extent.start)
            .filter(|start| *start > stated_start + LATER_START)
            .unwrap_or(stated_start);
        match (on_output_clock(extent.end), on_output_clock(extent.promised_end)) {
            (Some(end), promised_end) => Times {
                start,
                duration: (end - start).max(0.0),
                is_measured: true,
                missing: promised_end.map_or(0.0, |promised| (promised - end.max(start)).max(0.0)),
            },
            (None, _) => {
                // The track ended before the last part of the file. Its tag may state the end.
                let end = Some(stated_start + stated_duration).filter(|end| {
                    *end > start && self.end().is_some_and(|last| *end <= last - file_start + NOTABLE.0)
                });
                let duration = end.filter(|_| stated_duration > 0.0).map_or(0.0, |end| end - start);
                Times { start, duration, is_measured: false, missing: 0.0 }
            }
        }
    }

    /// The end of the last sample that the file has or should have.
    fn end(&self) -> Option<f64> {
        self.tracks.iter().filter_map(|(_, extent)| extent.promised_end).reduce(f64::max)
    }

    /// Warnings about headers that state more than the tracks have.
    fn lies(&self, tags: &[Claim], file_start: f64) -> Vec<String> {
        let Some(end) = self.end() else { return Vec::new() };
        let held = end - file_start;
        let lie = |claim: &&Claim| {
            // A header may state a duration, or an end on the file's clock.
            let excess = claim.seconds - held.max(end);
            excess > LEAST_LIE && excess > held * NOTABLE.1
        };
        let warning = |claim: &Claim| {
            format!(
                "the file's {} states {:.1} seconds, but its tracks have {held:.1} seconds",
                claim.header, claim.seconds
            )
        };
        self.claims.iter().chain(tags).filter(lie).map(warning).collect()
    }
}

/// Checks the duration that headers state. For files without known extents.
///
/// # Errors
/// It is too long.
pub(crate) fn check_stated(media: &Media) -> Result<(), ProbeError> {
    let video = media.video.iter().map(|video| video.start_seconds + video.duration_seconds);
    let audio = media.audio.iter().map(|audio| audio.start_seconds + audio.duration_seconds);
    check_length(video.chain(audio).fold(media.duration_seconds, f64::max), "claims to last")
}

fn check_length(seconds: f64, verb: &str) -> Result<(), ProbeError> {
    if seconds <= MOST_SECONDS {
        return Ok(());
    }
    Err(unusable(format!(
        "the file {verb} {:.0} hours; the limit is {:.0} hours",
        seconds / 3600.0,
        MOST_SECONDS / 3600.0
    )))
}

/// A warning if a notable part of a track is missing in the file.
///
/// # Errors
/// More than half of the main track is missing.
fn missing(times: &Times, what: &str, is_main: bool) -> Result<Option<String>, ProbeError> {
    let Times { duration, missing, .. } = *times;
    let promised = duration + missing;
    if missing <= NOTABLE.0 || missing <= promised * NOTABLE.1 {
        return Ok(None);
    }
    if is_main && duration < promised * LEAST_SHARE {
        return Err(unusable(format!(
            "the file is damaged: only {duration:.1} of {promised:.1} seconds of {what} can be decoded"
        )));
    }
    Ok(Some(format!("the file is damaged: {missing:.1} of {promised:.1} seconds of {what} are missing")))
}

#[cfg(test)]
mod tests;
