"""A web server on loopback for streams that lie in a folder."""

from __future__ import annotations

import mimetypes
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vidstreamx_devtools.playback import web_server as pages

_TYPES = {
    ".m3u8": "application/vnd.apple.mpegurl",
    ".mpd": "application/dash+xml",
    ".m4s": "video/iso.segment",
    ".mp4": "video/mp4",
    ".vtt": "text/vtt; charset=utf-8",
}
_RANGE = re.compile(r"^bytes=(\d+)-(\d*)$")


@contextmanager
def serving(folder: Path, tools: Path) -> Iterator[str]:
    """Serves until the end of the block; gives the server's address."""
    handler = type("Handler", (_Files,), {"folder": folder.resolve(), "tools": tools})
    server = pages.Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Files(pages.Handler):
    folder: Path

    def stream(self, key: str) -> None:
        path = (self.folder / key).resolve()
        if not path.is_relative_to(self.folder) or not path.is_file():
            self.say(404, f"{key} is not here")
            return
        content = path.read_bytes()
        kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        headers = {"Content-Type": kind, "Accept-Ranges": "bytes", "Cache-Control": "no-store"}
        wanted = _RANGE.match(self.headers.get("Range", ""))
        if wanted is None:
            self.send(200, content, headers)
            return
        first = int(wanted[1])
        last = min(int(wanted[2] or len(content) - 1), len(content) - 1)
        if first > last:
            self.say(416, "")
            return
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self.send(206, content[first : last + 1], headers)
