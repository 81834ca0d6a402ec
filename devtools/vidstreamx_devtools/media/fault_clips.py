"""Generates small uploads of the kinds of which earlier versions made wrong streams: one or two of each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from vidstreamx_devtools.generate import H264, ffmpeg
from vidstreamx_devtools.media import mp4_patch

_VP8 = ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "300k"]
_BT709 = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]
_FRAGMENTED = ("-movflags", "+frag_keyframe+empty_moov+default_base_moof")


def _picture(seconds: float, size: str = "640x360", rate: float = 25, filters: str = "null") -> list[str]:
    source = f"testsrc2=size={size}:rate={rate}:duration={seconds},{filters}"
    return ["-f", "lavfi", "-i", source]


def _tone(seconds: float, hertz: int = 440, rate: int = 48000) -> list[str]:
    return ["-f", "lavfi", "-i", f"sine=frequency={hertz}:sample_rate={rate}:duration={seconds}"]


def _mux(path: Path, *arguments: str | list[str]) -> Path:
    flat = [part for one in arguments for part in ([one] if isinstance(one, str) else one)]
    return ffmpeg(path, *flat)


def _still_with_sound(path: Path) -> None:
    """A podcast: one picture for all of its sound."""
    picture = _picture(1, rate=1)
    _mux(path, picture, _tone(12), "-map", "0", "-map", "1", "-fps_mode", "vfr", H264, "-c:a", "aac")


def _late_camera(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        picture = _mux(Path(folder) / "v.mkv", _picture(4), H264)
        sound = _mux(Path(folder) / "a.mkv", _tone(10), "-c:a", "aac")
        inputs = ["-i", str(sound), "-itsoffset", "6", "-i", str(picture)]
        _mux(path, inputs, "-map", "1", "-map", "0", "-c", "copy")


def _still_end(path: Path) -> None:
    """A screen share whose last picture stays."""
    picture = _picture(3, "1280x720", 5)
    _mux(path, picture, _tone(14), "-fps_mode", "vfr", _VP8, "-c:a", "libopus", "-f", "webm")


def _late_fragments(path: Path) -> None:
    """A piece of a live recording, cut out after three hours."""
    _mux(path, _picture(5), _tone(5), H264, "-g", "50", "-c:a", "aac", *_FRAGMENTED)
    mp4_patch.later_fragments(path, 3 * 3600, [12800, 48000])  # FFmpeg's time scales for 25 frames and 48 kHz


def _long_header(path: Path) -> None:
    _mux(path, _tone(6), "-c:a", "aac")
    mp4_patch.movie_duration(path, 40)


def _few_frames(path: Path) -> None:
    _mux(path, _picture(24, rate=0.25), H264)


def _bursts(path: Path) -> None:
    picture = _picture(15, "640x360", 10, "select='lt(mod(t,5),1)'")
    _mux(path, picture, _tone(15), "-fps_mode", "vfr", H264, "-c:a", "aac")


def _sample_rate_changes(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        options = ["-c:a", "libmp3lame", "-write_xing", "0", "-id3v2_version", "0"]
        halves = [
            _mux(Path(folder) / f"{rate}.mp3", _tone(4, hertz, rate), options)
            for hertz, rate in ((440, 44100), (660, 48000))
        ]
        joined = Path(folder) / "joined.mp3"
        joined.write_bytes(b"".join(half.read_bytes() for half in halves))
        picture = _mux(Path(folder) / "v.mp4", _picture(8), H264)
        _mux(path, "-i", str(picture), "-f", "mp3", "-i", str(joined), "-map", "0", "-map", "1", "-c", "copy")


def _turned_call(path: Path) -> None:
    """A call from a phone that is turned to portrait."""
    _join(path, [(_picture(3, "640x480"), _tone(3)), (_picture(3, "480x640"), _tone(3, 660))])


def _join(path: Path, parts: list[tuple[list[str], list[str]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for number, (picture, sound) in enumerate(parts):
            name = f"{number}.webm"
            _mux(Path(folder) / name, picture, sound, _VP8, "-g", "50", "-c:a", "libopus")
            names.append(f"file '{name}'\n")
        listed = Path(folder) / "list.txt"
        listed.write_text("".join(names))
        _mux(path, "-f", "concat", "-i", str(listed), "-c", "copy")


def _mirrored(path: Path) -> None:
    """Red on the left and blue on the right, with a matrix that swaps them."""
    halves = _colours("red", "blue", 6)
    _mux(
        path,
        halves,
        _tone(6),
        "-map",
        "[v]",
        "-map",
        "2",
        H264,
        _BT709,
        "-g",
        "50",
        "-bf",
        "0",
        "-c:a",
        "aac",
    )
    mp4_patch.display_matrix(path, (-65536, 0, 0, 0, 65536, 0, 640 << 16, 0, 1 << 30))


def _colours(left: str, right: str, seconds: float) -> list[str]:
    """Two inputs and the filter output [v]: BT.709, limited range."""
    sources = [f"color={colour}:size=320x360:rate=25:duration={seconds}" for colour in (left, right)]
    graph = "[0][1]hstack,scale=out_color_matrix=bt709:out_range=tv,format=yuv420p[v]"
    return ["-f", "lavfi", "-i", sources[0], "-f", "lavfi", "-i", sources[1], "-filter_complex", graph]


def _interlaced_later(path: Path) -> None:
    moving = "scroll=horizontal=0.008"
    with tempfile.TemporaryDirectory() as folder:
        parts = [Path(folder) / "progressive.ts", Path(folder) / "interlaced.ts"]
        progressive = _picture(2, "720x576", 25, "scroll=horizontal=0.016")
        _mux(parts[0], progressive, H264, "-x264-params", "fake-interlaced=1:bframes=0")
        fields = f"{moving},interlace=scan=tff:lowpass=off,setfield=tff"
        options = ["-flags", "+ildct+ilme", "-x264-params", "tff=1:bframes=0"]
        _mux(parts[1], _picture(4, "720x576", 50, fields), H264, options)
        _mux(path, "-i", f"concat:{parts[0]}|{parts[1]}", "-c", "copy")


def _description_first(path: Path) -> None:
    """The audio description is in front of the sound. Languages are BCP 47 tags."""
    sounds = [*_tone(4, 440), *_tone(4, 880), *_tone(4, 660)]
    maps = ["-map", "0", "-map", "1", "-map", "2", "-map", "3"]
    description = ["-metadata:s:a:0", "language=en", "-disposition:a:0", "visual_impaired"]
    others = ["-metadata:s:a:1", "language=en", "-disposition:a:1", "0", "-metadata:s:a:2", "language=pt-BR"]
    _mux(path, _picture(4, "320x180"), sounds, maps, H264, "-c:a", "aac", description, others)


def _thumbnail_first(path: Path) -> None:
    thumbnail = ["-f", "lavfi", "-i", "color=red:size=160x120:rate=1:duration=1"]
    codecs = ["-c:v:0", "mjpeg", "-pix_fmt:v:0", "yuvj420p", "-c:v:1", "libx264", "-pix_fmt:v:1", "yuv420p"]
    default = ["-disposition:v:0", "0", "-disposition:v:1", "default"]
    _mux(path, thumbnail, _picture(4), _tone(4), "-map", "0", "-map", "1", "-map", "2", codecs, default)


def _display_p3(path: Path) -> None:
    """The red and blue of sRGB in Display P3, as screens of phones are recorded."""
    tags = ["-colorspace", "bt709", "-color_primaries", "smpte432", "-color_trc", "iec61966-2-1"]
    _mux(path, _colours("0xEA3323", "0x0000F5", 2), "-map", "[v]", H264, "-crf", "12", tags)


def _high_level(path: Path) -> None:
    _mux(path, _picture(6), _tone(6), H264, "-crf", "34", "-level", "6.2", "-g", "50", "-c:a", "aac")


def _captions(path: Path) -> None:
    """CEA-608 captions in the picture's stream: two bytes of text of channel CC1 in each frame."""
    with tempfile.TemporaryDirectory() as folder:
        plain = _mux(Path(folder) / "plain.h264", _picture(4), H264, "-bf", "0", "-g", "50", "-f", "h264")
        content = plain.read_bytes()
        captioned = Path(folder) / "captioned.h264"
        captioned.write_bytes(_with_captions(content))
        _mux(path, "-framerate", "25", "-i", str(captioned), _tone(4), "-c:v", "copy", "-c:a", "aac")


def _with_captions(annex_b: bytes) -> bytes:
    """Inserts an SEI message (ATSC A/53) before the first slice of each picture of an H.264 stream."""
    # "Resume caption loading", "end of caption" twice, and text. Bytes have odd parity.
    pairs = [b"\x94\x20", b"\x94\x20", b"\x94\xae", b"\x94\x70", b"\xc8\xe5", b"\x6c\xec", b"\xef\x80"]
    pairs += [b"\x94\x2f", b"\x94\x2f"]
    parts = annex_b.split(b"\x00\x00\x01")
    written = parts[:1]
    count = 0
    for part in parts[1:]:
        kind, is_first_slice = part[0] & 0x1F, len(part) > 1 and part[1] & 0x80
        if kind in (1, 5) and is_first_slice:
            pair = pairs[count] if count < len(pairs) else b"\x80\x80"
            payload = b"\xb5\x00\x31GA94\x03\x41\xff\xfc" + pair + b"\xff"
            sei = b"\x06\x04" + bytes([len(payload)]) + payload + b"\x80"
            written.append(sei + b"\x00")
            count += 1
        written.append(part)
    return b"\x00\x00\x01".join(written)


def _half_speed(path: Path) -> None:
    """An edit shows four seconds of the media at half their speed."""
    _mux(path, _picture(4), H264, "-bf", "0", "-g", "50", "-f", "mov")
    mp4_patch.edit(path, 8, 0.5)


# Generator by file name.
CLIPS: dict[str, Callable[[Path], object]] = {
    "still-with-sound.mp4": _still_with_sound,
    "late-camera.mkv": _late_camera,
    "still-end.webm": _still_end,
    "late-fragments.mp4": _late_fragments,
    "long-header.m4a": _long_header,
    "few-frames.mp4": _few_frames,
    "bursts-of-frames.mp4": _bursts,
    "sample-rate-changes.mkv": _sample_rate_changes,
    "turned-call.webm": _turned_call,
    "mirrored.mp4": _mirrored,
    "interlaced-later.mkv": _interlaced_later,
    "description-first.mkv": _description_first,
    "thumbnail-first.mp4": _thumbnail_first,
    "display-p3.mp4": _display_p3,
    "high-level.mp4": _high_level,
    "captions.mp4": _captions,
    "captions.mkv": _captions,
    "half-speed.mov": _half_speed,
}


def generate(name: str, folder: Path) -> Path:
    """The path of the clip. It is made if it does not exist yet."""
    path = folder / name
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        partial(CLIPS[name], path)()
    return path
