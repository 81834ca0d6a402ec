//! The point in the source where an attempt resumes.

use super::segmentation::Boundaries;

/// FFmpeg begins this much earlier than anything is wanted: decoders of sound need a few packets to get going, and behind
/// a keyframe that is no closed one (open GOP) the first pictures are broken.
pub(crate) const HEAD_START_SECONDS: f64 = 1.0;

/// Where to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct ResumePoint {
    /// The first interval between boundaries to be made.
    pub interval: i64,
    /// Where FFmpeg begins to read, in seconds.
    pub seek_seconds: f64,
    /// When the first frame is shown that is to be made, in seconds; without a picture 0.
    pub picture_seconds: f64,
    /// In the plan's order.
    pub sounds: Vec<AudioResumePoint>,
    /// The first still to be made.
    pub still: usize,
}

/// Where a track of sound goes on, in samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioResumePoint {
    /// The first packet to be published.
    pub first_ticks: u64,
    /// What the encoder is given begins here, a whole number of packets earlier.
    pub fed_ticks: u64,
}

impl ResumePoint {
    /// For the picture alone, at a keyframe.
    pub fn of_the_picture(boundaries: &Boundaries, interval: i64) -> Self {
        let picture_seconds = boundaries.start_seconds(interval);
        let seek_seconds = (picture_seconds - HEAD_START_SECONDS).max(0.0);
        Self { interval, seek_seconds, picture_seconds, sounds: Vec::new(), still: 0 }
    }
}
