"""Consumers are started, stopped and replaced; videos do not notice."""

import time

import pytest
from vidstreamx_devtools.waiting import until

pytestmark = pytest.mark.usefixtures("story")  # whose consumer has ended, and left the queue empty


def test_the_next_consumer_takes_over_the_running_task_of_one_that_was_stopped(world, clips):
    world.until_no_poll_is_left()
    # Draining ones poll for two seconds only; what a poll may still get is given back when it is over.
    first = world.consumer("run", "--drain")
    upload = world.upload("taken over.mp4", clips.small)
    task = until(lambda: world.running_task(upload), within=30, every=0.05)
    assert task, first.output

    with world.frozen(task):
        assert_no_key_was_given(world, task)
        begun = time.monotonic()
        assert first.terminate(within=15) == 0, first.output
        assert time.monotonic() - begun < 5
        assert until(lambda: world.waiting()["Visible"] == 1, within=10), "the message was not given back"

        second = world.consumer("run", "--drain")
        assert until(lambda: world.waiting()["NotVisible"] == 1, within=15), second.output
        [still] = world.tasks(task["startedBy"])
        assert (still["taskArn"], still["lastStatus"]) == (task["taskArn"], "RUNNING")
        assert second.is_running

    assert second.wait(within=60) == 0, second.output
    assert world.is_queue_empty()
    record = world.record(upload)
    assert record["state"] == "done"
    assert [attempt["task_arn"] for attempt in record["attempts"]] == [task["taskArn"]]
    assert [one["taskArn"] for one in world.tasks(record["job_id"])] == [task["taskArn"]]


def assert_no_key_was_given(world, task) -> None:
    """Their roles' temporary credentials are all that consumer and task have."""
    role = world.stack.outputs["TaskRoleArn"].rpartition("/")[2]
    of_task = world.environment(task)
    for variables in (of_task, world.stack.consumer_environment()):
        assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"} & variables.keys()
    assert f"/{role}/" in of_task["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    # By which whoever takes over finds it.
    assert of_task["VIDSTREAMX_LAUNCH"].startswith(task["startedBy"])


def test_draining_an_empty_queue_ends_soon(world):
    assert world.consumer("run", "--drain").wait(within=20) == 0


def test_check_finds_nothing_wrong_with_the_stack(world):
    check = world.consumer("check")
    assert check.wait(within=20) == 0, check.output
    assert "wrong" not in check.output


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"VIDSTREAMX_QUEUE_URL": None}, "VIDSTREAMX_QUEUE_URL"),
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
def test_a_wrong_setting_is_one_clear_error_and_exit_code_78(world, setting, named):
    port = world.stack.settings.port
    wrong = {name: text and text.format(port=port) for name, text in setting.items()}
    consumer = world.consumer("run", environment=wrong)
    assert consumer.wait(within=15) == 78, consumer.output
    [line] = consumer.output.splitlines()
    assert named in line


def test_a_missing_permission_is_one_clear_error_and_exit_code_78(world):
    consumer = world.consumer("run", environment=world.role_credentials("TaskRoleArn"))
    assert consumer.wait(within=15) == 78, consumer.output
    [line] = consumer.output.splitlines()
    assert "AccessDenied" in line and world.queue in line
