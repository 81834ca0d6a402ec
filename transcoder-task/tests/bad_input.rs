//! Hostile, broken and foreign files as the program meets them: each ends in time, within memory, and with a
//! sentence that needs no knowledge of video. `--nocapture` prints them all.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]
#![allow(clippy::print_stdout, reason = "the table is for people")]

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use serde_json::Value;

/// What is no real video must be told apart within this time… (Alone on a machine each takes one second or
/// two; tests share theirs.)
const MOST_SECONDS: f64 = 30.0;
/// …and this much memory of the task and FFmpeg together.
const MOST_MEGABYTES: u64 = 1024;
/// Words that an uploader need not know.
const JARGON: [&str; 9] =
    ["FFmpeg", "ffprobe", "codec", "moov", "atom", " box", "demux", "Invalid data", "0x"];

/// What should come of a file.
#[derive(Clone, Copy)]
enum Expected {
    /// Exit code 65, and a sentence with these words.
    Refused(&'static str),
    /// Exit code 0.
    Published,
    /// Exit code 0, and a warning with these words.
    Warned(&'static str),
    /// Any of these: damage at random.
    Decided,
}
use Expected::{Decided, Published, Refused, Warned};

struct Case {
    name: String,
    file: PathBuf,
    expected: Expected,
    most_seconds: f64,
}

/// Files to be tried, in a folder of their own.
struct Cases {
    folder: tempfile::TempDir,
    all: Vec<Case>,
}

impl Cases {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), all: Vec::new() }
    }

    fn add(&mut self, name: &str, content: impl AsRef<[u8]>, expected: Expected) {
        let file = self.folder.path().join(format!("{}.mp4", self.all.len()));
        std::fs::write(&file, content).unwrap();
        self.all.push(Case { name: name.into(), file, expected, most_seconds: MOST_SECONDS });
    }

    /// What FFmpeg makes from `arguments`.
    fn make(&self, arguments: &str, extension: &str) -> Vec<u8> {
        let file = self.folder.path().join(format!("made.{extension}"));
        let arguments = format!("-loglevel error -y {arguments} {}", file.display());
        let output = Command::new("ffmpeg").args(arguments.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::read(file).unwrap()
    }

    /// Tries all of them, two at a time, and prints the table.
    fn run(self) {
        let queue = Mutex::new(self.all.iter());
        let wrong = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let Some(case) = queue.lock().unwrap().next() else { return };
                        let got = Got::of(&case.file, self.folder.path());
                        println!(
                            "{:<44} {:>4} {:>5.1} s {:>5} MB  {}",
                            case.name, got.code, got.seconds, got.megabytes, got.words
                        );
                        if let Err(problem) = got.check(case) {
                            wrong.lock().unwrap().push(format!("{}: {problem} ({})", case.name, got.words));
                        }
                    }
                });
            }
        });
        let wrong = wrong.into_inner().unwrap();
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }
}

/// What came of a file.
struct Got {
    code: i32,
    seconds: f64,
    /// Of the task and its children together, each at its peak.
    megabytes: u64,
    /// The reason, or the warnings.
    words: String,
}

impl Got {
    fn of(file: &Path, folder: &Path) -> Self {
        let output = folder.join(format!("{}-out", file.file_stem().unwrap().to_str().unwrap()));
        let log = std::fs::File::create(output.with_extension("log")).unwrap();
        let started = Instant::now();
        let mut task = Command::new(env!("CARGO_BIN_EXE_transcoder-task"))
            .args(["--input".as_ref(), file.as_os_str(), "--output".as_ref(), output.as_os_str()])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let mut peaks = Peaks::default();
        let status = loop {
            peaks.look(task.id());
            if let Some(status) = task.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > Duration::from_secs(90) {
                task.kill().unwrap();
            }
            // The kernel keeps the peaks; this only must not miss a process.
            std::thread::sleep(Duration::from_millis(5));
        };
        let report = std::fs::read(output.join("job.json")).unwrap_or_default();
        let report: Value = serde_json::from_slice(&report).unwrap_or_default();
        let words = match report["reason"].as_str() {
            Some(reason) => reason.to_owned(),
            None => report["warnings"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join("; "),
        };
        let log = std::fs::read_to_string(output.with_extension("log")).unwrap_or_default();
        Self {
            code: status.code().unwrap_or(-1),
            seconds: started.elapsed().as_secs_f64(),
            megabytes: peaks.total() >> 10,
            words: if report.is_null() { format!("no report; {log}") } else { words },
        }
    }

    fn check(&self, case: &Case) -> Result<(), String> {
        let (code, words) = match case.expected {
            Refused(words) => (65, words),
            Published => (0, ""),
            Warned(words) => (0, words),
            Decided if self.code == 0 => (0, ""),
            Decided => (65, ""),
        };
        if self.code != code {
            return Err(format!("exit code {} instead of {code}", self.code));
        }
        if !self.words.contains(words) || (code == 65 && self.words.is_empty()) {
            return Err(format!("does not say {words:?}"));
        }
        if let Some(word) = JARGON.iter().find(|word| self.words.contains(**word)) {
            return Err(format!("says {word:?}"));
        }
        if self.seconds > case.most_seconds {
            return Err(format!("{:.1} seconds", self.seconds));
        }
        if self.megabytes > MOST_MEGABYTES {
            return Err(format!("{} MB", self.megabytes));
        }
        Ok(())
    }
}

/// The largest resident size of each process of a tree, in KB.
#[derive(Default)]
struct Peaks(std::collections::HashMap<u32, u64>);

impl Peaks {
    fn look(&mut self, process: u32) {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(peak) = peak.and_then(|text| text.trim().split(' ').next()?.parse::<u64>().ok()) {
            let known = self.0.entry(process).or_default();
            *known = peak.max(*known);
        }
        for thread in std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            children.split_whitespace().for_each(|child| self.look(child.parse().unwrap()));
        }
    }

    fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// A box of an MP4 file, to be changed.
#[derive(Clone)]
struct Atom {
    kind: [u8; 4],
    /// All of a leaf's content, or what is before a container's children.
    content: Vec<u8>,
    children: Vec<Self>,
}

impl Atom {
    fn new(kind: &[u8; 4], content: impl Into<Vec<u8>>) -> Self {
        Self { kind: *kind, content: content.into(), children: Vec::new() }
    }

    fn parse(mut bytes: &[u8]) -> Vec<Self> {
        let mut atoms = Vec::new();
        while bytes.len() >= 8 {
            let size = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
            let kind: [u8; 4] = bytes[4..8].try_into().unwrap();
            let (whole, rest) = bytes.split_at(size);
            let head = match &kind {
                b"moov" | b"trak" | b"mdia" | b"minf" | b"stbl" | b"edts" | b"dinf" | b"moof" | b"traf" => 0,
                b"stsd" | b"dref" => 8,
                b"avc1" => 78,
                b"mp4a" | b"sowt" => 28,
                _ => size - 8,
            };
            let (content, children) = whole[8..].split_at(head);
            atoms.push(Self { kind, content: content.into(), children: Self::parse(children) });
            bytes = rest;
        }
        atoms
    }

    fn write(atoms: &[Self]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for atom in atoms {
            let children = Self::write(&atom.children);
            bytes.extend(((8 + atom.content.len() + children.len()) as u32).to_be_bytes());
            bytes.extend(atom.kind);
            bytes.extend(&atom.content);
            bytes.extend(children);
        }
        bytes
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.content[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// The clip with the first box at the end of `path` (`moov/trak/tkhd`) changed.
fn with(clip: &[u8], path: &str, change: impl FnOnce(&mut Atom)) -> Vec<u8> {
    let mut atoms = Atom::parse(clip);
    change(find(&mut atoms, path));
    Atom::write(&atoms)
}

fn find<'a>(atoms: &'a mut [Atom], path: &str) -> &'a mut Atom {
    let (kind, rest) = path.split_once('/').map_or((path, None), |(kind, rest)| (kind, Some(rest)));
    let atom = atoms.iter_mut().find(|atom| atom.kind == kind.as_bytes()).unwrap();
    match rest {
        Some(rest) => find(&mut atom.children, rest),
        None => atom,
    }
}

const STBL: &str = "moov/trak/mdia/minf/stbl";
const VIDEO: &str = "-f lavfi -i testsrc2=size=320x180:rate=25:duration=2";
const X264: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 25 -bf 1";
const HUGE: [u8; 4] = 0xffff_fff0_u32.to_be_bytes();

/// With its index at its end, so that the index can grow.
fn clip(cases: &Cases) -> Vec<u8> {
    cases.make(&format!("{VIDEO} -f lavfi -i sine=duration=2 {X264} -c:a aac"), "mp4")
}

/// Deterministic, for damage.
fn random(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    }
}

/// Where the box's content begins and ends.
fn range_of(bytes: &[u8], kind: &[u8; 4]) -> (usize, usize) {
    let at = bytes.windows(4).position(|window| window == kind).unwrap();
    (at + 4, at - 4 + u32::from_be_bytes(bytes[at - 4..at].try_into().unwrap()) as usize)
}

/// Changes `count` bits between the given shares of a box.
fn flipped(clip: &[u8], kind: &[u8; 4], shares: (f64, f64), count: usize, seed: u64) -> Vec<u8> {
    let (start, end) = range_of(clip, kind);
    let length = (end - start) as f64;
    let (from, to) = (start + (length * shares.0) as usize, start + (length * shares.1) as usize);
    let (mut bytes, mut random) = (clip.to_vec(), random(seed));
    for _ in 0..count {
        bytes[from + random(to - from)] ^= 1 << random(8);
    }
    bytes
}

#[test]
fn headers_that_lie_about_sizes() {
    let mut cases = Cases::new();
    let clip = clip(&cases);
    let sized = |width: u16, height: u16| {
        with(&clip, &format!("{STBL}/stsd/avc1"), |entry| {
            entry.put(24, &width.to_be_bytes());
            entry.put(26, &height.to_be_bytes());
        })
    };
    // The decoder goes by the bitstream.
    cases.add("container says 16384x16384", sized(16_384, 16_384), Published);
    cases.add("container says 0x0", sized(0, 0), Published);
    cases.add("container says 1x1", sized(1, 1), Published);
    let large = |mbs: u32| {
        with(&clip, &format!("{STBL}/stsd/avc1/avcC"), |config| {
            let length = usize::from(u16::from_be_bytes(config.content[6..8].try_into().unwrap()));
            let sps = sps(mbs, mbs);
            let mut content = config.content[..6].to_vec();
            content.extend((sps.len() as u16).to_be_bytes());
            content.extend(&sps);
            content.extend(&config.content[8 + length..]);
            config.content = content;
        })
    };
    cases.add("bitstream says 16384x16384", large(1024), Refused("16384 × 16384 pixels"));
    cases.add("bitstream says 8192x8192", large(512), Refused("8192 × 8192 pixels"));
    cases.add(
        "both say 16384x16384",
        with(&large(1024), &format!("{STBL}/stsd/avc1"), |entry| {
            entry.put(24, &[0x40, 0, 0x40, 0]);
        }),
        Refused("16384 × 16384 pixels"),
    );
    let tiny = cases.make(&format!("{VIDEO} -c:v libx264 -vf scale=1:1 -pix_fmt yuv444p"), "mp4");
    cases.add("1x1 indeed", tiny, Published);
    let thin = cases.make(&format!("-f lavfi -i color=red:size=8192x16:rate=5:duration=1 {X264}"), "mp4");
    cases.add("8192x16 indeed", thin, Published);
    cases.run();
}

/// A sequence parameter set of H.264's baseline profile, of so many macroblocks.
fn sps(width: u32, height: u32) -> Vec<u8> {
    let golomb = |value: u32| {
        let bits = format!("{:b}", value + 1);
        "0".repeat(bits.len() - 1) + &bits
    };
    // Numbers of the set, of frame_num's bits, of the order of pictures, of reference frames.
    let mut bits: String = [0, 0, 2, 1].into_iter().map(golomb).collect();
    bits += &format!("0{}{}", golomb(width - 1), golomb(height - 1));
    // Frames only, direct 8x8, no cropping, no VUI, the end.
    bits += "11001";
    bits += &"0".repeat(bits.len().next_multiple_of(8) - bits.len());
    let mut bytes = vec![0x67, 66, 0xc0, 62];
    for byte in bits.as_bytes().chunks(8) {
        bytes.push(u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap());
    }
    bytes
}

#[test]
fn headers_that_lie_about_time() {
    let mut cases = Cases::new();
    let clip = clip(&cases);
    let ten_years = |clip: &[u8], path: &str, units: u64| {
        with(clip, path, |header| {
            // Version 1: times and duration of 64 bits.
            let old = std::mem::take(&mut header.content);
            let identity = if path.ends_with("tkhd") { 8 } else { 4 };
            header.content = [&[1], &old[1..4], &[0; 16], &old[12..12 + identity]].concat();
            header.content.extend((315_360_000 * units).to_be_bytes());
            header.content.extend(&old[12 + identity + 4..]);
        })
    };
    let movie = ten_years(&ten_years(&clip, "moov/mvhd", 1000), "moov/trak/tkhd", 1000);
    cases.add("ten years in the movie's header", &movie, Decided);
    let media = ten_years(&clip, "moov/trak/mdia/mdhd", 12_800);
    cases.add("ten years in the media's header", &media, Decided);
    cases.add("ten years in all headers", ten_years(&movie, "moov/trak/mdia/mdhd", 12_800), Decided);
    let stts = |content: &[u32]| {
        let bytes: Vec<u8> = content.iter().flat_map(|number| number.to_be_bytes()).collect();
        with(&clip, &format!("{STBL}/stts"), |table| table.content = bytes)
    };
    let slow = with(&stts(&[0, 1, 50, 6_307_200]), "moov/trak/mdia/mdhd", |header| {
        header.put(12, &[0, 0, 0, 1]);
        header.put(16, &315_360_000_u32.to_be_bytes());
    });
    let slow = with(&slow, "moov/trak/edts/elst", |list| list.content = vec![0; 8]);
    cases.add("ten years, sample by sample", slow, Refused("87600 hours"));
    cases.add("samples of two days each", stts(&[0, 1, 50, 0x7fff_ffff]), Decided);
    cases.add("samples of minus one each", stts(&[0, 1, 50, 0xffff_ffff]), Decided);
    cases.add("samples of no time", stts(&[0, 1, 50, 0]), Decided);
    cases.add("no sample times", stts(&[0, 0]), Decided);
    cases.add("4 billion sample times claimed", stts(&[0, 0xffff_fff0, 50, 512]), Decided);
    cases.add("4 billion samples in one entry", stts(&[0, 1, 0xffff_fff0, 512]), Decided);
    for path in ["moov/mvhd", "moov/trak/mdia/mdhd"] {
        cases.add(
            &format!("no ticks a second in {path}"),
            with(&clip, path, |header| header.put(12, &[0; 4])),
            Decided,
        );
    }
    let edits = |count: u32, entries: &[[u32; 3]]| {
        let mut content = [0_u32.to_be_bytes(), count.to_be_bytes()].concat();
        content.extend(entries.iter().flatten().flat_map(|number| number.to_be_bytes()));
        with(&clip, "moov/trak/edts/elst", |list| list.content = content)
    };
    const RATE: u32 = 1 << 16;
    cases.add("an empty edit of 49 days", edits(2, &[[u32::MAX, u32::MAX, RATE], [2000, 0, RATE]]), Decided);
    cases.add("an edit before the beginning", edits(1, &[[2000, 0x8000_0000, RATE]]), Decided);
    cases.add("an edit behind the end", edits(1, &[[2000, 0x7fff_ffff, RATE]]), Decided);
    cases.add("an edit that stands still", edits(1, &[[2000, 0, 0]]), Decided);
    cases.add("100 edits", edits(100, &[[1, 0, RATE]; 100]), Decided);
    cases.add("4 billion edits claimed", edits(0xffff_fff0, &[[2000, 0, RATE]]), Decided);
    let mut matroska = cases.make(&format!("{VIDEO} {X264}"), "mkv");
    let duration = matroska.windows(3).position(|window| window == [0x44, 0x89, 0x88]).unwrap() + 3;
    matroska[duration..duration + 8].copy_from_slice(&315_360_000_000.0_f64.to_be_bytes());
    cases.add("ten years in a Matroska header", matroska, Refused("87600 hours"));
    cases.run();
}

#[test]
fn tables_that_lie() {
    let mut cases = Cases::new();
    let clip = clip(&cases);
    let table = |name: &str, at: usize, bytes: &[u8]| {
        with(&clip, &format!("{STBL}/{name}"), |table| table.put(at, bytes))
    };
    cases.add("4 billion composition offsets", table("ctts", 4, &HUGE), Decided);
    cases.add("4 billion sample sizes", table("stsz", 8, &HUGE), Decided);
    cases.add("4 billion samples of one byte", table("stsz", 4, &[[0, 0, 0, 1], HUGE].concat()), Decided);
    cases.add("4 billion chunks", table("stco", 4, &HUGE), Decided);
    cases.add("4 billion chunk lengths", table("stsc", 4, &HUGE), Decided);
    cases.add("4 billion samples a chunk", table("stsc", 12, &HUGE), Decided);
    cases.add("4 billion keyframes", table("stss", 4, &HUGE), Decided);
    cases.add("4 billion formats", table("stsd", 4, &HUGE), Decided);
    let outside = with(&clip, &format!("{STBL}/stco"), |chunks| {
        for chunk in chunks.content[8..].chunks_mut(4) {
            chunk.copy_from_slice(&0x7000_0000_u32.to_be_bytes());
        }
    });
    cases.add("samples outside the file", outside, Refused("damaged"));
    let mut many = Atom::parse(&clip);
    let track = find(&mut many, "moov/trak").clone();
    let movie = find(&mut many, "moov");
    movie.children.extend(std::iter::repeat_n(track.clone(), 105));
    cases.add("107 tracks", Atom::write(&many), Refused("107 tracks"));
    find(&mut many, "moov").children.extend(std::iter::repeat_n(track, 5000));
    cases.add("5,107 tracks", Atom::write(&many), Refused("more"));
    for (name, kind) in [("20,000 movies in each other", b"moov"), ("20,000 tracks in each other", b"trak")] {
        let header = |depth: u32| [&(8 * (20_000 - depth)).to_be_bytes(), kind.as_slice()].concat();
        let nested: Vec<u8> = (0..20_000).flat_map(header).collect();
        let mut bytes = clip.clone();
        let movie = Atom::new(b"moov", nested);
        bytes.extend(Atom::write(&[movie]));
        cases.add(name, bytes, Decided);
    }
    // Sizes of boxes: 0 is up to the end of the file, 1 is a size of 64 bits behind, less than 8 is nonsense.
    let (movie, _) = range_of(&clip, b"moov");
    let resized = |size: u32| {
        let mut bytes = clip.clone();
        bytes[movie - 8..movie - 4].copy_from_slice(&size.to_be_bytes());
        bytes
    };
    cases.add("an index up to the end", resized(0), Published);
    cases.add("an index of 7 bytes", resized(7), Refused("not a video"));
    cases.add("an index of 200 MB claimed", resized(200 << 20), Decided);
    cases.add("an index of 4 GB claimed", resized(u32::MAX), Decided);
    for size in [0_u64, 15, 1 << 63, u64::MAX] {
        let mut bytes = resized(1);
        bytes.splice(movie..movie, size.to_be_bytes());
        cases.add(&format!("an index of {size} bytes"), bytes, Decided);
        let mut bytes = clip[..32].to_vec();
        bytes.extend([&[0, 0, 0, 1], &b"free"[..], &size.to_be_bytes(), &clip[32..]].concat());
        cases.add(&format!("a gap of {size} bytes"), bytes, Decided);
    }
    let packed = Atom::write(&[
        Atom::parse(&clip).remove(0),
        Atom::new(
            b"moov",
            Atom::write(&[Atom::new(
                b"cmov",
                Atom::write(&[
                    Atom::new(b"dcom", *b"zlib"),
                    Atom::new(
                        b"cmvd",
                        [&0x7fff_ffff_u32.to_be_bytes()[..], &[0x78, 0x9c], &[0; 64]].concat(),
                    ),
                ]),
            )]),
        ),
    ]);
    cases.add("a packed index of 2 GB claimed", packed, Refused("not a video"));
    let fragmented = cases.make(&format!("{VIDEO} {X264} -movflags frag_keyframe+empty_moov"), "mp4");
    let run = |at: usize, bytes: &[u8]| with(&fragmented, "moof/traf/trun", |run| run.put(at, bytes));
    cases.add("4 billion samples in a fragment", run(4, &HUGE), Decided);
    cases.add("a fragment outside the file", run(8, &0x7000_0000_u32.to_be_bytes()), Decided);
    cases.run();
}

#[test]
fn sound_that_cannot_be() {
    let mut cases = Cases::new();
    let pcm = cases.make("-f lavfi -i sine=duration=2 -c:a pcm_s16le", "mov");
    let entry =
        |at: usize, bytes: &[u8]| with(&pcm, &format!("{STBL}/stsd/sowt"), |entry| entry.put(at, bytes));
    cases.add("65,535 channels", entry(16, &[0xff, 0xff]), Refused(""));
    cases.add("no channels", entry(16, &[0, 0]), Decided);
    cases.add("no samples a second", entry(24, &[0; 4]), Decided);
    cases.add("one sample a second", entry(24, &[0, 1, 0, 0]), Decided);
    cases.run();
}

#[test]
fn damage() {
    let mut cases = Cases::new();
    let clip = clip(&cases);
    let upright = cases
        .make(&format!("{VIDEO} -f lavfi -i sine=duration=2 {X264} -c:a aac -movflags faststart"), "mp4");
    for share in [30, 80] {
        let expected = if share == 80 { Warned("damaged") } else { Refused("damaged: only") };
        let cut = &upright[..upright.len() * share / 100];
        cases.add(&format!("the first {share} %"), cut, expected);
    }
    let (start, end) = range_of(&clip, b"moov");
    for share in 1..4 {
        // The picture's part may be whole.
        let cut = &clip[..start + (end - start) * share / 4];
        cases.add(&format!("{share}/4 of the index"), cut, Decided);
    }
    cases.add("3/4 of the index, at the beginning", &upright[..upright.len() / 200], Refused("not a video"));
    cases.add("a few wrong bits in the middle", flipped(&clip, b"mdat", (0.3, 0.6), 8, 1), Published);
    cases.add("wrong bits everywhere", flipped(&clip, b"mdat", (0.0, 1.0), 50_000, 1), Decided);
    let mut zeros = clip.clone();
    let (start, end) = range_of(&clip, b"mdat");
    zeros[start + (end - start) / 20..end].fill(0);
    cases.add("zeros but for the beginning", zeros, Refused("damaged"));
    for seed in 0..12 {
        cases.add(
            &format!("wrong bits in the index {seed}"),
            flipped(&clip, b"moov", (0.0, 1.0), 12, seed),
            Decided,
        );
    }
    cases.run();
}

#[test]
fn what_is_no_video() {
    let mut cases = Cases::new();
    let picture = "-f lavfi -i testsrc2=size=64x64 -frames:v 1";
    cases.add("nothing", b"", Refused("not a video"));
    cases.add("one byte", b"x", Refused("not a video"));
    cases.add("a megabyte of zeros", vec![0; 1 << 20], Refused("not a video"));
    let mut random = random(1);
    let noise: Vec<u8> = (0..1 << 20).map(|_| random(256) as u8).collect();
    cases.add("a megabyte of noise", noise, Refused("not a"));
    for (name, content) in [
        ("text", "just some text\n"),
        ("HTML", "<!DOCTYPE html><html><body>Sign in to download</body></html>"),
        ("PDF", "%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer\n%%EOF\n"),
        ("SRT", "1\n00:00:01,000 --> 00:00:02,000\nHello\n"),
        ("WebVTT", "WEBVTT\n\n00:01.000 --> 00:02.000\nHello\n"),
    ] {
        cases.add(name, content, Refused("not a"));
    }
    cases.add("ZIP", [b"PK\x03\x04\x14\0\0\0".as_slice(), &[0; 200]].concat(), Refused("not a"));
    cases.add("program", &std::fs::read("/proc/self/exe").unwrap()[..1 << 16], Refused("not a"));
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
        let made = cases.make(arguments, kind);
        cases.add(kind, made, Refused("not a"));
    }
    let clip = clip(&cases);
    let (movie, _) = range_of(&clip, b"moov");
    cases.add("video without its index", &clip[..movie - 8], Refused("its end is missing"));
    let mut empty = Atom::parse(&clip);
    find(&mut empty, "moov").children.retain(|child| &child.kind != b"trak");
    cases.add("no tracks", Atom::write(&empty), Refused("no video or audio that can be played"));
    let foreign = with(&clip, &format!("{STBL}/stsd/avc1"), |entry| entry.kind = *b"zzz1");
    cases.add("unknown format of picture", foreign, Refused("format (zzz1) that this service cannot read"));
    cases.run();
}

#[test]
fn encrypted_files() {
    let mut cases = Cases::new();
    let key = "000102030405060708090a0b0c0d0e0f";
    let encryption = format!("-encryption_scheme cenc-aes-ctr -encryption_key {key} -encryption_kid {key}");
    let encrypted =
        cases.make(&format!("{VIDEO} -f lavfi -i sine=duration=2 {X264} -c:a aac {encryption}"), "mp4");
    cases.add("encrypted", &encrypted, Refused("encrypted"));
    let mut with_keys = Atom::parse(&encrypted);
    let keys = [&[0; 4], &[0xed; 16][..], &4_u32.to_be_bytes(), &[1; 4]].concat();
    find(&mut with_keys, "moov").children.push(Atom::new(b"pssh", keys));
    cases.add("encrypted, with keys for a player", Atom::write(&with_keys), Refused("encrypted"));
    cases.run();
}

#[test]
fn files_that_point_elsewhere_reach_nothing() {
    let mut cases = Cases::new();
    // Whoever reached it could play it.
    let clip = clip(&cases);
    let path = cases.folder.path().join("secret.mp4");
    std::fs::write(&path, &clip).unwrap();
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    host.set_nonblocking(true).unwrap();
    let address = host.local_addr().unwrap();
    for target in
        [format!("file://{}", path.display()), path.display().to_string(), format!("http://{address}/a.mp4")]
    {
        for (name, text) in [
            ("HLS", format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n")),
            ("concat", format!("ffconcat version 1.0\nfile '{target}'\n")),
            ("metadata", format!(";FFMETADATA1\ntitle={target}\n")),
            (
                "SDP",
                format!(
                    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video {} RTP/AVP 96\na=control:{target}\n",
                    address.port()
                ),
            ),
            (
                "DASH",
                format!(
                    "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" type=\"static\"><Period>\
                 <AdaptationSet mimeType=\"video/mp4\"><Representation id=\"1\" bandwidth=\"1\"><BaseURL>{target}\
                 </BaseURL></Representation></AdaptationSet></Period></MPD>"
                ),
            ),
            ("SVG", format!("<svg xmlns=\"http://www.w3.org/2000/svg\"><image href=\"{target}\"/></svg>")),
        ] {
            cases.add(&format!("{name} to {}", &target[..7]), text, Refused("not a"));
        }
    }
    // QuickTime's tracks may lie in other files. Without them these hold nothing.
    let elsewhere = |entry: Atom| {
        let mut atoms = Atom::parse(&clip);
        atoms.retain(|atom| &atom.kind != b"mdat");
        let references = find(&mut atoms, "moov/trak/mdia/minf/dinf/dref");
        references.children = vec![entry];
        Atom::write(&atoms)
    };
    for target in [format!("file://{}", path.display()), format!("http://{address}/a.mp4")] {
        let url = Atom::new(b"url ", [&[0; 4], target.as_bytes(), &[0]].concat());
        cases.add(
            &format!("a track at {}", &target[..7]),
            elsewhere(url),
            Refused("nothing, or next to nothing, in it can be decoded"),
        );
    }
    cases.add(
        "a track in another file",
        elsewhere(alias(&path)),
        Refused("nothing, or next to nothing, in it can be decoded"),
    );
    let attached = cases
        .make(&format!("{VIDEO} {X264} -attach {} -metadata:s:t mimetype=text/plain", path.display()), "mkv");
    cases.add("a file attached", attached, Published);
    cases.run();
    assert_eq!(host.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "the host was reached");
}

/// A Macintosh alias, as FFmpeg reads it.
fn alias(target: &Path) -> Atom {
    let path = target.to_str().unwrap().as_bytes();
    let name = target.file_name().unwrap().to_str().unwrap().as_bytes();
    let mut content = vec![0; 4 + 10];
    content.push(1);
    content.extend([b"a".as_slice(), &[0; 26]].concat());
    content.extend([0; 12]);
    content.push(name.len() as u8);
    content.extend([name, &vec![0; 63 - name.len()]].concat());
    content.extend([0; 16]);
    content.extend([0, 1, 0, 1]);
    content.extend([0; 16]);
    // The absolute path.
    content.extend(2_u16.to_be_bytes());
    content.extend((path.len() as u16).to_be_bytes());
    content.extend(path);
    content.extend([0xff, 0xff, 0, 0]);
    Atom::new(b"alis", content)
}

#[test]
fn bad_files_of_the_corpus() {
    let folder = std::env::var_os("VIDSTREAMX_CORPUS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"), PathBuf::from);
    let mut cases = Cases::new();
    for (name, expected) in [
        ("sample_malformed_free_box.mp4", Refused("not a video")),
        ("bad_zero_empty_stsc.mp4", Refused("damaged")),
        ("bad_broken.mp4", Refused("not a video")),
        ("bad_invalid_userdata_truncated.mp4", Refused("damaged")),
        ("enc_short-cenc.mp4", Refused("encrypted")),
        ("unsupported_vvc_2s.mp4", Refused("format (vvc1) that this service cannot read")),
        ("synth_truncated_mdat.mp4", Refused("damaged: only")),
        ("synth_empty_file.mp4", Refused("not a video")),
        ("synth_text_named_mp4.mp4", Refused("not a")),
    ] {
        let file = folder.join(name);
        if file.exists() {
            // What is left of a real video is decoded before it is known to be too little.
            let most_seconds = if name == "synth_truncated_mdat.mp4" { 60.0 } else { MOST_SECONDS };
            cases.all.push(Case { name: name.into(), file, expected, most_seconds });
        }
    }
    cases.run();
}
