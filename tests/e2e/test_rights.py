"""Consumer and task hold their own roles' rights and no others."""

import json

import botocore.exceptions
import pytest


@pytest.fixture(scope="module")
def consumer(world):
    return lambda service: world.stack.role_client(world.stack.outputs["ConsumerRoleArn"], service)


@pytest.fixture(scope="module")
def task(world):
    return lambda service: world.stack.role_client(world.stack.outputs["TaskRoleArn"], service)


@pytest.fixture(scope="module")
def elsewhere(world):
    """A bucket and a task definition of somebody else's in the same account."""
    world.s3.create_bucket(Bucket="somebody-elses")
    world.s3.put_object(Bucket="somebody-elses", Key="private.mp4", Body=b"private")
    world.ecs.register_task_definition(
        family="somebody-elses",
        containerDefinitions=[{"name": "transcoder", "image": world.stack.settings.image, "memory": 128}],
    )
    return "somebody-elses"


def refused(call, **request) -> None:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(**request)
    assert caught.value.response["Error"]["Code"] in ("AccessDenied", "AccessDeniedException"), caught.value
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 403)


def test_the_consumer_can_do_its_work(world, story, consumer):
    """Else the refusals below would show nothing."""
    case = story["1080p clip"]
    s3, sqs, ecs = consumer("s3"), consumer("sqs"), consumer("ecs")
    assert s3.head_object(Bucket=world.uploads, Key=case.upload.key)
    assert json.load(s3.get_object(Bucket=world.streams, Key=case.report_key)["Body"]) == case.report
    assert sqs.get_queue_attributes(QueueUrl=world.queue, AttributeNames=["QueueArn"])["Attributes"]
    described = ecs.describe_tasks(cluster=world.cluster, tasks=[case.tasks[0]["taskArn"]])
    assert described["tasks"][0]["startedBy"] == case.record["job_id"]


def test_the_consumer_reads_no_bucket_but_its_own(consumer, elsewhere):
    refused(consumer("s3").get_object, Bucket=elsewhere, Key="private.mp4")


def test_the_consumer_can_not_touch_uploads(world, story, consumer):
    key = story["1080p clip"].upload.key
    refused(consumer("s3").delete_object, Bucket=world.uploads, Key=key)
    refused(consumer("s3").put_object, Bucket=world.uploads, Key="new.mp4", Body=b"")


def test_the_consumer_can_not_write_streams(world, story, consumer):
    refused(consumer("s3").put_object, Bucket=world.streams, Key=story["1080p clip"].report_key, Body=b"")


def test_the_consumer_can_set_messages_aside_submit_and_redrive(world, consumer):
    sqs = consumer("sqs")
    sqs.send_message(QueueUrl=world.dead_letters, MessageBody="set aside")
    [message] = sqs.receive_message(QueueUrl=world.dead_letters)["Messages"]
    assert message["Body"] == "set aside"
    handle = {"QueueUrl": world.dead_letters, "ReceiptHandle": message["ReceiptHandle"]}
    sqs.change_message_visibility(**handle, VisibilityTimeout=60)
    sqs.send_message(QueueUrl=world.queue, MessageBody="sent back")
    sqs.delete_message(**handle)
    [message] = sqs.receive_message(QueueUrl=world.queue)["Messages"]
    assert message["Body"] == "sent back"
    sqs.delete_message(QueueUrl=world.queue, ReceiptHandle=message["ReceiptHandle"])


def test_the_consumer_can_not_delete_or_purge_its_queues(world, consumer):
    sqs = consumer("sqs")
    for queue in (world.queue, world.dead_letters):
        refused(sqs.delete_queue, QueueUrl=queue)
        refused(sqs.purge_queue, QueueUrl=queue)
        refused(sqs.set_queue_attributes, QueueUrl=queue, Attributes={"VisibilityTimeout": "1"})


def test_the_consumer_uses_no_queue_but_its_own(world, consumer, elsewhere):
    queue = world.sqs.create_queue(QueueName=elsewhere)["QueueUrl"]
    refused(consumer("sqs").send_message, QueueUrl=queue, MessageBody="{}")
    refused(consumer("sqs").receive_message, QueueUrl=queue)


def test_the_consumer_runs_no_task_of_another_family(world, consumer, elsewhere):
    refused(consumer("ecs").run_task, cluster=world.cluster, taskDefinition=elsewhere)


def test_the_consumer_runs_nothing_in_another_cluster_and_stops_nothing(world, story, consumer):
    family = world.stack.outputs["TaskDefinitionFamily"]
    refused(consumer("ecs").run_task, cluster="another", taskDefinition=family)
    arn = story["1080p clip"].tasks[0]["taskArn"]
    refused(consumer("ecs").stop_task, cluster=world.cluster, task=arn)


def test_the_task_can_do_its_work(world, story, task):
    s3 = task("s3")
    assert s3.head_object(Bucket=world.uploads, Key=story["1080p clip"].upload.key)
    assert s3.put_object(Bucket=world.streams, Key="by hand/segment.m4s", Body=b"segment")


def test_the_task_can_not_touch_uploads(world, story, task):
    key = story["1080p clip"].upload.key
    refused(task("s3").put_object, Bucket=world.uploads, Key=key, Body=b"")
    refused(task("s3").delete_object, Bucket=world.uploads, Key=key)


def test_the_task_can_not_touch_the_consumers_records(world, story, task):
    key = f".vidstreamx/jobs/{story['1080p clip'].record['job_id']}.json"
    refused(task("s3").get_object, Bucket=world.streams, Key=key)
    refused(task("s3").put_object, Bucket=world.streams, Key=key, Body=b"{}")
    refused(task("s3").delete_object, Bucket=world.streams, Key=key)


def test_the_task_tells_its_progress_and_can_not_take_it_back(world, task, consumer):
    place = {"Bucket": world.streams, "Key": ".vidstreamx/progress/0123.json"}
    assert task("s3").put_object(**place, Body=b"{}")
    assert consumer("s3").get_object(**place)["Body"].read() == b"{}"
    refused(task("s3").get_object, **place)
    refused(task("s3").delete_object, **place)


def test_the_task_can_not_delete_streams_receive_messages_or_start_tasks(world, story, task):
    refused(task("s3").delete_object, Bucket=world.streams, Key=story["1080p clip"].report_key)
    for queue in (world.queue, world.dead_letters):
        refused(task("sqs").receive_message, QueueUrl=queue)
        refused(task("sqs").send_message, QueueUrl=queue, MessageBody="{}")
    family = world.stack.outputs["TaskDefinitionFamily"]
    refused(task("ecs").run_task, cluster=world.cluster, taskDefinition=family)


def test_the_task_reads_no_bucket_but_its_own(task, elsewhere):
    refused(task("s3").get_object, Bucket=elsewhere, Key="private.mp4")
