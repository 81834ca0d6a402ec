"""A small web server that stands in for the CDN one would put before the output bucket on AWS.

/streams/KEY         the object KEY of the output bucket, with Range and conditional requests
/play?src=/streams/… a page that plays it (&player=shaka for Shaka Player instead of hls.js)

It listens on this machine's loopback only and holds a key that can read streams and nothing else.
"""

from __future__ import annotations

import http.server
import sys
from pathlib import Path
from urllib.parse import quote, unquote, urlencode, urlsplit

import botocore.exceptions
import stack
from processes import Process
from settings import Problem, Settings, plain_environment, port_is_taken

_HERE = Path(__file__).resolve().parent
_PLAYERS = ("hls.js/dist/hls.min.js", "shaka-player/dist/shaka-player.compiled.js")
_REQUEST_HEADERS = {"Range": "Range", "If-None-Match": "IfNoneMatch"}
_ANSWER_HEADERS = ("Content-Type", "Content-Range", "Cache-Control", "ETag", "Last-Modified", "Accept-Ranges")
_CHUNK = 256 * 1024


def start(settings: Settings) -> str:
    """Starts the server in the background unless it runs; gives its address."""
    process = Process(settings, "viewer")
    # A new stack has a new key for it.
    fingerprint = " ".join(str(path.stat().st_mtime_ns) for path in (Path(__file__), settings.state / "stack.json"))
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
    process.start([sys.executable, __file__], environment, fingerprint)
    process.wait_until(lambda: port_is_taken(settings.viewer_port), patience=15)
    return settings.viewer_url


def stream_url(settings: Settings, key: str) -> str:
    """The address of an object in the output bucket."""
    return settings.viewer_url + _stream_path(key)


def page_url(settings: Settings, key: str, player: str = "") -> str:
    """The address of a page that plays a playlist."""
    query = {"src": _stream_path(key), **({"player": player} if player else {})}
    return f"{settings.viewer_url}/play?{urlencode(query, safe='/', quote_via=quote)}"


def _stream_path(key: str) -> str:
    return "/streams/" + quote(key, safe="/")


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    settings: Settings
    bucket: str
    s3 = None

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if len(path) > len("/streams/") and path.startswith("/streams/"):
            self._stream(unquote(path[len("/streams/") :], errors="replace"))
        elif path == "/play":
            self._file(_HERE / "viewer.html", "text/html; charset=utf-8")
        elif path.startswith("/players/") and path[len("/players/") :] in _PLAYERS:
            file = self.settings.tools / "players" / "node_modules" / path[len("/players/") :]
            self._file(file, "text/javascript; charset=utf-8")
        else:
            self._say(404, "There is /play?src=/streams/<key>/master.m3u8 and /streams/<key>.")

    do_HEAD = do_GET

    def do_OPTIONS(self) -> None:
        self.send_response(204)
        self.send_header("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
        self.send_header("Access-Control-Allow-Headers", "*")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Expose-Headers", "ETag, Content-Length, Content-Range, Accept-Ranges")
        super().end_headers()

    def log_request(self, *_) -> None:
        pass  # a line per segment says nothing

    def _stream(self, key: str) -> None:
        request = {ours: self.headers[name] for name, ours in _REQUEST_HEADERS.items() if self.headers[name]}
        call = self.s3.head_object if self.command == "HEAD" else self.s3.get_object
        try:
            answer = call(Bucket=self.bucket, Key=key, **request)
        except botocore.exceptions.ClientError as error:
            status = error.response["ResponseMetadata"].get("HTTPStatusCode", 502)
            if status not in (304, 404, 416):
                self.log_error("%s: %s", key, error)
            self._say(status, "" if status == 304 else f"{key}: {error.response['Error']['Message']}")
            return
        except (botocore.exceptions.BotoCoreError, ValueError) as error:
            self.log_error("%s: %s", key, error)
            self._say(502, f"{key}: {error}")
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

    def _file(self, path: Path, content_type: str) -> None:
        try:
            content = path.read_bytes()
        except OSError as error:
            self._say(404, str(error))
            return
        self._send(200, content, content_type)

    def _say(self, status: int, text: str) -> None:
        self._send(status, f"{text}\n".encode() if text else b"", "text/plain; charset=utf-8")

    def _send(self, status: int, content: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD" and status != 304:
            self.wfile.write(content)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def main() -> None:
    running = stack.load(Settings.from_environment())
    _Handler.settings = running.settings
    _Handler.bucket = running.outputs["OutputBucketName"]
    _Handler.s3 = running.viewer_client("s3")
    _Server(("127.0.0.1", running.settings.viewer_port), _Handler).serve_forever()


if __name__ == "__main__":
    main()
