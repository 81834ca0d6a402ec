"""What is heard: every track with its language, stereo for everyone, the original layout where there is more."""

from __future__ import annotations

from vidstreamx_devtools.streams.findings import Findings
from vidstreamx_devtools.streams.source import AudioTrack, Source
from vidstreamx_devtools.streams.published import Rendition, Stream

_LOUDNESS = 1.0  # dB
_MONO_IN_TWO = 3.1  # dB: the same power from two speakers instead of one
_DOWNMIX = (-12.0, 10.0)  # dB against the mean of all channels, of which some may be silent
_SILENCE = -70.0  # dB
_TOO_SHORT = 0.25  # seconds: the encoder's fading in is a part of it
# ISO 639-2 as MP4 has it, and the RFC 5646 tag that HLS asks for.
_TAGS = {"eng": "en", "deu": "de", "ger": "de", "fra": "fr", "fre": "fr", "spa": "es", "ita": "it", "jpn": "ja"}


def pairs(source: Source, stream: Stream) -> list[tuple[AudioTrack, Rendition]]:
    """Each track with its renditions: stereo ones in the tracks' order, then those in original layout."""
    stereo = _in_order(stream, wide=False)
    wide_tracks = [track for track in source.audio if track.channels > 2]
    return [*zip(source.audio, stereo), *zip(wide_tracks, _in_order(stream, wide=True))]


def _in_order(stream: Stream, wide: bool) -> list[Rendition]:
    chosen = [one for one in stream.sounds.values() if (one.sound.channels > 2) == wide]
    order = {media.uri: number for number, media in enumerate(stream.audio_media())}
    uris = {id(rendition): uri for uri, rendition in stream.sounds.items()}
    return sorted(chosen, key=lambda one: order.get(uris[id(one)], 0))


def check(source: Source, stream: Stream, found: Findings) -> None:
    stereo, wide = _in_order(stream, wide=False), _in_order(stream, wide=True)
    wide_tracks = [track for track in source.audio if track.channels > 2]
    found.equal("audio renditions in mono or stereo", len(source.audio), len(stereo))
    found.equal(
        "audio renditions in the original layout",
        [track.channels for track in wide_tracks],
        [rendition.sound.channels for rendition in wide],
    )
    for track, rendition in pairs(source, stream):
        _loudness(track, rendition, found)
    if source.video is not None:
        _names(source, stream, found)


def _loudness(track: AudioTrack, rendition: Rendition, found: Findings) -> None:
    if track.sound.seconds < _TOO_SHORT:
        return
    # Silence that fills up a sound does not make it softer.
    before, after = track.sound.decibels(), rendition.sound.decibels(track.sound.seconds)
    change = after - before
    low, high = -_LOUDNESS, _LOUDNESS
    if track.channels > 2 and rendition.sound.channels <= 2:
        low, high = _DOWNMIX
    elif track.channels == 1 and rendition.sound.channels == 2:
        low -= _MONO_IN_TWO
    if before < _SILENCE:
        found.expect(after < _SILENCE + 10, f"audio {rendition.name}: loudness", "silence", f"{after:.1f} dB")
    else:
        found.expect(
            low <= change <= high,
            f"audio {rendition.name}: loudness",
            f"changed by {low:.1f} to {high:.1f} dB",
            f"{change:+.1f} dB",
        )


def _names(source: Source, stream: Stream, found: Findings) -> None:
    groups: dict[str, list] = {}
    for media in stream.audio_media():
        groups.setdefault(media.group_id, []).append(media)
    for group, members in groups.items():
        names = [media.name for media in members]
        found.expect(all(names) and len(set(names)) == len(names), f"group {group}: NAMEs", "each its own", names)
        defaults = [media.name for media in members if media.default == "YES"]
        found.equal(f"group {group}: how many are DEFAULT", 1, len(defaults))
    by_path = {id(stream.sounds[media.uri]): media for media in stream.audio_media() if media.uri in stream.sounds}
    for track, rendition in pairs(source, stream):
        media = by_path.get(id(rendition))
        if not found.expect(media is not None, f"audio {rendition.name}", "named in the master playlist", "not"):
            continue
        wanted = {None, "und"} if track.language is None else {track.language, _TAGS.get(track.language)}
        found.expect(media.language in wanted, f"audio {rendition.name}: LANGUAGE", track.language, media.language)
        if track.title:
            found.expect(track.title in media.name, f"audio {rendition.name}: NAME", track.title, media.name)
        found.equal(
            f"audio {rendition.name}: CHANNELS", str(rendition.sound.channels), (media.channels or "").split("/")[0]
        )
