//! [`ffmpeg_files`] compares the index with ffprobe's output; [`objects`] reads it from S3. [`tables`] has
//! cases of sample tables, built by [`test_track`]; [`untrusted`] has random and damaged bytes.

mod ffmpeg_files;
mod objects;
mod tables;
mod test_track;
mod untrusted;

use std::path::{Path, PathBuf};

use crate::fixtures::{clip, stdout};

use super::*;

const SOURCE: &str = "-f lavfi -i testsrc2=size=64x64:rate=25:duration=6";

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
