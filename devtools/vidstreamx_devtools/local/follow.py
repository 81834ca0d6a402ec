"""Follows one upload to its end, by the records, progress and report that consumer and task publish."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field

import botocore.exceptions

from vidstreamx_devtools.local.stack import JsonObject, Stack, Upload
from vidstreamx_devtools.processes import BackgroundProcess
from vidstreamx_devtools.settings import UserError
from vidstreamx_devtools.terminal import ProgressLine

_RECORDS = ".vidstreamx/jobs/"
_RECORD_TIMEOUT = 60  # seconds until the consumer must have written a record
_POLL_INTERVAL = 0.4
_EXIT_MISCONFIGURED = 78  # the task's exit code, see docs/ARCHITECTURE.md
_FAILED_STARTS = 3


@dataclass
class Result:
    """The consumer's record of a job, the task's report, and the task as ECS describes it."""

    record: JsonObject
    report: JsonObject | None = None
    task: JsonObject | None = None

    @property
    def attempt(self) -> JsonObject:
        """The latest attempt; empty if there was none."""
        return self.record["attempts"][-1] if self.record["attempts"] else {}

    @property
    def is_done(self) -> bool:
        return bool(self.record["state"] == "done")

    @property
    def reason(self) -> str:
        report = self.report or {}
        reason = report.get("reason") or self.record.get("reason") or self.attempt.get("reason")
        return f"{self.record['state']}: {reason or 'no reason given'}"


def find_record(stack: Stack, uploaded: Upload) -> JsonObject | None:
    """The consumer's record of this content, if it exists."""
    return _Records(stack).find(uploaded)


def follow(stack: Stack, consumer: BackgroundProcess, uploaded: Upload) -> Result:
    """Shows progress until the job ends."""
    records = _Records(stack)
    line = ProgressLine("transcode:")
    started = time.monotonic()
    try:
        while True:
            record = records.find(uploaded)
            if record is not None and record["state"] != "running":
                break
            if consumer.pid is None:
                raise UserError(
                    f"the consumer exited: {consumer.last_line()} (log: {consumer.log}); "
                    "run make demo to start another consumer, which continues with the video"
                )
            if record is None:
                if time.monotonic() - started > _RECORD_TIMEOUT:
                    raise UserError(f"no record of the upload after {_RECORD_TIMEOUT} s: see {consumer.log}")
                line.update("waiting for the consumer")
            else:
                error = _permanent_error(record["attempts"])
                if error is not None:
                    raise UserError(f"{uploaded.key} can't be transcoded: {error} (log: {consumer.log})")
                line.update(_progress(stack, record, started))
            time.sleep(_POLL_INTERVAL)
    except BaseException:
        line.clear()
        raise
    result = read_result(stack, record)
    line.end(record["state"])
    return result


def _permanent_error(attempts: list[JsonObject]) -> str | None:
    """The reason why no attempt can succeed. The consumer keeps trying, because the video is not at fault."""
    last = attempts[-_FAILED_STARTS:]
    if not last or not last[-1].get("ended_at"):
        return None
    reason = " ".join((last[-1].get("reason") or "no reason given").split())
    if last[-1].get("exit_code") == _EXIT_MISCONFIGURED:
        return f"the task's settings are wrong: {reason}"
    if len(last) == _FAILED_STARTS and all(
        attempt.get("stop_code") == "TaskFailedToStart" for attempt in last
    ):
        return f"its task failed to start {_FAILED_STARTS} times: {reason}"
    return None


def read_result(stack: Stack, record: JsonObject) -> Result:
    """Reads the report and the task of an ended job."""
    result = Result(record)
    with contextlib.suppress(botocore.exceptions.ClientError, ValueError):
        report = stack.read_json(f"{record['source']['key']}/job.json")
        # The stable address has the report of the latest content under this key.
        if report["job_id"] == record["job_id"]:
            result.report = report
    arn = result.attempt.get("task_arn")
    if arn:
        result.task = _describe(stack, arn)
    return result


def _progress(stack: Stack, record: JsonObject, started: float) -> str:
    attempt = record["attempts"][-1] if record["attempts"] else {}
    seconds = f"{time.monotonic() - started:.0f} s"
    number = f", attempt {attempt['number']}" if attempt.get("number", 1) > 1 else ""
    arn = attempt.get("task_arn")
    if arn is None:
        return f"starting a task{number}, {seconds}"
    progress = _read_progress(stack, record["job_id"], attempt)
    if progress is None:
        status = (_describe(stack, arn) or {}).get("lastStatus", "PENDING")
        return f"task {status.lower()}{number}, {seconds}"
    filled = round(progress["share"] * 20)
    speed = f"  {progress['speed']:.1f}x" if progress.get("speed") else ""
    bar = f"[{'█' * filled}{'·' * (20 - filled)}] {progress['share']:4.0%}"
    return f"{bar}{speed}  {progress['stage']}, {seconds}{number}"


def _read_progress(stack: Stack, job_id: str, attempt: JsonObject) -> JsonObject | None:
    """The status object of the attempt's task, if the task has written one."""
    with contextlib.suppress(botocore.exceptions.ClientError, ValueError):
        progress = stack.read_json(f".vidstreamx/progress/{job_id}.json")
        # The object can be of an earlier attempt. Compares both times (in UTC) without fractions of a second.
        if progress["started_at"][:19] >= attempt["started_at"][:19]:
            return progress
    return None


def _describe(stack: Stack, arn: str) -> JsonObject | None:
    with contextlib.suppress(botocore.exceptions.ClientError):
        described = stack.client("ecs").describe_tasks(cluster=stack.outputs["ClusterName"], tasks=[arn])
        return described["tasks"][0] if described["tasks"] else None
    return None


@dataclass
class _Records:
    """The records in the output bucket. Reads each version of a record once."""

    stack: Stack
    _cache: dict[str, tuple[str, JsonObject]] = field(default_factory=dict)  # ETag and record by key

    def find(self, uploaded: Upload) -> JsonObject | None:
        for item in self.stack.list_objects(self.stack.output_bucket, _RECORDS):
            key, etag = item["Key"], item["ETag"]
            if self._cache.get(key, ("",))[0] != etag:
                self._cache[key] = (etag, self.stack.read_json(key))
        matches = [
            record
            for _, record in self._cache.values()
            if record["source"]["key"] == uploaded.key and record["source"].get("etag") == uploaded.etag
        ]
        return max(matches, key=lambda record: str(record["created_at"]), default=None)
