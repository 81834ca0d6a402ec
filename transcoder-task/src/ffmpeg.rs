//! The one place that spawns: FFmpeg in its own process group, with nothing of our environment, its
//! outputs on pipes, its complaints kept, terminated before it is killed.

use std::{
    collections::VecDeque,
    os::{fd::RawFd, unix::process::ExitStatusExt},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::unix::pipe,
    process::{Child, ChildStderr, Command},
    task::JoinHandle,
};
use vidstreamx_job::Exit;

/// The first file descriptor after stdin, stdout and stderr.
pub const FIRST_PIPE_FD: RawFd = 3;
/// How long FFmpeg may take to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// How long after its pipes closed FFmpeg is known to have ended by itself.
const ALREADY_ENDED: Duration = Duration::from_millis(500);
/// Complaints kept for the error message.
const KEPT_LINES: usize = 20;
/// A hostile file can make FFmpeg complain at any length.
const LONGEST_LINE: u64 = 4096;

/// Why FFmpeg did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum FfmpegError {
    /// It could not be started, or its pipes not be made.
    #[error("cannot run ffmpeg: {0} (is it installed?)")]
    Run(std::io::Error),
    /// It ended with an error for which the source is to blame.
    #[error("nothing in the file can be decoded (FFmpeg says: {0})")]
    Source(String),
    /// It was killed, most likely by the kernel for want of memory.
    #[error("ffmpeg was killed, most likely for want of memory")]
    Killed,
    /// It ended with any other error.
    #[error("ffmpeg failed ({status}): {complaint}")]
    Failed {
        /// Exit code or signal.
        status: ExitStatus,
        /// Its last words.
        complaint: String,
    },
    /// It stopped making progress.
    #[error("ffmpeg made no progress for {0} seconds and was stopped")]
    Stalled(u64),
}

impl FfmpegError {
    /// The exit code that tells the consumer what to do.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Run(_) => Exit::Misconfigured,
            Self::Source(_) => Exit::Unusable,
            Self::Killed => Exit::OutOfMemory,
            Self::Failed { .. } => Exit::Internal,
            Self::Stalled(_) => Exit::Transient,
        }
    }
}

/// `ffmpeg` or `ffprobe` with an environment that holds no credentials, in a process group of its own, so
/// that a terminal's Ctrl-C reaches us alone.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().process_group(0).kill_on_drop(true).stdin(Stdio::null());
    for name in ["PATH", "LD_LIBRARY_PATH"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// A running FFmpeg.
#[derive(Debug)]
pub struct Ffmpeg {
    child: Child,
    complaints: JoinHandle<VecDeque<String>>,
}

impl Ffmpeg {
    /// Starts FFmpeg with `pipes` pipes from [`FIRST_PIPE_FD`] on, and returns their reading ends.
    pub fn spawn(arguments: &[String], pipes: usize) -> Result<(Self, Vec<pipe::Receiver>), FfmpegError> {
        let mut receivers = Vec::with_capacity(pipes);
        let mut mappings = Vec::with_capacity(pipes);
        for child_fd in (FIRST_PIPE_FD..).take(pipes) {
            let (sender, receiver) = pipe::pipe().map_err(FfmpegError::Run)?;
            let parent_fd = sender.into_blocking_fd().map_err(FfmpegError::Run)?;
            mappings.push(FdMapping { parent_fd, child_fd });
            receivers.push(receiver);
        }
        let mut command = command("ffmpeg");
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
        command.fd_mappings(mappings).map_err(|error| FfmpegError::Run(std::io::Error::other(error)))?;
        let mut child = command.spawn().map_err(FfmpegError::Run)?;
        // Holds the pipes' writing ends: while it lives, no pipe ends.
        drop(command);
        let complaints = tokio::spawn(last_lines(child.stderr.take()));
        Ok((Self { child, complaints }, receivers))
    }

    /// Waits for FFmpeg's end.
    pub async fn wait(mut self) -> Result<(), FfmpegError> {
        let status = self.child.wait().await.map_err(FfmpegError::Run)?;
        let complaints = self.complaints.await.unwrap_or_default();
        if status.success() { Ok(()) } else { Err(failure(status, &complaints)) }
    }

    /// Ends FFmpeg: first asked, then killed. If it had already failed by itself, that is the error.
    pub async fn stop(mut self) -> Result<(), FfmpegError> {
        if let Some(group) = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            let ended = tokio::time::timeout(ALREADY_ENDED, self.child.wait()).await.is_ok();
            if !ended {
                let _ = kill_process_group(group, Signal::TERM);
                if tokio::time::timeout(GRACE, self.child.wait()).await.is_err() {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                let _ = self.child.wait().await;
                return Ok(());
            }
        }
        self.wait().await
    }
}

async fn last_lines(stderr: Option<ChildStderr>) -> VecDeque<String> {
    let mut kept = VecDeque::with_capacity(KEPT_LINES);
    let Some(stderr) = stderr else { return kept };
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    // A longer line comes in pieces.
    while let Ok(1..) = (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line).await {
        let text = String::from_utf8_lossy(&line).trim().to_owned();
        line.clear();
        tracing::debug!("ffmpeg: {text}");
        if kept.len() == KEPT_LINES {
            kept.pop_front();
        }
        kept.push_back(text);
    }
    kept
}

fn failure(status: ExitStatus, complaints: &VecDeque<String>) -> FfmpegError {
    if status.signal() == Some(Signal::KILL.as_raw()) {
        return FfmpegError::Killed;
    }
    let failed = || FfmpegError::Failed {
        status,
        complaint: complaints.back().cloned().unwrap_or_else(|| "it said nothing".into()),
    };
    if status.signal().is_some() {
        return failed();
    }
    let complains_of = |patterns: &[&str]| {
        complaints.iter().find(|line| patterns.iter().any(|pattern| line.contains(pattern))).cloned()
    };
    // What FFmpeg 5 to 7 say when no frame or sample could be decoded.
    if complains_of(&["Error while opening encoder", "Cannot allocate memory", "No space left"]).is_none()
        && let Some(line) = complains_of(&[
            "no decoder found",
            "Decoder (codec",
            "Invalid data found",
            "partial file",
            "Error marking filters as finished",
            "Could not open encoder before EOF",
            "received no packets",
        ])
    {
        return FfmpegError::Source(line);
    }
    failed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pipes_carry_bytes_and_the_environment_is_empty() {
        // FFmpeg's stand-in would hide what is tested here: a real program, real pipes.
        let (ffmpeg, mut pipes) = Ffmpeg::spawn(
            &[
                "-loglevel",
                "error",
                "-f",
                "lavfi",
                "-i",
                "color=size=16x16:duration=0.1",
                "-f",
                "rawvideo",
                "pipe:3",
            ]
            .map(str::to_owned),
            1,
        )
        .unwrap();
        let mut bytes = Vec::new();
        pipes[0].read_to_end(&mut bytes).await.unwrap();
        ffmpeg.wait().await.unwrap();
        assert!(!bytes.is_empty());
        let output = command("env").output().await.unwrap();
        let names: Vec<_> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .filter_map(|line| line.split('=').next().map(str::to_owned))
            .collect();
        assert!(names.iter().all(|name| name == "PATH" || name == "LD_LIBRARY_PATH"), "{names:?}");
    }

    #[tokio::test]
    async fn a_failure_has_ffmpegs_last_words() {
        let (ffmpeg, _pipes) = Ffmpeg::spawn(&["-i".into(), "/no/such/file".into()], 0).unwrap();
        let error = ffmpeg.wait().await.unwrap_err();
        assert!(error.to_string().contains("No such file"), "{error}");
    }

    #[test]
    fn who_is_to_blame() {
        let failed = ExitStatus::from_raw(256);
        let lines = |text: &str| VecDeque::from([text.to_owned()]);
        assert!(matches!(failure(failed, &lines("Decoder (codec vvc) not found")), FfmpegError::Source(_)));
        for ours in ["Error while opening encoder", "Conversion failed!"] {
            assert!(matches!(failure(failed, &lines(ours)), FfmpegError::Failed { .. }));
        }
        assert!(matches!(failure(ExitStatus::from_raw(9), &lines("")), FfmpegError::Killed));
        let crashed = failure(ExitStatus::from_raw(11), &lines("Invalid data found"));
        assert!(matches!(crashed, FfmpegError::Failed { .. }));
    }
}
