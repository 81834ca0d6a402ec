//! Fixtures of the integration tests: the program, clips, the corpus, ffprobe, and published folders.

#![allow(dead_code, reason = "each test program uses a part")]

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};

/// The program, with only `PATH` in its environment.
pub(crate) fn transcoder() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_transcoder-task"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command
}

/// A profile file with this text.
pub(crate) fn profile(text: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    file
}

/// Runs a program that must succeed.
pub(crate) fn execute<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Output {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The standard output of a program that must succeed.
pub(crate) fn stdout<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> String {
    String::from_utf8(execute(program, arguments).stdout).unwrap()
}

/// Generates a file with FFmpeg.
pub(crate) fn generate(file: &Path, arguments: &str) {
    let arguments = "-loglevel error -y".split(' ').chain(arguments.split_whitespace()).map(OsStr::new);
    execute("ffmpeg", arguments.chain([file.as_os_str()]));
}

/// Generates `clip.mp4` in the folder.
pub(crate) fn clip(folder: &TempDir, arguments: &str) -> PathBuf {
    let file = folder.path().join("clip.mp4");
    generate(&file, arguments);
    file
}

/// A file of the corpus, if it is there.
pub(crate) fn corpus(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("VIDSTREAMX_CORPUS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"), PathBuf::from);
    Some(folder.join(name)).filter(|file| file.exists())
}

/// Runs ffprobe on the selected streams of a file.
pub(crate) fn ffprobe(file: &Path, selector: &str, entries: &str) -> Output {
    let arguments = ["-v", "error", "-select_streams", selector, "-count_frames", "-show_entries", entries];
    let arguments = arguments.into_iter().chain(["-of", "csv=p=0"]).map(OsStr::new);
    execute("ffprobe", arguments.chain([file.as_os_str()]))
}

/// The lines of ffprobe's output, one per stream, packet or frame.
pub(crate) fn probe(file: &Path, selector: &str, entries: &str) -> Vec<String> {
    let text = String::from_utf8(ffprobe(file, selector, entries).stdout).unwrap();
    let lines = text.lines().map(|line| line.trim_end_matches(',').to_owned());
    let mut lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    if entries.starts_with("stream") {
        // A playlist's stream is listed again under its program.
        lines.dedup();
    }
    lines
}

/// A local folder with a published stream.
pub(crate) struct StreamFolder(pub(crate) PathBuf);

impl StreamFolder {
    pub(crate) fn report(&self) -> Value {
        serde_json::from_slice(&fs::read(self.0.join("job.json")).unwrap()).unwrap()
    }

    /// A file in the folder that the report names.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.0.join(self.report()["folder"].as_str().unwrap()).join(path)
    }

    /// The renditions of a kind in the report.
    pub(crate) fn renditions(&self, kind: &str) -> Vec<Value> {
        let report = self.report();
        let renditions = report["renditions"].as_array().unwrap().iter();
        renditions.filter(|rendition| rendition["kind"] == kind).cloned().collect()
    }

    /// The names of the video renditions.
    pub(crate) fn rungs(&self) -> Vec<String> {
        let videos = self.renditions("video").into_iter();
        videos.map(|rung| rung["name"].as_str().unwrap().to_owned()).collect()
    }
}
