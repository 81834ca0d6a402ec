use super::*;
use crate::{
    analysis::copyable_tracks::FrameTime,
    analysis::media::{Audio, Media, Subtitle, Video},
    config::profile::Profile,
    plan::copyable::{CopyPlan, Copyable},
};

fn media() -> Media {
    Media {
        format: "mov".into(),
        duration_seconds: 11.4,
        video: Some(Video {
            index: 0,
            codec: "h264".into(),
            width: 1280,
            height: 720,
            pixel_aspect: 1.0,
            frame_rate: 30.0,
            time_base: "1/15360".into(),
            pixel_format: "yuv420p".into(),
            duration_seconds: 11.4,
            ..Video::default()
        }),
        audio: vec![Audio {
            index: 1,
            codec: "aac".into(),
            channels: 2,
            sample_rate: 44_100,
            bit_rate: 128_000,
            duration_seconds: 11.4,
            is_measured: true,
            ..Audio::default()
        }],
        ..Media::default()
    }
}

fn lines(plan: &Plan) -> String {
    lines_from(plan, None)
}

fn lines_from(plan: &Plan, resume_point: Option<&ResumePoint>) -> String {
    let input = ["-i".to_owned(), "file:in.mp4".to_owned()];
    let of = |process: &Process| {
        let arguments = arguments(plan, process, &input, "colours.cube", 3).join(" ");
        arguments.replace(" -map", "\n-map").replace(';', ";\n")
    };
    processes(plan, resume_point).iter().map(of).collect::<Vec<_>>().join("\n\n")
}

#[test]
fn everything_is_encoded() {
    let mut media = media();
    if let Some(video) = &mut media.video {
        video.interlaced = true;
        video.colour.transfer = Some("smpte2084".into());
    }
    media.subtitles.push(Subtitle { index: 2, codec: "mov_text".into(), ..Subtitle::default() });
    insta::assert_snapshot!(lines(&Plan::new(&media, &regular(), &Profile::default())));
}

/// A sample index of regular frames.
fn regular() -> Copyable {
    Copyable { longest_frame_seconds: Some(0.04), ..Copyable::default() }
}

#[test]
fn held_picture() {
    let mut media = media();
    media.duration_seconds = 20.0;
    let plan = |media: &Media| Plan::new(media, &Copyable::default(), &Profile::default());
    insta::assert_snapshot!("held", lines(&plan(&media)));
    if let Some(video) = &mut media.video {
        video.start_seconds = 3.0;
    }
    let plan = plan(&media);
    insta::assert_snapshot!("held_after_black", lines(&plan));
    let track = AudioResumePoint { first_ticks: 393_216, fed_ticks: 368_640 };
    let resume_point =
        ResumePoint { interval: 5, seek_seconds: 6.68, video_seconds: 8.2, audio: vec![track; 3], still: 9 };
    insta::assert_snapshot!("resumed_held", lines_from(&plan, Some(&resume_point)));
}

#[test]
fn copied_and_encoded_prefix() {
    let keyframe = |at_seconds, before_seconds| FrameTime { at_seconds, before_seconds };
    let keyframes = vec![keyframe(0.0, 0.0), keyframe(1.5, 1.466_667), keyframe(8.3, 8.266_667)];
    let boundaries = Boundaries::at(keyframes, keyframe(11.4, 11.366_667), 4.0).unwrap();
    let mut video =
        CopyPlan { boundaries, encoded_prefix: None, average_kbps: 2000.0, peak_kbps: 2500.0, level: None };
    let plan = |video: &CopyPlan| {
        let copyable = Copyable { video: Some(video.clone()), audio: vec![1], ..regular() };
        Plan::new(&media(), &copyable, &Profile::default())
    };
    insta::assert_snapshot!("copied", lines(&plan(&video)));
    video.encoded_prefix = Some((video.boundaries.clone(), 2));
    let plan = plan(&video);
    insta::assert_snapshot!("copied_after_encoded_prefix", lines(&plan));
    let resumed = |interval| lines_from(&plan, Some(&ResumePoint::for_video(&plan.boundaries, interval)));
    insta::assert_snapshot!("resumed_in_encoded_prefix", resumed(1));
    insta::assert_snapshot!("resumed_after_encoded_prefix", resumed(2));
}

#[test]
fn a_resumed_attempt_seeks_early_and_drops_published_frames() {
    let mut media = media();
    media.subtitles.push(Subtitle { index: 2, codec: "mov_text".into(), ..Subtitle::default() });
    let track = AudioResumePoint { first_ticks: 393_216, fed_ticks: 368_640 };
    let resume_point =
        ResumePoint { interval: 2, seek_seconds: 6.68, video_seconds: 2.0, audio: vec![track; 3], still: 9 };
    let plan = Plan::new(&media, &regular(), &Profile::default());
    insta::assert_snapshot!("resumed_encoded", lines_from(&plan, Some(&resume_point)));

    let keyframe = |at_seconds, before_seconds| FrameTime { at_seconds, before_seconds };
    let keyframes = vec![keyframe(0.0, 0.0), keyframe(4.0, 3.96), keyframe(8.3, 8.266_667)];
    let boundaries = Boundaries::at(keyframes, keyframe(11.4, 11.366_667), 4.0).unwrap();
    let video =
        CopyPlan { boundaries, encoded_prefix: None, average_kbps: 2000.0, peak_kbps: 2500.0, level: None };
    let copyable = Copyable { video: Some(video), audio: vec![1], ..regular() };
    let plan = Plan::new(&media, &copyable, &Profile::default());
    insta::assert_snapshot!("resumed_copied", lines_from(&plan, Some(&resume_point)));
}

#[test]
fn a_resumed_track_is_silent_before_its_start_and_after_its_end() {
    let of = |begins_late, end_seconds| {
        let mut args = Arguments::new();
        let track = AudioRendition {
            begins_late,
            start_seconds: 30.0,
            end_seconds,
            at_least_seconds: 60.0,
            ..AudioRendition::of_tests(1, 10.0)
        };
        audio(&mut args, 0, &track, Some(&AudioResumePoint { first_ticks: 984_576, fed_ticks: 960_000 }));
        args.0.join(" ")
    };
    assert!(of(true, 50.0).contains("aresample=48000,aresample=async=1:first_pts=960000,"));
    assert!(of(false, 50.0).contains("-map 0:1 "));
    let over = of(false, 20.05);
    assert!(
        over.contains(
            "anullsrc=channel_layout=stereo:sample_rate=48000,atrim=end_sample=1920000,asetpts=PTS+960000[a0]"
        ),
        "{over}"
    );
    assert!(!over.contains("0:1"), "{over}");
}

#[test]
fn other_codecs_share_the_scaled_frames() {
    let rung = |codec: &str| format!("[[rung]]\nsize = 360\ncodec = \"{codec}\"\ncrf = 30\nmax_kbps = 900\n");
    let profile: Profile = toml::from_str(&["h264", "hevc", "av1"].map(rung).concat()).unwrap();
    insta::assert_snapshot!(lines(&Plan::new(&media(), &regular(), &profile)));
}

#[test]
fn audio_alone_has_no_filter_graph() {
    let plan = Plan::new(&Media { video: None, ..media() }, &regular(), &Profile::default());
    let processes = processes(&plan, None);
    let [process] = processes.as_slice() else { panic!("{processes:?}") };
    assert_eq!(process.pipes, [Pipe::Progress, Pipe::Audio(0)]);
    assert!(!arguments(&plan, process, &[], "", 3).iter().any(|argument| argument == "-filter_complex"));
}

#[test]
fn stills_have_the_size_of_the_largest_encoded_rung_up_to_720p() {
    let plan = |width, height| {
        let mut media = media();
        if let Some(video) = &mut media.video {
            (video.width, video.height) = (width, height);
        }
        Plan::new(&media, &regular(), &Profile::default())
    };
    assert_eq!(still_size(&plan(3840, 2160).rungs), (1280, 720));
    assert_eq!(still_size(&plan(1080, 1920).rungs), (720, 1280));
    assert_eq!(still_size(&plan(426, 240).rungs), (426, 240));
    let mut copied = plan(426, 240).rungs;
    copied[0].encoding = None;
    assert_eq!(still_size(&copied), (426, 240));
}
