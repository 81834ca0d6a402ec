//! The program's arguments and their help.

use clap::{Parser, Subcommand};

use super::log::{LogFilter, LogFormat, log_filter};
use crate::{
    commands::{history, redrive, submit},
    config::Settings,
};

/// Starts one ECS task per uploaded video and follows it to its end.
#[derive(Debug, Parser)]
#[command(name = "vidstreamx-consumer", version, about, after_help = HELP_AFTER)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// Format of log lines: text, or one JSON object per line
    #[arg(
        long,
        global = true,
        env = "VIDSTREAMX_LOG_FORMAT",
        hide_env_values = true,
        default_value = "text"
    )]
    pub log_format: LogFormat,

    /// Log level, or levels per module, such as info,vidstreamx_consumer=debug
    #[arg(long, global = true, env = "VIDSTREAMX_LOG", hide_env_values = true, default_value = "info,aws_config=error", value_name = "FILTER", value_parser = log_filter)]
    pub log: LogFilter,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
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
    /// in its period, 32 at once. Costs are the consumer's estimates. All times are UTC.
    ///
    /// Permissions: s3:ListBucket on the output bucket, s3:GetObject on its .vidstreamx/*.
    History(Box<history::Arguments>),
    /// Put videos that are already in the upload bucket into the queue
    ///
    /// Submits the current version of an object, as if it had just been uploaded. Content that is already
    /// done is not transcoded again, unless --force is given. If the bucket has versioning, or if
    /// s3:GetBucketVersioning is denied, submit sends a HEAD request per object to read its version.
    ///
    /// Permissions: sqs:SendMessage on the queue; s3:GetObject and s3:ListBucket on the upload bucket (and
    /// s3:GetBucketVersioning, for prefixes).
    Submit(Box<submit::Arguments>),
    /// Send dead letters back to the queue, after the cause of the failures is corrected
    ///
    /// Restarts each failed video once, with the full number of attempts. Unreadable messages return to the
    /// dead-letter queue at once. With --dry-run, it only lists messages and reasons. While it runs, the
    /// messages are hidden from other readers, for at most 15 minutes. At the end, messages that were not
    /// sent back are visible again. A duplicate message, as after a crash, does no harm.
    ///
    /// Permissions: sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility on the dead-letter
    /// queue; sqs:SendMessage on the queue.
    Redrive(Box<redrive::Arguments>),
}

const HELP_AFTER: &str = "\
Settings are flags or environment variables. A file .env in the working directory is read too; environment
variables override it. Region, endpoint and credentials come from the AWS SDK's own settings (AWS_REGION,
AWS_ENDPOINT_URL, AWS_PROFILE, roles).

Exit codes: 0 done or shut down; 1 a bug; 66 history or submit found nothing of that name; 75 check could
not check everything, or history, submit or redrive could not do everything: try again; 78 wrong usage, a
setting that is missing or wrong, or a queue, cluster, task definition, bucket or permission that is missing;
130 ended by a second signal (redrive: by the first).";
