"""Twenty uploads, while the consumer is killed five times and tasks' containers are killed as well.

All that is left to chance comes from one seed. It does not rule how fast the machine is: the same seed makes
the same uploads, moments and lots, not the same instants.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from vidstreamx_devtools.e2e import events
from vidstreamx_devtools.e2e.fault_proxy import Moment, between
from vidstreamx_devtools.e2e.upload_files import Clips
from vidstreamx_devtools.waiting import until
from vidstreamx_devtools.e2e.stack_fixture import DeadLetter, Upload, World, is_about, is_running

CONSUMER_KILLS = 5
RUBBISH = ["rubbish", '{"what": "JSON, but no event"}']

# How many calls of each kind a consumer makes for its first few videos, at least.
_CALLS = {"ReceiveMessage": 2, "PUT record": 8, "RunTask": 4, "DescribeTasks": 4, "DeleteMessage": 2}
# A killed consumer's messages come back after 90 s.
_PATIENCE = 180
# A container that is killed looks like one that had too little memory: a third time would fail the video.
_KILLS_PER_JOB = 2


@dataclass
class Case:
    """One of the uploads."""

    what: str
    ends: set[str]
    upload: Upload
    record: dict | None = None
    tasks: list[dict] = field(default_factory=list)

    @property
    def state(self) -> str:
        return self.record["state"] if self.record else "no record"

    @property
    def exits(self) -> list[int | None]:
        return [task["containers"][0].get("exitCode") for task in self.tasks]


@dataclass
class Ordeal:
    cases: list[Case]
    struck: list[str]  # when each consumer was killed
    killed: Counter[str]  # containers, by job
    together: set[str]  # jobs that were seen with two tasks at a time
    drained: int | None  # the last consumer's exit code
    queue_emptied: bool
    history: list[dict]
    dead_letters: list[DeadLetter]

    def table(self) -> str:
        rows = [["What", "State", "Exits", "Reason"]]
        for case in self.cases:
            exits = ",".join(map(str, case.exits)) or "-"
            rows.append([case.what, case.state, exits, (case.record or {}).get("reason", "")])
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        killed = f"Consumers killed {'; '.join(self.struck)}. Containers killed: {self.killed.total()}."
        return "\n".join([*lines, killed])


def endure(world: World, clips: Clips, seed: int) -> Ordeal:
    dice = Random(seed)
    world.until_no_poll_is_left()
    cases = _arrivals(world, clips, dice)
    late = next(case for case in cases if case.what == "deleted later")
    reaper = _Reaper(world, dice)
    struck = []
    with between(world.stack.settings.port) as services:
        environment = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{services.port}"}
        for moment in _moments(dice):
            consumer = world.consumer("run", "--max-tasks", "4", environment=environment)
            services.arm(moment, consumer.kill)
            deadline = time.monotonic() + _PATIENCE
            # The moment does not come if nothing is left to be done: then that is the moment.
            while not (services.struck.wait(0.05) or world.is_queue_empty()):
                assert consumer.is_running or services.struck.is_set(), consumer.output
                assert time.monotonic() < deadline, f"{moment} did not come: {consumer.output}"
                reaper.look()
            consumer.kill()
            struck.append(str(moment) if services.struck.is_set() else "while nothing was left to do")
            if len(struck) == 2:
                world.s3.delete_object(Bucket=late.upload.bucket, Key=late.upload.key)
            if len(struck) == 3:
                world.send(events.s3(dice.choice(cases).upload))
        last = world.consumer("run", "--max-tasks", "4", "--drain", environment=environment)
        until(lambda: reaper.look() or not last.is_running, within=_PATIENCE, every=0.05)

    drained = last.wait(within=0)
    told = world.consumer("history", "--json")
    assert told.wait(within=30) == 0, told.output
    uploads = {case.upload.key for case in cases}
    endured = Ordeal(
        cases=cases,
        struck=struck,
        killed=reaper.killed,
        together=reaper.together,
        drained=drained,
        queue_emptied=world.is_queue_empty(),
        history=[record for record in told.lines if record["source"]["key"] in uploads],
        dead_letters=world.take_dead_letters(),
    )
    for case in cases:
        case.record = next((record for record in endured.history if is_about(record, case.upload)), None)
        if case.record:
            tasks = world.tasks(case.record["job_id"])
            case.tasks = sorted(tasks, key=lambda task: (task["createdAt"], task.get("stoppedAt")))
    return endured


def _arrivals(world: World, clips: Clips, dice: Random) -> list[Case]:
    """Everything is there before the first consumer is, in any order."""
    kinds = [
        *[(f"good {number}", {"done"}, clips.small) for number in range(1, 14)],
        ("good and longer", {"done"}, clips.full_hd),
        ("text", {"rejected"}, clips.text),
        ("more text", {"rejected"}, clips.text),
        ("truncated", {"rejected", "done"}, clips.truncated),
        ("empty", {"rejected"}, clips.empty),
        ("deleted", {"obsolete"}, clips.small),
        ("deleted later", {"obsolete", "done"}, clips.small),
    ]
    dice.shuffle(kinds)
    cases = []
    rubbish = iter(RUBBISH)
    for number, (what, ends, file) in enumerate(kinds):
        case = Case(what, ends, world.upload(f"lost/{number:02} {what}.mp4", file))
        if what == "deleted":
            world.s3.delete_object(Bucket=case.upload.bucket, Key=case.upload.key)
        cases.append(case)
        if number % 5 == 4:  # what came before, once more
            world.send(events.s3(dice.choice(cases).upload))
        if number % 10 == 9:
            world.send(next(rubbish))
    return cases


def _moments(dice: Random) -> list[Moment]:
    """One of them is the worst: the task is started, and nobody has heard of it."""
    calls = dice.choices(list(_CALLS), k=CONSUMER_KILLS - 1)
    moments = [Moment(call, dice.randint(1, _CALLS[call]), dice.random() < 0.5) for call in calls]
    moments.append(Moment("RunTask", dice.randint(1, _CALLS["RunTask"]), answered=True))
    dice.shuffle(moments)
    return moments


class _Reaper:
    """Kills some of the containers that it sees, each some time after it was first seen."""

    def __init__(self, world: World, dice: Random):
        self._world, self._dice = world, dice
        self._lots = set(dice.sample(range(12), 4))  # of the containers, in the order in which they are seen
        self._owed = 0
        self._from: dict[str, float] = {}  # when a task may be killed, by ARN
        self.killed: Counter[str] = Counter()
        self.together: set[str] = set()

    def look(self) -> None:
        alive = self._world.tasks(only_alive=True)
        jobs = Counter(task["startedBy"] for task in alive)
        self.together.update(job for job, tasks in jobs.items() if tasks > 1)
        for task in filter(is_running, alive):
            arn, job = task["taskArn"], task["startedBy"]
            if arn not in self._from:
                self._owed += len(self._from) in self._lots
                self._from[arn] = time.monotonic() + self._dice.random()
            if self._owed and time.monotonic() >= self._from[arn] and self.killed[job] < _KILLS_PER_JOB:
                if self._world.kill(task):
                    self.killed[job] += 1
                    self._owed -= 1
                self._from[arn] = float("inf")
