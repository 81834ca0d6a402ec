"""The viewer: a small web server in the place of a CDN in front of the output bucket.

/streams/KEY         the object KEY of the output bucket, with Range and conditional requests
/play?src=/streams/… a page that plays it (&player=shaka for Shaka Player instead of hls.js)

It listens on loopback only, and its key can only read streams.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import botocore.exceptions

from vidstreamx_devtools.local import stack
from vidstreamx_devtools.playback import web_server
from vidstreamx_devtools.processes import BackgroundProcess
from vidstreamx_devtools.settings import Settings, clean_environment, port_is_taken, require_free_port

_REQUEST_HEADERS = {"Range": "Range", "If-None-Match": "IfNoneMatch"}
_RESPONSE_HEADERS = (
    "Content-Type",
    "Content-Range",
    "Cache-Control",
    "ETag",
    "Last-Modified",
    "Accept-Ranges",
)
_CHUNK = 256 * 1024


def start(settings: Settings) -> str:
    """Starts the server in the background, unless it runs and is up to date. Returns its URL."""
    process = BackgroundProcess(settings, "viewer")
    # A new stack has a new key for the viewer, so the stack's state is part of the fingerprint.
    files = (Path(__file__), Path(web_server.__file__), settings.state / "stack.json")
    fingerprint = " ".join(str(path.stat().st_mtime_ns) for path in files)
    if process.pid is not None and process.fingerprint == fingerprint:
        return settings.viewer_url
    process.stop()
    require_free_port(settings.viewer_port, "VIDSTREAMX_VIEWER_PORT")
    settings.log("viewer").unlink(missing_ok=True)
    environment = {
        **clean_environment(),
        "VIDSTREAMX_STATE_DIR": str(settings.state),
        "VIDSTREAMX_TOOLS_DIR": str(settings.tools),
        "VIDSTREAMX_LOCAL_PORT": str(settings.port),
        "VIDSTREAMX_VIEWER_PORT": str(settings.viewer_port),
    }
    process.start([sys.executable, "-m", "vidstreamx_devtools.local.viewer"], environment, fingerprint)
    process.wait_until_ready(lambda: port_is_taken(settings.viewer_port), timeout=15)
    return settings.viewer_url


def stream_url(settings: Settings, key: str) -> str:
    """The URL of an object in the output bucket."""
    return settings.viewer_url + web_server.stream_path(key)


def page_url(settings: Settings, key: str, player: str = "") -> str:
    """The URL of a page that plays a playlist."""
    return settings.viewer_url + web_server.play_path(key, player)


class _BucketHandler(web_server.Handler):
    bucket: str
    s3: Any

    def serve_stream(self, key: str) -> None:
        request = {
            parameter: self.headers[name]
            for name, parameter in _REQUEST_HEADERS.items()
            if self.headers[name]
        }
        call = self.s3.head_object if self.command == "HEAD" else self.s3.get_object
        try:
            response = call(Bucket=self.bucket, Key=key, **request)
        except botocore.exceptions.ClientError as error:
            status = error.response["ResponseMetadata"].get("HTTPStatusCode", 502)
            if status not in (304, 404, 416):
                self.log_error("%s: %s", key, error)
            self.send_text(status, "" if status == 304 else f"{key}: {error.response['Error']['Message']}")
            return
        except (botocore.exceptions.BotoCoreError, ValueError) as error:
            self.log_error("%s: %s", key, error)
            self.send_text(502, f"{key}: {error}")
            return
        metadata = response["ResponseMetadata"]
        self.send_response(metadata["HTTPStatusCode"])
        for name in _RESPONSE_HEADERS:
            value = metadata["HTTPHeaders"].get(name.lower())
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(response["ContentLength"]))
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            for chunk in response["Body"].iter_chunks(_CHUNK):
                self.wfile.write(chunk)
        except (OSError, botocore.exceptions.BotoCoreError):
            self.close_connection = True  # players abort requests when they seek or change levels


def main() -> None:
    running = stack.load(Settings.from_environment())
    _BucketHandler.tools = running.settings.tools
    _BucketHandler.bucket = running.outputs["OutputBucketName"]
    _BucketHandler.s3 = running.viewer_client("s3")
    web_server.Server(("127.0.0.1", running.settings.viewer_port), _BucketHandler).serve_forever()


if __name__ == "__main__":
    main()
