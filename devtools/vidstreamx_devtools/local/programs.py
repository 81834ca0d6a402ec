"""VidStreamX's own programs: built once, the consumer run as a process of this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from vidstreamx_devtools.local import engine
from vidstreamx_devtools.processes import Process
from vidstreamx_devtools.settings import REPO, Problem
from vidstreamx_devtools.local.stack import Stack
from vidstreamx_devtools.terminal import Line

CONSUMER = "vidstreamx-consumer"
TRANSCODER = "transcoder-task"


def build(*more: str) -> Path:
    """Builds both in release mode, and what else is asked for; gives the folder they are in."""
    # Never one package alone: it would have its dependencies with other features,
    # and everything would be built twice.
    cargo = subprocess.Popen(
        ["cargo", "build", "--release", "--locked", "--color=never", *more],
        cwd=REPO,
        env={**os.environ, "CARGO_TERM_PROGRESS_WHEN": "always", "CARGO_TERM_PROGRESS_WIDTH": "80"},
        stderr=subprocess.PIPE,
    )
    start = time.monotonic()
    line: Line | None = None
    messages: list[str] = []
    for text in _pieces(cargo.stderr):
        bar = re.match(r"\s*Building \[.*\] (\d+)/(\d+)", text)
        if bar and line:
            line.update(f"{bar[1]} of {bar[2]}, {time.monotonic() - start:.0f} s")
        elif re.match(r"\s*(Compiling|Downloading|Downloaded|Updating|Blocking)\b", text):
            line = line or Line("cargo build --release", every_seconds=20)
        elif text.strip() and not bar:
            messages.append(text)
    if cargo.wait() != 0:
        if line:
            line.clear()
        sys.stderr.write("\n".join(messages) + "\n")
        raise Problem("cargo build --release failed: its messages are above")
    if line:
        line.end()
    return _target_folder() / "release"


def _pieces(stream):
    """Lines of a stream in which some are only redrawn."""
    pending = b""
    while chunk := stream.read1(65536):
        *done, pending = re.split(rb"[\r\n]+", pending + chunk)
        yield from (piece.decode(errors="replace") for piece in done)
    yield pending.decode(errors="replace")


def _target_folder() -> Path:
    metadata = subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--no-deps", "--offline"],
        cwd=REPO, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return Path(json.loads(metadata.stdout)["target_directory"])


def build_image(stack_settings, binaries: Path) -> None:
    """The task's image, around the binary that is already built."""
    line = Line("image of Dockerfile.transcoder")
    if engine.build_image(stack_settings, binaries / TRANSCODER):
        line.end()
    else:
        line.clear()


def start_consumer(stack: Stack, binaries: Path, *arguments: str) -> Process:
    """Starts the consumer with its role's rights, unless this very program runs with these settings."""
    process = consumer(stack)
    binary = binaries / CONSUMER
    about = binary.stat()
    fingerprint = f"{about.st_mtime_ns} {about.st_size} {stack.outputs['ConsumerEnv']} {arguments}"
    if process.pid is not None and process.fingerprint == fingerprint:
        return process
    process.stop()
    # In the state folder, where no .env of anybody's is.
    process.start(
        [binary, "run", *arguments], stack.consumer_environment(), fingerprint, cwd=stack.settings.state
    )
    time.sleep(0.3)
    if process.pid is None:
        raise Problem(f"the consumer ended at once: {process.last_line()} (log: {process.log})")
    return process


def consumer(stack: Stack) -> Process:
    return Process(stack.settings, "consumer")
