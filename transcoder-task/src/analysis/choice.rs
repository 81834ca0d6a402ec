//! Chooses the video track to publish, and finds mono tracks that are the two channels of one recording.

use super::{
    ffprobe_json::Stream,
    media::{Audio, Downmix},
};

/// Codecs of single pictures. Cameras store thumbnails with them, but some record whole films with them.
const PICTURE_CODECS: [&str; 9] =
    ["mjpeg", "mjpegb", "png", "apng", "bmp", "gif", "tiff", "webp", "jpeg2000"];
/// Largest difference between the start times, and between the durations, of the two channels of a recording,
/// in seconds.
const SAME_TIME: f64 = 0.1;

/// The video track that viewers expect: a film rather than a picture or thumbnail, enabled (in MP4, FFmpeg
/// calls enabled tracks `default`) rather than disabled, large rather than small, then the first one.
#[must_use]
pub(super) fn film<'a>(tracks: &[&'a Stream]) -> Option<&'a Stream> {
    let largest_film = tracks.iter().filter(|track| !is_picture(track)).map(|track| area(track)).max();
    tracks.iter().copied().min_by_key(|track| {
        let single = tracks.iter().any(|other| frames(other) != Some(1)) && frames(track) == Some(1);
        let thumbnail = is_picture(track) && largest_film.is_some_and(|largest| area(track) <= largest);
        let enabled = track.disposition.role.default;
        (single, thumbnail, !enabled, std::cmp::Reverse(area(track)))
    })
}

fn is_picture(track: &Stream) -> bool {
    track.codec_name.as_deref().is_some_and(|name| PICTURE_CODECS.contains(&name))
}

fn area(track: &Stream) -> u64 {
    u64::from(track.width) * u64::from(track.height)
}

fn frames(track: &Stream) -> Option<u64> {
    track.nb_frames.as_deref()?.parse().ok()
}

/// Joins mono tracks that are the left and right channel of one recording into one stereo track. Cameras and
/// editors write such tracks; a player offers them as alternatives, so viewers would hear only one channel.
///
/// Two tracks belong together if they follow each other, cover the same time in the same format and language,
/// and are labelled left and right. Without labels, all audio tracks of the file must be such pairs of
/// untitled PCM: tracks of different content would have titles or languages.
pub(super) fn join_mono_pairs(tracks: &mut Vec<Audio>) {
    let chunks = |tracks: &[Audio]| tracks.len() >= 2 && tracks.len().is_multiple_of(2);
    let unlabelled = chunks(tracks)
        && tracks.iter().all(|track| track.codec.starts_with("pcm_") && track.title.is_none())
        && tracks.chunks(2).all(|pair| matches!(pair, [left, right] if are_alike(left, right)));
    let mut index = 0;
    while index + 1 < tracks.len() {
        let (left, right) = (&tracks[index], &tracks[index + 1]);
        if are_alike(left, right) && (unlabelled || are_labelled(left, right)) {
            let right = tracks.remove(index + 1);
            let left = &mut tracks[index];
            left.right = Some(right.index);
            left.role.default |= right.role.default;
            left.channels = 2;
            left.channel_layout = Some("stereo".to_owned());
            left.downmix = Downmix::Standard;
            left.bit_rate += right.bit_rate;
            left.title = left.title.take().filter(|title| side(title).is_none());
        }
        index += 1;
    }
}

fn are_alike(left: &Audio, right: &Audio) -> bool {
    left.channels == 1
        && right.channels == 1
        && left.codec == right.codec
        && left.sample_rate == right.sample_rate
        && left.language == right.language
        && (left.start_seconds - right.start_seconds).abs() <= SAME_TIME
        && (left.duration_seconds - right.duration_seconds).abs() <= SAME_TIME
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

fn are_labelled(left: &Audio, right: &Audio) -> bool {
    let label = |track: &Audio| match track.channel_layout.as_deref() {
        // FFmpeg's name for a layout without a name of its own.
        Some("1 channels (FL)" | "FL") => Some(Side::Left),
        Some("1 channels (FR)" | "FR") => Some(Side::Right),
        _ => track.title.as_deref().and_then(side),
    };
    (label(left), label(right)) == (Some(Side::Left), Some(Side::Right))
}

/// The side that a title names.
fn side(title: &str) -> Option<Side> {
    let title = title.to_lowercase();
    let mut words = title.split(|letter: char| !letter.is_alphanumeric());
    words.find_map(|word| match word {
        "left" | "l" => Some(Side::Left),
        "right" | "r" => Some(Side::Right),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ffprobe stream with these properties.
    fn stream(index: usize, codec: &str, size: (u32, u32), frames: Option<u64>, default: bool) -> Stream {
        serde_json::from_value(serde_json::json!({
            "index": index, "codec_type": "video", "codec_name": codec, "width": size.0, "height": size.1,
            "nb_frames": frames.map(|frames| frames.to_string()), "disposition": {"default": u8::from(default)},
        }))
        .unwrap()
    }

    #[test]
    fn the_film_is_chosen() {
        let (large, small) = ((1280, 720), (160, 120));
        let many = Some(100);
        for (name, tracks, expected) in [
            ("a thumbnail in front", vec![("mjpeg", small, Some(1), false), ("h264", large, many, true)], 1),
            ("an enabled thumbnail", vec![("mjpeg", small, Some(1), true), ("h264", large, many, false)], 1),
            ("moving thumbnails", vec![("mjpeg", small, many, true), ("h264", large, many, false)], 1),
            (
                "thumbnails of unknown length",
                vec![("png", small, None, true), ("vp9", large, None, false)],
                1,
            ),
            ("a disabled track", vec![("h264", large, many, false), ("h264", small, many, true)], 1),
            ("a preview", vec![("h264", small, many, true), ("hevc", large, many, true)], 1),
            (
                "a large MJPEG film with a preview",
                vec![("h264", small, many, true), ("mjpeg", large, many, true)],
                1,
            ),
            ("two cameras", vec![("h264", large, many, true), ("h264", large, many, true)], 0),
            ("all disabled", vec![("h264", small, many, false), ("h264", large, many, false)], 1),
            ("an MJPEG film", vec![("mjpeg", large, many, true)], 0),
            ("one picture for the whole film", vec![("h264", large, Some(1), true)], 0),
        ] {
            let tracks: Vec<_> = tracks
                .into_iter()
                .enumerate()
                .map(|(index, (codec, size, frames, default))| stream(index, codec, size, frames, default))
                .collect();
            assert_eq!(film(&tracks.iter().collect::<Vec<_>>()).unwrap().index, expected, "{name}");
        }
        assert!(film(&[]).is_none());
    }

    fn mono(index: usize, codec: &str, layout: Option<&str>, title: Option<&str>) -> Audio {
        Audio {
            index,
            codec: codec.into(),
            channels: 1,
            channel_layout: layout.map(str::to_owned),
            sample_rate: 48_000,
            title: title.map(str::to_owned),
            duration_seconds: 10.0,
            ..Audio::default()
        }
    }

    /// The stream indices of the joined tracks.
    fn joined(mut tracks: Vec<Audio>) -> Vec<(usize, Option<usize>)> {
        join_mono_pairs(&mut tracks);
        tracks.iter().map(|track| (track.index, track.right)).collect()
    }

    #[test]
    fn labelled_mono_tracks_become_stereo() {
        let (left, right) = (Some("1 channels (FL)"), Some("1 channels (FR)"));
        let tracks =
            vec![mono(1, "aac", left, None), mono(2, "aac", right, None), mono(3, "aac", None, None)];
        assert_eq!(joined(tracks), [(1, Some(2)), (3, None)]);
        let tracks = vec![mono(1, "aac", None, Some("Cam Left")), mono(2, "aac", None, Some("Cam Right"))];
        assert_eq!(joined(tracks), [(1, Some(2))]);
        let tracks = vec![mono(1, "aac", right, None), mono(2, "aac", left, None)];
        assert_eq!(joined(tracks), [(1, None), (2, None)], "in another order");
        let mut tracks = vec![mono(1, "aac", left, None), mono(2, "aac", right, None)];
        tracks[1].language = Some("deu".into());
        assert_eq!(joined(tracks.clone()), [(1, None), (2, None)], "another language");
        tracks[1] = Audio { duration_seconds: 5.0, ..mono(2, "aac", right, None) };
        assert_eq!(joined(tracks), [(1, None), (2, None)], "another length");
    }

    #[test]
    fn unlabelled_tracks_become_stereo_only_if_all_are_pairs_of_pcm() {
        let pcm = |index| mono(index, "pcm_s24le", Some("mono"), None);
        assert_eq!(joined(vec![pcm(1), pcm(2)]), [(1, Some(2))]);
        assert_eq!(joined(vec![pcm(1), pcm(2), pcm(3), pcm(4)]), [(1, Some(2)), (3, Some(4))]);
        assert_eq!(joined(vec![pcm(1), pcm(2), pcm(3)]).len(), 3);
        assert_eq!(joined(vec![mono(1, "aac", None, None), mono(2, "aac", None, None)]).len(), 2);
        let titled = mono(2, "pcm_s24le", Some("mono"), Some("Interview"));
        assert_eq!(joined(vec![pcm(1), titled]).len(), 2);
        assert_eq!(joined(vec![]), []);
    }
}
