use super::{test_track::TestTrack, *};

#[test]
fn a_keyframe_is_closed_if_no_frame_crosses_it() {
    // Stored I P B I P B, shown I B P I B P.
    let closed =
        TestTrack { offsets: Some(vec![4, 8, 0, 4, 8, 0]), keyframes: Some(vec![1, 4]), ..TestTrack::new(6) };
    assert_eq!(closed.times(), [(4, 4, true), (16, 12, true)]);
    assert_eq!(closed.video().unwrap().end, 28);
    // Stored I P I B P P: the B is shown before the second I.
    let open = TestTrack {
        offsets: Some(vec![0, 0, 4, -4, 0, 0]),
        keyframes: Some(vec![1, 3]),
        ..TestTrack::new(6)
    };
    assert_eq!(open.times(), [(0, 0, true), (12, 4, false)]);
    // Stored I P I P: the first P is shown after the second I.
    let across =
        TestTrack { offsets: Some(vec![0, 8, 0, 4]), keyframes: Some(vec![1, 3]), ..TestTrack::new(4) };
    assert_eq!(across.times(), [(0, 0, true), (8, 12, false)]);
}

#[test]
fn quicktime_composition_offsets_are_signed_in_all_versions() {
    // Stored I P B, shown I B P.
    let minus_four = (1 << 32) - 4;
    let track =
        TestTrack { offsets: Some(vec![0, 4, minus_four]), keyframes: Some(vec![1, 3]), ..TestTrack::new(3) };
    assert_eq!(track.times(), [(0, 0, true), (4, 8, false)]);
}

#[test]
fn a_last_frame_without_duration_gets_the_previous_one() {
    assert_eq!(TestTrack { times: vec![(2, 4), (1, 0)], ..TestTrack::new(3) }.video().unwrap().end, 12);
    assert_eq!(TestTrack { times: vec![(1, 0)], ..TestTrack::new(1) }.video().unwrap().end, 1);
}

#[test]
fn without_stss_every_frame_is_a_keyframe() {
    assert_eq!(TestTrack { keyframes: None, ..TestTrack::new(2) }.times(), [(0, 0, true), (4, 0, true)]);
}

#[test]
fn edit_lists_pause_and_shift() {
    let with_edits = |edits: &[(u64, Option<u64>)]| TestTrack {
        offsets: Some(vec![8; 3]),
        keyframes: Some(vec![1, 3]),
        edits: edits.to_vec(),
        ..TestTrack::new(3)
    };
    let starts = |edits: &[_]| with_edits(edits).times().iter().map(|times| times.0).collect::<Vec<_>>();
    assert_eq!(starts(&[]), [8, 16]);
    assert_eq!(starts(&[(120, Some(8))]), [0, 8]);
    assert_eq!(starts(&[(120, Some(8))]), starts(&[(200, Some(4))]), "the same as in FFmpeg");
    assert_eq!(starts(&[(500, None), (120, Some(8))]), [50, 58]);
    for (edits, expected) in [
        (&[(120, Some(9))][..], "its edit list leaves out frames at the start"),
        (&[(80, Some(8))], "its edit list leaves out frames at the end"),
        (&[(0, Some(8))], "its edit list leaves out frames at the end"),
        (&[(120, None)], "its edit list is not one part after at most one pause"),
        (&[(40, Some(8)), (80, Some(12))], "its edit list is not one part after at most one pause"),
        (&[(120, Some(u64::MAX >> 1))], "its edit list begins too late"),
    ] {
        assert_eq!(with_edits(edits).video().unwrap_err(), expected, "{edits:?}");
    }
}

#[test]
fn contradicting_tables_are_not_copied() {
    let good = TestTrack { keyframes: Some(vec![1, 3]), ..TestTrack::new(5) };
    assert_eq!(good.video().unwrap().bytes, 5);
    for (track, expected) in [
        (TestTrack { chunk: 996, ..good.clone() }, "the file ends before its samples do"),
        (TestTrack { chunk: u64::MAX - 1, ..good.clone() }, "the file ends before its samples do"),
        (
            TestTrack { keyframes: Some(vec![2, 3]), ..good.clone() },
            "its first frame is not a closed keyframe",
        ),
        (TestTrack { keyframes: Some(vec![]), ..good.clone() }, "its first frame is not a closed keyframe"),
        (TestTrack { keyframes: Some(vec![1, 1]), ..good.clone() }, "its keyframes are not in order"),
        (
            TestTrack { times: vec![(4, 4)], ..good.clone() },
            "its stts and stsz boxes have different numbers of samples",
        ),
        (TestTrack { times: vec![(3, 0), (2, 4)], ..good.clone() }, "some of its frames have no duration"),
        (TestTrack { times: vec![(5, u32::MAX)], ..good.clone() }, "its times go backwards"),
        (
            TestTrack { offsets: Some(vec![6, 0, 0, 0, 0]), ..good.clone() },
            "its first frame is not a closed keyframe",
        ),
        (
            TestTrack { offsets: Some(vec![0, 8, 4, 0, 0]), ..good.clone() },
            "two of its frames are shown at the same time",
        ),
        (TestTrack::new(0), "it has 0 samples"),
        (TestTrack::new(u32::MAX), "it has 4294967295 samples"),
    ] {
        assert_eq!(track.video().unwrap_err(), expected, "{track:?}");
    }
}

#[test]
fn one_video_track_is_copyable_and_ids_are_unique() {
    let moov = [TestTrack::new(3).moov(), TestTrack::new(2).trak()].concat();
    let index = Index::of_moov(&moov, 1000).unwrap();
    assert!(index.tracks[0].is_copyable_video());
    assert_eq!(index.tracks[1].content, Content::Video(why("another video track precedes it")));
    assert_eq!(index.track(7), None);
}

#[test]
fn samples_of_all_tracks_are_bounded() {
    let track = TestTrack::new(MOST_SAMPLES);
    let index = Index::of_moov(&[track.moov(), track.trak().repeat(9)].concat(), 1000).unwrap();
    let reasons = index.tracks.iter().filter(|track| {
        matches!(&track.content, Content::Video(Err(why)) if why.0 == "the file has too many samples")
    });
    assert_eq!((index.tracks.len(), reasons.count()), (10, 6));
}

#[test]
fn peak_bitrate_covers_two_seconds_and_average_all() {
    // GOPs of 2 s with 50 bytes, 1 s with 25 bytes, 1 s with 25 bytes, and 0.4 s with 10 bytes.
    let track = TestTrack { keyframes: Some(vec![1, 51, 76, 101]), ..TestTrack::new(110) };
    let video = track.video().unwrap();
    assert_eq!((video.average_bitrate(), video.peak_bitrate()), (200, 200));
    let half_as_fast = TestTrack { times: vec![(50, 4), (60, 8)], ..track };
    let video = half_as_fast.video().unwrap();
    assert_eq!(video.peak_bitrate(), 200);
    assert_eq!(video.average_bitrate(), 129);
    // A track of less than two seconds.
    assert_eq!(TestTrack::new(25).video().unwrap().peak_bitrate(), 200);
}

#[test]
fn languages_and_speeds_are_added_to_the_model() {
    let mut moov = TestTrack { edits: vec![(2000, Some(0))], ..TestTrack::new(3) }.moov();
    let elst = moov.windows(4).position(|kind| kind == b"elst").unwrap();
    // The rate is the last field of the only entry: half speed.
    let size = u32::from_be_bytes(moov[elst - 4..elst].try_into().unwrap()) as usize;
    moov[elst - 4 + size - 4..elst - 4 + size].copy_from_slice(&[0, 0, 0x80, 0]);
    let mut index = Index::of_moov(&moov, 1000).unwrap();
    let Content::Video(Err(reason)) = &index.tracks[0].content else { panic!("{index:?}") };
    assert_eq!(reason.to_string(), "its edit list changes its speed");
    index.tracks[0].language = extended_language(b"\0\0\0\0pt-BR\0");
    let mut media = Media::default();
    media.audio.push(crate::analysis::media::Audio { index: 3, id: Some(7), ..Default::default() });
    index.describe(&mut media);
    assert_eq!(media.audio[0].language.as_deref(), Some("pt-BR"));
    assert_eq!(
        media.warnings,
        [
            "the edit list plays 2.0 s of audio track 3 at 0.50 times its speed; it was published at normal speed"
        ]
    );
    for damaged in [&b"\0\0\0\0\"><\0"[..], b"\0\0\0\0\xff\xfe", b"\0\0", b""] {
        assert_eq!(extended_language(damaged), None);
    }
}
