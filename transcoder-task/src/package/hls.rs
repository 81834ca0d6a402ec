//! HLS playlists (RFC 8216 and Apple's authoring rules).

use std::collections::HashMap;

use m3u8_rs::{
    AlternativeMedia, AlternativeMediaType, ByteRange, ClosedCaptionGroupId, InstreamId, Map, MasterPlaylist,
    MediaPlaylist, MediaPlaylistType, MediaSegment, QuotedOrUnquoted, Resolution, Start, VariantStream,
};

use crate::analysis::media::Role;

use super::{
    captions::{Captions, Channel},
    file_names::{I_FRAMES_NAME, INIT_NAME, MEDIA_NAME, segment_name, text_segment_name},
    presentation::{
        AudioLayout, AudioTrack, Presentation, Rates, Rendition, TextRendition, Timeline, Variant,
        common_captions, text,
    },
};

/// Protocol version. The features used here need 6 (EXT-X-MAP, RFC 8216 section 7); Apple's tools write 7 for
/// fragmented MP4.
const VERSION: usize = 7;
const SUBTITLES_GROUP: &str = "subtitles";
const CAPTIONS_GROUP: &str = "captions";
/// The variant whose average rate is nearest to this one is listed first. Players begin with that variant,
/// and hls.js takes its rate as the initial estimate of the bandwidth. Apple's authoring rules give this
/// number.
const FIRST_VARIANT_BITS: u64 = 2_000_000;

/// The target duration of a stream. All playlists must have the same one, and must not change it while they
/// grow. It covers the plan's longest segment, and any published segment that long frames make longer.
pub(crate) fn target_duration<'a>(
    planned_seconds: f64,
    timelines: impl Iterator<Item = &'a Timeline>,
) -> u64 {
    // Players compare it with rounded durations (RFC 8216 section 4.3.3.1).
    let longest = timelines.map(|timeline| timeline.longest_seconds().round()).fold(0.0, f64::max);
    planned_seconds.ceil().max(longest).max(1.0) as u64
}

/// A media playlist of fragmented MP4: EVENT while it grows, VOD at the end.
pub(crate) fn media(timeline: &Timeline, target_seconds: u64, finished: bool) -> Vec<u8> {
    write(MediaPlaylist {
        independent_segments: true,
        playlist_type: Some(if finished { MediaPlaylistType::Vod } else { MediaPlaylistType::Event }),
        // Without this, players would start a growing playlist at its end.
        start: (!finished).then(|| Start { time_offset: 0.0, ..Start::default() }),
        end_list: finished,
        ..playlist(timeline, target_seconds, Some(INIT_NAME), segment_name)
    })
}

/// The final I-frame playlist of a rung, with the byte range of each segment's first frame.
pub(crate) fn i_frames(timeline: &Timeline, target_seconds: u64) -> Vec<u8> {
    let mut playlist = MediaPlaylist {
        i_frames_only: true,
        playlist_type: Some(MediaPlaylistType::Vod),
        end_list: true,
        ..playlist(timeline, target_seconds, Some(INIT_NAME), segment_name)
    };
    for (segment, published) in playlist.segments.iter_mut().zip(&timeline.segments) {
        segment.byte_range = Some(ByteRange { length: published.key_bytes, offset: Some(0) });
    }
    write(playlist)
}

/// The final playlist of a subtitle track.
pub(crate) fn subtitles(timeline: &Timeline, target_seconds: u64) -> Vec<u8> {
    write(MediaPlaylist {
        playlist_type: Some(MediaPlaylistType::Vod),
        end_list: true,
        ..playlist(timeline, target_seconds, None, text_segment_name)
    })
}

fn playlist(
    timeline: &Timeline,
    target_seconds: u64,
    init: Option<&str>,
    name: fn(usize) -> String,
) -> MediaPlaylist {
    let segments = timeline.segments.iter().enumerate().map(|(number, segment)| MediaSegment {
        uri: name(number),
        // 32-bit floats have a relative rounding error of at most 2^-23: 10 milliseconds in 24 hours.
        duration: timeline.seconds(segment.duration_ticks) as f32,
        map: init.filter(|_| number == 0).map(|uri| Map { uri: uri.into(), ..Map::default() }),
        ..MediaSegment::default()
    });
    MediaPlaylist {
        version: Some(VERSION),
        target_duration: target_seconds,
        segments: segments.collect(),
        ..MediaPlaylist::default()
    }
}

/// An audio group: stereo or surround.
struct Group<'a> {
    id: &'static str,
    /// One layout per track. RFC 8216 section 4.3.4.2.1 requires the same members in every group, so the
    /// surround group also has the tracks that exist only in stereo.
    layouts: Vec<&'a AudioLayout>,
    codecs: Vec<&'a str>,
    rates: Rates,
}

impl<'a> Group<'a> {
    fn new(id: &'static str, layouts: Vec<&'a AudioLayout>) -> Self {
        let mut codecs: Vec<&str> = layouts.iter().map(|layout| layout.rendition.codecs.as_str()).collect();
        codecs.sort_unstable();
        codecs.dedup();
        let rates = Rates::highest(layouts.iter().map(|layout| &layout.rendition));
        Self { id, layouts, codecs, rates }
    }

    fn all(audio: &[&'a AudioTrack]) -> Vec<Self> {
        let mut groups = Vec::new();
        if !audio.is_empty() {
            groups.push(Self::new("stereo", audio.iter().map(|track| &track.stereo).collect()));
        }
        if audio.iter().any(|track| track.surround.is_some()) {
            let widest = |track: &&'a AudioTrack| track.surround.as_ref().unwrap_or(&track.stereo);
            groups.push(Self::new("surround", audio.iter().map(widest).collect()));
        }
        groups
    }

    fn members(&self, audio: &[&AudioTrack]) -> Vec<AlternativeMedia> {
        let members =
            audio.iter().zip(&self.layouts).enumerate().map(|(index, (track, layout))| AlternativeMedia {
                media_type: AlternativeMediaType::Audio,
                group_id: self.id.into(),
                uri: Some(layout.rendition.playlist()),
                name: track.label.clone(),
                language: track.language.clone(),
                default: index == 0,
                characteristics: audio_characteristics(track.role),
                channels: Some(layout.channels.to_string()),
                ..AlternativeMedia::default()
            });
        autoselected(members.collect())
    }
}

/// Media characteristics (RFC 8216 section 4.3.4.1) of an audio track. Devices choose tracks with these by
/// the viewer's settings for accessibility.
fn audio_characteristics(role: Role) -> Option<String> {
    if role.describes_video() {
        Some("public.accessibility.describes-video".to_owned())
    } else if role.hearing_impaired {
        Some("public.accessibility.enhances-speech-intelligibility".to_owned())
    } else {
        None
    }
}

/// Sets AUTOSELECT for one member per language and characteristics: the default one, else the first (RFC 8216
/// section 4.3.4.1.1).
fn autoselected(mut group: Vec<AlternativeMedia>) -> Vec<AlternativeMedia> {
    for index in 0..group.len() {
        let alike = |other: &AlternativeMedia| {
            group.get(index).is_some_and(|one| {
                (&one.language, one.forced, &one.characteristics)
                    == (&other.language, other.forced, &other.characteristics)
            })
        };
        let chosen = group
            .iter()
            .position(|other| alike(other) && other.default)
            .or_else(|| group.iter().position(alike));
        if let Some(member) = group.get_mut(index) {
            member.autoselect = chosen == Some(index);
        }
    }
    group
}

fn subtitles_group(subtitles: &[TextRendition]) -> Vec<AlternativeMedia> {
    let default = subtitles.iter().position(|track| track.role.default);
    let members = subtitles.iter().enumerate().map(|(index, track)| AlternativeMedia {
        media_type: AlternativeMediaType::Subtitles,
        group_id: SUBTITLES_GROUP.into(),
        uri: Some(track.rendition.playlist()),
        name: track.label.clone(),
        language: track.language.clone(),
        default: Some(index) == default,
        forced: track.role.forced,
        characteristics: track.role.describes_sound().then(|| {
            "public.accessibility.transcribes-spoken-dialog,public.accessibility.describes-music-and-sound"
                .to_owned()
        }),
        ..AlternativeMedia::default()
    });
    autoselected(members.collect())
}

/// The closed captions. Their language is not in the stream.
fn captions_group(captions: Captions) -> impl Iterator<Item = AlternativeMedia> {
    captions.channels().enumerate().map(|(index, channel)| AlternativeMedia {
        media_type: AlternativeMediaType::ClosedCaptions,
        group_id: CAPTIONS_GROUP.into(),
        name: if index == 0 { "Closed captions".into() } else { format!("Closed captions {}", index + 1) },
        instream_id: Some(match channel {
            Channel::Cc(number) => InstreamId::CC(number),
            Channel::Service1 => InstreamId::Service(1),
        }),
        autoselect: index == 0,
        ..AlternativeMedia::default()
    })
}

/// The master playlist. Without rungs, the audio tracks are the variants.
pub(crate) fn master(presentation: &Presentation) -> Vec<u8> {
    let audio = presentation.sorted_audio();
    let groups = Group::all(&audio);
    let text_rates = Rates::highest(presentation.subtitles.iter().map(|track| &track.rendition));
    let subtitles = (!presentation.subtitles.is_empty()).then(|| SUBTITLES_GROUP.to_owned());
    let mut alternatives: Vec<AlternativeMedia> =
        groups.iter().flat_map(|group| group.members(&audio)).collect();
    let mut variants = Vec::new();
    let rungs = in_playlist_order(presentation);
    let families = || rungs.chunk_by(|one, next| one.family() == next.family());
    // RFC 8216 section 4.3.4.2: NONE must be true of all variants.
    let captions = families().map(common_captions).fold(Captions::NONE, |mut all, captions| {
        all |= captions;
        all
    });
    for of_one_codec in families() {
        let closed_captions = match (captions.is_empty(), common_captions(of_one_codec).is_empty()) {
            (true, _) => Some(ClosedCaptionGroupId::None),
            (false, true) => None,
            (false, false) => Some(ClosedCaptionGroupId::GroupId(CAPTIONS_GROUP.into())),
        };
        if groups.is_empty() {
            variants.extend(of_one_codec.iter().map(|rung| VariantStream {
                subtitles: subtitles.clone(),
                closed_captions: closed_captions.clone(),
                ..rung.stream(&[], text_rates)
            }));
        }
        for group in &groups {
            variants.extend(of_one_codec.iter().map(|rung| VariantStream {
                audio: Some(group.id.into()),
                subtitles: subtitles.clone(),
                closed_captions: closed_captions.clone(),
                ..rung.stream(&group.codecs, group.rates.plus(text_rates))
            }));
        }
    }
    variants.extend(rungs.iter().filter_map(|rung| rung.i_frame_stream()));
    if rungs.is_empty() {
        for group in &groups {
            variants.extend(group.layouts.first().map(|layout| VariantStream {
                audio: Some(group.id.into()),
                subtitles: subtitles.clone(),
                ..stream(layout.rendition.playlist(), &group.codecs, group.rates.plus(text_rates))
            }));
        }
        // A single rendition needs no group.
        if let ([variant], [_]) = (variants.as_mut_slice(), alternatives.as_slice()) {
            variant.audio = None;
            alternatives.clear();
        }
    }
    alternatives.extend(subtitles_group(&presentation.subtitles));
    alternatives.extend(captions_group(captions));
    let playlist = MasterPlaylist {
        version: Some(VERSION),
        independent_segments: true,
        variants,
        alternatives,
        ..MasterPlaylist::default()
    };
    text(|buffer| playlist.write_to(buffer))
}

/// The sorted rungs, with the variant that players begin with in front.
fn in_playlist_order(presentation: &Presentation) -> Vec<&Variant> {
    let mut rungs = presentation.sorted_rungs();
    let most_supported = rungs.first().map(|rung| rung.family());
    let first = rungs
        .iter()
        .enumerate()
        .filter(|(_, rung)| Some(rung.family()) == most_supported)
        .min_by_key(|(_, rung)| rung.rendition.rates.average.abs_diff(FIRST_VARIANT_BITS))
        .map_or(0, |(index, _)| index);
    if let Some(up_to_first) = rungs.get_mut(..=first) {
        up_to_first.rotate_right(1);
    }
    rungs
}

fn stream(uri: String, codecs: &[&str], rates: Rates) -> VariantStream {
    VariantStream {
        uri,
        bandwidth: rates.peak,
        average_bandwidth: Some(rates.average),
        codecs: Some(codecs.join(",")),
        ..VariantStream::default()
    }
}

impl Rendition {
    fn playlist(&self) -> String {
        format!("{}/{MEDIA_NAME}", self.folder)
    }
}

impl Variant {
    /// The variant with its audio and subtitles.
    fn stream(&self, other_codecs: &[&str], other_rates: Rates) -> VariantStream {
        let codecs: Vec<&str> =
            [self.rendition.codecs.as_str()].into_iter().chain(other_codecs.iter().copied()).collect();
        VariantStream {
            frame_rate: (self.frame_rate > 0.0).then_some((self.frame_rate * 1000.0).round() / 1000.0),
            ..self.video_stream(self.rendition.playlist(), &codecs, self.rendition.rates.plus(other_rates))
        }
    }

    fn i_frame_stream(&self) -> Option<VariantStream> {
        let uri = format!("{}/{I_FRAMES_NAME}", self.rendition.folder);
        Some(VariantStream {
            is_i_frame: true,
            ..self.video_stream(uri, &[&self.rendition.codecs], self.key_rates?)
        })
    }

    fn video_stream(&self, uri: String, codecs: &[&str], rates: Rates) -> VariantStream {
        let range = ("VIDEO-RANGE".to_owned(), QuotedOrUnquoted::Unquoted("SDR".into()));
        VariantStream {
            resolution: Some(Resolution { width: self.width.into(), height: self.height.into() }),
            other_attributes: Some(HashMap::from([range])),
            ..stream(uri, codecs, rates)
        }
    }
}

fn write(playlist: MediaPlaylist) -> Vec<u8> {
    text(|buffer| playlist.write_to(buffer))
}

#[cfg(test)]
mod tests;
