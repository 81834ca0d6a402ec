//! S3 on a bad day: whatever it does, the program ends with the stream it makes on a good one, or says why not.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod s3;

use std::{collections::BTreeMap, path::Path, process::Output, time::Duration};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::process::Command;

use s3::{Kind, S3};

/// Measures; `SOURCE` and `TASK` in the environment.
#[tokio::test]
#[ignore]
async fn measure() {
    let source = std::env::var("SOURCE").unwrap();
    let task = std::env::var("TASK").unwrap_or(env!("CARGO_BIN_EXE_transcoder-task").into());
    let delay = std::env::var("DELAY").map_or(0, |text| text.parse().unwrap());
    let s3 = S3::slow([], Duration::from_millis(delay)).await;
    let content: Bytes = std::fs::read(&source).unwrap().into();
    let size = content.len();
    s3.put("uploads/clip.mp4", content);
    let folder = tempfile::tempdir().unwrap();
    let mut command = s3.command(&task);
    if let Ok(profile) = std::env::var("PROFILE") {
        command.args(["--profile", &profile]);
    }
    let started = std::time::Instant::now();
    let mut child =
        command.args(["--input", "s3://uploads/clip.mp4", "--output"]).arg(folder.path()).spawn().unwrap();
    let pid = child.id().unwrap();
    let mut peak = String::new();
    let status = loop {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if let Some(line) = status.lines().find(|line| line.starts_with("VmHWM")) {
            peak = line.to_owned();
        }
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    println!(
        "{source}: {status} size {size} GETs {} sent {} MB, {:.1} s, {peak}",
        s3.count(Kind::Get, "clip"),
        s3.sent() / 1_000_000,
        started.elapsed().as_secs_f64()
    );
}
