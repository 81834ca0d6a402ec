//! Arguments of the command `cancel`.

use clap::{Args, builder::NonEmptyStringValueParser};

use crate::config::BucketSettings;

/// The jobs to cancel.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// Key of an upload, whose running jobs are cancelled, or the id of one job
    #[arg(value_name = "KEY | JOB ID", value_parser = NonEmptyStringValueParser::new())]
    pub name: String,

    /// Leave what the task has published. Otherwise the incomplete stream is deleted, and the stable address
    /// shows the stream that it showed before
    #[arg(long)]
    pub keep_stream: bool,

    /// The consumers' profile. It is a part of the id of a job that no consumer has seen yet
    #[arg(long, env = "VIDSTREAMX_PROFILE", hide_env_values = true, default_value = "default", value_parser = NonEmptyStringValueParser::new())]
    pub profile: String,

    /// The buckets.
    #[command(flatten)]
    pub settings: BucketSettings,
}
