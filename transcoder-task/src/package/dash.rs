//! The MPD (MPEG-DASH, ISO/IEC 23009-1, with the DASH-IF's guidelines), over the same segments as the HLS
//! playlists.
//!
//! It is static, so it is written when the stream is complete; a growing stream has HLS playlists only.

use std::{io::Write, time::Duration};

use dash_mpd_core::{
    Accessibility, AdaptationSet, AudioChannelConfiguration, BaseURL, Label, MPD, Period, Representation,
    Role, S, SegmentTemplate, SegmentTimeline,
};

use crate::analysis::media;

use super::{
    captions::Channel,
    file_names::{INIT_NAME, TEXT_NAME},
    presentation::{
        self, AudioLayout, AudioTrack, Presentation, Rendition, TextRendition, Timeline, Variant,
        common_captions,
    },
};

const NAMESPACE: &str = "urn:mpeg:dash:schema:mpd:2011";
const PROFILE: &str = "urn:mpeg:dash:profile:isoff-live:2011";
const ROLES: &str = "urn:mpeg:dash:role:2011";
/// TV-Anytime's purposes of audio: 1 for an audio description, 2 for viewers with impaired hearing.
const AUDIO_PURPOSE: &str = "urn:tva:metadata:cs:AudioPurposeCS:2007";
const CEA_608: &str = "urn:scte:dash:cc:cea-608:2015";
const CEA_708: &str = "urn:scte:dash:cc:cea-708:2015";
/// Coding-independent code points for channel layouts (ISO/IEC 23091-3).
const CHANNELS: &str = "urn:mpeg:mpegB:cicp:ChannelConfiguration";
/// `seg-00000.m4s`, as in the playlists.
const SEGMENT_NAME: &str = "seg-$Number%05d$.m4s";

/// The MPD of a complete presentation.
#[must_use]
pub(crate) fn mpd(presentation: &Presentation) -> Vec<u8> {
    let rungs = presentation.sorted_rungs();
    let video = rungs.chunk_by(|one, next| one.family() == next.family()).map(video_set);
    let audio = presentation.sorted_audio();
    let audio = audio.iter().enumerate().flat_map(|(index, track)| {
        let layouts = [Some(&track.stereo), track.surround.as_ref()];
        layouts.into_iter().flatten().map(move |layout| audio_set(track, layout, index == 0))
    });
    let subtitles = presentation.subtitles.iter().map(text_set);
    let mut adaptations: Vec<AdaptationSet> = video.chain(audio).chain(subtitles).collect();
    for (number, set) in adaptations.iter_mut().enumerate() {
        set.id = Some(number.to_string());
    }

    let longest = duration(timelines(presentation).map(Timeline::longest_seconds));
    let mpd = MPD {
        xmlns: Some(NAMESPACE.into()),
        profiles: Some(PROFILE.into()),
        mpdtype: Some("static".into()),
        mediaPresentationDuration: Some(duration(timelines(presentation).map(Timeline::end_seconds))),
        // @bandwidth is the peak rate, so a network of that rate delivers each segment within its duration.
        minBufferTime: Some(longest),
        maxSegmentDuration: Some(longest),
        periods: vec![Period {
            id: Some("0".into()),
            start: Some(Duration::ZERO),
            adaptations,
            ..Period::default()
        }],
        ..MPD::default()
    };
    presentation::text(|buffer| writeln!(buffer, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{mpd}"))
}

/// The timelines of video and audio.
fn timelines(presentation: &Presentation) -> impl Iterator<Item = &Timeline> {
    let audio = presentation.audio.iter().flat_map(|track| [Some(&track.stereo), track.surround.as_ref()]);
    let video = presentation.rungs.iter().map(|rung| &rung.rendition.timeline);
    video.chain(audio.flatten().map(|layout| &layout.rendition.timeline))
}

/// The longest of these durations, rounded to microseconds.
fn duration(seconds: impl Iterator<Item = f64>) -> Duration {
    Duration::from_micros((seconds.fold(0.0, f64::max) * 1e6).round() as u64)
}

/// The rungs of one codec, between which players switch.
fn video_set(rungs: &[&Variant]) -> AdaptationSet {
    let fastest = rungs.iter().map(|rung| rung.frame_rate).fold(0.0, f64::max);
    AdaptationSet {
        contentType: Some("video".into()),
        mimeType: Some("video/mp4".into()),
        segmentAlignment: Some(true),
        startWithSAP: Some(1),
        maxWidth: rungs.iter().map(|rung| rung.width.into()).max(),
        maxHeight: rungs.iter().map(|rung| rung.height.into()).max(),
        maxFrameRate: fraction(fastest),
        Accessibility: captions(rungs),
        // No role: with `main` here, Shaka Player would treat every audio track as the main one.
        representations: rungs
            .iter()
            .map(|rung| Representation {
                width: Some(rung.width.into()),
                height: Some(rung.height.into()),
                frameRate: fraction(rung.frame_rate),
                sar: Some("1:1".into()),
                scanType: Some("progressive".into()),
                ..representation(&rung.rendition)
            })
            .collect(),
        ..AdaptationSet::default()
    }
}

fn audio_set(track: &AudioTrack, layout: &AudioLayout, default: bool) -> AdaptationSet {
    AdaptationSet {
        contentType: Some("audio".into()),
        mimeType: Some("audio/mp4".into()),
        lang: track.language.clone(),
        segmentAlignment: Some(true),
        startWithSAP: Some(1),
        Role: [
            Some(if default { "main" } else { "alternate" }),
            track.role.describes_video().then_some("description"),
            track.role.comment.then_some("commentary"),
            track.role.dub.then_some("dub"),
        ]
        .into_iter()
        .flatten()
        .map(role)
        .collect(),
        Accessibility: audio_purpose(track.role)
            .map(|purpose| Accessibility {
                schemeIdUri: AUDIO_PURPOSE.into(),
                value: Some(purpose.into()),
                id: None,
            })
            .into_iter()
            .collect(),
        Label: vec![label(&track.label)],
        representations: vec![Representation {
            audioSamplingRate: Some(layout.sample_rate.to_string()),
            AudioChannelConfiguration: vec![AudioChannelConfiguration {
                schemeIdUri: CHANNELS.into(),
                value: Some(channel_configuration(layout.channels).to_string()),
                id: None,
            }],
            ..representation(&layout.rendition)
        }],
        ..AdaptationSet::default()
    }
}

/// The closed captions that all of these rungs have, in the form of SCTE 214-1. Their language is not in the
/// stream.
fn captions(rungs: &[&Variant]) -> Vec<Accessibility> {
    let (of_608, of_708): (Vec<_>, Vec<_>) =
        common_captions(rungs).channels().partition(|channel| matches!(channel, Channel::Cc(_)));
    let list = |channels: Vec<Channel>| -> String {
        let list = channels.into_iter().map(|channel| match channel {
            Channel::Cc(number) => format!("CC{number}=und"),
            Channel::Service1 => "1=lang:und".to_owned(),
        });
        list.collect::<Vec<_>>().join(";")
    };
    [(CEA_608, of_608), (CEA_708, of_708)]
        .into_iter()
        .filter(|(_, channels)| !channels.is_empty())
        .map(|(scheme, channels)| Accessibility {
            schemeIdUri: scheme.into(),
            value: Some(list(channels)),
            id: None,
        })
        .collect()
}

/// The purpose of an audio track for impaired viewers, in TV-Anytime's terms.
fn audio_purpose(role: media::Role) -> Option<&'static str> {
    if role.describes_video() {
        Some("1")
    } else if role.hearing_impaired {
        Some("2")
    } else {
        None
    }
}

fn text_set(track: &TextRendition) -> AdaptationSet {
    let mut roles = vec![role(if track.role.forced {
        "forced-subtitle"
    } else if track.role.describes_sound() {
        "caption"
    } else {
        "subtitle"
    })];
    roles.extend(track.role.comment.then(|| role("commentary")));
    roles.extend(track.role.default.then(|| role("main")));
    AdaptationSet {
        contentType: Some("text".into()),
        mimeType: Some("text/vtt".into()),
        lang: track.language.clone(),
        Role: roles,
        Label: vec![label(&track.label)],
        representations: vec![Representation {
            id: Some(id(&track.rendition)),
            bandwidth: Some(track.rendition.rates.peak),
            BaseURL: vec![BaseURL {
                base: format!("{}/{TEXT_NAME}", track.rendition.folder),
                ..BaseURL::default()
            }],
            ..Representation::default()
        }],
        ..AdaptationSet::default()
    }
}

fn representation(rendition: &Rendition) -> Representation {
    let folder = &rendition.folder;
    Representation {
        id: Some(id(rendition)),
        bandwidth: Some(rendition.rates.peak),
        codecs: Some(rendition.codecs.clone()),
        SegmentTemplate: Some(SegmentTemplate {
            timescale: Some(rendition.timeline.timescale.into()),
            initialization: Some(format!("{folder}/{INIT_NAME}")),
            media: Some(format!("{folder}/{SEGMENT_NAME}")),
            startNumber: Some(0),
            SegmentTimeline: Some(SegmentTimeline { segments: runs(&rendition.timeline) }),
            ..SegmentTemplate::default()
        }),
        ..Representation::default()
    }
}

/// A unique id: the folder without the job id, `<plan id>-video-1080p`.
fn id(rendition: &Rendition) -> String {
    rendition.folder.split_once('/').map_or(rendition.folder.as_str(), |(_, below)| below).replace('/', "-")
}

/// The segment timeline. Consecutive segments of equal duration share an entry.
fn runs(timeline: &Timeline) -> Vec<S> {
    let mut runs: Vec<S> = Vec::new();
    let mut end = None;
    for segment in &timeline.segments {
        let follows = end == Some(segment.start_ticks);
        end = Some(segment.start_ticks + segment.duration_ticks);
        match runs.last_mut() {
            Some(run) if follows && run.d == segment.duration_ticks => {
                run.r = Some(run.r.unwrap_or(0) + 1);
            }
            _ => runs.push(S {
                t: (!follows).then_some(segment.start_ticks),
                d: segment.duration_ticks,
                ..S::default()
            }),
        }
    }
    runs
}

/// Frame rate as a fraction: whole, over 1001 (NTSC), or in thousandths; `None` if unknown.
fn fraction(frame_rate: f64) -> Option<String> {
    let thousandths = (frame_rate * 1000.0).round() as u64;
    let whole = frame_rate.round();
    let ntsc = (frame_rate * 1.001).round();
    match thousandths {
        0 => None,
        _ if whole > 0.0 && (frame_rate - whole).abs() < 0.0005 => Some(format!("{whole}")),
        _ if ntsc > 0.0 && (frame_rate - ntsc / 1.001).abs() < 0.0005 => {
            Some(format!("{}/1001", ntsc * 1000.0))
        }
        _ => Some(format!("{thousandths}/1000")),
    }
}

/// The code point of FFmpeg's default layout for a number of channels. Up to six channels (5.1), the code
/// point equals that number.
fn channel_configuration(channels: u32) -> u32 {
    match channels {
        7 => 11,
        8 => 12,
        _ => channels,
    }
}

fn role(value: &str) -> Role {
    Role { id: None, schemeIdUri: ROLES.into(), value: Some(value.into()) }
}

fn label(text: &str) -> Label {
    Label { content: text.into(), ..Label::default() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::package::captions::Captions;
    use crate::package::presentation::samples::{any_presentation, everything, timeline};

    fn read(presentation: &Presentation) -> MPD {
        dash_mpd_core::parse(&String::from_utf8(mpd(presentation)).unwrap()).unwrap()
    }

    /// The MPD with one element per line.
    fn lines(presentation: &Presentation) -> String {
        String::from_utf8(mpd(presentation)).unwrap().replace("><", ">\n<")
    }

    /// Start and duration of every segment.
    fn expand(runs: &[S]) -> Vec<(u64, u64)> {
        let mut next = 0;
        let mut times = Vec::new();
        for run in runs {
            next = run.t.unwrap_or(next);
            for _ in 0..=run.r.unwrap_or(0) {
                times.push((next, run.d));
                next += run.d;
            }
        }
        times
    }

    #[test]
    fn manifests() {
        insta::assert_snapshot!("everything", lines(&everything()));
        let audio = Presentation { audio: everything().audio, ..Presentation::default() };
        insta::assert_snapshot!("audio_alone", lines(&audio));
    }

    #[test]
    fn purposes_and_captions_are_described() {
        let mut presentation = everything();
        presentation.audio[0].role.visual_impaired = true;
        presentation.audio[1].role.comment = true;
        presentation.subtitles[0].role.captions = true;
        for rung in &mut presentation.rungs {
            rung.captions = Captions::of_tests(1);
        }
        let sets = read(&presentation).periods.remove(0).adaptations;
        let described: Vec<String> = sets
            .iter()
            .map(|set| {
                let roles = set.Role.iter().filter_map(|role| role.value.clone());
                let purposes = set.Accessibility.iter().filter_map(|purpose| {
                    Some(format!("{}={}", purpose.schemeIdUri.rsplit(':').nth(1)?, purpose.value.as_ref()?))
                });
                roles.chain(purposes).collect::<Vec<_>>().join(" ")
            })
            .collect();
        assert_eq!(
            described,
            [
                "cea-608=CC1=und",
                "cea-608=CC1=und",
                "cea-608=CC1=und",
                "main commentary",
                "alternate description AudioPurposeCS=1",
                "alternate description AudioPurposeCS=1",
                "caption",
                "forced-subtitle main"
            ]
        );
    }

    #[test]
    fn labels_are_escaped() {
        let mut presentation = everything();
        presentation.audio[0].label = "<b>\"Tom\" & 'Jerry'</b>".into();
        let label = &read(&presentation).periods[0].adaptations[3].Label[0];
        assert_eq!(label.content, presentation.audio[0].label);
    }

    #[test]
    fn segments_of_equal_duration_are_one_entry() {
        let mut late = timeline(1000, 500, &[4000, 4000, 4000, 3000, 4000]);
        late.segments[4].start_ticks += 40;
        let run = |t, d, r| S { t, d, r, ..S::default() };
        assert_eq!(
            runs(&late),
            [run(Some(500), 4000, Some(2)), run(None, 3000, None), run(Some(15_540), 4000, None)]
        );
    }

    #[test]
    fn frame_rates_are_fractions() {
        for (frame_rate, expected) in [
            (25.0, Some("25")),
            (29.97003, Some("30000/1001")),
            (23.976, Some("24000/1001")),
            (59.94, Some("60000/1001")),
            (9.969, Some("9969/1000")),
            (0.5, Some("500/1000")),
            (0.0, None),
        ] {
            assert_eq!(fraction(frame_rate).as_deref(), expected, "{frame_rate}");
        }
    }

    proptest! {
        #[test]
        fn manifests_describe_the_presentation(presentation in any_presentation()) {
            let manifest = read(&presentation);
            let sets = &manifest.periods[0].adaptations;
            let layouts: Vec<(&AudioTrack, &AudioLayout)> = presentation
                .sorted_audio()
                .into_iter()
                .flat_map(|track| {
                    let surround = track.surround.as_ref().map(|layout| (track, layout));
                    [Some((track, &track.stereo)), surround]
                })
                .flatten()
                .collect();
            let media: Vec<&Rendition> = presentation
                .rungs
                .iter()
                .map(|rung| &rung.rendition)
                .chain(layouts.iter().map(|(_, layout)| &layout.rendition))
                .collect();

            let mut ids = BTreeSet::new();
            let mut found = 0;
            for set in sets {
                for written in &set.representations {
                    prop_assert!(ids.insert(written.id.clone()));
                    let Some(template) = &written.SegmentTemplate else { continue };
                    let rendition = media
                        .iter()
                        .find(|it| Some(format!("{}/init.mp4", it.folder)) == template.initialization)
                        .unwrap();
                    found += 1;
                    let times: Vec<(u64, u64)> = rendition
                        .timeline
                        .segments
                        .iter()
                        .map(|segment| (segment.start_ticks, segment.duration_ticks))
                        .collect();
                    prop_assert_eq!(expand(&template.SegmentTimeline.as_ref().unwrap().segments), times);
                    prop_assert_eq!(template.timescale, Some(rendition.timeline.timescale.into()));
                    prop_assert!(written.bandwidth.unwrap() >= rendition.rates.average);
                    let duration = manifest.mediaPresentationDuration.unwrap().as_secs_f64();
                    prop_assert!(duration > rendition.timeline.end_seconds() - 1e-6);
                }
                if set.contentType.as_deref() == Some("video") {
                    let codecs: BTreeSet<&str> =
                        set.representations.iter().map(|it| &it.codecs.as_ref().unwrap()[..4]).collect();
                    prop_assert_eq!(codecs.len(), 1);
                }
            }
            prop_assert_eq!(found, media.len());

            let of = |kind: &str| {
                let same = sets.iter().filter(|set| set.contentType.as_deref() == Some(kind));
                same.collect::<Vec<_>>()
            };
            let labels: Vec<&str> = of("audio").iter().map(|set| set.Label[0].content.as_str()).collect();
            let expected: Vec<&str> = layouts.iter().map(|(track, _)| track.label.as_str()).collect();
            prop_assert_eq!(labels, expected);
            let files: Vec<&str> =
                of("text").iter().map(|set| set.representations[0].BaseURL[0].base.as_str()).collect();
            let expected: Vec<String> = presentation
                .subtitles
                .iter()
                .map(|track| format!("{}/subtitles.vtt", track.rendition.folder))
                .collect();
            prop_assert_eq!(files, expected);
        }
    }
}
