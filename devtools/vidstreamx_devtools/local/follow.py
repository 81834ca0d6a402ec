"""Follows one upload to its end, from what the consumer and the task publish about it."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, field

import botocore.exceptions
from vidstreamx_devtools.processes import Process
from vidstreamx_devtools.settings import Problem
from vidstreamx_devtools.local.stack import Stack
from vidstreamx_devtools.terminal import Line

_RECORDS = ".vidstreamx/jobs/"
_PATIENCE = 60  # seconds until the consumer has to have written a record
_POLL = 0.4
_MISCONFIGURED = 78  # the task's exit code, see docs/ARCHITECTURE.md
_FAILED_STARTS = 3


@dataclass
class Upload:
    bucket: str
    key: str
    etag: str
    size: int


@dataclass
class Result:
    """The consumer's record of a job, the task's report on it, and the task as ECS describes it."""

    record: dict
    report: dict | None = None
    task: dict | None = None

    @property
    def attempt(self) -> dict:
        return self.record["attempts"][-1] if self.record["attempts"] else {}

    @property
    def is_done(self) -> bool:
        return self.record["state"] == "done"

    @property
    def reason(self) -> str:
        report = self.report or {}
        words = report.get("reason") or self.record.get("reason") or self.attempt.get("reason")
        return f"{self.record['state']}: {words or 'no reason given'}"


def upload(stack: Stack, file, key: str) -> Upload:
    """Puts a file into the upload bucket."""
    s3 = stack.client("s3")
    bucket = stack.outputs["UploadBucketName"]
    s3.upload_file(str(file), bucket, key)
    about = s3.head_object(Bucket=bucket, Key=key)
    return Upload(bucket, key, about["ETag"].strip('"'), about["ContentLength"])


def find_record(stack: Stack, uploaded: Upload) -> dict | None:
    """The consumer's record of this content, if there is one."""
    return _Records(stack).find(uploaded)


def follow(stack: Stack, consumer: Process, uploaded: Upload) -> Result:
    """Shows progress until the job has ended."""
    records = _Records(stack)
    line = Line("transcode:")
    started = time.monotonic()
    try:
        while True:
            record = records.find(uploaded)
            if record is not None and record["state"] != "running":
                break
            if consumer.pid is None:
                raise Problem(
                    f"the consumer ended: {consumer.last_line()} (log: {consumer.log}); "
                    "make demo starts another, which goes on with the video"
                )
            if record is None:
                if time.monotonic() - started > _PATIENCE:
                    raise Problem(f"the consumer has not taken the upload in {_PATIENCE} s: see {consumer.log}")
                line.update("waiting for the consumer")
            else:
                hindrance = _hindrance(record["attempts"])
                if hindrance is not None:
                    raise Problem(f"{uploaded.key} can't be transcoded: {hindrance} (log: {consumer.log})")
                line.update(_progress(stack, record, started))
            time.sleep(_POLL)
    except BaseException:
        line.clear()
        raise
    result = read_result(stack, record)
    line.end(record["state"])
    return result


def _hindrance(attempts: list[dict]) -> str | None:
    """Why no attempt will succeed. The consumer goes on trying, for what is wrong is not the video."""
    last = attempts[-_FAILED_STARTS:]
    if not last or not last[-1].get("ended_at"):
        return None
    reason = " ".join((last[-1].get("reason") or "no reason given").split())
    if last[-1].get("exit_code") == _MISCONFIGURED:
        return f"the task's settings are wrong: {reason}"
    if len(last) == _FAILED_STARTS and all(attempt.get("stop_code") == "TaskFailedToStart" for attempt in last):
        return f"its task failed to start {_FAILED_STARTS} times: {reason}"
    return None


def read_result(stack: Stack, record: dict) -> Result:
    """Everything that is published about an ended job."""
    result = Result(record)
    with contextlib.suppress(botocore.exceptions.ClientError, ValueError):
        key = f"{record['source']['key']}/job.json"
        answer = stack.client("s3").get_object(Bucket=stack.outputs["OutputBucketName"], Key=key)
        report = json.load(answer["Body"])
        # The stable address belongs to the latest content of that name.
        if report["job_id"] == record["job_id"]:
            result.report = report
    arn = result.attempt.get("task_arn")
    if arn:
        result.task = _describe(stack, arn)
    return result


def last_log_lines(stack: Stack, task_arn: str, count: int = 8) -> list[str]:
    """The end of a task's log."""
    with contextlib.suppress(botocore.exceptions.ClientError):
        container = stack.outputs.get("ContainerName", "transcoder")
        answer = stack.client("logs").get_log_events(
            logGroupName=stack.outputs["LogGroupName"],
            logStreamName=f"transcoder/{container}/{task_arn.rpartition('/')[2]}",
            limit=count,
        )
        return [event["message"].rstrip() for event in answer["events"]]
    return []


def _progress(stack: Stack, record: dict, started: float) -> str:
    attempt = record["attempts"][-1] if record["attempts"] else {}
    seconds = f"{time.monotonic() - started:.0f} s"
    again = f", attempt {attempt['number']}" if attempt.get("number", 1) > 1 else ""
    arn = attempt.get("task_arn")
    if arn is None:
        return f"starting a task{again}, {seconds}"
    progress = _told_progress(stack, record["job_id"], attempt)
    if progress is None:
        status = (_describe(stack, arn) or {}).get("lastStatus", "PENDING")
        return f"task {status.lower()}{again}, {seconds}"
    filled = round(progress["share"] * 20)
    speed = f"  {progress['speed']:.1f}x" if progress.get("speed") else ""
    bar = f"[{'█' * filled}{'·' * (20 - filled)}] {progress['share']:4.0%}"
    return f"{bar}{speed}  {progress['stage']}, {seconds}{again}"


def _told_progress(stack: Stack, job_id: str, attempt: dict) -> dict | None:
    """What the attempt's task says about how far it is."""
    with contextlib.suppress(botocore.exceptions.ClientError, ValueError):
        answer = stack.client("s3").get_object(
            Bucket=stack.outputs["OutputBucketName"], Key=f".vidstreamx/progress/{job_id}.json"
        )
        progress = json.load(answer["Body"])
        # It may be from the attempt before. Both times are in UTC, to the second.
        if progress["started_at"][:19] >= attempt["started_at"][:19]:
            return progress
    return None


def _describe(stack: Stack, arn: str) -> dict | None:
    with contextlib.suppress(botocore.exceptions.ClientError):
        found = stack.client("ecs").describe_tasks(cluster=stack.outputs["ClusterName"], tasks=[arn])
        return found["tasks"][0] if found["tasks"] else None
    return None


@dataclass
class _Records:
    """The records in the output bucket, each version of them read once."""

    stack: Stack
    _read: dict[str, tuple[str, dict]] = field(default_factory=dict)

    def find(self, uploaded: Upload) -> dict | None:
        s3 = self.stack.client("s3")
        bucket = self.stack.outputs["OutputBucketName"]
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=_RECORDS):
            for item in page.get("Contents", []):
                key, etag = item["Key"], item["ETag"]
                if self._read.get(key, ("",))[0] != etag:
                    body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
                    self._read[key] = (etag, json.loads(body))
        found = [
            record
            for _, record in self._read.values()
            if record["source"]["key"] == uploaded.key and record["source"].get("etag") == uploaded.etag
        ]
        return max(found, key=lambda record: record["created_at"], default=None)
