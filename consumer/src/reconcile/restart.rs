//! The request to restart a job that has ended, as a message carries it.
//!
//! Each request is fulfilled once, however often its message is delivered: the record keeps it among its
//! restarts.

use std::{fmt, str::FromStr};

use vidstreamx_job::{Record, State};

/// The longest id of a request, in bytes.
const LONGEST_ID: usize = 64;

/// The request to restart a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RestartRequest {
    /// The message was in the dead-letter queue, after the job failed with so many attempts.
    AfterFailure { attempts: usize },
    /// A person requests it for a job that has ended in any state. The id makes the request unique.
    Forced { id: String },
}

impl RestartRequest {
    /// Whether a job has to be restarted for this request, and was not before.
    #[must_use]
    pub(crate) fn applies_to(&self, record: &Record) -> bool {
        let text = self.to_string();
        let is_fulfilled = record.restarts.iter().any(|restart| restart.request == text);
        let is_meant = match self {
            // A job that failed again after a restart has its own dead letter.
            Self::AfterFailure { attempts } => {
                record.state == State::Failed && record.attempts.len() == *attempts
            }
            Self::Forced { .. } => record.state.is_end(),
        };
        is_meant && !is_fulfilled
    }
}

impl fmt::Display for RestartRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AfterFailure { attempts } => write!(f, "failed-after-{attempts}"),
            Self::Forced { id } => write!(f, "force-{id}"),
        }
    }
}

/// The text is not a restart request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is neither failed-after-NUMBER nor force-NAME")]
pub(crate) struct InvalidRestartRequest(String);

impl FromStr for RestartRequest {
    type Err = InvalidRestartRequest;

    fn from_str(text: &str) -> Result<Self, InvalidRestartRequest> {
        let failed = text.strip_prefix("failed-after-").and_then(|attempts| attempts.parse().ok());
        let forced = text.strip_prefix("force-").filter(|id| (1..=LONGEST_ID).contains(&id.len()));
        failed
            .map(|attempts| Self::AfterFailure { attempts })
            .or_else(|| forced.map(|id| Self::Forced { id: id.to_owned() }))
            .ok_or_else(|| InvalidRestartRequest(text.chars().take(80).collect()))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use vidstreamx_job::{Attempt, Restart};

    use super::*;
    use crate::fixtures;

    fn record(state: State, attempts: u32) -> Record {
        let mut record = fixtures::record();
        record.state = state;
        record.attempts.extend((1..=attempts).map(|number| Attempt::new(number, Timestamp::UNIX_EPOCH)));
        record
    }

    #[test]
    fn a_request_parses_from_its_own_text() {
        for restart in [
            RestartRequest::AfterFailure { attempts: 3 },
            RestartRequest::Forced { id: "2026-05-04/7".into() },
        ] {
            assert_eq!(restart.to_string().parse(), Ok(restart));
        }
        for bad in ["", "failed-after-", "failed-after-x", "force-", &format!("force-{}", "x".repeat(65))] {
            assert!(bad.parse::<RestartRequest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_dead_letter_restarts_one_failure_and_a_forced_restart_any_end() {
        let failed = RestartRequest::AfterFailure { attempts: 3 };
        assert!(failed.applies_to(&record(State::Failed, 3)));
        assert!(!failed.applies_to(&record(State::Failed, 6)));
        assert!(!failed.applies_to(&record(State::Done, 3)));
        let forced = RestartRequest::Forced { id: "1".into() };
        assert!(forced.applies_to(&record(State::Done, 1)));
        assert!(!forced.applies_to(&record(State::Running, 1)));
    }

    #[test]
    fn no_request_is_fulfilled_twice() {
        for restart in
            [RestartRequest::AfterFailure { attempts: 3 }, RestartRequest::Forced { id: "1".into() }]
        {
            let mut record = record(State::Failed, 3);
            record.restarts.push(Restart {
                at: Timestamp::UNIX_EPOCH,
                after_attempt: 3,
                request: restart.to_string(),
            });
            assert!(!restart.applies_to(&record), "{restart}");
        }
    }
}
