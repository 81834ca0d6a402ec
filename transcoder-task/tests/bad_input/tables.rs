//! Sample tables with wrong counts, and boxes with wrong sizes.

use crate::{
    boxes::{HUGE, Mp4Box, STBL, VIDEO, X264, clip, find, range_of, with},
    cases::{Cases, Expected::*},
};

#[test]
fn wrong_tables_and_box_sizes() {
    let mut cases = Cases::new();
    let clip = clip(&cases);
    let table = |name: &str, at: usize, bytes: &[u8]| {
        with(&clip, &format!("{STBL}/{name}"), |table| table.put(at, bytes))
    };
    cases.add("4 billion composition offsets", table("ctts", 4, &HUGE), Either);
    cases.add("4 billion sample sizes", table("stsz", 8, &HUGE), Either);
    cases.add("4 billion samples of one byte", table("stsz", 4, &[[0, 0, 0, 1], HUGE].concat()), Either);
    cases.add("4 billion chunks", table("stco", 4, &HUGE), Either);
    cases.add("4 billion chunk lengths", table("stsc", 4, &HUGE), Either);
    cases.add("4 billion samples per chunk", table("stsc", 12, &HUGE), Either);
    cases.add("4 billion keyframes", table("stss", 4, &HUGE), Either);
    cases.add("4 billion sample entries", table("stsd", 4, &HUGE), Either);
    let outside = with(&clip, &format!("{STBL}/stco"), |chunks| {
        for chunk in chunks.content[8..].chunks_mut(4) {
            chunk.copy_from_slice(&0x7000_0000_u32.to_be_bytes());
        }
    });
    cases.add("samples outside the file", outside, Rejected("damaged"));
    let mut many = Mp4Box::parse(&clip);
    let track = find(&mut many, "moov/trak").clone();
    let movie = find(&mut many, "moov");
    movie.children.extend(std::iter::repeat_n(track.clone(), 105));
    cases.add("107 tracks", Mp4Box::write(&many), Rejected("107 tracks"));
    find(&mut many, "moov").children.extend(std::iter::repeat_n(track, 5000));
    cases.add("5,107 tracks", Mp4Box::write(&many), Rejected("more"));
    for (name, kind) in [("20,000 nested movies", b"moov"), ("20,000 nested tracks", b"trak")] {
        let header = |depth: u32| [&(8 * (20_000 - depth)).to_be_bytes(), kind.as_slice()].concat();
        let nested: Vec<u8> = (0..20_000).flat_map(header).collect();
        let mut bytes = clip.clone();
        let movie = Mp4Box::new(b"moov", nested);
        bytes.extend(Mp4Box::write(&[movie]));
        cases.add(name, bytes, Either);
    }
    // A size of 0 extends to the end of the file, 1 precedes a 64-bit size, and 2 to 7 are invalid.
    let (movie, _) = range_of(&clip, b"moov");
    let resized = |size: u32| {
        let mut bytes = clip.clone();
        bytes[movie - 8..movie - 4].copy_from_slice(&size.to_be_bytes());
        bytes
    };
    cases.add("an index to the end of the file", resized(0), Published);
    cases.add("an index of 7 bytes", resized(7), Rejected("not a video"));
    cases.add("an index with a size of 200 MB", resized(200 << 20), Either);
    cases.add("an index with a size of 4 GB", resized(u32::MAX), Either);
    for size in [0_u64, 15, 1 << 63, u64::MAX] {
        let mut bytes = resized(1);
        bytes.splice(movie..movie, size.to_be_bytes());
        cases.add(&format!("an index of {size} bytes"), bytes, Either);
        let mut bytes = clip[..32].to_vec();
        bytes.extend([&[0, 0, 0, 1], &b"free"[..], &size.to_be_bytes(), &clip[32..]].concat());
        cases.add(&format!("free space of {size} bytes"), bytes, Either);
    }
    let compressed = Mp4Box::write(&[
        Mp4Box::parse(&clip).remove(0),
        Mp4Box::new(
            b"moov",
            Mp4Box::write(&[Mp4Box::new(
                b"cmov",
                Mp4Box::write(&[
                    Mp4Box::new(b"dcom", *b"zlib"),
                    Mp4Box::new(
                        b"cmvd",
                        [&0x7fff_ffff_u32.to_be_bytes()[..], &[0x78, 0x9c], &[0; 64]].concat(),
                    ),
                ]),
            )]),
        ),
    ]);
    cases.add("a compressed index with a size of 2 GB", compressed, Rejected("not a video"));
    let fragmented = cases.generate(&format!("{VIDEO} {X264} -movflags frag_keyframe+empty_moov"), "mp4");
    let run = |at: usize, bytes: &[u8]| with(&fragmented, "moof/traf/trun", |run| run.put(at, bytes));
    cases.add("4 billion samples in a fragment", run(4, &HUGE), Either);
    cases.add("a fragment outside the file", run(8, &0x7000_0000_u32.to_be_bytes()), Either);
    cases.run();
}
