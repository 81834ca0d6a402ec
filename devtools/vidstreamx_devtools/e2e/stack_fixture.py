"""A local stack of the tests' own, and the consumers that run against it.

Only what sets things up and looks on uses the administrator's key. The consumer has the credentials of
ConsumerRole, tasks have those of TaskRole, and IAM is enforced.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from vidstreamx_devtools.local import engine
from vidstreamx_devtools.local import programs
from vidstreamx_devtools.local import stack
from vidstreamx_devtools.local import viewer
from vidstreamx_devtools.settings import Problem, Settings
from vidstreamx_devtools.waiting import until


_LONGEST_POLL = 21  # seconds


@dataclass(frozen=True)
class Upload:
    """One content of one object."""

    bucket: str
    key: str
    etag: str
    size: int


@dataclass(frozen=True)
class DeadLetter:
    """A message of the dead-letter queue."""

    body: str
    told: dict[str, str]  # the consumer's attributes, without "vidstreamx-"


class Consumer:
    """`vidstreamx-consumer` as a process of its own."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, cwd: Path):
        self.log = log
        self.cut_off_at: float | None = None  # when it was ended from outside
        self._out = log.open("wb")
        # A group of its own: Ctrl-C is for the tests, which then end it.
        self._process = subprocess.Popen(
            command, env=environment, cwd=cwd, stdin=subprocess.DEVNULL,
            stdout=self._out, stderr=self._out, start_new_session=True,
        )  # fmt: skip

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait(self, within: float) -> int | None:
        """The exit code; None if it is still running when time is up."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(within)
        return None

    def terminate(self, within: float) -> int | None:
        """SIGTERM, once; the exit code, None if it takes longer."""
        self._process.send_signal(signal.SIGTERM)
        code = self.wait(within)
        self.cut_off_at = time.monotonic()
        return code

    def kill(self) -> None:
        """SIGKILL: nothing is given back, nothing is ended in order."""
        if self.is_running:
            self._process.kill()
            self._process.wait()
            self.cut_off_at = time.monotonic()
        self._out.close()

    @property
    def output(self) -> str:
        return self.log.read_text()

    @property
    def lines(self) -> list[dict]:
        """Its log, a dictionary per line."""
        return [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]


@dataclass
class World:
    stack: stack.Stack
    binaries: Path
    _consumers: list[Consumer] = field(default_factory=list)

    def __post_init__(self):
        outputs = self.stack.outputs
        self.uploads = outputs["UploadBucketName"]
        self.streams = outputs["OutputBucketName"]
        self.queue = outputs["QueueUrl"]
        self.dead_letters = outputs["DeadLetterQueueUrl"]
        self.cluster = outputs["ClusterName"]
        self.s3 = self.stack.client("s3")
        self.sqs = self.stack.client("sqs")
        self.ecs = self.stack.client("ecs")
        self.logs = self.stack.client("logs")

    # ---- Doing --------------------------------------------------------------------------------

    def upload(self, key: str, file: Path) -> Upload:
        content = file.read_bytes()
        etag = self.s3.put_object(Bucket=self.uploads, Key=key, Body=content)["ETag"].strip('"')
        return Upload(self.uploads, key, etag, len(content))

    def send(self, body: str) -> str:
        """Puts a message into the queue; gives its id."""
        return self.sqs.send_message(QueueUrl=self.queue, MessageBody=body)["MessageId"]

    def consumer(self, *arguments: str, environment: dict[str, str | None] | None = None) -> Consumer:
        """Starts a consumer with its role's rights; a variable that is None is left out."""
        variables = {**self.stack.consumer_environment(), **(environment or {})}
        state = self.stack.settings.state
        started = Consumer(
            [str(self.binaries / programs.CONSUMER), *arguments],
            {name: value for name, value in variables.items() if value is not None},
            state / f"consumer-{len(self._consumers) + 1}.log",
            state,
        )
        self._consumers.append(started)
        return started

    def until_no_poll_is_left(self) -> None:
        """SQS goes on with a long poll whose consumer was cut off, and would hand it the next message."""
        cut_off = max((consumer.cut_off_at or 0 for consumer in self._consumers), default=0)
        until(lambda: time.monotonic() > cut_off + _LONGEST_POLL, within=_LONGEST_POLL + 1)

    def role_credentials(self, role: str) -> dict[str, str]:
        """The variable that makes a consumer run with another role's rights."""
        variable = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
        mine = self.stack.outputs["ConsumerRoleArn"].rpartition("/")[2]
        other = self.stack.outputs[role].rpartition("/")[2]
        return {variable: self.stack.consumer_environment()[variable].replace(mine, other)}

    def kill(self, task: dict) -> bool:
        """Kills a task's container as the kernel does when memory runs out; False if it has ended already."""
        container = task["containers"][0]["runtimeId"]
        with suppress(Problem):
            engine.docker("kill", "--signal", "KILL", container)
            return True
        return False

    @contextmanager
    def frozen(self, task: dict) -> Iterator[None]:
        """Stops a task's clock, so that it is certain to be running meanwhile."""
        container = task["containers"][0]["runtimeId"]
        engine.docker("pause", container)
        try:
            yield
        finally:
            engine.docker("unpause", container)

    # ---- Looking ------------------------------------------------------------------------------

    def waiting(self) -> dict[str, int]:
        """How many messages are visible, delayed and held."""
        names = ["", "Delayed", "NotVisible"]
        attributes = [f"ApproximateNumberOfMessages{name}" for name in names]
        found = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=attributes)["Attributes"]
        return {name or "Visible": int(found[attribute]) for name, attribute in zip(names, attributes)}

    def is_queue_empty(self) -> bool:
        return not any(self.waiting().values())

    def take_dead_letters(self) -> list[DeadLetter]:
        """All messages in the dead-letter queue, which stay there for an hour unseen."""
        letters = []
        while True:
            received = self.sqs.receive_message(
                QueueUrl=self.dead_letters, MaxNumberOfMessages=10, VisibilityTimeout=3600,
                MessageAttributeNames=["All"],
            )  # fmt: skip
            if not received.get("Messages"):
                return letters
            for message in received["Messages"]:
                attributes = message.get("MessageAttributes", {}).items()
                told = {name.removeprefix("vidstreamx-"): value["StringValue"] for name, value in attributes}
                letters.append(DeadLetter(message["Body"], told))

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def records(self) -> list[dict]:
        """Everything the consumer has written down."""
        return [self.read(key) for key in self.keys(self.streams, ".vidstreamx/jobs/")]

    def record(self, upload: Upload) -> dict | None:
        return next((record for record in self.records() if is_about(record, upload)), None)

    def progress(self, job_id: str) -> dict:
        """What the job's latest task has last said about how far it is."""
        return self.read(f".vidstreamx/progress/{job_id}.json")

    def read(self, key: str) -> dict:
        return json.load(self.s3.get_object(Bucket=self.streams, Key=key)["Body"])

    def tasks(self, job_id: str | None = None, only_alive: bool = False) -> list[dict]:
        """All tasks ever started, or a job's, as ECS describes them."""
        mine = {"startedBy": job_id} if job_id else {}
        arns = [
            arn
            for status in (["RUNNING"] if only_alive else ["RUNNING", "STOPPED"])
            for page in self.ecs.get_paginator("list_tasks").paginate(
                cluster=self.cluster, desiredStatus=status, **mine
            )
            for arn in page["taskArns"]
        ]
        described = []
        for start in range(0, len(arns), 100):
            described += self.ecs.describe_tasks(cluster=self.cluster, tasks=arns[start : start + 100])["tasks"]
        return described

    def running_task(self, upload: Upload) -> dict | None:
        """The upload's task if its container runs."""
        record = self.record(upload)
        tasks = self.tasks(record["job_id"]) if record else []
        return next(filter(is_running, tasks), None)

    def environment(self, task: dict) -> dict[str, str]:
        """What a running task's container was started with."""
        container = task["containers"][0]["runtimeId"]
        settings = json.loads(engine.docker("inspect", "--format", "{{json .Config.Env}}", container))
        return dict(setting.split("=", 1) for setting in settings)

    def task_log(self, task_arn: str) -> list[str]:
        stream = f"transcoder/{self.stack.outputs['ContainerName']}/{task_arn.rpartition('/')[2]}"
        try:
            answer = self.logs.get_log_events(
                logGroupName=self.stack.outputs["LogGroupName"], logStreamName=stream, startFromHead=True
            )
        except self.logs.exceptions.ResourceNotFoundException:
            return []
        return [re.sub(r"\x1b\[[0-9;]*m", "", event["message"].rstrip()) for event in answer["events"]]

    def save_task_logs(self) -> None:
        """For people, after the tests: what every task said."""
        with (self.stack.settings.state / "tasks.log").open("w") as log:
            for task in self.tasks():
                arn = task["taskArn"]
                print(f"== {arn}", *self.task_log(arn), sep="\n", file=log)


def is_running(task: dict) -> bool:
    """Whether its container runs."""
    return task["lastStatus"] == "RUNNING" and bool(task["containers"][0].get("runtimeId"))


def is_about(record: dict, upload: Upload) -> bool:
    source = record["source"]
    return (source["bucket"], source["key"], source.get("etag")) == (upload.bucket, upload.key, upload.etag)


@contextmanager
def world() -> Iterator[World]:
    """A stack beside the one of `make demo`, gone afterwards. What is left are its logs."""
    ours = Settings.from_environment()
    state = ours.tools / "e2e"
    _end_leftovers(ours, state)
    settings = replace(ours, state=state, port=_free_port(), viewer_port=_free_port())
    state.mkdir(parents=True)
    (state / "port").write_text(str(settings.port))
    try:
        binaries = programs.build()
        programs.build_image(settings, binaries)
        here = World(stack.up(settings), binaries)
        viewer.start(settings)
        try:
            yield here
        finally:
            for consumer in here._consumers:
                consumer.kill()
            here.save_task_logs()
    finally:
        stack.down(settings)


def _end_leftovers(ours: Settings, state: Path) -> None:
    """Of tests that were killed before they could tidy up."""
    with suppress(OSError, ValueError):
        stack.down(replace(ours, state=state, port=int((state / "port").read_text())))
    shutil.rmtree(state, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
