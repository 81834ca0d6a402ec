"""Tasks as ECS starts them: a container each, which reads from the local stack's S3 and writes to it with the task
role's credentials. No consumer runs."""

from __future__ import annotations

import datetime
import json
import queue
import re
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vidstreamx_devtools.settings import REPO
from vidstreamx_devtools.settings import AGENT_ADDRESS, Problem, Settings

from vidstreamx_devtools.local import engine
from vidstreamx_devtools.local import stack

_MEASURE = Path(__file__).with_name("measure.sh")
_LIMIT_SECONDS = 900
# Of the folder for temporary files, the only one that can be written to. In memory, so that its size is known
# however short it is used.
_WORK = "/work"
_WORK_MEGABYTES = 1024
_SEGMENT = re.compile(r"/video/([^/]+)/seg-\d+\.m4s$")
MASTER = "master.m3u8"


@dataclass(frozen=True)
class Upload:
    key: str
    etag: str
    size: int


class Local:
    """The local stack's buckets, and who works on what is in them."""

    def __init__(self, running: stack.Stack, address: str, network: str):
        self._stack, self._network = running, network
        self._endpoint = f"http://{address}:{running.settings.port}"
        self._uploads, self._streams = (running.outputs[f"{name}BucketName"] for name in ("Upload", "Output"))
        self._s3 = running.client("s3")

    @contextmanager
    def upload(self, file: Path) -> Iterator[Upload]:
        """It is there until the end of its `with`: long ones are large, and the store keeps them in memory."""
        key = f"{file.stem}.mp4"
        self._s3.upload_file(str(file), self._uploads, key)
        head = self._s3.head_object(Bucket=self._uploads, Key=key)
        upload = Upload(key, head["ETag"].strip('"'), head["ContentLength"])
        try:
            yield upload
        finally:
            self.clear(upload)
            self._s3.delete_object(Bucket=self._uploads, Key=key)

    def published(self, upload: Upload) -> dict[str, float]:
        """When each object of the upload's streams was written, by the store's own clock, which is this machine's."""
        stem = f"{upload.key}/"
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._streams, Prefix=stem)
        return {
            found["Key"].removeprefix(stem): found["LastModified"].timestamp()
            for page in pages
            for found in page.get("Contents", [])
        }

    def clear(self, upload: Upload) -> None:
        """Nothing was ever made of the upload."""
        keys = [{"Key": f"{upload.key}/{path}"} for path in self.published(upload)]
        for first in range(0, len(keys), 1000):
            self._s3.delete_objects(Bucket=self._streams, Delete={"Objects": keys[first : first + 1000]})

    def attempt(self, upload: Upload, job_id: str, measured: str = "") -> Attempt:
        """Begins one. `measured`: see `measure.sh`, which then says what it found and keeps the log to itself."""
        environment = {
            "AWS_ENDPOINT_URL": self._endpoint,
            "AWS_REGION": self._stack.settings.region,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": self._credentials(),
            "VIDSTREAMX_JOB_ID": job_id,
            "VIDSTREAMX_SOURCE_BUCKET": self._uploads,
            "VIDSTREAMX_SOURCE_KEY": upload.key,
            "VIDSTREAMX_SOURCE_ETAG": upload.etag,
            "VIDSTREAMX_SOURCE_SIZE": str(upload.size),
            "VIDSTREAMX_OUTPUT_BUCKET": self._streams,
            "VIDSTREAMX_PROFILE": "default",
            "VIDSTREAMX_LOG_FORMAT": "json",
        }
        command = ["transcoder-task"]
        if measured:
            command = ["bash", "-c", _MEASURE.read_text(), _MEASURE.name, measured, *command]
        return Attempt(self._stack.settings.image, self._network, environment, command)

    def _credentials(self) -> str:
        role = self._stack.outputs["TaskRoleArn"].rpartition("/")[2]
        return f"{self._endpoint}/v2/credentials/{role}/bench"


def new_job() -> str:
    return secrets.token_hex(16)


def rungs(published: dict[str, float]) -> dict[str, dict[str, float]]:
    """The segments of each rung."""
    found: dict[str, dict[str, float]] = {}
    for path, at in published.items():
        if match := _SEGMENT.search(path):
            found.setdefault(match[1], {})[path] = at
    return found


class Attempt:
    """A task from its start to its end, or to the end of its `with`, if that is earlier."""

    def __init__(self, image: str, network: str, environment: dict[str, str], command: list[str]):
        self.name = f"vidstreamx-bench-{secrets.token_hex(4)}"
        user, _, group = engine.docker("image", "inspect", "--format", "{{.Config.User}}", image).partition(":")
        work = f"{_WORK}:size={_WORK_MEGABYTES}m,uid={user},gid={group or user}"
        variables = [part for name, value in environment.items() for part in ("--env", f"{name}={value}")]
        # What the task definition says. The process is the container's first, so what is sent to the container
        # reaches it, and nothing outlives it.
        self._client = subprocess.Popen(
            ["docker", "run", "--name", self.name, "--network", network, "--read-only", "--cap-drop", "ALL",
             "--tmpfs", work, *variables, "--entrypoint", "bash", image,
             "-c", 'echo "$EPOCHREALTIME" >&2; exec "$@"', "-", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.said: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        first = self._next(time.monotonic() + 60)
        if not re.fullmatch(r"\d+\.\d+", first or ""):
            raise Problem(f"no container of {image} could be started: {first or 'it said nothing'}")
        self.start = float(first or 0)

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, *_) -> None:
        engine.docker("rm", "--force", "--volumes", self.name, check=False)
        self._client.wait()

    def until(self, message: str, seconds: float = 120) -> dict:
        """Waits for the log line that says so."""
        deadline = time.monotonic() + seconds
        while (line := self._next(deadline)) is not None:
            if (said := _parsed(line)).get("message") == message:
                return said
        raise Problem(f'the task ended without having said "{message}": {self.last_words()}')

    def after(self, message: str) -> float:
        """Seconds from the task's start to the log line that said so."""
        for line in self.said:
            if (said := _parsed(line)).get("message") == message:
                return _instant(said["timestamp"]) - self.start
        raise Problem(f'the task has not said "{message}": {self.last_words()}')

    def signal(self, name: str) -> None:
        engine.docker("kill", "--signal", name, self.name)

    def end(self, expected: int, seconds: float = _LIMIT_SECONDS) -> float:
        """Waits until it ends; gives the seconds that it took."""
        deadline = time.monotonic() + seconds
        while self._next(deadline) is not None:
            pass
        self._client.wait()
        state = engine.docker("inspect", "--format", "{{.State.ExitCode}} {{.State.FinishedAt}}", self.name)
        code, finished = state.split()
        if int(code) != expected:
            raise Problem(f"the task ended with {code} and not {expected}: {self.last_words()}")
        return _instant(finished) - self.start

    def megabytes(self) -> float:
        """The most memory that it has had so far."""
        status = engine.docker("exec", self.name, "cat", "/proc/1/status")
        found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
        return int(found[1]) * 1024 / 1e6 if found else 0.0

    def disk_megabytes(self) -> float:
        """In its folder for temporary files, what is deleted but still open included. 0 when it has ended."""
        shown = engine.docker("exec", self.name, "df", "--output=used", "--block-size=1", _WORK, check=False)
        found = re.search(r"^\s*(\d+)$", shown, re.MULTILINE)
        return int(found[1]) / 1e6 if found else 0.0

    @property
    def is_running(self) -> bool:
        return self._client.poll() is None

    def last_words(self) -> str:
        return " / ".join(self.said[-3:])[-600:]

    def _next(self, deadline: float) -> str | None:
        """The next line, or None when there are no more."""
        try:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise Problem(f"{self.name} takes too long: {self.last_words()}") from None
        if line is not None:
            self.said.append(line)
        return line

    def _read(self) -> None:
        for line in self._client.stdout or ():
            self._lines.put(line.rstrip())
        self._lines.put(None)


def _parsed(line: str) -> dict:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _instant(text: str) -> float:
    """Seconds since 1970 of a time as Docker and the task write it, with up to nine digits behind the point."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    at = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.timezone.utc)
    return at.timestamp() + float(f"0.{fraction or 0}")


@contextmanager
def local(settings: Settings, folder: Path) -> Iterator[Local]:
    """A stack beside the one of `make demo`, gone afterwards."""
    address, network = engine.way_to_host()
    if address != AGENT_ADDRESS:
        raise Problem("this needs an engine of this machine's own: not Docker Desktop, not a rootless one")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        ours = replace(settings, state=folder, port=probe.getsockname()[1])
    # Of a run that was killed before it could tidy up.
    stack.down(ours)
    # Ending that may have taken the network along.
    address, network = engine.way_to_host()
    try:
        yield Local(stack.up(ours), address, network)
    finally:
        stack.down(ours)
