//! Truncated files, and wrong bits.

use crate::{
    boxes::{VIDEO, X264, clip, flipped, range_of},
    cases::{Cases, Expected::*},
};

#[test]
fn truncated_and_damaged_files() {
    let mut cases = Cases::new();
    let clip = clip(&cases);
    let faststart = cases
        .generate(&format!("{VIDEO} -f lavfi -i sine=duration=2 {X264} -c:a aac -movflags faststart"), "mp4");
    for share in [30, 80] {
        let expected = if share == 80 { Warned("damaged") } else { Rejected("damaged: only") };
        let cut = &faststart[..faststart.len() * share / 100];
        cases.add(&format!("the first {share} %"), cut, expected);
    }
    let (start, end) = range_of(&clip, b"moov");
    for share in 1..4 {
        // The video track may be complete.
        let cut = &clip[..start + (end - start) * share / 4];
        cases.add(&format!("{share}/4 of the index"), cut, Either);
    }
    cases.add("3/4 of an index at the start", &faststart[..faststart.len() / 200], Rejected("not a video"));
    cases.add("a few wrong bits in the middle", flipped(&clip, b"mdat", (0.3, 0.6), 8, 1), Published);
    cases.add("wrong bits everywhere", flipped(&clip, b"mdat", (0.0, 1.0), 50_000, 1), Either);
    let mut zeros = clip.clone();
    let (start, end) = range_of(&clip, b"mdat");
    zeros[start + (end - start) / 20..end].fill(0);
    cases.add("zeros after the start", zeros, Rejected("damaged"));
    for seed in 0..12 {
        cases.add(
            &format!("wrong bits in the index {seed}"),
            flipped(&clip, b"moov", (0.0, 1.0), 12, seed),
            Either,
        );
    }
    cases.run();
}
