"""The scenario of most end-to-end tests: many kinds of messages and uploads, and one consumer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidstreamx_devtools.e2e.events import eventbridge_event, s3_event, s3_test_event, sns_message
from vidstreamx_devtools.e2e.stack_fixture import DeadLetter, StackFixture, exit_code, is_record_of
from vidstreamx_devtools.e2e.upload_files import UploadFiles
from vidstreamx_devtools.local.stack import JsonObject, Upload
from vidstreamx_devtools.terminal import left_aligned_table
from vidstreamx_devtools.waiting import wait_until

UNUSUAL_KEYS = {
    "spaces and marks": "odd/a b  c+d&e#f=g?h%20i;j,k:l@m$n.mp4",
    "quotes and brackets": "odd/'it' \"is\" (a) [film] {of} ~mine~!.mp4",
    "unicode": "odd/Größe/日本語/e\u0301🎬.mp4",
    "leading dots": ".odd/..dots/...and more.mp4",
    "upper-case suffix": "odd/SHOUTED.MP4",
    "1,024 bytes": "odd/long/" + "n" * 509 + "/" + "é" * 250 + "+.mp4",
}

_TIMEOUT = 180
# The bucket sends no events for keys with this suffix, so only the test's own message arrives.
_KEY_WITHOUT_EVENT = "no-event/{} é+&.video"


@dataclass
class Case:
    """A message or an upload, and the expected result."""

    name: str
    states: set[str]  # allowed states of the record; empty if there must be no job
    upload: Upload | None = None
    message_id: str | None = None  # id of the message that the test sent
    body: str | None = None
    is_dead_letter: bool = False  # whether the message belongs in the dead-letter queue

    # Filled in after the run. JSON objects, or None.
    record: Any = None
    report: Any = None
    report_key: str | None = None
    progress: Any = None
    tasks: list[JsonObject] = field(default_factory=list)
    lines: list[JsonObject] = field(
        default_factory=list
    )  # log lines of the consumer about this object or message

    @property
    def state(self) -> str:
        return self.record["state"] if self.record else "no job"

    @property
    def address(self) -> str:
        """The folder of the stream."""
        assert self.report_key
        return self.report_key.removesuffix(f"/{self.record['job_id']}/job.json")

    @property
    def reason(self) -> str:
        if self.record:
            return self.record.get("reason") or "; ".join((self.report or {}).get("warnings", []))
        return next((line["reason"] for line in self.lines if "reason" in line), "")


@dataclass
class Scenario:
    """The result of the run."""

    cases: dict[str, Case]
    message_count: int  # number of all messages that were sent to the queue
    consumer_survived: bool
    consumer_exit: int | None
    seconds_to_exit: float
    consumer_lines: list[JsonObject]
    queue_emptied: bool
    dead_letters: list[DeadLetter]
    records: list[JsonObject]
    task_logs: dict[str, list[str]]  # by task ARN

    def __getitem__(self, name: str) -> Case:
        return self.cases[name]

    def dead_letters_of(self, case: Case) -> list[DeadLetter]:
        return [letter for letter in self.dead_letters if _belongs_to(letter.body, case)]

    def message_result(self, case: Case) -> str:
        if self.dead_letters_of(case):
            return "dead-letter queue"
        logged = [line["message"] for line in case.lines if line.get("message.id") == case.message_id]
        return "deleted" if self.queue_emptied or "message deleted" in logged else "in the queue"

    def table(self) -> str:
        rows = [["Input", "Job", "Tasks", "Exit", "Message", "Reason"]]
        for case in self.cases.values():
            rows.append(
                [
                    case.name,
                    case.state,
                    str(len(case.tasks)),
                    ",".join(str(exit_code(task)) for task in case.tasks) or "-",
                    self.message_result(case),
                    _shorten(case.reason),
                ]
            )
        return left_aligned_table(rows)


def run_scenario(stack: StackFixture, files: UploadFiles) -> Scenario:
    cases = {case.name: case for case in _create_cases(stack, files)}
    message_count = stack.message_counts()["Visible"]
    consumer = stack.start_consumer(
        "run", "--max-tasks", "4", "--log-format", "json", "--log", "info,vidstreamx_consumer=debug"
    )

    def is_settled() -> bool:
        return not consumer.is_running or stack.is_queue_empty()

    wait_until(is_settled, timeout=_TIMEOUT, interval=0.5)

    # Sends the event of an upload again after its job has ended.
    twice = cases["sent twice"]
    assert twice.upload
    late = Case("sent again after its end", twice.states, twice.upload)
    late.body = s3_event(twice.upload)
    late.message_id = stack.send(late.body)
    cases[late.name] = late
    wait_until(is_settled, timeout=30)

    survived = consumer.is_running
    terminated_at = time.monotonic()
    consumer_exit = consumer.terminate(timeout=15)
    scenario = Scenario(
        cases=cases,
        message_count=message_count + 1,
        consumer_survived=survived,
        consumer_exit=consumer_exit,
        seconds_to_exit=time.monotonic() - terminated_at,
        consumer_lines=consumer.lines,
        queue_emptied=stack.is_queue_empty(),
        dead_letters=stack.take_dead_letters(),
        records=stack.records(),
        task_logs={},
    )
    _collect_results(stack, scenario)
    return scenario


def _create_cases(stack: StackFixture, files: UploadFiles) -> Iterator[Case]:
    """Uploads all files and sends all messages, before the consumer starts."""

    def upload(name: str, states: set[str], key: str, file: Path) -> Case:
        return Case(name, states, stack.upload(key, file))

    def send(case: Case, body: str) -> Case:
        case.body = body
        case.message_id = stack.send(body)
        return case

    def upload_without_event(name: str, key: str) -> tuple[Case, Upload]:
        uploaded = stack.upload(_KEY_WITHOUT_EVENT.format(key), files.small)
        return Case(name, {"done"}, uploaded), uploaded

    yield send(Case("invalid JSON", set(), is_dead_letter=True), 'rubbish, not {"JSON"')
    foreign = Upload("another-bucket", "not for us.mp4", "0" * 32, 9)
    yield send(Case("event of another bucket", set(), foreign, is_dead_letter=True), s3_event(foreign))
    yield send(Case("s3:TestEvent", set()), s3_test_event(stack.upload_bucket))
    removed = Upload(stack.upload_bucket, "removed.mp4", "1" * 32, 9)
    yield send(Case("event of a removal", set(), removed), s3_event(removed, event="ObjectRemoved:Delete"))

    yield upload("1080p clip", {"done"}, "full hd.mp4", files.full_hd)

    for name, key in UNUSUAL_KEYS.items():
        yield upload(f"key: {name}", {"done"}, key, files.small)

    twice = stack.upload("twice.mp4", files.small)
    yield send(Case("sent twice", {"done"}, twice), s3_event(twice))
    case, uploaded = upload_without_event("wrapped by SNS", "sns")
    yield send(case, sns_message(s3_event(uploaded)))
    case, uploaded = upload_without_event("through EventBridge", "eventbridge")
    yield send(case, eventbridge_event(uploaded))
    first, first_upload = upload_without_event("1st of two records", "1st")
    second, second_upload = upload_without_event("2nd of two records", "2nd")
    yield send(first, s3_event(first_upload, second_upload))
    second.message_id, second.body = first.message_id, first.body
    yield second

    yield upload("text named .mp4", {"rejected"}, "text & co.mp4", files.text)
    yield upload("empty file", {"rejected"}, "empty #1.mp4", files.empty)
    yield upload("truncated file", {"rejected"}, "truncated.mp4", files.truncated)
    if files.real:
        yield upload("clip of the corpus", {"done"}, "real.mp4", files.real)

    deleted = stack.upload("gone + lost.mp4", files.small)
    stack.delete(deleted)
    yield Case("deleted before the start", {"obsolete"}, deleted)
    yield upload("replaced before the start", {"obsolete"}, "replaced.mp4", files.full_hd)
    yield upload("the replacement", {"done"}, "replaced.mp4", files.small)


def _collect_results(stack: StackFixture, scenario: Scenario) -> None:
    """Fills in the results of each case."""
    keys = stack.keys(stack.output_bucket)
    report_keys = {key.split("/")[-2]: key for key in keys if key.endswith("/job.json")}
    tasks = stack.tasks()
    for case in scenario.cases.values():
        case.lines = [line for line in scenario.consumer_lines if _is_line_of(line, case)]
        if case.upload is None:
            continue
        upload = case.upload
        case.record = next((record for record in scenario.records if is_record_of(record, upload)), None)
        if case.record is None:
            continue
        job_id = case.record["job_id"]
        case.tasks = [task for task in tasks if task.get("startedBy") == job_id]
        case.report_key = report_keys.get(job_id)
        if case.report_key:
            case.report = stack.local.read_json(case.report_key)
        if case.tasks:
            case.progress = stack.progress(job_id)
        for task in case.tasks:
            scenario.task_logs[task["taskArn"]] = stack.task_log(task["taskArn"])


def _is_line_of(line: JsonObject, case: Case) -> bool:
    if case.message_id and line.get("message.id") == case.message_id:
        return True
    upload = case.upload
    return upload is not None and (line.get("s3.bucket"), line.get("s3.key")) == (upload.bucket, upload.key)


def _belongs_to(body: str, case: Case) -> bool:
    """Whether the message has the case's text, or an S3 event about the case's object."""
    if case.body == body:
        return True
    if case.upload is None:
        return False
    try:
        objects = [record["s3"] for record in json.loads(body).get("Records", [])]
    except (ValueError, TypeError, AttributeError, KeyError):
        return False
    own = json.loads(s3_event(case.upload))["Records"][0]["s3"]
    return any(
        other["bucket"]["name"] == own["bucket"]["name"]
        and other["object"]["key"] == own["object"]["key"]
        and other["object"].get("eTag") == own["object"]["eTag"]
        for other in objects
    )


def _shorten(text: str, most: int = 70) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
