"""Monitors a growing stream as a CDN in front of the bucket sees it. Playlists may only grow."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from itertools import zip_longest
from urllib.parse import urljoin

import m3u8

from vidstreamx_devtools.e2e.stack_fixture import StackFixture
from vidstreamx_devtools.local import viewer
from vidstreamx_devtools.local.stack import Upload

_YEAR = 31_536_000  # seconds


@dataclass(frozen=True)
class Response:
    text: str
    etag: str
    cache_control: str

    @property
    def is_immutable(self) -> bool:
        return "immutable" in self.cache_control and self.max_age >= _YEAR

    @property
    def max_age(self) -> int:
        """Seconds for which the response may be cached."""
        match = re.search(r"max-age=(\d+)", self.cache_control)
        assert match, self
        return int(match[1])


def fetch(url: str, method: str = "GET") -> Response | None:
    """The response for a URL; None after 404."""
    try:
        request = urllib.request.Request(url, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            text = response.read().decode() if method == "GET" else ""
            return Response(text, response.headers["ETag"], response.headers["Cache-Control"])
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


@dataclass
class PlaylistMonitor:
    """A media playlist, and the state at the last poll."""

    url: str
    segments: list[tuple[str, float]] = field(default_factory=list)  # URL and duration
    etags: dict[str, str] = field(default_factory=dict)  # ETag at the first listing, by the URL of a segment
    is_final: bool = False

    @property
    def seconds(self) -> float:
        return sum(seconds for _, seconds in self.segments)

    def poll(self) -> None:
        response = fetch(self.url)
        assert response, f"{self.url} has disappeared"
        playlist = m3u8.loads(response.text)
        segments = [(urljoin(self.url, segment.uri), segment.duration) for segment in playlist.segments]
        changed = [(old, new) for old, new in zip_longest(self.segments, segments) if old and old != new]
        assert not changed, f"{self.url}: listed segments have changed: {changed}"
        assert playlist.is_endlist or not self.is_final, f"{self.url} was final, but can now grow again"
        if playlist.is_endlist:
            assert playlist.playlist_type == "vod", response
            assert response.is_immutable, response
        else:
            # A cache must refresh before a player polls again.
            assert playlist.playlist_type == "event", response
            assert "immutable" not in response.cache_control, response
            assert response.max_age < playlist.target_duration / 2, response
        for segment in [*playlist.segment_map, *playlist.segments[len(self.segments) :]]:
            url = urljoin(self.url, segment.uri)
            if url not in self.etags:
                head = fetch(url, "HEAD")
                assert head, f"{url} is listed but does not exist"
                assert head.is_immutable, head
                self.etags[url] = head.etag
        self.segments, self.is_final = segments, playlist.is_endlist

    def changed_segments(self) -> list[str]:
        """URLs whose content changed after they were first listed."""
        now = {url: fetch(url, "HEAD") for url in self.etags}
        return [url for url, head in now.items() if head is None or head.etag != self.etags[url]]


@dataclass
class StreamMonitor:
    """A stream whose master playlist exists. Each poll is compared with the poll before."""

    master: str
    playlists: list[PlaylistMonitor]

    @classmethod
    def find(cls, stack: StackFixture, upload: Upload) -> StreamMonitor | None:
        """The upload's stream, if its master playlist exists."""
        master = viewer.stream_url(stack.local.settings, f"{upload.key}/master.m3u8")
        response = fetch(master)
        if response is None:
            return None
        assert "immutable" not in response.cache_control, response
        assert response.max_age <= 10, response
        playlist = m3u8.loads(response.text)
        uris = [*(variant.uri for variant in playlist.playlists), *(media.uri for media in playlist.media)]
        stream = cls(master, [PlaylistMonitor(urljoin(master, uri)) for uri in uris])
        stream.poll()
        return stream

    def poll(self) -> None:
        for playlist in self.playlists:
            playlist.poll()

    @property
    def seconds(self) -> float:
        """The duration that is available in every rendition."""
        return min(playlist.seconds for playlist in self.playlists)

    @property
    def longest_segment(self) -> float:
        return max(seconds for playlist in self.playlists for _, seconds in playlist.segments)

    @property
    def is_final(self) -> bool:
        return all(playlist.is_final for playlist in self.playlists)

    @property
    def report(self) -> Response | None:
        """The report, which is published when the stream is complete."""
        return fetch(urljoin(self.master, "job.json"))

    def changed_segments(self) -> list[str]:
        return [url for playlist in self.playlists for url in playlist.changed_segments()]
