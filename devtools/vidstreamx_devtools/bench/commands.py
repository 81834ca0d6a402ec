"""The compared commands: a naive implementation, the task, and the task's FFmpeg commands alone (bare)."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from vidstreamx_devtools.bench.container import BenchContainer
from vidstreamx_devtools.settings import UserError

# Writes its arguments to a file and runs the image's ffmpeg.
_SHIM = """#!/bin/sh
printf '%s\\n' "$@" >"/bench/bin/arguments.$$"
exec /usr/bin/ffmpeg "$@"
"""


@dataclass(frozen=True)
class Rung:
    name: str
    width: int
    height: int
    is_copied: bool
    folder: str  # folder of its playlist, relative to the output folder


def naive_script(clip: str, rungs: list[Rung], output: str) -> str:
    """A straightforward first implementation: download, one FFmpeg run per rung, upload.

    The rungs are those of the task, so no rung is upscaled and portrait stays portrait. Keyframes every
    four seconds and fragmented MP4 make the segments comparable. `-fps_mode vfr` and the time base of the
    source keep FFmpeg from repeating or dropping frames of a source with a variable frame rate, because
    VMAF needs the same frames.
    """
    lines = ["set -e", f"mkdir -p {output}/local {output}/uploaded", f"cp {clip} {output}/local/in.mp4"]
    for rung in rungs:
        folder = f"{output}/local/{rung.name}"
        # Scaled by the shorter side, as in the ladder.
        scale = f"{rung.width}:-2" if rung.width < rung.height else f"-2:{rung.height}"
        lines.append(
            f"mkdir {folder}; ffmpeg -nostdin -v error -i {output}/local/in.mp4 -vf scale={scale}"
            " -fps_mode vfr -enc_time_base demux -c:v libx264 -preset medium -crf 23"
            " -force_key_frames 'expr:gte(t,n_forced*4)' -c:a aac -b:a 128k"
            " -f hls -hls_time 4 -hls_playlist_type vod -hls_segment_type fmp4"
            f" -hls_segment_filename {folder}/%05d.m4s {folder}/index.m3u8"
        )
    lines += [f"cp -r {output}/local/{rung.name} {output}/uploaded/" for rung in rungs]
    return "\n".join(lines)


def task_command(clip: str, output: str) -> list[str]:
    return ["transcoder-task", "--input", clip, "--output", output]


def read_rungs(output: Path) -> list[Rung]:
    """The task's rungs, largest first, from its report."""
    report = json.loads((output / "job.json").read_text())
    rungs = [
        Rung(
            rendition["name"],
            rendition["width"],
            rendition["height"],
            rendition.get("copied", False),
            f"{report['folder']}/video/{rendition['name']}",
        )
        for rendition in report["renditions"]
        if rendition["kind"] == "video"
    ]
    if not rungs:
        raise UserError(f"{output / 'job.json'} lists no video rendition")
    return sorted(rungs, key=lambda rung: -rung.height)


def bare_command(container: BenchContainer, clip: str, output: str) -> str | None:
    """A script with the task's FFmpeg commands, with outputs to /dev/null. None if recording them fails.

    The task runs once with a recording `ffmpeg` first on PATH.
    """
    folder = container.path("/bench/bin")
    for leftover in folder.iterdir():
        leftover.unlink()
    shim = folder / "ffmpeg"
    shim.write_text(_SHIM)
    shim.chmod(0o755)
    container.run("env", "PATH=/bench/bin:/usr/local/bin:/usr/bin:/bin", *task_command(clip, output))
    commands = [path.read_text().splitlines() for path in sorted(folder.glob("arguments.*"))]
    # The task also runs FFmpeg for analysis and stills. Only the commands that encode renditions write to
    # pipes other than stdout and stderr. Exactly one of these commands reports progress.
    encoding = [command for command in commands if any(map(_is_output_pipe, command))]
    if sum("-progress" in command for command in encoding) != 1:
        return None
    return "; ".join([*map(_discard_outputs, encoding), "wait"])


def _is_output_pipe(argument: str) -> bool:
    return bool(re.fullmatch(r"pipe:(\d\d+|[3-9])", argument))


def _discard_outputs(command: list[str]) -> str:
    pipes = sorted({int(argument.removeprefix("pipe:")) for argument in command if _is_output_pipe(argument)})
    redirections = " ".join(f"{pipe}>/dev/null" for pipe in pipes)
    return f"ffmpeg {shlex.join(command)} {redirections} & true"
