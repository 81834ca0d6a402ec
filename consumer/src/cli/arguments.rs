//! The program's arguments and their help.

use clap::{Parser, Subcommand};

use super::log::{LogFilter, LogFormat, log_filter};
use crate::{
    commands::{cancel, delete, history, pause, prune, redrive, submit},
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
    /// in its period, and lists the names of all others. Costs are the consumer's estimates. All times are
    /// UTC.
    ///
    /// Permissions: s3:ListBucket on the output bucket, s3:GetObject on its .vidstreamx/*.
    History(Box<history::Arguments>),
    /// Put videos that are already in the upload bucket into the queue of back-fills
    ///
    /// Submits the current version of an object, as if it had just been uploaded, but new uploads come first.
    /// Content that is already done is not transcoded again, unless --force is given. If the bucket has
    /// versioning, or if s3:GetBucketVersioning is denied, submit sends a HEAD request per object to read its
    /// version.
    ///
    /// Permissions: sqs:SendMessage on the back-fill queue; s3:GetObject and s3:ListBucket on the upload
    /// bucket (and s3:GetBucketVersioning, for prefixes).
    Submit(Box<submit::Arguments>),
    /// Send dead letters back to their queues, after the cause of the failures is corrected
    ///
    /// Restarts each failed video once, with the full number of attempts. Unreadable messages return to the
    /// dead-letter queue at once. With --dry-run, it only lists messages and reasons. While it runs, the
    /// messages are hidden from other readers, for at most 15 minutes. At the end, messages that were not
    /// sent back are visible again. A duplicate message, as after a crash, does no harm.
    ///
    /// Permissions: sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility on the dead-letter
    /// queue; sqs:SendMessage on both other queues.
    Redrive(Box<redrive::Arguments>),
    /// Stop the launches of all consumers of the stack, until "resume"
    ///
    /// Writes an object that every consumer reads every 15 seconds. While it exists, no message is received
    /// and no task is launched, also after a restart of the consumer. Running tasks go on. Uploads wait in
    /// the queue, for at most 14 days.
    ///
    /// Permissions: s3:PutObject on the output bucket's .vidstreamx/paused.json. The template's OperatorRole
    /// has it.
    Pause(Box<pause::PauseArguments>),
    /// Continue after "pause"
    ///
    /// Permissions: s3:GetObject and s3:DeleteObject on the output bucket's .vidstreamx/paused.json, and
    /// s3:ListBucket on the bucket. The template's OperatorRole has them.
    Resume(Box<pause::ResumeArguments>),
    /// Stop the task of a video, and let no other one start
    ///
    /// Ends the running jobs of a key, or one job, as cancelled, and waits for up to three minutes for that.
    /// An upload that no consumer has received yet is cancelled, too. The incomplete stream is deleted, and
    /// the stable address shows what it showed before. Uploading the same content again does not start it
    /// again; "submit --force" does. Stopping a task in ECS by hand has the same effect, but its stream
    /// stays.
    ///
    /// Permissions: ecs:StopTask on the cluster's tasks; s3:ListBucket on both buckets; s3:GetObject on the
    /// uploads; s3:GetObject and s3:PutObject on the output bucket's .vidstreamx/jobs/*. Without
    /// --keep-stream, also s3:ListBucketVersions on the output bucket, and s3:GetObject, s3:PutObject,
    /// s3:DeleteObject and s3:DeleteObjectVersion on its streams. The template's OperatorRole has them.
    Cancel(Box<cancel::Arguments>),
    /// Delete everything about one upload, for good: streams, report, records, and the upload with --source
    ///
    /// Deletes all versions in buckets with versioning. Nothing can bring them back, so look at --dry-run
    /// first. If a job of the upload is running, it refuses: run "vidstreamx-consumer cancel KEY" first. An
    /// interrupted run is completed by another one. Copies in caches and CDNs, log lines, and messages in the
    /// queues are not deleted.
    ///
    /// An event of the upload can arrive later, also a duplicate. If the source stays, the event starts the
    /// video again. After --source, it only makes a record that says obsolete, with the key in it: run delete
    /// again to remove that.
    ///
    /// Permissions: s3:ListBucketVersions and s3:ListBucket on the output bucket; s3:GetObject and
    /// s3:GetObjectVersion on its .vidstreamx/jobs/*; s3:DeleteObject and s3:DeleteObjectVersion on its
    /// objects. With --source, s3:ListBucketVersions on the upload bucket; s3:DeleteObject and
    /// s3:DeleteObjectVersion on its objects. The template's OperatorRole has them.
    Delete(Box<delete::Arguments>),
    /// Remove what nothing uses any more: leftovers of ended jobs, folders without a record, checkpoints
    ///
    /// Removes folders of jobs that have no record, or that ended as rejected, obsolete, failed or cancelled,
    /// if the stable address does not point to them; folders of earlier plans of a video; checkpoints and
    /// progress objects of jobs that have ended. It removes nothing that is younger than a day, and nothing
    /// of a video of which a job runs. Records and reports stay. A failed video that is restarted later is
    /// encoded from its beginning. With --superseded-for, it also removes streams and records of replaced
    /// uploads.
    ///
    /// Removes all versions in a bucket with versioning. May be interrupted and repeated.
    ///
    /// Permissions: s3:ListBucketVersions and s3:ListBucket on the output bucket; s3:GetObject on its
    /// .vidstreamx/jobs/*, */master.m3u8, */manifest.mpd, */replaced.m3u8 and */job.json; s3:DeleteObject and
    /// s3:DeleteObjectVersion on its objects. The template's OperatorRole has them.
    Prune(Box<prune::Arguments>),
}

const HELP_AFTER: &str = "\
Settings are flags or environment variables. A file .env in the working directory is read too; environment
variables override it. Region, endpoint and credentials come from the AWS SDK's own settings (AWS_REGION,
AWS_ENDPOINT_URL, AWS_PROFILE, roles).

Exit codes: 0 done or shut down; 1 a bug; 66 history, submit, cancel or delete found nothing of that name;
75 check could not check everything, another command could not do everything, or delete found a running job:
try again; 78 wrong usage, a setting that is missing or wrong, or a queue, cluster, task definition, bucket
or permission that is missing; 130 ended by a second signal (redrive, delete and prune: by the first).";
