"""The one run that most tests look at: everything that can arrive arrives, and one consumer deals with it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

from vidstreamx_devtools.e2e import events
from vidstreamx_devtools.e2e.upload_files import Clips
from vidstreamx_devtools.waiting import until
from vidstreamx_devtools.e2e.stack_fixture import DeadLetter, Upload, World, is_about

ODD_KEYS = {
    "spaces and marks": "odd/a b  c+d&e#f=g?h%20i;j,k:l@m$n.mp4",
    "quotes and brackets": "odd/'it' \"is\" (a) [film] {of} ~mine~!.mp4",
    "unicode": "odd/Größe/日本語/e\u0301🎬.mp4",
    "leading dots": ".odd/..dots/...and more.mp4",
    "upper-case suffix": "odd/SHOUTED.MP4",
    "1,024 bytes": "odd/long/" + "n" * 509 + "/" + "é" * 250 + "+.mp4",
}

_PATIENCE = 180
# Names that the bucket sends no events for: only the test's own message tells of them.
_UNTOLD = "untold/{} é+&.video"


@dataclass
class Case:
    """Something that arrives, and where it has to end."""

    what: str
    ends: set[str]  # the record's states that are right; empty where there is no job
    upload: Upload | None = None
    message_id: str | None = None  # of the message that the test sent
    body: str | None = None
    dead: bool = False  # whether its message belongs into the dead-letter queue

    # Filled in by what happened.
    record: dict | None = None
    report: dict | None = None
    report_key: str | None = None
    progress: dict | None = None
    tasks: list[dict] = field(default_factory=list)
    lines: list[dict] = field(default_factory=list)  # of the consumer's log, about bucket and key or message

    @property
    def state(self) -> str:
        return self.record["state"] if self.record else "no job"

    @property
    def stem(self) -> str:
        """Where the stream is."""
        assert self.report_key and self.record
        return self.report_key.removesuffix(f"/{self.record['job_id']}/job.json")

    @property
    def reason(self) -> str:
        if self.record:
            return self.record.get("reason") or "; ".join((self.report or {}).get("warnings", []))
        return next((line["reason"] for line in self.lines if "reason" in line), "")


@dataclass
class Story:
    cases: dict[str, Case]
    messages: int  # that were in the queue, in all
    consumer_survived: bool
    consumer_exit: int | None
    seconds_to_exit: float
    consumer_lines: list[dict]
    queue_emptied: bool
    dead_letters: list[DeadLetter]
    records: list[dict]
    task_logs: dict[str, list[str]]

    def __getitem__(self, what: str) -> Case:
        return self.cases[what]

    def letters_about(self, case: Case) -> list[DeadLetter]:
        return [letter for letter in self.dead_letters if _speaks_of(letter.body, case)]

    def message_end(self, case: Case) -> str:
        if self.letters_about(case):
            return "dead-letter queue"
        of_its_own = [line["message"] for line in case.lines if line.get("message.id") == case.message_id]
        return "deleted" if self.queue_emptied or "message deleted" in of_its_own else "still there"

    def table(self) -> str:
        rows = [["What arrived", "Job", "Tasks", "Exit", "Message", "Why"]]
        for case in self.cases.values():
            exits = [str(task["containers"][0].get("exitCode")) for task in case.tasks]
            rows.append([
                case.what,
                case.state,
                str(len(case.tasks)),
                ",".join(exits) or "-",
                self.message_end(case),
                _short(case.reason),
            ])  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*rows)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def tell(world: World, clips: Clips) -> Story:
    cases = {case.what: case for case in _arrivals(world, clips)}
    messages = world.waiting()["Visible"]
    consumer = world.consumer(
        "run", "--max-tasks", "4", "--log-format", "json", "--log", "info,vidstreamx_consumer=debug"
    )

    def has_settled() -> bool:
        return not consumer.is_running or world.is_queue_empty()

    until(has_settled, within=_PATIENCE, every=0.5)

    # What was dealt with long ago comes once more.
    twice = cases["sent twice"]
    late = Case("and once more, afterwards", twice.ends, twice.upload)
    late.body = events.s3(twice.upload)
    late.message_id = world.send(late.body)
    cases[late.what] = late
    until(has_settled, within=30)

    survived = consumer.is_running
    told_to_end = time.monotonic()
    exit_code = consumer.terminate(within=15)
    story = Story(
        cases=cases,
        messages=messages + 1,
        consumer_survived=survived,
        consumer_exit=exit_code,
        seconds_to_exit=time.monotonic() - told_to_end,
        consumer_lines=consumer.lines,
        queue_emptied=world.is_queue_empty(),
        dead_letters=world.take_dead_letters(),
        records=world.records(),
        task_logs={},
    )
    _look(world, story)
    return story


def _arrivals(world: World, clips: Clips):
    """Everything is there before the consumer is."""

    def upload(what: str, ends: set[str], key: str, file) -> Case:
        return Case(what, ends, world.upload(key, file))

    def message(case: Case, body: str) -> Case:
        case.body = body
        case.message_id = world.send(body)
        return case

    yield message(Case("rubbish", set(), dead=True), 'rubbish, not {"JSON"')
    elsewhere = Upload("somebody-elses-bucket", "not for us.mp4", "0" * 32, 9)
    yield message(Case("another bucket's event", set(), elsewhere, dead=True), events.s3(elsewhere))
    yield message(Case("s3:TestEvent", set()), events.test_event(world.uploads))
    removed = Upload(world.uploads, "removed.mp4", "1" * 32, 9)
    yield message(Case("a removal's event", set(), removed), events.s3(removed, event="ObjectRemoved:Delete"))

    yield upload("1080p clip", {"done"}, "full hd.mp4", clips.full_hd)

    for what, key in ODD_KEYS.items():
        yield upload(f"key: {what}", {"done"}, key, clips.small)

    twice = upload("sent twice", {"done"}, "twice.mp4", clips.small)
    yield message(twice, events.s3(twice.upload))
    wrapped = upload("wrapped by SNS", {"done"}, _UNTOLD.format("sns"), clips.small)
    yield message(wrapped, events.sns(events.s3(wrapped.upload)))
    bridged = upload("through EventBridge", {"done"}, _UNTOLD.format("eventbridge"), clips.small)
    yield message(bridged, events.event_bridge(bridged.upload))
    pair = [upload(f"{which} of two records", {"done"}, _UNTOLD.format(which), clips.small) for which in ("1st", "2nd")]
    both = events.s3(*(case.upload for case in pair))
    yield message(pair[0], both)
    pair[1].message_id, pair[1].body = pair[0].message_id, both
    yield pair[1]

    yield upload("text named .mp4", {"rejected"}, "text & co.mp4", clips.text)
    yield upload("empty file", {"rejected"}, "empty #1.mp4", clips.empty)
    yield upload("truncated file", {"done", "rejected"}, "truncated.mp4", clips.truncated)

    gone = upload("deleted meanwhile", {"obsolete"}, "gone + lost.mp4", clips.small)
    world.s3.delete_object(Bucket=world.uploads, Key=gone.upload.key)
    yield gone
    yield upload("replaced meanwhile", {"obsolete"}, "replaced.mp4", clips.full_hd)
    yield upload("its replacement", {"done"}, "replaced.mp4", clips.small)


def _look(world: World, story: Story) -> None:
    """Gathers what is known about each case."""
    reports = {key.split("/")[-2]: key for key in world.keys(world.streams) if key.endswith("/job.json")}
    tasks = world.tasks()
    for case in story.cases.values():
        place = (case.upload.bucket, case.upload.key) if case.upload else None
        for line in story.consumer_lines:
            about_place = place and (line.get("s3.bucket"), line.get("s3.key")) == place
            about_message = case.message_id and line.get("message.id") == case.message_id
            if about_place or about_message:
                case.lines.append(line)
        case.record = next((record for record in story.records if case.upload and is_about(record, case.upload)), None)
        if case.record is None:
            continue
        job = case.record["job_id"]
        case.tasks = [task for task in tasks if task.get("startedBy") == job]
        case.report_key = reports.get(job)
        if case.report_key:
            case.report = world.read(case.report_key)
        if case.tasks:
            case.progress = world.progress(job)
        for task in case.tasks:
            story.task_logs[task["taskArn"]] = world.task_log(task["taskArn"])


def _speaks_of(body: str, case: Case) -> bool:
    """Whether a message is this case's: by its very text, or by what S3 says in it."""
    if case.body == body:
        return True
    if case.upload is None:
        return False
    try:
        records = json.loads(events.s3(case.upload))["Records"]
        named = [record["s3"] for record in json.loads(body).get("Records", [])]
    except (ValueError, TypeError, AttributeError, KeyError):
        return False
    mine = records[0]["s3"]
    return any(
        one["bucket"]["name"] == mine["bucket"]["name"]
        and one["object"]["key"] == mine["object"]["key"]
        and one["object"].get("eTag") == mine["object"]["eTag"]
        for one in named
    )


def _short(text: str, most: int = 70) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
