//! Runs of the program on bad files, with limits of time and memory.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Mutex,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::common::{generate, transcoder};

/// Time limit for a file. A file takes one or two seconds if it runs alone, but the tests run concurrently.
pub(crate) const MAX_SECONDS: f64 = 30.0;
/// Memory limit for the task and FFmpeg together.
const MAX_MEGABYTES: u64 = 1024;
/// Terms that a reason or a warning must not contain.
const JARGON: [&str; 9] =
    ["FFmpeg", "ffprobe", "codec", "moov", "atom", " box", "demux", "Invalid data", "0x"];

/// The expected end of a run.
#[derive(Clone, Copy)]
pub(crate) enum Expected {
    /// Exit code 65, and a reason with these words.
    Rejected(&'static str),
    /// Exit code 0.
    Published,
    /// Exit code 0, and a warning with these words.
    Warned(&'static str),
    /// Exit code 65 with a reason, or exit code 0.
    Either,
}
use Expected::{Either, Published, Rejected, Warned};

pub(crate) struct Case {
    pub name: String,
    pub file: PathBuf,
    pub expected: Expected,
    pub max_seconds: f64,
}

/// The cases of a test, with their files in one temporary folder.
pub(crate) struct Cases {
    pub folder: tempfile::TempDir,
    pub all: Vec<Case>,
}

impl Cases {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), all: Vec::new() }
    }

    pub(crate) fn add(&mut self, name: &str, content: impl AsRef<[u8]>, expected: Expected) {
        let file = self.folder.path().join(format!("{}.mp4", self.all.len()));
        std::fs::write(&file, content).unwrap();
        self.all.push(Case { name: name.into(), file, expected, max_seconds: MAX_SECONDS });
    }

    /// The content of a file that FFmpeg generates.
    pub(crate) fn generate(&self, arguments: &str, extension: &str) -> Vec<u8> {
        let file = self.folder.path().join(format!("generated.{extension}"));
        generate(&file, arguments);
        std::fs::read(file).unwrap()
    }

    /// Runs all cases, two at a time, and prints the table.
    pub(crate) fn run(self) {
        let queue = Mutex::new(self.all.iter());
        let failures = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let Some(case) = queue.lock().unwrap().next() else { return };
                        let run = Run::new(&case.file, self.folder.path());
                        println!(
                            "{:<44} {:>4} {:>5.1} s {:>5} MB  {}",
                            case.name, run.code, run.seconds, run.megabytes, run.message
                        );
                        if let Err(problem) = run.check(case) {
                            failures
                                .lock()
                                .unwrap()
                                .push(format!("{}: {problem} ({})", case.name, run.message));
                        }
                    }
                });
            }
        });
        let failures = failures.into_inner().unwrap();
        assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    }
}

/// A finished run.
struct Run {
    code: i32,
    seconds: f64,
    /// The sum of the peaks of the task and its child processes.
    megabytes: u64,
    /// The reason, or the warnings.
    message: String,
}

impl Run {
    fn new(file: &Path, folder: &Path) -> Self {
        let output = folder.join(format!("{}-out", file.file_stem().unwrap().to_str().unwrap()));
        let log = std::fs::File::create(output.with_extension("log")).unwrap();
        let started = Instant::now();
        let mut task = transcoder();
        task.arg("--input").arg(file).arg("--output").arg(&output).stderr(Stdio::from(log));
        let mut task = task.spawn().unwrap();
        let mut peaks = Peaks::default();
        let status = loop {
            peaks.update(task.id());
            if let Some(status) = task.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > Duration::from_secs(90) {
                task.kill().unwrap();
            }
            // The kernel keeps each process's peak, so this only has to see every process once.
            std::thread::sleep(Duration::from_millis(5));
        };
        let report = std::fs::read(output.join("job.json")).unwrap_or_default();
        let report: Value = serde_json::from_slice(&report).unwrap_or_default();
        let message = match report["reason"].as_str() {
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
            message: if report.is_null() { format!("no report; {log}") } else { message },
        }
    }

    fn check(&self, case: &Case) -> Result<(), String> {
        let (code, words) = match case.expected {
            Rejected(words) => (65, words),
            Published => (0, ""),
            Warned(words) => (0, words),
            Either if self.code == 0 => (0, ""),
            Either => (65, ""),
        };
        if self.code != code {
            return Err(format!("exit code {} instead of {code}", self.code));
        }
        if !self.message.contains(words) || (code == 65 && self.message.is_empty()) {
            return Err(format!("does not contain {words:?}"));
        }
        if let Some(word) = JARGON.iter().find(|word| self.message.contains(**word)) {
            return Err(format!("contains {word:?}"));
        }
        if self.seconds > case.max_seconds {
            return Err(format!("{:.1} seconds", self.seconds));
        }
        if self.megabytes > MAX_MEGABYTES {
            return Err(format!("{} MB", self.megabytes));
        }
        Ok(())
    }
}

/// The largest resident size of each process of a tree, in KB.
#[derive(Default)]
struct Peaks(HashMap<u32, u64>);

impl Peaks {
    fn update(&mut self, process: u32) {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(peak) = peak.and_then(|text| text.trim().split(' ').next()?.parse::<u64>().ok()) {
            let known = self.0.entry(process).or_default();
            *known = peak.max(*known);
        }
        for thread in std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            children.split_whitespace().for_each(|child| self.update(child.parse().unwrap()));
        }
    }

    fn total(&self) -> u64 {
        self.0.values().sum()
    }
}
