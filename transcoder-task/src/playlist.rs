//! HLS playlists (RFC 8216 and Apple's authoring rules) from what has been published.

use std::collections::HashMap;

use m3u8_rs::{
    AlternativeMedia, AlternativeMediaType, ClosedCaptionGroupId, Map, MasterPlaylist, MediaPlaylist,
    MediaPlaylistType, MediaSegment, Resolution, VariantStream,
};

/// fMP4 segments with independent audio need version 7 (section 7).
const VERSION: usize = 7;
const AUDIO_GROUP: &str = "audio";

/// A segment as the playlist needs it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Published {
    /// When its first sample is decoded.
    pub start_seconds: f64,
    /// Of all its samples.
    pub duration_seconds: f64,
    /// How many samples (frames).
    pub samples: usize,
    /// Its size.
    pub bytes: u64,
}

/// The address of a segment, next to its playlist.
pub fn segment_name(number: usize) -> String {
    format!("seg-{number:05}.m4s")
}

/// The address of the init segment, next to its playlist.
pub const INIT_NAME: &str = "init.mp4";
/// The address of a media playlist in its rendition's folder.
pub const MEDIA_NAME: &str = "index.m3u8";

/// A media playlist: growing (EVENT), or final (VOD).
pub fn media(segments: &[Published], target_seconds: f64, finished: bool) -> Vec<u8> {
    // The target must not change while the playlist grows; a source with long frames can exceed it.
    let longest =
        segments.iter().map(|segment| segment.duration_seconds.round()).fold(target_seconds, f64::max);
    let playlist = MediaPlaylist {
        version: Some(VERSION),
        target_duration: longest.ceil() as u64,
        independent_segments: true,
        playlist_type: Some(if finished { MediaPlaylistType::Vod } else { MediaPlaylistType::Event }),
        end_list: finished,
        segments: segments
            .iter()
            .enumerate()
            .map(|(number, segment)| MediaSegment {
                uri: segment_name(number),
                duration: segment.duration_seconds as f32,
                map: (number == 0).then(|| Map {
                    uri: INIT_NAME.into(),
                    byte_range: None,
                    other_attributes: HashMap::new(),
                }),
                ..MediaSegment::default()
            })
            .collect(),
        ..MediaPlaylist::default()
    };
    text(|buffer| playlist.write_to(buffer))
}

/// A rung in the master playlist.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// Of its media playlist.
    pub uri: String,
    /// RFC 6381, of the video alone.
    pub codecs: String,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// On average; 0 if unknown.
    pub frame_rate: f64,
    /// Rates of the video alone.
    pub rates: Rates,
}

/// An audio rendition in the master playlist.
#[derive(Debug, Clone, PartialEq)]
pub struct Sound {
    /// Of its media playlist.
    pub uri: String,
    /// Shown to people; unique.
    pub label: String,
    /// RFC 5646.
    pub language: Option<String>,
    /// RFC 6381.
    pub codecs: String,
    /// Of this rendition.
    pub rates: Rates,
}

/// Bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rates {
    /// Of the busiest segment.
    pub peak: u64,
    /// Over all segments.
    pub average: u64,
}

impl Rates {
    /// Measured from what was published.
    pub fn measured(segments: &[Published]) -> Self {
        let bits = |bytes: u64, seconds: f64| {
            if seconds > 0.0 { (bytes as f64 * 8.0 / seconds).ceil() as u64 } else { 0 }
        };
        // A last segment of a frame or two says nothing about the bandwidth that is needed, since it is fetched
        // within the time of the one before it.
        let meaningful = |segment: &&Published| segments.len() == 1 || segment.duration_seconds >= 0.5;
        Self {
            peak: segments
                .iter()
                .filter(meaningful)
                .map(|segment| bits(segment.bytes, segment.duration_seconds))
                .max()
                .unwrap_or(0),
            average: bits(
                segments.iter().map(|segment| segment.bytes).sum(),
                segments.iter().map(|segment| segment.duration_seconds).sum(),
            ),
        }
    }
}

/// The master playlist. Without rungs, the first audio rendition is the stream.
pub fn master(rungs: &[Variant], sounds: &[Sound]) -> Vec<u8> {
    let loudest = sounds.iter().map(|sound| sound.rates).fold(Rates::default(), |most, rates| Rates {
        peak: most.peak.max(rates.peak),
        average: most.average.max(rates.average),
    });
    let mut audio_codecs: Vec<&str> = sounds.iter().map(|sound| sound.codecs.as_str()).collect();
    audio_codecs.dedup();
    let variant = |uri: &str, codecs: Vec<&str>, rates: Rates| VariantStream {
        uri: uri.to_owned(),
        bandwidth: rates.peak.max(rates.average),
        average_bandwidth: Some(rates.average),
        codecs: Some(codecs.join(",")),
        ..VariantStream::default()
    };
    let mut variants: Vec<VariantStream> = rungs
        .iter()
        .map(|rung| VariantStream {
            resolution: Some(Resolution { width: rung.width.into(), height: rung.height.into() }),
            frame_rate: (rung.frame_rate > 0.0).then_some((rung.frame_rate * 1000.0).round() / 1000.0),
            audio: (!sounds.is_empty()).then(|| AUDIO_GROUP.to_owned()),
            closed_captions: Some(ClosedCaptionGroupId::None),
            ..variant(
                &rung.uri,
                [rung.codecs.as_str()].into_iter().chain(audio_codecs.iter().copied()).collect(),
                Rates { peak: rung.rates.peak + loudest.peak, average: rung.rates.average + loudest.average },
            )
        })
        .collect();
    let mut alternatives = Vec::new();
    if rungs.is_empty() {
        variants.extend(sounds.first().map(|sound| variant(&sound.uri, vec![&sound.codecs], sound.rates)));
    } else {
        alternatives.extend(sounds.iter().enumerate().map(|(index, sound)| AlternativeMedia {
            media_type: AlternativeMediaType::Audio,
            group_id: AUDIO_GROUP.into(),
            uri: Some(sound.uri.clone()),
            name: sound.label.clone(),
            language: sound.language.clone(),
            default: index == 0,
            autoselect: true,
            channels: Some("2".into()),
            ..AlternativeMedia::default()
        }));
    }
    let playlist = MasterPlaylist {
        version: Some(VERSION),
        independent_segments: true,
        variants,
        alternatives,
        ..MasterPlaylist::default()
    };
    text(|buffer| playlist.write_to(buffer))
}

fn text(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> Vec<u8> {
    let mut buffer = Vec::new();
    // Writing to memory does not fail.
    let _ = write(&mut buffer);
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(duration_seconds: f64, bytes: u64) -> Published {
        Published { start_seconds: 0.0, duration_seconds, samples: 1, bytes }
    }

    fn string(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn media_playlists() {
        let segments = [segment(4.0, 1000), segment(4.004, 1000), segment(3.4, 500)];
        insta::assert_snapshot!("growing", string(media(&segments[..2], 4.0, false)));
        insta::assert_snapshot!("final", string(media(&segments, 4.0, true)));
        assert!(string(media(&[segment(9.6, 1)], 4.0, true)).contains("TARGETDURATION:10"));
    }

    #[test]
    fn rates_are_measured() {
        let segments = [segment(4.0, 500_000), segment(4.0, 1_000_000), segment(0.1, 90_000)];
        assert_eq!(Rates::measured(&segments), Rates { peak: 2_000_000, average: 1_570_371 });
    }

    #[test]
    fn master_playlists() {
        let rung = |name: &str, width, height, peak| Variant {
            uri: format!("0123/video/{name}/index.m3u8"),
            codecs: "avc1.64001f".into(),
            width,
            height,
            frame_rate: 29.97003,
            rates: Rates { peak, average: peak / 2 },
        };
        let sound = |label: &str, language: Option<&str>| Sound {
            uri: format!("0123/audio/{label}/index.m3u8"),
            label: label.into(),
            language: language.map(str::to_owned),
            codecs: "mp4a.40.2".into(),
            rates: Rates { peak: 130_000, average: 128_000 },
        };
        let rungs = [rung("720p", 1280, 720, 3_000_000), rung("240p", 426, 240, 400_000)];
        let sounds = [sound("English", Some("eng")), sound("Audio", None)];
        insta::assert_snapshot!("master", string(master(&rungs, &sounds)));
        insta::assert_snapshot!("silent", string(master(&rungs[..1], &[])));
        insta::assert_snapshot!("audio_alone", string(master(&[], &sounds[..1])));
    }
}
