"""Consumer, task and operator have exactly the rights of their own roles."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import botocore.exceptions
import pytest
from vidstreamx_devtools.e2e.scenario import Scenario
from vidstreamx_devtools.e2e.stack_fixture import StackFixture

Clients = Callable[[str], Any]  # the client of a service with the rights of one role


@pytest.fixture(scope="module")
def consumer(stack: StackFixture) -> Clients:
    return lambda service: stack.local.role_client(stack.local.outputs["ConsumerRoleArn"], service)


@pytest.fixture(scope="module")
def task(stack: StackFixture) -> Clients:
    return lambda service: stack.local.role_client(stack.local.outputs["TaskRoleArn"], service)


@pytest.fixture(scope="module")
def operator(stack: StackFixture) -> Clients:
    return stack.local.operator_client


@pytest.fixture(scope="module")
def foreign_name(stack: StackFixture) -> str:
    """The name of a bucket and of a task definition in this account that are not part of the stack."""
    stack.s3.create_bucket(Bucket="foreign")
    stack.s3.put_object(Bucket="foreign", Key="private.mp4", Body=b"private")
    stack.ecs.register_task_definition(
        family="foreign",
        containerDefinitions=[{"name": "transcoder", "image": stack.local.settings.image, "memory": 128}],
    )
    return "foreign"


def clip_key(scenario: Scenario) -> str:
    upload = scenario["1080p clip"].upload
    assert upload
    return upload.key


def assert_denied(call: Callable[..., Any], **request: Any) -> None:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(**request)
    assert caught.value.response["Error"]["Code"] in ("AccessDenied", "AccessDeniedException"), caught.value
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 403)


def test_consumer_has_the_rights_it_needs(stack: StackFixture, scenario: Scenario, consumer: Clients) -> None:
    """The denials in the other tests are meaningless if all calls are denied."""
    case = scenario["1080p clip"]
    s3, sqs, ecs = consumer("s3"), consumer("sqs"), consumer("ecs")
    assert s3.head_object(Bucket=stack.upload_bucket, Key=clip_key(scenario))
    assert json.load(s3.get_object(Bucket=stack.output_bucket, Key=case.report_key)["Body"]) == case.report
    assert sqs.get_queue_attributes(QueueUrl=stack.queue_url, AttributeNames=["QueueArn"])["Attributes"]
    described = ecs.describe_tasks(cluster=stack.cluster, tasks=[case.tasks[0]["taskArn"]])
    assert described["tasks"][0]["startedBy"] == case.record["job_id"]


def test_consumer_can_not_read_a_foreign_bucket(consumer: Clients, foreign_name: str) -> None:
    assert_denied(consumer("s3").get_object, Bucket=foreign_name, Key="private.mp4")


def test_consumer_can_not_change_uploads(stack: StackFixture, scenario: Scenario, consumer: Clients) -> None:
    key = clip_key(scenario)
    assert_denied(consumer("s3").delete_object, Bucket=stack.upload_bucket, Key=key)
    assert_denied(consumer("s3").put_object, Bucket=stack.upload_bucket, Key="new.mp4", Body=b"")


def test_consumer_can_not_write_streams(stack: StackFixture, scenario: Scenario, consumer: Clients) -> None:
    assert_denied(
        consumer("s3").put_object, Bucket=stack.output_bucket, Key=scenario["1080p clip"].report_key, Body=b""
    )


def test_consumer_can_send_dead_letters_submit_and_redrive(stack: StackFixture, consumer: Clients) -> None:
    sqs = consumer("sqs")
    sqs.send_message(QueueUrl=stack.dead_letter_queue_url, MessageBody="dead letter")
    [message] = sqs.receive_message(QueueUrl=stack.dead_letter_queue_url)["Messages"]
    assert message["Body"] == "dead letter"
    handle = {"QueueUrl": stack.dead_letter_queue_url, "ReceiptHandle": message["ReceiptHandle"]}
    sqs.change_message_visibility(**handle, VisibilityTimeout=60)
    for queue in (stack.queue_url, stack.back_fill_queue_url):
        sqs.send_message(QueueUrl=queue, MessageBody="sent back")
        [message] = sqs.receive_message(QueueUrl=queue)["Messages"]
        assert message["Body"] == "sent back"
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    sqs.delete_message(**handle)


def test_consumer_can_not_delete_or_purge_its_queues(stack: StackFixture, consumer: Clients) -> None:
    sqs = consumer("sqs")
    for queue in (stack.queue_url, stack.back_fill_queue_url, stack.dead_letter_queue_url):
        assert_denied(sqs.delete_queue, QueueUrl=queue)
        assert_denied(sqs.purge_queue, QueueUrl=queue)
        assert_denied(sqs.set_queue_attributes, QueueUrl=queue, Attributes={"VisibilityTimeout": "1"})


def test_consumer_can_not_use_a_foreign_queue(
    stack: StackFixture, consumer: Clients, foreign_name: str
) -> None:
    queue = stack.sqs.create_queue(QueueName=foreign_name)["QueueUrl"]
    assert_denied(consumer("sqs").send_message, QueueUrl=queue, MessageBody="{}")
    assert_denied(consumer("sqs").receive_message, QueueUrl=queue)


def test_consumer_can_not_run_a_task_of_another_family(
    stack: StackFixture, consumer: Clients, foreign_name: str
) -> None:
    assert_denied(consumer("ecs").run_task, cluster=stack.cluster, taskDefinition=foreign_name)


def test_consumer_can_not_run_tasks_in_another_cluster_or_stop_tasks(
    stack: StackFixture, scenario: Scenario, consumer: Clients
) -> None:
    family = stack.local.outputs["TaskDefinitionFamily"]
    assert_denied(consumer("ecs").run_task, cluster="another", taskDefinition=family)
    arn = scenario["1080p clip"].tasks[0]["taskArn"]
    assert_denied(consumer("ecs").stop_task, cluster=stack.cluster, task=arn)


def test_task_has_the_rights_it_needs(stack: StackFixture, scenario: Scenario, task: Clients) -> None:
    s3 = task("s3")
    assert s3.head_object(Bucket=stack.upload_bucket, Key=clip_key(scenario))
    assert s3.put_object(Bucket=stack.output_bucket, Key="by hand/segment.m4s", Body=b"segment")


def test_task_can_not_change_uploads(stack: StackFixture, scenario: Scenario, task: Clients) -> None:
    key = clip_key(scenario)
    assert_denied(task("s3").put_object, Bucket=stack.upload_bucket, Key=key, Body=b"")
    assert_denied(task("s3").delete_object, Bucket=stack.upload_bucket, Key=key)


def test_task_can_not_read_or_write_records(stack: StackFixture, scenario: Scenario, task: Clients) -> None:
    key = f".vidstreamx/jobs/{scenario['1080p clip'].record['job_id']}.json"
    assert_denied(task("s3").get_object, Bucket=stack.output_bucket, Key=key)
    assert_denied(task("s3").put_object, Bucket=stack.output_bucket, Key=key, Body=b"{}")
    assert_denied(task("s3").delete_object, Bucket=stack.output_bucket, Key=key)


def test_task_can_write_progress_but_not_read_or_delete_it(
    stack: StackFixture, task: Clients, consumer: Clients
) -> None:
    status_object = {"Bucket": stack.output_bucket, "Key": ".vidstreamx/progress/0123.json"}
    assert task("s3").put_object(**status_object, Body=b"{}")
    assert consumer("s3").get_object(**status_object)["Body"].read() == b"{}"
    assert_denied(task("s3").get_object, **status_object)
    assert_denied(task("s3").delete_object, **status_object)


def test_task_can_not_delete_streams_use_queues_or_start_tasks(
    stack: StackFixture, scenario: Scenario, task: Clients
) -> None:
    assert_denied(task("s3").delete_object, Bucket=stack.output_bucket, Key=scenario["1080p clip"].report_key)
    for queue in (stack.queue_url, stack.back_fill_queue_url, stack.dead_letter_queue_url):
        assert_denied(task("sqs").receive_message, QueueUrl=queue)
        assert_denied(task("sqs").send_message, QueueUrl=queue, MessageBody="{}")
    family = stack.local.outputs["TaskDefinitionFamily"]
    assert_denied(task("ecs").run_task, cluster=stack.cluster, taskDefinition=family)


def test_task_can_not_pause_the_stack(stack: StackFixture, task: Clients) -> None:
    paused = {"Bucket": stack.output_bucket, "Key": ".vidstreamx/paused.json"}
    assert_denied(task("s3").put_object, **paused, Body=b"{}")


def test_task_can_not_read_a_foreign_bucket(task: Clients, foreign_name: str) -> None:
    assert_denied(task("s3").get_object, Bucket=foreign_name, Key="private.mp4")


def test_operator_can_delete_outputs_and_uploads(stack: StackFixture, operator: Clients) -> None:
    for bucket in (stack.upload_bucket, stack.output_bucket):
        stack.s3.put_object(Bucket=bucket, Key="by hand/delete me.txt", Body=b"")
        listed = operator("s3").list_object_versions(Bucket=bucket, Prefix="by hand/delete me.txt")
        [version] = listed["Versions"]
        target = {"Key": version["Key"], "VersionId": version["VersionId"]}
        deleted = operator("s3").delete_objects(Bucket=bucket, Delete={"Objects": [target]})
        assert "Errors" not in deleted
        assert stack.versions(bucket, "by hand/delete me.txt") == []


def test_operator_can_not_write_streams_or_uploads_or_change_buckets(
    stack: StackFixture, scenario: Scenario, operator: Clients, foreign_name: str
) -> None:
    s3 = operator("s3")
    case = scenario["1080p clip"]
    record = f".vidstreamx/jobs/{case.record['job_id']}.json"
    assert s3.get_object(Bucket=stack.output_bucket, Key=record)
    assert_denied(s3.put_object, Bucket=stack.output_bucket, Key=case.report_key, Body=b"{}")
    assert_denied(s3.put_object, Bucket=stack.upload_bucket, Key="new.mp4", Body=b"")
    segment = next(key for key in stack.keys(stack.output_bucket, case.address) if key.endswith(".m4s"))
    assert_denied(s3.get_object, Bucket=stack.output_bucket, Key=segment)
    assert_denied(s3.delete_bucket, Bucket=stack.output_bucket)
    assert_denied(s3.list_object_versions, Bucket=foreign_name)
    assert_denied(s3.delete_object, Bucket=foreign_name, Key="private.mp4")


def test_only_the_operator_can_delete_streams(
    stack: StackFixture, scenario: Scenario, consumer: Clients, task: Clients
) -> None:
    key = scenario["1080p clip"].report_key
    for client in (consumer("s3"), task("s3")):
        assert_denied(client.list_object_versions, Bucket=stack.output_bucket)
        assert_denied(client.delete_object, Bucket=stack.output_bucket, Key=key)
        target = {"Key": key, "VersionId": "null"}
        assert_denied(client.delete_objects, Bucket=stack.output_bucket, Delete={"Objects": [target]})
