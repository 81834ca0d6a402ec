//! Tests of a job's status object. They run the program as the consumer starts it, against a fake S3.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod common;
mod fake_s3;

use std::process::Output;

use bytes::Bytes;
use vidstreamx_job::{Job, Layout, Progress, Report, Source, Stage};

use fake_s3::{
    FakeS3, Operation,
    faults::{Fault, FaultPlan, fail},
};

const CLIP: &str = "-f lavfi -i testsrc2=size=640x360:rate=25:duration=6 \
    -f lavfi -i sine=sample_rate=44100:duration=6 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac";
/// A part of the key of every status object.
const PROGRESS: &str = "/.vidstreamx/progress/";

/// A finished run.
struct Run {
    job: Job,
    output: Output,
    s3: FakeS3,
}

impl Run {
    async fn new(content: Bytes, plan: Option<FaultPlan>) -> Self {
        let s3 = FakeS3::start(plan).await;
        let size = Some(content.len() as u64);
        let etag = s3.put("uploads/clip.mp4", content);
        let source = Source {
            bucket: "uploads".parse().unwrap(),
            key: "clip.mp4".parse().unwrap(),
            version_id: None,
            etag: Some(etag.trim_matches('"').to_owned()),
            size,
        };
        // All formats, so that the run has all stages.
        let profile = common::profile("formats = [\"hls\", \"dash\", \"mp4\"]\nloudness = -16.0");
        let job = Job::new(source, "streams".parse().unwrap(), profile.path().to_str().unwrap().to_owned());
        let output = s3.transcoder().envs(job.to_env()).output().await.unwrap();
        let run = Self { job, output, s3 };
        let writes = run.s3.writes(PROGRESS);
        assert!(writes.iter().all(|write| write.cache_control.as_deref() == Some("no-cache")), "{writes:?}");
        run
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    fn object(&self, key: &str) -> Bytes {
        self.s3.objects("streams/")[key].clone()
    }

    /// All versions of the status object that the program sent, in order.
    fn progress(&self) -> Vec<Progress> {
        let writes = self.s3.writes(PROGRESS);
        writes.iter().map(|write| Progress::parse(&write.content).unwrap()).collect()
    }
}

fn clip() -> Bytes {
    let folder = tempfile::tempdir().unwrap();
    std::fs::read(common::clip(&folder, CLIP)).unwrap().into()
}

#[tokio::test]
async fn progress_rises_from_measuring_to_complete() {
    let run = Run::new(clip(), None).await;
    assert_eq!(run.output.status.code(), Some(0), "{}", run.log());
    let all = run.progress();
    let (first, last) = (&all[0], &all[all.len() - 1]);
    assert_eq!((first.stage, first.share), (Stage::Measuring, 0.0));
    assert!(all.windows(2).all(|pair| pair[0].share <= pair[1].share), "{all:#?}");
    assert!(all[..all.len() - 1].iter().all(|progress| progress.share < 1.0), "{all:#?}");
    assert_eq!((last.stage, last.share, last.expected_end), (Stage::Complete, 1.0, None));
    let report = Report::parse(&run.object(&run.job.layout().stable("job.json"))).unwrap();
    assert_eq!((&last.job_id, last.started_at), (&run.job.id, report.timings.started_at));
    let published: Vec<_> = report.renditions.iter().take(2).map(|r| (r.name.as_str(), r.segments)).collect();
    assert_eq!(published, [("360p", 5), ("240p", 5)]);
    let reported: Vec<_> = last.rungs.iter().map(|rung| (rung.name.as_str(), rung.segments)).collect();
    assert_eq!(reported, published);
    assert!((first.duration_seconds - 6.0).abs() < 0.1 && last.done_seconds == last.duration_seconds);
    assert_eq!(Progress::parse(&run.object(&Layout::progress(&run.job.id))).unwrap(), *last);
    assert!(run.log().contains("rungs=\"360p 240p\""), "{}", run.log());
}

#[tokio::test]
async fn failed_progress_writes_do_not_fail_the_job() {
    let clip = clip();
    let denied = fail(Operation::Put, PROGRESS, Fault::AccessDenied).always();
    let run = Run::new(clip.clone(), Some(denied)).await;
    assert_eq!(run.output.status.code(), Some(0), "{}", run.log());
    assert_eq!(run.progress().len(), 1);
    let warning = "the task continues without progress reports";
    assert_eq!(run.log().matches(warning).count(), 1, "{}", run.log());
    let stalled = fail(Operation::Put, PROGRESS, Fault::Stall).always();
    let run = Run::new(clip, Some(stalled)).await;
    assert_eq!(run.output.status.code(), Some(0), "{}", run.log());
}

#[tokio::test]
async fn a_rejected_upload_ends_in_the_failed_stage() {
    let run = Run::new(Bytes::from_static(b"no video"), None).await;
    assert_eq!(run.output.status.code(), Some(65), "{}", run.log());
    let all = run.progress();
    assert_eq!((all.len(), all[0].stage, all[0].share), (1, Stage::Failed, 0.0));
}
