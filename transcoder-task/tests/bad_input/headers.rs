//! Headers with wrong sizes, times and audio formats.

use crate::{
    boxes::{STBL, VIDEO, X264, clip, with},
    cases::{Cases, Expected::*},
};

#[test]
fn wrong_frame_sizes() {
    let mut cases = Cases::new();
    let clip = clip(&cases);
    let sized = |width: u16, height: u16| {
        with(&clip, &format!("{STBL}/stsd/avc1"), |entry| {
            entry.put(24, &width.to_be_bytes());
            entry.put(26, &height.to_be_bytes());
        })
    };
    // The decoder uses the size of the bitstream.
    cases.add("16384x16384 in the container", sized(16_384, 16_384), Published);
    cases.add("0x0 in the container", sized(0, 0), Published);
    cases.add("1x1 in the container", sized(1, 1), Published);
    let large = |macroblocks: u32| {
        with(&clip, &format!("{STBL}/stsd/avc1/avcC"), |config| {
            let length = usize::from(u16::from_be_bytes(config.content[6..8].try_into().unwrap()));
            let sps = sps(macroblocks, macroblocks);
            let mut content = config.content[..6].to_vec();
            content.extend((sps.len() as u16).to_be_bytes());
            content.extend(&sps);
            content.extend(&config.content[8 + length..]);
            config.content = content;
        })
    };
    cases.add("16384x16384 in the bitstream", large(1024), Rejected("16384 × 16384 pixels"));
    cases.add("8192x8192 in the bitstream", large(512), Rejected("8192 × 8192 pixels"));
    cases.add(
        "16384x16384 in both",
        with(&large(1024), &format!("{STBL}/stsd/avc1"), |entry| {
            entry.put(24, &[0x40, 0, 0x40, 0]);
        }),
        Rejected("16384 × 16384 pixels"),
    );
    let tiny = cases.generate(&format!("{VIDEO} -c:v libx264 -vf scale=1:1 -pix_fmt yuv444p"), "mp4");
    cases.add("a video of 1x1", tiny, Published);
    let thin = cases.generate(&format!("-f lavfi -i color=red:size=8192x16:rate=5:duration=1 {X264}"), "mp4");
    cases.add("a video of 8192x16", thin, Published);
    cases.run();
}

/// A sequence parameter set of H.264's Baseline profile with a size in macroblocks.
fn sps(width: u32, height: u32) -> Vec<u8> {
    let golomb = |value: u32| {
        let bits = format!("{:b}", value + 1);
        "0".repeat(bits.len() - 1) + &bits
    };
    // The set's id, log2_max_frame_num_minus4, pic_order_cnt_type, the number of reference frames.
    let mut bits: String = [0, 0, 2, 1].into_iter().map(golomb).collect();
    bits += &format!("0{}{}", golomb(width - 1), golomb(height - 1));
    // Frames only, direct 8x8, no cropping, no VUI, the stop bit.
    bits += "11001";
    bits += &"0".repeat(bits.len().next_multiple_of(8) - bits.len());
    let mut bytes = vec![0x67, 66, 0xc0, 62];
    for byte in bits.as_bytes().chunks(8) {
        bytes.push(u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap());
    }
    bytes
}

#[test]
fn wrong_times() {
    let mut cases = Cases::new();
    let clip = clip(&cases);
    let ten_years = |clip: &[u8], path: &str, timescale: u64| {
        with(clip, path, |header| {
            // Version 1 has times and durations of 64 bits.
            let old = std::mem::take(&mut header.content);
            let identity = if path.ends_with("tkhd") { 8 } else { 4 };
            header.content = [&[1], &old[1..4], &[0; 16], &old[12..12 + identity]].concat();
            header.content.extend((315_360_000 * timescale).to_be_bytes());
            header.content.extend(&old[12 + identity + 4..]);
        })
    };
    let movie = ten_years(&ten_years(&clip, "moov/mvhd", 1000), "moov/trak/tkhd", 1000);
    cases.add("ten years in the movie header", &movie, Either);
    let media = ten_years(&clip, "moov/trak/mdia/mdhd", 12_800);
    cases.add("ten years in the media header", &media, Either);
    cases.add("ten years in all headers", ten_years(&movie, "moov/trak/mdia/mdhd", 12_800), Either);
    let stts = |content: &[u32]| {
        let bytes: Vec<u8> = content.iter().flat_map(|number| number.to_be_bytes()).collect();
        with(&clip, &format!("{STBL}/stts"), |table| table.content = bytes)
    };
    let slow = with(&stts(&[0, 1, 50, 6_307_200]), "moov/trak/mdia/mdhd", |header| {
        header.put(12, &[0, 0, 0, 1]);
        header.put(16, &315_360_000_u32.to_be_bytes());
    });
    let slow = with(&slow, "moov/trak/edts/elst", |list| list.content = vec![0; 8]);
    cases.add("ten years in the sample times", slow, Rejected("87600 hours"));
    cases.add("samples of two days", stts(&[0, 1, 50, 0x7fff_ffff]), Either);
    cases.add("samples of -1 ticks", stts(&[0, 1, 50, 0xffff_ffff]), Either);
    cases.add("samples of 0 ticks", stts(&[0, 1, 50, 0]), Either);
    cases.add("no sample times", stts(&[0, 0]), Either);
    cases.add("a count of 4 billion sample times", stts(&[0, 0xffff_fff0, 50, 512]), Either);
    cases.add("4 billion samples in one entry", stts(&[0, 1, 0xffff_fff0, 512]), Either);
    for path in ["moov/mvhd", "moov/trak/mdia/mdhd"] {
        cases.add(
            &format!("a timescale of 0 in {path}"),
            with(&clip, path, |header| header.put(12, &[0; 4])),
            Either,
        );
    }
    let edits = |count: u32, entries: &[[u32; 3]]| {
        let mut content = [0_u32.to_be_bytes(), count.to_be_bytes()].concat();
        content.extend(entries.iter().flatten().flat_map(|number| number.to_be_bytes()));
        with(&clip, "moov/trak/edts/elst", |list| list.content = content)
    };
    const RATE: u32 = 1 << 16;
    cases.add("an empty edit of 49 days", edits(2, &[[u32::MAX, u32::MAX, RATE], [2000, 0, RATE]]), Either);
    cases.add("an edit before the start", edits(1, &[[2000, 0x8000_0000, RATE]]), Either);
    cases.add("an edit after the end", edits(1, &[[2000, 0x7fff_ffff, RATE]]), Either);
    cases.add("an edit with a rate of 0", edits(1, &[[2000, 0, 0]]), Either);
    cases.add("100 edits", edits(100, &[[1, 0, RATE]; 100]), Either);
    cases.add("a count of 4 billion edits", edits(0xffff_fff0, &[[2000, 0, RATE]]), Either);
    let mut matroska = cases.generate(&format!("{VIDEO} {X264}"), "mkv");
    let duration = matroska.windows(3).position(|window| window == [0x44, 0x89, 0x88]).unwrap() + 3;
    matroska[duration..duration + 8].copy_from_slice(&315_360_000_000.0_f64.to_be_bytes());
    cases.add("ten years in a Matroska header", matroska, Warned("states 315360000.0 seconds"));
    cases.run();
}

#[test]
fn wrong_audio_formats() {
    let mut cases = Cases::new();
    let pcm = cases.generate("-f lavfi -i sine=duration=2 -c:a pcm_s16le", "mov");
    let entry =
        |at: usize, bytes: &[u8]| with(&pcm, &format!("{STBL}/stsd/sowt"), |entry| entry.put(at, bytes));
    cases.add("65,535 channels", entry(16, &[0xff, 0xff]), Rejected(""));
    cases.add("0 channels", entry(16, &[0, 0]), Either);
    cases.add("a sample rate of 0", entry(24, &[0; 4]), Either);
    cases.add("a sample rate of 1", entry(24, &[0, 1, 0, 0]), Either);
    cases.run();
}
