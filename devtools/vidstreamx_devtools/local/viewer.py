"""A small web server that stands in for the CDN one would put before the output bucket on AWS.

/streams/KEY         the object KEY of the output bucket, with Range and conditional requests
/play?src=/streams/… a page that plays it (&player=shaka for Shaka Player instead of hls.js)

It listens on this machine's loopback only and holds a key that can read streams and nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

import botocore.exceptions
from vidstreamx_devtools.playback import web_server as pages
from vidstreamx_devtools.local import stack
from vidstreamx_devtools.processes import Process
from vidstreamx_devtools.settings import Problem, Settings, plain_environment, port_is_taken

_REQUEST_HEADERS = {"Range": "Range", "If-None-Match": "IfNoneMatch"}
_ANSWER_HEADERS = ("Content-Type", "Content-Range", "Cache-Control", "ETag", "Last-Modified", "Accept-Ranges")
_CHUNK = 256 * 1024


def start(settings: Settings) -> str:
    """Starts the server in the background unless it runs; gives its address."""
    process = Process(settings, "viewer")
    # A new stack has a new key for it.
    files = (Path(__file__), Path(pages.__file__), settings.state / "stack.json")
    fingerprint = " ".join(str(path.stat().st_mtime_ns) for path in files)
    if process.pid is not None and process.fingerprint == fingerprint:
        return settings.viewer_url
    process.stop()
    if port_is_taken(settings.viewer_port):
        raise Problem(
            f"port {settings.viewer_port} is taken by another program: stop it, "
            "or choose another port with VIDSTREAMX_VIEWER_PORT"
        )
    settings.log("viewer").unlink(missing_ok=True)
    environment = {
        **plain_environment(),
        "VIDSTREAMX_STATE_DIR": str(settings.state),
        "VIDSTREAMX_TOOLS_DIR": str(settings.tools),
        "VIDSTREAMX_LOCAL_PORT": str(settings.port),
        "VIDSTREAMX_VIEWER_PORT": str(settings.viewer_port),
    }
    process.start([sys.executable, "-m", "vidstreamx_devtools.local.viewer"], environment, fingerprint)
    process.wait_until(lambda: port_is_taken(settings.viewer_port), patience=15)
    return settings.viewer_url


def stream_url(settings: Settings, key: str) -> str:
    """The address of an object in the output bucket."""
    return settings.viewer_url + pages.stream_path(key)


def page_url(settings: Settings, key: str, player: str = "") -> str:
    """The address of a page that plays a playlist."""
    return settings.viewer_url + pages.play_path(key, player)


class _Handler(pages.Handler):
    bucket: str
    s3 = None

    def stream(self, key: str) -> None:
        request = {ours: self.headers[name] for name, ours in _REQUEST_HEADERS.items() if self.headers[name]}
        call = self.s3.head_object if self.command == "HEAD" else self.s3.get_object
        try:
            answer = call(Bucket=self.bucket, Key=key, **request)
        except botocore.exceptions.ClientError as error:
            status = error.response["ResponseMetadata"].get("HTTPStatusCode", 502)
            if status not in (304, 404, 416):
                self.log_error("%s: %s", key, error)
            self.say(status, "" if status == 304 else f"{key}: {error.response['Error']['Message']}")
            return
        except (botocore.exceptions.BotoCoreError, ValueError) as error:
            self.log_error("%s: %s", key, error)
            self.say(502, f"{key}: {error}")
            return
        metadata = answer["ResponseMetadata"]
        self.send_response(metadata["HTTPStatusCode"])
        for name in _ANSWER_HEADERS:
            value = metadata["HTTPHeaders"].get(name.lower())
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(answer["ContentLength"]))
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            for chunk in answer["Body"].iter_chunks(_CHUNK):
                self.wfile.write(chunk)
        except (OSError, botocore.exceptions.BotoCoreError):
            self.close_connection = True  # players drop requests when they seek or change levels


def main() -> None:
    running = stack.load(Settings.from_environment())
    _Handler.tools = running.settings.tools
    _Handler.bucket = running.outputs["OutputBucketName"]
    _Handler.s3 = running.viewer_client("s3")
    pages.Server(("127.0.0.1", running.settings.viewer_port), _Handler).serve_forever()


if __name__ == "__main__":
    main()
