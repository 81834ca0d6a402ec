use proptest::prelude::*;

use crate::{
    analysis::{
        copyable_tracks::FrameTime,
        media::{Audio, Media, Video},
        orientation::Orientation,
    },
    config::profile::{Profile, Publish},
};

use super::{
    audio::audio,
    copyable::{CopyPlan, Copyable},
    ladder::ladder,
    model::Plan,
    segmentation::Boundaries,
};

fn video(width: u32, height: u32) -> Video {
    Video {
        codec: "h264".into(),
        width,
        height,
        pixel_aspect: 1.0,
        frame_rate: 30.0,
        time_base: "1/15360".into(),
        pixel_format: "yuv420p".into(),
        duration_seconds: 10.0,
        ..Video::default()
    }
}

fn turned(quarter_turns: u8) -> Orientation {
    Orientation { mirrored: false, quarter_turns }
}

fn sizes(video: &Video) -> Vec<(String, u32, u32)> {
    ladder(video, &Profile::default()).into_iter().map(|rung| (rung.name, rung.width, rung.height)).collect()
}

#[test]
fn ladders_do_not_upscale() {
    let names = |video: &Video| sizes(video).into_iter().map(|(name, ..)| name).collect::<Vec<_>>();
    assert_eq!(names(&video(1920, 1080)), ["1080p", "720p", "480p", "360p", "240p"]);
    assert_eq!(names(&video(3840, 2160)).len(), 7);
    assert_eq!(sizes(&video(720, 400)), [("360p".into(), 648, 360), ("240p".into(), 432, 240)]);
    assert_eq!(sizes(&video(176, 144)), [("144p".into(), 176, 144)]);
    assert_eq!(sizes(&video(161, 121)), [("120p".into(), 160, 120)]);
    assert_eq!(sizes(&video(1, 1)), [("2p".into(), 2, 2)]);
}

#[test]
fn portrait_stays_portrait_and_pixels_become_square() {
    let rotated = Video { orientation: turned(1), ..video(1920, 1080) };
    assert_eq!(sizes(&rotated)[0], ("1080p".into(), 1080, 1920));
    let anamorphic = Video { pixel_aspect: 64.0 / 45.0, ..video(720, 576) };
    assert_eq!(sizes(&anamorphic)[0], ("480p".into(), 854, 480));
}

#[test]
fn high_frame_rates_raise_the_maximum_rate() {
    let fast = Video { frame_rate: 59.94, ..video(1920, 1080) };
    assert_eq!(ladder(&fast, &Profile::default())[0].max_kbps, 18_000);
}

fn track(language: Option<&str>, channel_layout: &str, channels: u32) -> Audio {
    Audio {
        index: 1,
        codec: "aac".into(),
        channels,
        channel_layout: Some(channel_layout.into()),
        sample_rate: 48_000,
        bit_rate: 128_000,
        profile: Some("LC".into()),
        language: language.map(str::to_owned),
        ..Audio::default()
    }
}

fn audio_alone(tracks: impl Into<Vec<Audio>>) -> Media {
    Media { audio: tracks.into(), ..Media::default() }
}

#[test]
fn audio_names_are_unique() {
    let stereo = |language| track(language, "stereo", 2);
    let tracks = [stereo(Some("eng")), stereo(None), stereo(Some("eng")), stereo(None)];
    let renditions = audio(&audio_alone(tracks), &[], &Profile::default());
    let names: Vec<_> = renditions.iter().map(|audio| (audio.name.as_str(), audio.label.as_str())).collect();
    let expected = [("eng", "English"), ("und", "Audio"), ("eng-2", "English 2"), ("und-2", "Audio 2")];
    assert_eq!(names, expected);
    let telephone = Audio { sample_rate: 8000, ..track(None, "mono", 1) };
    let telephone = &audio(&audio_alone([telephone]), &[1], &Profile::default())[0];
    assert_eq!((telephone.sample_rate, telephone.channels, telephone.layout), (48_000, 1, Some("mono")));
}

#[test]
fn surround_tracks_also_have_a_stereo_rendition() {
    let tracks = [track(Some("eng"), "5.1(side)", 6), track(Some("deu"), "stereo", 2), track(None, "4.0", 4)];
    let names = |copyable: &[usize]| -> Vec<_> {
        let renditions = audio(&audio_alone(tracks.clone()), copyable, &Profile::default());
        renditions.into_iter().map(|audio| (audio.name, audio.channels, audio.layout)).collect()
    };
    let stereo = |name: &str| (name.to_owned(), 2, Some("stereo"));
    assert_eq!(names(&[]), [stereo("eng"), stereo("deu"), stereo("und"), ("eng-5.1".into(), 6, Some("5.1"))]);
    assert_eq!(
        names(&[1]),
        [stereo("eng"), ("deu".into(), 2, None), stereo("und"), ("eng-5.1".into(), 6, None)]
    );
}

#[test]
fn audio_is_copied_only_if_nothing_must_change() {
    let copied = |track: Audio, loudness| {
        let profile = Profile { loudness, ..Profile::default() };
        let media = Media { video: Some(video(640, 360)), duration_seconds: 10.0, ..audio_alone([track]) };
        audio(&media, &[1], &profile)[0].is_copied()
    };
    let stereo = Audio { duration_seconds: 9.95, ..track(None, "stereo", 2) };
    assert!(copied(stereo.clone(), None));
    assert!(!copied(stereo.clone(), Some(-16.0)));
    assert!(!copied(Audio { profile: Some("HE-AAC".into()), ..stereo.clone() }, None));
    assert!(!copied(Audio { bit_rate: 320_000, ..stereo.clone() }, None));
    assert!(!copied(Audio { sample_rate: 96_000, ..stereo.clone() }, None));
    assert!(!copied(Audio { duration_seconds: 9.5, ..stereo.clone() }, None), "the picture lasts 10 s");
    assert!(!copied(Audio { start_seconds: 0.2, ..stereo }, None));
}

fn copyable(average_kbps: f64) -> Copyable {
    let keyframe = |at_seconds| FrameTime { at_seconds, before_seconds: at_seconds };
    let boundaries = Boundaries::at(vec![keyframe(0.0), keyframe(8.3)], keyframe(10.0), 4.0).unwrap();
    let video =
        CopyPlan { boundaries, encoded_prefix: None, average_kbps, peak_kbps: average_kbps, level: None };
    Copyable { video: Some(video), audio: Vec::new(), longest_frame_seconds: Some(0.04) }
}

#[test]
fn an_encoded_prefix_may_exceed_a_very_low_source_rate() {
    let mut copyable = copyable(20.0);
    let copy = copyable.video.as_mut().unwrap();
    copy.encoded_prefix = Some((copy.boundaries.clone(), 1));
    let top = |size, profile: &Profile| {
        let media = Media { video: Some(size), ..Media::default() };
        let top = Plan::new(&media, &copyable, profile).rungs.remove(0);
        (top.encoded_prefix.map(|encoded_prefix| encoded_prefix.until), top.max_kbps)
    };
    let growing = Profile::default();
    assert_eq!(top(video(1920, 1080), &growing), (Some(1), 12_000));
    assert_eq!(top(video(426, 240), &growing), (None, 20), "there is no other rung to wait for");
    let complete = Profile { publish: Publish::Complete, ..growing };
    assert_eq!(top(video(1920, 1080), &complete), (None, 20));
}

#[test]
fn the_top_rung_is_copied_if_the_source_fits_it() {
    let copies = |video: Video, kbps: f64| {
        let media = Media { video: Some(video), ..Media::default() };
        let plan = Plan::new(&media, &copyable(kbps), &Profile::default());
        assert!(plan.rungs.iter().skip(1).all(|rung| rung.encoding.is_some()));
        let copied = plan.rungs[0].is_copied();
        assert_eq!(copied, matches!(plan.boundaries, Boundaries::At { .. }));
        copied
    };
    let good = video(1920, 1080);
    assert!(!copies(Video { start_seconds: 1.0, ..good.clone() }, 3_000.0), "black precedes it");
    assert!(copies(good.clone(), 8_300.0));
    assert!(!copies(good.clone(), 8_500.0), "above the rung's rate");
    assert!(!copies(video(1918, 1078), 3_000.0), "between two rungs");
    assert!(!copies(Video { transformed: true, ..good.clone() }, 3_000.0));
    assert!(!copies(Video { changes: true, ..good.clone() }, 3_000.0));
    assert!(!copies(Video { interlaced: true, ..good.clone() }, 3_000.0));
    assert!(!copies(Video { pixel_aspect: 4.0 / 3.0, ..video(1440, 1080) }, 3_000.0));
    assert!(!copies(Video { pixel_format: "yuv420p10le".into(), ..good.clone() }, 3_000.0));
    let tagged = |change: fn(&mut crate::analysis::media::ColourDescription)| {
        let mut video = good.clone();
        change(&mut video.colour);
        video
    };
    assert!(!copies(tagged(|colour| colour.full_range = Some(true)), 3_000.0));
    assert!(!copies(tagged(|colour| colour.transfer = Some("smpte2084".into())), 3_000.0));
    assert!(copies(tagged(|colour| colour.space = Some("bt709".into())), 3_000.0));
}

#[test]
fn each_codec_has_its_own_ladder_with_h264_first() {
    let rung = |size: u32, codec: &str| {
        format!("[[rung]]\nsize = {size}\ncodec = \"{codec}\"\ncrf = 30\nmax_kbps = 900\n")
    };
    let text = [rung(720, "av1"), rung(1080, "hevc"), rung(360, "h264"), rung(720, "h264")].concat();
    let profile: Profile = toml::from_str(&text).unwrap();
    let names = |video: &Video| -> Vec<_> {
        ladder(video, &profile).into_iter().map(|rung| (rung.name, rung.width)).collect()
    };
    let expected =
        [("720p", 1280), ("360p", 640), ("1080p-hevc", 1920), ("720p-av1", 1280)].map(|(n, w)| (n.into(), w));
    assert_eq!(names(&video(1920, 1080)), expected);
    let expected = [("240p", 320), ("240p-hevc", 320), ("240p-av1", 320)].map(|(n, w)| (n.into(), w));
    assert_eq!(names(&video(320, 240)), expected);
}

proptest! {
    #[test]
    fn rungs_are_even_and_keep_the_aspect_without_upscaling(
        width in 2_u32..8192, height in 2_u32..8192, rotated in any::<bool>(),
    ) {
        let video = Video { orientation: turned(if rotated { 3 } else { 0 }), ..video(width, height) };
        let (shown_width, shown_height) = video.display_size();
        let rungs = ladder(&video, &Profile::default());
        prop_assert!(!rungs.is_empty());
        for rung in rungs {
            prop_assert!(rung.width % 2 == 0 && rung.height % 2 == 0);
            prop_assert!(f64::from(rung.width) <= shown_width && f64::from(rung.height) <= shown_height);
            let ideal = shown_width / shown_height * f64::from(rung.height);
            let step = 1.0 + shown_width / shown_height;
            prop_assert!((f64::from(rung.width) - ideal).abs() <= step + 1.0, "{rung:?}");
        }
    }
}
