"""The DASH manifest (ISO 23009-1): it parses, and what it says is on disk, at the times it says."""

from __future__ import annotations

import re
import xml.etree.ElementTree as xml
from dataclasses import dataclass
from pathlib import Path

from vidstreamx_devtools.streams import boxes
from vidstreamx_devtools.streams.findings import Findings
from vidstreamx_devtools.streams.source import Source
from vidstreamx_devtools.streams.published import Stream, address

_NS = "{urn:mpeg:dash:schema:mpd:2011}"
_DURATION = re.compile(r"^PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?$")
_TICKS_OFF = 1  # for rounding
_ROUNDING = 0.001  # seconds


@dataclass(frozen=True)
class _Entry:
    path: Path
    start: int  # in ticks
    duration: int


def check(source: Source, stream: Stream, found: Findings) -> None:
    path = stream.folder / "manifest.mpd"
    if not found.expect(path.is_file(), "manifest.mpd", "there", "not there"):
        return
    try:
        root = xml.fromstring(path.read_text())
    except xml.ParseError as error:
        found.expect(False, "manifest.mpd", "XML", error)
        return
    found.equal("DASH: root", f"{_NS}MPD", root.tag)
    found.equal("DASH: type", "static", root.get("type", "static"))
    found.expect(bool(root.get("profiles")), "DASH: profiles", "named", "none")
    buffer = root.get("minBufferTime", "")
    found.expect(bool(_DURATION.match(buffer)), "DASH: minBufferTime", "PT…S", buffer)
    seconds = _seconds(root.get("mediaPresentationDuration", ""))
    ends = [one.end for one in (*stream.videos.values(), *stream.sounds.values())]
    found.near("DASH: mediaPresentationDuration", max(ends), seconds, 0.1)
    seen: dict[Path, str] = {}
    for base, adaptation, representation in _representations(root, path.parent):
        _representation(base, adaptation, representation, seen, found)
    segments = {
        segment.path for one in (*stream.videos.values(), *stream.sounds.values()) for segment in one.segments
    }
    missing = sorted(str(one.relative_to(stream.folder)) for one in segments - set(seen))
    found.expect(not missing, "DASH: the segments of HLS", "all of them", f"without {len(missing)}: {missing[:2]}")
    if source.subtitles:
        sets = root.iter(f"{_NS}AdaptationSet")
        kinds = {one.get("contentType") or (one.get("mimeType") or "").partition("/")[0] for one in sets}
        found.expect("text" in kinds, "DASH: subtitles", "an adaptation set", kinds)


def _representations(root: xml.Element, folder: Path):
    """Every representation with its set and the folder its addresses start from."""
    base = _below(root, folder)
    for period in root.findall(f"{_NS}Period"):
        of_period = _below(period, base)
        for adaptation in period.findall(f"{_NS}AdaptationSet"):
            of_set = _below(adaptation, of_period)
            for representation in adaptation.findall(f"{_NS}Representation"):
                yield _below(representation, of_set), adaptation, representation


def _below(element: xml.Element, folder: Path) -> Path:
    base = element.find(f"{_NS}BaseURL")
    return address(folder, base.text.strip()) if base is not None and base.text else folder


def _representation(base: Path, adaptation, representation, seen: dict[Path, str], found: Findings) -> None:
    label = f"DASH {representation.get('id')}"
    mime = representation.get("mimeType") or adaptation.get("mimeType") or ""
    found.expect("/" in mime, f"{label}: mimeType", "there", mime or "none")
    bandwidth = representation.get("bandwidth") or ""
    found.expect(bandwidth.isdigit(), f"{label}: bandwidth", "a number", bandwidth)
    template = _first(representation, adaptation, "SegmentTemplate")
    if template is None:
        if mime.startswith("text/"):
            found.expect(base.is_file(), f"{label}: BaseURL", "a file", base.name)
        else:
            found.expect(False, f"{label}: SegmentTemplate", "there", "none")
        return
    ticks = int(template.get("timescale", "1"))
    entries = _entries(base, representation, template)
    found.expect(bool(entries), f"{label}: segments", "some", "none")
    init_path = address(base, _fill(template.get("initialization", ""), representation, 0, 0))
    if not found.expect(init_path.is_file(), f"{label}: init segment", "on disk", init_path.name):
        return
    init = init_path.read_bytes()
    codecs = representation.get("codecs") or adaptation.get("codecs")
    if mime.startswith(("video/", "audio/")):
        found.equal(f"{label}: codecs", boxes.codecs(init).lower(), (codecs or "").lower())
    scale = boxes.timescale(init)
    offset = int(template.get("presentationTimeOffset", "0"))
    for entry in entries:
        if not found.expect(entry.path.is_file(), f"{label}: {entry.path.name}", "on disk", "not there"):
            continue
        seen[entry.path] = label
        data = entry.path.read_bytes()
        decoded = [time * ticks / scale for time in boxes.decode_times(data)[:1]]
        shown = [min(sample.time for sample in boxes.samples(init, data)) * ticks]
        # By the standard the earliest presentation time, which is the tfdt's where nothing is reordered across it.
        right = any(abs(time - entry.start) <= max(_TICKS_OFF, ticks * _ROUNDING) for time in decoded + shown)
        found.expect(right, f"{label}: start of {entry.path.name}",
                     f"{shown[0] / ticks:.3f} s", f"{entry.start / ticks:.3f} s")  # fmt: skip
    for one, following in zip(entries, entries[1:]):
        found.expect(abs(one.start + one.duration - following.start) <= max(_TICKS_OFF, ticks * _ROUNDING),
                     f"{label}: end of {one.path.name}", following.start, one.start + one.duration)  # fmt: skip
    early = offset == 0 or bool(entries) and offset <= entries[0].start
    found.expect(early, f"{label}: presentationTimeOffset", "not after the start", offset)


def _first(representation, adaptation, name: str):
    found = representation.find(f"{_NS}{name}")
    return found if found is not None else adaptation.find(f"{_NS}{name}")


def _entries(base: Path, representation, template) -> list[_Entry]:
    """Of a SegmentTimeline, which is what segments of different lengths need."""
    timeline = template.find(f"{_NS}SegmentTimeline")
    number = int(template.get("startNumber", "1"))
    found: list[_Entry] = []
    time = 0
    for run in timeline.findall(f"{_NS}S") if timeline is not None else []:
        time = int(run.get("t", time))
        for _ in range(int(run.get("r", "0")) + 1):
            uri = _fill(template.get("media", ""), representation, number, time)
            found.append(_Entry(address(base, uri), time, int(run.get("d", "0"))))
            time += int(run.get("d", "0"))
            number += 1
    return found


def _fill(template: str, representation, number: int, time: int) -> str:
    values = {"RepresentationID": representation.get("id"), "Number": number, "Time": time,
              "Bandwidth": int(representation.get("bandwidth") or 0)}  # fmt: skip

    def value(match: re.Match) -> str:
        return (match[2] or "%s") % values[match[1]]

    return re.sub(r"\$(RepresentationID|Number|Time|Bandwidth)(%0\d+d)?\$", value, template)


def _seconds(text: str) -> float:
    match = _DURATION.match(text)
    if not match:
        return float("nan")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds
