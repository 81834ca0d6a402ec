use std::sync::LazyLock;

use proptest::prelude::*;

use super::{
    test_track::{TestTrack, wrap},
    *,
};
use crate::analysis::{aac::aac_lc, h264::refreshes};

#[test]
fn deeply_nested_boxes_are_not_followed() {
    for kind in [b"moov", b"trak", b"udta", b"meta"] {
        let nested = (0..100_000).fold(Vec::new(), |inner, _| {
            // Correct sizes would take quadratic time, and are not necessary.
            let mut outer: Vec<u8> = inner;
            outer.extend_from_slice(&[0, 0, 0, 0]);
            outer.extend_from_slice(kind);
            outer
        });
        assert!(Index::of_moov(&[TestTrack::new(3).moov(), nested].concat(), 1000).is_some());
    }
    // Nested descriptors.
    let esds = [0x03, 0x80, 0x80, 0x80, 0x7f, 0, 0, 0].repeat(1 << 20);
    let entry = wrap(b"mp4a", &[vec![0; 28], wrap(b"esds", &[vec![0; 4], esds])]);
    let movie = Movie { timescale: 1, fragmented: false, priming_tag: false, file_size: 1 };
    assert_eq!(
        audio(&entry, || why("no tables"), &movie).unwrap_err().to_string(),
        "its esds box is too long"
    );
}

fn test_track() -> impl Strategy<Value = TestTrack> {
    (1_u32..40).prop_flat_map(|frames| {
        let offsets = proptest::option::of(proptest::collection::vec(-2_i64..6, frames as usize));
        let keyframes = proptest::option::of(proptest::collection::btree_set(1..=frames, 1..6));
        (offsets, keyframes, Just(frames)).prop_map(|(offsets, keyframes, frames)| TestTrack {
            offsets: offsets.map(|offsets| offsets.iter().map(|offset| offset * 4).collect()),
            keyframes: keyframes.map(|mut keyframes| {
                keyframes.insert(1);
                keyframes.into_iter().collect()
            }),
            ..TestTrack::new(frames)
        })
    })
}

/// Positions, and the bytes to write there.
type Damage = Vec<(prop::sample::Index, u8)>;

fn damage(bytes: Range<usize>) -> impl Strategy<Value = Damage> {
    proptest::collection::vec(any::<(prop::sample::Index, u8)>(), bytes)
}

fn apply(damage: Damage, moov: &mut [u8]) {
    for (at, byte) in damage {
        moov[at.index(moov.len())] = byte;
    }
}

/// The body of `moov` of a file with video and audio.
static MOOV: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let audio = "-f lavfi -i sine=sample_rate=48000:duration=5";
    let file = clip(&folder, "real.mp4", &format!("{SOURCE} {audio} -c:v libx264 -c:a aac -g 30"));
    let bytes = std::fs::read(file).unwrap();
    let (_, moov) = boxes(&bytes).find(|(kind, _)| kind == b"moov").unwrap();
    moov.to_vec()
});

proptest! {
    #[test]
    fn damaged_files_do_not_panic(damage in damage(1..8)) {
        let mut moov = MOOV.clone();
        apply(damage, &mut moov);
        let _ = Index::of_moov(&moov, u64::MAX);
    }

    #[test]
    fn closed_keyframes_divide_the_frames(track in test_track()) {
        if let Ok(video) = track.video() {
            let offsets = track.offsets.clone().unwrap_or_else(|| vec![0; track.frames as usize]);
            let shown: Vec<_> = (0..).step_by(4).zip(&offsets).map(|(at, offset)| at + offset).collect();
            for keyframe in &video.keyframes {
                let at = keyframe.bytes_before as usize;
                prop_assert_eq!(keyframe.at, shown[at]);
                let divides = shown[..at].iter().all(|other| *other < shown[at])
                    && shown[at + 1..].iter().all(|other| *other > shown[at]);
                prop_assert_eq!(keyframe.closed, divides);
            }
        }
    }

    #[test]
    fn damaged_tables_do_not_panic(
        mut moov in test_track().prop_map(|track| track.moov()),
        damage in damage(0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        apply(damage, &mut moov);
        let _ = Index::of_moov(&moov, 1000);
        moov.truncate(cut.index(moov.len()));
        let _ = Index::of_moov(&moov, u64::MAX);
    }

    #[test]
    fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Index::of_moov(&bytes, 1000);
        let _ = refreshes(&bytes, 4);
        let _ = aac_lc(&bytes);
    }
}
