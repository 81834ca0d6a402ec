"""Commands for operators: show videos, submit existing objects, and redrive failed videos."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from vidstreamx_devtools.e2e.scenario import Scenario
from vidstreamx_devtools.e2e.stack_fixture import Consumer, StackFixture
from vidstreamx_devtools.e2e.upload_files import UploadFiles
from vidstreamx_devtools.local.stack import JsonObject, Upload
from vidstreamx_devtools.waiting import wait_until

pytestmark = pytest.mark.usefixtures("scenario")  # its consumer has exited and left the queue empty

RunCommand = Callable[..., Consumer]


@pytest.fixture
def run_command(stack: StackFixture) -> RunCommand:
    """Runs a command of the consumer to its end, and checks its exit code."""

    def run(*arguments: str, code: int = 0) -> Consumer:
        command = stack.start_consumer(*arguments)
        assert command.wait(timeout=30) == code, command.output
        return command

    return run


def drain(stack: StackFixture) -> None:
    consumer = stack.start_consumer("run", "--drain")
    assert consumer.wait(timeout=60) == 0, consumer.output


def fail_once(stack: StackFixture, files: UploadFiles, key: str) -> tuple[Upload, JsonObject]:
    """Uploads a video and kills its only task. Returns the upload and the task."""
    consumer = stack.start_consumer("run", "--drain", "--max-attempts", "1")
    upload = stack.upload(key, files.small)
    task = wait_until(lambda: stack.running_task(upload), timeout=30, interval=0.05)
    assert task, consumer.output
    assert stack.kill(task), consumer.output
    assert consumer.wait(timeout=60) == 0, consumer.output
    return upload, task


def test_history_finds_a_video_by_key_and_by_job(scenario: Scenario, run_command: RunCommand) -> None:
    case = scenario["truncated file"]
    assert case.upload
    page = run_command("history", case.upload.key).output
    assert case.record["job_id"] in page
    assert case.tasks[0]["taskArn"].rpartition("/")[2] in page
    assert case.record["reason"] in page
    assert case.record["attempts"][0]["size_reason"] in page
    assert run_command("history", case.record["job_id"]).output == page
    [line] = run_command("history", case.upload.key, "--json").lines
    assert line == case.record


def test_history_lists_every_video(scenario: Scenario, run_command: RunCommand) -> None:
    listed = {record["job_id"]: record for record in run_command("history", "--json").lines}
    expected = {record["job_id"]: record for record in scenario.records}
    assert expected.items() <= listed.items()
    rejected = run_command("history", "--json", "--state", "rejected", "--key", "text & co").lines
    assert rejected == [scenario["text named .mp4"].record]


def test_history_of_an_unknown_video_is_one_error_line_and_exit_code_66(run_command: RunCommand) -> None:
    [line] = run_command("history", "no such.mp4", code=66).output.splitlines()
    assert "no such.mp4" in line


def test_submit_transcodes_an_object_without_an_event(
    stack: StackFixture, files: UploadFiles, run_command: RunCommand
) -> None:
    stack.wait_for_open_polls()
    upload = stack.upload("without an event.video", files.small)
    url = f"s3://{upload.bucket}/{upload.key}"
    assert stack.is_queue_empty()
    run_command("submit", url)
    # Submits it again, before a consumer has received the first message.
    run_command("submit", url)
    assert stack.message_counts(stack.back_fill_queue_url)["Visible"] == 2
    drain(stack)
    record = stack.record(upload)
    assert record
    assert (record["state"], len(stack.tasks(record["job_id"]))) == ("done", 1)

    run_command("submit", "--force", url)
    drain(stack)
    record = stack.record(upload)
    assert record
    assert record["state"] == "done"
    assert len(record["attempts"]) == len(stack.tasks(record["job_id"])) == 2
    assert len(record["restarts"]) == 1


def test_redrive_transcodes_a_failed_video_again(
    stack: StackFixture, files: UploadFiles, run_command: RunCommand
) -> None:
    stack.wait_for_open_polls()
    upload, _ = fail_once(stack, files, "fails/once.mp4")
    failed = stack.record(upload)
    assert failed
    assert (failed["state"], failed["attempts"][0]["exit_code"]) == ("failed", 137)
    assert stack.is_queue_empty()

    shown = run_command("redrive", "--dry-run").output
    assert upload.key in shown
    assert failed["reason"] in shown
    assert "1 message would be sent back" in shown
    assert "there is nothing" not in run_command("redrive", "--dry-run", "--job", failed["job_id"]).output
    run_command("redrive", "--key", "fails/")
    assert stack.message_counts()["Visible"] == 1
    assert stack.take_dead_letters() == []

    second = stack.start_consumer("run", "--drain", "--max-attempts", "1")
    assert second.wait(timeout=60) == 0, second.output
    record = stack.record(upload)
    assert record
    assert record["state"] == "done"
    [before, after] = record["attempts"]
    assert (before["exit_code"], after["exit_code"]) == (137, 0)
    # Exit code 137 counts as out of memory.
    assert after["size"]["memory_mib"] > before["size"]["memory_mib"]
    [restart] = record["restarts"]
    assert restart["after_attempt"] == 1
    assert stack.take_dead_letters() == []


def test_dead_letter_of_a_failed_video_names_reason_and_tasks(
    stack: StackFixture, files: UploadFiles
) -> None:
    upload, task = fail_once(stack, files, "fails/for good.mp4")
    record = stack.record(upload)
    assert record
    [letter] = stack.take_dead_letters()
    assert letter.attributes == {
        "reason": record["reason"],
        "job-id": record["job_id"],
        "attempts": "1",
        "task-arns": task["taskArn"],
        "restart": "failed-after-1",
    }
