//! The audio renditions of a source.

use crate::{analysis::ffprobe::Media, config::profile::Profile};

use super::{language, model::AudioRendition};

/// Sound up to this rate is published as it is: what encoders make of stereo at their highest settings.
const COPY_STEREO_KBPS: u64 = 260;
/// Seconds at the picture's beginning and end that sound may lack before silence has to be added: players do
/// not stop for less.
const HOLE: f64 = 0.1;

/// Every track in stereo, and those of more channels in their own layout too.
pub(super) fn audio(media: &Media, copyable: &[usize], profile: &Profile) -> Vec<AudioRendition> {
    let tracks = &media.audio;
    let has_tables = media.format.starts_with("mov");
    let picture = media.video.as_ref().filter(|video| video.duration_seconds > 0.0);
    // Some files count what comes before the first frame in its track's length.
    let at_least_seconds = picture
        .map_or(0.0, |video| (video.start_seconds + video.duration_seconds).min(media.duration_seconds));
    let mut renditions: Vec<AudioRendition> = Vec::with_capacity(tracks.len());
    let described: Vec<_> =
        tracks.iter().map(|track| (track.language.as_deref(), track.title.as_deref())).collect();
    for (track, label) in tracks.iter().zip(language::labels(&described, "Audio")) {
        let end_seconds = track.start_seconds + track.duration_seconds;
        let covers_the_picture = track.start_seconds <= HOLE && end_seconds >= at_least_seconds - HOLE;
        // As it is only if nothing is to be changed, and if players are sure to take it.
        let copied = |most_kbps: u64| {
            profile.loudness.is_none()
                && covers_the_picture
                && copyable.contains(&track.index)
                // FFmpeg has looked into the frames, where HE-AAC may hide from the header.
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
            // Half of what two channels take, and what they save by what they have in common.
            1 => ("mono", 1, profile.audio_kbps * 3 / 4),
            _ => ("stereo", 2, profile.audio_kbps),
        };
        let as_it_is = track.channels <= 2 && copied(COPY_STEREO_KBPS);
        let stereo = AudioRendition {
            name: language::numbered(track.language.as_deref(), |name| {
                renditions.iter().any(|other| other.name == name)
            }),
            label,
            language: track.language.clone(),
            stream: track.index,
            default: track.role.default,
            sample_rate: sample_rate(as_it_is),
            channels,
            layout: (!as_it_is).then_some(layout),
            kbps,
            gain: None,
            duration_seconds: track.duration_seconds,
            begins_late: track.start_seconds > HOLE,
            start_seconds: track.start_seconds,
            end_seconds: if has_tables && track.duration_seconds > 0.0 { end_seconds } else { 0.0 },
            at_least_seconds,
        };
        let surround = surround(track.channel_layout.as_deref()).map(|(layout, channels, pairs)| {
            let as_it_is = copied(COPY_STEREO_KBPS * u64::from(pairs));
            AudioRendition {
                name: format!("{}-{layout}", stereo.name),
                sample_rate: sample_rate(as_it_is),
                channels,
                layout: (!as_it_is).then_some(layout),
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

/// The layouts that AAC carries and players know: FFmpeg's name, channels, and how many times stereo's rate
/// they need.
fn surround(layout: Option<&str>) -> Option<(&'static str, u32, u32)> {
    match layout? {
        "5.1" | "5.1(side)" => Some(("5.1", 6, 3)),
        "7.1" | "7.1(wide)" | "7.1(wide-side)" => Some(("7.1", 8, 4)),
        _ => None,
    }
}
