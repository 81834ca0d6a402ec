//! The task's settings: flags of the command line, or the container's environment in ECS.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, str::FromStr};

use clap::{Parser, ValueEnum};
use tracing_subscriber::EnvFilter;
use vidstreamx_job::{EnvError, Exit, InvalidLocation, Job, S3Uri, env};

use crate::config::profile::{Profile, ProfileError};

const EXIT_CODES: &str = "\
Exit codes:
   0  done: the stream is published and job.json is complete
  65  the input is not a usable video; job.json says why
  66  the source object is gone or was replaced
  70  a bug in this program or in FFmpeg
  75  a temporary failure of S3, network or disk
  78  a wrong setting or a missing permission
 137  FFmpeg ran out of memory
 143  terminated by a signal";

/// Transcodes one video into an adaptive stream (HLS and DASH) and exits.
///
/// In ECS the consumer sets the job as VIDSTREAMX_* variables in the container overrides. On the command
/// line, give --input and --output; local files and folders need no AWS account.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub(crate) struct Flags {
    /// Video to read: a file, or s3://BUCKET/KEY. Without it, the task reads the job from the environment.
    #[arg(long, requires = "output", value_name = "FILE|s3://BUCKET/KEY")]
    input: Option<Location>,

    /// Output of the stream: a folder (created if missing), or s3://BUCKET/PREFIX. Files and objects with the
    /// same names are replaced.
    #[arg(long, requires = "input", value_name = "DIR|s3://BUCKET/PREFIX")]
    output: Option<Location>,

    /// Ladder and encoder settings: `default`, or a TOML file.
    #[arg(
        long,
        env = vidstreamx_job::env::PROFILE,
        default_value = Profile::DEFAULT_NAME,
        value_name = "default|FILE"
    )]
    profile: String,

    /// Format of log lines; `json` is for log collectors.
    #[arg(long, env = "VIDSTREAMX_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,

    /// Log level, also per module, e.g. `debug` or `transcoder_task=debug,aws_config=info`.
    #[arg(long, env = "VIDSTREAMX_LOG", default_value = "info,aws_config=error")]
    log: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone)]
enum Location {
    Local(PathBuf),
    S3(S3Uri),
}

impl FromStr for Location {
    type Err = InvalidLocation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("s3://") { text.parse().map(Self::S3) } else { Ok(Self::Local(text.into())) }
    }
}

/// Prints clap's usage error or help text, and returns the exit code. A usage error gets 78 (wrong
/// configuration) instead of clap's 2, because the consumer treats unknown codes as crashes.
pub(crate) fn usage_exit(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(Exit::Misconfigured.code()) } else { ExitCode::SUCCESS }
}

impl Flags {
    /// Sends log lines to stderr.
    pub(crate) fn init_logging(&self) {
        let builder = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::try_new(&self.log).unwrap_or_else(|_| EnvFilter::new("info")))
            .with_writer(std::io::stderr)
            .with_target(false);
        match self.log_format {
            LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
            LogFormat::Json => builder.json().flatten_event(true).init(),
        }
    }
}

/// The input of a run from the command line.
#[derive(Debug, Clone)]
pub(crate) enum InputLocation {
    /// A local file.
    File(PathBuf),
    /// An object, not pinned to a version yet.
    Object(S3Uri),
}

/// The output of a run from the command line.
#[derive(Debug, Clone)]
pub(crate) enum OutputLocation {
    /// A local folder.
    Folder(PathBuf),
    /// A prefix in a bucket.
    Prefix(S3Uri),
}

#[derive(Debug)]
pub(crate) enum Work {
    /// A job from the consumer.
    Job {
        job: Box<Job>,
        /// The launch token of this attempt, which the report repeats.
        launch: Option<String>,
    },
    /// A run from the command line.
    CommandLine { input: InputLocation, output: OutputLocation },
}

#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) work: Work,
    pub(crate) profile: Profile,
}

/// Invalid settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// Neither flags nor the environment name any work.
    #[error("nothing to do: give --input and --output, or set the VIDSTREAMX_* variables of a job ({0})")]
    NoWork(EnvError),
    #[error("the job in the environment is not valid: {0}")]
    Job(EnvError),
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

impl Settings {
    /// Combines flags and environment.
    ///
    /// # Errors
    /// The profile or the job in the environment is not valid, or there is no job.
    pub(crate) fn from_flags(flags: Flags) -> Result<Self, SettingsError> {
        let profile = Profile::load(&flags.profile)?;
        let work = match (flags.input, flags.output) {
            (Some(input), Some(output)) => Work::CommandLine {
                input: match input {
                    Location::Local(path) => InputLocation::File(path),
                    Location::S3(uri) => InputLocation::Object(uri),
                },
                output: match output {
                    Location::Local(path) => OutputLocation::Folder(path),
                    Location::S3(uri) => OutputLocation::Prefix(uri),
                },
            },
            _ => {
                let variable = |name: &str| std::env::var(name).ok();
                let job = Job::from_env(variable).map_err(|error| match error {
                    EnvError::Missing(_) => SettingsError::NoWork(error),
                    error => SettingsError::Job(error),
                })?;
                Work::Job { job: Box::new(job), launch: variable(env::LAUNCH) }
            }
        };
        Ok(Self { work, profile })
    }
}
