"""`make demo`: from a video file to a page that plays it, through the real thing on this machine.

demo.py demo [VIDEO]     builds and starts what is needed, uploads VIDEO (or a clip made on the spot)
demo.py upload VIDEO     uploads to the stack that is running and follows that
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from vidstreamx_devtools.local import follow
from vidstreamx_devtools.local import programs
from vidstreamx_devtools.local import stack
from vidstreamx_devtools.local import viewer
from vidstreamx_devtools.settings import REPO, Problem, Settings
from vidstreamx_devtools.terminal import bit_rate, size, step, table

_CLIP_SECONDS = 10
_SUFFIXES = (".mp4", ".MP4", ".mov", ".MOV", ".m4v")


def demo(settings: Settings, video: Path | None) -> int:
    if video is not None:
        _check(video)
    binaries = programs.build()
    programs.build_image(settings, binaries)
    running = stack.up(settings)
    viewer.start(settings)
    programs.start_consumer(running, binaries)
    if video is None:
        video = settings.state / "clip.mp4"
        if not video.exists():
            with step(f"make a clip of {_CLIP_SECONDS} s"):
                _make_clip(video)
        key = _free_key(running, f"clip-{time.strftime('%H%M%S')}.mp4")
    else:
        key = _free_key(running, video.name)
        if key != video.name:
            print(f"  {video.name} is there from before: this run uploads it as {key}")
    code = _upload_and_follow(running, video, key)
    _print_what_else(running)
    return code


def upload(settings: Settings, video: Path) -> int:
    _check(video)
    running = stack.load(settings)
    return _upload_and_follow(running, video, video.name)


def _check(video: Path) -> None:
    if not video.is_file():
        raise Problem(f"there is no file {video}")
    if not video.name.endswith(_SUFFIXES):
        raise Problem(f"{video.name}: only uploads that end in {', '.join(_SUFFIXES)} are transcoded")


def _make_clip(path: Path) -> None:
    # A moving picture with a counter, and a tone: what plays wrong is seen and heard.
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-t", str(_CLIP_SECONDS)]
    command += ["-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=30", "-t", str(_CLIP_SECONDS)]
    command += ["-f", "lavfi", "-i", "sine=frequency=330:beep_factor=4:sample_rate=48000"]
    command += ["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    unfinished = path.with_suffix(".part.mp4")
    done = subprocess.run([*command, "-movflags", "+faststart", str(unfinished)], capture_output=True, text=True)
    if done.returncode != 0:
        raise Problem(f"ffmpeg could not make a clip: {done.stderr.strip().splitlines()[-1:]}")
    unfinished.rename(path)


def _free_key(running: stack.Stack, name: str) -> str:
    """The name, or the name with a number where the bucket has it: people who run a demo again want
    to see it happen, and the same content under the same name is one job."""
    taken = set()
    for page in running.client("s3").get_paginator("list_objects_v2").paginate(
        Bucket=running.outputs["UploadBucketName"], Prefix=Path(name).stem
    ):
        taken.update(item["Key"] for item in page.get("Contents", []))
    path = Path(name)
    number = 1
    while name in taken:
        number += 1
        name = f"{path.stem}-{number}{path.suffix}"
    return name


def _upload_and_follow(running: stack.Stack, video: Path, key: str) -> int:
    with step(f"upload {key} ({size(video.stat().st_size)})"):
        uploaded = follow.upload(running, video, key)
    record = follow.find_record(running, uploaded)
    if record is not None and record["state"] != "running":
        print("  The same content was uploaded under this name before: it stays one job, and this is its result.")
        result = follow.read_result(running, record)
    else:
        result = follow.follow(running, programs.consumer(running), uploaded)
    print()
    _print_facts(result, uploaded)
    master = f"{key}/master.m3u8"
    if result.is_done:
        if result.report is None:
            raise Problem(f"{key}/job.json is not in the output bucket, or is of another upload")
        _check_that_it_is_served(running, master)
        print()
        print(_renditions(result.report))
        print()
        print(f"  Playlist  {viewer.stream_url(running.settings, master)}")
        print(f"  Watch it  {viewer.page_url(running.settings, master)}")
        return 0
    if result.record["state"] == "failed" and result.attempt.get("task_arn"):
        for line in follow.last_log_lines(running, result.attempt["task_arn"]):
            print(f"    | {line}")
    print(f"error: {key} was not transcoded, {result.reason}", file=sys.stderr)
    return 1


def _print_facts(result: follow.Result, uploaded: follow.Upload) -> None:
    attempt = result.attempt
    task = result.task or {}
    containers = task.get("containers") or [{}]
    exit_code = attempt.get("exit_code", containers[0].get("exitCode"))
    stop_code = attempt.get("stop_code", task.get("stopCode"))
    print(f"  Source    s3://{uploaded.bucket}/{uploaded.key} ({size(uploaded.size)})")
    print(f"  ECS task  {attempt.get('task_arn', 'none was started')}")
    if attempt.get("task_arn"):
        again = f", attempt {attempt['number']}" if attempt["number"] > 1 else ""
        print(f"  Stopped   {stop_code}, exit code {exit_code}{again}")
    if attempt.get("size"):
        chosen = attempt["size"]
        cost = f", about {attempt['cost_usd']:.4f} USD on AWS" if attempt.get("cost_usd") else ""
        words = f"{chosen['cpu'] / 1024:g} vCPU, {chosen['memory_mib'] / 1024:g} GiB{cost}"
        print(f"  Size      {words} ({attempt['size_reason']})")
    timings = (result.report or {}).get("timings", {})
    if timings:
        parts = [f"{timings['total_seconds']:.1f} s in all"]
        if timings.get("encode_seconds") is not None:
            parts.append(f"{timings['encode_seconds']:.1f} s encoding")
        if timings.get("first_playable_seconds") is not None:
            parts.append(f"playable after {timings['first_playable_seconds']:.1f} s")
        print(f"  Took      {', '.join(parts)}")


def _renditions(report: dict) -> str:
    rows = []
    for one in report["renditions"]:
        measure = f"{one['width']}x{one['height']}" if one["kind"] == "video" else ""
        name = one["name"] if one["kind"] == "video" else f"audio {one['name']}"
        rows.append([name, measure, size(one["bytes"]), bit_rate(one["average_bandwidth"]), bit_rate(one["peak_bandwidth"])])
    return table(rows, ["Rendition", "Size", "Bytes", "Average", "Peak"])


def _check_that_it_is_served(running: stack.Stack, key: str) -> None:
    url = viewer.stream_url(running.settings, key)
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode(errors="replace")
    except (urllib.error.URLError, OSError) as error:
        raise Problem(f"the playlist can't be read: {url}: {error}") from error
    if not text.startswith("#EXTM3U"):
        raise Problem(f"the playlist is none: {url}")


def _print_what_else(running: stack.Stack) -> None:
    settings = running.settings
    print()
    print("  The stack stays up:")
    print("    make upload VIDEO=path           another video")
    print(f"    tail -f {_short(settings.log('consumer'))}   what the consumer does")
    print("    make down                        stops everything")
    print("  With the AWS CLI:")
    print(
        "    AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test aws --region us-east-1 "
        f"--endpoint-url {settings.endpoint} \\\n      s3 cp VIDEO.mp4 s3://{running.outputs['UploadBucketName']}/"
    )


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(REPO))
    except ValueError:
        return str(path)


def main(arguments: list[str]) -> int:
    try:
        settings = Settings.from_environment()
        if arguments[:1] == ["demo"] and len(arguments) <= 2:
            return demo(settings, Path(arguments[1]) if arguments[1:] and arguments[1] else None)
        if arguments[:1] == ["upload"] and len(arguments) == 2 and arguments[1]:
            return upload(settings, Path(arguments[1]))
        print("Usage: demo.py demo [VIDEO] | demo.py upload VIDEO", file=sys.stderr)
        return 2
    except Problem as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; what was started goes on. make down stops it.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # "make demo | head" is no error
    sys.exit(main(sys.argv[1:]))
