"""The Docker engine as the local stack needs it: images, and a way from tasks to the host."""

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

from vidstreamx_devtools.settings import AGENT_ADDRESS, REPO, Problem, Settings

BASE_IMAGE = "debian:trixie-slim"
_BASE_GLIBC = (2, 41)
_NETWORK = "vidstreamx-local"
_FINGERPRINT = "vidstreamx.fingerprint"


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    if check and done.returncode != 0:
        raise Problem(f"docker {arguments[0]}: {_last_line(done.stderr)}")
    return done.stdout.strip()


def host() -> str:
    """The engine's address as DOCKER_HOST has it, for programs that know no Docker contexts."""
    return os.environ.get("DOCKER_HOST") or docker(
        "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"
    )


def way_to_host() -> tuple[str, str]:
    """The host's address as tasks see it, and the network they must be in for that ("" for any).

    The SDKs take a task's credentials only from the address of ECS's agent, so tasks get a network
    whose gateway, which is this machine, has that address. Where containers run in a virtual machine
    or a user's namespace the gateway is not this machine: there Docker's own way is used.
    """
    about = docker("info", "--format", "{{.OperatingSystem}} {{.SecurityOptions}}")
    if "Docker Desktop" in about or "rootless" in about:
        names = docker("run", "--rm", "--add-host", "host:host-gateway", BASE_IMAGE, "getent", "ahostsv4", "host")
        return names.split()[0], ""
    if not docker("network", "ls", "--quiet", "--filter", f"name=^{_NETWORK}$"):
        subnet = AGENT_ADDRESS.rpartition(".")[0] + ".0/24"
        docker("network", "create", "--subnet", subnet, "--gateway", AGENT_ADDRESS, _NETWORK)
    return AGENT_ADDRESS, _NETWORK


def containers(port: int, running_only: bool = False) -> list[str]:
    """Those that the local AWS on this port started."""
    found = docker(
        "ps", *([] if running_only else ["--all"]),
        "--filter", "label=ministack.instance",
        "--format", '{{.ID}} {{.Label "ministack.instance"}}',
    )  # fmt: skip
    pairs = (line.split(" ", 1) for line in found.splitlines())
    return [identity for identity, instance in pairs if instance.endswith(f":{port}")]


def remove_traces(port: int) -> int:
    """Removes a stack's containers, and the network if no other stack needs it."""
    leftover = containers(port)
    if leftover:
        docker("rm", "--force", "--volumes", *leftover, check=False)
    if not _other_stacks():
        docker("network", "rm", _NETWORK, check=False)
    return len(leftover)


def _other_stacks() -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"vidstreamx_devtools.local.aws_server" in path.read_bytes():
                return True
    return False


def build_image(settings: Settings, binary: Path) -> bool:
    """Makes the task's image around a binary; False if it is there already."""
    dockerfile = REPO / "Dockerfile.transcoder"
    fingerprint = hashlib.sha256(dockerfile.read_bytes() + binary.read_bytes()).hexdigest()[:16]
    label = docker(
        "image", "inspect", "--format", f'{{{{index .Config.Labels "{_FINGERPRINT}"}}}}', settings.image, check=False
    )
    if label == fingerprint:
        return False

    client, env = _builder()
    command = [client, "build", "--file", str(dockerfile), "--tag", settings.image]
    command += ["--label", f"{_FINGERPRINT}={fingerprint}"]
    settings.state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.state) as folder, settings.log("image").open("wb") as log:
        if _needed_glibc(binary) <= _BASE_GLIBC:
            (Path(folder) / "bin").mkdir()
            shutil.copy2(binary, Path(folder) / "bin")
            command += ["--build-arg", f"BUILDER={BASE_IMAGE}", folder]
        else:
            # Built against a newer C library than the image's: the image's own build is the way.
            command += [str(REPO)]
        done = subprocess.run(command, env=env, stdout=log, stderr=log)
    if done.returncode != 0:
        raise Problem(
            f"the image of Dockerfile.transcoder could not be built: {_last_line(settings.log('image').read_text())}"
            f" (all of it: {settings.log('image')})"
        )
    return True


def _needed_glibc(binary: Path) -> tuple[int, int]:
    """The newest version of the C library whose symbols a program uses."""
    found = re.findall(rb"GLIBC_(\d+)\.(\d+)", binary.read_bytes())
    return max(((int(major), int(minor)) for major, minor in found), default=(0, 0))


def _builder() -> tuple[str, dict[str, str]]:
    """A client that can use BuildKit if there is one: clients since 23 need a plugin for it."""
    env = dict(os.environ)
    env.pop("DOCKER_BUILDKIT", None)
    for client in dict.fromkeys(filter(None, [shutil.which("docker"), "/usr/bin/docker"])):
        with contextlib.suppress(OSError, ValueError):
            if subprocess.run([client, "buildx", "version"], capture_output=True).returncode == 0:
                return client, env
            version = subprocess.run(
                [client, "version", "--format", "{{.Client.Version}}"], capture_output=True, text=True
            ).stdout
            if int(version.split(".")[0]) < 23:
                return client, {**env, "DOCKER_BUILDKIT": "1"}
    return "docker", {**env, "DOCKER_BUILDKIT": "0"}


def stop_own_engine(settings: Settings) -> bool:
    """Stops the engine if setup.sh started it and no container runs in it."""
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
    return lines[-1] if lines else "it said nothing"
