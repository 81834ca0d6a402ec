"""A web server on loopback that serves streams from a folder."""

from __future__ import annotations

import mimetypes
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vidstreamx_devtools.playback import web_server

_TYPES = {
    ".m3u8": "application/vnd.apple.mpegurl",
    ".mpd": "application/dash+xml",
    ".m4s": "video/iso.segment",
    ".mp4": "video/mp4",
    ".vtt": "text/vtt; charset=utf-8",
}
_RANGE = re.compile(r"^bytes=(\d+)-(\d*)$")


@contextmanager
def serve_folder(folder: Path, tools: Path) -> Iterator[str]:
    """Serves the folder until the end of the block. Yields the server's URL."""
    handler = type("Handler", (_FolderHandler,), {"folder": folder.resolve(), "tools": tools})
    server = web_server.Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _FolderHandler(web_server.Handler):
    folder: Path

    def serve_stream(self, key: str) -> None:
        path = (self.folder / key).resolve()
        if not path.is_relative_to(self.folder) or not path.is_file():
            self.send_text(404, f"{key} does not exist")
            return
        content = path.read_bytes()
        content_type = (
            _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        )
        headers = {"Content-Type": content_type, "Accept-Ranges": "bytes", "Cache-Control": "no-store"}
        requested = _RANGE.match(self.headers.get("Range", ""))
        if requested is None:
            self.send_content(200, content, headers)
            return
        first = int(requested[1])
        last = min(int(requested[2] or len(content) - 1), len(content) - 1)
        if first > last:
            self.send_text(416, "")
            return
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self.send_content(206, content[first : last + 1], headers)
