"""Consumers can be started, stopped and replaced without an effect on videos. They check their settings."""

from __future__ import annotations

import time

import pytest
from vidstreamx_devtools.e2e.stack_fixture import StackFixture
from vidstreamx_devtools.e2e.upload_files import UploadFiles
from vidstreamx_devtools.local.stack import JsonObject
from vidstreamx_devtools.waiting import wait_until

pytestmark = pytest.mark.usefixtures("scenario")  # its consumer has exited and left the queue empty


def test_next_consumer_takes_over_the_running_task_of_a_stopped_one(
    stack: StackFixture, files: UploadFiles
) -> None:
    stack.wait_for_open_polls()
    # With --drain a long poll lasts two seconds. The consumer returns a message that arrives after SIGTERM.
    first = stack.start_consumer("run", "--drain")
    upload = stack.upload("taken over.mp4", files.small)
    task = wait_until(lambda: stack.running_task(upload), timeout=30, interval=0.05)
    assert task, first.output

    with stack.paused(task):
        assert_only_role_credentials(stack, task)
        terminated_at = time.monotonic()
        assert first.terminate(timeout=15) == 0, first.output
        assert time.monotonic() - terminated_at < 5
        assert wait_until(lambda: stack.message_counts()["Visible"] == 1, timeout=10), "message not returned"

        second = stack.start_consumer("run", "--drain")
        assert wait_until(lambda: stack.message_counts()["NotVisible"] == 1, timeout=15), second.output
        [running] = stack.tasks(task["startedBy"])
        assert (running["taskArn"], running["lastStatus"]) == (task["taskArn"], "RUNNING")
        assert second.is_running

    assert second.wait(timeout=60) == 0, second.output
    assert stack.is_queue_empty()
    record = stack.record(upload)
    assert record
    assert record["state"] == "done"
    assert [attempt["task_arn"] for attempt in record["attempts"]] == [task["taskArn"]]
    assert [other["taskArn"] for other in stack.tasks(record["job_id"])] == [task["taskArn"]]


def assert_only_role_credentials(stack: StackFixture, task: JsonObject) -> None:
    """Consumer and task have only the temporary credentials of their roles."""
    role = stack.local.outputs["TaskRoleArn"].rpartition("/")[2]
    task_environment = stack.task_environment(task)
    for variables in (task_environment, stack.local.consumer_environment()):
        assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"} & variables.keys()
    assert f"/{role}/" in task_environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    # By this variable another consumer finds the task if RunTask's response was lost.
    assert task_environment["VIDSTREAMX_LAUNCH"].startswith(task["startedBy"])


def test_drain_of_an_empty_queue_exits_soon(stack: StackFixture) -> None:
    assert stack.start_consumer("run", "--drain").wait(timeout=20) == 0


def test_check_command_accepts_the_stack(stack: StackFixture) -> None:
    check = stack.start_consumer("check")
    assert check.wait(timeout=20) == 0, check.output
    assert "wrong" not in check.output


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"VIDSTREAMX_QUEUE_URL": None}, "VIDSTREAMX_QUEUE_URL"),
        ({"VIDSTREAMX_BACK_FILL_QUEUE_URL": None}, "VIDSTREAMX_BACK_FILL_QUEUE_URL"),
        ({"VIDSTREAMX_DEAD_LETTER_QUEUE_URL": None}, "VIDSTREAMX_DEAD_LETTER_QUEUE_URL"),
        ({"VIDSTREAMX_DEAD_LETTER_QUEUE_URL": "http://127.0.0.1:{port}/000000000000/no-such"}, "no-such"),
        ({"VIDSTREAMX_QUEUE_URL": "http://127.0.0.1:{port}/000000000000/no-such-queue"}, "no-such-queue"),
        ({"VIDSTREAMX_CLUSTER": "no-such-cluster"}, "no-such-cluster"),
        ({"VIDSTREAMX_TASK_DEFINITION": "no-such-family"}, "no-such-family"),
        ({"VIDSTREAMX_OUTPUT_BUCKET": "no-such-bucket"}, "no-such-bucket"),
        ({"VIDSTREAMX_MAX_TASKS": "many"}, "VIDSTREAMX_MAX_TASKS"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_setting_is_one_error_line_and_exit_code_78(
    stack: StackFixture, setting: dict[str, str | None], named: str
) -> None:
    port = stack.local.settings.port
    environment = {name: value and value.format(port=port) for name, value in setting.items()}
    consumer = stack.start_consumer("run", environment=environment)
    assert consumer.wait(timeout=15) == 78, consumer.output
    [line] = consumer.output.splitlines()
    assert named in line


def test_missing_permission_is_one_error_line_and_exit_code_78(stack: StackFixture) -> None:
    consumer = stack.start_consumer("run", environment=stack.role_credentials("TaskRoleArn"))
    assert consumer.wait(timeout=15) == 78, consumer.output
    [line] = consumer.output.splitlines()
    assert "AccessDenied" in line
    assert stack.queue_url in line
