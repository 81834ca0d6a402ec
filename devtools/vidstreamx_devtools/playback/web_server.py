"""HTTP handlers of the viewer and the file server: player page, players' scripts, and streams."""

from __future__ import annotations

import http.server
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

_PAGE = Path(__file__).with_name("player.html")
_PLAYERS = ("hls.js/dist/hls.min.js", "shaka-player/dist/shaka-player.compiled.js")


def stream_path(key: str) -> str:
    """The path of a stream's file on the server."""
    return "/streams/" + quote(key, safe="/")


def play_path(key: str, player: str = "", is_adaptive: bool = True) -> str:
    """The path, on the server, of a page that plays a playlist or manifest.

    If it is not adaptive, Shaka Player keeps its quality until a test selects another one.
    """
    query = {"src": stream_path(key)}
    if player:
        query["player"] = player
    if not is_adaptive:
        query["quality"] = "fixed"
    return f"/play?{urlencode(query, safe='/', quote_via=quote)}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves everything but streams, which subclasses add. HEAD is GET without the body."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    tools: Path  # the folder that setup.sh installs the players into

    def serve_stream(self, key: str) -> None:
        raise NotImplementedError

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if len(path) > len("/streams/") and path.startswith("/streams/"):
            self.serve_stream(unquote(path[len("/streams/") :], errors="replace"))
        elif path == "/play":
            self._send_file(_PAGE, "text/html; charset=utf-8")
        elif path.startswith("/players/") and path[len("/players/") :] in _PLAYERS:
            file = self.tools / "players" / "node_modules" / path[len("/players/") :]
            self._send_file(file, "text/javascript; charset=utf-8")
        else:
            self.send_text(404, "Available: /play?src=/streams/<key>/master.m3u8 and /streams/<key>.")

    do_HEAD = do_GET  # noqa: N815

    def do_OPTIONS(self) -> None:
        self.send_response(204)
        self.send_header("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
        self.send_header("Access-Control-Allow-Headers", "*")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header(
            "Access-Control-Expose-Headers", "ETag, Content-Length, Content-Range, Accept-Ranges"
        )
        super().end_headers()

    def log_request(self, *_: Any) -> None:
        pass  # one line per segment would hide the errors

    def send_text(self, status: int, text: str) -> None:
        content = f"{text}\n".encode() if text else b""
        self.send_content(status, content, {"Content-Type": "text/plain; charset=utf-8"})

    def send_content(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD" and status != 304:
            self.wfile.write(content)

    def _send_file(self, path: Path, content_type: str) -> None:
        try:
            content = path.read_bytes()
        except OSError as error:
            self.send_text(404, str(error))
            return
        self.send_content(200, content, {"Content-Type": content_type})


class Server(http.server.ThreadingHTTPServer):
    """Ignores aborted connections, because players abort requests when they seek or change levels."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)
