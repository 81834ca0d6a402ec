"""The two Rust programs: builds them, builds the task's image, and runs the consumer in the background."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import cast

from vidstreamx_devtools.local import engine
from vidstreamx_devtools.local.stack import Stack
from vidstreamx_devtools.processes import BackgroundProcess
from vidstreamx_devtools.settings import REPO, Settings, UserError
from vidstreamx_devtools.terminal import ProgressLine

CONSUMER = "vidstreamx-consumer"
TRANSCODER = "transcoder-task"


def build(*cargo_arguments: str) -> Path:
    """Builds both programs in release mode and returns the folder with the binaries."""
    # Builds all default members with one command. If Cargo builds a single package, it enables other features
    # of the dependencies, and compiles the dependencies again.
    cargo = subprocess.Popen(
        ["cargo", "build", "--release", "--locked", "--color=never", *cargo_arguments],
        cwd=REPO,
        env={**os.environ, "CARGO_TERM_PROGRESS_WHEN": "always", "CARGO_TERM_PROGRESS_WIDTH": "80"},
        stderr=subprocess.PIPE,
    )
    start = time.monotonic()
    line: ProgressLine | None = None
    messages: list[str] = []
    for text in _lines(cast(BufferedReader, cargo.stderr)):
        bar = re.match(r"\s*Building \[.*\] (\d+)/(\d+)", text)
        if bar and line:
            line.update(f"{bar[1]} of {bar[2]}, {time.monotonic() - start:.0f} s")
        elif re.match(r"\s*(Compiling|Downloading|Downloaded|Updating|Blocking)\b", text):
            line = line or ProgressLine("cargo build --release", every_seconds=20)
        elif text.strip() and not bar:
            messages.append(text)
    if cargo.wait() != 0:
        if line:
            line.clear()
        sys.stderr.write("\n".join(messages) + "\n")
        raise UserError("cargo build --release failed: its messages are above")
    if line:
        line.end()
    return _target_folder() / "release"


def _lines(stream: BufferedReader) -> Iterator[str]:
    """Lines of a stream in which a carriage return also ends a line, as progress bars use it."""
    pending = b""
    while chunk := stream.read1(65536):
        *complete, pending = re.split(rb"[\r\n]+", pending + chunk)
        yield from (line.decode(errors="replace") for line in complete)
    yield pending.decode(errors="replace")


def _target_folder() -> Path:
    metadata = subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--no-deps", "--offline"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(json.loads(metadata.stdout)["target_directory"])


def build_image(settings: Settings, binaries: Path) -> None:
    """Builds the task's image with the binary that `build` made."""
    line = ProgressLine("image of Dockerfile.transcoder")
    if engine.build_image(settings, binaries / TRANSCODER):
        line.end()
    else:
        line.clear()


def start_consumer(stack: Stack, binaries: Path) -> BackgroundProcess:
    """Starts the consumer with its role's rights, unless this binary already runs with these settings."""
    process = consumer(stack)
    binary = binaries / CONSUMER
    status = binary.stat()
    fingerprint = f"{status.st_mtime_ns} {status.st_size} {stack.outputs['ConsumerEnv']}"
    if process.pid is not None and process.fingerprint == fingerprint:
        return process
    process.stop()
    # The consumer reads .env from its working directory, so it does not run in the repository, which may
    # have one.
    process.start([binary, "run"], stack.consumer_environment(), fingerprint, cwd=stack.settings.state)
    time.sleep(0.3)
    if process.pid is None:
        raise UserError(f"the consumer exited: {process.last_line()} (log: {process.log})")
    return process


def consumer(stack: Stack) -> BackgroundProcess:
    return BackgroundProcess(stack.settings, "consumer")
