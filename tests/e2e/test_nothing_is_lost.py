"""Whatever is killed, and whenever: each upload comes to one end, and no task is started twice.

What people are told (`history --json`) is held against what ECS and the queues say. Seen to fail: with a
`find` that never finds the task of a launch that nobody heard of, that video is made twice, and one of its tasks is in
no record (VIDSTREAMX_TEST_SEED=1); with messages that are deleted as soon as they are received, videos have no
end or no record.
"""

import pytest
from vidstreamx_devtools.e2e.chaos import CONSUMER_KILLS, RUBBISH


@pytest.fixture(scope="module")
def tasks(ordeal):
    """Of each upload that got any, with its record."""
    return [(case.record, case.tasks) for case in ordeal.cases if case.record and case.tasks]


def test_consumers_and_containers_were_killed(ordeal, tasks):
    """Else the rest would show nothing."""
    assert len(ordeal.struck) == CONSUMER_KILLS
    # In the middle of their work, not waiting for some.
    assert sum("nothing was left" not in moment for moment in ordeal.struck) >= CONSUMER_KILLS - 1
    killed = [record["job_id"] for record, mine in tasks for task in mine if exit_code(task) == 137]
    assert len(killed) >= 3 and sorted(killed) == sorted(ordeal.killed.elements())


def test_the_last_consumer_leaves_an_empty_queue(ordeal):
    assert ordeal.drained == 0
    assert ordeal.queue_emptied


def test_each_upload_has_one_record_with_the_end_it_deserves(ordeal):
    recorded = [(record["source"]["key"], record["source"]["etag"]) for record in ordeal.history]
    assert sorted(recorded) == sorted((case.upload.key, case.upload.etag) for case in ordeal.cases)
    assert [(case.what, case.state) for case in ordeal.cases if case.state not in case.ends] == []
    assert all(record.get("reason") for record in ordeal.history if record["state"] != "done")


def test_every_task_is_an_attempt_in_its_record_and_every_attempt_is_a_task(tasks, ordeal):
    for record, mine in tasks:
        attempts = {attempt.get("task_arn"): attempt.get("exit_code") for attempt in record["attempts"]}
        assert attempts == {task["taskArn"]: exit_code(task) for task in mine}, record["source"]["key"]
    started = sum(len(mine) for _, mine in tasks)
    assert started == sum(len(record["attempts"]) for record in ordeal.history)


def test_no_two_tasks_of_a_job_run_at_the_same_time(tasks, ordeal):
    assert ordeal.together == set()
    for record, mine in tasks:
        for before, after in zip(mine, mine[1:]):
            assert before["stoppedAt"] <= after["createdAt"], record["source"]["key"]


def test_no_video_is_made_twice(tasks):
    for record, mine in tasks:
        made = [task for task in mine if exit_code(task) == 0]
        assert len(made) == (record["state"] == "done"), record["source"]["key"]


def test_a_killed_container_leads_to_a_larger_task(tasks):
    for record, _ in tasks:
        attempts = record["attempts"]
        for before, after in zip(attempts, attempts[1:]):
            grows = before["exit_code"] == 137
            assert (after["size"]["memory_mib"] > before["size"]["memory_mib"]) == grows, record["source"]["key"]


def test_what_was_done_is_published(world, ordeal):
    streams = set(world.keys(world.streams, "lost/"))
    for case in ordeal.cases:
        address = f"{case.upload.key}/master.m3u8"
        assert (address in streams) == (case.state == "done"), case.what


def test_the_dead_letters_are_the_rubbish_with_its_reasons(ordeal):
    # A letter can be there twice: a consumer can die after it sent it, and before it deleted the message.
    assert {letter.body for letter in ordeal.dead_letters} == set(RUBBISH)
    assert all(letter.told["reason"] for letter in ordeal.dead_letters)


def exit_code(task) -> int | None:
    return task["containers"][0].get("exitCode")
