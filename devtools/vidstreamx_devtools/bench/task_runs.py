"""Runs tasks as ECS does, but without a consumer. Each gets a container and the task role's credentials."""

from __future__ import annotations

import datetime
import json
import queue
import re
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidstreamx_devtools.local import engine, stack
from vidstreamx_devtools.local.stack import Upload
from vidstreamx_devtools.settings import AGENT_ADDRESS, Settings, UserError, free_port

MASTER = "master.m3u8"
Published = dict[str, float]  # time of publication by path

_MEASURE = Path(__file__).with_name("measure.sh")
_TIMEOUT = 900  # seconds
# The folder for temporary files is the only writable one. It is a file system in memory, so that `df` shows
# the size of its content.
_WORK = "/work"
_WORK_MEGABYTES = 1024
_SEGMENT = re.compile(r"/video/([^/]+)/seg-\d+\.m4s$")


class Buckets:
    """The buckets of the local stack, and the tasks that use them."""

    def __init__(self, running: stack.Stack, address: str, network: str) -> None:
        self._stack, self._network = running, network
        self._endpoint = f"http://{address}:{running.settings.port}"
        self._s3 = running.client("s3")

    @contextmanager
    def upload(self, file: Path) -> Iterator[Upload]:
        """Uploads a file. Deletes it at the end of the block, because the store is in memory."""
        upload = self._stack.upload(file, f"{file.stem}.mp4")
        try:
            yield upload
        finally:
            self.clear(upload)
            self._s3.delete_object(Bucket=upload.bucket, Key=upload.key)

    def published(self, upload: Upload) -> Published:
        """When each object of the stream was published, by the store's clock, which is this machine's."""
        prefix = f"{upload.key}/"
        return {
            item["Key"].removeprefix(prefix): item["LastModified"].timestamp()
            for item in self._stack.list_objects(self._stack.output_bucket, prefix)
        }

    def clear(self, upload: Upload) -> None:
        """Deletes the published stream."""
        keys = [{"Key": f"{upload.key}/{path}"} for path in self.published(upload)]
        for first in range(0, len(keys), 1000):
            batch = {"Objects": keys[first : first + 1000]}
            self._s3.delete_objects(Bucket=self._stack.output_bucket, Delete=batch)

    def start_task(self, upload: Upload, job_id: str, measured: str = "") -> TaskRun:
        """Starts a task.

        If `measured` is set (NAMES of measure.sh), the container prints measurements instead of the log.
        """
        role = self._stack.outputs["TaskRoleArn"].rpartition("/")[2]
        environment = {
            "AWS_ENDPOINT_URL": self._endpoint,
            "AWS_REGION": self._stack.settings.region,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self._endpoint}/v2/credentials/{role}/bench",
            "VIDSTREAMX_JOB_ID": job_id,
            "VIDSTREAMX_SOURCE_BUCKET": upload.bucket,
            "VIDSTREAMX_SOURCE_KEY": upload.key,
            "VIDSTREAMX_SOURCE_ETAG": upload.etag,
            "VIDSTREAMX_SOURCE_SIZE": str(upload.size),
            "VIDSTREAMX_OUTPUT_BUCKET": self._stack.output_bucket,
            "VIDSTREAMX_PROFILE": "default",
            "VIDSTREAMX_LOG_FORMAT": "json",
        }
        command = ["transcoder-task"]
        if measured:
            command = ["bash", "-c", _MEASURE.read_text(), _MEASURE.name, measured, *command]
        return TaskRun(self._stack.settings.image, self._network, environment, command)


def new_job_id() -> str:
    return secrets.token_hex(16)


def segments_by_rung(published: Published) -> dict[str, Published]:
    rungs: dict[str, Published] = {}
    for path, at in published.items():
        if match := _SEGMENT.search(path):
            rungs.setdefault(match[1], {})[path] = at
    return rungs


class TaskRun:
    """A task's container. It runs until the task exits, or until the end of the `with` block."""

    def __init__(self, image: str, network: str, environment: dict[str, str], command: list[str]) -> None:
        self.name = f"vidstreamx-bench-{secrets.token_hex(4)}"
        user, _, group = engine.docker("image", "inspect", "--format", "{{.Config.User}}", image).partition(
            ":"
        )
        work = f"{_WORK}:size={_WORK_MEGABYTES}m,uid={user},gid={group or user}"
        options = [part for name, value in environment.items() for part in ("--env", f"{name}={value}")]
        # The same restrictions as in the task definition.
        options += ["--network", network, "--read-only", "--cap-drop", "ALL", "--tmpfs", work]
        # The task replaces the shell as first process, so it gets the container's signals, and no process
        # outlives it.
        script = 'echo "$EPOCHREALTIME" >&2; exec "$@"'
        self._client = subprocess.Popen(
            [
                "docker",
                "run",
                "--name",
                self.name,
                *options,
                "--entrypoint",
                "bash",
                image,
                "-c",
                script,
                "-",
                *command,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._queue: queue.Queue[str | None] = queue.Queue()
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        first = self._next_line(time.monotonic() + 60) or "no output"
        if not re.fullmatch(r"\d+\.\d+", first):
            raise UserError(f"no container of {image} could be started: {first}")
        self.start = float(first)

    def __enter__(self) -> TaskRun:
        return self

    def __exit__(self, *_: object) -> None:
        engine.docker("rm", "--force", "--volumes", self.name, check=False)
        self._client.wait()

    def wait_for(self, message: str, timeout: float = 120) -> dict[str, Any]:
        """Waits for the log line with this message."""
        deadline = time.monotonic() + timeout
        while (line := self._next_line(deadline)) is not None:
            if (entry := _parse(line)).get("message") == message:
                return entry
        raise UserError(f'the task exited without the log message "{message}": {self.log_end()}')

    def seconds_to(self, message: str) -> float:
        """Seconds from the task's start to the log line with this message."""
        for line in self.lines:
            if (entry := _parse(line)).get("message") == message:
                return _timestamp(entry["timestamp"]) - self.start
        raise UserError(f'the task has not logged "{message}": {self.log_end()}')

    def signal(self, name: str) -> None:
        engine.docker("kill", "--signal", name, self.name)

    def wait(self, expected_code: int, timeout: float = _TIMEOUT) -> float:
        """Waits until the task exits. Returns its duration in seconds."""
        deadline = time.monotonic() + timeout
        while self._next_line(deadline) is not None:
            pass
        self._client.wait()
        state = engine.docker("inspect", "--format", "{{.State.ExitCode}} {{.State.FinishedAt}}", self.name)
        code, finished = state.split()
        if int(code) != expected_code:
            raise UserError(f"the task exited with {code} instead of {expected_code}: {self.log_end()}")
        return _timestamp(finished) - self.start

    def peak_megabytes(self) -> float:
        """The peak memory so far."""
        status = engine.docker("exec", self.name, "cat", "/proc/1/status")
        match = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
        return int(match[1]) * 1024 / 1e6 if match else 0.0

    def disk_megabytes(self) -> float:
        """The size of the task's temporary files, including deleted ones that are open. 0 after the exit."""
        command = ("df", "--output=used", "--block-size=1", _WORK)
        output = engine.docker("exec", self.name, *command, check=False)
        match = re.search(r"^\s*(\d+)$", output, re.MULTILINE)
        return int(match[1]) / 1e6 if match else 0.0

    @property
    def is_running(self) -> bool:
        return self._client.poll() is None

    def log_end(self) -> str:
        return " / ".join(self.lines[-3:])[-600:]

    def _next_line(self, deadline: float) -> str | None:
        """The next line of output; None after the last one."""
        try:
            line = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise UserError(f"{self.name} takes too long: {self.log_end()}") from None
        if line is not None:
            self.lines.append(line)
        return line

    def _read(self) -> None:
        for line in self._client.stdout or ():
            self._queue.put(line.rstrip())
        self._queue.put(None)


def _parse(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _timestamp(text: str) -> float:
    """Unix time of a timestamp of Docker or the task, with up to nine fractional digits."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    at = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.timezone.utc)
    return at.timestamp() + float(f"0.{fraction or 0}")


@contextmanager
def temporary_buckets(settings: Settings, folder: Path) -> Iterator[Buckets]:
    """Runs a stack, separate from that of `make demo`, until the end of the block."""
    address, _ = engine.route_to_host()
    if address != AGENT_ADDRESS:
        raise UserError("this benchmark needs a Docker engine on this machine that is not rootless")
    own = replace(settings, state=folder, port=free_port())
    stack.down(own)  # an earlier run that was killed leaves its stack
    address, network = engine.route_to_host()  # again, because `down` can remove the network
    try:
        yield Buckets(stack.up(own), address, network)
    finally:
        stack.down(own)
