use std::path::{Path, PathBuf};

use proptest::prelude::*;

use crate::inspect::{file_type::may_be_readable, samples::*};

use super::*;

/// The last step of a walk, and the number of its reads.
fn walk(object: &Object) -> (Step, usize) {
    let mut walk = Walk::new(object.bytes);
    let mut range = Walk::FIRST;
    for reads in 1.. {
        assert!(reads <= MOST_READS);
        match walk.feed(range.start, object.read(range)) {
            Step::Read(next) => {
                assert!(next.start < next.end && next.end <= object.bytes && next.end - next.start <= READ);
                range = next;
            }
            end => return (end, reads),
        }
    }
    unreachable!()
}

fn facts(object: &Object) -> (MediaFacts, usize) {
    match walk(object) {
        (Step::Video(facts), reads) => (facts, reads),
        (end, _) => panic!("{end:?}"),
    }
}

#[test]
fn a_header_at_the_start_takes_one_read() {
    let header = moov(&[mvhd(60_000), trak(b"avc1", FULL_HD, 1500, 6000), trak(b"mp4a", None, 9, 9)]);
    let object = Object::new([ftyp(b"isom"), header].concat()).then(0, mdat(1 << 40));
    assert_eq!(facts(&object), (expected("h264", Some(true)), 1));
}

#[test]
fn boxes_after_a_large_video_table_are_not_read() {
    let header = moov(&[mvhd(60_000), trak(b"hvc1", FULL_HD, 1500, 1 << 20), trak(b"mp4a", None, 9, 9)]);
    let object = Object::new([ftyp(b"isom"), header].concat());
    assert_eq!(facts(&object), (expected("hevc", None), 1));
}

#[test]
fn a_header_at_the_end_takes_two_reads_and_large_audio_tables_a_third() {
    for (table, reads) in [(6000, 2), (1 << 20, 3)] {
        let header = moov(&[mvhd(60_000), trak(b"mp4a", None, 9, table), trak(b"av01", FULL_HD, 1500, 9)]);
        let object = Object::new([ftyp(b"isom"), mdat(5 << 30)].concat()).then(5 << 30, header.clone());
        assert_eq!(facts(&object), (expected("av1", Some(true)), reads));
        // A header at the start takes one read less.
        let object = Object::new([ftyp(b"isom"), header, mdat(5 << 30)].concat()).then(5 << 30, vec![]);
        assert_eq!(facts(&object), (expected("av1", Some(true)), reads - 1));
    }
}

#[test]
fn a_header_cut_at_any_byte_takes_at_most_two_reads() {
    let header = moov(&[mvhd(60_000), trak(b"avc1", FULL_HD, 1500, 70_000)]);
    // The walk needs the header up to the end of `stts`. The first read contains `cut` bytes of it.
    let needed = header.len() - 2 * (70_000 + 8);
    for cut in 0..=needed {
        let free = READ as usize - cut - ftyp(b"isom").len() - 8;
        let object = Object::new([ftyp(b"isom"), wrap(b"free", &[vec![0; free]]), header.clone()].concat());
        let (mut found, reads) = facts(&object);
        assert!(reads <= 2, "{cut}");
        // A walk does not read again for these two facts, so they can be missing.
        found.frame_rate = Some(25.0);
        found.has_audio = None;
        assert_eq!(found, expected("h264", None), "{cut}");
    }
}

#[test]
fn there_is_no_fourth_read() {
    let audio = || trak(b"mp4a", None, 9, 1 << 20);
    let header = moov(&[mvhd(60_000), audio(), audio(), trak(b"avc1", FULL_HD, 1500, 9)]);
    let object = Object::new([ftyp(b"qt  "), mdat(5 << 30)].concat()).then(5 << 30, header);
    let (found, reads) = facts(&object);
    assert_eq!((found.container, found.codec, found.duration_seconds), (Some("QuickTime"), None, Some(60.0)));
    assert_eq!((found.has_video, found.has_audio, reads), (None, Some(true), 3));
}

#[test]
fn the_duration_of_a_fragmented_file_comes_from_mehd() {
    let mehd = wrap(b"mehd", &[words(&[0, 3_600_000])]);
    for (mvex, duration) in [(wrap(b"mvex", &[mehd]), Some(3600.0)), (wrap(b"mvex", &[]), None)] {
        let header = moov(&[mvhd(40), trak(b"avc1", FULL_HD, 1, 0), mvex]);
        let (found, _) = facts(&Object::new([ftyp(b"iso6"), header].concat()));
        assert_eq!((found.codec, found.duration_seconds), (Some("h264"), duration));
    }
}

#[test]
fn the_facts_are_those_of_the_largest_video_track() {
    let still = trak(b"jpeg", Some((320, 180)), 1, 0);
    let header = moov(&[mvhd(60_000), still, trak(b"apch", FULL_HD, 1500, 0)]);
    let object = Object::new([ftyp(b"isom"), header].concat());
    assert_eq!(facts(&object).0, expected("prores", Some(false)));
}

#[test]
fn unknown_durations_sizes_and_codecs_stay_unknown() {
    let header = moov(&[mvhd(u32::MAX), trak(b"abcd", Some((0, 1080)), 0, 0)]);
    let (found, _) = facts(&Object::new([ftyp(b"isom"), header].concat()));
    let unknown = MediaFacts {
        container: Some("MP4"),
        has_video: Some(true),
        has_audio: Some(false),
        ..MediaFacts::default()
    };
    assert_eq!(found, unknown);
}

#[test]
fn other_file_types_are_rejected_with_their_name() {
    let mut ts = vec![0_u8; 188 * 20];
    ts.iter_mut().step_by(188).for_each(|byte| *byte = 0x47);
    let cases: [(&[u8], &str); 17] = [
        (b"", "the file is empty"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "the file is a document (PDF), not a video"),
        (b"this is not a video\n", "the file is text, not a video"),
        ("Über Straßen, Ä".as_bytes(), "the file is text, not a video"),
        (b"hi", "the file is text, not a video"),
        (b"#EXTM3U\nhttp://169.254.169.254/\n", "the file is text, not a video"),
        (b"{\"a\": 1}", "the file is text, not a video"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01", "the file is an image (JPEG), not a video"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "the file is an image (PNG), not a video"),
        (b"PK\x03\x04\x14\0\0\0\x08\0", "the file is an archive (ZIP), not a video"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\x03", "the file is an archive (GZ), not a video"),
        (b"\x7fELF\x02\x01\x01\0\0\0", "the file is a program (ELF), not a video"),
        (b"RIFF\x24\x08\0\0WAVEfmt ", "the file is audio (WAV), not a video"),
        (
            b"OggS\0\x02\0\0\0\0\0\0\0\0\x01\x02\x03\x04\0\0\0\0\0\0\0\0\x01\x2a\x80theora",
            "a video in a format (",
        ),
        (b"RIFF\x24\x08\0\0AVI LIST", "a video in a format (AVI) that is not accepted; use MP4, QuickTime, "),
        (b"FLV\x01\x05\0\0\0\x09\0\0\0\0", "a video in a format (FLV) that is not accepted"),
        (&ts, "a video in a format (TS) that is not accepted"),
    ];
    for (bytes, reason) in cases {
        match walk(&Object::new(bytes.to_vec())) {
            (Step::NotVideo(got), 1) => assert!(got.contains(reason), "{got}"),
            (end, _) => panic!("{reason}: {end:?}"),
        }
    }
}

#[test]
fn files_that_the_task_may_read_are_not_rejected() {
    let readable: [&[u8]; 8] = [
        b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x1f\x42\x86\x81\x01",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        // With an ID3 tag, audio and video cannot be distinguished.
        b"ID3\x04\0\0\0\0\0\x0a0123456789\0\0\0\x18ftypisom",
        // The size is invalid, but the type is known.
        b"\xff\xff\xff\xffmoov",
        b"Thismdat is a sentence",
        // If a size is invalid, the probe continues four bytes later.
        b"\0\0\0\0\0\0\0\0%PDF-1.7\n",
        b"\0\0\x01\xba\x44\0\x04\0\x04\x01",
        &[0; 100],
    ];
    // Not readable, but not rejected either: the type is unknown.
    let unknown: [&[u8]; 3] = [b"\x93\x17\x82\x11\xfe\x01\x02\x88\x99", b"\x93\x17", &[0xff; 100]];
    for (bytes, may) in
        readable.map(|bytes| (bytes, true)).into_iter().chain(unknown.map(|bytes| (bytes, false)))
    {
        assert_eq!(may_be_readable(bytes), may, "{bytes:x?}");
        assert!(matches!(walk(&Object::new(bytes.to_vec())), (Step::Video(_), 1)), "{bytes:x?}");
    }
}

#[test]
fn box_sizes_are_bounded_by_the_file() {
    let oversized = |kind: &[u8; 4], size: u64| [&words(&[1])[..], kind, &size.to_be_bytes()].concat();
    let header = [mvhd(60_000), trak(b"avc1", FULL_HD, 1500, 9)].concat();
    for size in [u64::MAX, u64::MAX - 15, 1 << 63] {
        let object = Object::new([ftyp(b"isom"), oversized(b"moov", size), header.clone()].concat());
        assert_eq!(facts(&object), (expected("h264", Some(false)), 1));
        let object = Object::new(
            [ftyp(b"isom"), oversized(b"mdat", size), moov(std::slice::from_ref(&header))].concat(),
        );
        assert_eq!(facts(&object).0, MediaFacts { container: Some("MP4"), ..MediaFacts::default() });
    }
    // Sizes smaller than the box header.
    for size in [2_u32, 7] {
        let object = Object::new(
            [ftyp(b"isom"), words(&[size]), b"free".to_vec(), moov(std::slice::from_ref(&header))].concat(),
        );
        assert_eq!(facts(&object).0, MediaFacts { container: Some("MP4"), ..MediaFacts::default() });
    }
}

#[test]
fn text_may_be_cut_within_a_character_only_at_the_end_of_a_read() {
    let text = "ä".repeat(READ as usize);
    assert!(matches!(walk(&Object::new(format!("x{text}").into_bytes())), (Step::NotVideo(_), 1)));
    assert!(matches!(walk(&Object::new(b"text, cut: \xc3".to_vec())), (Step::Video(_), 1)));
}

/// `may_be_readable` and the rejection's sentence must match the shared list of demuxers.
#[test]
fn readable_file_types_match_the_shared_demuxers() {
    assert_eq!(
        vidstreamx_job::DEMUXERS,
        "mov,matroska",
        "adapt may_be_readable and the rejection's sentence"
    );
}

fn corpus() -> Option<PathBuf> {
    let folder = std::env::var_os("VIDSTREAMX_CORPUS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"), PathBuf::from);
    folder.join("MANIFEST.tsv").exists().then_some(folder)
}

#[test]
fn facts_of_the_corpus_match_its_manifest() {
    let Some(folder) = corpus() else { return };
    let manifest = std::fs::read_to_string(folder.join("MANIFEST.tsv")).unwrap();
    let (mut videos, mut known) = (0, [0; MOST_READS + 1]);
    for line in manifest.lines().skip(1) {
        let columns: Vec<_> = line.split('\t').collect();
        let (name, streams, decodes) = (columns[0], columns[7], columns[8]);
        let (end, reads) = walk(&Object::new(std::fs::read(folder.join(name)).unwrap()));
        let found = match end {
            Step::Video(found) => found,
            end => {
                assert!(decodes != "ok", "{name}: {end:?}");
                continue;
            }
        };
        let field = |part: &str, name: &str| {
            let value = part.split(' ').find_map(|word| word.strip_prefix(name))?;
            value.parse::<f64>().ok()
        };
        let near = |found: Option<f64>, expected: Option<f64>, what: &str| {
            let (Some(found), Some(expected)) = (found, expected) else { return };
            assert!(
                (found - expected).abs() <= 0.02 * expected,
                "{name}: {what} {found}, {expected} in the manifest"
            );
        };
        // A damaged file can be shorter than its header claims.
        if decodes == "ok" || decodes.starts_with("exit 0") {
            near(found.duration_seconds, field(streams, "dur="), "duration");
        }
        let video_streams: Vec<_> = streams.split(" || ").filter(|part| part.starts_with("v:")).collect();
        let expected = video_streams.first().copied();
        if let (Some(codec), Some(expected)) =
            (found.codec, expected.and_then(|expected| expected[2..].split(['/', ' ']).next()))
        {
            assert!(expected == codec || expected == "?", "{name}: {codec}, {expected} in the manifest");
        }
        if let (Some(size), Some(expected)) = (found.width.zip(found.height), expected) {
            let size = format!(" {}x{} ", size.0, size.1);
            assert!(
                expected.contains(&size) || !expected.contains(" sar="),
                "{name}: {size}, {expected} in the manifest"
            );
        }
        near(found.frame_rate, expected.and_then(|expected| field(expected, "avg=")), "frame rate");
        if decodes == "ok" {
            let has_audio = streams.contains("|| a:") || streams.contains(" a:");
            assert_eq!(found.has_video.unwrap_or(expected.is_some()), expected.is_some(), "{name}");
            assert_eq!(found.has_audio.unwrap_or(has_audio), has_audio, "{name}");
            videos += usize::from(expected.is_some());
            known[reads] += usize::from(expected.is_some() && found.are_enough());
        }
    }
    assert!(known.iter().sum::<usize>() * 10 >= videos * 9, "{known:?} of {videos}");
}

/// A file with its header at the start or end, and with audio before or after the video track.
fn any_object() -> impl Strategy<Value = Object> {
    let table = prop_oneof![0_usize..200, 60_000_usize..70_000];
    let track = (prop_oneof![Just(None), Just(FULL_HD)], 0_u32..5000, table)
        .prop_map(|(size, frames, table)| trak(b"avc1", size, frames, table));
    let tracks = prop::collection::vec(track, 0..4);
    (tracks, any::<bool>(), any::<bool>(), 0_u64..200_000).prop_map(|(tracks, at_end, fragmented, gap)| {
        let mut parts = vec![mvhd(60_000)];
        parts.extend(tracks);
        if fragmented {
            parts.push(wrap(b"mvex", &[wrap(b"mehd", &[words(&[0, 5])])]));
        }
        let header = moov(&parts);
        if at_end {
            Object::new([ftyp(b"isom"), mdat(gap)].concat()).then(gap, header)
        } else {
            Object::new([ftyp(b"isom"), header, mdat(gap)].concat()).then(gap, vec![])
        }
    })
}

/// Damage: position, value, and whether it replaces a word or a byte.
fn damage() -> impl Strategy<Value = Vec<(prop::sample::Index, u32, bool)>> {
    let value = prop_oneof![Just(0), Just(1), Just(u32::MAX), Just(7), any::<u32>()];
    prop::collection::vec((any::<prop::sample::Index>(), value, any::<bool>()), 0..8)
}

proptest! {
    // `walk` checks the range and the number of the reads.
    #[test]
    fn a_walk_over_a_damaged_header_ends_within_the_read_limit(
        mut object in any_object(),
        damage in damage(),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let parts = object.parts.len();
        for (position, value, word) in damage {
            let (_, part) = &mut object.parts[position.index(parts)];
            // Most of the fields are in the first 600 bytes.
            let end = part.len().min(600);
            if end < 4 { continue }
            let at = position.index(end - 3);
            let bytes = value.to_be_bytes();
            let length = if word { 4 } else { 1 };
            part[at..at + length].copy_from_slice(&bytes[4 - length..]);
        }
        if is_cut {
            object.bytes = cut.index(object.bytes as usize) as u64;
        }
        let (end, _) = walk(&object);
        if let Step::Video(facts) = end {
            prop_assert!(facts.duration_seconds.is_none_or(|seconds| seconds.is_finite() && seconds > 0.0));
            prop_assert!(facts.frame_rate.is_none_or(|rate| rate.is_finite() && rate > 0.0));
            prop_assert!(facts.megapixels().is_none_or(|pixels| pixels >= 0.0));
        }
    }

    #[test]
    fn a_walk_over_any_bytes_ends(
        object_bytes in any::<u64>(),
        answers in prop::collection::vec(
            (any::<u64>(), prop::collection::vec(any::<u8>(), 0..100)),
            MOST_READS,
        ),
    ) {
        let mut walk = Walk::new(object_bytes);
        let last = answers.into_iter().map(|(offset, bytes)| walk.feed(offset, bytes)).last();
        prop_assert!(!matches!(last, Some(Step::Read(_))));
    }
}
