"""A local stack for the end-to-end tests, and the consumers that run against it.

Set-up and inspection use the administrator's key. The consumer has the credentials of ConsumerRole and tasks
have those of TaskRole. IAM is enforced.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from vidstreamx_devtools.local import engine, programs, viewer
from vidstreamx_devtools.local import stack as local_stack
from vidstreamx_devtools.local.stack import JsonObject, Upload
from vidstreamx_devtools.settings import Settings, UserError, free_port
from vidstreamx_devtools.waiting import wait_until

_LONGEST_POLL = 21  # seconds


@dataclass(frozen=True)
class DeadLetter:
    """A message of the dead-letter queue."""

    body: str
    attributes: dict[str, str]  # the consumer's attributes, without the prefix "vidstreamx-"


class Consumer:
    """A process of `vidstreamx-consumer`."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, cwd: Path) -> None:
        self.log = log
        self.stopped_at: float | None = None  # time when the test terminated or killed the consumer
        self._output = log.open("wb")
        # In a session of its own, so that Ctrl-C reaches only the tests, which then stop the consumer.
        self._process = subprocess.Popen(
            command,
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
        )

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait(self, timeout: float) -> int | None:
        """The exit code; None after the timeout."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout)
        return None

    def terminate(self, timeout: float) -> int | None:
        """Sends one SIGTERM. Returns the exit code; None after the timeout."""
        self._process.send_signal(signal.SIGTERM)
        code = self.wait(timeout)
        self.stopped_at = time.monotonic()
        return code

    def kill(self) -> None:
        """Sends SIGKILL, so the consumer returns no message and cleans up nothing."""
        if self.is_running:
            self._process.kill()
            self._process.wait()
            self.stopped_at = time.monotonic()
        self._output.close()

    @property
    def output(self) -> str:
        return self.log.read_text()

    @property
    def lines(self) -> list[JsonObject]:
        """The JSON objects in its output, one per line. The fields of a span are merged into the line."""
        lines = [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]
        return [{**line.get("span", {}), **line} for line in lines]


@dataclass
class StackFixture:
    local: local_stack.Stack
    binaries: Path
    consumers: list[Consumer] = field(default_factory=list)

    def __post_init__(self) -> None:
        outputs = self.local.outputs
        self.upload_bucket = self.local.upload_bucket
        self.output_bucket = self.local.output_bucket
        self.queue_url = outputs["QueueUrl"]
        self.back_fill_queue_url = outputs["BackFillQueueUrl"]
        self.dead_letter_queue_url = outputs["DeadLetterQueueUrl"]
        self.cluster = outputs["ClusterName"]
        self.s3 = self.local.client("s3")
        self.sqs = self.local.client("sqs")
        self.ecs = self.local.client("ecs")

    # ---- Actions ------------------------------------------------------------------------------

    def upload(self, key: str, file: Path) -> Upload:
        return self.local.upload(file, key)

    def delete(self, upload: Upload) -> None:
        self.s3.delete_object(Bucket=upload.bucket, Key=upload.key)

    def send(self, body: str) -> str:
        """Sends a message to the queue. Returns its id."""
        return str(self.sqs.send_message(QueueUrl=self.queue_url, MessageBody=body)["MessageId"])

    def start_consumer(self, *arguments: str, environment: dict[str, str | None] | None = None) -> Consumer:
        """Starts a consumer with its role's rights. A variable with the value None is removed."""
        variables = {**self.local.consumer_environment(), **(environment or {})}
        state = self.local.settings.state
        consumer = Consumer(
            [str(self.binaries / programs.CONSUMER), *arguments],
            {name: value for name, value in variables.items() if value is not None},
            state / f"consumer-{len(self.consumers) + 1}.log",
            state,
        )
        self.consumers.append(consumer)
        return consumer

    def operate(self, *arguments: str, code: int = 0, timeout: float = 60) -> str:
        """Runs a command with the operator's rights, and checks its exit code. Returns its output."""
        command = self.start_consumer(*arguments, environment=self.operator_environment())
        assert command.wait(timeout=timeout) == code, command.output
        return command.output

    def wait_for_open_polls(self) -> None:
        """Waits until no long poll is open. SQS keeps the poll of a stopped consumer open, and could deliver
        the next message to it."""
        stopped_at = max((consumer.stopped_at or 0 for consumer in self.consumers), default=0)
        wait_until(lambda: time.monotonic() > stopped_at + _LONGEST_POLL, timeout=_LONGEST_POLL + 1)

    def role_credentials(self, role: str) -> dict[str, str | None]:
        """The variable that gives a consumer the rights of another role."""
        variable = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
        own = self.local.outputs["ConsumerRoleArn"].rpartition("/")[2]
        other = self.local.outputs[role].rpartition("/")[2]
        return {variable: self.local.consumer_environment()[variable].replace(own, other)}

    def operator_environment(self) -> dict[str, str | None]:
        """The variables that give a command the rights of OperatorRole instead of ConsumerRole."""
        credentials = self.local.operator_credentials()
        return {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": None,
            **{name.upper(): value for name, value in credentials.items()},
        }

    def kill(self, task: JsonObject) -> bool:
        """Sends SIGKILL to a task's container, as the kernel does if memory runs out.

        Returns False if the container has already ended.
        """
        with suppress(UserError):
            engine.docker("kill", "--signal", "KILL", _container(task))
            return True
        return False

    @contextmanager
    def paused(self, task: JsonObject) -> Iterator[None]:
        """Pauses a task's container, so that the task cannot end before the end of the block."""
        engine.docker("pause", _container(task))
        try:
            yield
        finally:
            engine.docker("unpause", _container(task))

    # ---- Inspection ---------------------------------------------------------------------------

    def message_counts(self, queue_url: str | None = None) -> dict[str, int]:
        """The numbers of messages by state: Visible, Delayed and NotVisible. Default: the upload queue."""
        names = ["", "Delayed", "NotVisible"]
        attributes = [f"ApproximateNumberOfMessages{name}" for name in names]
        response = self.sqs.get_queue_attributes(
            QueueUrl=queue_url or self.queue_url, AttributeNames=attributes
        )
        counts = [int(response["Attributes"][attribute]) for attribute in attributes]
        return {name or "Visible": count for name, count in zip(names, counts, strict=True)}

    def is_queue_empty(self) -> bool:
        """Whether neither the upload queue nor the back-fill queue has a message."""
        queues = (self.queue_url, self.back_fill_queue_url)
        return not any(count for queue in queues for count in self.message_counts(queue).values())

    def take_dead_letters(self) -> list[DeadLetter]:
        """Receives all visible messages of the dead-letter queue, and hides them for an hour."""
        letters: list[DeadLetter] = []
        while True:
            received = self.sqs.receive_message(
                QueueUrl=self.dead_letter_queue_url,
                MaxNumberOfMessages=10,
                VisibilityTimeout=3600,
                MessageAttributeNames=["All"],
            )
            if not received.get("Messages"):
                return letters
            for message in received["Messages"]:
                attributes = {
                    name.removeprefix("vidstreamx-"): value["StringValue"]
                    for name, value in message.get("MessageAttributes", {}).items()
                }
                letters.append(DeadLetter(message["Body"], attributes))

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        return [item["Key"] for item in self.local.list_objects(bucket, prefix)]

    def versions(self, bucket: str, prefix: str = "") -> list[str]:
        """The key of each version and delete marker."""
        pages = self.s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
        return [
            item["Key"]
            for page in pages
            for kind in ("Versions", "DeleteMarkers")
            for item in page.get(kind, [])
        ]

    def records(self) -> list[JsonObject]:
        """All records of the consumer."""
        return [self.local.read_json(key) for key in self.keys(self.output_bucket, ".vidstreamx/jobs/")]

    def record(self, upload: Upload) -> JsonObject | None:
        return next((record for record in self.records() if is_record_of(record, upload)), None)

    def progress(self, job_id: str) -> JsonObject:
        """The status object that the latest task of the job wrote last."""
        return self.local.read_json(f".vidstreamx/progress/{job_id}.json")

    def tasks(self, job_id: str | None = None, only_running: bool = False) -> list[JsonObject]:
        """All tasks, or those of a job, as ECS describes them."""
        started_by = {"startedBy": job_id} if job_id else {}
        arns = [
            arn
            for status in (["RUNNING"] if only_running else ["RUNNING", "STOPPED"])
            for page in self.ecs.get_paginator("list_tasks").paginate(
                cluster=self.cluster, desiredStatus=status, **started_by
            )
            for arn in page["taskArns"]
        ]
        described: list[JsonObject] = []
        for start in range(0, len(arns), 100):
            described += self.ecs.describe_tasks(cluster=self.cluster, tasks=arns[start : start + 100])[
                "tasks"
            ]
        return described

    def running_task(self, upload: Upload) -> JsonObject | None:
        """The upload's task, if its container runs."""
        record = self.record(upload)
        tasks = self.tasks(record["job_id"]) if record else []
        return next(filter(is_running, tasks), None)

    def task_environment(self, task: JsonObject) -> dict[str, str]:
        """The environment of a running task's container."""
        variables = json.loads(engine.docker("inspect", "--format", "{{json .Config.Env}}", _container(task)))
        return dict(variable.split("=", 1) for variable in variables)

    def task_log(self, task_arn: str) -> list[str]:
        return self.local.task_log(task_arn, startFromHead=True)

    def save_task_logs(self) -> None:
        """Writes the logs of all tasks to tasks.log, for debugging after the tests."""
        with (self.local.settings.state / "tasks.log").open("w") as log:
            for task in self.tasks():
                arn = task["taskArn"]
                print(f"== {arn}", *self.task_log(arn), sep="\n", file=log)


def _container(task: JsonObject) -> str:
    return str(task["containers"][0]["runtimeId"])


def is_running(task: JsonObject) -> bool:
    """Whether the task's container runs."""
    return task["lastStatus"] == "RUNNING" and bool(task["containers"][0].get("runtimeId"))


def exit_code(task: JsonObject) -> int | None:
    code: int | None = task["containers"][0].get("exitCode")
    return code


def is_record_of(record: JsonObject, upload: Upload) -> bool:
    source = record["source"]
    return (source["bucket"], source["key"], source.get("etag")) == (upload.bucket, upload.key, upload.etag)


@contextmanager
def running_stack() -> Iterator[StackFixture]:
    """Runs a stack, separate from that of `make demo`, until the end of the block. Its logs are kept."""
    base = Settings.from_environment()
    state = base.tools / "e2e"
    _remove_previous(base, state)
    settings = replace(base, state=state, port=free_port(), viewer_port=free_port())
    state.mkdir(parents=True)
    (state / "port").write_text(str(settings.port))
    try:
        binaries = programs.build()
        programs.build_image(settings, binaries)
        stack = StackFixture(local_stack.up(settings), binaries)
        viewer.start(settings)
        try:
            yield stack
        finally:
            for consumer in stack.consumers:
                consumer.kill()
            stack.save_task_logs()
    finally:
        local_stack.down(settings)


def _remove_previous(base: Settings, state: Path) -> None:
    """Removes the stack of an earlier run that was killed."""
    with suppress(OSError, ValueError):
        local_stack.down(replace(base, state=state, port=int((state / "port").read_text())))
    shutil.rmtree(state, ignore_errors=True)
