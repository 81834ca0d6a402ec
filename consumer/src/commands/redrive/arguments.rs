//! Arguments of the command `redrive`.

use clap::{Args, builder::NonEmptyStringValueParser};
use vidstreamx_job::JobId;

use super::letter::ReceivedDeadLetter;
use crate::config::RedriveSettings;

/// The messages to send back.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// Only messages about keys that contain this text
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub key: Option<String>,

    /// Only messages whose reason contains this text, ignoring case
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub reason: Option<String>,

    /// Only the message about this job
    #[arg(long, value_name = "JOB ID")]
    pub job: Option<JobId>,

    /// Only list the dead letters and their reasons
    #[arg(long)]
    pub dry_run: bool,

    /// The queues.
    #[command(flatten)]
    pub settings: RedriveSettings,
}

impl Arguments {
    pub(super) fn matches(&self, message: &ReceivedDeadLetter) -> bool {
        let contains = |text: &str, part: &str| text.to_lowercase().contains(&part.to_lowercase());
        let reason = message.reason.as_deref().unwrap_or_default();
        self.key.as_ref().is_none_or(|part| message.keys.iter().any(|key| key.contains(part)))
            && self.reason.as_ref().is_none_or(|part| contains(reason, part))
            && self.job.as_ref().is_none_or(|job| message.job.as_deref() == Some(job.as_str()))
    }
}
