//! Tests with faults of S3. The program must publish the same stream as without faults, or exit with the code
//! for the reason. Published segments must never have a gap.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod common;
mod fake_s3;

use std::{
    collections::BTreeMap,
    sync::OnceLock,
    time::{Duration, Instant},
};

use aws_sdk_s3::{
    error::ProvideErrorMetadata,
    types::{CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier},
};
use bytes::Bytes;
use tempfile::TempDir;

use common::{clip, ffprobe, probe};
use fake_s3::{
    FakeS3, Operation,
    faults::{Fault, FaultPlan, fail},
};

/// Noise makes the file large enough for several reads.
const CLIP: &str = "-f lavfi -i testsrc2=size=320x180:rate=25:duration=5,noise=alls=60:allf=t -f lavfi \
    -i sine=duration=5 -c:v libx264 -preset ultrafast -qp 18 -g 25 -pix_fmt yuv420p -c:a aac";
/// Two rungs with segments of one second.
const PROFILE: &str = "segment_seconds = 1.0\n\
    [[rung]]\nsize = 180\ncrf = 35.0\nmax_kbps = 800\npreset = \"ultrafast\"\nparams = \"threads=1\"\n\
    [[rung]]\nsize = 120\ncrf = 35.0\nmax_kbps = 400\npreset = \"ultrafast\"\nparams = \"threads=1\"";
const SOURCE: &str = "uploads/clip.mp4";
const FRAMES: &str = "125";

/// A finished run.
struct Run {
    code: Option<i32>,
    log: String,
    s3: FakeS3,
    took: Duration,
}

impl Run {
    async fn new(source: Bytes, plans: impl IntoIterator<Item = FaultPlan>) -> Self {
        let s3 = FakeS3::start(plans).await;
        s3.put(SOURCE, source);
        Self::on(s3).await
    }

    async fn on(s3: FakeS3) -> Self {
        let profile = common::profile(PROFILE);
        let mut task = s3.transcoder();
        task.args(["--input", "s3://uploads/clip.mp4", "--output", "s3://streams/clip", "--profile"])
            .arg(profile.path())
            .kill_on_drop(true);
        let started = Instant::now();
        let output = tokio::time::timeout(Duration::from_secs(150), task.output()).await.unwrap().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { code: output.status.code(), log, s3, took: started.elapsed() }
    }

    /// All published objects except the report, which contains times.
    fn stream(&self) -> BTreeMap<String, Bytes> {
        let mut objects = self.s3.objects("streams/clip/");
        objects.retain(|name, _| !name.ends_with("job.json"));
        objects
    }

    /// Asserts success and the same stream as without faults.
    fn assert_complete(&self) {
        assert_eq!(self.code, Some(0), "{}", self.log);
        let (stream, expected) = (self.stream(), &undisturbed().stream);
        assert!(stream.keys().eq(expected.keys()), "{:?}\n{:?}", stream.keys(), expected.keys());
        for (name, content) in expected {
            assert!(stream[name] == content, "{name} differs");
        }
    }

    /// Asserts this exit code and reason. The published part of the stream has no gap, equals the stream
    /// without faults, and is not marked as complete.
    fn assert_failed(&self, code: i32, reason: &str) {
        assert_eq!(self.code, Some(code), "{}", self.log);
        assert!(self.log.contains(reason), "{}", self.log);
        let stream = self.stream();
        for (name, segment) in stream.iter().filter(|(name, _)| name.ends_with(".m4s")) {
            assert!(*segment == undisturbed().stream[name], "{name} differs");
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

/// A run without faults.
struct Undisturbed {
    source: Bytes,
    /// The number of a late read of the source, when FFmpeg has begun. It is counted back from the last read,
    /// because the number of earlier reads depends on which program reads first.
    late_read: usize,
    stream: BTreeMap<String, Bytes>,
}

fn undisturbed() -> &'static Undisturbed {
    static RUN: OnceLock<Undisturbed> = OnceLock::new();
    RUN.get_or_init(|| {
        // This needs a thread of its own, because each test already runs in a runtime.
        let runtime = || tokio::runtime::Runtime::new().unwrap();
        std::thread::spawn(move || runtime().block_on(run_undisturbed())).join().unwrap()
    })
}

async fn run_undisturbed() -> Undisturbed {
    let folder = tempfile::tempdir().unwrap();
    let source = source(&folder, CLIP);
    let run = Run::new(source.clone(), []).await;
    assert_eq!(run.code, Some(0), "{}", run.log);
    let stream = run.stream();
    assert_every_frame(&stream);
    let late_read = run.s3.count(Operation::Get, "clip.mp4") - 5;
    Undisturbed { source, late_read, stream }
}

fn assert_every_frame(stream: &BTreeMap<String, Bytes>) {
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
        // An audio fragment lasts 0.25 s, as long as the first two video segments together. So audio has one
        // segment less.
        let segments = if is_video { 8 } else { 7 };
        assert!(text.contains("#EXT-X-ENDLIST") && text.matches("\nseg-").count() == segments, "{text}");
        if is_video {
            let playlist = folder.path().join(name);
            assert_eq!(probe(&playlist, "v", "stream=nb_read_frames"), [FRAMES]);
            let errors = ffprobe(&playlist, "v", "stream=nb_read_frames").stderr;
            assert!(errors.is_empty(), "{}", String::from_utf8_lossy(&errors));
        }
    }
}

fn source(folder: &TempDir, arguments: &str) -> Bytes {
    std::fs::read(clip(folder, arguments)).unwrap().into()
}

async fn run_with(plans: impl IntoIterator<Item = FaultPlan>) -> Run {
    Run::new(undisturbed().source.clone(), plans).await
}

#[tokio::test]
async fn the_fake_s3_lists_deletes_and_assembles_uploads() {
    let s3 = FakeS3::start([fail(Operation::Part, "large", Fault::NoResponse)]).await;
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
    assert_eq!((s3.count(Operation::Part, "large"), s3.count(Operation::List, "streams/a/")), (3, 2));
}

#[tokio::test]
async fn failed_reads_are_retried() {
    for fault in [Fault::InternalError, Fault::SlowDown] {
        let first = fail(Operation::Head, "clip.mp4", fault.clone());
        let run = run_with([first, fail(Operation::Get, "clip.mp4", fault).from(1).times(5)]).await;
        run.assert_complete();
    }
}

#[tokio::test]
async fn broken_bodies_are_continued() {
    let faults = [Fault::Reset, Fault::Truncated, Fault::Half, Fault::WrongRange];
    // Each fault occurs in the file's header, at the end of the header, at the start of the media, and later.
    let plans =
        (0..16).map(|number| fail(Operation::Get, "clip.mp4", faults[number % 4].clone()).from(2 * number));
    let run = run_with(plans).await;
    run.assert_complete();
    assert!(run.s3.count(Operation::Get, "clip.mp4") > 32, "{}", run.s3.count(Operation::Get, "clip.mp4"));
}

#[tokio::test]
async fn a_source_replaced_between_reads_is_obsolete() {
    for first in [0, 3, undisturbed().late_read] {
        let replaced = Fault::Replaced(Bytes::from_static(b"another upload"));
        let run = run_with([fail(Operation::Get, "clip.mp4", replaced).from(first)]).await;
        run.assert_failed(66, "s3://uploads/clip.mp4 was replaced by another upload");
        assert!(!run.stream().contains_key("master.m3u8"));
    }
}

#[tokio::test]
async fn failed_writes_are_retried() {
    let run = run_with([
        fail(Operation::Put, "180p/seg-00001", Fault::SlowDown).times(3),
        fail(Operation::Put, "120p/init.mp4", Fault::InternalError).times(2),
        fail(Operation::Put, "180p/index.m3u8", Fault::SlowDown).from(1).times(2),
        fail(Operation::Put, "master.m3u8", Fault::InternalError),
        fail(Operation::Put, "job.json", Fault::SlowDown),
        fail(Operation::Get, "seg-00000", Fault::SlowDown),
    ])
    .await;
    run.assert_complete();
}

#[tokio::test]
async fn writes_on_broken_connections_are_retried() {
    let run = run_with([
        fail(Operation::Put, "180p/seg-00000", Fault::Reset).times(2),
        fail(Operation::Put, "180p/seg-00002", Fault::NoResponse).times(2),
        fail(Operation::Put, "index.m3u8", Fault::NoResponse).from(2),
        fail(Operation::Put, "master.m3u8", Fault::NoResponse),
        fail(Operation::Put, "job.json", Fault::Reset),
    ])
    .await;
    run.assert_complete();
    assert_eq!(run.s3.count(Operation::Put, "180p/seg-00002"), 3);
}

/// The runs are concurrent, because each takes half a minute.
#[tokio::test]
async fn stalled_requests_are_retried_and_endless_failures_are_transient() {
    let read = run_with([fail(Operation::Get, "clip.mp4", Fault::Stall).from(3)]);
    let write = run_with([
        fail(Operation::Put, "180p/seg-00003", Fault::Stall),
        fail(Operation::Put, "120p/index.m3u8", Fault::Stall),
    ]);
    let endless =
        run_with([fail(Operation::Get, "clip.mp4", Fault::SlowDown).from(undisturbed().late_read).always()]);
    let (read, write, endless) = tokio::join!(read, write, endless);
    read.assert_complete();
    write.assert_complete();
    endless.assert_failed(75, "cannot read s3://uploads/clip.mp4: SlowDown: as planned");
    for (run, limit) in [(read, 20), (write, 30)] {
        let seconds = run.took.as_secs();
        assert!((limit..limit + 30).contains(&seconds), "{seconds} s");
    }
}

#[tokio::test]
async fn an_unwritable_segment_is_a_transient_error() {
    let run = run_with([fail(Operation::Put, "180p/seg-00002", Fault::SlowDown).always()]).await;
    run.assert_failed(75, "180p/seg-00002.m4s: SlowDown: as planned");
    assert!(!run.stream().keys().any(|name| name.ends_with("180p/seg-00002.m4s")));
}

#[tokio::test]
async fn the_next_run_resumes_after_a_transient_error() {
    // The first run uses up all faults, because it makes five tries.
    let run = run_with([fail(Operation::Put, "180p/seg-00005", Fault::SlowDown).times(5)]).await;
    run.assert_failed(75, "180p/seg-00005.m4s: SlowDown: as planned");
    let interrupted = run.stream();
    let run = Run::on(run.s3).await;
    assert_eq!(run.code, Some(0), "{}", run.log);
    assert!(run.log.contains("resuming after an earlier attempt"), "{}", run.log);
    let stream = run.stream();
    assert_every_frame(&stream);
    for (name, segment) in interrupted.iter().filter(|(name, _)| name.ends_with("seg-00000.m4s")) {
        assert!(stream[name] == *segment, "{name} differs");
    }
    assert!(!stream.keys().any(|name| name.contains("/checkpoint/")), "{:?}", stream.keys());
}

#[tokio::test]
async fn a_file_with_audio_behind_video_is_read_about_once() {
    let folder = tempfile::tempdir().unwrap();
    // FFmpeg seeks for every audio frame once video is a second ahead.
    let long = CLIP.replace("duration=5", "duration=15").replace("-qp 18", "-qp 30");
    let behind = source(&folder, &format!("{long} -chunk_duration 1000000000 -max_interleave_delta 0"));
    let chunks = behind.len().div_ceil(256 << 10);
    let run = Run::new(behind.clone(), []).await;
    assert_eq!(run.code, Some(0), "{}", run.log);
    let (reads, sent) = (run.s3.count(Operation::Get, "clip.mp4"), run.s3.bytes_sent());
    assert!(reads < 2 * chunks, "{reads} reads of {chunks} chunks");
    assert!(sent < 3 * behind.len() as u64 / 2, "{sent} of {}", behind.len());
}
