//! Builds the RunTask request of an attempt and interprets the response. Pure functions.

use aws_sdk_ecs::{
    operation::run_task::{RunTaskOutput, builders::RunTaskInputBuilder},
    types::{
        AssignPublicIp, AwsVpcConfiguration, CapacityProviderStrategyItem, ContainerOverride,
        EphemeralStorage, Failure, KeyValuePair, NetworkConfiguration, PropagateTags, Tag, TaskOverride,
    },
};
use jiff::Timestamp;
use serde_json::json;
use vidstreamx_job::{Attempt, Capacity, Job, JobId, Size, env};

use crate::aws::task_definition::FREE_STORAGE_GIB;

/// The launch of one attempt. It depends only on the job's record and the attempt's number, so two consumers
/// that launch the same attempt get the same task from ECS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// `startedBy`: the job's id. ListTasks finds the task by it.
    pub started_by: String,
    /// `clientToken`: see [`Launch::token`]. A repeated request starts no second task for 24 hours, or until
    /// an hour after the task's end if that is earlier.
    pub token: String,
    /// Environment variables of the container: the job.
    pub environment: Vec<(&'static str, String)>,
    /// Tags for operators.
    pub tags: Vec<(&'static str, String)>,
    /// On-demand or Spot.
    pub capacity: Capacity,
    /// The task's size; `None` for the task definition's size.
    pub size: Option<Size>,
}

impl Launch {
    /// The launch of an attempt. `since` is the creation of the job's record.
    #[must_use]
    pub fn new(job: &Job, since: Timestamp, attempt: &Attempt) -> Self {
        let number = attempt.number;
        let token = Self::token(&job.id, since, attempt);
        let mut environment = job.to_env();
        environment.push((env::LAUNCH, token.clone()));
        Self {
            started_by: job.id.to_string(),
            token,
            environment,
            tags: vec![
                ("vidstreamx:job-id", job.id.to_string()),
                ("vidstreamx:source-bucket", tag_value(job.source.bucket.as_str())),
                ("vidstreamx:source-key", tag_value(job.source.key.as_str())),
                ("vidstreamx:attempt", number.to_string()),
            ],
            capacity: attempt.capacity.unwrap_or(Capacity::OnDemand),
            size: attempt.size,
        }
    }

    /// The client token of an attempt: `<job id>-<record's creation in Unix seconds>-<attempt>`, and
    /// `.<refusals>` after refused calls. The creation time changes when an operator deletes the record.
    #[must_use]
    pub fn token(job: &JobId, since: Timestamp, attempt: &Attempt) -> String {
        let token = format!("{job}-{}-{}", since.as_second(), attempt.number);
        if attempt.refusals == 0 { token } else { format!("{token}.{}", attempt.refusals) }
    }

    /// Whether the overrides are short enough for ECS. All keys and version ids of S3 fit; an event from
    /// another sender can have longer ones.
    #[must_use]
    pub fn fits(&self, container: &str) -> bool {
        let environment: Vec<_> =
            self.environment.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let overrides =
            json!({"containerOverrides": [{"name": container, "environment": environment}]}).to_string();
        overrides.len() <= LONGEST_OVERRIDES
    }
}

/// ECS's limit on `overrides`, in characters of JSON.
const LONGEST_OVERRIDES: usize = 8192;

/// AWS's limit on a tag's value, in characters.
const LONGEST_TAG: usize = 256;

/// Converts a text to a tag value: characters that AWS does not allow become `_`.
///
/// AWS allows letters, spaces and digits of all scripts and `+-=._:/@`, and refuses a launch with other
/// characters. Its definition of a letter differs from Rust's, so only Unicode ranges that consist of letters
/// are kept. Values that begin with `aws:`, in upper or lower case, are reserved.
fn tag_value(text: &str) -> String {
    let allowed = |c: char| {
        c.is_ascii_alphanumeric()
            || " +-=._:/@".contains(c)
            || matches!(c,
                'À'..='Ö' | 'Ø'..='ö' | 'ø'..='ɏ' // Latin
                | 'А'..='я' | 'Ё' | 'ё' // Cyrillic
                | 'ぁ'..='ゖ' | 'ァ'..='ヺ' | '一'..='鿿' | '가'..='힣') // Japanese, Chinese, Korean
    };
    let reserved = text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:"));
    let sanitised = |(n, c)| if allowed(c) && !(reserved && n == 3) { c } else { '_' };
    text.chars().enumerate().map(sanitised).take(LONGEST_TAG).collect()
}

/// The part of RunTask requests that is the same for all jobs.
#[derive(Debug, Clone)]
pub struct Placement {
    /// Name or ARN.
    pub cluster: String,
    /// Family, family:revision or ARN.
    pub task_definition: String,
    /// Name of the container that gets the job.
    pub container: String,
    /// Subnet ids.
    pub subnets: Vec<String>,
    /// Security group ids.
    pub security_groups: Vec<String>,
    /// Whether tasks get a public address.
    pub assign_public_ip: bool,
}

impl Placement {
    /// The RunTask request of a launch.
    #[must_use]
    pub fn request(&self, launch: &Launch) -> RunTaskInputBuilder {
        let environment = launch
            .environment
            .iter()
            .map(|(name, value)| KeyValuePair::builder().name(*name).value(value).build())
            .collect();
        let container =
            ContainerOverride::builder().name(&self.container).set_environment(Some(environment)).build();
        let network = AwsVpcConfiguration::builder()
            .set_subnets(Some(self.subnets.clone()))
            .set_security_groups(Some(self.security_groups.clone()))
            .assign_public_ip(if self.assign_public_ip {
                AssignPublicIp::Enabled
            } else {
                AssignPublicIp::Disabled
            })
            .build()
            .ok();
        let provider = match launch.capacity {
            Capacity::OnDemand => "FARGATE",
            Capacity::Spot => "FARGATE_SPOT",
        };
        let strategy =
            CapacityProviderStrategyItem::builder().capacity_provider(provider).weight(1).build().ok();
        let mut overrides = TaskOverride::builder().container_overrides(container);
        if let Some(Size { cpu, memory_mib, storage_gib }) = launch.size {
            overrides = overrides.cpu(cpu.to_string()).memory(memory_mib.to_string());
            // ECS accepts only sizes above the free 20 GiB.
            if storage_gib > FREE_STORAGE_GIB {
                let gib = i32::try_from(storage_gib).unwrap_or(i32::MAX);
                let storage = EphemeralStorage::builder().size_in_gib(gib).build();
                overrides = overrides.ephemeral_storage(storage);
            }
        }
        let tags = launch.tags.iter().map(|(key, value)| Tag::builder().key(*key).value(value).build());
        RunTaskInputBuilder::default()
            .cluster(&self.cluster)
            .task_definition(&self.task_definition)
            .count(1)
            .started_by(&launch.started_by)
            .client_token(&launch.token)
            .overrides(overrides.build())
            .network_configuration(NetworkConfiguration::builder().set_awsvpc_configuration(network).build())
            .set_capacity_provider_strategy(strategy.map(|item| vec![item]))
            .enable_ecs_managed_tags(true)
            .propagate_tags(PropagateTags::TaskDefinition)
            .set_tags(Some(tags.collect()))
    }
}

/// A launch that returned no task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// No capacity, or a quota. No task was started. A smaller task might be.
    #[error("ECS cannot start a task now: {0}")]
    NotNow(String),
    /// Too many calls. No task was started, and other launches would fail, too.
    #[error("ECS throttles launches: {0}")]
    Throttled(String),
    /// A wrong setting or a missing permission. No launch succeeds until an operator corrects it.
    #[error("ECS refuses to start tasks: {0}")]
    Misconfigured(String),
    /// ECS refuses the values of this job. Other jobs are not affected.
    #[error("ECS refuses this video's request: {0}")]
    Invalid(String),
    /// The token was used before, with a different request that started these tasks.
    #[error("the attempt was started earlier with other settings")]
    Conflict(Vec<String>),
    /// No clear response. A task may have been started.
    #[error("no clear response from ECS: {0}")]
    Unknown(String),
}

/// The ARN of the started task in a successful response.
///
/// # Errors
/// The response lists a failure instead of a task.
pub fn started_task(answer: RunTaskOutput) -> Result<String, LaunchError> {
    if let Some(arn) = answer.tasks.unwrap_or_default().into_iter().find_map(|task| task.task_arn) {
        return Ok(arn);
    }
    let failures = answer.failures.unwrap_or_default();
    if failures.is_empty() {
        return Err(LaunchError::Unknown("the response has neither tasks nor failures".to_owned()));
    }
    let reasons: Vec<_> = failures.iter().map(failure_reason).collect();
    Err(LaunchError::NotNow(reasons.join("; ")))
}

fn failure_reason(failure: &Failure) -> String {
    let parts = [failure.reason(), failure.detail(), failure.arn()];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Classifies an error response by its code and message.
#[must_use]
pub fn error_meaning(code: Option<&str>, described: String) -> LaunchError {
    match code {
        // Exceeded quotas on tasks and vCPUs have the same codes as invalid requests.
        Some(_)
            if ["limit on the number", "Capacity is unavailable"]
                .iter()
                .any(|quota| described.contains(quota)) =>
        {
            LaunchError::NotNow(described)
        }
        Some("ThrottlingException" | "Throttling" | "TooManyRequestsException" | "RequestLimitExceeded") => {
            LaunchError::Throttled(described)
        }
        Some(_) if described.contains("Rate exceeded") => LaunchError::Throttled(described),
        Some("LimitExceededException") => LaunchError::NotNow(described),
        Some("ClientException" | "InvalidParameterException") if is_about_the_job(&described) => {
            LaunchError::Invalid(described)
        }
        Some(
            "AccessDeniedException"
            | "BlockedException"
            | "ClientException"
            | "ClusterNotFoundException"
            | "InvalidParameterException"
            | "InvalidSignatureException"
            | "PlatformTaskDefinitionIncompatibilityException"
            | "PlatformUnknownException"
            | "UnrecognizedClientException"
            | "UnsupportedFeatureException",
        ) => LaunchError::Misconfigured(described),
        // ECS's own errors. Other codes are refusals of the request.
        Some(
            "InternalFailure"
            | "InternalServerError"
            | "RequestTimeout"
            | "ServerException"
            | "ServiceUnavailable"
            | "ServiceUnavailableException",
        )
        | None => LaunchError::Unknown(described),
        Some(_) => LaunchError::Misconfigured(described),
    }
}

/// Whether a refusal is about a part of the request that differs between jobs. Wrong subnets and task
/// definitions have the same error codes but must not fail a video, so the message decides. In doubt, the
/// refusal is not about the job.
fn is_about_the_job(described: &str) -> bool {
    let text = described.to_ascii_lowercase();
    // `-` and `_` do not separate words, so a name such as `my-tags` does not count as `tags`.
    let words: Vec<_> = text.split(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c)).collect();
    let names = |parts: &[&str]| words.iter().any(|word| parts.contains(word));
    names(&["tag", "tags", "override", "overrides", "environment", "startedby", "clienttoken"])
        // Not "The new ARN format must be enabled to add tags" or "Override for container named x is not …".
        && !names(&["arn", "named", "policy"])
}

#[cfg(test)]
mod tests {
    use vidstreamx_job::Source;

    use super::*;
    use crate::fixtures::{job_of, source};

    /// Unix seconds have ten digits until 2286, so token lengths stay the same.
    const SINCE: Timestamp = Timestamp::constant(1_777_885_200, 0);

    fn job(key: &str, version_id: Option<String>) -> Job {
        let etag = Some("b21b84d653bb07b05b1e6b33684dc11b".into());
        job_of(Source { version_id, etag, size: Some(7_651_447), ..source(key) })
    }

    fn attempt(number: u32) -> Attempt {
        let mut attempt = Attempt::new(number, SINCE);
        attempt.capacity = Some(Capacity::Spot);
        attempt.size = Some(Size { cpu: 4096, memory_mib: 16_384, storage_gib: 21 });
        attempt
    }

    fn placement() -> Placement {
        Placement {
            cluster: "videos".into(),
            task_definition: "videos-transcoder".into(),
            container: "transcoder".into(),
            subnets: vec!["subnet-1".into(), "subnet-2".into()],
            security_groups: vec!["sg-1".into()],
            assign_public_ip: true,
        }
    }

    #[test]
    fn the_request_of_a_launch() {
        let launch = Launch::new(&job("my films/a&b#c.mp4", None), SINCE, &attempt(2));
        let request = placement().request(&launch).build().unwrap();
        // The SDK redacts the environment when it prints the request.
        let container = &request.overrides().unwrap().container_overrides()[0];
        let environment: Vec<_> = container
            .environment()
            .iter()
            .map(|pair| (pair.name().unwrap(), pair.value().unwrap()))
            .collect();
        insta::assert_debug_snapshot!((&request, environment));
    }

    #[test]
    fn tags_have_only_characters_that_aws_allows() {
        assert_eq!(tag_value("a b+c-d=e.f_g:h/i@j"), "a b+c-d=e.f_g:h/i@j");
        assert_eq!(tag_value("a&b#c\n\u{1}(d)ⓐ×é映画.mp4"), "a_b_c___d___é映画.mp4");
        assert_eq!(tag_value("aws:a.mp4"), "aws_a.mp4");
        assert_eq!(tag_value("AwS:a/aws:b.mp4"), "AwS_a/aws:b.mp4");
        assert_eq!(
            (tag_value("aws"), tag_value("äws:"), tag_value("aw")),
            ("aws".into(), "äws:".into(), "aw".into())
        );
        assert_eq!(tag_value(&"é".repeat(300)).chars().count(), 256);
    }

    #[test]
    fn all_keys_and_version_ids_of_s3_fit() {
        let key = "\u{1}".repeat(1024);
        let fits = |version: usize| {
            let job = job(&key, Some("v".repeat(version)));
            Launch::new(&job, SINCE, &attempt(1)).fits("transcoder")
        };
        assert!(fits(1024) && !fits(2048));
    }

    #[test]
    fn token_and_started_by_are_within_the_limits_of_ecs() {
        let attempt = Attempt { refusals: u32::MAX, ..attempt(99_999) };
        let launch = Launch::new(&job("a.mp4", None), SINCE, &attempt);
        assert!(launch.token.len() <= 64 && launch.started_by.len() <= 128);
    }

    #[test]
    fn the_message_distinguishes_a_quota_from_an_invalid_request() {
        let meaning = |code, text: &str| error_meaning(Some(code), text.to_owned());
        let quota = "You've reached the limit on the number of vCPUs you can run concurrently";
        for code in ["ClientException", "ThrottlingException", "InvalidParameterException"] {
            assert!(matches!(meaning(code, quota), LaunchError::NotNow(_)));
        }
        assert!(matches!(
            meaning("ClientException", "TaskDefinition not found."),
            LaunchError::Misconfigured(_)
        ));
        for text in [
            "Override for container named x is not a container in the TaskDefinition.",
            "The new ARN and resource ID format must be enabled to add tags to the task.",
            "The subnet ID 'subnet-tags' does not exist.",
            "No Fargate configuration exists for given values.",
        ] {
            assert!(matches!(meaning("InvalidParameterException", text), LaunchError::Misconfigured(_)));
        }
        for text in [
            "Some tags contain invalid characters. Valid characters: UTF-8 letters, spaces, numbers.",
            "Container Overrides length must be at most 8192",
        ] {
            assert!(matches!(meaning("InvalidParameterException", text), LaunchError::Invalid(_)));
            assert!(matches!(meaning("AccessDeniedException", text), LaunchError::Misconfigured(_)));
        }
        assert!(matches!(meaning("ServerException", "oops"), LaunchError::Unknown(_)));
        assert!(matches!(error_meaning(None, "timeout".into()), LaunchError::Unknown(_)));
    }
}
