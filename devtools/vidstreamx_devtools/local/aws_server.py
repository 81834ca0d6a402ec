"""Runs the local AWS (ministack), and adds the parts of Fargate that ministack lacks.

Ministack starts ECS tasks as containers, but uses little of the task definition beyond the image. Its tasks
get credentials that belong to no role, from an address that the SDKs refuse. Here tasks get:

- the credentials of their own role, valid for an hour and renewed by the SDK as in ECS. They come from
  169.254.170.2, the address of the ECS agent: the SDKs accept this address and loopback only;
- the user, read-only root file system, dropped capabilities and memory limit of their definition;
- the endpoint as an IP address, for which the SDKs put bucket names into the path;
- the exit code 143 if StopTask ends them.

IAM policies are applied to ECS calls as in AWS: the resource is the task definition or the task, and
ecs:cluster is a condition key. Ministack itself checks all ECS calls against the cluster. Batch calls of SQS
need the permission of the single call, as in AWS. Ministack itself requires permissions that AWS does not
have.

The local AWS gives full control of this machine: the administrator's key is public, and a task can mount any
folder. So it listens only on loopback and on the address that its tasks use, and answers only this machine
and its tasks. The second check is needed because other hosts on the network could send packets for the
gateway's address through another interface of this machine.

The consumer gets its role's credentials in the same way, as in an ECS service:
AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1:PORT/v2/credentials/ROLE/SESSION

This module replaces internals of the ministack version that devtools/pyproject.toml pins. Settings come from
the environment: GATEWAY_PORT, AUTH and BIND_HOST are ministack's own; stack.py sets TASK_HOST and
TASK_NETWORK in addition.
"""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import hypercorn.config
from ministack import app
from ministack.core import iam_actions
from ministack.core.responses import get_account_id, get_region
from ministack.services import ecs, iam, imds, sts

from vidstreamx_devtools.settings import AGENT_ADDRESS

JsonObject = dict[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

SESSION_SECONDS = 3600
_ECS = "ecs-tasks.amazonaws.com"

_host = os.environ["TASK_HOST"]
_network = os.environ.get("TASK_NETWORK", "")
_port = os.environ["GATEWAY_PORT"]

_task_addresses = ipaddress.ip_network(f"{AGENT_ADDRESS}/24", strict=False)  # see engine.py

_ministack_app = app.app
_ministack_register_metadata = ecs._register_metadata
_ministack_build_run_kwargs = ecs._build_run_kwargs
_ministack_mark_task_stopped = ecs._mark_task_stopped
_ministack_imds = imds.handle_request
_ministack_action = iam_actions.extract_iam_action
_ministack_resource_arn = iam_actions.extract_resource_arn
_ministack_request_context = iam_actions.request_tag_context


def _listening_addresses() -> list[str]:
    """Loopback, and the host address that tasks use, if it is an address of this machine.

    Docker Desktop forwards the tasks' connections to loopback, so with it there is no such address. The same
    holds for rootless engines that let containers reach the host's loopback. If the engine is configured with
    another address of the host (host-gateway-ip), that address is used. `_only_for_this_machine` protects it.
    """
    if _host == AGENT_ADDRESS or _is_own_address(_host):
        return ["127.0.0.1", _host]
    return ["127.0.0.1"]


def _is_own_address(address: str) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


async def _only_for_this_machine(scope: Scope, receive: Receive, send: Send) -> None:
    client = scope.get("client")
    if client is None or _is_local(client[0]):
        await _ministack_app(scope, receive, send)
    elif scope["type"] == "websocket":
        await send({"type": "websocket.close"})
    else:
        headers = [(b"connection", b"close")]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _is_local(client: str) -> bool:
    address = ipaddress.ip_address(client)
    return address.is_loopback or address in _task_addresses or client == _host


def role_credentials(role_name: str, session_name: str) -> JsonObject | None:
    """Temporary credentials in the form of the ECS agent. None for a role that ECS may not assume."""
    role = iam._roles.get(role_name)
    if role is None or not _trusts_ecs(role):
        return None
    arn = role["Arn"]
    session = {
        "Arn": f"arn:aws:sts::{get_account_id()}:assumed-role/{role_name}/{session_name}",
        "UserId": f"{role['RoleId']}:{session_name}",
        "SecretAccessKey": iam._gen_secret(),
        "SessionToken": iam._gen_session_token(),
        "Expiration": time.time() + SESSION_SECONDS,
        "AccountId": get_account_id(),
        "PrincipalType": "AssumedRole",
    }
    key = iam._gen_session_access_key()
    sts.register_session(key, session)
    return {
        "AccessKeyId": key,
        "SecretAccessKey": session["SecretAccessKey"],
        "Token": session["SessionToken"],
        "Expiration": iam._future(SESSION_SECONDS),
        "RoleArn": arn,
    }


def _trusts_ecs(role: JsonObject) -> bool:
    policy = role.get("AssumeRolePolicyDocument", {})
    policy = json.loads(policy) if isinstance(policy, str) else policy
    statements = policy.get("Statement", [])
    for statement in [statements] if isinstance(statements, dict) else statements:
        principal = statement.get("Principal")
        services = principal.get("Service", []) if isinstance(principal, dict) else []
        services = [services] if isinstance(services, str) else services
        if statement.get("Effect") == "Allow" and _ECS in services:
            return True
    return False


async def _imds(
    method: str, path: str, headers: JsonObject, body: bytes, query_params: JsonObject
) -> tuple[int, JsonObject, bytes]:
    parts = path.strip("/").split("/")
    if parts[:2] != ["v2", "credentials"]:
        response: tuple[int, JsonObject, bytes] = await _ministack_imds(
            method, path, headers, body, query_params
        )
        return response
    document = role_credentials(*parts[2:]) if method == "GET" and len(parts) == 4 else None
    status = 200 if document else 404
    answer = document or {"code": "NotFound", "message": f"no role at {path}"}
    return status, {"Content-Type": "application/json"}, json.dumps(answer).encode()


def _register_metadata(
    task_arn: str, cluster_arn: str, definition: JsonObject, container: JsonObject, launch_type: str,
    env: dict[str, str], *more: Any,
) -> Any:  # fmt: skip
    """Adds the variables that Fargate sets to ministack's own."""
    token = _ministack_register_metadata(
        task_arn, cluster_arn, definition, container, launch_type, env, *more
    )
    base = f"http://{_host}:{_port}"
    env["AWS_ENDPOINT_URL"] = base
    env["ECS_CONTAINER_METADATA_URI_V4"] = f"{base}/v4/{token}"
    env["AWS_EXECUTION_ENV"] = "AWS_ECS_FARGATE"
    env["AWS_REGION"] = env["AWS_DEFAULT_REGION"] = get_region()
    for name in ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN"):
        env.pop(name, None)

    role_name = definition.get("taskRoleArn", "").rpartition("/")[2]
    session_name = task_arn.rpartition("/")[2]
    if role_name and _host == AGENT_ADDRESS:
        env["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"{base}/v2/credentials/{role_name}/{session_name}"
    elif role_name:
        # With Docker Desktop and rootless engines the host has no address that the SDKs accept. So the task
        # gets credentials that it cannot renew.
        credentials = role_credentials(role_name, session_name)
        if credentials is not None:
            env["AWS_ACCESS_KEY_ID"] = credentials["AccessKeyId"]
            env["AWS_SECRET_ACCESS_KEY"] = credentials["SecretAccessKey"]
            env["AWS_SESSION_TOKEN"] = credentials["Token"]
    return token


def _build_run_kwargs(
    container: JsonObject, definition: JsonObject, env: dict[str, str], port_bindings: Any, ecs_network: Any,
    host_mode: Any, task_id: str, task_arn: str, *more: Any,
) -> JsonObject:  # fmt: skip
    """Adds the settings of the task definition to the arguments that start the container."""
    kwargs: JsonObject = _ministack_build_run_kwargs(
        container, definition, env, port_bindings, ecs_network, host_mode, task_id, task_arn, *more
    )
    if _network:
        kwargs["network"] = _network
        kwargs.pop("extra_hosts", None)
    if container.get("user"):
        kwargs["user"] = container["user"]
    if container.get("entryPoint"):
        kwargs["entrypoint"] = container["entryPoint"]
    if container.get("readonlyRootFilesystem"):
        kwargs["read_only"] = True  # the image's volumes stay writable
    linux = container.get("linuxParameters") or {}
    # The keys begin with a capital letter if they come from a template, and with a small one in the API.
    capabilities = linux.get("capabilities") or linux.get("Capabilities") or {}
    kwargs["cap_drop"] = capabilities.get("drop") or capabilities.get("Drop") or []

    task = ecs._tasks.get(task_arn) or {}
    memory = (task.get("overrides") or {}).get("memory") or definition.get("memory")
    if memory:
        kwargs["mem_limit"] = kwargs["memswap_limit"] = f"{memory}m"
    return kwargs


def _mark_task_stopped(
    task_arn: str, task: JsonObject, reason: str, stop_code: str, exit_code: int | None = None
) -> Any:
    """Gives a task that StopTask ends the exit code of SIGTERM. Ministack gives it 0."""
    if stop_code == "UserInitiated":
        exit_code = 128 + signal.SIGTERM
    return _ministack_mark_task_stopped(task_arn, task, reason, stop_code, exit_code=exit_code)


def _action(service: str, *request: Any) -> str | None:
    action: str | None = _ministack_action(service, *request)
    return action.removesuffix("Batch") if service == "sqs" and action else action


def _resource_arn(
    service: str, method: str, path: str, headers: dict[str, str], body: bytes, params: Any, region: str,
    account_id: str,
) -> Any:  # fmt: skip
    """The ARN that policies check for a call. ARNs of ECS follow AWS's service authorization reference."""
    if service == "ecs":
        action = headers.get("x-amz-target", "").rpartition(".")[2]
        call = _json_object(body)
        arn = f"arn:aws:ecs:{region}:{account_id}:"
        cluster = _name(call.get("cluster") or "default")
        if action == "RunTask":
            return f"{arn}task-definition/{_name(call.get('taskDefinition', ''))}"
        if action in ("DescribeTasks", "StopTask"):
            task = call.get("task") or next(iter(call.get("tasks") or []), "")
            return f"{arn}task/{cluster}/{_name(task)}"
        if action == "DescribeClusters":
            return f"{arn}cluster/{_name(next(iter(call.get('clusters') or []), 'default'))}"
        if action == "ListTasks":
            return "*"
    return _ministack_resource_arn(service, method, path, headers, body, params, region, account_id)


def _request_context(service: str, iam_action: str, body: bytes, params: Any) -> JsonObject:
    context: JsonObject = _ministack_request_context(service, iam_action, body, params)
    if service == "ecs":
        cluster = _name(_json_object(body).get("cluster") or "default")
        context["ecs:cluster"] = f"arn:aws:ecs:{get_region()}:{get_account_id()}:cluster/{cluster}"
    return context


def _json_object(body: bytes) -> JsonObject:
    try:
        value = json.loads(body or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


iam_actions.extract_iam_action = _action
iam_actions.extract_resource_arn = _resource_arn
iam_actions.request_tag_context = _request_context
ecs._register_metadata = _register_metadata
ecs._build_run_kwargs = _build_run_kwargs
ecs._mark_task_stopped = _mark_task_stopped
imds.handle_request = _imds
app.app = _only_for_this_machine
# Ministack binds one address only.
hypercorn.config.Config.bind = property(
    lambda _: [f"{address}:{_port}" for address in _listening_addresses()], lambda *_: None
)

if __name__ == "__main__":
    app.main()
