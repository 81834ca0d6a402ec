//! The point in the source where an attempt resumes.

use super::segmentation::Boundaries;

/// FFmpeg starts to read this much before the first output. Audio decoders need a few packets to start, and
/// after a keyframe of an open GOP the first frames are broken.
pub(crate) const HEAD_START_SECONDS: f64 = 1.0;

/// The point where an attempt resumes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ResumePoint {
    /// The first interval to encode.
    pub(crate) interval: i64,
    /// FFmpeg's seek position in seconds.
    pub(crate) seek_seconds: f64,
    /// Presentation time of the first frame to encode, in seconds; 0 without video.
    pub(crate) video_seconds: f64,
    /// In the plan's order.
    pub(crate) audio: Vec<AudioResumePoint>,
    /// Number of the first still to take.
    pub(crate) still: usize,
}

/// The point where an audio track resumes, in samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AudioResumePoint {
    /// Start of the first packet to publish.
    pub(crate) first_ticks: u64,
    /// Start of the encoder's input, a whole number of packets earlier.
    pub(crate) fed_ticks: u64,
}

impl ResumePoint {
    /// A point for video alone, at a boundary.
    #[must_use]
    pub(crate) fn for_video(boundaries: &Boundaries, interval: i64) -> Self {
        let video_seconds = boundaries.start_seconds(interval);
        let seek_seconds = (video_seconds - HEAD_START_SECONDS).max(0.0);
        Self { interval, seek_seconds, video_seconds, audio: Vec::new(), still: 0 }
    }
}
