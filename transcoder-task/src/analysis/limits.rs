//! Limits on uploads, with the source of each number.

use std::ops::RangeInclusive;

/// Most audio, video and subtitle tracks; more than any real video has. Attachments and data do not count.
pub(crate) const MOST_TRACKS: usize = 100;
/// Most tracks of all kinds in a movie header. FFmpeg refuses files with more.
pub(crate) const MOST_INDEXED_TRACKS: usize = 1000;
/// Most chapters; a film has about 30, an audio book some hundreds.
pub(crate) const MOST_CHAPTERS: usize = 1000;
/// Most characters of a title.
pub(crate) const LONGEST_TITLE: usize = 200;
/// Most channels of a track: the limit of FFmpeg's `pan` filter.
pub(crate) const MOST_CHANNELS: u32 = 64;
/// Most channels that FFmpeg can mix to stereo.
pub(crate) const MOST_MIXED_CHANNELS: u32 = 8;
/// Sample rates in Hz, from below telephone quality to the fastest converters.
pub(crate) const SAMPLE_RATES: RangeInclusive<u32> = 1_000..=768_000;
/// Longest side in pixels. FFmpeg's memory per frame is proportional to the area.
pub(crate) const LONGEST_SIDE: u32 = 8192;
/// Most pixels of a frame: 8K. A frame of 8192 × 8192 pixels of H.264 took FFmpeg 1.3 GB.
pub(crate) const MOST_PIXELS: u64 = 8192 * 4320;
/// Most frames of a video whose rate is above [`HIGHEST_FRAME_RATE`].
pub(crate) const MOST_FAST_FRAMES: u64 = 100_000;
/// Highest frame rate of a long video. High-speed cameras write more frames, but for playback at normal
/// rates. Ten million broken frames of a byte took FFmpeg more than three minutes.
pub(crate) const HIGHEST_FRAME_RATE: f64 = 1000.0;
/// Longest duration in seconds.
pub(crate) const MOST_SECONDS: f64 = 24.0 * 3600.0;
/// Largest size in bytes of a file in which many places are looked at before the plan. It is read from S3
/// within a second.
pub(crate) const SMALL_FILE: u64 = 32 << 20;
