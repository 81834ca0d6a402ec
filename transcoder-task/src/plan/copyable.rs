//! The tracks of a source that may be copied instead of encoded.

use crate::{
    analysis::{
        copyable_tracks::{CopyableVideo, FrameTime},
        media::{Audio, Media, Video},
        sample_index::{Content, Index},
    },
    config::profile::Codec,
};

use super::{
    colour::colour,
    keyframes::{choose, choose_encoded_prefix},
    model::VideoRendition,
    segmentation::Boundaries,
};

/// Largest average rate of a copied source, as a share of the rung's maximum rate: 8.4 Mbit/s for 1080p.
/// Mux's limit for copying is 8 Mbit/s. A higher rate would cost viewers bandwidth without visible gain.
const COPY_AVERAGE: f64 = 0.7;
/// As [`COPY_AVERAGE`], for the peak rate.
const COPY_PEAK: f64 = 1.2;

/// The tracks of a source that may be copied according to its sample index.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Copyable {
    pub(crate) video: Option<CopyPlan>,
    /// FFmpeg's stream indices of AAC-LC tracks.
    pub(crate) audio: Vec<usize>,
    /// Longest time between two frames of the video track, if the sample index tells.
    pub(crate) longest_frame_seconds: Option<f64>,
}

/// The way in which a video track is copied if a rung accepts it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CopyPlan {
    /// Segment boundaries at the source's keyframes.
    pub(crate) boundaries: Boundaries,
    /// Boundaries with short first segments, and the interval of the first copied keyframe; absent if the
    /// keyframes already allow short first segments. The frames before that keyframe must be encoded.
    pub(crate) encoded_prefix: Option<(Boundaries, i64)>,
    pub(crate) average_kbps: f64,
    pub(crate) peak_kbps: f64,
    /// The H.264 level to state instead of the source's.
    pub(crate) level: Option<u8>,
}

impl Copyable {
    /// The tracks that may be copied according to the sample index, with times on the clock of FFmpeg's
    /// outputs. Logs the reason if the video track must be encoded.
    pub(crate) fn new(index: &Index, media: &Media, segment_seconds: f64) -> Self {
        let content = |id: Option<u32>| id.and_then(|id| index.track(id)).map(|track| &track.content);
        let video = media.video.as_ref().and_then(|video| match content(video.id)? {
            Content::Video(Ok(copy)) => Some(copy),
            Content::Video(Err(reason)) => {
                tracing::info!("the video track must be encoded: {reason}");
                None
            }
            Content::Audio(_) | Content::Other => None,
        });
        let longest_frame_seconds = video.map(CopyableVideo::longest_frame_seconds);
        let on_output_clock = |boundary: &FrameTime| FrameTime {
            at_seconds: boundary.at_seconds - media.start_seconds,
            before_seconds: boundary.before_seconds - media.start_seconds,
        };
        let video = video.and_then(|copy| {
            match choose(copy.keyframe_times(), copy.end_time().at_seconds, segment_seconds) {
                Ok(keyframes) => {
                    let at = |starts: &mut dyn Iterator<Item = &FrameTime>| {
                        let end = on_output_clock(&copy.end_time());
                        Boundaries::at(starts.map(on_output_clock).collect(), end, segment_seconds)
                    };
                    let encoded_prefix =
                        choose_encoded_prefix(copy.opening_times(), &keyframes, segment_seconds)
                            .filter(|_| copy.accepts_encoded_prefix);
                    Some(CopyPlan {
                        boundaries: at(&mut keyframes.iter())?,
                        encoded_prefix: encoded_prefix.and_then(|(encoded_prefix, next)| {
                            let starts = at(&mut encoded_prefix.iter().chain(keyframes.iter().skip(next)))?;
                            Some((starts, encoded_prefix.len() as i64))
                        }),
                        average_kbps: copy.average_bitrate() as f64 / 1000.0,
                        peak_kbps: copy.peak_bitrate() as f64 / 1000.0,
                        level: copy.lower_level,
                    })
                }
                Err(reason) => {
                    tracing::info!("the video track must be encoded: {reason}");
                    None
                }
            }
        });
        let copyable = |track: &&Audio| matches!(content(track.id), Some(Content::Audio(Ok(_))));
        let audio = media.audio.iter().filter(copyable).map(|track| track.index).collect();
        Self { video, audio, longest_frame_seconds }
    }
}

/// Returns true if a source already has the properties of a rung, and a rate near the rung's maximum or
/// below it.
#[must_use]
pub(super) fn fits_rung(video: &Video, copy: &CopyPlan, rung: &VideoRendition) -> bool {
    let cap = f64::from(rung.max_kbps);
    rung.codec == Codec::H264
        && (rung.width, rung.height) == (video.width, video.height)
        && !video.transformed
        && !video.changes
        && !video.interlaced
        && video.pixel_format == "yuv420p"
        && colour(video).needs_no_conversion()
        && copy.average_kbps <= cap * COPY_AVERAGE
        && copy.peak_kbps <= cap * COPY_PEAK
}
