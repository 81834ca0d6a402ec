//! The program, from its arguments to its exit code.
//!
//! [`main`] reads the `arguments`, starts the `log` and calls the command. `run` is the consumer itself; the
//! other commands are in the module `commands`. `usage` reports wrong arguments on one line, `exit` turns
//! errors into exit codes, and `signals` shuts the program down.

mod arguments;
mod exit;
mod log;
mod run;
mod signals;
mod usage;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Parser as _, error::ErrorKind};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use self::{
    arguments::{Cli, Command},
    exit::Failure,
    log::start_log,
    run::run,
    signals::watch_signals,
    usage::usage,
};
use crate::{
    aws::{client, ecs::TaskStopper},
    commands::{cancel, check, delete, history, pause, prune, redrive, submit},
    config::Settings,
};

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
    // Reading `.env` changes the environment, so it must happen before any thread starts.
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
    start_log(cli.log_format, &cli.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Run { drain, settings } => run(settings.validate()?, drain).await,
            Command::Check { settings } => check(settings.validate()?).await,
            Command::History(arguments) => history(&arguments).await,
            Command::Submit(arguments) => submit(&arguments).await,
            Command::Redrive(arguments) => redrive(&arguments).await,
            Command::Pause(arguments) => pause(&arguments).await,
            Command::Resume(arguments) => resume(&arguments).await,
            Command::Cancel(arguments) => cancel(&arguments).await,
            Command::Delete(arguments) => delete(&arguments).await,
            Command::Prune(arguments) => prune(&arguments).await,
        }
    })
}

/// The work is mostly waiting, so more threads would only cost memory.
const WORKERS: usize = 2;

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
    // `None` if the output is not a terminal.
    let width = terminal_size::terminal_size_of(&out).map(|(width, _)| width.0);
    Ok(history::show(&store, arguments, Timestamp::now(), width, &mut out).await?)
}

async fn submit(arguments: &submit::Arguments) -> Result<(), Failure> {
    let config = client::configuration().await?;
    let bucket = arguments.settings.upload_bucket.clone();
    let uploads = submit::objects::UploadListing::new(vidstreamx_aws::s3(&config), bucket);
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

async fn pause(arguments: &pause::PauseArguments) -> Result<(), Failure> {
    let client = vidstreamx_aws::s3(&client::configuration().await?);
    Ok(pause::pause(&client, arguments, Timestamp::now(), &mut io::stdout().lock()).await?)
}

async fn resume(arguments: &pause::ResumeArguments) -> Result<(), Failure> {
    let client = vidstreamx_aws::s3(&client::configuration().await?);
    Ok(pause::resume(&client, &arguments.settings.output_bucket, &mut io::stdout().lock()).await?)
}

async fn cancel(arguments: &cancel::Arguments) -> Result<(), Failure> {
    arguments.settings.validate()?;
    let config = client::configuration().await?;
    let services = cancel::Services {
        s3: vidstreamx_aws::s3(&config),
        tasks: Box::new(TaskStopper(aws_sdk_ecs::Client::new(&config))),
    };
    Ok(cancel::cancel(&services, arguments, Timestamp::now(), &mut io::stdout().lock()).await?)
}

async fn delete(arguments: &delete::Arguments) -> Result<(), Failure> {
    arguments.settings.validate()?;
    let stop = CancellationToken::new();
    watch_signals(stop.clone())?;
    let client = vidstreamx_aws::s3(&client::configuration().await?);
    Ok(delete::delete(&client, arguments, &stop, &mut io::stdout().lock()).await?)
}

async fn prune(arguments: &prune::Arguments) -> Result<(), Failure> {
    arguments.settings.validate()?;
    let stop = CancellationToken::new();
    watch_signals(stop.clone())?;
    let client = vidstreamx_aws::s3(&client::configuration().await?);
    Ok(prune::prune(&client, arguments, Timestamp::now(), &stop, &mut io::stdout().lock()).await?)
}
