//! What to do: from flags by hand, or from the container's environment in ECS.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, str::FromStr};

use clap::{Parser, ValueEnum};
use tracing_subscriber::EnvFilter;
use vidstreamx_job::{EnvError, Exit, InvalidLocation, Job, S3Uri};

use crate::config::profile::{Profile, ProfileError};

const EXIT_CODES: &str = "\
Exit codes:
   0  done: the stream is published and job.json is complete
  65  the input is not a usable video; job.json says why
  66  the source object is gone or was replaced
  70  a bug in this program or in FFmpeg
  75  trouble that may pass: S3, network, disk
  78  a wrong setting or a missing permission
 137  FFmpeg ran out of memory
 143  terminated by a signal";

/// Transcodes one video into an adaptive stream (HLS) and exits.
///
/// In ECS the job comes from VIDSTREAMX_* variables that the consumer sets as container overrides. By
/// hand, name an input and an output; plain files and folders need no AWS account.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub struct Flags {
    /// Video to read: a file, or s3://BUCKET/KEY. Without it, the job is read from the environment.
    #[arg(long, requires = "output", value_name = "FILE|s3://BUCKET/KEY")]
    input: Option<Location>,

    /// Where the stream is written: a folder (created if missing), or s3://BUCKET/PREFIX. What is there
    /// under the same names is replaced.
    #[arg(long, requires = "input", value_name = "DIR|s3://BUCKET/PREFIX")]
    output: Option<Location>,

    /// Ladder and encoder settings: `default`, or a TOML file.
    #[arg(long, env = vidstreamx_job::env::PROFILE, default_value = Profile::DEFAULT_NAME, value_name = "default|FILE")]
    profile: String,

    /// How log lines are written; `json` is for log collectors.
    #[arg(long, env = "VIDSTREAMX_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,

    /// Which log lines are written, e.g. `debug` or `transcoder_task=debug,aws_config=info`.
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

/// Wrong flags are wrong configuration, so they exit with 78 and not with clap's 2, which the consumer
/// would take for a crash.
pub fn usage_exit(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(Exit::Misconfigured.code()) } else { ExitCode::SUCCESS }
}

impl Flags {
    /// Log lines go to stderr; on a terminal they leave room for the progress bar.
    pub fn init_logging(&self) {
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

/// What the input is.
#[derive(Debug, Clone)]
pub enum Input {
    /// A file on this machine.
    File(PathBuf),
    /// An object, not yet pinned to a version.
    Object(S3Uri),
}

/// Where the output goes.
#[derive(Debug, Clone)]
pub enum Output {
    /// A folder on this machine.
    Folder(PathBuf),
    /// A prefix in a bucket.
    Prefix(S3Uri),
}

/// The work, and where it was asked for.
#[derive(Debug)]
pub enum Work {
    /// From the consumer.
    Job(Box<Job>),
    /// From the command line.
    ByHand {
        /// What to read.
        input: Input,
        /// Where to write.
        output: Output,
    },
}

/// Everything the task needs to know.
#[derive(Debug)]
pub struct Settings {
    /// What to do.
    pub work: Work,
    /// How to do it.
    pub profile: Profile,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Neither flags nor a job in the environment.
    #[error(
        "nothing to do: give --input and --output, or a job in VIDSTREAMX_* variables as the consumer does ({0})"
    )]
    NoWork(EnvError),
    /// The job in the environment is wrong.
    #[error("the job in the environment is wrong: {0}")]
    Job(EnvError),
    /// The profile is wrong.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

impl Settings {
    /// Settings from flags and the environment.
    pub fn from_flags(flags: Flags) -> Result<Self, SettingsError> {
        let profile = Profile::load(&flags.profile)?;
        let work = match (flags.input, flags.output) {
            (Some(input), Some(output)) => Work::ByHand {
                input: match input {
                    Location::Local(path) => Input::File(path),
                    Location::S3(uri) => Input::Object(uri),
                },
                output: match output {
                    Location::Local(path) => Output::Folder(path),
                    Location::S3(uri) => Output::Prefix(uri),
                },
            },
            _ => {
                Work::Job(Box::new(Job::from_env(|name| std::env::var(name).ok()).map_err(
                    |error| match error {
                        EnvError::Missing(_) => SettingsError::NoWork(error),
                        error => SettingsError::Job(error),
                    },
                )?))
            }
        };
        Ok(Self { work, profile })
    }
}
