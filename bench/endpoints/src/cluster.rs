//! The ECS cluster. Its tasks run for a set time and succeed. Their descriptions are as long as those of ECS
//! for Fargate tasks.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::{Value, json};

const ARN_PREFIX: &str = "arn:aws:ecs:us-east-1:123456789012";
const CLUSTER: &str = "vidstreamx";
const CONTAINER: &str = "transcoder";

/// All tasks since the start of the program.
#[derive(Debug)]
pub(crate) struct Cluster {
    tasks: Vec<Task>,
    tokens: HashMap<String, usize>,
    by_job: HashMap<String, Vec<usize>>,
    /// Duration of tasks that are started from now on.
    pub run_time: Duration,
    /// Times when the first and the last task were started.
    pub started: Option<(Instant, Instant)>,
}

#[derive(Debug)]
struct Task {
    started_by: String,
    created: Timestamp,
    ends: Instant,
    ended: Timestamp,
    /// The request's overrides as JSON. Responses repeat them. They are the largest part of a response.
    overrides: String,
}

impl Cluster {
    /// A cluster without tasks.
    pub(crate) fn new(run_time: Duration) -> Self {
        let (tasks, tokens, by_job) = Default::default();
        Self { tasks, tokens, by_job, run_time, started: None }
    }

    /// RunTask: starts a task, or returns the task that was started with the same token.
    pub(crate) fn run(&mut self, request: &Value, now: Instant, clock: Timestamp) -> String {
        let text = |field: &str| request[field].as_str().unwrap_or_default().to_owned();
        let token = text("clientToken");
        let known = self.tokens.get(&token).copied();
        let number = known.unwrap_or_else(|| {
            let number = self.tasks.len();
            let started_by = text("startedBy");
            self.by_job.entry(started_by.clone()).or_default().push(number);
            self.tasks.push(Task {
                started_by,
                created: clock,
                ends: now + self.run_time,
                ended: clock + self.run_time,
                overrides: request["overrides"].to_string(),
            });
            if !token.is_empty() {
                self.tokens.insert(token, number);
            }
            self.started = Some((self.started.map_or(now, |(first, _)| first), now));
            number
        });
        format!(r#"{{"failures":[],"tasks":[{}]}}"#, self.description(number, now))
    }

    /// DescribeTasks.
    pub(crate) fn describe(&self, request: &Value, now: Instant) -> String {
        let arns = request["tasks"].as_array().map(Vec::as_slice).unwrap_or_default();
        let (mut tasks, mut failures) = (Vec::new(), Vec::new());
        for arn in arns.iter().filter_map(Value::as_str) {
            let number = arn.rsplit('/').next().and_then(|id| usize::from_str_radix(id, 16).ok());
            match number.filter(|number| *number < self.tasks.len()) {
                Some(number) => tasks.push(self.description(number, now)),
                None => failures.push(json!({"arn": arn, "reason": "MISSING"}).to_string()),
            }
        }
        format!(r#"{{"failures":[{}],"tasks":[{}]}}"#, failures.join(","), tasks.join(","))
    }

    /// ListTasks by `startedBy`.
    pub(crate) fn list(&self, request: &Value, now: Instant) -> String {
        let job = request["startedBy"].as_str().unwrap_or_default();
        let stopped = request["desiredStatus"] == "STOPPED";
        let numbers = self.by_job.get(job).map(Vec::as_slice).unwrap_or_default();
        let found = numbers.iter().filter(|number| self.has_ended(**number, now) == stopped);
        json!({"taskArns": found.map(|number| arn(*number)).collect::<Vec<_>>()}).to_string()
    }

    /// Ends all tasks now.
    pub(crate) fn end_all(&mut self, now: Instant, clock: Timestamp) {
        for task in self.tasks.iter_mut().filter(|task| task.ends > now) {
            task.ends = now;
            task.ended = clock;
        }
    }

    /// Whether a task of the job has ended, so that its report exists.
    pub(crate) fn has_ended_task(&self, job: &str, now: Instant) -> bool {
        self.by_job.get(job).is_some_and(|numbers| numbers.iter().any(|number| self.has_ended(*number, now)))
    }

    /// Numbers of started and of running tasks.
    pub(crate) fn counts(&self, now: Instant) -> (usize, usize) {
        (self.tasks.len(), (0..self.tasks.len()).filter(|number| !self.has_ended(*number, now)).count())
    }

    fn has_ended(&self, number: usize, now: Instant) -> bool {
        self.tasks.get(number).is_some_and(|task| task.ends <= now)
    }

    fn description(&self, number: usize, now: Instant) -> String {
        let Some(Task { started_by, created, ended, overrides, .. }) = self.tasks.get(number) else {
            return String::new();
        };
        let stopped = self.has_ended(number, now);
        let [created, ended] = [created, ended].map(|time| {
            format!("{:.3}", Duration::from_millis(time.as_millisecond().unsigned_abs()).as_secs_f64())
        });
        let (status, attachment, exit_code) =
            if stopped { ("STOPPED", "DELETED", r#""exitCode":0,"#) } else { ("RUNNING", "ATTACHED", "") };
        let end = if stopped {
            format!(
                r#""stopCode":"EssentialContainerExited","stoppedReason":"Essential container in task exited","executionStoppedAt":{ended},"stoppingAt":{ended},"stoppedAt":{ended},"#
            )
        } else {
            String::new()
        };
        let arn = arn(number);
        let digest = "sha256:6f1cb4b0a3e2f1d9d8c7b6a5948372615043322110ffeeddccbbaa9988776655";
        format!(
            r#"{{"attachments":[{{"id":"4f0b3c1e-6d1a-4d6e-9a51-{number:012x}","type":"ElasticNetworkInterface","status":"{attachment}","details":[{{"name":"subnetId","value":"subnet-0123456789abcdef0"}},{{"name":"networkInterfaceId","value":"eni-0123456789abcdef0"}},{{"name":"macAddress","value":"0a:58:a9:fe:ac:02"}},{{"name":"privateDnsName","value":"ip-10-0-1-23.ec2.internal"}},{{"name":"privateIPv4Address","value":"10.0.1.23"}}]}}],"attributes":[{{"name":"ecs.cpu-architecture","value":"x86_64"}}],"availabilityZone":"us-east-1a","capacityProviderName":"FARGATE","clusterArn":"{ARN_PREFIX}:cluster/{CLUSTER}","connectivity":"CONNECTED","connectivityAt":{created},"containers":[{{"containerArn":"{ARN_PREFIX}:container/{CLUSTER}/{number:032x}/0a6b3e1c-7f6e-4a57-8f7b-0123456789ab","taskArn":"{arn}","name":"{CONTAINER}","image":"123456789012.dkr.ecr.us-east-1.amazonaws.com/vidstreamx-transcoder:0.1.0","imageDigest":"{digest}","runtimeId":"{number:032x}-1234567890","lastStatus":"{status}",{exit_code}"networkBindings":[],"networkInterfaces":[{{"attachmentId":"4f0b3c1e-6d1a-4d6e-9a51-{number:012x}","privateIpv4Address":"10.0.1.23"}}],"healthStatus":"UNKNOWN","managedAgents":[],"cpu":"4096","memory":"8192"}}],"cpu":"4096","memory":"8192","createdAt":{created},"startedAt":{created},"pullStartedAt":{created},"pullStoppedAt":{created},{end}"desiredStatus":"{status}","lastStatus":"{status}","enableExecuteCommand":false,"ephemeralStorage":{{"sizeInGiB":20}},"fargateEphemeralStorage":{{"sizeInGiB":20}},"group":"family:vidstreamx-transcoder","healthStatus":"UNKNOWN","launchType":"FARGATE","overrides":{overrides},"platformFamily":"Linux","platformVersion":"1.4.0","startedBy":"{started_by}","tags":[],"taskArn":"{arn}","taskDefinitionArn":"{ARN_PREFIX}:task-definition/vidstreamx-transcoder:7","version":4}}"#
        )
    }
}

fn arn(number: usize) -> String {
    format!("{ARN_PREFIX}:task/{CLUSTER}/{number:032x}")
}

/// DescribeClusters.
pub(crate) fn clusters() -> Value {
    json!({"failures": [], "clusters": [{
        "clusterArn": format!("{ARN_PREFIX}:cluster/{CLUSTER}"),
        "clusterName": CLUSTER,
        "status": "ACTIVE",
        "capacityProviders": ["FARGATE", "FARGATE_SPOT"],
    }]})
}

/// DescribeTaskDefinition.
pub(crate) fn task_definition() -> Value {
    json!({"taskDefinition": {
        "taskDefinitionArn": format!("{ARN_PREFIX}:task-definition/vidstreamx-transcoder:7"),
        "family": "vidstreamx-transcoder",
        "revision": 7,
        "status": "ACTIVE",
        "requiresCompatibilities": ["FARGATE"],
        "networkMode": "awsvpc",
        "cpu": "4096",
        "memory": "8192",
        "ephemeralStorage": {"sizeInGiB": 20},
        "runtimePlatform": {"cpuArchitecture": "X86_64", "operatingSystemFamily": "LINUX"},
        "containerDefinitions": [{"name": CONTAINER, "image": "vidstreamx-transcoder", "essential": true}],
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_ends_after_its_duration_and_a_token_starts_one_task() {
        let (start, clock) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let mut cluster = Cluster::new(Duration::from_secs(5));
        let request = json!({"clientToken": "t", "startedBy": "job", "overrides": {"cpu": "1024"}});
        let answers = [0, 1].map(|_| cluster.run(&request, start, clock));
        assert_eq!(answers[0], answers[1]);
        let task = serde_json::from_str::<Value>(&answers[0]).unwrap()["tasks"][0].clone();
        assert_eq!((&task["lastStatus"], &task["overrides"]["cpu"]), (&json!("RUNNING"), &json!("1024")));

        let end = start + Duration::from_secs(5);
        let request = json!({"tasks": [task["taskArn"], "arn:else/where"]});
        let answer = serde_json::from_str::<Value>(&cluster.describe(&request, end)).unwrap();
        assert_eq!(answer["tasks"][0]["containers"][0]["exitCode"], 0);
        assert_eq!(answer["failures"][0]["reason"], "MISSING");
        let listed = |status| cluster.list(&json!({"startedBy": "job", "desiredStatus": status}), end);
        assert!(listed("STOPPED").contains("task/") && !listed("RUNNING").contains("task/"));
        assert!(cluster.has_ended_task("job", end) && !cluster.has_ended_task("job", start));
    }
}
