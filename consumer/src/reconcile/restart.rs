//! Requests to restart an ended job, in messages of the queue.
//!
//! Each request restarts the job once, even if its message is delivered several times, because the record
//! lists all restarts.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use vidstreamx_job::{Record, Restart, State};

/// The request of a restart because the object of an obsolete job is there.
pub(super) const OBJECT_IS_BACK: &str = "object-is-back";

/// Maximum bytes of a request's id.
const LONGEST_ID: usize = 64;

/// A request to restart a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RestartRequest {
    /// The message came back from the dead-letter queue. It was sent there when the job had this many
    /// attempts.
    AfterFailure { attempts: usize },
    /// An operator restarts a job that has ended in any state. The id makes the request unique.
    Forced { id: String },
}

impl RestartRequest {
    /// Whether the job must be restarted, because this request did not restart it before.
    #[must_use]
    pub(crate) fn applies_to(&self, record: &Record) -> bool {
        let is_meant = match self {
            // If the job failed again after a restart, it has a newer dead letter, and this one does not
            // apply.
            Self::AfterFailure { attempts } => {
                record.state == State::Failed && record.attempts.len() == *attempts
            }
            Self::Forced { .. } => record.state.is_end(),
        };
        is_meant && !self.is_fulfilled(record)
    }

    fn is_fulfilled(&self, record: &Record) -> bool {
        let text = self.to_string();
        record.restarts.iter().any(|restart| restart.request == text)
    }

    /// Lists a forced restart in the record of a job that runs, because the running attempt fulfils it.
    /// Returns true if the record was changed. The list keeps the job's current attempts.
    #[must_use]
    pub(super) fn note(&self, record: &mut Record, now: Timestamp) -> bool {
        let notes =
            matches!(self, Self::Forced { .. }) && !record.state.is_end() && !self.is_fulfilled(record);
        if notes {
            let after_attempt = record.restarts.last().map_or(0, |restart| restart.after_attempt);
            record.restarts.push(Restart { at: now, after_attempt, request: self.to_string() });
            record.updated_at = now;
        }
        notes
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
#[error("\"{0}\" is neither failed-after-NUMBER nor force-ID")]
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
    fn requests_round_trip_through_text() {
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
    fn a_dead_letter_restarts_its_own_failure_and_a_forced_restart_any_ended_job() {
        let failed = RestartRequest::AfterFailure { attempts: 3 };
        assert!(failed.applies_to(&record(State::Failed, 3)));
        assert!(!failed.applies_to(&record(State::Failed, 6)));
        assert!(!failed.applies_to(&record(State::Done, 3)));
        let forced = RestartRequest::Forced { id: "1".into() };
        assert!(forced.applies_to(&record(State::Done, 1)));
        assert!(!forced.applies_to(&record(State::Running, 1)));
    }

    #[test]
    fn a_request_restarts_a_job_once() {
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
