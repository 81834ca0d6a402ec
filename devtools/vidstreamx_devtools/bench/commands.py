"""The ways that are compared: the naive one, the task, and the task's own FFmpeg command without the task."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from vidstreamx_devtools.bench.container import Machine
from vidstreamx_devtools.settings import Problem

# Finds no ffmpeg but the image's own; tells what it was asked to do.
_SHIM = """#!/bin/sh
printf '%s\\n' "$@" >"/bench/bin/arguments.$$"
exec /usr/bin/ffmpeg "$@"
"""


@dataclass(frozen=True)
class Rung:
    name: str
    width: int
    height: int
    copied: bool
    folder: str  # of its playlist, in the output folder


def naive_script(clip: str, rungs: list[Rung], out: str) -> str:
    """What a competent person writes at first: download, one FFmpeg run per rung, upload.

    The rungs are those that the task makes: no upscaling, and portrait stays portrait. Keyframes at every
    fourth second and fragmented MP4 make segments that can be compared with the task's; `-fps_mode vfr` and
    the source's time base keep FFmpeg from repeating or dropping frames of a source with a variable rate:
    only the same frames can be compared.
    """
    lines = ["set -e", f"mkdir -p {out}/local {out}/uploaded", f"cp {clip} {out}/local/in.mp4"]
    for rung in rungs:
        here = f"{out}/local/{rung.name}"
        # By the side that the ladder counts: the other one follows.
        scale = f"{rung.width}:-2" if rung.width < rung.height else f"-2:{rung.height}"
        lines.append(
            f"mkdir {here}; ffmpeg -nostdin -v error -i {out}/local/in.mp4 -vf scale={scale} -fps_mode vfr -enc_time_base demux"
            " -c:v libx264 -preset medium -crf 23 -force_key_frames 'expr:gte(t,n_forced*4)' -c:a aac -b:a 128k"
            " -f hls -hls_time 4 -hls_playlist_type vod -hls_segment_type fmp4"
            f" -hls_segment_filename {here}/%05d.m4s {here}/index.m3u8"
        )
    lines += [f"cp -r {out}/local/{rung.name} {out}/uploaded/" for rung in rungs]
    return "\n".join(lines)


def task_command(clip: str, out: str) -> list[str]:
    return ["transcoder-task", "--input", clip, "--output", out]


def read_rungs(out: Path) -> list[Rung]:
    """The task's video renditions, largest first, from its report."""
    report = json.loads((out / "job.json").read_text())
    rungs = []
    for rendition in report["renditions"]:
        if rendition["kind"] != "video":
            continue
        folder = f"{report['folder']}/video/{rendition['name']}"
        copied = rendition.get("copied", False)
        rungs.append(Rung(rendition["name"], rendition["width"], rendition["height"], copied, folder))
    if not rungs:
        raise Problem(f"{out / 'job.json'} lists no video rendition")
    return sorted(rungs, key=lambda rung: -rung.height)


def bare_command(machine: Machine, clip: str, out: str) -> str | None:
    """The task's own FFmpeg commands, as a script whose pipes are read by nobody, or None if they can't be had.

    The task runs once with an `ffmpeg` in front of the image's that writes down its arguments.
    """
    folder = machine.path("/bench/bin")
    for old in folder.iterdir():
        old.unlink()
    shim = folder / "ffmpeg"
    shim.write_text(_SHIM)
    shim.chmod(0o755)
    machine.run("env", "PATH=/bench/bin:/usr/local/bin:/usr/bin:/bin", *task_command(clip, out))
    commands = [path.read_text().splitlines() for path in sorted(folder.glob("arguments.*"))]
    # The task runs FFmpeg for other things, too: one that makes renditions writes to pipes of its own, and one of them reports
    # its progress.
    encoding = [command for command in commands if any(map(_is_own_pipe, command))]
    if sum("-progress" in command for command in encoding) != 1:
        return None
    return "; ".join([*map(_unread, encoding), "wait"])


def _is_own_pipe(argument: str) -> bool:
    return bool(re.fullmatch(r"pipe:(\d\d+|[3-9])", argument))


def _unread(command: list[str]) -> str:
    pipes = sorted({int(argument.removeprefix("pipe:")) for argument in command if _is_own_pipe(argument)})
    redirections = " ".join(f"{fd}>/dev/null" for fd in pipes)
    return f"ffmpeg {shlex.join(command)} {redirections} & true"
