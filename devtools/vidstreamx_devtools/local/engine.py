"""The Docker engine: the task's image, the tasks' containers, and their route to the host."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from vidstreamx_devtools.settings import AGENT_ADDRESS, REPO, Settings, UserError

BASE_IMAGE = "debian:trixie-slim"
_BASE_GLIBC = (2, 41)
_NETWORK = "vidstreamx-local"
_FINGERPRINT_LABEL = "vidstreamx.fingerprint"
AWS_SERVER = "vidstreamx_devtools.local.aws_server"


def docker(*arguments: str, check: bool = True, timeout: float | None = None) -> str:
    """Runs a Docker command and returns its output. Raises `UserError` if it fails and `check` is set."""
    command = ["docker", *arguments]
    try:
        completed = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise UserError(f"this command took more than {timeout} s: {' '.join(command)}") from None
    if check and completed.returncode != 0:
        raise UserError(f"docker {arguments[0]}: {_last_line(completed.stderr)}")
    return completed.stdout.strip()


def host() -> str:
    """The engine's address in the form of DOCKER_HOST, for programs that do not read Docker contexts."""
    return os.environ.get("DOCKER_HOST") or docker(
        "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"
    )


def route_to_host() -> tuple[str, str]:
    """The host's address as tasks see it, and the network that tasks must join ("" for the default network).

    The SDKs accept a task's credentials only from the address of the ECS agent. So tasks join a network whose
    gateway, which is this machine, has that address. With Docker Desktop and rootless engines the gateway is
    not this machine; there Docker's `host-gateway` is used.
    """
    info = docker("info", "--format", "{{.OperatingSystem}} {{.SecurityOptions}}")
    if "Docker Desktop" in info or "rootless" in info:
        host_option = ("--add-host", "host:host-gateway")
        names = docker("run", "--rm", *host_option, BASE_IMAGE, "getent", "ahostsv4", "host")
        return names.split()[0], ""
    if not docker("network", "ls", "--quiet", "--filter", f"name=^{_NETWORK}$"):
        subnet = AGENT_ADDRESS.rpartition(".")[0] + ".0/24"
        docker("network", "create", "--subnet", subnet, "--gateway", AGENT_ADDRESS, _NETWORK)
    return AGENT_ADDRESS, _NETWORK


def containers(port: int, running_only: bool = False) -> list[str]:
    """The ids of the containers that the local AWS on this port started."""
    output_format = '{{.ID}} {{.Label "ministack.instance"}}'
    filters = ["--filter", "label=ministack.instance", *([] if running_only else ["--all"])]
    listed = docker("ps", *filters, "--format", output_format)
    pairs = (line.split(" ", 1) for line in listed.splitlines())
    return [container for container, instance in pairs if instance.endswith(f":{port}")]


def remove_containers(port: int) -> int:
    """Removes a stack's containers and returns their number. Removes the network if no other stack runs."""
    leftover = containers(port)
    if leftover:
        docker("rm", "--force", "--volumes", *leftover, check=False)
    if not _another_stack_runs():
        docker("network", "rm", _NETWORK, check=False)
    return len(leftover)


def _another_stack_runs() -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if AWS_SERVER.encode() in path.read_bytes():
                return True
    return False


def build_image(settings: Settings, binary: Path) -> bool:
    """Builds the task's image with this binary. Returns False if the image is up to date."""
    dockerfile = REPO / "Dockerfile.transcoder"
    fingerprint = hashlib.sha256(dockerfile.read_bytes() + binary.read_bytes()).hexdigest()[:16]
    label_format = f'{{{{index .Config.Labels "{_FINGERPRINT_LABEL}"}}}}'
    label = docker("image", "inspect", "--format", label_format, settings.image, check=False)
    if label == fingerprint:
        return False

    client, environment = _build_client()
    command = [client, "build", "--file", str(dockerfile), "--tag", settings.image]
    command += ["--label", f"{_FINGERPRINT_LABEL}={fingerprint}"]
    settings.state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.state) as folder, settings.log("image").open("wb") as log:
        if _needed_glibc(binary) <= _BASE_GLIBC:
            (Path(folder) / "bin").mkdir()
            shutil.copy2(binary, Path(folder) / "bin")
            command += ["--build-arg", f"BUILDER={BASE_IMAGE}", folder]
        else:
            # This binary needs a newer C library than the image has, so another is built inside the image.
            command += [str(REPO)]
        completed = subprocess.run(command, env=environment, stdout=log, stderr=log)
    if completed.returncode != 0:
        last_line = _last_line(settings.log("image").read_text())
        log_path = settings.log("image")
        raise UserError(f"Dockerfile.transcoder could not be built: {last_line} (log: {log_path})")
    return True


def _needed_glibc(binary: Path) -> tuple[int, int]:
    """The newest version of the C library whose symbols the program uses."""
    versions = re.findall(rb"GLIBC_(\d+)\.(\d+)", binary.read_bytes())
    return max(((int(major), int(minor)) for major, minor in versions), default=(0, 0))


def _build_client() -> tuple[str, dict[str, str]]:
    """A Docker client that can use BuildKit, and its environment. Clients since 23 need a plugin for it."""
    environment = dict(os.environ)
    environment.pop("DOCKER_BUILDKIT", None)
    for client in dict.fromkeys(filter(None, [shutil.which("docker"), "/usr/bin/docker"])):
        with contextlib.suppress(OSError, ValueError):
            if subprocess.run([client, "buildx", "version"], capture_output=True).returncode == 0:
                return client, environment
            version = subprocess.run(
                [client, "version", "--format", "{{.Client.Version}}"], capture_output=True, text=True
            ).stdout
            if int(version.split(".")[0]) < 23:
                return client, {**environment, "DOCKER_BUILDKIT": "1"}
    return "docker", {**environment, "DOCKER_BUILDKIT": "0"}


def stop_own_engine(settings: Settings) -> bool:
    """Stops the engine if setup.sh started it and it runs no container. Returns whether it was stopped."""
    pid_file = settings.tools / "dockerd.pid"
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        if "dockerd" not in Path(f"/proc/{pid}/cmdline").read_text():
            return False
        if docker("ps", "--quiet", check=False):
            return False
        try:
            os.kill(pid, signal.SIGTERM)
        except PermissionError:
            subprocess.run(["sudo", "kill", str(pid)], check=False)
        deadline = time.monotonic() + 20
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        return True
    return False


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"
