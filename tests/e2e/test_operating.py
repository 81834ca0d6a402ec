"""What people do from a terminal: look at videos, submit what is there already, send failed ones back."""

import pytest
from vidstreamx_devtools.waiting import until

pytestmark = pytest.mark.usefixtures("story")  # whose consumer has ended, and left the queue empty


@pytest.fixture
def command(world):
    """Runs one of the consumer's commands to its end; gives what it says."""

    def run(*arguments: str, code: int = 0):
        ended = world.consumer(*arguments)
        assert ended.wait(within=30) == code, ended.output
        return ended

    return run


def test_a_video_can_be_looked_up_by_its_key_and_by_its_job(world, story, command):
    case = story["truncated file"]
    page = command("history", case.upload.key).output
    assert case.record["job_id"] in page and case.tasks[0]["taskArn"].rpartition("/")[2] in page
    assert case.record["reason"] in page and case.record["attempts"][0]["size_reason"] in page
    assert command("history", case.record["job_id"]).output == page
    [line] = command("history", case.upload.key, "--json").lines
    assert line == case.record


def test_every_video_is_in_the_list(story, command):
    listed = command("history", "--json").lines
    of_story = {record["job_id"]: record for record in story.records}
    assert of_story.items() <= {record["job_id"]: record for record in listed}.items()
    rejected = command("history", "--json", "--state", "rejected", "--key", "text & co").lines
    assert rejected == [story["text named .mp4"].record]


def test_a_video_that_nobody_knows_is_one_clear_error_and_exit_code_66(command):
    [line] = command("history", "no such.mp4", code=66).output.splitlines()
    assert "no such.mp4" in line


def test_an_object_that_never_had_an_event_can_be_submitted(world, clips, command):
    world.until_no_poll_is_left()
    upload = world.upload("never told of.video", clips.small)
    address = f"s3://{upload.bucket}/{upload.key}"
    assert world.is_queue_empty()
    command("submit", address)
    # And once more before it is looked at, as people do.
    command("submit", address)
    assert world.waiting()["Visible"] == 2
    consumer = world.consumer("run", "--drain")
    assert consumer.wait(within=60) == 0, consumer.output
    record = world.record(upload)
    assert (record["state"], len(world.tasks(record["job_id"]))) == ("done", 1)

    command("submit", "--force", address)
    consumer = world.consumer("run", "--drain")
    assert consumer.wait(within=60) == 0, consumer.output
    record = world.record(upload)
    assert record["state"] == "done"
    assert len(record["attempts"]) == len(world.tasks(record["job_id"])) == 2
    assert len(record["restarts"]) == 1


def test_a_failed_video_is_set_aside_with_its_reason_and_made_after_it_is_sent_back(world, clips, command):
    world.until_no_poll_is_left()
    first = world.consumer("run", "--drain", "--max-attempts", "1")
    upload = world.upload("fails/once.mp4", clips.small)
    task = until(lambda: world.running_task(upload), within=30, every=0.05)
    assert task and world.kill(task), first.output
    assert first.wait(within=60) == 0, first.output
    failed = world.record(upload)
    assert (failed["state"], failed["attempts"][0]["exit_code"]) == ("failed", 137)
    assert world.is_queue_empty()

    shown = command("redrive", "--dry-run").output
    assert upload.key in shown and failed["reason"] in shown and "1 message would be sent back" in shown
    assert "there is nothing" not in command("redrive", "--dry-run", "--job", failed["job_id"]).output
    command("redrive", "--key", "fails/")
    assert world.waiting()["Visible"] == 1 and world.take_dead_letters() == []

    second = world.consumer("run", "--drain", "--max-attempts", "1")
    assert second.wait(within=60) == 0, second.output
    record = world.record(upload)
    assert record["state"] == "done"
    [before, after] = record["attempts"]
    assert (before["exit_code"], after["exit_code"]) == (137, 0)
    # An end with 137 is one for want of memory.
    assert after["size"]["memory_mib"] > before["size"]["memory_mib"]
    [restart] = record["restarts"]
    assert restart["after_attempt"] == 1
    assert world.take_dead_letters() == []


def test_a_dead_letter_says_what_failed_why_and_which_tasks_tried(world, clips):
    consumer = world.consumer("run", "--drain", "--max-attempts", "1")
    upload = world.upload("fails/for good.mp4", clips.small)
    task = until(lambda: world.running_task(upload), within=30, every=0.05)
    assert task and world.kill(task), consumer.output
    assert consumer.wait(within=60) == 0, consumer.output
    record = world.record(upload)
    [letter] = world.take_dead_letters()
    assert letter.told == {
        "reason": record["reason"],
        "job-id": record["job_id"],
        "attempts": "1",
        "task-arns": task["taskArn"],
        "again": "failed-after-1",
    }
