//! Mutated files must not make the readers panic, loop forever, or find more boxes than fit into the file.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    ops::Range,
    panic::{catch_unwind, resume_unwind},
    time::{Duration, Instant},
};

use mp4_atom::{Decode, Elst, Mdhd, Moof, Moov, Mvhd, Tkhd};
use proptest::prelude::*;
use vidstreamx_isobmff::{
    BoxType,
    boxes::{
        BoxHeader, all_boxes, audio_entry_boxes, boxes, decode_optional, find, handler_type, sample_entries,
        visual_entry_boxes,
    },
    codecs::codec_string,
    fragment::{SampleDefaults, samples, track_fragment},
    walk::{BoxesIn, Missing, Windows},
};

/// Bytes of a window in the windowed walk.
const WINDOW: u64 = 64;

fn wrap(kind: &BoxType, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(8 + body.len()).unwrap().to_be_bytes();
    [&size[..], kind, body].concat()
}

/// A small file with all boxes that are read: a movie with a track, and a fragment.
fn file() -> Vec<u8> {
    let entry = wrap(b"avc1", &[&[0; 78][..], &wrap(b"avcC", &[1, 77, 0, 31, 0xff, 0xe0, 0])].concat());
    let stsd = wrap(b"stsd", &[&[0, 0, 0, 0, 0, 0, 0, 1][..], &entry].concat());
    let minf = wrap(b"minf", &wrap(b"stbl", &stsd));
    let hdlr = wrap(b"hdlr", &[&[0; 8][..], b"vide", &[0; 13]].concat());
    let mdhd = wrap(b"mdhd", &[0; 24]);
    let trak =
        wrap(b"trak", &[wrap(b"tkhd", &[0; 84]), wrap(b"mdia", &[mdhd, hdlr, minf].concat())].concat());
    let moov = wrap(b"moov", &[wrap(b"mvhd", &[0; 100]), trak].concat());
    let tfhd = wrap(b"tfhd", &[0, 2, 0, 0, 0, 0, 0, 1]);
    let tfdt = wrap(b"tfdt", &[0; 8]);
    let trun = wrap(b"trun", &[0, 0, 3, 0, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 9]);
    let traf = wrap(b"traf", &[tfhd, tfdt, trun].concat());
    let moof = wrap(b"moof", &[wrap(b"mfhd", &[0; 8]), traf].concat());
    [wrap(b"ftyp", b"isom\0\0\0\0"), moov, moof, wrap(b"mdat", &[0; 9])].concat()
}

/// Reads all boxes. Returns their number.
fn read_all(bytes: &[u8]) -> usize {
    // A stack instead of recursion. It is bounded, because a box has at least eight bytes.
    let (mut stack, mut count) = (vec![bytes], 0);
    while let Some(bytes) = stack.pop() {
        let _ = (all_boxes(bytes), handler_type(bytes), decode_optional::<Mvhd>(bytes));
        let _ = (decode_optional::<Mdhd>(bytes), decode_optional::<Tkhd>(bytes));
        let _ = (decode_optional::<Elst>(bytes), find(bytes, *b"trak"), BoxHeader::parse(bytes));
        for (kind, body) in boxes(bytes) {
            count += 1;
            stack.push(match &kind {
                b"avc1" => visual_entry_boxes(body),
                b"mp4a" => audio_entry_boxes(body),
                b"stsd" => sample_entries(body),
                _ => body,
            });
        }
        if stack.len() > 10_000 {
            break;
        }
    }
    count
}

/// Walks the file in windows to its last box. Returns the number of windows.
fn walk_all(bytes: &[u8]) -> usize {
    let size = bytes.len() as u64;
    let mut windows = Windows::new();
    loop {
        let mut walk = BoxesIn::new(&windows, 0..size);
        let missing = loop {
            if let Err(missing) = walk.advance() {
                break missing;
            }
        };
        let Missing::At(offset) = missing else { return windows.count() };
        let (start, end) = (offset as usize, size.min(offset + WINDOW) as usize);
        windows.add(offset, bytes[start..end].to_vec());
    }
}

fn decode_fragments(bytes: &[u8]) {
    for (kind, body) in boxes(bytes) {
        let whole = wrap(&kind, body);
        if kind == *b"moof"
            && let Ok(moof) = Moof::decode(&mut whole.as_slice())
            && let Ok((traf, start)) = track_fragment(&moof)
        {
            let presented = samples(traf, start, SampleDefaults::default()).map(|sample| sample.presented());
            let _ = presented.max();
        }
        // Only small movies: the decoder recurses, and a large movie could be nested too deeply.
        if kind == *b"moov"
            && body.len() < 1000
            && let Ok(moov) = Moov::decode(&mut whole.as_slice())
        {
            let _ = SampleDefaults::of_init(&moov);
            let entries = moov.trak.iter().flat_map(|trak| &trak.mdia.minf.stbl.stsd.codecs);
            let _ = entries.map(codec_string).collect::<Vec<_>>();
        }
    }
}

fn check(bytes: &[u8]) {
    assert!(read_all(bytes) <= 100_000);
    assert!(walk_all(bytes) <= 2 + bytes.len() / 8);
    decode_fragments(bytes);
}

#[test]
fn the_unchanged_file_is_read_completely() {
    let file = file();
    assert!(read_all(&file) > 15, "{}", read_all(&file));
    assert!(walk_all(&file) >= 3);
    let moof = boxes(&file).find(|(kind, _)| kind == b"moof").unwrap();
    let moof = Moof::decode(&mut wrap(&moof.0, moof.1).as_slice()).unwrap();
    let (traf, start) = track_fragment(&moof).unwrap();
    assert_eq!(samples(traf, start, SampleDefaults::default()).map(|sample| sample.size).sum::<u32>(), 9);
}

proptest! {
    #[test]
    fn mutated_files_do_not_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
        is_cut: bool,
    ) {
        let mut bytes = file();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        check(&bytes);
    }

    #[test]
    fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        check(&bytes);
    }
}

/// The mutated file that belongs to a seed.
fn mutated(seed: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut bytes = file();
    for _ in 0..rng.usize(0..20) {
        let at = rng.usize(0..bytes.len());
        match rng.u8(0..4) {
            0 => bytes[at] = rng.u8(..),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.usize(0..5)],
            2 => bytes.insert(at, rng.u8(..)),
            _ => drop(bytes.remove(at)),
        }
    }
    bytes
}

/// The seeds in `VIDSTREAMX_SEEDS`: one, or a range.
fn chosen_seeds() -> Option<Range<u64>> {
    let text = std::env::var("VIDSTREAMX_SEEDS").ok()?;
    Some(match text.split_once("..") {
        Some((from, to)) => from.parse().unwrap()..to.parse().unwrap(),
        None => text.parse().map(|seed| seed..seed + 1).unwrap(),
    })
}

/// `make fuzz` checks the mutated files of new random seeds for `VIDSTREAMX_FUZZ_SECONDS`. If
/// `VIDSTREAMX_SEEDS` is set (such as 1234 or 0..100), it checks the files of these seeds instead.
#[test]
#[ignore = "runs for VIDSTREAMX_FUZZ_SECONDS"]
#[allow(clippy::print_stdout, reason = "prints the seeds of the run")]
fn fuzz() {
    let seconds = std::env::var("VIDSTREAMX_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(60));
    let chosen = chosen_seeds();
    let first = chosen.as_ref().map_or_else(|| fastrand::u64(..u64::MAX / 2), |seeds| seeds.start);
    println!("seeds from {first} on");
    let mut seed = first;
    while chosen.as_ref().map_or_else(|| Instant::now() < end, |seeds| seed < seeds.end) {
        let bytes = mutated(seed);
        if let Err(panic) = catch_unwind(|| check(&bytes)) {
            println!("seed {seed} fails; VIDSTREAMX_SEEDS={seed} repeats it");
            resume_unwind(panic);
        }
        seed += 1;
    }
    assert!(seed > first);
    println!("{} files, no reader failed", seed - first);
}
