"""Clips for where there is no corpus: one or two of each kind, small, and made in seconds."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

_X264 = ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "24", "-pix_fmt", "yuv420p"]
_AAC = ["-c:a", "aac", "-b:a", "96k"]
_HDR = "repeat-headers=1:log-level=error:colorprim=bt2020:colormatrix=bt2020nc:range=limited:transfer="


def _ffmpeg(path: Path, *arguments: str) -> None:
    """Made under another name, so that what is half made is not taken for a clip."""
    half = path.with_name(f"half-{path.name}")
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *arguments, str(half)]
    subprocess.run(command, check=True, timeout=60)
    half.rename(path)


def _film(
    path: Path, size: str = "640x360", rate: str = "30", seconds: float = 5, filters: str = "null",
    sound: str = "sine=frequency=330:sample_rate=48000,aformat=channel_layouts=stereo", video: list[str] = _X264,
    also: tuple[str, ...] = (),
) -> None:  # fmt: skip
    inputs = ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate},noise=alls=6:allf=t"]
    if sound:
        inputs += ["-f", "lavfi", "-i", sound]
    _ffmpeg(path, *inputs, "-t", str(seconds), "-vf", filters, *video, *(_AAC if sound else []), *also)


def _rotated(path: Path) -> None:
    """Written on its side, with the flag that turns it: a stream copy, as encoders would turn it themselves."""
    flat = path.with_name(f"flat-{path.name}")
    _film(flat, "640x480")
    # FFmpeg 6 replaced the tag with an option of the input.
    modern = b"display_rotation" in subprocess.run(["ffmpeg", "-h", "full"], capture_output=True).stdout
    if modern:
        _ffmpeg(path, "-display_rotation", "-90", "-i", str(flat), "-c", "copy")
    else:
        _ffmpeg(path, "-i", str(flat), "-c", "copy", "-metadata:s:v:0", "rotate=90")
    flat.unlink()


def _variable(path: Path) -> None:
    """Two of five frames are left out, and the others keep their times."""
    _film(path, filters="select='not(eq(mod(n,5),1)+eq(mod(n,5),2))'", also=("-vsync", "vfr"))


def _two_languages(path: Path) -> None:
    _ffmpeg(
        path, "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25", "-f", "lavfi", "-i", "sine=frequency=300",
        "-f", "lavfi", "-i", "sine=frequency=500", "-map", "0", "-map", "1", "-map", "2", "-t", "5", *_X264, *_AAC,
        "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=deu", "-metadata:s:a:1", "title=Kommentar",
    )  # fmt: skip


def _titled(path: Path) -> None:
    """Subtitles and chapters."""
    words, marks = path.with_suffix(".srt"), path.with_suffix(".txt")
    words.write_text(
        "1\n00:00:00,500 --> 00:00:01,500\nA first line\n\n2\n00:00:03,000 --> 00:00:05,500\n"
        "Across a boundary\nin two lines & more\n"
    )
    chapter = "[CHAPTER]\nTIMEBASE=1/1000\nSTART={}\nEND={}\ntitle={}\n"
    marks.write_text(";FFMETADATA1\n" + chapter.format(0, 2500, "Beginning") + chapter.format(2500, 6000, "End"))
    _film(path, seconds=6, also=())
    plain = path.rename(path.with_name(f"plain-{path.name}"))
    _ffmpeg(
        path, "-i", str(plain), "-i", str(words), "-i", str(marks), "-map", "0", "-map", "1", "-map_metadata", "2",
        "-map_chapters", "2", "-c", "copy", "-c:s", "mov_text", "-metadata:s:s:0", "language=eng",
    )  # fmt: skip
    for leftover in (plain, words, marks):
        leftover.unlink()


def _hdr(path: Path, transfer: str) -> None:
    """Tags are what makes it HDR: the picture is a test picture, paler, as no camera sees such pure BT.2020."""
    parameters = _HDR + transfer
    video = ["-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le", "-x265-params", parameters]
    colours = ("-color_primaries", "bt2020", "-color_trc", transfer, "-colorspace", "bt2020nc")
    _film(path, "1280x720", "25", 1, "hue=s=0.3", sound="", video=video, also=(*colours, "-tag:v", "hvc1"))


def _full_range(path: Path) -> None:
    _film(
        path, filters="scale=in_range=tv:out_range=pc:out_color_matrix=bt709,format=yuvj420p",
        video=[*_X264[:-2], "-pix_fmt", "yuvj420p"],
        also=("-color_range", "pc", "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"),
    )  # fmt: skip


def _interlaced(path: Path) -> None:
    _film(
        path, "720x480", "60", 4, filters="interlace=scan=tff:lowpass=off,setsar=8/9,setfield=tff",
        video=[*_X264, "-flags", "+ildct+ilme", "-x264-params", "tff=1"],
    )  # fmt: skip


def _edited(path: Path) -> None:
    """Begins inside a group of pictures: an edit list leaves out what comes before."""
    whole = path.with_name(f"whole-{path.name}")
    _film(whole, seconds=6)
    _ffmpeg(path, "-ss", "1.3", "-i", str(whole), "-c", "copy")
    whole.unlink()


def _cut(path: Path, left: float) -> None:
    _film(path, seconds=6, also=("-movflags", "+faststart"))
    os.truncate(path, int(path.stat().st_size * left))


def _bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


_SURROUND = "sine=frequency=220:sample_rate=48000,pan=5.1|FL=c0|FR=c0|FC=0.5*c0|LFE=0.2*c0|BL=0.3*c0|BR=0.3*c0"

CLIPS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "copyable.mp4": ("a,o", partial(_film, size="1280x720", seconds=13, also=("-movflags", "+faststart"))),
    "rotated.mp4": ("c", _rotated),
    "silent.mp4": ("d", partial(_film, sound="")),
    "surround.mp4": ("e", partial(_film, sound=_SURROUND)),
    "two-languages.mp4": ("e", _two_languages),
    "variable-rate.mp4": ("f", _variable),
    "pq.mp4": ("g", partial(_hdr, transfer="smpte2084")),
    "hlg.mp4": ("g", partial(_hdr, transfer="arib-std-b67")),
    "vp9.mp4": ("h", partial(_film, seconds=2, sound="",
                             video=["-c:v", "libvpx-vp9", "-cpu-used", "8", "-b:v", "500k"])),  # fmt: skip
    "odd-size.mp4": ("i,j,h", partial(_film, seconds=2, filters="scale=161:121", sound="",
                                      video=["-c:v", "libvpx-vp9", "-cpu-used", "8", "-b:v", "300k"])),  # fmt: skip
    "anamorphic.mp4": ("k", partial(_film, size="720x576", rate="25", filters="setsar=64/45")),
    "interlaced.mp4": ("l,k", _interlaced),
    "60-fps.mp4": ("m", partial(_film, rate="60000/1001")),
    "fragmented.mp4": ("n", partial(_film, also=("-movflags", "+frag_keyframe+empty_moov+default_base_moof"))),
    "edited.mp4": ("p", _edited),
    "audio-only.m4a": ("q", lambda path: _ffmpeg(path, "-f", "lavfi", "-i", "sine=frequency=440", "-t", "6", *_AAC)),
    "titled.mp4": ("r", _titled),
    "one-frame.mp4": ("s", partial(_film, seconds=0.03, sound="")),
    "full-range.mp4": ("x", _full_range),
    "mp3.mp4": ("w", partial(_film, also=("-c:a", "libmp3lame"))),
    "cut-late.mp4": ("u", partial(_cut, left=0.75)),
    "cut-early.mp4": ("u", partial(_cut, left=0.2)),
    "text.mp4": ("u", partial(_bytes, content=b"this is not a video\n")),
    "empty.mp4": ("u", partial(_bytes, content=b"")),
}
