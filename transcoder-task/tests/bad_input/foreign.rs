//! Files of other formats, files without tracks, and encrypted files.

use crate::{
    boxes::{Mp4Box, STBL, VIDEO, X264, clip, find, random, range_of, with},
    cases::{Cases, Expected::*},
};

#[test]
fn files_that_are_not_video() {
    let mut cases = Cases::new();
    let picture = "-f lavfi -i testsrc2=size=64x64 -frames:v 1";
    cases.add("an empty file", b"", Rejected("not a video"));
    cases.add("one byte", b"x", Rejected("not a video"));
    cases.add("a megabyte of zeros", vec![0; 1 << 20], Rejected("not a video"));
    let mut random = random(1);
    let noise: Vec<u8> = (0..1 << 20).map(|_| random(256) as u8).collect();
    cases.add("a megabyte of noise", noise, Rejected("not a"));
    for (name, content) in [
        ("text", "just some text\n"),
        ("HTML", "<!DOCTYPE html><html><body>Sign in to download</body></html>"),
        ("PDF", "%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer\n%%EOF\n"),
        ("SRT", "1\n00:00:01,000 --> 00:00:02,000\nHello\n"),
        ("WebVTT", "WEBVTT\n\n00:01.000 --> 00:02.000\nHello\n"),
    ] {
        cases.add(name, content, Rejected("not a"));
    }
    cases.add("ZIP", [b"PK\x03\x04\x14\0\0\0".as_slice(), &[0; 200]].concat(), Rejected("not a"));
    cases.add("program", &std::fs::read("/proc/self/exe").unwrap()[..1 << 16], Rejected("not a"));
    for (kind, arguments) in [
        ("png", picture),
        ("jpg", picture),
        ("gif", picture),
        ("bmp", picture),
        ("wav", "-f lavfi -i sine=duration=1"),
        ("flac", "-f lavfi -i sine=duration=1"),
        ("avi", picture),
        ("ts", picture),
    ] {
        let file = cases.generate(arguments, kind);
        cases.add(kind, file, Rejected("not a"));
    }
    let clip = clip(&cases);
    let (movie, _) = range_of(&clip, b"moov");
    cases.add("a video without its index", &clip[..movie - 8], Rejected("its end is missing"));
    let mut empty = Mp4Box::parse(&clip);
    find(&mut empty, "moov").children.retain(|child| &child.kind != b"trak");
    cases.add("no tracks", Mp4Box::write(&empty), Rejected("no video or audio that can be played"));
    let unknown = with(&clip, &format!("{STBL}/stsd/avc1"), |entry| entry.kind = *b"zzz1");
    cases.add("an unknown video format", unknown, Rejected("format (zzz1) that this service cannot read"));
    cases.run();
}

#[test]
fn encrypted_files() {
    let mut cases = Cases::new();
    let key = "000102030405060708090a0b0c0d0e0f";
    let encryption = format!("-encryption_scheme cenc-aes-ctr -encryption_key {key} -encryption_kid {key}");
    let encrypted =
        cases.generate(&format!("{VIDEO} -f lavfi -i sine=duration=2 {X264} -c:a aac {encryption}"), "mp4");
    cases.add("encrypted", &encrypted, Rejected("encrypted"));
    let mut with_keys = Mp4Box::parse(&encrypted);
    let keys = [&[0; 4], &[0xed; 16][..], &4_u32.to_be_bytes(), &[1; 4]].concat();
    find(&mut with_keys, "moov").children.push(Mp4Box::new(b"pssh", keys));
    cases.add("encrypted, with a pssh box", Mp4Box::write(&with_keys), Rejected("encrypted"));
    cases.run();
}
