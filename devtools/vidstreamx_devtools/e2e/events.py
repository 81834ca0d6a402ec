"""Queue messages in the formats in which S3 events arrive: from S3, through SNS, and from EventBridge."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_plus

from vidstreamx_devtools.local.stack import Upload


def s3_event(*uploads: Upload, event: str = "ObjectCreated:Put") -> str:
    return json.dumps({"Records": [_record(upload, event) for upload in uploads]})


def sns_message(message: str) -> str:
    """A message wrapped by an SNS topic between bucket and queue."""
    return json.dumps(
        {
            "Type": "Notification",
            "MessageId": "95df01b4-ee98-5cb9-9903-4c221d41eb5e",
            "TopicArn": "arn:aws:sns:us-east-1:000000000000:uploads",
            "Subject": "Amazon S3 Notification",
            "Message": message,
            "Timestamp": "2026-01-01T00:00:00.000Z",
        }
    )


def eventbridge_event(upload: Upload) -> str:
    return json.dumps(
        {
            "version": "0",
            "id": "17793124-05d4-b198-2fde-7ededc63b103",
            "detail-type": "Object Created",
            "source": "aws.s3",
            "account": "000000000000",
            "time": "2026-01-01T00:00:00Z",
            "region": "us-east-1",
            "resources": [f"arn:aws:s3:::{upload.bucket}"],
            "detail": {
                "version": "0",
                "bucket": {"name": upload.bucket},
                # The key is not encoded, unlike in S3's own events.
                "object": {"key": upload.key, "size": upload.size, "etag": upload.etag, "sequencer": "00"},
                "request-id": "C3D13FE58DE4C810",
                "reason": "PutObject",
            },
        }
    )


def s3_test_event(bucket: str) -> str:
    """The message that S3 sends when notifications are configured."""
    return json.dumps(
        {
            "Service": "Amazon S3",
            "Event": "s3:TestEvent",
            "Time": "2026-01-01T00:00:00.000Z",
            "Bucket": bucket,
            "RequestId": "5582815E1AEA5ADF",
            "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR+YstdA6Knx4Ip8EXAMPLE",
        }
    )


def _record(upload: Upload, event: str) -> dict[str, Any]:
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2026-01-01T00:00:00.000Z",
        "eventName": event,
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": upload.bucket, "arn": f"arn:aws:s3:::{upload.bucket}"},
            "object": {
                "key": quote_plus(upload.key, safe="/"),
                "size": upload.size,
                "eTag": upload.etag,
                "sequencer": "00",
            },
        },
    }
