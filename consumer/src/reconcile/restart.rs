//! A person's wish that a job which has ended is started anew, as a message carries it.
//!
//! Each wish is followed once, however often its message is delivered: the record notes it among its
//! restarts.

use std::{fmt, str::FromStr};

use vidstreamx_job::{Record, State};

/// Why a job is to be started anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestartRequest {
    /// The message comes from the dead-letter queue, where it was put when the job failed.
    AfterFailure {
        /// How many attempts the job had then.
        attempts: usize,
    },
    /// A person wants it, however the job ended.
    Forced {
        /// Tells this wish from all others.
        id: String,
    },
}

impl RestartRequest {
    /// Whether a job has to be started anew for this wish, and was not before.
    #[must_use]
    pub fn applies_to(&self, record: &Record) -> bool {
        let text = self.to_string();
        let followed = record.restarts.iter().any(|restart| restart.request == text);
        let meant = match self {
            // Tried anew since, and failed anew: that failure has its own message.
            Self::AfterFailure { attempts } => {
                record.state == State::Failed && record.attempts.len() == *attempts
            }
            Self::Forced { .. } => record.state.is_end(),
        };
        meant && !followed
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

/// The text is no wish of this program's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is neither failed-after-NUMBER nor force-NAME")]
pub struct InvalidRestartRequest(String);

impl FromStr for RestartRequest {
    type Err = InvalidRestartRequest;

    fn from_str(text: &str) -> Result<Self, InvalidRestartRequest> {
        let failed = text.strip_prefix("failed-after-").and_then(|attempts| attempts.parse().ok());
        let forced = text.strip_prefix("force-").filter(|id| (1..=64).contains(&id.len()));
        failed
            .map(|attempts| Self::AfterFailure { attempts })
            .or_else(|| forced.map(|id| Self::Forced { id: id.to_owned() }))
            .ok_or_else(|| InvalidRestartRequest(text.chars().take(80).collect()))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use vidstreamx_job::{Attempt, Job, Restart, Source};

    use super::*;

    fn record(state: State, attempts: u32) -> Record {
        let source = Source {
            bucket: "uploads".parse().unwrap(),
            key: "a.mp4".parse().unwrap(),
            version_id: None,
            etag: Some("e".into()),
            size: None,
        };
        let job = Job::new(source, "streams".parse().unwrap(), "default".into());
        let mut record = Record::new(&job, Timestamp::UNIX_EPOCH);
        record.state = state;
        record.attempts.extend((1..=attempts).map(|number| Attempt::new(number, Timestamp::UNIX_EPOCH)));
        record
    }

    #[test]
    fn a_wish_survives_its_message() {
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
    fn a_dead_letter_is_about_one_failure_and_a_forced_start_about_any_end() {
        let failed = RestartRequest::AfterFailure { attempts: 3 };
        assert!(failed.applies_to(&record(State::Failed, 3)));
        assert!(!failed.applies_to(&record(State::Failed, 6)));
        assert!(!failed.applies_to(&record(State::Done, 3)));
        let forced = RestartRequest::Forced { id: "1".into() };
        assert!(forced.applies_to(&record(State::Done, 1)));
        assert!(!forced.applies_to(&record(State::Running, 1)));
    }

    #[test]
    fn no_wish_is_followed_twice() {
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
