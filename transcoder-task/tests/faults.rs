//! S3 on a bad day: whatever it does to reads and writes, the program ends with the very stream that it makes
//! on a good one, or with the exit code that says why not, and nothing it published has a hole.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod s3;

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use aws_sdk_s3::{
    error::ProvideErrorMetadata,
    types::{CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier},
};
use bytes::Bytes;
use tempfile::TempDir;

use s3::{Fault, Kind, Plan, S3, fail};

/// Noise, so that it takes several reads.
const CLIP: &str = "-f lavfi -i testsrc2=size=320x180:rate=25:duration=5,noise=alls=60:allf=t -f lavfi \
    -i sine=duration=5 -c:v libx264 -preset ultrafast -qp 18 -g 25 -pix_fmt yuv420p -c:a aac";
/// Two rungs in segments of a second.
const PROFILE: &str = "segment_seconds = 1.0\n\
    [[rung]]\nsize = 180\ncrf = 35.0\nmax_kbps = 800\npreset = \"ultrafast\"\nparams = \"threads=1\"\n\
    [[rung]]\nsize = 120\ncrf = 35.0\nmax_kbps = 400\npreset = \"ultrafast\"\nparams = \"threads=1\"";
const SOURCE: &str = "uploads/clip.mp4";
const FRAMES: &str = "125";

/// What came of a run.
struct Made {
    code: Option<i32>,
    log: String,
    s3: S3,
    took: Duration,
}

impl Made {
    async fn of(source: Bytes, plans: impl IntoIterator<Item = Plan>) -> Self {
        let s3 = S3::start(plans).await;
        s3.put(SOURCE, source);
        Self::on(s3).await
    }

    async fn on(s3: S3) -> Self {
        let profile = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(profile.path(), PROFILE).unwrap();
        let mut task = s3.command(env!("CARGO_BIN_EXE_transcoder-task"));
        task.args(["--input", "s3://uploads/clip.mp4", "--output", "s3://streams/clip", "--profile"])
            .arg(profile.path())
            .kill_on_drop(true);
        let started = Instant::now();
        let output = tokio::time::timeout(Duration::from_secs(150), task.output()).await.unwrap().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { code: output.status.code(), log, s3, took: started.elapsed() }
    }

    /// Everything that was published except the report, which tells of times.
    fn stream(&self) -> BTreeMap<String, Bytes> {
        let mut objects = self.s3.objects("streams/clip/");
        objects.retain(|name, _| !name.ends_with("job.json"));
        objects
    }

    /// The very stream that comes of an undisturbed run.
    fn is_whole(&self) {
        assert_eq!(self.code, Some(0), "{}", self.log);
        let (ours, theirs) = (self.stream(), &undisturbed().stream);
        assert!(ours.keys().eq(theirs.keys()), "{:?}\n{:?}", ours.keys(), theirs.keys());
        for (name, content) in theirs {
            assert!(ours[name] == content, "{name} is another");
        }
    }

    /// Ended with this code and reason; what is published up to there begins at the beginning, is what an
    /// undisturbed run makes, and does not say that it is complete.
    fn ended(&self, code: i32, reason: &str) {
        assert_eq!(self.code, Some(code), "{}", self.log);
        assert!(self.log.contains(reason), "{}", self.log);
        let stream = self.stream();
        for (name, segment) in stream.iter().filter(|(name, _)| name.ends_with(".m4s")) {
            assert!(*segment == undisturbed().stream[name], "{name} is another");
        }
        for (name, playlist) in stream.iter().filter(|(name, _)| name.ends_with("/index.m3u8")) {
            let folder = name.strip_suffix("index.m3u8").unwrap();
            let playlist = std::str::from_utf8(playlist).unwrap();
            assert!(!playlist.contains("#EXT-X-ENDLIST"), "{playlist}");
            let listed = playlist.lines().filter(|line| !line.starts_with('#'));
            for (number, segment) in listed.enumerate() {
                assert_eq!(segment, format!("seg-{number:05}.m4s"));
                assert!(stream.contains_key(&format!("{folder}{segment}")), "{name} lists {segment}");
            }
        }
    }
}

/// A run without faults, and what it read.
struct Undisturbed {
    source: Bytes,
    /// One of its last reads of the source: FFmpeg has begun by then. (Which program reads first is chance,
    /// and with it how many reads there are.)
    late_read: usize,
    stream: BTreeMap<String, Bytes>,
}

fn undisturbed() -> &'static Undisturbed {
    static RUN: OnceLock<Undisturbed> = OnceLock::new();
    RUN.get_or_init(|| {
        // Of its own, as every test has one already.
        let runtime = || tokio::runtime::Runtime::new().unwrap();
        std::thread::spawn(move || runtime().block_on(first_run())).join().unwrap()
    })
}

async fn first_run() -> Undisturbed {
    let folder = tempfile::tempdir().unwrap();
    let source = make(&folder, CLIP);
    let made = Made::of(source.clone(), []).await;
    assert_eq!(made.code, Some(0), "{}", made.log);
    let stream = made.stream();
    has_every_frame(&stream);
    let late_read = made.s3.count(READ, "clip.mp4") - 5;
    Undisturbed { source, late_read, stream }
}

fn has_every_frame(stream: &BTreeMap<String, Bytes>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in stream {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
    }
    let media: Vec<_> = stream.keys().filter(|name| name.ends_with("/index.m3u8")).collect();
    assert_eq!(media.len(), 3, "{media:?}");
    for name in media {
        let text = std::str::from_utf8(&stream[name]).unwrap();
        let is_video = name.contains("/video/");
        // Sound is cut in quarters of a second, twice as long as the first segment.
        let segments = if is_video { 8 } else { 7 };
        assert!(text.contains("#EXT-X-ENDLIST") && text.matches("\nseg-").count() == segments, "{text}");
        if is_video {
            assert_eq!(frames(&folder.path().join(name)), FRAMES);
        }
    }
}

fn make(folder: &TempDir, arguments: &str) -> Bytes {
    let file = folder.path().join("clip.mp4");
    let arguments = format!("-loglevel error -y {arguments} {}", file.display());
    let output = Command::new("ffmpeg").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(file).unwrap().into()
}

fn frames(playlist: &Path) -> String {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v", "-count_frames"])
        .args(["-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"])
        .arg(playlist)
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().next().unwrap().trim_end_matches(',').to_owned()
}

async fn with(plans: impl IntoIterator<Item = Plan>) -> Made {
    Made::of(undisturbed().source.clone(), plans).await
}

const READ: Kind = Kind::Get;

/// The tests stand on the server: it is one to the SDK.
#[tokio::test]
async fn the_server_lists_deletes_and_puts_together() {
    let s3 = S3::start([fail(Kind::Part, "large", Fault::Unanswered)]).await;
    let client = s3.client();
    for name in ["a/1", "a/2 & 3", "a/4", "b/1"] {
        client.put_object().bucket("streams").key(name).body(Bytes::from(name).into()).send().await.unwrap();
    }
    let pages = client.list_objects_v2().bucket("streams").prefix("a/").max_keys(2).into_paginator();
    let pages = pages.send().try_collect().await.unwrap();
    let listed: Vec<_> = pages.iter().flat_map(|page| page.contents()).collect();
    let keys: Vec<_> = listed.iter().map(|object| object.key().unwrap()).collect();
    assert_eq!((pages.len(), keys), (2, vec!["a/1", "a/2 & 3", "a/4"]));
    let head = client.head_object().bucket("streams").key("a/2 & 3").send().await.unwrap();
    assert_eq!((head.e_tag(), head.content_length()), (listed[1].e_tag(), Some(7)));

    let exists = client.put_object().bucket("streams").key("a/1").if_none_match("*").send().await;
    assert_eq!(exists.unwrap_err().code(), Some("PreconditionFailed"));

    let keys = ["a/2 & 3", "b/1"].map(|key| ObjectIdentifier::builder().key(key).build().unwrap());
    let keys = Delete::builder().set_objects(Some(keys.into())).build().unwrap();
    client.delete_objects().bucket("streams").delete(keys).send().await.unwrap();
    client.delete_object().bucket("streams").key("a/4").send().await.unwrap();

    let create = client.create_multipart_upload().bucket("streams").key("large").send().await.unwrap();
    let id = create.upload_id().unwrap();
    let mut parts = Vec::new();
    for (number, content) in [(1, "one "), (2, "two")] {
        let part = client.upload_part().bucket("streams").key("large").upload_id(id).part_number(number);
        let sent = part.body(Bytes::from(content).into()).send().await.unwrap();
        parts.push(CompletedPart::builder().part_number(number).e_tag(sent.e_tag().unwrap()).build());
    }
    let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    let complete = client.complete_multipart_upload().bucket("streams").key("large").upload_id(id);
    complete.multipart_upload(parts).send().await.unwrap();
    let objects = s3.objects("streams/");
    let expected = [("a/1", "a/1"), ("large", "one two")].map(|(key, content)| (key.into(), content.into()));
    assert_eq!(objects, BTreeMap::from(expected));
    assert_eq!((s3.count(Kind::Part, "large"), s3.count(Kind::List, "streams/a/")), (3, 2));
}

#[tokio::test]
async fn reads_that_are_refused_are_tried_again() {
    for fault in [Fault::Internal, Fault::SlowDown] {
        let first = fail(Kind::Head, "clip.mp4", fault.clone());
        let made = with([first, fail(READ, "clip.mp4", fault).from(1).times(5)]).await;
        made.is_whole();
    }
}

#[tokio::test]
async fn bodies_that_break_off_are_read_on() {
    let faults = [Fault::Reset, Fault::Torn, Fault::Half, Fault::OtherRange];
    // Each of them at each of the places: the header, its end, the beginning of the media and further on.
    let plans = (0..16).map(|number| fail(READ, "clip.mp4", faults[number % 4].clone()).from(2 * number));
    let made = with(plans).await;
    made.is_whole();
    assert!(made.s3.count(READ, "clip.mp4") > 32, "{}", made.s3.count(READ, "clip.mp4"));
}

#[tokio::test]
async fn a_source_that_is_replaced_while_it_is_read_is_obsolete() {
    for first in [0, 3, undisturbed().late_read] {
        let other = Fault::Replaced(Bytes::from_static(b"another upload"));
        let made = with([fail(READ, "clip.mp4", other).from(first)]).await;
        made.ended(66, "s3://uploads/clip.mp4 was replaced by another upload");
        assert!(!made.stream().contains_key("master.m3u8"));
    }
}

#[tokio::test]
async fn writes_that_are_refused_are_tried_again() {
    let made = with([
        fail(Kind::Put, "180p/seg-00001", Fault::SlowDown).times(3),
        fail(Kind::Put, "120p/init.mp4", Fault::Internal).times(2),
        fail(Kind::Put, "180p/index.m3u8", Fault::SlowDown).from(1).times(2),
        fail(Kind::Put, "master.m3u8", Fault::Internal),
        fail(Kind::Put, "job.json", Fault::SlowDown),
        fail(Kind::Get, "seg-00000", Fault::SlowDown),
    ])
    .await;
    made.is_whole();
}

#[tokio::test]
async fn writes_whose_connection_breaks_are_done_again_whether_they_took_effect_or_not() {
    let made = with([
        fail(Kind::Put, "180p/seg-00000", Fault::Reset).times(2),
        fail(Kind::Put, "180p/seg-00002", Fault::Unanswered).times(2),
        fail(Kind::Put, "index.m3u8", Fault::Unanswered).from(2),
        fail(Kind::Put, "master.m3u8", Fault::Unanswered),
        fail(Kind::Put, "job.json", Fault::Reset),
    ])
    .await;
    made.is_whole();
    assert_eq!(made.s3.count(Kind::Put, "180p/seg-00002"), 3);
}

/// At the same time, because each takes half a minute.
#[tokio::test]
async fn what_stalls_is_asked_for_anew_and_endless_refusals_are_trouble_that_may_pass() {
    let read = with([fail(READ, "clip.mp4", Fault::Stall).from(3)]);
    let write = with([
        fail(Kind::Put, "180p/seg-00003", Fault::Stall),
        fail(Kind::Put, "120p/index.m3u8", Fault::Stall),
    ]);
    let endless = with([fail(READ, "clip.mp4", Fault::SlowDown).from(undisturbed().late_read).always()]);
    let (read, write, endless) = tokio::join!(read, write, endless);
    read.is_whole();
    write.is_whole();
    endless.ended(75, "cannot read s3://uploads/clip.mp4: SlowDown: as planned");
    for (made, limit) in [(read, 20), (write, 30)] {
        let seconds = made.took.as_secs();
        assert!((limit..limit + 30).contains(&seconds), "{seconds} s");
    }
}

#[tokio::test]
async fn a_segment_that_cannot_be_written_is_trouble_that_may_pass() {
    let made = with([fail(Kind::Put, "180p/seg-00002", Fault::SlowDown).always()]).await;
    made.ended(75, "180p/seg-00002.m4s: SlowDown: as planned");
    assert!(!made.stream().keys().any(|name| name.ends_with("180p/seg-00002.m4s")));
}

#[tokio::test]
async fn what_trouble_left_is_gone_on_with() {
    // As often as it is tried, and then no more.
    let made = with([fail(Kind::Put, "180p/seg-00005", Fault::SlowDown).times(5)]).await;
    made.ended(75, "180p/seg-00005.m4s: SlowDown: as planned");
    let left = made.stream();
    let made = Made::on(made.s3).await;
    assert_eq!(made.code, Some(0), "{}", made.log);
    assert!(made.log.contains("resuming after an earlier attempt"), "{}", made.log);
    let stream = made.stream();
    has_every_frame(&stream);
    for (name, segment) in left.iter().filter(|(name, _)| name.ends_with("seg-00000.m4s")) {
        assert!(stream[name] == *segment, "{name} is made again");
    }
    assert!(!stream.keys().any(|name| name.contains("/checkpoint/")), "{:?}", stream.keys());
}

#[tokio::test]
async fn a_file_whose_sound_lies_behind_its_picture_is_read_about_once() {
    let folder = tempfile::tempdir().unwrap();
    // FFmpeg goes to and fro for every frame of the sound once the picture is a second ahead.
    let long = CLIP.replace("duration=5", "duration=15").replace("-qp 18", "-qp 30");
    let behind = make(&folder, &format!("{long} -chunk_duration 1000000000 -max_interleave_delta 0"));
    let chunks = behind.len().div_ceil(256 << 10);
    let made = Made::of(behind.clone(), []).await;
    assert_eq!(made.code, Some(0), "{}", made.log);
    let (reads, sent) = (made.s3.count(READ, "clip.mp4"), made.s3.sent());
    assert!(reads < 2 * chunks, "{reads} reads of {chunks} chunks");
    assert!(sent < 3 * behind.len() as u64 / 2, "{sent} of {}", behind.len());
}
