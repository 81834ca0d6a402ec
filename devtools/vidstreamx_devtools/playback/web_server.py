"""The web pages around a player: the page itself, the players' scripts, and streams from wherever they are kept.

On AWS a CDN does this. Here it is for people who try things out, and for tests.
"""

from __future__ import annotations

import http.server
import sys
from pathlib import Path
from urllib.parse import quote, unquote, urlencode, urlsplit

_HERE = Path(__file__).resolve().parent
_PLAYERS = ("hls.js/dist/hls.min.js", "shaka-player/dist/shaka-player.compiled.js")


def stream_path(key: str) -> str:
    """The address of a stream's file, on the server."""
    return "/streams/" + quote(key, safe="/")


def play_path(key: str, player: str = "") -> str:
    """The address, on the server, of a page that plays a playlist or manifest."""
    query = {"src": stream_path(key), **({"player": player} if player else {})}
    return f"/play?{urlencode(query, safe='/', quote_via=quote)}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Everything but `stream`, which says where streams come from. HEAD is GET without the body."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    tools: Path  # where setup.sh has put the players

    def stream(self, key: str) -> None:
        raise NotImplementedError

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if len(path) > len("/streams/") and path.startswith("/streams/"):
            self.stream(unquote(path[len("/streams/") :], errors="replace"))
        elif path == "/play":
            self._file(_HERE / "player.html", "text/html; charset=utf-8")
        elif path.startswith("/players/") and path[len("/players/") :] in _PLAYERS:
            file = self.tools / "players" / "node_modules" / path[len("/players/") :]
            self._file(file, "text/javascript; charset=utf-8")
        else:
            self.say(404, "There is /play?src=/streams/<key>/master.m3u8 and /streams/<key>.")

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

    def say(self, status: int, text: str) -> None:
        self.send(status, f"{text}\n".encode() if text else b"", {"Content-Type": "text/plain; charset=utf-8"})

    def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD" and status != 304:
            self.wfile.write(content)

    def _file(self, path: Path, content_type: str) -> None:
        try:
            content = path.read_bytes()
        except OSError as error:
            self.say(404, str(error))
            return
        self.send(200, content, {"Content-Type": content_type})


class Server(http.server.ThreadingHTTPServer):
    """Silent about players that drop requests, as they do when they seek or change levels."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)
