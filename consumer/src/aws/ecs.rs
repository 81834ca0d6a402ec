//! Calls to ECS.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aws_sdk_ecs::{
    Client,
    config::retry::RetryConfig,
    error::SdkError,
    operation::{run_task::RunTaskError, stop_task::StopTaskError},
    types::{DesiredStatus, Task},
};
use tracing::debug;
use vidstreamx_job::{JobId, env};

use crate::{
    aws::error::{CallError, CallFuture, describe},
    aws::run_task::{self, Launch, LaunchError, Placement},
};

/// Maximum number of tasks in a DescribeTasks call.
pub const BATCH: usize = 100;

/// The end of a task, as ECS reports it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stopped {
    /// Billed time, from the start of the image pull to the stop; absent if no pull started.
    pub billed: Option<Duration>,
    /// Exit code of the transcoder's container, if it ran.
    pub exit_code: Option<i32>,
    /// ECS's stop code.
    pub stop_code: Option<String>,
    /// ECS's reasons for task and container.
    pub reason: Option<String>,
}

/// The state of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskStatus {
    /// It does not run yet.
    Starting,
    /// It runs, or is about to stop.
    Running,
    /// It has ended.
    Stopped(Stopped),
    /// ECS does not list it: it was just started, or it ended more than an hour ago.
    Missing,
}

/// The cluster that runs the transcoder.
pub trait Tasks: Send + Sync {
    /// Starts a task, or returns the one that the same token started.
    ///
    /// # Errors
    /// See [`LaunchError`].
    fn run<'a>(&'a self, launch: &'a Launch) -> CallFuture<'a, String, LaunchError>;

    /// The states of up to [`BATCH`] tasks, in the order of the ARNs.
    ///
    /// # Errors
    /// The call failed.
    fn describe<'a>(&'a self, arns: &'a [Arc<str>]) -> CallFuture<'a, Vec<TaskStatus>>;

    /// The ARN of the job's task with this token; `None` if ECS lists no such task.
    ///
    /// # Errors
    /// The call failed.
    fn find<'a>(&'a self, job: &'a JobId, token: &'a str) -> CallFuture<'a, Option<String>>;
}

/// Stops tasks for operators. Consumers never stop tasks.
pub trait StopTasks: Send + Sync {
    /// Stops a task, unless it has ended. `reason` is shown in ECS. Returns false if ECS does not know the
    /// task.
    ///
    /// # Errors
    /// The call failed.
    fn stop<'a>(&'a self, arn: &'a str, reason: &'a str) -> CallFuture<'a, bool>;
}

/// A cluster of ECS.
#[derive(Debug, Clone)]
pub struct Ecs {
    client: Client,
    launcher: Client,
    placement: Placement,
}

impl Ecs {
    /// A cluster. `launcher` calls RunTask. `client` calls DescribeTasks and ListTasks on separate
    /// connections, because large responses enlarge a connection's buffers.
    #[must_use]
    pub fn new(launcher: &Client, client: Client, placement: Placement) -> Self {
        // The SDK must not retry launches: its retries would bypass the launch throttle.
        let once = launcher.config().to_builder().retry_config(RetryConfig::disabled()).build();
        Self { client, launcher: Client::from_conf(once), placement }
    }

    async fn tasks(&self, cluster: &str, arns: impl Iterator<Item = &str>) -> Result<Vec<Task>, CallError> {
        let answer = self
            .client
            .describe_tasks()
            .cluster(cluster)
            .set_tasks(Some(arns.map(str::to_owned).collect()))
            .send()
            .await
            .map_err(|error| CallError::new("DescribeTasks", &error))?;
        Ok(answer.tasks.unwrap_or_default())
    }
}

impl Tasks for Ecs {
    fn run<'a>(&'a self, launch: &'a Launch) -> CallFuture<'a, String, LaunchError> {
        Box::pin(async move {
            match self.placement.request(launch).send_with(&self.launcher).await {
                Ok(answer) => run_task::started_task(answer),
                Err(error) => match error.as_service_error() {
                    Some(RunTaskError::ConflictException(conflict)) => {
                        Err(LaunchError::Conflict(conflict.resource_ids().to_vec()))
                    }
                    service => {
                        let code = service.and_then(|error| error.meta().code());
                        Err(run_task::error_meaning(code, describe(&error)))
                    }
                },
            }
        })
    }

    fn describe<'a>(&'a self, arns: &'a [Arc<str>]) -> CallFuture<'a, Vec<TaskStatus>> {
        Box::pin(async move {
            // A call describes the tasks of one cluster. Tasks that were launched before a change of the
            // setting run in another cluster.
            let own = name(&self.placement.cluster);
            let mut by_cluster: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for arn in arns {
                by_cluster.entry(cluster_of(arn).unwrap_or(own)).or_default().push(arn);
            }
            let mut tasks = Vec::with_capacity(arns.len());
            for (cluster, arns) in by_cluster {
                let is_own = cluster == own;
                let cluster = if is_own { &self.placement.cluster } else { cluster };
                match self.tasks(cluster, arns.into_iter()).await {
                    Ok(found) => tasks.extend(found),
                    Err(error) if is_own => return Err(error),
                    Err(error) => debug!(%error, cluster, "tasks of another cluster count as missing"),
                }
            }
            // ECS lists missing tasks as failures, with the reason MISSING.
            let status = |arn: &Arc<str>| {
                let task = tasks.iter().find(|task| task.task_arn() == Some(&**arn));
                task.map_or(TaskStatus::Missing, |task| status(task, &self.placement.container))
            };
            Ok(arns.iter().map(status).collect())
        })
    }

    fn find<'a>(&'a self, job: &'a JobId, token: &'a str) -> CallFuture<'a, Option<String>> {
        Box::pin(async move {
            let mut arns = Vec::new();
            for desired in [DesiredStatus::Running, DesiredStatus::Stopped] {
                let mut pages = self
                    .client
                    .list_tasks()
                    .cluster(&self.placement.cluster)
                    .started_by(job.as_str())
                    .desired_status(desired)
                    .into_paginator()
                    .items()
                    .send();
                while let Some(arn) = pages.next().await {
                    arns.push(arn.map_err(|error| CallError::new("ListTasks", &error))?);
                }
            }
            for page in arns.chunks(BATCH) {
                let tasks = self.tasks(&self.placement.cluster, page.iter().map(String::as_str)).await?;
                if let Some(task) = tasks.into_iter().find(|task| has_token(task, token)) {
                    return Ok(task.task_arn);
                }
            }
            Ok(None)
        })
    }
}

/// Calls StopTask.
#[derive(Debug, Clone)]
pub struct TaskStopper(pub Client);

impl StopTasks for TaskStopper {
    fn stop<'a>(&'a self, arn: &'a str, reason: &'a str) -> CallFuture<'a, bool> {
        Box::pin(async move {
            let call = self.0.stop_task().set_cluster(cluster_of(arn).map(str::to_owned));
            match call.task(arn).reason(reason).send().await {
                Ok(_) => Ok(true),
                Err(error) if is_unknown_task(&error) => Ok(false),
                Err(error) => Err(CallError::new("StopTask", &error)),
            }
        })
    }
}

fn is_unknown_task(error: &SdkError<StopTaskError>) -> bool {
    matches!(
        error.as_service_error(),
        Some(StopTaskError::InvalidParameterException(error))
            if error.message().is_some_and(|text| text.contains("not found"))
    )
}

/// Whether a task was started with this token. ECS can list other tasks of the job: those of other attempts,
/// and those of a deleted record, whose attempts have the same numbers.
fn has_token(task: &Task, token: &str) -> bool {
    let containers = task.overrides().map(|overrides| overrides.container_overrides()).unwrap_or_default();
    let mut variables = containers.iter().flat_map(|container| container.environment());
    variables.any(|pair| pair.name() == Some(env::LAUNCH) && pair.value() == Some(token))
}

/// The billed time of a stopped task. A task that never pulled its image is not billed.
fn billed(task: &Task) -> Option<Duration> {
    let from = task.pull_started_at().or_else(|| task.started_at())?;
    let seconds = task.stopped_at()?.as_secs_f64() - from.as_secs_f64();
    Duration::try_from_secs_f64(seconds).ok()
}

/// The name of a cluster that is given by name or ARN.
fn name(cluster: &str) -> &str {
    cluster.rsplit_once('/').map_or(cluster, |(_, name)| name)
}

/// The cluster of a task. ARNs end with `task/<cluster>/<id>`; the old form lacks the cluster.
fn cluster_of(arn: &str) -> Option<&str> {
    let cluster = arn.rsplit('/').nth(1)?;
    (!cluster.ends_with(":task")).then_some(cluster)
}

fn status(task: &Task, container: &str) -> TaskStatus {
    if task.last_status() != Some("STOPPED") {
        let has_started = task.started_at().is_some() || task.last_status() == Some("RUNNING");
        return if has_started { TaskStatus::Running } else { TaskStatus::Starting };
    }
    let container = task.containers().iter().find(|found| found.name() == Some(container));
    let reasons = [task.stopped_reason(), container.and_then(|container| container.reason())];
    let reason = reasons.into_iter().flatten().collect::<Vec<_>>().join(": ");
    TaskStatus::Stopped(Stopped {
        billed: billed(task),
        exit_code: container.and_then(|container| container.exit_code()),
        stop_code: task.stop_code().map(|code| code.as_str().to_owned()),
        reason: Some(reason).filter(|reason| !reason.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::{
        operation::{
            describe_tasks::DescribeTasksOutput, list_tasks::ListTasksOutput, run_task::RunTaskOutput,
        },
        primitives::DateTime,
        types::{
            Container, ContainerOverride, Failure, KeyValuePair, TaskOverride, TaskStopCode,
            error::{AccessDeniedException, ConflictException},
        },
    };
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
    use jiff::Timestamp;
    use vidstreamx_job::Attempt;

    use super::*;
    use crate::fixtures::job;

    fn ecs(rules: &[&Rule]) -> Ecs {
        let placement = Placement {
            cluster: "videos".into(),
            task_definition: "videos-transcoder".into(),
            container: "transcoder".into(),
            subnets: vec!["subnet-1".into()],
            security_groups: vec!["sg-1".into()],
            assign_public_ip: false,
        };
        let client = mock_client!(aws_sdk_ecs, RuleMode::MatchAny, rules);
        Ecs::new(&client, client.clone(), placement)
    }

    fn launch() -> Launch {
        Launch::new(&job("a.mp4"), Timestamp::UNIX_EPOCH, &Attempt::new(1, Timestamp::UNIX_EPOCH))
    }

    #[tokio::test]
    async fn a_launch_carries_token_and_job() {
        let expected = launch();
        let rule = mock!(Client::run_task)
            .match_requests(move |request| {
                let containers = request.overrides().map(|o| o.container_overrides()).unwrap_or_default();
                let keys: Vec<_> = containers
                    .iter()
                    .flat_map(|container| container.environment())
                    .filter(|pair| pair.name() == Some("VIDSTREAMX_SOURCE_KEY"))
                    .filter_map(|pair| pair.value())
                    .collect();
                request.client_token() == Some(&expected.token)
                    && request.started_by() == Some(&expected.started_by)
                    && keys == ["a.mp4"]
            })
            .then_output(|| RunTaskOutput::builder().tasks(Task::builder().task_arn("arn").build()).build());
        assert_eq!(ecs(&[&rule]).run(&launch()).await, Ok("arn".into()));
    }

    #[tokio::test]
    async fn a_response_with_failures_is_a_refusal() {
        let rule = mock!(Client::run_task).then_output(|| {
            let failure = Failure::builder()
                .reason("RESOURCE:ENI")
                .detail("Capacity is unavailable at this time.")
                .build();
            RunTaskOutput::builder().failures(failure).build()
        });
        assert_eq!(
            ecs(&[&rule]).run(&launch()).await,
            Err(LaunchError::NotNow("RESOURCE:ENI, Capacity is unavailable at this time.".into()))
        );
    }

    #[tokio::test]
    async fn errors_keep_their_meaning_and_are_not_retried_by_the_sdk() {
        let conflict = mock!(Client::run_task).then_error(|| {
            RunTaskError::ConflictException(ConflictException::builder().resource_ids("arn").build())
        });
        assert_eq!(ecs(&[&conflict]).run(&launch()).await, Err(LaunchError::Conflict(vec!["arn".into()])));

        let denied = mock!(Client::run_task).then_error(|| {
            let meta =
                aws_smithy_types::error::ErrorMetadata::builder().code("AccessDeniedException").build();
            RunTaskError::AccessDeniedException(AccessDeniedException::builder().meta(meta).build())
        });
        assert!(matches!(ecs(&[&denied]).run(&launch()).await, Err(LaunchError::Misconfigured(_))));

        let throttled = mock!(Client::run_task)
            .sequence()
            .http_status(400, Some(r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#.into()))
            .repeatedly()
            .build();
        assert!(matches!(ecs(&[&throttled]).run(&launch()).await, Err(LaunchError::Throttled(_))));
        assert_eq!(throttled.num_calls(), 1);
    }

    #[tokio::test]
    async fn states_are_in_the_order_of_the_arns() {
        let elsewhere = "arn:aws:ecs:eu-central-1:1:task/elsewhere/1";
        let asked = ["running", "missing", "stopped", "starting"].map(str::to_owned);
        let rule = mock!(Client::describe_tasks)
            .match_requests(move |request| request.tasks() == asked && request.cluster() == Some("videos"));
        let other = mock!(Client::describe_tasks)
            .match_requests(move |request| {
                request.cluster() == Some("elsewhere") && request.tasks() == [elsewhere]
            })
            .then_output(move || {
                let stopped = Task::builder().task_arn(elsewhere).last_status("STOPPED");
                DescribeTasksOutput::builder().tasks(stopped.build()).build()
            });
        let rule = rule.then_output(|| {
            let transcoder =
                Container::builder().name("transcoder").exit_code(137).reason("OutOfMemoryError");
            let stopped = Task::builder()
                .task_arn("stopped")
                .last_status("STOPPED")
                .stop_code(TaskStopCode::EssentialContainerExited)
                .stopped_reason("Essential container in task exited")
                .pull_started_at(DateTime::from_secs(100))
                .started_at(DateTime::from_secs(120))
                .stopped_at(DateTime::from_millis(190_500))
                .containers(Container::builder().name("sidecar").exit_code(0).build())
                .containers(transcoder.build());
            let running = Task::builder().task_arn("running").last_status("DEPROVISIONING");
            let running = running.started_at(DateTime::from_secs(120));
            let starting = Task::builder().task_arn("starting").last_status("PROVISIONING");
            let output = DescribeTasksOutput::builder().tasks(stopped.build());
            output.tasks(running.build()).tasks(starting.build()).build()
        });
        let arns = ["running", "missing", "stopped", elsewhere, "starting"].map(Arc::from);
        let stopped = Stopped {
            billed: Some(Duration::from_millis(90_500)),
            exit_code: Some(137),
            stop_code: Some("EssentialContainerExited".into()),
            reason: Some("Essential container in task exited: OutOfMemoryError".into()),
        };
        assert_eq!(
            ecs(&[&rule, &other]).describe(&arns).await,
            Ok(vec![
                TaskStatus::Running,
                TaskStatus::Missing,
                TaskStatus::Stopped(stopped),
                TaskStatus::Stopped(Stopped::default()),
                TaskStatus::Starting,
            ])
        );
    }

    #[tokio::test]
    async fn a_task_is_found_by_its_token_on_any_page() {
        let page = |desired, token: Option<&'static str>, arn: &'static str, next: Option<&'static str>| {
            mock!(Client::list_tasks)
                .match_requests(move |request| {
                    request.desired_status() == Some(&desired)
                        && request.next_token() == token
                        && request.started_by().is_some()
                })
                .then_output(move || {
                    ListTasksOutput::builder().task_arns(arn).set_next_token(next.map(str::to_owned)).build()
                })
        };
        let first = page(DesiredStatus::Running, None, "one", Some("more"));
        let second = page(DesiredStatus::Running, Some("more"), "two", None);
        let stopped = page(DesiredStatus::Stopped, None, "three", Some("older"));
        let older = page(DesiredStatus::Stopped, Some("older"), "four", None);
        let described = mock!(Client::describe_tasks).then_output(|| {
            let task = |arn: &str| {
                let token = KeyValuePair::builder().name("VIDSTREAMX_LAUNCH").value(format!("token-{arn}"));
                let container = ContainerOverride::builder().name("transcoder").environment(token.build());
                let overrides = TaskOverride::builder().container_overrides(container.build()).build();
                Task::builder().task_arn(arn).overrides(overrides).build()
            };
            let tasks = ["four", "three", "two", "one"].map(task).to_vec();
            DescribeTasksOutput::builder().set_tasks(Some(tasks)).build()
        });
        let ecs = ecs(&[&first, &second, &stopped, &older, &described]);
        let job = "0123456789abcdef0123456789abcdef".parse().unwrap();
        assert_eq!(ecs.find(&job, "token-three").await.unwrap().as_deref(), Some("three"));
        assert_eq!(ecs.find(&job, "token-thre").await, Ok(None));
    }
}
