//! Hostile relatives of the uploads that are repaired: the same faults, made to cost time, memory or output.

use crate::{
    boxes::{Mp4Box, STBL, X264, clip, find, with},
    cases::{Cases, Expected::*},
};

const FRAGMENTED: &str = "-g 25 -movflags +frag_keyframe+empty_moov+default_base_moof";

/// Adds these ticks to the times of all fragments from this one on.
fn later(fragmented: &[u8], first: usize, ticks: u64) -> Vec<u8> {
    let mut bytes = fragmented.to_vec();
    let times = bytes.windows(4).enumerate().filter(|(_, kind)| kind == b"tfdt").map(|(at, _)| at + 8);
    for at in times.skip(first).collect::<Vec<_>>() {
        let time = u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        bytes[at..at + 8].copy_from_slice(&time.wrapping_add(ticks).to_be_bytes());
    }
    bytes
}

/// 100 frames of different sizes, each of an encoder of its own, without a container.
fn sizes(cases: &Cases, codec: &str, extension: &str) -> Vec<u8> {
    let frame = |n: u32| {
        let size = format!("{}x{}", 64 + 16 * (n * 7 % 23), 64 + 16 * (n * 11 % 17));
        let frame = format!("-f lavfi -i testsrc2=size={size}:rate=25 -frames:v 1 {codec}");
        cases.generate(&frame, extension)
    };
    (0..100).flat_map(frame).collect()
}

#[test]
fn repairs_have_limits() {
    let mut cases = Cases::new();
    const TICKS: u64 = 12_800; // per second
    const VIDEO: &str = "-f lavfi -i testsrc2=size=64x36:rate=25:duration=2";
    let one = cases.generate(&format!("{VIDEO} {X264} -frames:v 1 {FRAGMENTED}"), "mp4");
    cases.add("one sample in 2023", later(&one, 0, 1_700_000_000 * TICKS), Published);
    let fragments = cases.generate(&format!("{VIDEO} {X264} {FRAGMENTED}"), "mp4");
    cases.add("2 seconds in 2023", later(&fragments, 0, 1_700_000_000 * TICKS), Published);
    cases.add("a hole of 53 years", later(&fragments, 1, 1_700_000_000 * TICKS), Rejected("hours"));
    cases.add("a hole of 30 hours", later(&fragments, 1, 30 * 3600 * TICKS), Rejected("hours"));
    cases.add("a fragment before all others", later(&fragments, 1, 0_u64.wrapping_sub(1 << 40)), Either);
    cases.add("a hole of an hour", later(&fragments, 1, 3600 * TICKS), Warned("shows nothing new"));
    let slides = format!("-f lavfi -i testsrc2=size=64x36:rate=1/3600:duration=7200 {X264}");
    cases.add("two slides of an hour", cases.generate(&slides, "mkv"), Warned("shows nothing new"));

    let changing = cases.folder.path().join("sizes.mjpeg");
    std::fs::write(&changing, sizes(&cases, "-c:v mjpeg -pix_fmt yuvj420p", "mjpeg")).unwrap();
    let remux = format!("-framerate 25 -f mjpeg -i {} -c copy", changing.display());
    cases.add("another size in every frame", cases.generate(&remux, "mkv"), Published);
    let changing = cases.folder.path().join("sizes.h264");
    std::fs::write(&changing, sizes(&cases, X264, "h264")).unwrap();
    let remux = format!("-framerate 25 -f h264 -i {} -c copy", changing.display());
    cases.add("another size in every keyframe", cases.generate(&remux, "mp4"), Published);

    let clip = clip(&cases);
    let mut many = Mp4Box::parse(&clip);
    let mut disabled = find(&mut many, "moov/trak").clone();
    find(std::slice::from_mut(&mut disabled), "trak/tkhd").put(0, &[0; 4]);
    let movie = find(&mut many, "moov");
    let others = std::mem::take(&mut movie.children);
    let (header, tracks) = others.split_at(1);
    movie.children = [header, &vec![disabled; 10_000], tracks].concat();
    cases.add("10,000 tracks of which two are enabled", Mp4Box::write(&many), Rejected("more"));

    // Ten million samples of one byte and one tick.
    let numbers =
        |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<_>>();
    const COUNT: u32 = 10_000_000;
    let mut short = with(&clip, &format!("{STBL}/stts"), |table| table.content = numbers(&[0, 1, COUNT, 1]));
    for (name, content) in [
        ("stsz", numbers(&[0, 1, COUNT])),
        ("stsc", numbers(&[0, 1, 1, COUNT, 1])),
        ("stco", numbers(&[0, 1, 48])),
        ("ctts", numbers(&[0, 0])),
    ] {
        short = with(&short, &format!("{STBL}/{name}"), |table| table.content = content);
    }
    short.extend(Mp4Box::write(&[Mp4Box::new(b"free", vec![0; COUNT as usize])]));
    cases.add("ten million samples of one tick", short, Rejected("10000000 pictures in 2.0 seconds"));
    cases.run();
}
