"""`make demo`: from a video file to a page that plays it, through the whole system on this machine.

python -m vidstreamx_devtools.local.demo demo [VIDEO]   builds and starts the stack; uploads VIDEO or a clip
python -m vidstreamx_devtools.local.demo upload VIDEO   uploads to the running stack
"""

from __future__ import annotations

import signal
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from vidstreamx_devtools.generate import ffmpeg
from vidstreamx_devtools.local import follow, programs, stack, viewer
from vidstreamx_devtools.settings import REPO, Settings, UserError
from vidstreamx_devtools.terminal import bit_rate, size, table, timed_step

_CLIP_SECONDS = 10
_SUFFIXES = (".mp4", ".MP4", ".mov", ".MOV", ".m4v")
_USAGE = "Usage: python -m vidstreamx_devtools.local.demo demo [VIDEO] | upload VIDEO"


def demo(settings: Settings, video: Path | None) -> int:
    if video is not None:
        _check_video(video)
    binaries = programs.build()
    programs.build_image(settings, binaries)
    running = stack.up(settings)
    viewer.start(settings)
    programs.start_consumer(running, binaries)
    if video is None:
        video = settings.state / "clip.mp4"
        if not video.exists():
            with timed_step(f"make a clip of {_CLIP_SECONDS} s"):
                _make_clip(video)
        key = _unused_key(running, f"clip-{time.strftime('%H%M%S')}.mp4")
    else:
        key = _unused_key(running, video.name)
        if key != video.name:
            print(f"  {video.name} was uploaded before: this run uploads it as {key}")
    code = _upload_and_follow(running, video, key)
    _print_next_steps(running)
    return code


def upload(settings: Settings, video: Path) -> int:
    _check_video(video)
    running = stack.load(settings)
    return _upload_and_follow(running, video, video.name)


def _check_video(video: Path) -> None:
    if not video.is_file():
        raise UserError(f"there is no file {video}")
    if not video.name.endswith(_SUFFIXES):
        raise UserError(f"{video.name}: only uploads that end in {', '.join(_SUFFIXES)} are transcoded")


def _make_clip(path: Path) -> None:
    # A moving picture with a counter, and a beep every second, so that playback errors can be seen and heard.
    ffmpeg(
        path,
        *("-f", "lavfi", "-i", f"testsrc2=size=1280x720:rate=30:duration={_CLIP_SECONDS}"),
        *(
            "-f",
            "lavfi",
            "-i",
            f"sine=frequency=330:beep_factor=4:sample_rate=48000:duration={_CLIP_SECONDS}",
        ),
        *("-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p", "-c:a", "aac"),
        *("-movflags", "+faststart"),
    )


def _unused_key(running: stack.Stack, name: str) -> str:
    """The name, with a number appended if the upload bucket has this key.

    A new key starts a new job; the same content under the same key would stay one job.
    """
    path = Path(name)
    taken = {item["Key"] for item in running.list_objects(running.upload_bucket, path.stem)}
    number = 1
    while name in taken:
        number += 1
        name = f"{path.stem}-{number}{path.suffix}"
    return name


def _upload_and_follow(running: stack.Stack, video: Path, key: str) -> int:
    with timed_step(f"upload {key} ({size(video.stat().st_size)})"):
        uploaded = running.upload(video, key)
    record = follow.find_record(running, uploaded)
    if record is not None and record["state"] != "running":
        print("  The same content was uploaded under this key before. It stays one job; this is its result.")
        result = follow.read_result(running, record)
    else:
        result = follow.follow(running, programs.consumer(running), uploaded)
    print()
    _print_facts(result, uploaded)
    master = f"{key}/master.m3u8"
    if result.is_done:
        if result.report is None:
            raise UserError(f"{key}/job.json is missing in the output bucket, or belongs to another upload")
        _check_served(running, master)
        print()
        print(_renditions_table(result.report))
        print()
        print(f"  Playlist  {viewer.stream_url(running.settings, master)}")
        print(f"  Watch it  {viewer.page_url(running.settings, master)}")
        return 0
    if result.record["state"] == "failed" and result.attempt.get("task_arn"):
        for line in running.task_log(result.attempt["task_arn"], limit=8):
            print(f"    | {line}")
    print(f"error: {key} was not transcoded, {result.reason}", file=sys.stderr)
    return 1


def _print_facts(result: follow.Result, uploaded: stack.Upload) -> None:
    attempt = result.attempt
    task = result.task or {}
    containers = task.get("containers") or [{}]
    exit_code = attempt.get("exit_code", containers[0].get("exitCode"))
    stop_code = attempt.get("stop_code", task.get("stopCode"))
    print(f"  Source    s3://{uploaded.bucket}/{uploaded.key} ({size(uploaded.size)})")
    print(f"  ECS task  {attempt.get('task_arn', 'none was started')}")
    if attempt.get("task_arn"):
        number = f", attempt {attempt['number']}" if attempt["number"] > 1 else ""
        print(f"  Stopped   {stop_code}, exit code {exit_code}{number}")
    if attempt.get("size"):
        chosen = attempt["size"]
        cost = f", about {attempt['cost_usd']:.4f} USD on AWS" if attempt.get("cost_usd") else ""
        units = f"{chosen['cpu'] / 1024:g} vCPU, {chosen['memory_mib'] / 1024:g} GiB{cost}"
        print(f"  Size      {units} ({attempt['size_reason']})")
    timings = (result.report or {}).get("timings", {})
    if timings:
        parts = [f"{timings['total_seconds']:.1f} s in all"]
        if timings.get("encode_seconds") is not None:
            parts.append(f"{timings['encode_seconds']:.1f} s encoding")
        if timings.get("first_playable_seconds") is not None:
            parts.append(f"playable after {timings['first_playable_seconds']:.1f} s")
        print(f"  Took      {', '.join(parts)}")


def _renditions_table(report: dict[str, Any]) -> str:
    rows = []
    for rendition in report["renditions"]:
        is_video = rendition["kind"] == "video"
        rows.append(
            [
                rendition["name"] if is_video else f"audio {rendition['name']}",
                f"{rendition['width']}x{rendition['height']}" if is_video else "",
                size(rendition["bytes"]),
                bit_rate(rendition["average_bandwidth"]),
                bit_rate(rendition["peak_bandwidth"]),
            ]
        )
    return table(rows, ["Rendition", "Size", "Bytes", "Average", "Peak"])


def _check_served(running: stack.Stack, key: str) -> None:
    url = viewer.stream_url(running.settings, key)
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            text = response.read().decode(errors="replace")
    except (urllib.error.URLError, OSError) as error:
        raise UserError(f"the playlist can't be read: {url}: {error}") from error
    if not text.startswith("#EXTM3U"):
        raise UserError(f"this is not an HLS playlist: {url}")


def _print_next_steps(running: stack.Stack) -> None:
    settings = running.settings
    print()
    print("  The stack stays up:")
    print("    make upload VIDEO=path           uploads another video")
    print(f"    tail -f {_relative(settings.log('consumer'))}   shows the consumer's log")
    print("    make down                        stops everything")
    print("  With the AWS CLI:")
    print(
        "    AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test aws --region us-east-1 "
        f"--endpoint-url {settings.endpoint} \\\n      s3 cp VIDEO.mp4 s3://{running.upload_bucket}/"
    )


def _relative(path: Path) -> str:
    return str(path.relative_to(REPO) if path.is_relative_to(REPO) else path)


def main(arguments: list[str]) -> int:
    try:
        settings = Settings.from_environment()
        if arguments[:1] == ["demo"] and len(arguments) <= 2:
            return demo(settings, Path(arguments[1]) if arguments[1:] and arguments[1] else None)
        if arguments[:1] == ["upload"] and len(arguments) == 2 and arguments[1]:
            return upload(settings, Path(arguments[1]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. The stack keeps running; make down stops it.", file=sys.stderr)
        return 130
    print(_USAGE, file=sys.stderr)
    return 2


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # "make demo | head" is no error
    sys.exit(main(sys.argv[1:]))
