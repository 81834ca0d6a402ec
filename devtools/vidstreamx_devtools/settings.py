"""Paths, ports and names that the local stack uses. `Settings` is the only place that reads
them from the environment."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]

# The address of the agent that gives ECS tasks their credentials. The SDKs accept it and loopback only.
AGENT_ADDRESS = "169.254.170.2"


class UserError(Exception):
    """An error for the user: one line with cause and remedy, without a traceback."""


@dataclass(frozen=True)
class Settings:
    """Settings of one local stack. Two stacks can run side by side if state folder and ports differ."""

    tools: Path  # the folder that setup.sh installs into: venv, players
    state: Path  # process ids, logs and outputs of this stack
    port: int  # port of the local AWS
    viewer_port: int  # port of the viewer, which serves streams and the player page
    stack_name: str = "vidstreamx"
    image: str = "vidstreamx-transcoder:local"
    template: Path = REPO / "infra" / "vidstreamx.yaml"
    region: str = "us-east-1"

    @classmethod
    def from_environment(cls) -> Settings:
        tools = Path(os.environ.get("VIDSTREAMX_TOOLS_DIR") or REPO / ".local")
        return cls(
            tools=tools,
            state=Path(os.environ.get("VIDSTREAMX_STATE_DIR") or tools).resolve(),
            port=_port("VIDSTREAMX_LOCAL_PORT", 4566),
            viewer_port=_port("VIDSTREAMX_VIEWER_PORT", 8088),
        )

    @property
    def endpoint(self) -> str:
        # An IP address: for host names the SDKs put the bucket into the host name.
        return f"http://127.0.0.1:{self.port}"

    @property
    def viewer_url(self) -> str:
        return f"http://127.0.0.1:{self.viewer_port}"

    def log(self, name: str) -> Path:
        return self.state / f"{name}.log"


def _port(variable: str, default: int) -> int:
    text = os.environ.get(variable) or str(default)
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise UserError(f'{variable}: "{text}" is not a port number')
    return int(text)


def require_free_port(port: int, variable: str) -> None:
    """Raises `UserError` if a program listens on the port; `variable` selects another one."""
    if port_is_taken(port):
        raise UserError(
            f"port {port} is taken by another program: stop it, or choose another port with {variable}"
        )


def port_is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def clean_environment() -> dict[str, str]:
    """This process's environment without AWS and VidStreamX variables, so without the user's credentials."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "VIDSTREAMX_"))}
