//! Builds the manifests of a stream from the state of its renditions.

use crate::{
    package::{
        file_names, hls,
        presentation::{AudioTrack, Presentation, Variant},
    },
    plan::language,
    store::{CachePolicy, Store, StoreError},
};

use super::track::{Planned, Rating, SubtitleTrack, Track};

/// The target duration of all playlists of a stream.
#[must_use]
pub(super) fn target_duration(planned_seconds: f64, tracks: &[Track]) -> u64 {
    hls::target_duration(planned_seconds, tracks.iter().map(|track| &track.timeline))
}

/// Writes the media playlist of a rendition: its announced segments while it grows, all of them at the end.
///
/// # Errors
/// The store fails.
pub(super) async fn write_media_playlist(
    store: &Store,
    track: &Track,
    target_seconds: u64,
    finished: bool,
) -> Result<(), StoreError> {
    let (timeline, policy) = if finished {
        (track.timeline.clone(), CachePolicy::FinalPlaylist)
    } else {
        (track.timeline.first(track.announced), CachePolicy::GrowingPlaylist)
    };
    let text = hls::media(&timeline, target_seconds, finished);
    store.put(&format!("{}/{}", track.folder, file_names::MEDIA_NAME), policy, text.into()).await?;
    Ok(())
}

/// Writes the I-frame playlists of rungs, and the playlists of subtitles.
///
/// # Errors
/// The store fails.
pub(super) async fn write_side_playlists(
    store: &Store,
    tracks: &[Track],
    subtitles: &[SubtitleTrack],
    target: u64,
) -> Result<(), StoreError> {
    let rungs = tracks.iter().filter(|track| matches!(track.rendition, Planned::Video(_)));
    let i_frames = rungs.map(|track| {
        let path = format!("{}/{}", track.folder, file_names::I_FRAMES_NAME);
        (path, hls::i_frames(&track.timeline, target))
    });
    let subtitles = subtitles.iter().map(|track| {
        let path = format!("{}/{}", track.folder, file_names::MEDIA_NAME);
        // Subtitle segments are longer, and a final playlist may have its own target duration.
        let target = hls::target_duration(0.0, [&track.timeline].into_iter());
        (path, hls::subtitles(&track.timeline, target))
    });
    for (path, playlist) in i_frames.chain(subtitles) {
        store.put(&path, CachePolicy::FinalPlaylist, playlist.into()).await?;
    }
    Ok(())
}

/// The model of the stream for master playlist and MPD.
#[must_use]
pub(super) fn presentation(
    tracks: &[Track],
    subtitles: &[SubtitleTrack],
    target: u64,
    rating: Rating,
) -> Presentation {
    let mut presentation = Presentation::default();
    for track in tracks {
        match &track.rendition {
            Planned::Video(rung) => presentation.rungs.push(Variant {
                rendition: track.describe(rating, rung.max_kbps, target),
                width: rung.width,
                height: rung.height,
                captions: track.captions,
                frame_rate: match rating {
                    Rating::Planned => rung.frame_rate,
                    Rating::Measured => track.timeline.frame_rate(),
                },
                key_rates: match rating {
                    Rating::Planned => None,
                    Rating::Measured => Some(track.timeline.key_rates(target)),
                },
            }),
            Planned::Audio(audio) if audio.channels <= 2 => presentation.audio.push(AudioTrack {
                label: audio.label.clone(),
                language: audio.language.as_deref().and_then(language::tag),
                role: audio.role,
                stereo: track.layout(audio, rating, target),
                surround: tracks.iter().find_map(|other| match &other.rendition {
                    Planned::Audio(surround) if surround.channels > 2 && surround.stream == audio.stream => {
                        Some(other.layout(surround, rating, target))
                    }
                    _ => None,
                }),
            }),
            Planned::Audio(_) => {}
        }
    }
    presentation.subtitles = subtitles.iter().map(SubtitleTrack::describe).collect();
    presentation
}
