"""The DASH manifest (ISO 23009-1): it parses, its files exist, and its times are those of the segments."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from vidstreamx_devtools.streams import boxes
from vidstreamx_devtools.streams.findings import Findings
from vidstreamx_devtools.streams.published import Stream, resolve
from vidstreamx_devtools.streams.source import Source

_NS = "{urn:mpeg:dash:schema:mpd:2011}"
_DURATION = re.compile(r"^PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?$")
_TICK_TOLERANCE = 1
_ROUNDING = 0.001  # seconds


@dataclass(frozen=True)
class _Representation:
    element: Element
    adaptation_set: Element
    base: Path  # the folder that its URLs are relative to

    def get(self, attribute: str) -> str:
        """An attribute of the representation or, by default, of its adaptation set."""
        return self.element.get(attribute) or self.adaptation_set.get(attribute) or ""

    @property
    def template(self) -> Element | None:
        name = f"{_NS}SegmentTemplate"
        own = self.element.find(name)
        return own if own is not None else self.adaptation_set.find(name)


@dataclass(frozen=True)
class _Entry:
    path: Path
    start: int  # in ticks
    duration: int


def check(source: Source, stream: Stream, findings: Findings) -> None:
    path = stream.folder / "manifest.mpd"
    if not findings.expect(path.is_file(), "manifest.mpd", "a file", "none"):
        return
    try:
        root = ElementTree.fromstring(path.read_text())
    except ElementTree.ParseError as error:
        findings.expect(False, "manifest.mpd", "XML", error)
        return
    findings.equal("DASH: root", f"{_NS}MPD", root.tag)
    findings.equal("DASH: type", "static", root.get("type", "static"))
    findings.expect(root.get("profiles"), "DASH: profiles", "some", "none")
    buffer = root.get("minBufferTime", "")
    findings.expect(_DURATION.match(buffer), "DASH: minBufferTime", "PT…S", buffer)
    seconds = _seconds(root.get("mediaPresentationDuration", ""))
    end = max(rendition.end for rendition in stream.renditions)
    findings.near("DASH: mediaPresentationDuration", end, seconds, 0.1)
    in_manifest: set[Path] = set()
    for representation in _representations(root, path.parent):
        in_manifest |= _check_representation(representation, findings)
    in_playlists = {segment.path for rendition in stream.renditions for segment in rendition.segments}
    missing = sorted(str(one.relative_to(stream.folder)) for one in in_playlists - in_manifest)
    got = f"without {len(missing)}: {missing[:2]}"
    findings.expect(not missing, "DASH: the segments of HLS", "all of them", got)
    if source.subtitles:
        sets = root.iter(f"{_NS}AdaptationSet")
        kinds = {one.get("contentType") or (one.get("mimeType") or "").partition("/")[0] for one in sets}
        findings.expect("text" in kinds, "DASH: subtitles", "an adaptation set", kinds)


def _representations(root: Element, folder: Path) -> Iterator[_Representation]:
    base = _resolve_base(root, folder)
    for period in root.findall(f"{_NS}Period"):
        period_base = _resolve_base(period, base)
        for adaptation_set in period.findall(f"{_NS}AdaptationSet"):
            set_base = _resolve_base(adaptation_set, period_base)
            for element in adaptation_set.findall(f"{_NS}Representation"):
                yield _Representation(element, adaptation_set, _resolve_base(element, set_base))


def _resolve_base(element: Element, folder: Path) -> Path:
    base = element.find(f"{_NS}BaseURL")
    return resolve(folder, base.text.strip()) if base is not None and base.text else folder


def _check_representation(representation: _Representation, findings: Findings) -> set[Path]:
    """Checks a representation. Returns the paths of those of its segments that exist."""
    label = f"DASH {representation.element.get('id')}"
    mime_type = representation.get("mimeType")
    findings.expect("/" in mime_type, f"{label}: mimeType", "one", mime_type or "none")
    bandwidth = representation.element.get("bandwidth") or ""
    findings.expect(bandwidth.isdigit(), f"{label}: bandwidth", "a number", bandwidth)
    template = representation.template
    if template is None:
        if mime_type.startswith("text/"):
            base = representation.base
            findings.expect(base.is_file(), f"{label}: BaseURL", "a file", base.name)
        else:
            findings.expect(False, f"{label}: SegmentTemplate", "one", "none")
        return set()
    ticks = int(template.get("timescale", "1"))
    entries = _entries(representation, template)
    findings.expect(entries, f"{label}: segments", "some", "none")
    init_uri = _expand(template.get("initialization", ""), representation, 0, 0)
    init_path = resolve(representation.base, init_uri)
    if not findings.expect(init_path.is_file(), f"{label}: init segment", "a file", init_path.name):
        return set()
    init = init_path.read_bytes()
    if mime_type.startswith(("video/", "audio/")):
        codecs = representation.get("codecs").lower()
        findings.equal(f"{label}: codecs", boxes.codecs(init).lower(), codecs)
    tolerance = max(_TICK_TOLERANCE, ticks * _ROUNDING)
    found: set[Path] = set()
    for entry in entries:
        name = entry.path.name
        if not findings.expect(entry.path.is_file(), f"{label}: {name}", "a file", "none"):
            continue
        found.add(entry.path)
        data = entry.path.read_bytes()
        # The standard asks for the earliest presentation time. The decode time is accepted too, because both
        # are equal if no frame is reordered across the start of the segment.
        starts = [min(sample.time for sample in boxes.samples(init, data)) * ticks]
        starts += [time * ticks / boxes.timescale(init) for time in boxes.decode_times(data)[:1]]
        is_right = any(abs(start - entry.start) <= tolerance for start in starts)
        expected, got = f"{starts[0] / ticks:.3f} s", f"{entry.start / ticks:.3f} s"
        findings.expect(is_right, f"{label}: start of {name}", expected, got)
    for entry, following in pairwise(entries):
        end = entry.start + entry.duration
        is_right = abs(end - following.start) <= tolerance
        findings.expect(is_right, f"{label}: end of {entry.path.name}", following.start, end)
    offset = int(template.get("presentationTimeOffset", "0"))
    is_right = offset == 0 or offset <= (entries[0].start if entries else -1)
    findings.expect(is_right, f"{label}: presentationTimeOffset", "not after the start", offset)
    return found


def _entries(representation: _Representation, template: Element) -> list[_Entry]:
    """The entries of the SegmentTimeline, which is required because segments have different durations."""
    timeline = template.find(f"{_NS}SegmentTimeline")
    number = int(template.get("startNumber", "1"))
    entries: list[_Entry] = []
    time = 0
    for run in timeline.findall(f"{_NS}S") if timeline is not None else []:
        time = int(run.get("t", time))
        duration = int(run.get("d", "0"))
        for _ in range(int(run.get("r", "0")) + 1):
            uri = _expand(template.get("media", ""), representation, number, time)
            entries.append(_Entry(resolve(representation.base, uri), time, duration))
            time += duration
            number += 1
    return entries


def _expand(template: str, representation: _Representation, number: int, time: int) -> str:
    """Replaces the identifiers of a URL template, such as $Number%05d$."""
    values = {
        "RepresentationID": representation.element.get("id"),
        "Number": number,
        "Time": time,
        "Bandwidth": int(representation.element.get("bandwidth") or 0),
    }

    def value(match: re.Match[str]) -> str:
        return (match[2] or "%s") % values[match[1]]

    return re.sub(r"\$(RepresentationID|Number|Time|Bandwidth)(%0\d+d)?\$", value, template)


def _seconds(text: str) -> float:
    match = _DURATION.match(text)
    if not match:
        return math.nan
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds
