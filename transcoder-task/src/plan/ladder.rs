//! The ladder: the rungs for a source.

use crate::{
    analysis::media::Video,
    config::profile::{Codec, Profile, Rung},
};

use super::model::{Encoding, VideoRendition};

/// Above this frame rate a rung's maximum rate is raised by half.
const HIGH_FRAME_RATE: f64 = 31.0;
/// Longest side of a rung in pixels: the width limit of H.264 level 5.2 at 16:9.
const LONGEST_SIDE: f64 = 4096.0;

/// For each codec, the profile's rungs that are not larger than the source, else one rung of the source's
/// size.
#[must_use]
pub(super) fn ladder(video: &Video, profile: &Profile) -> Vec<VideoRendition> {
    let (width, height) = video.display_size();
    let (short, long) = (width.min(height), width.max(height));
    let mut sorted: Vec<&Rung> = profile.rungs.iter().collect();
    sorted.sort_by_key(|rung| (rung.codec, std::cmp::Reverse(rung.size)));
    let mut chosen: Vec<(u32, &Rung)> = Vec::with_capacity(sorted.len());
    for rungs in sorted.chunk_by(|one, other| one.codec == other.codec) {
        let too_large = rungs.partition_point(|rung| f64::from(rung.size) > short.round());
        match (rungs.split_at(too_large), rungs.last()) {
            ((_, []), Some(smallest)) => chosen.push((even_down(short), smallest)),
            ((_, fitting), _) => chosen.extend(fitting.iter().map(|rung| (rung.size, *rung))),
        }
    }
    chosen
        .into_iter()
        .map(|(size, rung)| {
            let scale = (f64::from(size) / short).min(LONGEST_SIDE / long);
            let high_rate = video.frame_rate > HIGH_FRAME_RATE;
            VideoRendition {
                name: match rung.codec {
                    Codec::H264 => format!("{size}p"),
                    codec => format!("{size}p-{}", codec.name()),
                },
                codec: rung.codec,
                width: even(width * scale, width),
                height: even(height * scale, height),
                frame_rate: video.frame_rate,
                max_kbps: if high_rate { rung.max_kbps * 3 / 2 } else { rung.max_kbps },
                encoding: Some(Encoding {
                    crf: rung.crf,
                    preset: rung.preset().to_owned(),
                    params: rung.params().to_owned(),
                }),
                encoded_prefix: None,
                level: None,
            }
        })
        // Very tall or wide video has the same size in several rungs.
        .fold(Vec::new(), |mut rungs: Vec<VideoRendition>, rung| {
            let same = |other: &VideoRendition| {
                (other.codec, other.width, other.height) == (rung.codec, rung.width, rung.height)
            };
            if !rungs.iter().any(same) {
                rungs.push(rung);
            }
            rungs
        })
}

/// The nearest even size, but not above the source's size rounded up to whole pixels.
fn even(pixels: f64, source: f64) -> u32 {
    let nearest = ((pixels / 2.0).round() * 2.0) as u32;
    nearest.min(even_down(source.ceil())).max(2)
}

fn even_down(pixels: f64) -> u32 {
    ((pixels / 2.0 + 1e-6).floor() * 2.0).max(2.0) as u32
}
