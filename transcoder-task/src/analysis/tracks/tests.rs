use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

use vidstreamx_job::Exit;

use crate::{fixtures::clip, source::loopback::Input};

use super::super::{
    extents::check_stated,
    ffprobe::{failure, probe, too_large},
    ffprobe_json::*,
    media::*,
};
use super::*;

fn of(json: serde_json::Value) -> Result<Media, ProbeError> {
    media(serde_json::from_value(json).unwrap())
}

/// Runs the installed ffprobe on a file.
async fn probe_file(file: &std::path::Path) -> Result<Media, ProbeError> {
    probe(&Input::File(file.to_owned())).await
}

const VIDEO: &str = "-f lavfi -i testsrc2=size=64x36:rate=25:duration=2 -pix_fmt yuv420p";

#[tokio::test]
async fn subtitles_and_chapters_of_a_real_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("a.srt", "1\n00:00:00,500 --> 00:00:01,000\nHello\n");
    write(
        "a.txt",
        ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=800\ntitle=One\n\
         [CHAPTER]\nTIMEBASE=1/1000\nSTART=800\nEND=2000\ntitle=Two\n",
    );
    let path = folder.path().display();
    let arguments = format!(
        "{VIDEO} -i {path}/a.srt -f ffmetadata -i {path}/a.txt -map 0 -map 1 -map_chapters 2 -c:s mov_text \
         -metadata:s:s:0 language=deu -metadata:s:s:0 handler_name=Untertitel -disposition:s:0 forced"
    )
    .replace("-pix_fmt yuv420p", "");
    let media =
        probe_file(&clip(&folder, "clip.mp4", &format!("{arguments} -pix_fmt yuv420p"))).await.unwrap();
    let [subtitle] = &media.subtitles[..] else { panic!("{:?}", media.subtitles) };
    assert_eq!((subtitle.codec.as_str(), subtitle.language.as_deref()), ("mov_text", Some("deu")));
    assert_eq!((subtitle.title.as_deref(), subtitle.role.forced), (Some("Untertitel"), true));
    let chapters: Vec<_> = media
        .chapters
        .iter()
        .map(|chapter| (chapter.start_seconds, chapter.end_seconds, chapter.title.as_deref()))
        .collect();
    assert_eq!(chapters, [(0.0, 0.8, Some("One")), (0.8, 2.0, Some("Two"))]);
    // The chapters' own track is left out without a warning.
    assert!(media.warnings.is_empty(), "{:?}", media.warnings);
}

#[tokio::test]
async fn properties_of_a_real_video_track() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = format!(
        "{VIDEO} -c:v libx264 -preset veryfast -color_range tv -colorspace bt2020nc -color_trc smpte2084 \
         -color_primaries bt2020"
    );
    let media = probe_file(&clip(&folder, "clip.mp4", &arguments)).await.unwrap();
    let video = media.video.unwrap();
    assert_eq!((video.codec_tag.as_str(), video.profile.as_deref()), ("avc1", Some("High")));
    assert_eq!((video.id, video.level, video.frames, video.bits), (Some(1), Some(10), Some(50), 8));
    assert_eq!((video.base_frame_rate, video.reordered, video.start_seconds), (25.0, true, 0.0));
    assert!(video.bit_rate > 1000);
    assert_eq!(video.colour.full_range, Some(false));
    assert_eq!(video.colour.space.as_deref(), Some("bt2020nc"));
    assert_eq!(video.colour.dynamic_range(), DynamicRange::Hdr10);
}

#[test]
fn track_start_times_are_relative_to_the_first_track() {
    let media = of(serde_json::json!({
        "format": {"duration": "10", "start_time": "2.5"},
        "streams": [
            {"index": 0, "codec_type": "video", "codec_name": "h264", "width": 64, "height": 64,
             "start_time": "3.5"},
            {"index": 1, "codec_type": "audio", "codec_name": "aac", "channels": 6, "sample_rate": "48000",
             "channel_layout": "5.1", "profile": "LC", "start_time": "2.5", "id": "0x1f",
             "disposition": {"default": 1, "comment": 1, "dub": 0},
             "tags": {"handler_name": "Director's commentary"}}
        ],
        "chapters": [
            {"start_time": "0", "end_time": "4.5", "tags": {"title": " A\u{7}b "}},
            {"start_time": "9", "end_time": "8"}
        ]
    }))
    .unwrap();
    assert_eq!((media.start_seconds, media.video.unwrap().start_seconds), (2.5, 1.0));
    let audio = &media.audio[0];
    assert_eq!((audio.id, audio.start_seconds, audio.role.default), (Some(31), 0.0, true));
    assert!(audio.role.comment && !audio.role.original);
    assert_eq!(audio.title.as_deref(), Some("Director's commentary"));
    let title = Some("Ab".into());
    assert_eq!(media.chapters, [Chapter { start_seconds: 0.0, end_seconds: 2.0, title }]);
}

#[test]
fn tags_may_repeat_and_need_not_be_utf8() {
    let json =
        b"{\"format\": {}, \"streams\": [{\"index\": 0, \"codec_type\": \"audio\", \"codec_name\": \"aac\",
        \"channels\": 1, \"sample_rate\": \"8000\", \"tags\": {\"title\": \"a\", \"title\": \"b\xff\"}}]}";
    let media = media(parse(json).unwrap()).unwrap();
    assert_eq!(media.audio[0].title.as_deref(), Some("b\u{fffd}"));
}

#[test]
fn program_names_are_not_titles() {
    let of = |name: &str| title(&MetadataTags { handler_name: Some(name.into()), ..MetadataTags::default() });
    for name in [
        "SoundHandler",
        "SoundHandle",
        "Apple Sound Media Handler",
        "Core Media Audio",
        "ISO Media file produced by Google Inc.",
        "GPAC ISO Audio Handler",
        "#Mainconcept MP4 Sound Media Handler",
        "\tGoPro AAC",
        "L-SMASH Audio Handler",
        "Stereo",
        "",
    ] {
        assert_eq!(of(name), None, "{name}");
    }
    assert_eq!(of("Français").as_deref(), Some("Français"));
    assert_eq!(of(&"x".repeat(5000)).unwrap().len(), LONGEST_TITLE);
}

#[test]
fn bits_of_pixel_formats() {
    let formats =
        ["yuv420p", "nv12", "yuv420p10le", "p010le", "gray12be", "rgb48le", "y210le", "rgb565le", ""];
    assert_eq!(formats.map(bits), [8, 8, 10, 10, 12, 16, 10, 8, 8]);
}

#[test]
fn dynamic_ranges_and_their_names() {
    let of = |transfer: &str, dolby_vision| {
        let transfer = non_empty(Some(transfer));
        ColourDescription { transfer, dolby_vision, ..ColourDescription::default() }
            .dynamic_range()
            .to_string()
    };
    assert_eq!([of("unknown", None), of("bt2020-10", None)], ["sdr", "sdr"]);
    assert_eq!([of("smpte2084", None), of("arib-std-b67", None)], ["hdr10", "hlg"]);
    assert_eq!(of("arib-std-b67", Some((8, 4))), "dolby-vision-8.4");
    assert_eq!(of("unknown", Some((5, 0))), "dolby-vision-5");
}

#[test]
fn encryption_is_detected_in_packets() {
    let of = |kind: &str| {
        of(serde_json::json!({
            "format": {},
            "streams": [{"index": 0, "codec_type": "video", "codec_name": "h264", "width": 64, "height": 64,
                "side_data_list": [{"side_data_type": "Encryption initialization data"}]}],
            "packets": [{"side_data_list": [{"side_data_type": kind}]}]
        }))
    };
    assert!(of("Encryption info").unwrap_err().to_string().contains("encrypted"));
    assert!(of("Skip Samples").is_ok());
}

#[test]
fn a_picture_size_refused_by_a_decoder_is_parsed() {
    let limited = "[h264 @ 0x5] no frame!\n[h264 @ 0x5] [IMGUTILS @ 0x7] Picture size 8192x8000 exceeds specified \
        max pixel count 35389440, see the documentation\n";
    let impossible =
        "[h264 @ 0x5] Picture size 0x0 is invalid\n[h264 @ 0x5] Picture size 16384x16384 is invalid\n";
    assert_eq!(too_large(limited), Some((8192, 8000)));
    assert_eq!(too_large(impossible), Some((16_384, 16_384)));
    assert_eq!(too_large("Picture size 4294967296x1 is invalid"), None);
    assert_eq!(too_large("no frame!"), None);
}

#[test]
fn a_phone_video_with_cover_art_and_data_tracks() {
    let media = of(serde_json::json!({
        "format": {"format_name": "mov,mp4", "duration": "4.001667"},
        "streams": [
            {"index": 0, "codec_type": "video", "codec_name": "mjpeg", "width": 600, "height": 600,
             "disposition": {"attached_pic": 1}},
            {"index": 1, "codec_type": "audio", "codec_name": "aac", "channels": 1,
             "sample_rate": "44100", "tags": {"language": "und"}},
            {"index": 2, "codec_type": "video", "codec_name": "h264", "width": 568, "height": 320,
             "sample_aspect_ratio": "0:1", "avg_frame_rate": "36000/1201", "time_base": "1/600",
             "side_data_list": [{"side_data_type": "Display Matrix", "rotation": -90,
              "displaymatrix": "\n00000000: 0 65536 0\n00000001: -65536 0 0\n00000002: 0 0 1073741824\n"}]},
            {"index": 3, "codec_type": "data", "codec_tag_string": "mebx"}
        ]
    }))
    .unwrap();
    let video = media.video.unwrap();
    assert_eq!((video.index, video.orientation.degrees(), video.pixel_aspect), (2, 90, 1.0));
    assert_eq!(video.display_size(), (320.0, 568.0));
    assert_eq!((media.audio[0].index, &media.audio[0].language), (1, &None));
}

#[test]
fn matroska_durations_come_from_tags() {
    let media = of(serde_json::json!({
        "format": {"duration": "60"},
        "streams": [
            {"index": 0, "codec_type": "video", "codec_name": "vp9", "width": 64, "height": 64,
             "tags": {"DURATION": "00:00:10.040000000"}},
            {"index": 1, "codec_type": "audio", "codec_name": "opus", "channels": 2,
             "sample_rate": "48000", "tags": {"DURATION": "00:01:00.000000000"}}
        ]
    }))
    .unwrap();
    assert_eq!((media.video.unwrap().duration_seconds, media.audio[0].duration_seconds), (10.04, 60.0));
}

#[test]
fn an_unknown_audio_track_is_dropped_with_a_warning() {
    let media = of(serde_json::json!({
        "format": {"duration": "4"},
        "streams": [
            {"index": 0, "codec_type": "video", "codec_name": "h264", "width": 64, "height": 64},
            {"index": 1, "codec_type": "audio", "codec_name": "aac", "channels": 2, "sample_rate": "48000"},
            {"index": 2, "codec_type": "audio", "codec_tag_string": "apac", "channels": 4},
            {"index": 3, "codec_type": "audio", "codec_name": "pcm_s16le", "channels": 999, "sample_rate": "1"},
            {"index": 4, "codec_type": "subtitle", "codec_name": "dvd_subtitle"}
        ]
    }))
    .unwrap();
    assert_eq!(media.audio.iter().map(|audio| audio.index).collect::<Vec<_>>(), [1]);
    let expected = [
        "audio track 2 is in a format (apac) that this service cannot read and was left out",
        "audio track 3 is declared with 999 channels (the limit is 64) and was left out",
        "subtitle track 4 is in a picture format instead of text and was left out",
    ];
    assert_eq!(media.warnings, expected);
    assert_eq!(media.video.unwrap().duration_seconds, 0.0, "the 4 s may be the audio's");
}

#[test]
fn attachments_and_data_are_not_counted_as_tracks() {
    let video = serde_json::json!(
        {"index": 0, "codec_type": "video", "codec_name": "h264", "width": 64, "height": 64});
    let others = (1..900).map(|index| match index % 3 {
        0 => serde_json::json!({"index": index, "codec_type": "attachment", "codec_name": "ttf"}),
        1 => serde_json::json!({"index": index, "codec_type": "data"}),
        _ => serde_json::json!({"index": index, "codec_type": "video", "codec_name": "png",
                "disposition": {"attached_pic": 1}}),
    });
    let streams: Vec<_> = [video].into_iter().chain(others).collect();
    assert_eq!(of(serde_json::json!({"format": {}, "streams": streams})).unwrap().video.unwrap().index, 0);
}

#[test]
fn channels_that_ffmpeg_cannot_mix() {
    use Downmix::{FirstTwo, FrontThree, Reordered, Standard};
    for (channels, layout, expected) in [
        (1, None, Standard),
        (1, Some("1 channels (FR)"), Standard),
        (2, Some("stereo"), Standard),
        (2, Some("2 channels (FL+FC)"), FirstTwo),
        (3, None, FrontThree),
        (3, Some("3.0"), Standard),
        (4, None, Standard),
        (4, Some("4 channels (FL+FR+FL+FR)"), FirstTwo),
        (4, Some("ambisonic 1"), FirstTwo),
        (5, Some("5 channels (FL+FR+LFE+SL+SR)"), Standard),
        (
            7,
            Some("7 channels (FL+FR+FC+LFE+SL+SR+BC)"),
            Reordered(vec!["FL", "FR", "FC", "LFE", "BC", "SL", "SR"]),
        ),
        (6, Some("5.1(side)"), Standard),
        (8, Some("8 channels"), FirstTwo),
        (8, Some("7.1"), Standard),
        (16, Some("hexadecagonal"), FirstTwo),
        (64, None, FirstTwo),
    ] {
        assert_eq!(downmix(channels, layout), expected, "{channels} {layout:?}");
    }
}

#[test]
fn languages_are_kept_if_they_are_well_formed() {
    for (tag, expected) in
        [("en", Some("en")), ("eng", Some("eng")), ("pt-BR", Some("pt-BR")), ("und", None), ("\"/..", None)]
    {
        let media = of(serde_json::json!({"format": {}, "streams": [
            {"index": 0, "codec_type": "audio", "codec_name": "aac", "channels": 2, "sample_rate": "48000",
             "tags": {"language": tag}}]}));
        assert_eq!(media.unwrap().audio[0].language.as_deref(), expected, "{tag}");
    }
}

#[test]
fn a_broken_ffprobe_does_not_reject_the_file() {
    let exited = |code: i32| ExitStatus::from_raw(code << 8);
    let of = |status, complaints| failure(status, complaints).exit();
    assert_eq!(of(exited(127), "ffprobe: error while loading shared libraries: libx"), Exit::Misconfigured);
    assert_eq!(of(exited(1), "Unrecognized option 'format_whitelist'"), Exit::Misconfigured);
    assert_eq!(of(ExitStatus::from_raw(9), ""), Exit::OutOfMemory);
    assert_eq!(of(ExitStatus::from_raw(11), ""), Exit::Internal);
    assert_eq!(of(exited(1), "moov atom not found"), Exit::Unusable);
}

#[test]
fn implausible_files_are_rejected_with_a_reason() {
    let stream = |width: u32| serde_json::json!({"index": 0, "codec_type": "video", "codec_name": "h264", "width": width, "height": 16});
    for (streams, duration, expected) in [
        (vec![], "1", "no video or audio that can be played"),
        (vec![stream(16_384)], "1", "16384 × 16 pixels"),
        (vec![stream(16); 101], "1", "101 tracks"),
        (vec![stream(16)], "315360000", "87600 hours"),
    ] {
        let media = of(serde_json::json!({"format": {"duration": duration}, "streams": streams}));
        let error = media.and_then(|media| check_stated(&media)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn colours_that_cannot_be_converted_are_refused() {
    let probed = |matrix: &str, dolby_vision: u32| {
        of(serde_json::json!({"streams": [
            {"index": 0, "codec_type": "video", "codec_name": "hevc", "width": 64, "height": 64,
             "color_space": matrix, "side_data_list": [{"dv_profile": dolby_vision}]},
        ]}))
    };
    let error = probed("ictcp", 8).unwrap_err().to_string();
    assert_eq!(error, "the video's colours are coded as ictcp, which this service cannot convert");
    assert!(probed("ipt-c2", 5).is_ok());
    assert!(probed("ycgco", 8).is_ok());
}

#[test]
fn webm_with_alpha_gets_a_decoder_that_reads_it() {
    let video = |alpha: &str| {
        let media = of(serde_json::json!({"streams": [
            {"index": 0, "codec_type": "video", "codec_name": "vp9", "width": 64, "height": 64,
             "pix_fmt": "yuv420p", "tags": {"alpha_mode": alpha}},
        ]}));
        let video = media.unwrap().video.unwrap();
        (video.decoder, video.pixel_format)
    };
    assert_eq!(video("1"), (Some("libvpx-vp9"), "yuva420p".to_owned()));
    assert_eq!(video("0"), (None, "yuv420p".to_owned()));
}
