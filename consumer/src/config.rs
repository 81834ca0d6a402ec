//! Configuration: flags and environment variables, read once into validated types.

use std::{fs, net::SocketAddr, num::NonZeroU32};

use clap::{
    Args,
    builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser},
};
use vidstreamx_job::{BucketName, Capacity};

use crate::{
    aws::{
        names::{Malformed, QueueUrl, SecurityGroupId, SubnetId},
        run_task::Placement,
    },
    sizing::Sizing,
};

/// The settings of `run` and `check`. Region, endpoint and credentials come from the AWS SDK's own chain
/// (`AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_PROFILE`, roles…).
#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    /// URL of the queue that receives the upload bucket's events. Messages are deleted from it when the jobs
    /// of their videos have ended
    #[arg(long, env = "VIDSTREAMX_QUEUE_URL", hide_env_values = true)]
    pub queue_url: QueueUrl,

    /// URL of the queue to which `submit` sends its events. Its videos are made when uploads leave room, and
    /// at least a tenth of the places is theirs
    #[arg(long, env = "VIDSTREAMX_BACK_FILL_QUEUE_URL", hide_env_values = true)]
    pub back_fill_queue_url: QueueUrl,

    /// URL of the dead-letter queue of both queues, the target of their redrive policies. The consumer sends
    /// failed videos and unreadable messages to it
    #[arg(long, env = "VIDSTREAMX_DEAD_LETTER_QUEUE_URL", hide_env_values = true)]
    pub dead_letter_queue_url: QueueUrl,

    /// Name or ARN of the ECS cluster in which tasks are started
    #[arg(long, env = "VIDSTREAMX_CLUSTER", hide_env_values = true, value_parser = NonEmptyStringValueParser::new())]
    pub cluster: String,

    /// Family, family:revision or ARN of the transcoder's task definition. A family alone selects its
    /// newest revision at each launch
    #[arg(long, env = "VIDSTREAMX_TASK_DEFINITION", hide_env_values = true, value_parser = NonEmptyStringValueParser::new())]
    pub task_definition: String,

    /// Name of the transcoder's container in the task definition. The container gets the job, and its exit
    /// code is the result
    #[arg(long, env = "VIDSTREAMX_CONTAINER", hide_env_values = true, default_value = "transcoder", value_parser = NonEmptyStringValueParser::new())]
    pub container: String,

    /// Subnets for the tasks, separated by commas. They need a route to S3, to the image's registry and
    /// to CloudWatch Logs
    #[arg(long, env = "VIDSTREAMX_SUBNETS", hide_env_values = true, value_delimiter = ',', required = true)]
    pub subnets: Vec<SubnetId>,

    /// Security groups for the tasks, separated by commas
    #[arg(
        long,
        env = "VIDSTREAMX_SECURITY_GROUPS",
        hide_env_values = true,
        value_delimiter = ',',
        required = true
    )]
    pub security_groups: Vec<SecurityGroupId>,

    /// Whether tasks get a public address. Use true in public subnets, where tasks without an address fail to
    /// start, and false behind a NAT gateway or VPC endpoints
    #[arg(long, env = "VIDSTREAMX_ASSIGN_PUBLIC_IP", hide_env_values = true, value_name = "true|false", action = clap::ArgAction::Set)]
    pub assign_public_ip: bool,

    /// Bucket whose uploads are transcoded. There is only one, because streams are published under their
    /// uploads' keys. Events of other buckets start no task and go to the dead-letter queue
    #[arg(long, env = "VIDSTREAMX_UPLOAD_BUCKET", hide_env_values = true)]
    pub upload_bucket: BucketName,

    /// Bucket for streams and job records. It must differ from the upload bucket; otherwise streams would be
    /// transcoded as uploads
    #[arg(long, env = "VIDSTREAMX_OUTPUT_BUCKET", hide_env_values = true)]
    pub output_bucket: BucketName,

    /// Name of the transcoding profile. If it has changed when the same content is uploaded again, the video
    /// is transcoded again
    #[arg(long, env = "VIDSTREAMX_PROFILE", hide_env_values = true, default_value = "default", value_parser = NonEmptyStringValueParser::new())]
    pub profile: String,

    /// Maximum number of videos in flight, and so of tasks that run and cost money at the same time
    #[arg(long, env = "VIDSTREAMX_MAX_TASKS", hide_env_values = true, default_value = "10")]
    pub max_tasks: NonZeroU32,

    /// Maximum number of attempts before a video fails. Interruptions by AWS do not count
    #[arg(long, env = "VIDSTREAMX_MAX_ATTEMPTS", hide_env_values = true, default_value = "3")]
    pub max_attempts: NonZeroU32,

    /// Capacity of tasks. Spot costs up to 70 % less and may be interrupted; after two interruptions a video
    /// continues on-demand
    #[arg(long, env = "VIDSTREAMX_CAPACITY", hide_env_values = true, default_value = "on-demand", value_parser = capacity())]
    pub capacity: Capacity,

    /// File with the rules for a task's vCPUs and memory, and with the prices for cost estimates. The default
    /// is consumer/src/sizing/sizing.toml, which is built in
    #[arg(long, env = "VIDSTREAMX_SIZING", hide_env_values = true, value_name = "FILE", value_parser = sizing_file)]
    pub sizing: Option<Sizing>,

    /// Maximum number of launches per second. The calls that watch running tasks have a separate limit of the
    /// same value. AWS allows 20 launches per second for an account in a Region
    #[arg(long, env = "VIDSTREAMX_LAUNCHES_PER_SECOND", hide_env_values = true, default_value = "20")]
    pub launches_per_second: NonZeroU32,

    /// Address and port of the status endpoint (/metrics for Prometheus, and /healthz), for example
    /// 127.0.0.1:9464. It has no authentication. Without this setting there is no endpoint
    #[arg(long, env = "VIDSTREAMX_STATUS_ADDR", hide_env_values = true, value_name = "ADDRESS:PORT", value_parser = status_addr)]
    pub status_addr: Option<SocketAddr>,

    /// Whether `run` writes a line of metrics to standard output every minute, in CloudWatch's embedded
    /// metric format. Use it if the output goes to CloudWatch Logs
    #[arg(long, env = "VIDSTREAMX_EMF", hide_env_values = true, value_name = "true|false", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    pub emf: bool,
}

/// The settings of `history`.
#[derive(Debug, Clone, Args)]
pub(crate) struct HistorySettings {
    /// Bucket of streams and job records
    #[arg(long, env = "VIDSTREAMX_OUTPUT_BUCKET", hide_env_values = true)]
    pub output_bucket: BucketName,

    /// Bucket of the upload whose key is given. Not needed for s3://BUCKET/KEY, a job id or a list
    #[arg(long, env = "VIDSTREAMX_UPLOAD_BUCKET", hide_env_values = true)]
    pub upload_bucket: Option<BucketName>,
}

/// The settings of `submit`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SubmitSettings {
    /// URL of the queue of back-fills, which are made when uploads leave room
    #[arg(long, env = "VIDSTREAMX_BACK_FILL_QUEUE_URL", hide_env_values = true)]
    pub back_fill_queue_url: QueueUrl,

    /// Bucket whose uploads are transcoded. Only its objects can be submitted
    #[arg(long, env = "VIDSTREAMX_UPLOAD_BUCKET", hide_env_values = true)]
    pub upload_bucket: BucketName,
}

/// The settings of `redrive`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RedriveSettings {
    /// URL of the queue to which messages about uploads return
    #[arg(long, env = "VIDSTREAMX_QUEUE_URL", hide_env_values = true)]
    pub queue_url: QueueUrl,

    /// URL of the queue to which messages about back-fills return
    #[arg(long, env = "VIDSTREAMX_BACK_FILL_QUEUE_URL", hide_env_values = true)]
    pub back_fill_queue_url: QueueUrl,

    /// URL of the dead-letter queue
    #[arg(long, env = "VIDSTREAMX_DEAD_LETTER_QUEUE_URL", hide_env_values = true)]
    pub dead_letter_queue_url: QueueUrl,
}

impl RedriveSettings {
    /// Checks the settings as a whole.
    ///
    /// # Errors
    /// The settings contradict each other.
    pub(crate) fn validate(&self) -> Result<(), Contradiction> {
        different_queues(&self.queue_url, &self.back_fill_queue_url, &self.dead_letter_queue_url)
    }
}

/// The settings of `pause` and `resume`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PauseSettings {
    /// Bucket of streams and job records, in which the pause is written
    #[arg(long, env = "VIDSTREAMX_OUTPUT_BUCKET", hide_env_values = true)]
    pub output_bucket: BucketName,
}

/// The settings of `cancel`, `delete` and `prune`.
#[derive(Debug, Clone, Args)]
pub(crate) struct BucketSettings {
    /// Bucket of the uploads. Job ids depend on its name
    #[arg(long, env = "VIDSTREAMX_UPLOAD_BUCKET", hide_env_values = true)]
    pub upload_bucket: BucketName,

    /// Bucket of streams and job records
    #[arg(long, env = "VIDSTREAMX_OUTPUT_BUCKET", hide_env_values = true)]
    pub output_bucket: BucketName,
}

impl BucketSettings {
    /// Checks the settings as a whole.
    ///
    /// # Errors
    /// The settings contradict each other.
    pub(crate) fn validate(&self) -> Result<(), Contradiction> {
        two_buckets(&self.upload_bucket, &self.output_bucket)
    }
}

fn two_buckets(uploads: &BucketName, output: &BucketName) -> Result<(), Contradiction> {
    if uploads == output { Err(Contradiction::OutputIsUpload(output.clone())) } else { Ok(()) }
}

fn different_queues(
    uploads: &QueueUrl,
    back_fill: &QueueUrl,
    dead_letters: &QueueUrl,
) -> Result<(), Contradiction> {
    if dead_letters == uploads || dead_letters == back_fill {
        return Err(Contradiction::DeadLetterQueue(dead_letters.clone()));
    }
    if uploads == back_fill { Err(Contradiction::BackFillQueue(uploads.clone())) } else { Ok(()) }
}

fn sizing_file(path: &str) -> Result<Sizing, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("it cannot be read: {error}"))?;
    Sizing::parse(&text).map_err(|error| error.to_string())
}

fn capacity() -> impl TypedValueParser<Value = Capacity> {
    PossibleValuesParser::new(["on-demand", "spot"]).map(|text| match text.as_str() {
        "spot" => Capacity::Spot,
        _ => Capacity::OnDemand,
    })
}

fn status_addr(text: &str) -> Result<SocketAddr, Malformed> {
    text.parse().map_err(|_| Malformed("an address and a port like 127.0.0.1:9464"))
}

/// Settings that contradict each other.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Contradiction {
    /// Streams in the upload bucket would be transcoded again, endlessly.
    #[error(
        "--output-bucket (VIDSTREAMX_OUTPUT_BUCKET): \"{0}\" is also the upload bucket, so streams \
         would be transcoded as uploads: use two buckets"
    )]
    OutputIsUpload(BucketName),
    /// Dead letters would be received again, endlessly.
    #[error(
        "--dead-letter-queue-url (VIDSTREAMX_DEAD_LETTER_QUEUE_URL): {0} is also the queue of uploads or of \
         back-fills: use another queue"
    )]
    DeadLetterQueue(QueueUrl),
    /// Uploads would not come before back-fills.
    #[error(
        "--back-fill-queue-url (VIDSTREAMX_BACK_FILL_QUEUE_URL): {0} is also the queue of uploads: use two \
         queues"
    )]
    BackFillQueue(QueueUrl),
    /// More subnets or security groups than ECS allows.
    #[error("{setting}: {count} given, ECS takes at most {most}")]
    TooMany {
        /// The setting's flag and variable.
        setting: &'static str,
        /// Number of values.
        count: usize,
        /// ECS's limit.
        most: usize,
    },
}

impl Settings {
    /// ECS's limits (`AwsVpcConfiguration`).
    const MOST_SUBNETS: usize = 16;
    const MOST_SECURITY_GROUPS: usize = 5;

    /// The part of every RunTask request that does not depend on the job.
    #[must_use]
    pub(crate) fn placement(&self) -> Placement {
        Placement {
            cluster: self.cluster.clone(),
            task_definition: self.task_definition.clone(),
            container: self.container.clone(),
            subnets: self.subnets.iter().map(ToString::to_string).collect(),
            security_groups: self.security_groups.iter().map(ToString::to_string).collect(),
            assign_public_ip: self.assign_public_ip,
        }
    }

    /// Checks the settings as a whole.
    ///
    /// # Errors
    /// The settings contradict each other or exceed ECS's limits.
    pub(crate) fn validate(self) -> Result<Self, Contradiction> {
        two_buckets(&self.upload_bucket, &self.output_bucket)?;
        different_queues(&self.queue_url, &self.back_fill_queue_url, &self.dead_letter_queue_url)?;
        for (setting, count, most) in [
            ("--subnets (VIDSTREAMX_SUBNETS)", self.subnets.len(), Self::MOST_SUBNETS),
            (
                "--security-groups (VIDSTREAMX_SECURITY_GROUPS)",
                self.security_groups.len(),
                Self::MOST_SECURITY_GROUPS,
            ),
        ] {
            if count > most {
                return Err(Contradiction::TooMany { setting, count, most });
            }
        }
        Ok(self)
    }
}
