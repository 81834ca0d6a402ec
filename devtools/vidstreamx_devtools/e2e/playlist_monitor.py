"""A stream while it is made, as a CDN in front of the bucket gets it: it may only ever grow."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from itertools import zip_longest
from urllib.parse import urljoin

import m3u8
from vidstreamx_devtools.local import viewer
from vidstreamx_devtools.e2e.stack_fixture import Upload, World

_A_YEAR = 31_536_000  # seconds


@dataclass(frozen=True)
class Answer:
    text: str
    tag: str
    caching: str

    @property
    def is_for_ever(self) -> bool:
        return "immutable" in self.caching and self.seconds >= _A_YEAR

    @property
    def seconds(self) -> int:
        """How long it may be kept."""
        return int(re.search(r"max-age=(\d+)", self.caching)[1])


def fetch(url: str, method: str = "GET") -> Answer | None:
    """What is at an address; None if there is nothing."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:
            headers = answer.headers
            return Answer(answer.read().decode() if method == "GET" else "", headers["ETag"], headers["Cache-Control"])
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


@dataclass
class Rendition:
    """What its media playlist has said so far."""

    url: str
    listed: list[tuple[str, float]] = field(default_factory=list)  # addresses and seconds of the segments
    tags: dict[str, str] = field(default_factory=dict)  # of what was at an address when it was first listed
    is_final: bool = False

    @property
    def seconds(self) -> float:
        return sum(seconds for _, seconds in self.listed)

    def look(self) -> None:
        answer = fetch(self.url)
        assert answer, f"{self.url} is gone"
        playlist = m3u8.loads(answer.text)
        listed = [(urljoin(self.url, segment.uri), segment.duration) for segment in playlist.segments]
        taken_back = [(was, now) for was, now in zip_longest(self.listed, listed) if was and was != now]
        assert not taken_back, f"{self.url}: {taken_back}"
        assert playlist.is_endlist or not self.is_final, f"{self.url} has ended, and goes on"
        if playlist.is_endlist:
            assert playlist.playlist_type == "vod" and answer.is_for_ever, answer
        else:
            # A cache has to notice before a player looks again.
            assert playlist.playlist_type == "event" and "immutable" not in answer.caching, answer
            assert answer.seconds < playlist.target_duration / 2, answer
        for segment in [*playlist.segment_map, *playlist.segments[len(self.listed) :]]:
            address = urljoin(self.url, segment.uri)
            if address not in self.tags:
                there = fetch(address, "HEAD")
                assert there, f"{address} is listed, and is not there"
                assert there.is_for_ever, there
                self.tags[address] = there.tag
        self.listed, self.is_final = listed, playlist.is_endlist

    def changed(self) -> list[str]:
        """The segments that are not any more what they were when they were first listed."""
        now = {address: fetch(address, "HEAD") for address in self.tags}
        return [address for address, tag in self.tags.items() if not now[address] or now[address].tag != tag]


@dataclass
class Growing:
    """A stream whose stable address is there. Every look is held against the one before."""

    master: str
    renditions: list[Rendition]

    @classmethod
    def appearing(cls, world: World, upload: Upload) -> Growing | None:
        """The upload's stream, if there is one yet."""
        master = viewer.stream_url(world.stack.settings, f"{upload.key}/master.m3u8")
        answer = fetch(master)
        if answer is None:
            return None
        assert "immutable" not in answer.caching and answer.seconds <= 10, answer
        playlist = m3u8.loads(answer.text)
        addresses = [*(variant.uri for variant in playlist.playlists), *(media.uri for media in playlist.media)]
        stream = cls(master, [Rendition(urljoin(master, address)) for address in addresses])
        stream.look()
        return stream

    def look(self) -> None:
        for rendition in self.renditions:
            rendition.look()

    @property
    def seconds(self) -> float:
        """What there is to play in every quality."""
        return min(rendition.seconds for rendition in self.renditions)

    @property
    def is_final(self) -> bool:
        return all(rendition.is_final for rendition in self.renditions)

    @property
    def report(self) -> Answer | None:
        """Which says that all of it is there."""
        return fetch(urljoin(self.master, "job.json"))

    def changed(self) -> list[str]:
        return [address for rendition in self.renditions for address in rendition.changed()]
