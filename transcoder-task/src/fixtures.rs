//! Programs, files and stores that many unit tests need.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::store::Store;

/// Runs a program that must succeed.
pub(crate) fn run(program: &str, arguments: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // The result is ignored: writing fails if the program exits before it has read all input.
        scope.spawn(move || pipe.write_all(stdin));
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The standard output of a program that must succeed, as text.
pub(crate) fn stdout(program: &str, arguments: &[&str]) -> String {
    String::from_utf8(run(program, arguments, b"").stdout).unwrap()
}

/// The standard output of FFmpeg, for arguments without spaces.
pub(crate) fn ffmpeg(arguments: &str) -> Vec<u8> {
    let quiet = "-nostdin -loglevel error -y".split(' ');
    run("ffmpeg", &quiet.chain(arguments.split_whitespace()).collect::<Vec<_>>(), b"").stdout
}

/// Generates a file in the folder with FFmpeg.
pub(crate) fn clip(folder: &TempDir, name: &str, arguments: &str) -> PathBuf {
    let file = folder.path().join(name);
    ffmpeg(&format!("{arguments} {}", file.display()));
    file
}

/// The folder of real-world files. It may be missing.
pub(crate) fn corpus() -> PathBuf {
    std::env::var_os("VIDSTREAMX_CORPUS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"), PathBuf::from)
}

/// An empty store in a temporary folder.
pub(crate) fn folder_store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::Folder(folder.path().to_owned());
    (folder, store)
}
