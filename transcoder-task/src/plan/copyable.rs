//! The tracks of a source that may be copied instead of encoded.

use crate::{
    analysis::{
        ffprobe::{Audio, Media, Video},
        sample_index::{Content, FrameTime, Index},
    },
    config::profile::Codec,
};

use super::{
    colour::colour,
    keyframes::{choose, choose_encoded_prefix},
    model::VideoRendition,
    segmentation::Boundaries,
};

/// How much of a rung's cap a source may have on average to be published as it is: 8 Mbit/s for 1080p, which is
/// Mux's limit for what it copies. More would make viewers pay for what they do not see.
const COPY_AVERAGE: f64 = 0.7;
/// As [`COPY_AVERAGE`], for the busiest part.
const COPY_PEAK: f64 = 1.2;

/// What of a source may be published as it is, by its index.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Copyable {
    /// The picture.
    pub video: Option<CopyableVideo>,
    /// FFmpeg's stream indices of AAC-LC tracks.
    pub audio: Vec<usize>,
}

/// A picture that may be published as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyableVideo {
    /// Keyframes that segments can begin with.
    pub boundaries: Boundaries,
    /// Short segments instead of the first ones, if those are long, and the interval that the first keyframe behind them
    /// begins: what lies before it has to be encoded.
    pub encoded_prefix: Option<(Boundaries, i64)>,
    /// Over all of it.
    pub average_kbps: f64,
    /// Of its busiest part.
    pub peak_kbps: f64,
}

impl Copyable {
    /// What the index allows for, on the clock that FFmpeg's outputs have. Says in the log what it does not.
    pub fn new(index: &Index, media: &Media, segment_seconds: f64) -> Self {
        let content = |id: Option<u32>| id.and_then(|id| index.track(id)).map(|track| &track.content);
        let video = media.video.as_ref().and_then(|video| match content(video.id)? {
            Content::Video(Ok(copy)) => Some(copy),
            Content::Video(Err(reason)) => {
                tracing::info!("the picture has to be encoded: {reason}");
                None
            }
            Content::Audio(_) | Content::Other => None,
        });
        let on_the_streams_clock = |boundary: &FrameTime| FrameTime {
            at_seconds: boundary.at_seconds - media.start_seconds,
            before_seconds: boundary.before_seconds - media.start_seconds,
        };
        let video = video.and_then(|copy| {
            match choose(copy.keyframe_times(), copy.end_time().at_seconds, segment_seconds) {
                Ok(keyframes) => {
                    let at = |starts: &mut dyn Iterator<Item = &FrameTime>| {
                        let end = on_the_streams_clock(&copy.end_time());
                        Boundaries::at(starts.map(on_the_streams_clock).collect(), end, segment_seconds)
                    };
                    let encoded_prefix =
                        choose_encoded_prefix(copy.opening_times(), &keyframes, segment_seconds)
                            .filter(|_| copy.accepts_encoded_prefix);
                    Some(CopyableVideo {
                        boundaries: at(&mut keyframes.iter())?,
                        encoded_prefix: encoded_prefix.and_then(|(encoded_prefix, next)| {
                            let starts = at(&mut encoded_prefix.iter().chain(keyframes.iter().skip(next)))?;
                            Some((starts, encoded_prefix.len() as i64))
                        }),
                        average_kbps: copy.average_bitrate() as f64 / 1000.0,
                        peak_kbps: copy.peak_bitrate() as f64 / 1000.0,
                    })
                }
                Err(reason) => {
                    tracing::info!("the picture has to be encoded: {reason}");
                    None
                }
            }
        });
        let copyable = |track: &&Audio| matches!(content(track.id), Some(Content::Audio(Ok(_))));
        let audio = media.audio.iter().filter(copyable).map(|track| track.index).collect();
        Self { video, audio }
    }
}

/// Whether a source is already what a rung would be made into.
pub(super) fn may_be_copied(video: &Video, copy: &CopyableVideo, rung: &VideoRendition) -> bool {
    let cap = f64::from(rung.max_kbps);
    rung.codec == Codec::H264
        && (rung.width, rung.height) == (video.width, video.height)
        && video.rotation == 0
        && !video.interlaced
        && video.pixel_format == "yuv420p"
        && colour(video).is_ordinary()
        && copy.average_kbps <= cap * COPY_AVERAGE
        && copy.peak_kbps <= cap * COPY_PEAK
}
