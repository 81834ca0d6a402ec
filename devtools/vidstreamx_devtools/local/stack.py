"""The local stack: `stack.py up`, `stack.py down`, `stack.py status`.

As a library: `up(settings)` gives a `Stack` with the template's outputs, clients for the setting-up
(`client`) and for the two roles under test (`role_client`), and the consumer's environment.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import boto3
import botocore.config
import botocore.exceptions
from vidstreamx_devtools.local import engine
from vidstreamx_devtools.processes import Process
from vidstreamx_devtools.settings import REPO, Problem, Settings, plain_environment, port_is_taken
from vidstreamx_devtools.terminal import step

_SERVER = "vidstreamx_devtools.local.aws_server"
# Ministack's administrator. Only what sets the stack up uses it.
_ROOT = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


@dataclass(frozen=True)
class Stack:
    settings: Settings
    outputs: dict[str, str]
    viewer_key: dict[str, str]

    def client(self, service: str):
        """A client with the administrator's key, for setting up and looking on."""
        return _client(self.settings, service, _ROOT)

    def role_client(self, role_arn: str, service: str):
        """A client with the rights of one of the stack's roles and no others."""
        with urllib.request.urlopen(self._credentials_url(role_arn, "local"), timeout=10) as answer:
            document = json.load(answer)
        return _client(
            self.settings,
            service,
            {
                "aws_access_key_id": document["AccessKeyId"],
                "aws_secret_access_key": document["SecretAccessKey"],
                "aws_session_token": document["Token"],
            },
        )

    def viewer_client(self, service: str):
        """A client that can read streams and nothing else."""
        return _client(self.settings, service, self.viewer_key)

    def consumer_environment(self) -> dict[str, str]:
        """What the consumer needs: the template's output, the endpoint, and its role's credentials."""
        return {
            **plain_environment(),
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
    """Starts and deploys what is not there yet."""
    settings.state.mkdir(parents=True, exist_ok=True)
    with step("local AWS"):
        _start_cloud(settings)
    template = settings.template.read_text()
    fingerprint = hashlib.sha256(template.encode()).hexdigest()
    with contextlib.suppress(Problem):
        if _saved(settings)["template"] == fingerprint:
            return load(settings)
    with step(f"deploy {settings.template.name}"):
        outputs = _deploy(settings, template)
        key = _create_viewer(settings, outputs["OutputBucketName"])
    _file(settings).touch(mode=0o600)
    _file(settings).write_text(
        json.dumps({"template": fingerprint, "outputs": outputs, "viewer_key": key}, indent=2) + "\n"
    )
    return load(settings)


def load(settings: Settings) -> Stack:
    """The stack that is running."""
    if _cloud(settings).pid is None:
        raise Problem("the local stack is not running: start it with make demo")
    saved = _saved(settings)
    return Stack(settings, saved["outputs"], saved["viewer_key"])


def down(settings: Settings) -> list[str]:
    """Stops everything that was started; says what that was."""
    stopped = [name for name in ("consumer", "viewer", "cloud") if Process(settings, name).stop()]
    _file(settings).unlink(missing_ok=True)
    with contextlib.suppress(Problem, OSError):  # there may be no engine
        count = engine.remove_traces(settings.port)
        if count:
            stopped.append(f"{count} container{'s' * (count > 1)}")
    return stopped


def parse_env(text: str) -> dict[str, str]:
    """A .env file's variables."""
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {name: value for name, value in pairs}


def _cloud(settings: Settings) -> Process:
    return Process(settings, "cloud")


def _file(settings: Settings):
    return settings.state / "stack.json"


def _saved(settings: Settings) -> dict:
    try:
        return json.loads(_file(settings).read_text())
    except (OSError, ValueError) as error:
        raise Problem("the local stack is not deployed: start it with make demo") from error


def _client(settings: Settings, service: str, credentials: dict[str, str]):
    return _cached_client(settings.endpoint, settings.region, service, tuple(sorted(credentials.items())))


@functools.cache  # making one takes longer than most calls
def _cached_client(endpoint: str, region: str, service: str, credentials: tuple):
    config = botocore.config.Config(
        retries={"max_attempts": 3, "mode": "standard"}, s3={"addressing_style": "path"}, max_pool_connections=50
    )
    session = boto3.Session(region_name=region)
    return session.client(service, endpoint_url=endpoint, config=config, **dict(credentials))


def _start_cloud(settings: Settings) -> None:
    cloud = _cloud(settings)
    fingerprint = hashlib.sha256(Path(__file__).with_name("aws_server.py").read_bytes()).hexdigest()
    address, network = engine.way_to_host()
    if cloud.pid is not None:
        if cloud.fingerprint == fingerprint and _is_healthy(settings):
            return
        cloud.stop()
    _file(settings).unlink(missing_ok=True)  # it was in that process's memory
    if port_is_taken(settings.port):
        raise Problem(
            f"port {settings.port} is taken by another program: stop it, "
            "or choose another port with VIDSTREAMX_LOCAL_PORT"
        )
    environment = {
        **plain_environment(),
        "DOCKER_HOST": engine.host(),
        "GATEWAY_PORT": str(settings.port),
        "BIND_HOST": "127.0.0.1",  # aws_server.py adds the address that tasks use
        "IOT_MTLS_ENABLED": "0",  # it would listen on every address
        "AUTH": "true",
        "LOG_LEVEL": "INFO",
        "TMPDIR": str(settings.state),
        "TASK_HOST": address,
        "TASK_NETWORK": network,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    settings.log("cloud").unlink(missing_ok=True)
    cloud.start([sys.executable, "-m", _SERVER], environment, fingerprint)
    cloud.wait_until(lambda: _is_healthy(settings), patience=60)


def _is_healthy(settings: Settings) -> bool:
    try:
        with urllib.request.urlopen(f"{settings.endpoint}/_ministack/health", timeout=5) as answer:
            return answer.status == 200
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
            # There is no TLS on this machine's loopback.
            {"ParameterKey": "RequireTls", "ParameterValue": "false"},
        ],
    }
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
        raise Problem(
            f"{settings.template.name} could not be deployed: {_first_failure(cloudformation, settings.stack_name)}"
        ) from error
    except botocore.exceptions.ClientError as error:
        if "No updates" not in str(error):
            raise Problem(f"{settings.template.name} could not be deployed: {error}") from error
    described = cloudformation.describe_stacks(StackName=settings.stack_name)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}


def _exists(cloudformation, name: str) -> bool:
    try:
        cloudformation.describe_stacks(StackName=name)
    except botocore.exceptions.ClientError:
        return False
    return True


def _first_failure(cloudformation, name: str) -> str:
    events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
    failures = [event for event in events if event["ResourceStatus"].endswith("FAILED")]
    if not failures:
        return "no reason given"
    first = failures[-1]  # events come newest first
    return f"{first['LogicalResourceId']}: {first.get('ResourceStatusReason', 'no reason given')}"


def _create_viewer(settings: Settings, bucket: str) -> dict[str, str]:
    """A user that can read streams and nothing else, for the program that stands in for a CDN."""
    iam = _client(settings, "iam", _ROOT)
    name = f"{settings.stack_name}-viewer"
    with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_user(UserName=name)
    arn = f"arn:aws:s3:::{bucket}"
    statements = [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"{arn}/*"},
        {"Effect": "Deny", "Action": "s3:*", "Resource": f"{arn}/.vidstreamx/*"},
        # Else a missing object looks like a forbidden one.
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": arn},
    ]
    policy = {"Version": "2012-10-17", "Statement": statements}
    iam.put_user_policy(UserName=name, PolicyName="read-streams", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}


def _print_status(settings: Settings) -> None:
    for name in ("cloud", "viewer", "consumer"):
        process = Process(settings, name)
        state = f"running (process {process.pid})" if process.pid else "not running"
        print(f"  {name:<10}{state:<28}{process.log}")
    with contextlib.suppress(Problem, OSError):
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
            with step("stop the local stack"):
                stopped = down(settings)
                if engine.stop_own_engine(settings):
                    stopped.append("Docker engine")
            print(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.")
        elif arguments == ["status"]:
            _print_status(settings)
        else:
            print("Usage: stack.py up|down|status", file=sys.stderr)
            return 2
    except Problem as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
