"""Runs the local AWS (ministack), with the parts of Fargate that it leaves out.

Ministack starts ECS tasks as containers, but takes little of the task definition beyond the image, and
hands out credentials that belong to no role, from an address that the SDKs refuse. Here tasks get:

- the credentials of their own role, from an address the SDKs accept (only loopback and the ECS agent's
  169.254.170.2 are), valid for an hour and renewed by the SDK as in ECS;
- user, read-only root file system, dropped capabilities and the memory limit of their definition;
- the endpoint as an address, for which the SDKs put bucket names into the path.

IAM policies see ECS calls as AWS presents them: by task definition or task, with ecs:cluster as a
condition. Ministack by itself checks all of them against the cluster. SQS's batch calls need the
permission of the single call, as in AWS; ministack asks for one that does not exist there.

Whoever reaches the local AWS owns this machine: its administrator's key is known to all, and it can
mount any folder in a container. So it listens where its own tasks and this machine's programs reach
it and nowhere else, and answers nobody else: others on the same network could still send packets for
the gateway's address through one of this machine's other interfaces.

The consumer gets its role's credentials the same way, as it does when it runs as an ECS service:
AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1:PORT/v2/credentials/ROLE/SESSION

Written against the version of ministack that requirements.txt pins. Settings come by environment:
GATEWAY_PORT, AUTH, BIND_HOST (ministack's own), TASK_HOST and TASK_NETWORK (set by stack.py).
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import time

import hypercorn.config
from ministack import app
from ministack.core import iam_actions
from ministack.core.responses import get_account_id, get_region
from ministack.services import ecs, iam, imds, sts
from vidstreamx_devtools.settings import AGENT_ADDRESS

SESSION_SECONDS = 3600
_ECS = "ecs-tasks.amazonaws.com"

_host = os.environ["TASK_HOST"]
_network = os.environ.get("TASK_NETWORK", "")
_port = os.environ["GATEWAY_PORT"]

_task_addresses = ipaddress.ip_network(f"{AGENT_ADDRESS}/24", strict=False)  # see engine.py

_ministack_app = app.app
_ministack_register_metadata = ecs._register_metadata
_ministack_build_run_kwargs = ecs._build_run_kwargs
_ministack_imds = imds.handle_request
_ministack_action = iam_actions.extract_iam_action
_ministack_resource_arn = iam_actions.extract_resource_arn
_ministack_request_context = iam_actions.request_tag_context


def _listening_addresses() -> list[str]:
    """Loopback, and what tasks are told to be this host, where that is an address of this machine.

    It is none with Docker Desktop, which forwards tasks' connections to loopback. A rootless engine does
    the same if it was set up to let containers reach the host's loopback at all; one set up with
    another address of the host's (host-gateway-ip) gets that one, guarded by `_only_for_this_machine`.
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


async def _only_for_this_machine(scope, receive, send):
    client = scope.get("client")
    if client is None or _is_of_this_machine(client[0]):
        await _ministack_app(scope, receive, send)
    elif scope["type"] == "websocket":
        await send({"type": "websocket.close"})
    else:
        await send({"type": "http.response.start", "status": 403, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b""})


def _is_of_this_machine(client: str) -> bool:
    address = ipaddress.ip_address(client)
    return address.is_loopback or address in _task_addresses or client == _host


def role_credentials(role_name: str, session_name: str) -> dict | None:
    """Temporary credentials as ECS's agent gives them out; None for a role that ECS may not assume."""
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


def _trusts_ecs(role: dict) -> bool:
    policy = role.get("AssumeRolePolicyDocument", {})
    policy = json.loads(policy) if isinstance(policy, str) else policy
    statements = policy.get("Statement", [])
    for statement in [statements] if isinstance(statements, dict) else statements:
        principal = statement.get("Principal")
        services = principal.get("Service", []) if isinstance(principal, dict) else []
        if statement.get("Effect") == "Allow" and _ECS in ([services] if isinstance(services, str) else services):
            return True
    return False


async def _imds(method, path, headers, body, query_params):
    parts = path.strip("/").split("/")
    if parts[:2] != ["v2", "credentials"]:
        return await _ministack_imds(method, path, headers, body, query_params)
    document = role_credentials(*parts[2:]) if method == "GET" and len(parts) == 4 else None
    status, answer = (200, document) if document else (404, {"code": "NotFound", "message": f"no role at {path}"})
    return status, {"Content-Type": "application/json"}, json.dumps(answer).encode()


def _register_metadata(task_arn, cluster_arn, td, cdef, launch_type, env, host_mode, ministack_net_ip):
    """Sets the variables that Fargate sets, on top of ministack's own."""
    token = _ministack_register_metadata(
        task_arn, cluster_arn, td, cdef, launch_type, env, host_mode, ministack_net_ip
    )
    base = f"http://{_host}:{_port}"
    env["AWS_ENDPOINT_URL"] = base
    env["ECS_CONTAINER_METADATA_URI_V4"] = f"{base}/v4/{token}"
    env["AWS_EXECUTION_ENV"] = "AWS_ECS_FARGATE"
    env["AWS_REGION"] = env["AWS_DEFAULT_REGION"] = get_region()
    for name in ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN"):
        env.pop(name, None)

    role_name = td.get("taskRoleArn", "").rpartition("/")[2]
    if role_name and _host == AGENT_ADDRESS:
        session_name = task_arn.rpartition("/")[2]
        env["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"{base}/v2/credentials/{role_name}/{session_name}"
    elif role_name:
        # Docker Desktop and rootless engines: no address of the host's that the SDKs accept.
        credentials = role_credentials(role_name, task_arn.rpartition("/")[2])
        if credentials is not None:
            env["AWS_ACCESS_KEY_ID"] = credentials["AccessKeyId"]
            env["AWS_SECRET_ACCESS_KEY"] = credentials["SecretAccessKey"]
            env["AWS_SESSION_TOKEN"] = credentials["Token"]
    return token


def _build_run_kwargs(cdef, td, env, port_bindings, ecs_network, host_mode, task_id, task_arn, *rest):
    kwargs = _ministack_build_run_kwargs(
        cdef, td, env, port_bindings, ecs_network, host_mode, task_id, task_arn, *rest
    )
    if _network:
        kwargs["network"] = _network
        kwargs.pop("extra_hosts", None)
    if cdef.get("user"):
        kwargs["user"] = cdef["user"]
    if cdef.get("entryPoint"):
        kwargs["entrypoint"] = cdef["entryPoint"]
    if cdef.get("readonlyRootFilesystem"):
        kwargs["read_only"] = True  # volumes of the image stay writable
    linux = cdef.get("linuxParameters") or {}
    capabilities = linux.get("capabilities") or linux.get("Capabilities") or {}  # from a template: in capitals
    kwargs["cap_drop"] = capabilities.get("drop") or capabilities.get("Drop") or []

    task = ecs._tasks.get(task_arn) or {}
    memory = (task.get("overrides") or {}).get("memory") or td.get("memory")
    if memory:
        kwargs["mem_limit"] = kwargs["memswap_limit"] = f"{memory}m"
    return kwargs


def _action(service, *request):
    action = _ministack_action(service, *request)
    return action.removesuffix("Batch") if service == "sqs" and action else action


def _resource_arn(service, method, path, headers, body, params, region, account_id):
    """What a call is about, for policies: as the service authorization reference has it for ECS."""
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


def _request_context(service, iam_action, body, params):
    context = _ministack_request_context(service, iam_action, body, params)
    if service == "ecs":
        cluster = _name(_json_object(body).get("cluster") or "default")
        context["ecs:cluster"] = f"arn:aws:ecs:{get_region()}:{get_account_id()}:cluster/{cluster}"
    return context


def _json_object(body: bytes) -> dict:
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
imds.handle_request = _imds
app.app = _only_for_this_machine
# Ministack itself sets one address.
hypercorn.config.Config.bind = property(
    lambda _: [f"{address}:{_port}" for address in _listening_addresses()], lambda *_: None
)

if __name__ == "__main__":
    app.main()
