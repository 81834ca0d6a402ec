"""What operators do beside running consumers: back-fill, pause, resume, cancel, and StopTask by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from vidstreamx_devtools.e2e.stack_fixture import Consumer, StackFixture
from vidstreamx_devtools.e2e.upload_files import UploadFiles
from vidstreamx_devtools.local.stack import JsonObject, Upload
from vidstreamx_devtools.waiting import wait_until

pytestmark = pytest.mark.usefixtures("scenario")  # its consumer has exited and left the queue empty


@pytest.fixture(autouse=True)
def _no_open_polls(stack: StackFixture) -> None:
    """Otherwise the poll of a consumer that has stopped could receive a message of the next test."""
    stack.wait_for_open_polls()


@contextmanager
def running_consumer(stack: StackFixture, *arguments: str) -> Iterator[Consumer]:
    consumer = stack.start_consumer("run", *arguments)
    try:
        yield consumer
    finally:
        assert consumer.terminate(timeout=30) == 0, consumer.output


@contextmanager
def resumed_at_the_end(stack: StackFixture) -> Iterator[None]:
    """Resumes the stack even if a test fails, for the other tests."""
    try:
        yield
    finally:
        stack.operate("resume")


def wait_for_task(stack: StackFixture, upload: Upload, consumer: Consumer) -> JsonObject:
    task = wait_until(lambda: stack.running_task(upload), timeout=60, interval=0.1)
    assert task, consumer.output
    return task


def state(stack: StackFixture, upload: Upload) -> str | None:
    record = stack.record(upload)
    return record["state"] if record else None


def test_a_fresh_upload_starts_beside_a_back_fill(stack: StackFixture, files: UploadFiles) -> None:
    old = [stack.upload(f"library/{number}.video", files.long) for number in range(3)]
    for upload in old:
        stack.operate("submit", f"s3://{upload.bucket}/{upload.key}")
    with running_consumer(stack, "--max-tasks", "2") as consumer:
        back_fill = wait_until(
            lambda: [task for upload in old if (task := stack.running_task(upload))], timeout=60
        )
        assert back_fill, consumer.output
        fresh = stack.upload("fresh.mp4", files.small)
        # One of the two places is for uploads only, so the back-fill's task still runs.
        with stack.paused(back_fill[0]):
            assert wait_until(lambda: state(stack, fresh) == "done", timeout=60), consumer.output
        for upload in old:
            stack.operate("cancel", upload.key, timeout=200)
        # The consumer has not received all messages yet.
        assert wait_until(stack.is_queue_empty, timeout=60), consumer.output
    assert [state(stack, upload) for upload in old] == ["cancelled"] * 3


def test_a_paused_stack_launches_nothing_until_it_is_resumed(stack: StackFixture, files: UploadFiles) -> None:
    assert stack.operate("pause", "--reason", "costs").startswith("paused: ")
    upload = stack.upload("while paused.mp4", files.small)
    with resumed_at_the_end(stack), running_consumer(stack) as consumer:
        assert wait_until(lambda: "an operator has paused the stack" in consumer.output, timeout=30)
        assert stack.message_counts()["Visible"] == 1
        assert stack.record(upload) is None
        assert "(costs)" in stack.operate("resume")
        assert wait_until(lambda: state(stack, upload) == "done", timeout=60), consumer.output
    assert stack.operate("resume") == "the stack was not paused\n"


def test_a_cancelled_video_has_no_task_and_no_stream(stack: StackFixture, files: UploadFiles) -> None:
    upload = stack.upload("films/cancelled.mp4", files.long)
    with running_consumer(stack) as consumer:
        task = wait_for_task(stack, upload, consumer)
        playlist = f"{upload.key}/master.m3u8"
        assert wait_until(lambda: playlist in stack.keys(stack.output_bucket, upload.key), timeout=60)
        record = stack.record(upload)
        assert record
        output = stack.operate("cancel", upload.key, timeout=200)
        assert f"{upload.key}: cancelled (job {record['job_id']})" in output
    assert state(stack, upload) == "cancelled"
    assert stack.is_queue_empty()
    [ended] = stack.tasks(record["job_id"])
    assert (ended["taskArn"], ended["lastStatus"]) == (task["taskArn"], "STOPPED")
    assert stack.keys(stack.output_bucket, f"{upload.key}/") == []
    # It can be repeated for the job.
    assert f"{upload.key}: cancelled" in stack.operate("cancel", record["job_id"])
    assert "no job of" in stack.operate("cancel", upload.key, code=66)


def test_an_upload_that_no_consumer_has_seen_is_cancelled(stack: StackFixture, files: UploadFiles) -> None:
    upload = stack.upload("cancelled early.mp4", files.small)
    assert "before any consumer saw it" in stack.operate("cancel", upload.key)
    drained = stack.start_consumer("run", "--drain")
    assert drained.wait(timeout=60) == 0, drained.output
    record = stack.record(upload)
    assert record
    assert (record["state"], record["attempts"]) == ("cancelled", [])


def test_stopping_a_task_by_hand_cancels_its_video(stack: StackFixture, files: UploadFiles) -> None:
    upload = stack.upload("stopped by hand.mp4", files.long)
    with running_consumer(stack) as consumer:
        task = wait_for_task(stack, upload, consumer)
        operator = stack.local.operator_client("ecs")
        operator.stop_task(cluster=stack.cluster, task=task["taskArn"], reason="by hand")
        assert wait_until(lambda: state(stack, upload) == "cancelled", timeout=60), consumer.output
    record = stack.record(upload)
    assert record
    assert len(record["attempts"]) == 1
    assert stack.is_queue_empty()
