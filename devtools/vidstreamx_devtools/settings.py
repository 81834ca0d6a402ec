"""The one place that says where the local stack keeps its things and which ports it uses."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]

# Of the agent that gives ECS tasks their credentials. The SDKs accept it and loopback, nothing else.
AGENT_ADDRESS = "169.254.170.2"


class Problem(Exception):
    """Something a person has to know, as one line that says what is wrong and the way out."""


@dataclass(frozen=True)
class Settings:
    """Two stacks can run side by side if state folder and ports differ."""

    tools: Path  # what setup.sh installs: venv, players
    state: Path  # process ids, logs, outputs of one stack
    port: int  # of the local AWS
    viewer_port: int  # of the page that plays streams
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
        # An address, not a name: for addresses the SDKs put bucket names into the path.
        return f"http://127.0.0.1:{self.port}"

    @property
    def viewer_url(self) -> str:
        return f"http://127.0.0.1:{self.viewer_port}"

    def log(self, name: str) -> Path:
        return self.state / f"{name}.log"


def _port(variable: str, default: int) -> int:
    text = os.environ.get(variable) or str(default)
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise Problem(f'{variable}: "{text}" is not a port number')
    return int(text)


def port_is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def plain_environment() -> dict[str, str]:
    """This process's environment without anybody's AWS settings or credentials."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "VIDSTREAMX_"))}
