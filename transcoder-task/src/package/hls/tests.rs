use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::package::presentation::{
    Family, Rates,
    samples::{any_presentation, everything, timeline},
};

use super::*;

fn string(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn read_master(presentation: &Presentation) -> MasterPlaylist {
    m3u8_rs::parse_master_playlist_res(&master(presentation)).unwrap()
}

#[test]
fn media_playlists() {
    let segments = timeline(30_000, 0, &[120_120, 120_000, 102_000]);
    let grown = Timeline { segments: segments.segments[..2].to_vec(), ..segments };
    insta::assert_snapshot!("growing", string(media(&grown, 4, false)));
    insta::assert_snapshot!("final", string(media(&segments, 4, true)));
    insta::assert_snapshot!("i_frames", string(i_frames(&segments, 4)));
    insta::assert_snapshot!("subtitles", string(subtitles(&segments, 4)));
}

#[test]
fn the_target_duration_covers_plan_and_segments() {
    let of = |planned, lengths: &[u64]| {
        target_duration(planned, [timeline(1000, 0, &[1]), timeline(1000, 0, lengths)].iter())
    };
    assert_eq!(of(4.0, &[]), 4);
    assert_eq!(of(4.0, &[4004, 4499, 100]), 4);
    assert_eq!(of(4.2, &[3000]), 5);
    assert_eq!(of(4.0, &[4000, 9600]), 10);
    assert_eq!(of(0.2, &[200]), 1);
}

#[test]
fn rates_are_measured_over_about_a_segment() {
    let mut segments = timeline(1000, 0, &[4000, 4000, 100]);
    for (segment, bytes) in segments.segments.iter_mut().zip([500_000, 1_000_000, 90_000]) {
        segment.bytes = bytes;
    }
    // The last tenth of a second alone would be 7.2 Mbit/s.
    let peak = (1_090_000.0_f64 * 8.0 / 4.1).ceil() as u64;
    assert_eq!(segments.rates(4), Rates { peak, average: 1_570_371 });
    assert_eq!(segments.key_rates(4), Rates { peak: 8000, average: 8000 });
    // A single frame.
    let single = timeline(1000, 0, &[40]);
    assert_eq!(single.rates(4), Rates { peak: 80_000, average: 80_000 });
    assert_eq!(Timeline::default().rates(4), Rates::default());
}

#[test]
fn durations_add_up_over_the_longest_video() {
    // 3.7531 s in 44.1 kHz: each duration is rounded.
    let long = timeline(44_100, 0, &vec![165_512; 23_021]);
    let text = string(media(&long, 4, true));
    let listed: f64 = text
        .lines()
        .filter_map(|line| line.strip_prefix("#EXTINF:")?.strip_suffix(','))
        .map(|seconds| seconds.parse::<f64>().unwrap())
        .sum();
    assert!(long.end_seconds() > 86_399.0);
    assert!((listed - long.end_seconds()).abs() < 1.0 / 60.0, "{listed} {}", long.end_seconds());
}

#[test]
fn master_playlists() {
    let all = everything();
    insta::assert_snapshot!("master", string(master(&all)));
    let silent = Presentation { rungs: all.rungs[2..4].to_vec(), ..Presentation::default() };
    insta::assert_snapshot!("silent", string(master(&silent)));
    let one = Presentation { audio: all.audio[1..].to_vec(), ..Presentation::default() };
    insta::assert_snapshot!("audio_alone", string(master(&one)));
    let several = Presentation { audio: all.audio, ..Presentation::default() };
    insta::assert_snapshot!("audio_alone_in_several_languages", string(master(&several)));
}

#[test]
fn the_first_variant_is_h264_of_about_two_megabits() {
    let order = |presentation: &Presentation| -> Vec<String> {
        let streams = read_master(presentation).variants;
        streams.into_iter().filter(|stream| !stream.is_i_frame).map(|stream| stream.uri).collect()
    };
    let mut presentation = Presentation { rungs: everything().rungs, ..Presentation::default() };
    let names = ["720p", "1080p", "480p", "1080p-hevc", "720p-av1"];
    let expected: Vec<String> = names.iter().map(|name| format!("0123/video/{name}/index.m3u8")).collect();
    assert_eq!(order(&presentation), expected);
    presentation.rungs.retain(|rung| rung.family() == Family::Av1);
    assert_eq!(order(&presentation), expected[4..]);
}

#[test]
fn the_default_audio_comes_first() {
    let mut presentation = everything();
    presentation.audio[1].role.default = true;
    let members = read_master(&presentation).alternatives;
    let names: Vec<_> = members.iter().map(|member| (member.name.as_str(), member.default)).collect();
    assert_eq!(names[..4], [("German", true), ("English", false), ("German", true), ("English", false)]);
}

#[test]
fn an_audio_description_is_marked_and_never_the_default() {
    let mut presentation = everything();
    presentation.audio[0].role = Role { default: true, visual_impaired: true, ..Role::default() };
    presentation.audio[1].language = Some("en".into());
    presentation.subtitles[0].role.hearing_impaired = true;
    let members = read_master(&presentation).alternatives;
    let description = Some("public.accessibility.describes-video".to_owned());
    let found: Vec<_> = members[..2]
        .iter()
        .map(|member| {
            (member.name.as_str(), member.default, member.autoselect, member.characteristics.clone())
        })
        .collect();
    assert_eq!(found, [("German", true, true, None), ("English", false, true, description.clone())]);
    let subtitles = members.iter().find(|member| member.name == "German" && member.characteristics.is_some());
    assert!(subtitles.unwrap().characteristics.as_ref().unwrap().contains("describes-music-and-sound"));
    // A commentary with the default flag is not the default either; the only track is, whatever it is.
    presentation.audio[0].role = Role { default: true, comment: true, ..Role::default() };
    assert!(!read_master(&presentation).alternatives[1].default);
    presentation.audio.truncate(1);
    presentation.audio[0].role.descriptions = true;
    let only = &read_master(&presentation).alternatives[0];
    assert_eq!((only.default, &only.characteristics), (true, &description));
}

#[test]
fn captions_are_announced_if_all_rungs_of_a_codec_have_them() {
    let mut presentation = everything();
    let captions = |presentation: &Presentation| -> Vec<Option<ClosedCaptionGroupId>> {
        let variants = read_master(presentation).variants.into_iter().filter(|stream| !stream.is_i_frame);
        variants.map(|stream| stream.closed_captions).collect()
    };
    assert!(captions(&presentation).iter().all(|group| *group == Some(ClosedCaptionGroupId::None)));
    let h264 = presentation.rungs.iter_mut().filter(|rung| rung.family() == Family::H264);
    h264.for_each(|rung| rung.captions = Captions::of_tests(1));
    let group = Some(ClosedCaptionGroupId::GroupId("captions".into()));
    let found = captions(&presentation);
    assert_eq!(found[..3], [group.clone(), group.clone(), group]);
    assert!(found.ends_with(&[None, None]), "NONE would have to be true of all variants");
    let text = string(master(&presentation));
    let line = "#EXT-X-MEDIA:TYPE=CLOSED-CAPTIONS,GROUP-ID=\"captions\",NAME=\"Closed captions\",\
                AUTOSELECT=YES,INSTREAM-ID=\"CC1\"";
    assert!(text.contains(line), "{text}");
    presentation.rungs[1].captions = Captions::of_tests(3);
    assert!(captions(&presentation).iter().all(|group| *group == Some(ClosedCaptionGroupId::None)));
}

#[test]
fn a_growing_stream_has_no_i_frame_playlists() {
    let mut presentation = everything();
    for rung in &mut presentation.rungs {
        rung.key_rates = None;
    }
    assert!(read_master(&presentation).variants.iter().all(|stream| !stream.is_i_frame));
}

proptest! {
    #[test]
    fn media_playlists_list_the_published_segments(presentation in any_presentation()) {
        let timelines: Vec<&Timeline> =
            presentation.rungs.iter().map(|rung| &rung.rendition.timeline).collect();
        let target = target_duration(4.0, timelines.iter().copied());
        for timeline in timelines {
            let whole = m3u8_rs::parse_media_playlist_res(&media(timeline, target, true)).unwrap();
            let keys = m3u8_rs::parse_media_playlist_res(&i_frames(timeline, target)).unwrap();
            for playlist in [&whole, &keys] {
                prop_assert!(playlist.end_list);
                prop_assert_eq!(playlist.target_duration, target);
                prop_assert_eq!(playlist.segments.len(), timeline.segments.len());
                prop_assert_eq!(&playlist.segments[0].map.as_ref().unwrap().uri, INIT_NAME);
                for (number, segment) in playlist.segments.iter().enumerate() {
                    prop_assert_eq!(&segment.uri, &segment_name(number));
                    prop_assert!(segment.duration.round() as u64 <= target);
                }
            }
            for (segment, published) in keys.segments.iter().zip(&timeline.segments) {
                let range = segment.byte_range.as_ref().unwrap();
                prop_assert_eq!((range.length, range.offset), (published.key_bytes, Some(0)));
            }
        }
    }

    #[test]
    fn master_playlists_follow_the_rules(presentation in any_presentation()) {
        let playlist = read_master(&presentation);
        let folders: BTreeSet<&str> = presentation
            .rungs
            .iter()
            .map(|rung| &rung.rendition)
            .chain(presentation.audio.iter().map(|audio| &audio.stereo.rendition))
            .chain(presentation.audio.iter().filter_map(|audio| Some(&audio.surround.as_ref()?.rendition)))
            .chain(presentation.subtitles.iter().map(|text| &text.rendition))
            .map(|rendition| rendition.folder.as_str())
            .collect();
        let exists = |uri: &str, name: &str| {
            let folder = uri.strip_suffix(name).and_then(|uri| uri.strip_suffix('/'));
            folder.is_some_and(|folder| folders.contains(folder))
        };

        let mut groups: BTreeMap<(String, &str), Vec<&AlternativeMedia>> = BTreeMap::new();
        for member in &playlist.alternatives {
            prop_assert!(exists(member.uri.as_ref().unwrap(), MEDIA_NAME));
            prop_assert!(member.autoselect || !member.default);
            let key = (member.media_type.to_string(), member.group_id.as_str());
            groups.entry(key).or_default().push(member);
        }
        for ((kind, _), members) in &groups {
            let names: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
            prop_assert_eq!(names.len(), members.len());
            let expected =
                if kind == "AUDIO" { presentation.audio.len() } else { presentation.subtitles.len() };
            prop_assert_eq!(members.len(), expected);
            let defaults = members.iter().filter(|member| member.default).count();
            prop_assert!(defaults == 1 || (defaults == 0 && kind == "SUBTITLES"));
            let chosen: Vec<_> = members.iter().filter(|member| member.autoselect).collect();
            let distinct: BTreeSet<_> =
                chosen.iter().map(|member| (&member.language, member.forced)).collect();
            prop_assert_eq!(distinct.len(), chosen.len());
        }

        for stream in &playlist.variants {
            let name = if stream.is_i_frame { I_FRAMES_NAME } else { MEDIA_NAME };
            prop_assert!(exists(&stream.uri, name), "{}", stream.uri);
            prop_assert!(stream.bandwidth >= stream.average_bandwidth.unwrap());
            if let Some(audio) = &stream.audio {
                prop_assert!(groups.contains_key(&("AUDIO".to_owned(), audio.as_str())));
                prop_assert!(stream.codecs.as_ref().unwrap().contains("mp4a"));
            }
            let has_subtitles = stream.subtitles.is_some();
            prop_assert!(stream.is_i_frame || has_subtitles != presentation.subtitles.is_empty());
        }
        let audio_groups = groups.keys().filter(|(kind, _)| kind == "AUDIO").count().max(1);
        let (keys, streams): (Vec<_>, Vec<_>) =
            playlist.variants.iter().partition(|stream| stream.is_i_frame);
        prop_assert_eq!(keys.len(), presentation.rungs.len());
        if !presentation.rungs.is_empty() {
            prop_assert_eq!(streams.len(), presentation.rungs.len() * audio_groups);
            let h264 = |codecs: &str| codecs.starts_with("avc1");
            let any = presentation.rungs.iter().any(|rung| h264(&rung.rendition.codecs));
            prop_assert_eq!(h264(streams[0].codecs.as_ref().unwrap()), any);
        }
    }
}
