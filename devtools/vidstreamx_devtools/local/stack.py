"""The local stack: `python -m vidstreamx_devtools.local.stack up|down|status`.

As a library: `up(settings)` returns a `Stack` with the template's outputs, an administrator's clients
(`client`), clients with the rights of one role (`role_client`), and the consumer's environment.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import botocore.exceptions

from vidstreamx_devtools.local import engine
from vidstreamx_devtools.processes import BackgroundProcess
from vidstreamx_devtools.settings import Settings, UserError, clean_environment, require_free_port
from vidstreamx_devtools.terminal import timed_step

JsonObject = dict[str, Any]

# Ministack's administrator. Only set-up and inspection use it.
_ROOT = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


@dataclass(frozen=True)
class Upload:
    """One version of an object in the upload bucket."""

    bucket: str
    key: str
    etag: str
    size: int


@dataclass(frozen=True)
class Stack:
    settings: Settings
    outputs: dict[str, str]
    viewer_key: dict[str, str]

    @property
    def upload_bucket(self) -> str:
        return self.outputs["UploadBucketName"]

    @property
    def output_bucket(self) -> str:
        return self.outputs["OutputBucketName"]

    def client(self, service: str) -> Any:
        """A client with the administrator's key, for set-up and inspection."""
        return _client(self.settings, service, _ROOT)

    def role_client(self, role_arn: str, service: str) -> Any:
        """A client with exactly the rights of one of the stack's roles."""
        with urllib.request.urlopen(self._credentials_url(role_arn, "local"), timeout=10) as response:
            document = json.load(response)
        credentials = {
            "aws_access_key_id": document["AccessKeyId"],
            "aws_secret_access_key": document["SecretAccessKey"],
            "aws_session_token": document["Token"],
        }
        return _client(self.settings, service, credentials)

    def operator_credentials(self) -> dict[str, str]:
        """Temporary credentials of OperatorRole, which a person of the account may assume."""
        answer = self.client("sts").assume_role(
            RoleArn=self.outputs["OperatorRoleArn"], RoleSessionName="operator"
        )
        credentials = answer["Credentials"]
        return {
            "aws_access_key_id": credentials["AccessKeyId"],
            "aws_secret_access_key": credentials["SecretAccessKey"],
            "aws_session_token": credentials["SessionToken"],
        }

    def operator_client(self, service: str) -> Any:
        """A client with exactly the rights of OperatorRole."""
        return _client(self.settings, service, self.operator_credentials())

    def viewer_client(self, service: str) -> Any:
        """A client that can read streams and nothing else."""
        return _client(self.settings, service, self.viewer_key)

    def upload(self, file: Path, key: str) -> Upload:
        """Puts a file into the upload bucket."""
        s3 = self.client("s3")
        s3.upload_file(str(file), self.upload_bucket, key)
        head = s3.head_object(Bucket=self.upload_bucket, Key=key)
        return Upload(self.upload_bucket, key, head["ETag"].strip('"'), head["ContentLength"])

    def list_objects(self, bucket: str, prefix: str = "") -> Iterator[JsonObject]:
        """The objects under a prefix, as S3 lists them."""
        for page in self.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            yield from page.get("Contents", [])

    def read_json(self, key: str) -> JsonObject:
        """A JSON object in the output bucket."""
        response = self.client("s3").get_object(Bucket=self.output_bucket, Key=key)
        content: JsonObject = json.load(response["Body"])
        return content

    def task_log(self, task_arn: str, **options: Any) -> list[str]:
        """The lines of a task's log without colours; empty if there is none."""
        stream = f"transcoder/{self.outputs['ContainerName']}/{task_arn.rpartition('/')[2]}"
        logs = self.client("logs")
        try:
            response = logs.get_log_events(
                logGroupName=self.outputs["LogGroupName"], logStreamName=stream, **options
            )
        except logs.exceptions.ResourceNotFoundException:
            return []
        return [re.sub(r"\x1b\[[0-9;]*m", "", event["message"].rstrip()) for event in response["events"]]

    def consumer_environment(self) -> dict[str, str]:
        """The consumer's environment: the template's output, the endpoint, and its role's credentials."""
        return {
            **clean_environment(),
            **parse_env(self.outputs["ConsumerEnv"]),
            "AWS_ENDPOINT_URL": self.settings.endpoint,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": self._credentials_url(
                self.outputs["ConsumerRoleArn"], "consumer"
            ),
        }

    def _credentials_url(self, role_arn: str, session_name: str) -> str:
        role_name = role_arn.rpartition("/")[2]
        return f"{self.settings.endpoint}/v2/credentials/{role_name}/{session_name}"


def up(settings: Settings) -> Stack:
    """Starts the local AWS unless it runs, and deploys the template unless this version is deployed."""
    settings.state.mkdir(parents=True, exist_ok=True)
    with timed_step("local AWS"):
        _start_aws(settings)
    template = settings.template.read_text()
    fingerprint = hashlib.sha256(template.encode()).hexdigest()
    with contextlib.suppress(UserError):
        if _saved_state(settings)["template"] == fingerprint:
            return load(settings)
    with timed_step(f"deploy {settings.template.name}"):
        outputs = _deploy(settings, template)
        key = _create_viewer(settings, outputs["OutputBucketName"])
    state_file = _state_file(settings)
    state_file.touch(mode=0o600)
    state = {"template": fingerprint, "outputs": outputs, "viewer_key": key}
    state_file.write_text(json.dumps(state, indent=2) + "\n")
    return load(settings)


def load(settings: Settings) -> Stack:
    """The running stack. Raises `UserError` if it does not run."""
    if _aws_process(settings).pid is None:
        raise UserError("the local stack is not running: start it with make demo")
    saved = _saved_state(settings)
    return Stack(settings, saved["outputs"], saved["viewer_key"])


def down(settings: Settings) -> list[str]:
    """Stops all processes and containers of the stack. Returns the names of those that ran."""
    stopped = [name for name in ("consumer", "viewer", "aws") if BackgroundProcess(settings, name).stop()]
    _state_file(settings).unlink(missing_ok=True)
    with contextlib.suppress(UserError, OSError):  # without an engine there are no containers
        count = engine.remove_containers(settings.port)
        if count:
            stopped.append(f"{count} container{'s' * (count > 1)}")
    return stopped


def parse_env(text: str) -> dict[str, str]:
    """The variables of a .env file."""
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return dict(pairs)


def _aws_process(settings: Settings) -> BackgroundProcess:
    return BackgroundProcess(settings, "aws")


def _state_file(settings: Settings) -> Path:
    return settings.state / "stack.json"


def _saved_state(settings: Settings) -> JsonObject:
    try:
        state: JsonObject = json.loads(_state_file(settings).read_text())
    except (OSError, ValueError) as error:
        raise UserError("the local stack is not deployed: start it with make demo") from error
    return state


def _client(settings: Settings, service: str, credentials: dict[str, str]) -> Any:
    return _cached_client(settings.endpoint, settings.region, service, tuple(sorted(credentials.items())))


@functools.cache  # creating a client takes longer than most calls
def _cached_client(endpoint: str, region: str, service: str, credentials: tuple[tuple[str, str], ...]) -> Any:
    config = botocore.config.Config(
        retries={"max_attempts": 3, "mode": "standard"},
        s3={"addressing_style": "path"},
        max_pool_connections=50,
    )
    session = boto3.Session(region_name=region)
    return session.client(service, endpoint_url=endpoint, config=config, **dict(credentials))


def _start_aws(settings: Settings) -> None:
    process = _aws_process(settings)
    server = Path(__file__).with_name("aws_server.py")
    fingerprint = hashlib.sha256(server.read_bytes()).hexdigest()
    address, network = engine.route_to_host()
    if process.pid is not None:
        if process.fingerprint == fingerprint and _is_healthy(settings):
            return
        process.stop()
    _state_file(settings).unlink(missing_ok=True)  # the stopped process had the stack in memory
    require_free_port(settings.port, "VIDSTREAMX_LOCAL_PORT")
    environment = {
        **clean_environment(),
        "DOCKER_HOST": engine.host(),
        "GATEWAY_PORT": str(settings.port),
        "BIND_HOST": "127.0.0.1",  # aws_server.py adds the address that tasks use
        "IOT_MTLS_ENABLED": "0",  # ministack's IoT service would listen on all addresses
        "AUTH": "true",
        "LOG_LEVEL": "INFO",
        "TMPDIR": str(settings.state),
        "TASK_HOST": address,
        "TASK_NETWORK": network,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    settings.log("aws").unlink(missing_ok=True)
    process.start([sys.executable, "-m", engine.AWS_SERVER], environment, fingerprint)
    process.wait_until_ready(lambda: _is_healthy(settings), timeout=60)


def _is_healthy(settings: Settings) -> bool:
    try:
        with urllib.request.urlopen(f"{settings.endpoint}/_ministack/health", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _deploy(settings: Settings, template: str) -> dict[str, str]:
    cloudformation = _client(settings, "cloudformation", _ROOT)
    request = {
        "StackName": settings.stack_name,
        "TemplateBody": template,
        "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
        "Parameters": [
            {"ParameterKey": "TranscoderImage", "ParameterValue": settings.image},
            # The local AWS serves plain HTTP.
            {"ParameterKey": "RequireTls", "ParameterValue": "false"},
        ],
    }
    error_prefix = f"{settings.template.name} could not be deployed"
    try:
        if _exists(cloudformation, settings.stack_name):
            waiter = "stack_update_complete"
            cloudformation.update_stack(**request)
        else:
            waiter = "stack_create_complete"
            cloudformation.create_stack(**request)
        cloudformation.get_waiter(waiter).wait(
            StackName=settings.stack_name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )
    except botocore.exceptions.WaiterError as error:
        raise UserError(f"{error_prefix}: {_first_failure(cloudformation, settings.stack_name)}") from error
    except botocore.exceptions.ClientError as error:
        if "No updates" not in str(error):
            raise UserError(f"{error_prefix}: {error}") from error
    described = cloudformation.describe_stacks(StackName=settings.stack_name)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}


def _exists(cloudformation: Any, name: str) -> bool:
    try:
        cloudformation.describe_stacks(StackName=name)
    except botocore.exceptions.ClientError:
        return False
    return True


def _first_failure(cloudformation: Any, name: str) -> str:
    events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
    failures = [event for event in events if event["ResourceStatus"].endswith("FAILED")]
    if not failures:
        return "no reason given"
    first = failures[-1]  # events come newest first
    return f"{first['LogicalResourceId']}: {first.get('ResourceStatusReason', 'no reason given')}"


def _create_viewer(settings: Settings, bucket: str) -> dict[str, str]:
    """Creates the viewer's user, who can read streams and nothing else, and returns its access key."""
    iam = _client(settings, "iam", _ROOT)
    name = f"{settings.stack_name}-viewer"
    with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_user(UserName=name)
    arn = f"arn:aws:s3:::{bucket}"
    statements = [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"{arn}/*"},
        {"Effect": "Deny", "Action": "s3:*", "Resource": f"{arn}/.vidstreamx/*"},
        # Without this permission, S3 answers 403 instead of 404 for a missing object.
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": arn},
    ]
    policy = {"Version": "2012-10-17", "Statement": statements}
    iam.put_user_policy(UserName=name, PolicyName="read-streams", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}


def _print_status(settings: Settings) -> None:
    for name in ("aws", "viewer", "consumer"):
        process = BackgroundProcess(settings, name)
        state = f"running (process {process.pid})" if process.pid else "not running"
        print(f"  {name:<10}{state:<28}{process.log}")
    with contextlib.suppress(UserError, OSError):
        print(f"  {'tasks':<10}{len(engine.containers(settings.port, running_only=True))} running")


def main(arguments: list[str]) -> int:
    try:
        settings = Settings.from_environment()
        if arguments == ["up"]:
            stack = up(settings)
            for name, value in stack.outputs.items():
                if name != "ConsumerEnv":
                    print(f"  {name:<26}{value}")
        elif arguments == ["down"]:
            with timed_step("stop the local stack"):
                stopped = down(settings)
                if engine.stop_own_engine(settings):
                    stopped.append("Docker engine")
            print(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.")
        elif arguments == ["status"]:
            _print_status(settings)
        else:
            print("Usage: python -m vidstreamx_devtools.local.stack up|down|status", file=sys.stderr)
            return 2
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
