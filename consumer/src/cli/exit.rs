//! The failed runs of the program, and their exit codes.

use std::io;

use crate::{
    aws::{client::SetupError, error::CallError},
    commands::{history::HistoryError, redrive::RedriveError, submit::SubmitError},
    config::Contradiction,
    http::StatusError,
};

/// A failed run of the program.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The `.env` file cannot be read or parsed. The error shows only the name of a variable, because the
    /// value may be a secret.
    #[error(".env: {0}")]
    DotEnv(String),
    /// Clap's error about flags or variables, as one line.
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
    #[error("{0} of the checks found a fault")]
    Findings(usize),
    /// `check` could not check everything.
    #[error("{0} of the checks could not be completed")]
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
    pub(super) const fn code(&self) -> u8 {
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

    /// Whether the program that reads the output closed the pipe, as `head` does.
    pub(super) fn is_of_a_closed_pipe(&self) -> bool {
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

/// The exit code that shells use for SIGINT: 128 + 2.
pub(super) const FORCED: u8 = 130;
