"""The commands delete and prune, with the operator's role, in an output bucket with versioning."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from vidstreamx_devtools.e2e.player_pages import OpenStream
from vidstreamx_devtools.e2e.stack_fixture import StackFixture
from vidstreamx_devtools.e2e.upload_files import UploadFiles
from vidstreamx_devtools.waiting import wait_until

pytestmark = pytest.mark.usefixtures("scenario")  # its consumer has exited and left the queue empty

FILM = "removal/film.mp4"
EXTRA = "removal/film.mp4/extra.mp4"


@pytest.fixture(scope="module", autouse=True)
def _versioning(stack: StackFixture) -> Iterator[None]:
    with versioning(stack, stack.output_bucket):
        yield


@contextmanager
def versioning(stack: StackFixture, bucket: str) -> Iterator[None]:
    stack.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    try:
        yield
    finally:
        stack.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})


def drain(stack: StackFixture) -> None:
    consumer = stack.start_consumer("run", "--drain")
    assert consumer.wait(timeout=90) == 0, consumer.output


def all_versions(stack: StackFixture) -> list[str]:
    return [
        f"{bucket}/{key}"
        for bucket in (stack.upload_bucket, stack.output_bucket)
        for key in stack.versions(bucket)
    ]


def test_delete_removes_one_upload_and_the_one_below_its_address_still_plays(
    stack: StackFixture, files: UploadFiles, open_stream: OpenStream
) -> None:
    stack.wait_for_open_polls()
    others = all_versions(stack)
    extra = stack.upload(EXTRA, files.small)
    first = stack.upload(FILM, files.small)
    drain(stack)
    second = stack.upload(FILM, files.full_hd)
    drain(stack)
    jobs = [record["job_id"] for record in stack.records() if record["source"]["key"] == FILM]
    assert len(jobs) == 2, (first, second)
    kept_job = next(record for record in stack.records() if record["source"]["key"] == EXTRA)["job_id"]
    # A plain deletion hides the upload. The local S3 does not serve ranges of versions, so no task can read
    # uploads of a bucket with versioning.
    with versioning(stack, stack.upload_bucket):
        stack.delete(second)
    assert stack.keys(stack.upload_bucket, FILM) == [EXTRA]

    # Prune finds that everything is in use or too young. It needs the operator's other permissions.
    before = all_versions(stack)
    pruned = stack.operate("prune", "--superseded-for", "1")
    assert "examined" in pruned
    assert "removed" not in pruned
    assert all_versions(stack) == before

    shown = stack.operate("delete", FILM, "--source", "--dry-run")
    assert "upload          2 object versions would be deleted" in shown
    assert all_versions(stack) == before
    deleted = stack.operate("delete", f"s3://{stack.upload_bucket}/{FILM}", "--source")
    assert deleted == shown.replace("would be deleted", "deleted")

    left = [key for key in all_versions(stack) if key not in others]
    assert left
    assert [key for key in left if EXTRA not in key and kept_job not in key] == []
    assert not any(job in key for job in jobs for key in left)
    with open_stream(EXTRA) as page:
        ended = page.wait_until(lambda state: state["ended"], timeout=30)
        assert ended["ended"], ended
        assert ended["errors"] == []

    [line] = stack.operate("delete", FILM, "--source", code=66).splitlines()
    assert FILM in line
    assert stack.record(extra)


def test_delete_refuses_while_a_task_runs(stack: StackFixture, files: UploadFiles) -> None:
    stack.wait_for_open_polls()
    consumer = stack.start_consumer("run", "--drain")
    upload = stack.upload("removal/running.mp4", files.small)
    task = wait_until(lambda: stack.running_task(upload), timeout=30, interval=0.05)
    assert task, consumer.output
    with stack.paused(task):
        before = all_versions(stack)
        [line] = stack.operate("delete", upload.key, "--source", code=75).splitlines()
        assert f'run "vidstreamx-consumer cancel {upload.key}" first' in line
        assert all_versions(stack) == before
    assert consumer.wait(timeout=60) == 0, consumer.output
    stack.operate("delete", upload.key)
    assert stack.keys(stack.upload_bucket, upload.key) == [upload.key]
    assert stack.versions(stack.output_bucket, upload.key) == []


def test_consumers_role_can_not_delete(stack: StackFixture) -> None:
    command = stack.start_consumer("delete", EXTRA)
    assert command.wait(timeout=30) == 78, command.output
    assert "ListObjectVersions: AccessDenied" in command.output
