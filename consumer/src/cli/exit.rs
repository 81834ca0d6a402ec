//! The failed runs of the program, and their exit codes.

use std::io;

use crate::{
    aws::{client::SetupError, error::CallError},
    commands::{
        cancel::CancelError, delete::DeleteError, history::HistoryError, pause::PauseError,
        prune::PruneError, redrive::RedriveError, removal::RemovalError, submit::SubmitError,
    },
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
    #[error(transparent)]
    Pause(#[from] PauseError),
    #[error(transparent)]
    Cancel(#[from] CancelError),
    #[error(transparent)]
    Delete(#[from] DeleteError),
    #[error(transparent)]
    Prune(#[from] PruneError),
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
            Self::History(HistoryError::NoUploadBucket(_))
            | Self::Submit(SubmitError::OtherBucket { .. })
            | Self::Delete(
                DeleteError::Key(_)
                | DeleteError::Unreadable { .. }
                | DeleteError::Removal(RemovalError::Denied { .. }),
            )
            | Self::Cancel(
                CancelError::Ambiguous { .. } | CancelError::Removal(RemovalError::Denied { .. }),
            )
            | Self::Prune(PruneError::Removal(RemovalError::Denied { .. })) => 78,
            Self::History(HistoryError::Call(call))
            | Self::Submit(SubmitError::Call(call))
            | Self::Redrive(RedriveError::Call(call))
            | Self::Pause(PauseError::Call(call))
            | Self::Cancel(CancelError::Call(call) | CancelError::Removal(RemovalError::Call(call)))
            | Self::Delete(DeleteError::Call(call) | DeleteError::Removal(RemovalError::Call(call)))
            | Self::Prune(PruneError::Removal(RemovalError::Call(call))) => match call {
                CallError::Configuration { .. } => 78,
                CallError::Passing { .. } => 75,
            },
            Self::History(HistoryError::NotFound { .. } | HistoryError::Unreadable(_))
            | Self::Submit(SubmitError::Nothing(_))
            | Self::Cancel(CancelError::Nothing(_))
            | Self::Delete(DeleteError::Nothing { .. }) => 66,
            Self::Unknown(_)
            | Self::Submit(SubmitError::Refused(_))
            | Self::Redrive(RedriveError::Refused(_))
            | Self::Cancel(
                CancelError::Unfinished(_)
                | CancelError::Load(_)
                | CancelError::Removal(RemovalError::Refused { .. } | RemovalError::Changed { .. }),
            )
            | Self::Delete(
                DeleteError::Running { .. }
                | DeleteError::Removal(RemovalError::Refused { .. } | RemovalError::Changed { .. }),
            )
            | Self::Prune(
                PruneError::Incomplete(_)
                | PruneError::Removal(RemovalError::Refused { .. } | RemovalError::Changed { .. }),
            ) => 75,
            Self::Redrive(RedriveError::Interrupted)
            | Self::Cancel(CancelError::Removal(RemovalError::Interrupted { .. }))
            | Self::Delete(DeleteError::Removal(RemovalError::Interrupted { .. }))
            | Self::Prune(PruneError::Removal(RemovalError::Interrupted { .. })) => FORCED,
            Self::System(_)
            | Self::History(HistoryError::Output(_))
            | Self::Submit(SubmitError::Output(_))
            | Self::Redrive(RedriveError::Output(_))
            | Self::Pause(PauseError::Output(_))
            | Self::Cancel(CancelError::Output(_))
            | Self::Delete(DeleteError::Output(_))
            | Self::Prune(PruneError::Output(_)) => 1,
        }
    }

    /// Whether the program that reads the output closed the pipe, as `head` does.
    pub(super) fn is_of_a_closed_pipe(&self) -> bool {
        let (Self::System(error)
        | Self::History(HistoryError::Output(error))
        | Self::Submit(SubmitError::Output(error))
        | Self::Redrive(RedriveError::Output(error))
        | Self::Pause(PauseError::Output(error))
        | Self::Cancel(CancelError::Output(error))
        | Self::Delete(DeleteError::Output(error))
        | Self::Prune(PruneError::Output(error))) = self
        else {
            return false;
        };
        error.kind() == io::ErrorKind::BrokenPipe
    }
}

/// The exit code that shells use for SIGINT: 128 + 2.
pub(super) const FORCED: u8 = 130;
