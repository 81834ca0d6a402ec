//! Runs FFmpeg and ffprobe; the only place that starts processes.
//!
//! Each process has its own process group and an environment without credentials. Its outputs are pipes. The
//! last lines of its stderr ([`messages`]) are kept for its [`error`]. To stop it, the task sends SIGTERM,
//! then SIGKILL.
//!
//! Other rooms run an [`Ffmpeg`] with pipes, [`convert`] from memory to memory, or build a [`command`].

mod error;
mod messages;

use std::{
    os::{fd::RawFd, unix::process::ExitStatusExt},
    pin::pin,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use bytes::Bytes;
use command_fds::{CommandFdExt, FdMapping};
use futures::future::try_join_all;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    process::{Child, Command},
    task::JoinHandle,
};
use tracing::Instrument;

use messages::{Messages, failure, read_messages};

pub(crate) use error::FfmpegError;

/// The first file descriptor after stdin, stdout and stderr.
pub(crate) const FIRST_PIPE_FD: RawFd = 3;
/// Time between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// A process that ends within this time after its pipes have closed has ended by itself.
const ALREADY_ENDED: Duration = Duration::from_millis(500);

/// A command for `ffmpeg` or `ffprobe` with an environment without credentials. Its own process group keeps a
/// terminal's Ctrl-C from reaching it.
#[must_use]
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().process_group(0).kill_on_drop(true).stdin(Stdio::null());
    for name in ["PATH", "LD_LIBRARY_PATH"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// FFmpeg's version line.
///
/// # Errors
/// FFmpeg cannot be started.
pub(crate) async fn version() -> Result<String, FfmpegError> {
    let output = command("ffmpeg").arg("-version").output().await.map_err(FfmpegError::Run)?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}

/// A running FFmpeg.
#[derive(Debug)]
pub(crate) struct Ffmpeg {
    child: Child,
    /// Absent after they have been read.
    messages: Option<JoinHandle<Messages>>,
}

impl Ffmpeg {
    /// Starts FFmpeg with this many pipes from [`FIRST_PIPE_FD`] on, and returns their reading ends.
    ///
    /// # Errors
    /// FFmpeg cannot be started, or a pipe cannot be created.
    pub(crate) fn spawn(
        arguments: &[String],
        pipes: usize,
    ) -> Result<(Self, Vec<pipe::Receiver>), FfmpegError> {
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
        // The command holds the pipes' writing ends, so no pipe ends while the command lives.
        drop(command);
        let messages = tokio::spawn(read_messages(child.stderr.take()).in_current_span());
        Ok((Self { child, messages: Some(messages) }, receivers))
    }

    /// Waits for FFmpeg's end. Returns the number of decoding errors, each of which is a visible fault or a
    /// gap.
    ///
    /// # Errors
    /// FFmpeg failed.
    pub(crate) async fn wait(&mut self) -> Result<u64, FfmpegError> {
        let (status, messages) = self.end().await?;
        if status.success() {
            return Ok(messages.damaged);
        }
        let error = failure(status, &messages.lines);
        if matches!(error, FfmpegError::Source(_)) {
            // The error is for the uploader; the log is for operators.
            for line in &messages.lines {
                tracing::info!("ffmpeg: {line}");
            }
        }
        Err(error)
    }

    async fn end(&mut self) -> Result<(ExitStatus, Messages), FfmpegError> {
        let status = self.child.wait().await.map_err(FfmpegError::Run)?;
        let messages = match &mut self.messages {
            Some(messages) => messages.await.unwrap_or_default(),
            None => Messages::default(),
        };
        self.messages = None;
        Ok((status, messages))
    }

    /// Stops FFmpeg unless it has already ended: sends SIGTERM, and after a grace period SIGKILL.
    ///
    /// # Errors
    /// FFmpeg had already failed by itself, for another reason than a closed pipe.
    pub(crate) async fn stop(mut self) -> Result<(), FfmpegError> {
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
        let (status, messages) = self.end().await?;
        let is_pipe_closed = messages.lines.iter().any(|line| line.contains("Broken pipe"));
        if status.success() || is_pipe_closed && status.signal().is_none() {
            return Ok(());
        }
        Err(failure(status, &messages.lines))
    }
}

/// Waits for several processes. The first one does most of the work; after its end, the others have
/// `patience` to end. Returns the largest number of decoding errors of one process.
///
/// # Errors
/// A process failed, or did not end in time.
pub(crate) async fn wait_for_all(ffmpegs: &mut [Ffmpeg], patience: Duration) -> Result<u64, FfmpegError> {
    let (first, others) = ffmpegs.split_at_mut(ffmpegs.len().min(1));
    let mut first = pin!(try_join_all(first.iter_mut().map(Ffmpeg::wait)));
    let mut others = pin!(try_join_all(others.iter_mut().map(Ffmpeg::wait)));
    let (first, others) = tokio::select! {
        first = &mut first => {
            let others = tokio::time::timeout(patience, others).await;
            (first?, others.map_err(|_| FfmpegError::Stalled(patience.as_secs()))??)
        }
        others = &mut others => {
            let others = others?;
            (first.await?, others)
        }
    };
    Ok(first.into_iter().chain(others).max().unwrap_or(0))
}

/// Runs FFmpeg from memory to memory: it reads `input` from `pipe:0` and writes to `pipe:1`.
///
/// # Errors
/// FFmpeg failed, or did not end within `limit`. The error is never [`FfmpegError::Source`], because the
/// input is the task's own.
pub(crate) async fn convert(
    arguments: &[String],
    input: &[Bytes],
    limit: Duration,
) -> Result<Bytes, FfmpegError> {
    let mut command = command("ffmpeg");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(FfmpegError::Run)?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            for part in input {
                // If FFmpeg ends early, its exit code has the reason.
                if stdin.write_all(part).await.is_err() {
                    break;
                }
            }
        }
    };
    let collect = async {
        let mut output = Vec::new();
        if let Some(mut stdout) = stdout {
            stdout.read_to_end(&mut output).await?;
        }
        Ok(output)
    };
    let messages = read_messages(child.stderr.take());
    // Dropping the child kills it.
    let work = async { tokio::join!(feed, collect, messages, child.wait()) };
    let ((), output, messages, status) =
        tokio::time::timeout(limit, work).await.map_err(|_| FfmpegError::Stalled(limit.as_secs()))?;
    let (output, status) = (output.map_err(FfmpegError::Run)?, status.map_err(FfmpegError::Run)?);
    if status.success() {
        return Ok(output.into());
    }
    Err(match failure(status, &messages.lines) {
        FfmpegError::Source(complaint) => FfmpegError::Failed { status, complaint },
        error => error,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vidstreamx_job::Exit;

    use super::*;

    fn running(arguments: &str, pipes: usize) -> (Ffmpeg, Vec<pipe::Receiver>) {
        let arguments = format!("-nostdin -loglevel error {arguments}");
        Ffmpeg::spawn(&arguments.split(' ').map(str::to_owned).collect::<Vec<_>>(), pipes).unwrap()
    }

    #[tokio::test]
    async fn a_closed_pipe_is_not_a_failure() {
        let (mut ffmpeg, pipes) = running("-f lavfi -i color=size=640x360 -f rawvideo pipe:3", 1);
        drop(pipes);
        ffmpeg.child.wait().await.unwrap();
        ffmpeg.stop().await.unwrap();
        let (mut ffmpeg, _) = running("-i nothing.mp4 -f null -", 0);
        ffmpeg.child.wait().await.unwrap();
        ffmpeg.stop().await.unwrap_err();
    }

    #[tokio::test]
    async fn a_process_that_outlives_the_first_has_stalled() {
        let all = |arguments: [&str; 2]| arguments.map(|arguments| running(arguments, 0).0);
        let (brief, endless) =
            ("-f lavfi -i nullsrc=duration=1 -f null -", "-re -f lavfi -i nullsrc -f null -");
        let error = wait_for_all(&mut all([brief, endless]), Duration::from_millis(100)).await.unwrap_err();
        assert!(matches!(error, FfmpegError::Stalled(_)), "{error}");
        wait_for_all(&mut all([brief, brief]), Duration::from_secs(60)).await.unwrap();
        let error = wait_for_all(&mut all([endless, "-i nothing.mp4 -f null -"]), Duration::MAX).await;
        assert!(
            matches!(error.unwrap_err(), FfmpegError::Failed { .. }),
            "a failure does not wait for the first process"
        );
    }

    #[tokio::test]
    async fn pipes_carry_bytes_and_the_environment_has_no_credentials() {
        // FFmpeg and its pipes are real, because a fake would hide what this tests.
        let (mut ffmpeg, mut pipes) = Ffmpeg::spawn(
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
    async fn a_failure_has_ffmpegs_last_message() {
        let (mut ffmpeg, _pipes) = Ffmpeg::spawn(&["-i".into(), "/no/such/file".into()], 0).unwrap();
        let error = ffmpeg.wait().await.unwrap_err();
        assert!(error.to_string().contains("No such file"), "{error}");
    }

    #[tokio::test]
    async fn messages_are_logged_within_the_span_of_the_caller() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(Arc::new(log.reopen().unwrap()))
            .finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let failing = async { running("-i nothing.mp4 -f null -", 0).0.wait().await };
        failing.instrument(tracing::error_span!("job", id = 7)).await.unwrap_err();
        let log = std::fs::read_to_string(log.path()).unwrap();
        assert!(log.contains("ffmpeg: "), "{log}");
        assert!(log.lines().all(|line| line.contains("job{id=7}")), "{log}");
    }

    #[tokio::test]
    async fn convert_has_a_time_limit_and_never_blames_the_source() {
        let run = async |arguments: &str, input: &'static [u8], limit| {
            let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
            convert(&arguments, &[input.into(), input.into()], limit).await
        };
        let copy = "-loglevel error -f s16le -ar 8000 -ac 1 -i pipe:0 -f s16le pipe:1";
        let minute = Duration::from_secs(60);
        assert_eq!(run(copy, b"abcd", minute).await.unwrap(), &b"abcdabcd"[..]);
        let garbage =
            run("-loglevel error -f mov -i pipe:0 -f null -", b"garbage", minute).await.unwrap_err();
        assert_eq!(garbage.exit(), Exit::Internal, "{garbage}");
        let endless = "-loglevel error -f lavfi -i color -f null -";
        assert!(matches!(run(endless, b"", Duration::ZERO).await, Err(FfmpegError::Stalled(0))));
    }
}
