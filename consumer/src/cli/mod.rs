//! The program: commands, log, signals and exit codes.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

use clap::{
    CommandFactory, Parser, Subcommand, ValueEnum,
    error::{ContextKind, ContextValue, ErrorKind},
};
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;
use vidstreamx_job::Size;

use crate::{
    aws::client::{self, SetupError},
    aws::ecs::Ecs,
    aws::error::CallError,
    aws::record_store::S3RecordStore,
    aws::sqs::Sqs,
    aws::task_definition::TaskDefaults,
    commands::check::{self, FindingState},
    commands::history::{self, HistoryError},
    commands::redrive::{self, RedriveError},
    commands::submit::{self, SubmitError},
    config::{Contradiction, Settings},
    http::{self, StatusError},
    inspect::S3Uploads,
    intake::{self, Options, Rules},
    metrics::Metrics,
    reconcile::{JobOptions, Policy},
    services::Services,
};

/// Starts one ECS task per uploaded video and follows it to its end.
#[derive(Debug, Parser)]
#[command(name = "vidstreamx-consumer", version, about, after_help = HELP_AFTER)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Format of log lines: text, or one JSON object per line
    #[arg(
        long,
        global = true,
        env = "VIDSTREAMX_LOG_FORMAT",
        hide_env_values = true,
        default_value = "text"
    )]
    log_format: LogFormat,

    /// Log level, also by module such as info,vidstreamx_consumer=debug
    #[arg(long, global = true, env = "VIDSTREAMX_LOG", hide_env_values = true, default_value = "info,aws_config=error", value_name = "FILTER", value_parser = log_filter)]
    log: LogFilter,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Receive uploads and run their tasks until SIGTERM or SIGINT
    ///
    /// The first signal stops receiving and ends the program within seconds. Running tasks continue, and the
    /// next consumer takes them over. A second signal ends it at once.
    Run {
        /// Exit with code 0 as soon as the queue is empty: no message visible, delayed, or in flight at any
        /// consumer. Waits for messages on their way to the dead-letter queue
        #[arg(long)]
        drain: bool,

        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Check queues, cluster, task definition and buckets; changes nothing
    Check {
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Show the history of videos: those of the last 24 hours, or one in detail
    ///
    /// Reads the records in the output bucket; no consumer has to run. A list reads only the records updated
    /// in its period, 32 at once. Costs are estimates by the configured prices. All times are UTC.
    ///
    /// Permissions: s3:ListBucket on the output bucket, s3:GetObject on its .vidstreamx/*.
    History(Box<history::Arguments>),
    /// Put videos that are already in the upload bucket into the queue
    ///
    /// Submits the current version of an object, as if it had just been uploaded. Content that is done
    /// already is not transcoded again, unless --force is given. In a bucket with versioning, and if
    /// s3:GetBucketVersioning is denied, every object gets a HEAD request for its version.
    ///
    /// Permissions: sqs:SendMessage on the queue; s3:GetObject and s3:ListBucket on the upload bucket (and
    /// s3:GetBucketVersioning, for prefixes).
    Submit(Box<submit::Arguments>),
    /// Send messages of the dead-letter queue back to the queue, after the cause is gone
    ///
    /// Restarts each failed video once, with all its attempts. Unreadable messages return to the dead-letter
    /// queue at once. With --dry-run, it only lists messages and reasons. While it runs, the messages are
    /// hidden from others, for at most 15 minutes; messages that are not sent back are visible again at the
    /// end. A duplicate message, as after a crash, does no harm.
    ///
    /// Permissions: sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility on the dead-letter
    /// queue; sqs:SendMessage on the queue.
    Redrive(Box<redrive::Arguments>),
}

const HELP_AFTER: &str = "\
Settings are flags or environment variables; a file .env in the working directory is read too, and gives
way to the real environment. Region, endpoint and credentials come from the AWS SDK's own settings
(AWS_REGION, AWS_ENDPOINT_URL, AWS_PROFILE, roles).

Exit codes: 0 done or shut down; 1 a bug; 66 history or submit found nothing of that name; 75 check could
not look at everything, or history, submit or redrive could not do everything: try again; 78 wrong usage, a
setting that is missing or wrong, or a queue, cluster, task definition, bucket or permission that is missing;
130 ended by a second signal, or redrive by the first.";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// A validated filter; `EnvFilter` cannot be cloned.
#[derive(Debug, Clone)]
struct LogFilter(String);

fn log_filter(text: &str) -> Result<LogFilter, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    EnvFilter::try_new(text).map(|_| LogFilter(text.to_owned())).map_err(|error| error.to_string())
}

/// A failed run of the program.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The `.env` file cannot be read or parsed. The error shows only a line's name, because its value may be
    /// a secret.
    #[error(".env: {0}")]
    DotEnv(String),
    /// One line of clap about flags or variables.
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Settings(#[from] Contradiction),
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Status(#[from] StatusError),
    /// A missing or wrong prerequisite.
    #[error("{subject}: {fault} -> {remedy}")]
    Wrong { subject: String, fault: String, remedy: String },
    /// `check` found faults.
    #[error("{0} of these are wrong")]
    Findings(usize),
    /// `check` could not check some.
    #[error("{0} of these could not be checked")]
    Unknown(usize),
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error(transparent)]
    Submit(#[from] SubmitError),
    #[error(transparent)]
    Redrive(#[from] RedriveError),
    #[error("the program could not be started: {0}")]
    System(#[from] io::Error),
}

impl Failure {
    /// The one place where errors become exit codes.
    const fn code(&self) -> u8 {
        match self {
            Self::DotEnv(_)
            | Self::Usage(_)
            | Self::Settings(_)
            | Self::Setup(_)
            | Self::Status(_)
            | Self::Wrong { .. }
            | Self::Findings(_) => 78,
            Self::Submit(SubmitError::OtherBucket { .. }) => 78,
            Self::History(HistoryError::Call(call))
            | Self::Submit(SubmitError::Call(call))
            | Self::Redrive(RedriveError::Call(call)) => match call {
                CallError::Configuration { .. } => 78,
                CallError::Passing { .. } => 75,
            },
            Self::History(HistoryError::NotFound { .. } | HistoryError::Unreadable(_))
            | Self::Submit(SubmitError::Nothing(_)) => 66,
            Self::Unknown(_)
            | Self::Submit(SubmitError::Refused(_))
            | Self::Redrive(RedriveError::Refused(_)) => 75,
            Self::Redrive(RedriveError::Interrupted) => FORCED,
            Self::System(_)
            | Self::History(HistoryError::Output(_))
            | Self::Submit(SubmitError::Output(_))
            | Self::Redrive(RedriveError::Output(_)) => 1,
        }
    }

    /// Whether the reader of the output closed it, as `head` does.
    fn is_of_a_closed_pipe(&self) -> bool {
        let (Self::System(error)
        | Self::History(HistoryError::Output(error))
        | Self::Submit(SubmitError::Output(error))
        | Self::Redrive(RedriveError::Output(error))) = self
        else {
            return false;
        };
        error.kind() == io::ErrorKind::BrokenPipe
    }
}

/// 128 + SIGINT, as shells have it.
const FORCED: u8 = 130;

/// Runs the program to its exit code.
#[must_use]
pub fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_of_a_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "vidstreamx-consumer: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn start() -> Result<(), Failure> {
    // Before any thread starts, because it changes the environment.
    match dotenvy::from_path(".env") {
        Err(dotenvy::Error::LineParse(line, at)) => {
            let name = line.split('=').next().unwrap_or_default().trim();
            return Err(Failure::DotEnv(format!(
                "the line of \"{name}\" is not of the form NAME=VALUE (character {at})"
            )));
        }
        Err(error) if !error.not_found() => return Err(Failure::DotEnv(error.to_string())),
        _ => {}
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(shown) if matches!(shown.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return Ok(shown.print()?);
        }
        Err(error) => return Err(Failure::Usage(usage(&error))),
    };
    start_log(&cli);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Run { drain, settings } => run(settings.validate()?, drain).await,
            Command::Check { settings } => check(settings.validate()?).await,
            Command::History(arguments) => history(&arguments).await,
            Command::Submit(arguments) => submit(&arguments).await,
            Command::Redrive(arguments) => redrive(&arguments).await,
        }
    })
}

/// The work is mostly waiting, so more threads would only cost memory.
const WORKERS: usize = 2;

fn start_log(cli: &Cli) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&cli.log.0))
        .with_target(false)
        .with_writer(io::stderr);
    match cli.log_format {
        LogFormat::Text => log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).init(),
    }
}

/// What the template gives a task by default.
const TEMPLATES_SIZE: Size = Size { cpu: 4096, memory_mib: 8192, storage_gib: 21 };

async fn run(settings: Settings, drain: bool) -> Result<(), Failure> {
    let shutdown = CancellationToken::new();
    watch_signals(shutdown.clone())?;
    let metrics = Arc::new(Metrics::new(&settings.cluster));
    // Dropped at the end of this function, with its connections.
    let _status = match settings.status_addr {
        Some(address) => {
            let listener = http::listen(address).await?;
            Some(AbortOnDropHandle::new(tokio::spawn(http::serve(listener, metrics.clone()))))
        }
        None => None,
    };
    let config = client::configuration().await?;
    let (findings, definition) = check::essentials(&config, &settings).await;
    for finding in findings {
        match finding.state {
            FindingState::Ok(_) | FindingState::NotChecked { .. } => {}
            FindingState::Unknown(why) => warn!(subject = finding.subject, why, "not checked"),
            FindingState::Wrong { fault, remedy } => {
                return Err(Failure::Wrong { subject: finding.subject, fault, remedy });
            }
        }
    }
    let definition = definition.unwrap_or_else(|| {
        let Size { cpu, memory_mib, .. } = TEMPLATES_SIZE;
        warn!(cpu, memory_mib, "the task definition's size is not known: taken as the template's");
        TaskDefaults { size: TEMPLATES_SIZE, arm: false }
    });
    let services = Services {
        queue: Arc::new(Sqs::new(
            aws_sdk_sqs::Client::new(&config),
            &settings.queue_url,
            &settings.dead_letter_queue_url,
        )),
        tasks: Arc::new(Ecs::new(
            &aws_sdk_ecs::Client::new(&config),
            aws_sdk_ecs::Client::new(&vidstreamx_aws::with_own_connections(&config)),
            settings.placement(),
        )),
        uploads: Arc::new(S3Uploads(vidstreamx_aws::s3(&config))),
        records: Arc::new(S3RecordStore::new(vidstreamx_aws::s3(&config), settings.output_bucket.clone())),
        clock: Arc::new(Timestamp::now),
        metrics: metrics.clone(),
    };
    info!(
        queue = settings.queue_url.as_str(),
        cluster = settings.cluster,
        max_tasks = settings.max_tasks,
        "consumer started"
    );
    let ended = CancellationToken::new();
    let lines = settings.emf.then(|| tokio::spawn(write_lines(metrics, ended.clone())));
    intake::run(services, options(&settings, definition, drain), shutdown).await;
    ended.cancel();
    if let Some(lines) = lines {
        // A failure to write the last line was logged.
        let _ = lines.await;
    }
    info!("consumer ended");
    Ok(())
}

/// The receive loop's part of the settings.
fn options(settings: &Settings, defaults: TaskDefaults, drain: bool) -> Options {
    Options {
        rules: Rules {
            upload: settings.upload_bucket.clone(),
            output: settings.output_bucket.clone(),
            profile: settings.profile.clone(),
        },
        jobs: JobOptions {
            policy: Policy { max_attempts: settings.max_attempts.get(), capacity: settings.capacity },
            container: settings.container.clone(),
            max_tasks: usize::try_from(settings.max_tasks.get()).unwrap_or(usize::MAX),
            launches_per_second: settings.launches_per_second.get(),
            sizing: settings.sizing.clone().unwrap_or_default(),
            defaults,
        },
        drain,
    }
}

/// The consumer continues if nobody reads its metrics.
async fn write_lines(metrics: Arc<Metrics>, ended: CancellationToken) {
    if let Err(error) = metrics.write_lines(io::stdout(), Timestamp::now, ended).await {
        warn!(%error, "no more metrics are written to the standard output");
    }
}

async fn check(settings: Settings) -> Result<(), Failure> {
    let config = client::configuration().await?;
    let findings = check::everything(&config, &settings).await;
    let mut out = io::stdout().lock();
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    let wrong = findings.iter().filter(|finding| finding.is_wrong()).count();
    let unknown = findings.iter().filter(|finding| finding.is_unknown()).count();
    match (wrong, unknown) {
        (0, 0) => Ok(()),
        (0, unknown) => Err(Failure::Unknown(unknown)),
        (wrong, _) => Err(Failure::Findings(wrong)),
    }
}

async fn history(arguments: &history::Arguments) -> Result<(), Failure> {
    let config = client::configuration().await?;
    let store =
        history::read::Store::new(vidstreamx_aws::s3(&config), arguments.settings.output_bucket.clone());
    let mut out = io::stdout().lock();
    // None where it is no terminal.
    let width = terminal_size::terminal_size_of(&out).map(|(width, _)| width.0);
    Ok(history::show(&store, arguments, Timestamp::now(), width, &mut out).await?)
}

async fn submit(arguments: &submit::Arguments) -> Result<(), Failure> {
    let config = client::configuration().await?;
    let bucket = arguments.settings.upload_bucket.clone();
    let uploads = submit::objects::Uploads::new(vidstreamx_aws::s3(&config), bucket);
    let queue = aws_sdk_sqs::Client::new(&config);
    Ok(submit::submit(&uploads, &queue, arguments, Timestamp::now(), &mut io::stdout().lock()).await?)
}

async fn redrive(arguments: &redrive::Arguments) -> Result<(), Failure> {
    arguments.settings.validate()?;
    let stop = CancellationToken::new();
    watch_signals(stop.clone())?;
    let config = client::configuration().await?;
    let client = aws_sdk_sqs::Client::new(&config);
    Ok(redrive::redrive(&client, arguments, Timestamp::now(), &stop, &mut io::stdout().lock()).await?)
}

/// The first signal ends the program in order, the second one at once.
fn watch_signals(shutdown: CancellationToken) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if shutdown.is_cancelled() {
                error!("second signal: ending at once");
                std::process::exit(FORCED.into());
            }
            shutdown.cancel();
        }
    });
    Ok(())
}

/// Clap's error as one line that names the setting by flag and variable.
fn usage(error: &clap::Error) -> String {
    let named = |kind| match error.get(kind) {
        Some(ContextValue::String(name)) => vec![name.as_str()],
        Some(ContextValue::Strings(names)) => names.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    let settings =
        named(ContextKind::InvalidArg).into_iter().map(with_variable).collect::<Vec<_>>().join(", ");
    let value = named(ContextKind::InvalidValue).first().copied().unwrap_or_default();
    match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            "say what to do: run, check, history, submit or redrive (--help says more)".to_owned()
        }
        ErrorKind::MissingRequiredArgument => format!("not set: {settings}"),
        _ if value.is_empty() && !settings.is_empty() => {
            let cause = error.to_string();
            if matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::ArgumentConflict) {
                first_line(&cause).to_owned()
            } else {
                format!("{settings} is empty")
            }
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            let valid = named(ContextKind::ValidValue).join(", ");
            let cause = cause.unwrap_or_else(|| format!("it should be one of: {valid}"));
            format!("{settings}: \"{value}\": {cause}")
        }
        _ => first_line(&error.to_string()).to_owned(),
    }
}

/// `--queue-url <QUEUE_URL>` as `--queue-url (VIDSTREAMX_QUEUE_URL)`.
fn with_variable(argument: &str) -> String {
    if !argument.starts_with('-') {
        return argument.to_owned();
    }
    let flag = argument.split([' ', '=', '[']).next().unwrap_or(argument);
    let cli = Cli::command();
    let of_commands = cli.get_subcommands().flat_map(clap::Command::get_arguments);
    let variable = cli
        .get_arguments()
        .chain(of_commands)
        .find(|found| found.get_long().is_some_and(|long| flag.strip_prefix("--") == Some(long)))
        .and_then(clap::Arg::get_env);
    variable.map_or_else(|| flag.to_owned(), |variable| format!("{flag} ({})", variable.to_string_lossy()))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim_start_matches("error: ")
}
