//! The tracks that may be copied, with the sample data that the plan needs.

use futures::{StreamExt, TryStreamExt, stream};
use mp4_atom::{Avcc, Esds};
use vidstreamx_isobmff::boxes::{
    audio_entry_boxes, decode, decode_required, find, require, visual_entry_boxes,
};

use crate::{source::loopback::Input, store::S3Error};

use super::{
    aac::aac_lc,
    h264::{accepts_encoded_prefix, check_avcc, departure, refreshes, repeats_parameter_sets},
    h264_level::{Demand, lower_level},
    limits::SMALL_FILE,
    not_copyable::{NotCopyable, why},
    sample_entry::entry,
    sample_table::{Edit, Tables},
};

/// Most keyframes: ten per second for 24 hours.
const MOST_KEYFRAMES: usize = 1_000_000;
/// Largest `esds` box in bytes. Its descriptors are decoded recursively; 1 KB is 20 times the usual size.
const LARGEST_ESDS: usize = 1 << 10;
/// Longest priming of audio: FFmpeg starts to decode at most this many seconds before an edit.
const LONGEST_PRIMING_SECONDS: i64 = 1;
/// Number of keyframes that are checked in a large file, all at the same time.
const CHECKED_KEYFRAMES: usize = 8;
/// Number of keyframes that are checked in a file of at most [`SMALL_FILE`]: those of several minutes.
const CHECKED_KEYFRAMES_OF_SMALL_FILE: usize = 64;
/// Bytes to read of a keyframe. Parameter sets, captions and encoder settings precede its slices and usually
/// take 1 KB.
const KEYFRAME_READ: u64 = 16 << 10;
/// Seconds at the beginning of the source whose frame times are kept. An encoded prefix replaces at most the
/// first two segments, of 10.5 s each.
pub(crate) const OPENING_SECONDS: f64 = 21.0;
/// Shortest duration over which the peak rate is measured. A player's buffer absorbs shorter peaks.
const PEAK_SECONDS: f64 = 2.0;

/// The time of a frame. In this module it is on the clock of FFmpeg's input, in the plan on the clock of
/// FFmpeg's outputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FrameTime {
    /// Presentation time in seconds.
    pub(crate) at_seconds: f64,
    /// Presentation time of the previous frame; equal to `at_seconds` for the first frame.
    pub(crate) before_seconds: f64,
}

impl FrameTime {
    /// Midpoint between the previous frame and this one. Comparing times with it tolerates the rounding of
    /// clocks.
    #[must_use]
    pub(crate) fn threshold(&self) -> f64 {
        f64::midpoint(self.at_seconds, self.before_seconds)
    }
}

/// An 8-bit 4:2:0 H.264 track. The file has all of its frames, and each is shown once.
///
/// Times are FFmpeg's presentation times in ticks of the track's clock: after edit lists, but before the
/// `ffmpeg` program moves the earliest track's start to 0.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CopyableVideo {
    /// `profile_idc`: 66 (Baseline), 77 (Main) or 100 (High).
    pub(crate) profile: u8,
    /// `level_idc`: 41 is level 4.1.
    pub(crate) level: u8,
    /// The level to state instead, if it is lower and devices may refuse the track's own.
    pub(crate) lower_level: Option<u8>,
    /// Bytes of the length field before each NAL unit.
    pub(crate) nal_length_size: u8,
    /// The sample entry's sequence parameter sets.
    pub(crate) sequence_parameter_sets: Vec<Vec<u8>>,
    /// True if an encoded prefix, whose parameter sets have the id [`super::h264::PREFIX_PARAMETER_SETS`],
    /// can precede the track.
    pub(crate) accepts_encoded_prefix: bool,
    /// Ticks per second.
    pub(crate) timescale: u32,
    /// Number of frames.
    pub(crate) samples: u32,
    /// Bytes of all frames.
    pub(crate) bytes: u64,
    /// Time of the last frame in ticks.
    pub(crate) last: i64,
    /// End of the last frame in ticks.
    pub(crate) end: i64,
    /// Longest time in ticks from a frame to the next, or to the end.
    pub(crate) longest_frame: i64,
    /// In order. The first frame is a closed keyframe.
    pub(crate) keyframes: Vec<Keyframe>,
    /// Times of the frames of the first [`OPENING_SECONDS`] in ticks, in order.
    pub(crate) opening: Vec<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keyframe {
    /// Presentation time in ticks.
    pub(crate) at: i64,
    /// Latest presentation time, in ticks, of the frames stored before it; for the first keyframe, its own
    /// time.
    pub(crate) before: i64,
    /// True if every frame stored before it is presented before it, and every frame stored after it is
    /// presented after it.
    pub(crate) closed: bool,
    /// Offset in the file in bytes.
    pub(crate) offset: u64,
    /// Bytes of the track's samples that precede it.
    pub(crate) bytes_before: u64,
}

/// An AAC-LC track with frames of 1024 samples, without gaps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CopyableAudio {
    /// AAC's channel configuration: the number of channels, except 7 for 8 channels.
    pub(crate) channels: u8,
    /// Sample rate in Hz.
    pub(crate) sample_rate: u32,
    /// Number of AAC frames.
    pub(crate) frames: u32,
    /// Bytes of all frames.
    pub(crate) bytes: u64,
    /// Time of the first audible sample in seconds, on the clock of [`CopyableVideo`].
    pub(crate) start_seconds: f64,
    /// End of the last sample in seconds, on the same clock.
    pub(crate) end_seconds: f64,
    /// Number of samples before the first audible one.
    pub(crate) primed_samples: u64,
    /// Average bits per second.
    pub(crate) average_bitrate: u64,
}

/// Properties of the file that matter for all tracks.
pub(super) struct Movie {
    pub(super) timescale: u32,
    pub(super) fragmented: bool,
    pub(super) priming_tag: bool,
    /// Size in bytes.
    pub(super) file_size: u64,
}

impl CopyableVideo {
    /// Converts ticks to seconds.
    #[must_use]
    pub(crate) fn seconds(&self, ticks: i64) -> f64 {
        ticks as f64 / f64::from(self.timescale)
    }

    /// Duration of all frames in seconds.
    #[must_use]
    pub(crate) fn duration_seconds(&self) -> f64 {
        self.seconds(self.end - self.start())
    }

    /// Longest time from a frame to the next, or to the end.
    #[must_use]
    pub(crate) fn longest_frame_seconds(&self) -> f64 {
        self.seconds(self.longest_frame)
    }

    /// Average bits per second.
    #[must_use]
    pub(crate) fn average_bitrate(&self) -> u64 {
        bitrate(self.bytes, self.duration_seconds())
    }

    /// Highest rate in bits per second between closed keyframes that are at least [`PEAK_SECONDS`] apart.
    #[must_use]
    pub(crate) fn peak_bitrate(&self) -> u64 {
        let ends = self.closed().map(|keyframe| (keyframe.at, keyframe.bytes_before));
        let mut ends = ends.chain([(self.end, self.bytes)]).peekable();
        let rates = self.closed().filter_map(|from| {
            let length = |at: i64| self.seconds(at - from.at);
            while ends.next_if(|(at, _)| length(*at) < PEAK_SECONDS).is_some() {}
            let (at, bytes) = ends.peek()?;
            Some(bitrate(bytes - from.bytes_before, length(*at)))
        });
        // The rest at the end may be too short to be measured alone, so only the average includes it.
        rates.max().unwrap_or_default().max(self.average_bitrate())
    }

    /// Times of the closed keyframes. The track can be cut there, because no frame depends on a frame on the
    /// other side.
    pub(crate) fn keyframe_times(&self) -> impl Iterator<Item = FrameTime> + Clone {
        self.closed().map(|keyframe| FrameTime {
            at_seconds: self.seconds(keyframe.at),
            before_seconds: self.seconds(keyframe.before),
        })
    }

    /// Times of the frames in the first [`OPENING_SECONDS`], except the first frame's.
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

    pub(super) fn start(&self) -> i64 {
        self.keyframes.first().map_or(0, |keyframe| keyframe.at)
    }

    pub(super) fn closed(&self) -> impl Iterator<Item = &Keyframe> + Clone {
        self.keyframes.iter().filter(|keyframe| keyframe.closed)
    }

    /// Reads keyframes and checks that each is an instantaneous decoder refresh, because segments can only
    /// begin at one, and that the frames do not change there. Some encoders also mark other frames as sync
    /// samples. A small file is checked at up to [`CHECKED_KEYFRAMES_OF_SMALL_FILE`] places, a large one at
    /// [`CHECKED_KEYFRAMES`]. The segmenter checks all of them when it copies them.
    ///
    /// # Errors
    /// S3 fails. The inner error is the reason why the track cannot be copied.
    pub(super) async fn check_keyframes(&self, input: &Input) -> Result<Result<(), NotCopyable>, S3Error> {
        let closed: Vec<_> = self.closed().collect();
        let most = if self.bytes <= SMALL_FILE { CHECKED_KEYFRAMES_OF_SMALL_FILE } else { CHECKED_KEYFRAMES };
        let step = closed.len().div_ceil(most).max(1);
        let offsets: Vec<u64> = closed.iter().step_by(step).map(|keyframe| keyframe.offset).collect();
        let reads = stream::iter(offsets).map(|offset| input.bytes(offset, offset + KEYFRAME_READ));
        let checks = reads.buffered(CHECKED_KEYFRAMES).map_ok(|bytes| {
            let bytes = bytes.unwrap_or_default();
            match departure(&bytes, self.nal_length_size, &self.sequence_parameter_sets) {
                Some(reason) => why(format!("it {reason}")),
                None if !refreshes(&bytes, self.nal_length_size) => {
                    why("its keyframes depend on earlier frames")
                }
                None if self.lower_level.is_some()
                    && repeats_parameter_sets(&bytes, self.nal_length_size) =>
                {
                    why("it states a level that devices refuse, in its keyframes too")
                }
                None => Ok(()),
            }
        });
        let all: Vec<_> = checks.try_collect().await?;
        Ok(all.into_iter().collect())
    }
}

fn bitrate(bytes: u64, seconds: f64) -> u64 {
    if seconds > 0.0 { (bytes as f64 * 8.0 / seconds).round() as u64 } else { 0 }
}

pub(super) fn video(
    entries: &[u8],
    tables: impl FnOnce() -> Result<Tables, NotCopyable>,
    movie: &Movie,
) -> Result<CopyableVideo, NotCopyable> {
    let (kind, entry) = entry(entries)?;
    if kind != *b"avc1" {
        return why(format!("it is {} and not avc1", kind.escape_ascii()));
    }
    let children = visual_entry_boxes(entry);
    // Newer versions of FFmpeg apply the crop when they decode, older versions do not.
    if find(children, *b"clap")?.is_some() {
        return why("it has a crop box");
    }
    let avcc: Avcc = decode_required(children)?;
    check_avcc(&avcc)?;
    let tables = tables()?;

    let mut keyframes: Vec<Keyframe> = Vec::new();
    // Indices of the keyframes that are closed so far; their times increase.
    let mut closed: Vec<usize> = Vec::new();
    let mut times = Vec::with_capacity(tables.samples as usize);
    let (mut bytes, mut latest, mut end) = (0_u64, i64::MIN, 0);
    // A last frame without a duration gets the duration of the previous frame.
    let mut ticks = 1;
    tables.walk(movie.file_size, |sample| {
        if sample.size == 0 {
            return why("some of its frames are empty");
        }
        if sample.ticks == 0 && sample.number < tables.samples {
            return why("some of its frames have no duration");
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
        return why("its first frame is not a closed keyframe");
    }
    let reordered = reordered(&times);
    times.sort_unstable();
    if times.windows(2).any(|pair| pair[0] == pair[1]) {
        return why("two of its frames are shown at the same time");
    }
    let (first, last) = (times.first().copied().unwrap_or(0), latest);
    let longest_frame = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0).max(end - last);
    // FFmpeg presents the first frame at the start of the edit, even if the edit begins before that frame.
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
    let frames_per_second = most_within(&times, i64::from(tables.timescale));
    let opening_ticks = (OPENING_SECONDS * f64::from(tables.timescale)) as i64;
    times.truncate(times.partition_point(|at| at - first < opening_ticks));
    times.iter_mut().for_each(|at| *at += shift);
    times.shrink_to_fit();
    let mut copyable = CopyableVideo {
        lower_level: None,
        profile: avcc.avc_profile_indication,
        level: avcc.avc_level_indication,
        nal_length_size: avcc.length_size,
        sequence_parameter_sets: avcc.sequence_parameter_sets.clone(),
        accepts_encoded_prefix: accepts_encoded_prefix(&avcc),
        timescale: tables.timescale,
        samples: tables.samples,
        bytes,
        last: last + shift,
        end: end + shift,
        longest_frame,
        keyframes,
        opening: times,
    };
    let demand = Demand { frames_per_second, bitrate: copyable.peak_bitrate(), reordered };
    copyable.lower_level = lower_level(&avcc, demand);
    Ok(copyable)
}

/// Most times within a span, for times in order.
fn most_within(times: &[i64], span: i64) -> u64 {
    let mut end = 0;
    let counts = times.iter().enumerate().map(|(first, start)| {
        while times.get(end).is_some_and(|time| time - start < span) {
            end += 1;
        }
        end - first
    });
    counts.max().unwrap_or(0) as u64
}

/// Most frames that precede a frame in the file and follow it in presentation order, up to the 16 that a
/// decoder can hold.
fn reordered(times: &[i64]) -> u32 {
    const MOST: usize = 16;
    // The latest frames before the current one, the latest first.
    let mut latest: Vec<i64> = Vec::with_capacity(MOST + 1);
    let mut most = 0;
    for time in times {
        let position = latest.iter().position(|other| other < time).unwrap_or(latest.len());
        most = most.max(position);
        latest.insert(position, *time);
        latest.truncate(MOST);
    }
    most as u32
}

pub(super) fn audio(
    entries: &[u8],
    tables: impl FnOnce() -> Result<Tables, NotCopyable>,
    movie: &Movie,
) -> Result<CopyableAudio, NotCopyable> {
    let (kind, entry) = entry(entries)?;
    if kind != *b"mp4a" {
        return why(format!("it is {} and not mp4a", kind.escape_ascii()));
    }
    let children = audio_entry_boxes(entry);
    // QuickTime wraps the descriptor in a `wave` box.
    let children = find(children, *b"wave")?.unwrap_or(children);
    let esds = require(children, *b"esds")?;
    if esds.len() > LARGEST_ESDS {
        return why("its esds box is too long");
    }
    let config = decode::<Esds>(esds)?.es_desc.dec_config;
    let specific = config.dec_specific.map(|specific| specific.raw).unwrap_or_default();
    if config.object_type_indication != 0x40 {
        return why("it is not AAC");
    }
    let (channels, sample_rate) = aac_lc(&specific)?;
    let tables = tables()?;

    if tables.edit.is_none() && movie.priming_tag {
        return why("its priming is in a tag instead of an edit list");
    }
    let timescale = i64::from(tables.timescale);
    let frame_ticks = |ticks: u32| i64::from(ticks) * i64::from(sample_rate) == 1024 * timescale;
    let (mut bytes, mut end) = (0_u64, 0);
    tables.walk(movie.file_size, |sample| {
        if !frame_ticks(sample.ticks) && sample.number < tables.samples {
            return why("some of its frames do not last 1024 samples");
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
        return why("its edit list leaves out more than a second at the start");
    }
    let audible = edit.to.min(end) - edit.from;
    if audible <= 0 {
        return why("its edit list leaves out everything");
    }
    let seconds = |ticks: i64| ticks as f64 / timescale as f64;
    Ok(CopyableAudio {
        channels,
        sample_rate,
        frames: tables.samples,
        bytes,
        start_seconds: seconds(edit.pause),
        end_seconds: seconds(edit.pause + audible),
        primed_samples: u64::try_from(edit.from * i64::from(sample_rate) / timescale).unwrap_or(0),
        average_bitrate: bitrate(bytes, seconds(end)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demand_of_frames() {
        assert_eq!(most_within(&[0, 10, 20, 100, 101, 102, 103], 20), 4);
        assert_eq!(most_within(&[], 20), 0);
        assert_eq!(reordered(&[0, 1, 2, 3]), 0);
        assert_eq!(reordered(&[0, 3, 1, 2, 6, 4, 5]), 1);
        assert_eq!(reordered(&[0, 4, 2, 1, 3]), 2);
        assert_eq!(reordered(&(0..100).rev().collect::<Vec<_>>()), 16);
    }
}
