"""Each upload gets one result and no task is started twice, although consumers and tasks are killed.

The records that users see (`history --json`) are compared with ECS and the queues. The tests were tried with
two consumers that were broken on purpose, and failed for both. A consumer that does not find the task of an
unrecorded launch transcodes the video twice, and one of the tasks is in no record (VIDSTREAMX_TEST_SEED=1).
A consumer that deletes messages when it receives them leaves videos without a result or a record.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from vidstreamx_devtools.e2e.chaos import CONSUMER_KILLS, IDLE, INVALID_MESSAGES, ChaosRun
from vidstreamx_devtools.e2e.stack_fixture import StackFixture, exit_code
from vidstreamx_devtools.local.stack import JsonObject

Jobs = list[tuple[JsonObject, list[JsonObject]]]


@pytest.fixture(scope="module")
def jobs(chaos: ChaosRun) -> Jobs:
    """The record and the tasks of each upload that had tasks."""
    return [(case.record, case.tasks) for case in chaos.cases if case.record and case.tasks]


def test_consumers_and_containers_were_killed(chaos: ChaosRun, jobs: Jobs) -> None:
    """The other tests are meaningless without the kills."""
    assert len(chaos.kill_points) == CONSUMER_KILLS
    # At most one consumer was killed while it waited for messages.
    assert sum(point != IDLE for point in chaos.kill_points) >= CONSUMER_KILLS - 1
    killed = [record["job_id"] for record, tasks in jobs for task in tasks if exit_code(task) == 137]
    assert len(killed) >= 3
    assert sorted(killed) == sorted(chaos.container_kills.elements())


def test_last_consumer_empties_the_queue(chaos: ChaosRun) -> None:
    assert chaos.drain_exit == 0
    assert chaos.queue_emptied


def test_each_upload_has_one_record_with_the_right_state(chaos: ChaosRun) -> None:
    recorded = [(record["source"]["key"], record["source"]["etag"]) for record in chaos.history]
    assert sorted(recorded) == sorted((case.upload.key, case.upload.etag) for case in chaos.cases)
    assert [(case.name, case.state) for case in chaos.cases if case.state not in case.states] == []
    assert all(record.get("reason") for record in chaos.history if record["state"] != "done")


def test_attempts_in_the_records_are_exactly_the_tasks(jobs: Jobs, chaos: ChaosRun) -> None:
    for record, tasks in jobs:
        attempts = {attempt.get("task_arn"): attempt.get("exit_code") for attempt in record["attempts"]}
        assert attempts == {task["taskArn"]: exit_code(task) for task in tasks}, record["source"]["key"]
    task_count = sum(len(tasks) for _, tasks in jobs)
    assert task_count == sum(len(record["attempts"]) for record in chaos.history)


def test_tasks_of_a_job_never_run_in_parallel(jobs: Jobs, chaos: ChaosRun) -> None:
    assert chaos.parallel_jobs == set()
    for record, tasks in jobs:
        for before, after in pairwise(tasks):
            assert before["stoppedAt"] <= after["createdAt"], record["source"]["key"]


def test_no_video_is_completed_twice(jobs: Jobs) -> None:
    for record, tasks in jobs:
        completed = [task for task in tasks if exit_code(task) == 0]
        assert len(completed) == (record["state"] == "done"), record["source"]["key"]


def test_killed_container_is_followed_by_a_larger_task(jobs: Jobs) -> None:
    for record, _ in jobs:
        for before, after in pairwise(record["attempts"]):
            was_killed = before["exit_code"] == 137
            is_larger = after["size"]["memory_mib"] > before["size"]["memory_mib"]
            assert is_larger == was_killed, record["source"]["key"]


def test_exactly_the_done_videos_are_published(stack: StackFixture, chaos: ChaosRun) -> None:
    keys = set(stack.keys(stack.output_bucket, "chaos/"))
    for case in chaos.cases:
        master = f"{case.upload.key}/master.m3u8"
        assert (master in keys) == (case.state == "done"), case.name


def test_dead_letters_are_the_invalid_messages_with_their_reasons(chaos: ChaosRun) -> None:
    # A dead letter can be there twice, if a consumer is killed between sending it and deleting the message.
    assert {letter.body for letter in chaos.dead_letters} == set(INVALID_MESSAGES)
    assert all(letter.attributes["reason"] for letter in chaos.dead_letters)
