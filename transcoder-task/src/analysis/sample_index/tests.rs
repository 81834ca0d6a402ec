//! [`ffmpeg_files`] compares the index with ffprobe's output; [`objects`] reads it from S3. [`tables`] has
//! cases of sample tables, built by [`test_track`]; [`untrusted`] has random and damaged bytes.

mod ffmpeg_files;
mod objects;
mod tables;
mod test_track;
mod untrusted;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::*;

const SOURCE: &str = "-f lavfi -i testsrc2=size=64x64:rate=25:duration=6";

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn clip(folder: &TempDir, name: &str, arguments: &str) -> PathBuf {
    let file = folder.path().join(name);
    let mut all: Vec<_> = "-y -loglevel error".split(' ').chain(arguments.split_whitespace()).collect();
    all.push(file.to_str().unwrap());
    run("ffmpeg", &all);
    file
}

async fn index(file: &Path) -> Option<Index> {
    Index::read(&Input::File(file.to_owned())).await.unwrap()
}

/// The first video track and its position.
fn video_of(index: &Index) -> (usize, &Result<CopyableVideo, NotCopyable>) {
    let mut tracks = index.tracks.iter().enumerate();
    let found = tracks.find_map(|(at, track)| match &track.content {
        Content::Video(video) => Some((at, video)),
        _ => None,
    });
    found.unwrap()
}
