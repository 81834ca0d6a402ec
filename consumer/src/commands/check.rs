//! Checks the settings and AWS resources that the consumer needs, before it starts a task.

use std::fmt;

use aws_config::SdkConfig;
use aws_sdk_ecs::{error::ProvideErrorMetadata as _, types::Compatibility};
use aws_sdk_s3::{error::SdkError, primitives::ByteStream};
use aws_sdk_sqs::types::QueueAttributeName;
use serde::Deserialize;
use vidstreamx_job::{BucketName, RECORDS_PREFIX};

use crate::{
    aws::error::{CallError, describe, status},
    aws::names::{QueueUrl, SecurityGroupId, SubnetId},
    aws::sqs::QueueKind,
    aws::task_definition::TaskDefaults,
    config::Settings,
};

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The checked resource.
    pub subject: String,
    pub state: FindingState,
}

/// The state of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FindingState {
    /// The consumer can use the resource. Holds details.
    Ok(String),
    /// The check could not be completed. `run` starts nevertheless. Holds the reason.
    Unknown(String),
    /// The operator must check the resource. `run` starts nevertheless.
    NotChecked {
        /// The reason.
        why: String,
        /// Instructions for the operator.
        remedy: String,
    },
    /// The consumer cannot use the resource.
    Wrong { fault: String, remedy: String },
}

impl Finding {
    fn ok(subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { subject: subject.into(), state: FindingState::Ok(detail.into()) }
    }

    fn unknown(subject: impl Into<String>, why: impl Into<String>) -> Self {
        Self { subject: subject.into(), state: FindingState::Unknown(why.into()) }
    }

    fn wrong(subject: impl Into<String>, fault: impl Into<String>, remedy: impl Into<String>) -> Self {
        let state = FindingState::Wrong { fault: fault.into(), remedy: remedy.into() };
        Self { subject: subject.into(), state }
    }

    /// The finding of a failed call: wrong if an operator must act, otherwise unknown.
    fn call(subject: impl Into<String>, error: &CallError, remedy: &str) -> Self {
        if error.is_about_credentials() {
            let remedy =
                "use credentials that are valid at this endpoint (AWS_PROFILE, AWS_ACCESS_KEY_ID, roles)";
            Self::wrong(subject, error.to_string(), remedy)
        } else if error.is_configuration() {
            Self::wrong(subject, error.to_string(), remedy)
        } else {
            Self::unknown(subject, error.to_string())
        }
    }

    #[must_use]
    pub(crate) const fn is_wrong(&self) -> bool {
        matches!(self.state, FindingState::Wrong { .. })
    }

    #[must_use]
    pub(crate) const fn is_unknown(&self) -> bool {
        matches!(self.state, FindingState::Unknown(_))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = &self.subject;
        match &self.state {
            FindingState::Ok(detail) => write!(f, "ok       {subject}: {detail}"),
            FindingState::Unknown(why) => write!(f, "unknown  {subject}: {why}"),
            FindingState::NotChecked { why, remedy } => {
                write!(f, "not checked  {subject}: {why}\n         -> {remedy}")
            }
            FindingState::Wrong { fault, remedy } => {
                write!(f, "wrong    {subject}: {fault}\n         -> {remedy}")
            }
        }
    }
}

/// Checks the essentials of `run`: queues, cluster, task definition and record store. Returns the task
/// definition's defaults if it can be read.
pub(crate) async fn essentials(
    config: &SdkConfig,
    settings: &Settings,
) -> (Vec<Finding>, Option<TaskDefaults>) {
    let sqs = aws_sdk_sqs::Client::new(config);
    let ecs = aws_sdk_ecs::Client::new(config);
    let s3 = vidstreamx_aws::s3(config);
    // A wrong dead-letter queue would otherwise be noticed only at the first failed video.
    let (uploads, back_fill, dead_letters, cluster, (definition_findings, definition), output) = tokio::join!(
        queue(&sqs, settings, QueueKind::Uploads),
        queue(&sqs, settings, QueueKind::BackFill),
        dead_letter_queue(&sqs, &settings.dead_letter_queue_url),
        cluster(&ecs, settings),
        task_definition(&ecs, settings),
        output_bucket(&s3, &settings.output_bucket),
    );
    let queues = vec![uploads.finding, back_fill.finding, dead_letters];
    ([queues, cluster, definition_findings, output].concat(), definition)
}

/// Checks everything.
pub(crate) async fn everything(config: &SdkConfig, settings: &Settings) -> Vec<Finding> {
    let sqs = aws_sdk_sqs::Client::new(config);
    let s3 = vidstreamx_aws::s3(config);
    let (mut findings, _) = essentials(config, settings).await;
    // Reads the queues again, for their redrive policies and the ARN.
    let QueueFindings { redrive, arn, .. } = queue(&sqs, settings, QueueKind::Uploads).await;
    findings.extend(redrive);
    findings.extend(queue(&sqs, settings, QueueKind::BackFill).await.redrive);
    findings.extend(upload_bucket(&s3, &settings.upload_bucket, arn.as_deref()).await);
    findings.push(network(&settings.subnets, &settings.security_groups));
    findings
}

/// Lists the subnets and security groups without a check: the consumer has no permission to describe them,
/// and needs none to run.
fn network(subnets: &[SubnetId], groups: &[SecurityGroupId]) -> Finding {
    let subnets: Vec<_> = subnets.iter().map(SubnetId::as_str).collect();
    let groups: Vec<_> = groups.iter().map(SecurityGroupId::as_str).collect();
    Finding {
        subject: format!("subnets {}; security groups {}", subnets.join(", "), groups.join(", ")),
        state: FindingState::NotChecked {
            why: "well-formed, but the consumer has no permission to describe them".to_owned(),
            remedy: "make sure that they exist in one VPC and have a route to S3, the image's registry and \
                     CloudWatch Logs; otherwise the first launch fails"
                .to_owned(),
        },
    }
}

struct QueueFindings {
    finding: Finding,
    redrive: Option<Finding>,
    arn: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RedrivePolicy {
    dead_letter_target_arn: String,
    // SQS returns a number or a string, depending on how the policy was set.
    max_receive_count: serde_json::Value,
}

/// Minimum of `maxReceiveCount`. Each restart of the consumer adds a receive to every message that it held.
const FEWEST_RECEIVES: u64 = 5;

async fn queue(sqs: &aws_sdk_sqs::Client, settings: &Settings, kind: QueueKind) -> QueueFindings {
    let (url, remedy) = match kind {
        QueueKind::Uploads => (
            &settings.queue_url,
            "set VIDSTREAMX_QUEUE_URL to the template's output QueueUrl, and allow sqs:GetQueueAttributes",
        ),
        QueueKind::BackFill => (
            &settings.back_fill_queue_url,
            "set VIDSTREAMX_BACK_FILL_QUEUE_URL to the template's output BackFillQueueUrl, and allow \
             sqs:GetQueueAttributes",
        ),
    };
    let subject = format!("queue {url}");
    let attributes = match attributes(sqs, url).await {
        Ok(attributes) => attributes,
        Err(error) => {
            let finding = Finding::call(subject, &error, remedy);
            return QueueFindings { finding, redrive: None, arn: None };
        }
    };
    let arn = attributes.get(&QueueAttributeName::QueueArn).cloned();
    let policy = attributes
        .get(&QueueAttributeName::RedrivePolicy)
        .map(|policy| serde_json::from_str::<RedrivePolicy>(policy));
    let redrive = format!("{subject}, redrive policy");
    let redrive = match policy {
        None => Finding::wrong(
            redrive,
            "there is none, so messages that cannot be processed are received again and again",
            "give the queue a RedrivePolicy with a dead-letter queue",
        ),
        Some(Err(error)) => Finding::unknown(redrive, format!("it cannot be read: {error}")),
        Some(Ok(policy)) => redrive_finding(redrive, &policy, &settings.dead_letter_queue_url),
    };
    let visibility = attributes.get(&QueueAttributeName::VisibilityTimeout).map_or("?", String::as_str);
    let detail = format!(
        "exists, visibility {visibility} s (the consumer sets another one when it receives messages)"
    );
    QueueFindings { finding: Finding::ok(subject, detail), redrive: Some(redrive), arn }
}

fn redrive_finding(subject: String, policy: &RedrivePolicy, expected: &QueueUrl) -> Finding {
    let RedrivePolicy { dead_letter_target_arn: target, max_receive_count } = policy;
    let receives = max_receive_count
        .as_u64()
        .or_else(|| max_receive_count.as_str().and_then(|count| count.parse().ok()))
        .unwrap_or_default();
    let name = |text: &str, separator| text.rsplit(separator).next().unwrap_or_default().to_owned();
    if name(expected.as_str(), '/') != name(target, ':') {
        return Finding::wrong(
            subject,
            format!("its target is {target}, not {expected}"),
            "set VIDSTREAMX_DEAD_LETTER_QUEUE_URL to the queue that the policy names, or change the policy",
        );
    }
    if receives < FEWEST_RECEIVES {
        return Finding::wrong(
            subject,
            format!(
                "SQS moves a message to the dead-letter queue after {receives} receives, and each restart of \
                 the consumer adds one"
            ),
            "raise maxReceiveCount to at least 5, better 100",
        );
    }
    Finding::ok(subject, format!("moves messages to {target} after {receives} receives"))
}

async fn attributes(
    sqs: &aws_sdk_sqs::Client,
    url: &QueueUrl,
) -> Result<std::collections::HashMap<QueueAttributeName, String>, CallError> {
    let answer = sqs
        .get_queue_attributes()
        .queue_url(url.as_str())
        .attribute_names(QueueAttributeName::All)
        .send()
        .await
        .map_err(|error| CallError::new("GetQueueAttributes", &error))?;
    Ok(answer.attributes.unwrap_or_default())
}

async fn dead_letter_queue(sqs: &aws_sdk_sqs::Client, url: &QueueUrl) -> Finding {
    let subject = format!("dead-letter queue {url}");
    let remedy = "set VIDSTREAMX_DEAD_LETTER_QUEUE_URL to the template's output DeadLetterQueueUrl, and allow \
                  sqs:GetQueueAttributes";
    match attributes(sqs, url).await {
        Ok(attributes) => {
            let count = attributes.get(&QueueAttributeName::ApproximateNumberOfMessages);
            Finding::ok(subject, format!("{} messages", count.map_or("0", String::as_str)))
        }
        Err(error) => Finding::call(subject, &error, remedy),
    }
}

async fn cluster(ecs: &aws_sdk_ecs::Client, settings: &Settings) -> Vec<Finding> {
    let subject = format!("cluster {}", settings.cluster);
    let answer = match ecs.describe_clusters().clusters(&settings.cluster).send().await {
        Ok(answer) => answer,
        Err(error) => {
            let error = CallError::new("DescribeClusters", &error);
            return vec![Finding::call(subject, &error, "allow ecs:DescribeClusters on the cluster")];
        }
    };
    let Some(cluster) = answer.clusters().first() else {
        let remedy =
            "set VIDSTREAMX_CLUSTER to the template's output ClusterName, and AWS_REGION to its Region";
        return vec![Finding::wrong(subject, "it does not exist", remedy)];
    };
    let status = cluster.status().unwrap_or("without a status");
    if status != "ACTIVE" {
        return vec![Finding::wrong(subject, format!("it is {status}"), "use a cluster that is ACTIVE")];
    }
    let mut findings = vec![Finding::ok(&subject, "ACTIVE")];
    // With Spot, the consumer also needs on-demand capacity: it moves interrupted videos there.
    let needed: &[&str] = match settings.capacity {
        vidstreamx_job::Capacity::OnDemand => &["FARGATE"],
        vidstreamx_job::Capacity::Spot => &["FARGATE_SPOT", "FARGATE"],
    };
    for provider in needed {
        let subject = format!("{subject}, capacity provider {provider}");
        findings.push(if cluster.capacity_providers().iter().any(|found| found == provider) {
            Finding::ok(subject, "associated")
        } else {
            let remedy = "associate it: aws ecs put-cluster-capacity-providers";
            Finding::wrong(subject, "not associated with the cluster", remedy)
        });
    }
    findings
}

async fn task_definition(
    ecs: &aws_sdk_ecs::Client,
    settings: &Settings,
) -> (Vec<Finding>, Option<TaskDefaults>) {
    let subject = format!("task definition {}", settings.task_definition);
    let remedy = "set VIDSTREAMX_TASK_DEFINITION to the template's output TaskDefinitionFamily, and allow \
                  ecs:DescribeTaskDefinition";
    let answer = ecs.describe_task_definition().task_definition(&settings.task_definition).send().await;
    let definition = match answer.map(|answer| answer.task_definition) {
        Ok(Some(definition)) => definition,
        Ok(None) => {
            return (vec![Finding::wrong(subject, "it does not exist", remedy)], None);
        }
        // ECS answers "ClientException: Unable to describe task definition." if no definition has this name.
        Err(error) if error.code() == Some("ClientException") => {
            return (vec![Finding::wrong(subject, describe(&error), remedy)], None);
        }
        Err(error) => {
            let error = CallError::new("DescribeTaskDefinition", &error);
            return (vec![Finding::call(subject, &error, remedy)], None);
        }
    };
    let mut findings = Vec::new();
    findings.push(if definition.requires_compatibilities().contains(&Compatibility::Fargate) {
        let size = |text: Option<&str>| text.unwrap_or("?").to_owned();
        let (cpu, memory) = (size(definition.cpu()), size(definition.memory()));
        Finding::ok(&subject, format!("for Fargate, {cpu} CPU units, {memory} MiB"))
    } else {
        Finding::wrong(&subject, "it is not for Fargate", "register it with requiresCompatibilities FARGATE")
    });
    let names: Vec<_> =
        definition.container_definitions().iter().filter_map(|container| container.name()).collect();
    let subject = format!("container {}", settings.container);
    findings.push(if names.contains(&settings.container.as_str()) {
        Finding::ok(subject, "in the task definition")
    } else {
        let fault = format!("the task definition has only: {}", names.join(", "));
        Finding::wrong(subject, fault, "set VIDSTREAMX_CONTAINER to the transcoder's container")
    });
    (findings, TaskDefaults::read(&definition))
}

/// Tests reading and writing records. Creates no object.
async fn output_bucket(s3: &aws_sdk_s3::Client, bucket: &BucketName) -> Vec<Finding> {
    let subject = format!("output bucket {bucket}");
    if let Some(fault) = head(s3, bucket).await {
        return vec![bucket_finding(subject, &fault, "VIDSTREAMX_OUTPUT_BUCKET")];
    }
    let key = format!("{RECORDS_PREFIX}check");
    let read = s3.get_object().bucket(bucket.as_str()).key(&key).send().await;
    let reading = match read.map_err(|error| outcome("GetObject", &error)) {
        Ok(_) | Err(Tried::Refused) => Finding::ok(&subject, "records can be read"),
        Err(Tried::Failed(error)) => Finding::call(
            &subject,
            &error,
            "allow s3:GetObject on its .vidstreamx/* and s3:ListBucket on it (without the latter, S3 \
             answers AccessDenied for a record that does not exist)",
        ),
    };
    // S3 checks the permission before the condition, and no object has this ETag.
    let write = s3
        .put_object()
        .bucket(bucket.as_str())
        .key(&key)
        .if_match("\"00000000000000000000000000000000\"")
        .body(ByteStream::from_static(b""))
        .send()
        .await;
    let writing = match write.map_err(|error| outcome("PutObject", &error)) {
        Ok(_) => {
            Finding::unknown(&subject, "it ignores If-Match, so consumers can overwrite each other's records")
        }
        Err(Tried::Refused) => Finding::ok(&subject, "records can be written"),
        Err(Tried::Failed(error)) => {
            Finding::call(&subject, &error, "allow s3:PutObject on its .vidstreamx/*")
        }
    };
    vec![reading, writing]
}

/// The error of a test call.
enum Tried {
    /// The call was allowed. It failed because of its condition or because the key does not exist.
    Refused,
    Failed(CallError),
}

fn outcome<E>(call: &'static str, error: &SdkError<E>) -> Tried
where
    E: aws_sdk_s3::error::ProvideErrorMetadata + std::error::Error + 'static,
{
    match status(error) {
        Some(404 | 412) => Tried::Refused,
        _ => Tried::Failed(CallError::new(call, error)),
    }
}

enum BucketFault {
    Missing,
    Forbidden,
    Other(String),
}

async fn head(s3: &aws_sdk_s3::Client, bucket: &BucketName) -> Option<BucketFault> {
    let error = s3.head_bucket().bucket(bucket.as_str()).send().await.err()?;
    // A response to HEAD has no body, and so no error code.
    Some(match status(&error) {
        Some(404) => BucketFault::Missing,
        Some(403) => BucketFault::Forbidden,
        _ => BucketFault::Other(describe(&error)),
    })
}

fn bucket_finding(subject: String, fault: &BucketFault, variable: &str) -> Finding {
    match fault {
        BucketFault::Missing => Finding::wrong(
            subject,
            "it does not exist",
            format!("set {variable} to its value in the template's output ConsumerEnv"),
        ),
        BucketFault::Forbidden => {
            Finding::wrong(subject, "access is denied", "allow s3:ListBucket on it, or use another bucket")
        }
        BucketFault::Other(why) => Finding::unknown(subject, why),
    }
}

async fn upload_bucket(s3: &aws_sdk_s3::Client, bucket: &BucketName, queue: Option<&str>) -> Vec<Finding> {
    let subject = format!("upload bucket {bucket}");
    if let Some(fault) = head(s3, bucket).await {
        return vec![bucket_finding(subject, &fault, "VIDSTREAMX_UPLOAD_BUCKET")];
    }
    let notifications = format!("{subject}, notifications");
    let notifications = match s3.get_bucket_notification_configuration().bucket(bucket.as_str()).send().await
    {
        Ok(found) => {
            let direct = found.queue_configurations().iter().any(|target| Some(target.queue_arn()) == queue);
            if direct {
                Finding::ok(notifications, "sent to the queue")
            } else if !found.topic_configurations().is_empty() || found.event_bridge_configuration().is_some()
            {
                let detail = "sent to SNS or EventBridge; not checked whether they forward to the queue";
                Finding::ok(notifications, detail)
            } else {
                Finding::wrong(
                    notifications,
                    "none is sent to the queue, so the consumer does not notice uploads",
                    "add a notification for s3:ObjectCreated:* to the bucket, as the template does",
                )
            }
        }
        Err(error) => Finding::unknown(notifications, describe(&error)),
    };
    vec![Finding::ok(subject, "exists"), notifications]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(target: &str, receives: serde_json::Value) -> RedrivePolicy {
        RedrivePolicy { dead_letter_target_arn: target.into(), max_receive_count: receives }
    }

    #[test]
    fn unchecked_resources_are_neither_ok_nor_wrong() {
        let subnets = ["subnet-0a", "subnet-0b"].map(|id| id.parse().unwrap());
        let finding = network(&subnets, &["sg-0a".parse().unwrap()]);
        let line = finding.to_string();
        assert!(
            line.starts_with("not checked  subnets subnet-0a, subnet-0b; security groups sg-0a: "),
            "{line}"
        );
        assert!(line.contains("-> ") && !line.contains("ok ") && !line.contains("wrong"), "{line}");
        assert!(!finding.is_wrong() && !finding.is_unknown());
    }

    #[test]
    fn the_redrive_policy_needs_the_dead_letter_queue_and_enough_receives() {
        let url = "https://sqs.eu-central-1.amazonaws.com/1/dead".parse().unwrap();
        let finding = |policy: &RedrivePolicy| redrive_finding("queue".into(), policy, &url);
        assert!(!finding(&policy("arn:aws:sqs:eu-central-1:1:dead", 10.into())).is_wrong());
        assert!(!finding(&policy("arn:aws:sqs:eu-central-1:1:dead", "10".into())).is_wrong());
        assert!(finding(&policy("arn:aws:sqs:eu-central-1:1:other", 10.into())).is_wrong());
        assert!(finding(&policy("arn:aws:sqs:eu-central-1:1:dead", 4.into())).is_wrong());
    }
}
