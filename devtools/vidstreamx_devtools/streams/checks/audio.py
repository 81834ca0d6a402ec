"""Audio: every track with its language, in stereo, and in its original layout if it has more channels."""

from __future__ import annotations

from typing import Any

from vidstreamx_devtools.streams.findings import Findings
from vidstreamx_devtools.streams.published import Rendition, Stream
from vidstreamx_devtools.streams.source import AudioTrack, Source

_LOUDNESS_TOLERANCE = 1.0  # dB
_MONO_IN_STEREO = 3.1  # dB: the same power from two speakers instead of one
_DOWNMIX = (-12.0, 10.0)  # dB relative to the mean of all channels, some of which can be silent
_SILENCE = -70.0  # dB
_TOO_SHORT = 0.25  # seconds: the encoder's fade-in is a large part of shorter audio
# ISO 639-2 codes as in MP4, and the RFC 5646 tags of HLS.
_LANGUAGE_TAGS = {
    "eng": "en",
    "deu": "de",
    "ger": "de",
    "fra": "fr",
    "fre": "fr",
    "spa": "es",
    "ita": "it",
    "jpn": "ja",
}


def pairs(source: Source, stream: Stream) -> list[tuple[AudioTrack, Rendition]]:
    """Each track with its renditions: first the stereo ones, then those in original layout."""
    stereo = zip(source.audio, _renditions(stream, surround=False), strict=False)
    surround = zip(_surround_tracks(source), _renditions(stream, surround=True), strict=False)
    return [*stereo, *surround]


def _surround_tracks(source: Source) -> list[AudioTrack]:
    return [track for track in source.audio if track.channels > 2]


def _renditions(stream: Stream, surround: bool) -> list[Rendition]:
    """The audio renditions, in the order of the master playlist."""
    order = {media.uri: number for number, media in enumerate(stream.audio_media())}
    by_uri = sorted(stream.audios.items(), key=lambda item: order.get(item[0], 0))
    return [rendition for _, rendition in by_uri if (rendition.audio.channels > 2) == surround]


def check(source: Source, stream: Stream, findings: Findings) -> None:
    stereo, surround = _renditions(stream, surround=False), _renditions(stream, surround=True)
    findings.equal("audio renditions in mono or stereo", len(source.audio), len(stereo))
    findings.equal(
        "audio renditions in the original layout",
        [track.channels for track in _surround_tracks(source)],
        [rendition.audio.channels for rendition in surround],
    )
    for track, rendition in pairs(source, stream):
        _check_loudness(track, rendition, findings)
    if source.video is not None:
        _check_master_entries(source, stream, findings)


def _check_loudness(track: AudioTrack, rendition: Rendition, findings: Findings) -> None:
    if track.audio.seconds < _TOO_SHORT:
        return
    # The power of both is averaged over the duration of the source, because silence that extends the audio
    # does not make it quieter.
    before, after = track.audio.decibels(), rendition.audio.decibels(track.audio.seconds)
    change = after - before
    low, high = -_LOUDNESS_TOLERANCE, _LOUDNESS_TOLERANCE
    if track.channels > 2 and rendition.audio.channels <= 2:
        low, high = _DOWNMIX
    elif track.channels == 1 and rendition.audio.channels == 2:
        low -= _MONO_IN_STEREO
    label = f"audio {rendition.name}: loudness"
    if before < _SILENCE:
        findings.expect(after < _SILENCE + 10, label, "silence", f"{after:.1f} dB")
    else:
        in_range = low <= change <= high
        findings.expect(in_range, label, f"changed by {low:.1f} to {high:.1f} dB", f"{change:+.1f} dB")


def _check_master_entries(source: Source, stream: Stream, findings: Findings) -> None:
    groups: dict[str, list[Any]] = {}
    for media in stream.audio_media():
        groups.setdefault(media.group_id, []).append(media)
    for group, members in groups.items():
        names = [media.name for media in members]
        are_unique = all(names) and len(set(names)) == len(names)
        findings.expect(are_unique, f"group {group}: NAMEs", "all different", names)
        defaults = [media.name for media in members if media.default == "YES"]
        findings.equal(f"group {group}: number of DEFAULT entries", 1, len(defaults))
    media_of = {
        id(stream.audios[media.uri]): media for media in stream.audio_media() if media.uri in stream.audios
    }
    for track, rendition in pairs(source, stream):
        label = f"audio {rendition.name}"
        media = media_of.get(id(rendition))
        if media is None:
            findings.expect(False, label, "an entry in the master playlist", "none")
            continue
        tags = (
            {None, "und"} if track.language is None else {track.language, _LANGUAGE_TAGS.get(track.language)}
        )
        findings.expect(media.language in tags, f"{label}: LANGUAGE", track.language, media.language)
        if track.title:
            findings.expect(track.title in media.name, f"{label}: NAME", track.title, media.name)
        channels = (media.channels or "").split("/")[0]
        findings.equal(f"{label}: CHANNELS", str(rendition.audio.channels), channels)
