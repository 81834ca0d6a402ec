//! The audio renditions of a source.

use crate::{analysis::media::Media, config::profile::Profile};

use super::{language, model::AudioRendition};

/// Highest bit rate of a copied stereo track: encoders' highest settings.
const COPY_STEREO_KBPS: u64 = 260;
/// Longest gap in the audio, in seconds at the start or end of the stream, that is not filled with silence.
/// Players do not stop at shorter gaps.
pub(super) const MAX_GAP_SECONDS: f64 = 0.1;

/// A stereo rendition of every track (mono for a mono track), and a surround rendition of tracks with a
/// surround layout.
#[must_use]
pub(super) fn audio(media: &Media, copyable: &[usize], profile: &Profile) -> Vec<AudioRendition> {
    let tracks = &media.audio;
    // Every rendition lasts to the end of the stream.
    let at_least_seconds = media.duration_seconds;
    let mut renditions: Vec<AudioRendition> = Vec::with_capacity(tracks.len());
    let described: Vec<_> =
        tracks.iter().map(|track| (track.language.as_deref(), track.title.as_deref())).collect();
    for (track, label) in tracks.iter().zip(language::labels(&described, "Audio")) {
        let end_seconds = track.start_seconds + track.duration_seconds;
        let covers_the_stream =
            track.start_seconds <= MAX_GAP_SECONDS && end_seconds >= at_least_seconds - MAX_GAP_SECONDS;
        // Copied only if nothing must change, and if all players decode it.
        let copied = |most_kbps: u64| {
            profile.loudness.is_none()
                && covers_the_stream
                && copyable.contains(&track.index)
                && track.right.is_none()
                // FFmpeg takes the profile from the frames. The header may not reveal HE-AAC.
                && track.profile.as_deref() == Some("LC")
                && (32_000..=48_000).contains(&track.sample_rate)
                && (1..=most_kbps * 1000).contains(&track.bit_rate)
        };
        let sample_rate = |copied: bool| match track.sample_rate {
            rate if copied => rate,
            44_100 => 44_100,
            _ => 48_000,
        };
        let (layout, channels, kbps) = match track.channels {
            // Half of stereo's rate would be too little, because stereo's channels share information.
            1 => ("mono", 1, profile.audio_kbps * 3 / 4),
            _ => ("stereo", 2, profile.audio_kbps),
        };
        let is_copied = track.channels <= 2 && copied(COPY_STEREO_KBPS);
        let stereo = AudioRendition {
            name: language::numbered(track.language.as_deref(), renditions.iter().map(|other| &other.name)),
            label,
            language: track.language.clone(),
            stream: track.index,
            right: track.right,
            downmix: track.downmix.clone(),
            role: track.role,
            sample_rate: sample_rate(is_copied),
            channels,
            layout: (!is_copied).then_some(layout),
            kbps,
            gain: None,
            duration_seconds: track.duration_seconds,
            begins_late: track.start_seconds > MAX_GAP_SECONDS,
            start_seconds: track.start_seconds,
            end_seconds: if track.is_measured { end_seconds } else { 0.0 },
            at_least_seconds,
        };
        let surround = surround(track.channel_layout.as_deref()).map(|(layout, channels, pairs)| {
            let is_copied = copied(COPY_STEREO_KBPS * u64::from(pairs));
            AudioRendition {
                name: format!("{}-{layout}", stereo.name),
                sample_rate: sample_rate(is_copied),
                channels,
                layout: (!is_copied).then_some(layout),
                kbps: profile.audio_kbps * pairs,
                ..stereo.clone()
            }
        });
        renditions.push(stereo);
        renditions.extend(surround);
    }
    renditions.sort_by_key(|rendition| rendition.channels > 2);
    renditions
}

/// Surround layouts that AAC carries and players support: FFmpeg's name, channels, and the rate as a multiple
/// of stereo's.
fn surround(layout: Option<&str>) -> Option<(&'static str, u32, u32)> {
    match layout? {
        "5.1" | "5.1(side)" => Some(("5.1", 6, 3)),
        "7.1" | "7.1(wide)" | "7.1(wide-side)" => Some(("7.1", 8, 4)),
        _ => None,
    }
}
