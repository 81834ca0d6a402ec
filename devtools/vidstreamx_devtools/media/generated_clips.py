"""Small clips that the media tests generate: one or two per category of the corpus."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

from vidstreamx_devtools.generate import H264, ffmpeg

_AAC = ["-c:a", "aac", "-b:a", "96k"]
_SINE = "sine=frequency=330:sample_rate=48000,aformat=channel_layouts=stereo"
_HDR = "repeat-headers=1:log-level=error:colorprim=bt2020:colormatrix=bt2020nc:range=limited:transfer="


def _clip(
    path: Path, size: str = "640x360", rate: str = "30", seconds: float = 5, filters: str = "null",
    audio: str = _SINE, video: list[str] = H264, options: tuple[str, ...] = (),
) -> None:  # fmt: skip
    """A moving test picture with noise. If `audio` is empty, the clip has no audio track."""
    inputs = ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate},noise=alls=6:allf=t"]
    if audio:
        inputs += ["-f", "lavfi", "-i", audio]
    audio_options = _AAC if audio else []
    ffmpeg(path, *inputs, "-t", str(seconds), "-vf", filters, *video, *audio_options, *options)


def _rotated(path: Path) -> None:
    """Sets a rotation flag with a stream copy, because encoding would rotate the picture itself."""
    flat = path.with_name(f"flat-{path.name}")
    _clip(flat, "640x480")
    # FFmpeg 6 replaced the metadata tag by an input option.
    has_option = b"display_rotation" in subprocess.run(["ffmpeg", "-h", "full"], capture_output=True).stdout
    if has_option:
        ffmpeg(path, "-display_rotation", "-90", "-i", str(flat), "-c", "copy")
    else:
        ffmpeg(path, "-i", str(flat), "-c", "copy", "-metadata:s:v:0", "rotate=90")
    flat.unlink()


def _variable_rate(path: Path) -> None:
    """Drops two of every five frames. The others keep their times."""
    _clip(path, filters="select='not(eq(mod(n,5),1)+eq(mod(n,5),2))'", options=("-vsync", "vfr"))


def _two_languages(path: Path) -> None:
    ffmpeg(
        path,
        *("-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25", "-f", "lavfi", "-i", "sine=frequency=300"),
        *("-f", "lavfi", "-i", "sine=frequency=500", "-map", "0", "-map", "1", "-map", "2", "-t", "5"),
        *(*H264, *_AAC, "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=deu"),
        *("-metadata:s:a:1", "title=Kommentar"),
    )


def _subtitles_and_chapters(path: Path) -> None:
    subtitles, metadata = path.with_suffix(".srt"), path.with_suffix(".txt")
    subtitles.write_text(
        "1\n00:00:00,500 --> 00:00:01,500\nA first line\n\n2\n00:00:03,000 --> 00:00:05,500\n"
        "Across a boundary\nin two lines & more\n"
    )
    chapter = "[CHAPTER]\nTIMEBASE=1/1000\nSTART={}\nEND={}\ntitle={}\n"
    chapters = chapter.format(0, 2500, "Beginning") + chapter.format(2500, 6000, "End")
    metadata.write_text(";FFMETADATA1\n" + chapters)
    plain = path.with_name(f"plain-{path.name}")
    _clip(plain, seconds=6)
    ffmpeg(
        path,
        *("-i", str(plain), "-i", str(subtitles), "-i", str(metadata), "-map", "0", "-map", "1"),
        *("-map_metadata", "2", "-map_chapters", "2", "-c", "copy", "-c:s", "mov_text"),
        *("-metadata:s:s:0", "language=eng"),
    )
    for input_file in (plain, subtitles, metadata):
        input_file.unlink()


def _hdr(path: Path, transfer: str) -> None:
    """A test picture with HDR tags.

    Its colours are made paler, because no camera records BT.2020 colours as saturated as those of testsrc2.
    """
    parameters = _HDR + transfer
    video = ["-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le", "-x265-params", parameters]
    tags = ("-color_primaries", "bt2020", "-color_trc", transfer, "-colorspace", "bt2020nc")
    _clip(path, "1280x720", "25", 1, "hue=s=0.3", audio="", video=video, options=(*tags, "-tag:v", "hvc1"))


def _full_range(path: Path) -> None:
    tags = ("-color_range", "pc", "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709")
    _clip(
        path,
        filters="scale=in_range=tv:out_range=pc:out_color_matrix=bt709,format=yuvj420p",
        video=[*H264[:-2], "-pix_fmt", "yuvj420p"],
        options=tags,
    )


def _interlaced(path: Path) -> None:
    filters = "interlace=scan=tff:lowpass=off,setsar=8/9,setfield=tff"
    video = [*H264, "-flags", "+ildct+ilme", "-x264-params", "tff=1"]
    _clip(path, "720x480", "60", 4, filters=filters, video=video)


def _edited(path: Path) -> None:
    """Starts inside a group of pictures: an edit list skips the frames before the start."""
    whole = path.with_name(f"whole-{path.name}")
    _clip(whole, seconds=6)
    ffmpeg(path, "-ss", "1.3", "-i", str(whole), "-c", "copy")
    whole.unlink()


def _truncated(path: Path, share: float) -> None:
    _clip(path, seconds=6, options=("-movflags", "+faststart"))
    os.truncate(path, int(path.stat().st_size * share))


def _content(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _audio_only(path: Path) -> None:
    ffmpeg(path, "-f", "lavfi", "-i", "sine=frequency=440", "-t", "6", *_AAC)


def _vp9(path: Path, bit_rate: str, filters: str = "null") -> None:
    video = ["-c:v", "libvpx-vp9", "-cpu-used", "8", "-b:v", bit_rate]
    _clip(path, seconds=2, filters=filters, audio="", video=video)


_SURROUND = (
    "sine=frequency=220:sample_rate=48000,pan=5.1|FL=c0|FR=c0|FC=0.5*c0|LFE=0.2*c0|BL=0.3*c0|BR=0.3*c0"
)
_FRAGMENTED = ("-movflags", "+frag_keyframe+empty_moov+default_base_moof")

# Categories and generator by file name.
CLIPS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "copyable.mp4": ("a,o", partial(_clip, size="1280x720", seconds=13, options=("-movflags", "+faststart"))),
    "rotated.mp4": ("c", _rotated),
    "silent.mp4": ("d", partial(_clip, audio="")),
    "surround.mp4": ("e", partial(_clip, audio=_SURROUND)),
    "two-languages.mp4": ("e", _two_languages),
    "variable-rate.mp4": ("f", _variable_rate),
    "pq.mp4": ("g", partial(_hdr, transfer="smpte2084")),
    "hlg.mp4": ("g", partial(_hdr, transfer="arib-std-b67")),
    "vp9.mp4": ("h", partial(_vp9, bit_rate="500k")),
    "odd-size.mp4": ("i,j,h", partial(_vp9, bit_rate="300k", filters="scale=161:121")),
    "anamorphic.mp4": ("k", partial(_clip, size="720x576", rate="25", filters="setsar=64/45")),
    "interlaced.mp4": ("l,k", _interlaced),
    "60-fps.mp4": ("m", partial(_clip, rate="60000/1001")),
    "fragmented.mp4": ("n", partial(_clip, options=_FRAGMENTED)),
    "edited.mp4": ("p", _edited),
    "audio-only.m4a": ("q", _audio_only),
    "titled.mp4": ("r", _subtitles_and_chapters),
    "one-frame.mp4": ("s", partial(_clip, seconds=0.03, audio="")),
    "full-range.mp4": ("x", _full_range),
    "mp3.mp4": ("w", partial(_clip, options=("-c:a", "libmp3lame"))),
    "cut-late.mp4": ("u", partial(_truncated, share=0.75)),
    "cut-early.mp4": ("u", partial(_truncated, share=0.2)),
    "text.mp4": ("u", partial(_content, content=b"this is not a video\n")),
    "empty.mp4": ("u", partial(_content, content=b"")),
}
