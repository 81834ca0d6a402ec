"""The chaos run: twenty uploads, five consumers killed at critical calls, and killed task containers.

All random choices come from one seed. The seed does not determine the speed of the machine: the same seed
gives the same uploads and fault points, but not the same timing.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from vidstreamx_devtools.e2e.events import s3_event
from vidstreamx_devtools.e2e.fault_proxy import FaultPoint, fault_proxy
from vidstreamx_devtools.e2e.stack_fixture import (
    DeadLetter,
    StackFixture,
    exit_code,
    is_record_of,
    is_running,
)
from vidstreamx_devtools.e2e.upload_files import UploadFiles
from vidstreamx_devtools.local.stack import JsonObject, Upload
from vidstreamx_devtools.terminal import left_aligned_table
from vidstreamx_devtools.waiting import wait_until

CONSUMER_KILLS = 5
INVALID_MESSAGES = ["rubbish", '{"what": "JSON, but no event"}']
IDLE = "while the queue was empty"

# The minimum number of calls of each kind that a consumer makes for its first videos.
_CALLS = {"ReceiveMessage": 2, "PUT record": 8, "RunTask": 4, "DescribeTasks": 4, "DeleteMessage": 2}
# The messages of a killed consumer are visible again after 90 s.
_TIMEOUT = 180
# A killed container counts as out of memory. After a third kill the job would fail.
_MAX_KILLS_PER_JOB = 2
_CONTAINER_KILLS = 4
_CONTAINERS = 12  # the kills are spread over the first containers


@dataclass
class Case:
    """One upload, and the expected result."""

    name: str
    states: set[str]
    upload: Upload
    record: JsonObject | None = None
    tasks: list[JsonObject] = field(default_factory=list)

    @property
    def state(self) -> str:
        return self.record["state"] if self.record else "no record"


@dataclass
class ChaosRun:
    """The result of the run."""

    cases: list[Case]
    kill_points: list[str]  # when each consumer was killed
    container_kills: Counter[str]  # by job id
    parallel_jobs: set[str]  # jobs that had two tasks at the same time
    drain_exit: int | None  # exit code of the last consumer
    queue_emptied: bool
    history: list[JsonObject]
    dead_letters: list[DeadLetter]

    def table(self) -> str:
        rows = [["Upload", "State", "Exits", "Reason"]]
        for case in self.cases:
            exits = ",".join(str(exit_code(task)) for task in case.tasks) or "-"
            rows.append([case.name, case.state, exits, (case.record or {}).get("reason", "")])
        consumers = f"Consumers killed {'; '.join(self.kill_points)}."
        return f"{left_aligned_table(rows)}\n{consumers} Containers killed: {self.container_kills.total()}."


def run_chaos(stack: StackFixture, files: UploadFiles, seed: int) -> ChaosRun:
    random = Random(seed)
    stack.wait_for_open_polls()
    cases = _create_cases(stack, files, random)
    deleted_later = next(case for case in cases if case.name == "deleted later")
    container_killer = _ContainerKiller(stack, random)
    kill_points = []
    with fault_proxy(stack.local.settings.port) as proxy:
        environment: dict[str, str | None] = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}
        for point in _fault_points(random):
            consumer = stack.start_consumer("run", "--max-tasks", "4", environment=environment)
            proxy.arm(point, consumer.kill)
            deadline = time.monotonic() + _TIMEOUT
            # A consumer never reaches its fault point if the queue is empty, so it is then killed at once.
            while not (proxy.triggered.wait(0.05) or stack.is_queue_empty()):
                assert consumer.is_running or proxy.triggered.is_set(), consumer.output
                assert time.monotonic() < deadline, f"{point} was not reached: {consumer.output}"
                container_killer.poll()
            consumer.kill()
            kill_points.append(str(point) if proxy.triggered.is_set() else IDLE)
            if len(kill_points) == 2:
                stack.delete(deleted_later.upload)
            if len(kill_points) == 3:
                stack.send(s3_event(random.choice(cases).upload))
        last = stack.start_consumer("run", "--max-tasks", "4", "--drain", environment=environment)

        def has_ended() -> bool:
            container_killer.poll()
            return not last.is_running

        wait_until(has_ended, timeout=_TIMEOUT, interval=0.05)

    drain_exit = last.wait(timeout=0)
    history = stack.start_consumer("history", "--json")
    assert history.wait(timeout=30) == 0, history.output
    keys = {case.upload.key for case in cases}
    run = ChaosRun(
        cases=cases,
        kill_points=kill_points,
        container_kills=container_killer.kills,
        parallel_jobs=container_killer.parallel_jobs,
        drain_exit=drain_exit,
        queue_emptied=stack.is_queue_empty(),
        history=[record for record in history.lines if record["source"]["key"] in keys],
        dead_letters=stack.take_dead_letters(),
    )
    for case in cases:
        case.record = next((record for record in run.history if is_record_of(record, case.upload)), None)
        if case.record:
            tasks = stack.tasks(case.record["job_id"])
            case.tasks = sorted(tasks, key=lambda task: (task["createdAt"], task.get("stoppedAt")))
    return run


def _create_cases(stack: StackFixture, files: UploadFiles, random: Random) -> list[Case]:
    """Uploads all files in random order, before the first consumer starts."""
    kinds = [
        *[(f"good {number}", {"done"}, files.small) for number in range(1, 14)],
        ("good and longer", {"done"}, files.full_hd),
        ("text", {"rejected"}, files.text),
        ("more text", {"rejected"}, files.text),
        ("truncated", {"rejected"}, files.truncated),
        ("empty", {"rejected"}, files.empty),
        ("deleted", {"obsolete"}, files.small),
        ("deleted later", {"obsolete", "done"}, files.small),
    ]
    random.shuffle(kinds)
    cases: list[Case] = []
    invalid_messages = iter(INVALID_MESSAGES)
    for number, (name, states, file) in enumerate(kinds):
        case = Case(name, states, stack.upload(f"chaos/{number:02} {name}.mp4", file))
        if name == "deleted":
            stack.delete(case.upload)
        cases.append(case)
        if number % 5 == 4:  # a duplicate of an earlier event
            stack.send(s3_event(random.choice(cases).upload))
        if number % 10 == 9:
            stack.send(next(invalid_messages))
    return cases


def _fault_points(random: Random) -> list[FaultPoint]:
    """Random fault points, and the worst one: the task is started, but its ARN is not recorded."""
    calls = random.choices(list(_CALLS), k=CONSUMER_KILLS - 1)
    points = [FaultPoint(call, random.randint(1, _CALLS[call]), random.random() < 0.5) for call in calls]
    points.append(FaultPoint("RunTask", random.randint(1, _CALLS["RunTask"]), after=True))
    random.shuffle(points)
    return points


class _ContainerKiller:
    """Kills some of the task containers at random times after they were first seen."""

    def __init__(self, stack: StackFixture, random: Random) -> None:
        self._stack, self._random = stack, random
        self._selected = set(
            random.sample(range(_CONTAINERS), _CONTAINER_KILLS)
        )  # in the order of appearance
        self._pending = 0  # number of selected containers that have started, minus the number of kills
        self._not_before: dict[str, float] = {}  # earliest time of a kill, by task ARN
        self.kills: Counter[str] = Counter()
        self.parallel_jobs: set[str] = set()

    def poll(self) -> None:
        tasks = self._stack.tasks(only_running=True)
        task_counts = Counter(task["startedBy"] for task in tasks)
        self.parallel_jobs.update(job for job, count in task_counts.items() if count > 1)
        for task in filter(is_running, tasks):
            arn, job = task["taskArn"], task["startedBy"]
            if arn not in self._not_before:
                self._pending += len(self._not_before) in self._selected
                self._not_before[arn] = time.monotonic() + self._random.random()
            is_due = self._pending and time.monotonic() >= self._not_before[arn]
            if is_due and self.kills[job] < _MAX_KILLS_PER_JOB:
                if self._stack.kill(task):
                    self.kills[job] += 1
                    self._pending -= 1
                self._not_before[arn] = float("inf")
