//! Builds the plan: a pure function of the source's tracks, its sample index and the profile.

use crate::{
    analysis::media::{Media, Subtitle, Video},
    config::profile::Profile,
};

use super::{
    audio::audio,
    colour::{colour, over_black},
    copyable::{Copyable, fits_rung},
    hold::{Hold, REPEAT_RATE},
    ladder::ladder,
    language,
    model::{EncodedPrefix, FrameShape, Picture, Plan, SubtitleRendition},
    segmentation::Boundaries,
};

/// Change of the rate factor of encoded rungs beside a copied one. They use the source's keyframes, which are
/// usually fewer than their own would be. Keyframes have a higher quality, from which the frames after them
/// profit; a lower rate factor makes up for fewer keyframes (measured in VMAF).
const CRF_WITH_FEWER_KEYFRAMES: f64 = -0.5;

impl Plan {
    /// Builds the plan for a source.
    #[must_use]
    pub(crate) fn new(media: &Media, copyable: &Copyable, profile: &Profile) -> Self {
        let video = media.video.as_ref();
        let hold =
            video.and_then(|video| Hold::new(video, copyable.longest_frame_seconds, media.duration_seconds));
        let mut rungs = video.map(|video| ladder(video, profile)).unwrap_or_default();
        if hold.is_some() {
            for rung in &mut rungs {
                rung.frame_rate = rung.frame_rate.max(REPEAT_RATE.into());
            }
        }
        // A single copied rung needs no encoded prefix: it is published immediately.
        let players_would_wait = profile.grows() && rungs.len() > 1;
        let boundaries_of_copy = match (video, &copyable.video, rungs.first_mut()) {
            (Some(video), Some(copy), Some(top)) if hold.is_none() && fits_rung(video, copy, top) => {
                let encoded_prefix = copy.encoded_prefix.as_ref().filter(|_| players_would_wait);
                let peak_kbps = copy.peak_kbps.ceil() as u32;
                top.level = copy.level;
                // A rung without an encoding is copied.
                let encoding = top.encoding.take();
                top.encoded_prefix = encoding
                    .zip(encoded_prefix)
                    .map(|(encoding, (_, until))| EncodedPrefix { until: *until, encoding });
                // The encoded prefix of a source with a very low rate may need the rung's normal maximum.
                top.max_kbps =
                    if top.encoded_prefix.is_some() { peak_kbps.max(top.max_kbps) } else { peak_kbps };
                for encoding in rungs.iter_mut().filter_map(|rung| rung.encoding.as_mut()) {
                    encoding.crf = (encoding.crf + CRF_WITH_FEWER_KEYFRAMES).max(0.0);
                }
                Some(encoded_prefix.map_or(&copy.boundaries, |(boundaries, _)| boundaries).clone())
            }
            _ => None,
        };
        let frame_rate = video.map_or(0.0, |video| video.frame_rate);
        let grid = || Boundaries::every(profile.segment_seconds, frame_rate, media.duration_seconds);
        Self {
            picture: video.map(|video| picture(video, hold, media.duration_seconds)),
            rungs,
            audio: audio(media, &copyable.audio, profile),
            subtitles: subtitles(&media.subtitles),
            boundaries: boundaries_of_copy.unwrap_or_else(grid),
            duration_seconds: media.duration_seconds,
        }
    }
}

fn picture(video: &Video, hold: Option<Hold>, stream_seconds: f64) -> Picture {
    let begins_black = hold.as_ref().is_some_and(|hold| hold.black_until_seconds.is_some());
    Picture {
        stream: video.index,
        shape: FrameShape {
            size: (video.width, video.height),
            pixel_aspect: video.pixel_aspect,
            orientation: video.orientation,
        },
        deinterlace: video.interlaced,
        decoder: video.decoder,
        alpha: over_black(&video.pixel_format),
        colour: colour(video),
        time_base: hold.as_ref().map_or_else(|| refined(&video.time_base), Hold::time_base),
        timescale: video
            .time_base
            .split_once('/')
            .and_then(|(_, ticks)| ticks.parse().ok())
            .unwrap_or(90_000),
        start_seconds: if begins_black { 0.0 } else { video.start_seconds },
        end_seconds: match video.duration_seconds {
            _ if hold.is_some() => stream_seconds,
            unknown if unknown <= 0.0 => 0.0,
            known => video.start_seconds + known,
        },
        duration_seconds: video.duration_seconds,
        hold,
        frames: video.frames,
    }
}

/// A time base whose ticks are short enough to express a time between two frames. Some sources have one tick
/// per frame.
fn refined(time_base: &str) -> String {
    const TICKS_PER_SECOND: u64 = 10_000;
    let parsed =
        time_base.split_once('/').and_then(|(n, d)| Some((n.parse::<u64>().ok()?, d.parse::<u64>().ok()?)));
    match parsed {
        Some((numerator @ 1.., denominator @ 1..)) => {
            let times = (TICKS_PER_SECOND.saturating_mul(numerator)).div_ceil(denominator);
            format!("{numerator}/{}", denominator.saturating_mul(times))
        }
        _ => "1/90000".to_owned(),
    }
}

fn subtitles(tracks: &[Subtitle]) -> Vec<SubtitleRendition> {
    let described: Vec<_> =
        tracks.iter().map(|track| (track.language.as_deref(), track.title.as_deref())).collect();
    let mut renditions: Vec<SubtitleRendition> = Vec::with_capacity(tracks.len());
    for (track, label) in tracks.iter().zip(language::labels(&described, "Subtitles")) {
        renditions.push(SubtitleRendition {
            name: language::numbered(track.language.as_deref(), renditions.iter().map(|other| &other.name)),
            label,
            language: track.language.clone(),
            stream: track.index,
            role: track.role,
            is_ass: matches!(track.codec.as_str(), "ass" | "ssa"),
        });
    }
    renditions
}
