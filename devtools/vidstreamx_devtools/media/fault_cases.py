"""The table of faults: uploads of which earlier versions made wrong streams, and what their streams must be.

Each row is a file of the folder of faults, or a generated clip of the same kind. The kinds are: A1 picture
and sound do not cover each other, A2 the length is misjudged, A3 few frames, A4 holes, B sound changes its
parameters, C the picture changes its size, D orientation, E interlacing that no header tells, F choice of
tracks, G colours, H captions and manifests, I edits of another rate. P always came out right, and must stay
so.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from vidstreamx_devtools import faults
from vidstreamx_devtools.media import fault_clips
from vidstreamx_devtools.media.transcode import GENERATED

PASSING = GENERATED.with_name("passing")  # files that a script in the folder of faults makes
VERSIONS = ("this machine's FFmpeg", "the image's FFmpeg")
BLACK, RED, BLUE = (0, 0, 0), (255, 0, 0), (0, 0, 255)


@dataclass(frozen=True)
class Point:
    """The colour of a place of the picture, in every rung."""

    time: float  # seconds
    x: float  # from 0 (left) to 1
    y: float
    rgb: tuple[int, int, int]
    tolerance: float = 12  # of 255; encoders at low quality blur small areas


@dataclass(frozen=True)
class Bars:
    """Black bars at both sides, and above and below, as shares of the picture on each side."""

    time: float
    sides: float
    above: float = 0.0


@dataclass(frozen=True)
class Sound:
    """An audio track of the master playlist."""

    language: str | None
    is_default: bool
    is_described: bool = False


@dataclass(frozen=True)
class Expected:
    seconds: float | None  # duration of every rendition; None: unknown, because the file is damaged
    size: tuple[int, int] | None = None  # of the largest rung; None: the upload has no picture
    rungs: tuple[int, ...] = ()  # the shorter sides of all rungs, the largest first
    heard: tuple[float, float] | None = None  # seconds of the first and last sound
    points: tuple[Point, ...] = ()
    bars: tuple[Bars, ...] = ()
    held: tuple[tuple[float, float], ...] = ()  # pairs of times that show the same picture
    like_source: tuple[float, ...] = ()  # times at which the picture is that of the source
    may_be_turned: bool = False  # the sides of `size` may be swapped
    frame_distance: float | None = None  # seconds from one frame to the next, at most
    combing: float | None = None  # share of pixels with combs, per thousand, at most; see picture.py
    sounds: tuple[Sound, ...] = ()
    codecs: str | None = None  # the video codec of the largest rung
    silence: float = 0.0  # seconds of the longest silence between them
    cues: tuple[str, ...] | None = None  # texts of the only subtitle track
    captions: tuple[str, ...] = ()  # instream ids that the master playlist announces
    warning: str | None = (
        None  # a pattern that a warning matches; None: there may be warnings, but none of damage
    )
    may_warn_instead: str | None = None  # a pattern: with such a warning, `seconds` may be shorter
    may_be_damaged: bool = False  # a warning of damage is right
    may_reject: bool = False
    is_copied: bool | None = None  # whether a rung is copied
    is_played: bool = False  # whether the stream is also played in a browser


@dataclass(frozen=True)
class Case:
    file: str
    kind: str
    expected: Expected
    is_generated: bool = False

    def path(self) -> Path:
        """The path of the file. It is made if it does not exist yet."""
        if self.is_generated:
            return fault_clips.generate(self.file, GENERATED)
        return (PASSING if self.kind == "P" else faults.FOLDER) / self.file


_SD = (640, 360)
_HD = (1280, 720)
_SD_RUNGS = (360, 240)
_HD_RUNGS = (720, 480, 360, 240)
_TURNED_BARS = 0.219  # 480x640 scaled to 360x480 inside 640x480
_SMALL = ((320, 180), (180,))
_CLAIM = "claims?|header|tag"  # of a warning that a header or tag claims another length
_SLOW = 0.51  # seconds: frames are repeated at least twice a second


# Yellow, cyan, green, red and blue of the colour bars. Those of high definition are FFmpeg's conversion to
# RGB, in which the files are.
_SD_BARS = ((191, 191, 0), (0, 191, 191), (0, 191, 0), (191, 0, 0), (0, 0, 191))
_HD_BARS = ((188, 203, 6), (15, 210, 187), (13, 222, 4), (173, 0, 1), (0, 0, 182))
_HD_CENTRES = (0.289, 0.398, 0.508, 0.727, 0.836)  # of smptehdbars
_SD_CENTRES = (0.214, 0.357, 0.5, 0.786, 0.929)  # of smptebars


def _bars(time: float, is_hd: bool, tolerance: float) -> tuple[Point, ...]:
    """The colour bars at a quarter of the height."""
    bars = zip(_HD_CENTRES, _HD_BARS, strict=True) if is_hd else zip(_SD_CENTRES, _SD_BARS, strict=True)
    return tuple(Point(time, x, 0.25, colour, tolerance) for x, colour in bars)


_GENERATED: list[tuple[str, str, Expected]] = [
    (
        "still-with-sound.mp4",
        "A1",
        Expected(
            12,
            _SD,
            _SD_RUNGS,
            (0, 12),
            held=((0.5, 11.5),),
            frame_distance=_SLOW,
            is_copied=False,
            is_played=True,
        ),
    ),
    (
        "late-camera.mkv",
        "A1",
        Expected(
            10,
            _SD,
            _SD_RUNGS,
            (0, 10),
            points=(Point(3, 0.5, 0.5, BLACK),),
            held=((1, 5),),
            frame_distance=_SLOW,
            is_played=True,
        ),
    ),
    (
        "still-end.webm",
        "A1",
        Expected(14, _HD, _HD_RUNGS, (0, 14), held=((4, 13),), frame_distance=_SLOW, is_played=True),
    ),
    (
        "few-frames.mp4",
        "A3",
        Expected(
            24,
            _SD,
            _SD_RUNGS,
            held=((0.5, 3.5), (20.5, 23.5)),
            frame_distance=_SLOW,
            is_copied=False,
            is_played=True,
        ),
    ),
    (
        "bursts-of-frames.mp4",
        "A4",
        Expected(
            15,
            _SD,
            _SD_RUNGS,
            (0, 15),
            held=((1.5, 4.5), (11.5, 14.5)),
            frame_distance=_SLOW,
            is_copied=False,
            is_played=True,
        ),
    ),
    ("late-fragments.mp4", "A2", Expected(5, _SD, _SD_RUNGS, (0, 5))),
    ("long-header.m4a", "A2", Expected(6, None, (), (0, 6), warning=_CLAIM)),
    ("sample-rate-changes.mkv", "B", Expected(8, _SD, _SD_RUNGS, (0, 8))),
    (
        "turned-call.webm",
        "C",
        Expected(6, (640, 480), (480, 360, 240), (0, 6), bars=(Bars(1, 0), Bars(5, _TURNED_BARS))),
    ),
    (
        "mirrored.mp4",
        "D",
        Expected(
            6,
            _SD,
            _SD_RUNGS,
            (0, 6),
            points=tuple(
                Point(time, x, 0.5, rgb) for time in (0.5, 3, 5.5) for x, rgb in ((0.25, BLUE), (0.75, RED))
            ),
        ),
    ),
    ("interlaced-later.mkv", "E", Expected(6, (600, 480), (480, 360, 240), combing=4)),
    (
        "display-p3.mp4",
        "G",
        Expected(2, _SD, _SD_RUNGS, points=(Point(1, 0.25, 0.5, RED), Point(1, 0.75, 0.5, BLUE))),
    ),
    (
        "description-first.mkv",
        "F",
        Expected(
            4,
            *_SMALL,
            (0, 4),
            sounds=(Sound("en", False, True), Sound("en", True), Sound("pt-BR", False)),
        ),
    ),
    ("thumbnail-first.mp4", "F", Expected(4, _SD, _SD_RUNGS, (0, 4))),
    ("high-level.mp4", "H", Expected(6, _SD, _SD_RUNGS, (0, 6), codecs="avc1.64001e")),
    ("captions.mp4", "H", Expected(4, _SD, _SD_RUNGS, (0, 4), captions=("CC1",))),
    ("captions.mkv", "H", Expected(4, _SD, _SD_RUNGS, (0, 4), captions=("CC1",))),
    ("half-speed.mov", "I", Expected(8, _SD, _SD_RUNGS, may_warn_instead="speed")),
]

_CAMERA_LATE = Expected(
    20,
    _SD,
    _SD_RUNGS,
    (0, 20),
    points=(Point(6, 0.5, 0.5, BLACK),),
    held=((1, 11),),
    frame_distance=_SLOW,
)
_SLIDES = Expected(
    90, _HD, _HD_RUNGS, (0, 90), held=((1, 19), (21, 49), (51, 89)), frame_distance=_SLOW, is_played=True
)
_STILL_END = Expected(48, _HD, _HD_RUNGS, (0, 48), held=((9, 47),), frame_distance=_SLOW)
_BURSTS = Expected(30, _HD, _HD_RUNGS, (0, 30), held=((1.5, 5.5), (25.5, 29.5)), frame_distance=_SLOW)

_FAULTS: list[tuple[str, str, Expected]] = [
    ("camera_late.mp4", "A1", _CAMERA_LATE),
    ("camera_late.webm", "A2", _CAMERA_LATE),
    ("stale_duration_tag.mkv", "A2", Expected(8, _SD, _SD_RUNGS, (0, 8), warning=_CLAIM)),
    ("fmp4_epoch_time.mp4", "A2", Expected(6, _SD, _SD_RUNGS, (0, 6))),
    ("fmp4_5h.mp4", "A2", Expected(6, _SD, _SD_RUNGS, (0, 6))),
    ("cbcs_audiodec.mp4", "A2", Expected(10, None)),
    ("m4a_mvhd_60s.m4a", "A2", Expected(8, None, (), (0, 8), warning=_CLAIM)),
    ("slides.mp4", "A1", _SLIDES),
    ("slides_last_long.mkv", "A1", _SLIDES),
    ("screenshare_still_end.webm", "A1", _STILL_END),
    ("screenshare_live.webm", "A1", _STILL_END),
    ("bursts.mp4", "A4", _BURSTS),
    ("bursts.webm", "A4", _BURSTS),
    ("test7_cut.mkv", "A4", Expected(None, (854, 480), (480, 360, 240), may_be_damaged=True)),
    (
        "timelapse_0.2fps.mp4",
        "A3",
        Expected(60, _SD, _SD_RUNGS, held=((0.5, 4.5), (55.5, 59.5)), frame_distance=_SLOW),
    ),
    ("ac3_51_to_20.mkv", "B", Expected(10, _SD, _SD_RUNGS, (0, 10))),
    ("mp3_rate_change.mkv", "B", Expected(10, _SD, _SD_RUNGS, (0, 10))),
    (
        "webrtc_turned.webm",
        "C",
        Expected(10, (640, 480), (480, 360, 240), (0, 10), bars=(Bars(2, 0), Bars(8, _TURNED_BARS))),
    ),
    (
        "sizes_grow.mp4",
        "C",
        Expected(12, _HD, _HD_RUNGS, (0, 12), bars=(Bars(1, 0), Bars(6, 0), Bars(10, 0)), is_copied=False),
    ),
    ("rot45.mp4", "D", Expected(8, _SD, _SD_RUNGS, (0, 8), like_source=(0.5, 3, 7.5))),
    (
        "sei_orientation_90.mp4",
        "D",
        Expected(8, _SD, _SD_RUNGS, (0, 8), like_source=(0.5, 3, 7.5), may_be_turned=True),
    ),
    (
        "frame_size_change.webm",
        "C",
        Expected(
            10,
            (1920, 1080),
            (1080, 720, 480, 360, 240),
            bars=(Bars(0.05, 0), Bars(0.15, 0.125), Bars(7.25, 0), Bars(9.75, 0.125)),
        ),
    ),
    ("dv_pal_nofiel.mov", "E", Expected(0.24, (640, 480), (480, 360, 240), combing=4)),
    ("progressive_then_interlaced.mkv", "E", Expected(6, (600, 480), (480, 360, 240), combing=4)),
    (
        "interlaced_later_copyable.mp4",
        "E",
        Expected(10, (640, 480), (480, 360, 240), combing=4, is_copied=False),
    ),
    (
        "p3_srgb_red_blue.mp4",
        "G",
        Expected(2, _SD, _SD_RUNGS, points=(Point(1, 0.25, 0.5, RED), Point(1, 0.75, 0.5, BLUE))),
    ),
    (
        "ycgco.mp4",
        "G",
        Expected(1, _SD, _SD_RUNGS, points=_bars(0.1, True, 12), may_reject=True),
    ),
    (
        "prores_alpha.mov",
        "G",
        Expected(0.32, *_SMALL, points=(Point(0.1, 0.25, 0.5, RED), Point(0.1, 0.75, 0.5, BLACK))),
    ),
    ("thumbnail_first.mp4", "F", Expected(4, _HD, _HD_RUNGS, (0, 4))),
    ("pcm_16ch.mov", "F", Expected(0.32, *_SMALL, (0, 0.3))),
    (
        "ad_first.mkv",
        "F",
        Expected(5, *_SMALL, (0, 5), sounds=(Sound("en", False, True), Sound("en", True))),
    ),
    ("105_fonts.mkv", "F", Expected(5, *_SMALL, (0, 5))),
    (
        "languages_bcp47.mkv",
        "F",
        Expected(
            5,
            *_SMALL,
            (0, 5),
            sounds=(Sound("en", True), Sound("pt-BR", False), Sound("zh-Hans", False)),
        ),
    ),
    ("ass_drawing.mkv", "H", Expected(5, *_SMALL, cues=("Plain line",))),
    ("level62.mp4", "H", Expected(8, _SD, _SD_RUNGS, (0, 8), codecs="avc1.64001e")),
    (
        "appended.webm",
        "H",
        Expected(8, (640, 480), (480, 360, 240), (0, 8), may_warn_instead="joined|second recording"),
    ),
]

_LAYOUTS = ("unknown4", "z_5.0", "z_6.1", "z_quad", "z_7.1wide", "z_3.0", "z_11025_u8")
_PASSING: list[tuple[str, Expected]] = [
    ("all_sync.mp4", Expected(8, _SD, _SD_RUNGS, (0, 8))),
    ("bframes_no_ctts.mp4", Expected(8, _SD, _SD_RUNGS, (0, 8))),
    ("jump_cut.mov", Expected(5, _SD, _SD_RUNGS, (0, 5))),
    ("h264_opengop_cut.mkv", Expected(None, _SD, _SD_RUNGS, may_be_damaged=True)),
    ("midgop_start.mkv", Expected(None, _SD, _SD_RUNGS, may_be_damaged=True)),
    ("midgop_start.mp4", Expected(None, _SD, _SD_RUNGS, may_be_damaged=True)),
    ("mediarecorder.webm", Expected(6, _HD, _HD_RUNGS, (0, 6))),
    ("jitter.mkv", Expected(6, _SD, _SD_RUNGS, (0, 6))),
    ("sound_late.mkv", Expected(8, _SD, _SD_RUNGS, (3, 8))),
    *((f"{layout}.mov", Expected(2, *_SMALL, (0, 2))) for layout in _LAYOUTS),
    ("z_192k.mov", Expected(1, *_SMALL, (0, 1))),
    ("sound_clock_1pct.mkv", Expected(40, *_SMALL, (0, 40))),
    ("muted_8s.webm", Expected(20, *_SMALL, (0, 20), silence=8)),
    ("timescale_10m.mp4", Expected(6, _SD, _SD_RUNGS, (0, 6))),
    ("dv_pal.mov", Expected(0.24, (640, 480), (480, 360, 240), combing=4)),
    ("prores_interlaced.mov", Expected(0.6, (600, 480), (480, 360, 240), combing=4)),
    ("4096x16.mp4", Expected(2, (4096, 16), (16,))),
    ("16x4096.mp4", Expected(2, (16, 4096), (16,))),
    ("trailing_garbage.mp4", Expected(4, _SD, _SD_RUNGS, (0, 4))),
    ("sparse_5gb.mp4", Expected(4, _SD, _SD_RUNGS, (0, 4))),
    ("fmp4_mvhd_145min.mp4", Expected(8, _SD, _SD_RUNGS, (0, 8))),
    *(
        (file, Expected(seconds, _SD, _SD_RUNGS, points=_bars(0.1, True, 6)))
        for file, seconds in (
            ("smpte240m.mp4", 1),
            ("qtrle_argb.mov", 0.2),
            ("png_rgb48.mov", 0.2),
            ("x264rgb_lossless.mp4", 1),
            ("444_lossless.mp4", 1),
            ("hi422_full.mp4", 1),
        )
    ),
    ("png_gray16.mov", Expected(0.2, _SD, _SD_RUNGS, points=(Point(0.1, 0.289, 0.25, (177, 177, 177), 6),))),
    ("sd_untagged.mp4", Expected(1, (640, 480), (480, 360, 240), points=_bars(0.5, False, 6))),
    ("webvtt_karaoke.mkv", Expected(5, *_SMALL, cues=("so today <talk> & walk", "We are in New York City"))),
]


def cases() -> list[Case]:
    """The generated clips, and the files of the folder of faults if it exists."""
    in_folder = [
        Case(file, kind, expected) for file, kind, expected in _FAULTS if (faults.FOLDER / file).is_file()
    ]
    passing = (
        [Case(file, "P", expected) for file, expected in _PASSING] if faults.PASSING_SCRIPT.is_file() else []
    )
    return [
        *(Case(file, kind, expected, is_generated=True) for file, kind, expected in _GENERATED),
        *in_folder,
        *passing,
    ]


def make_passing() -> None:
    """Makes the files that always came out right, if a script in the folder of faults makes them."""
    if not faults.PASSING_SCRIPT.is_file() or all((PASSING / file).is_file() for file, _ in _PASSING):
        return
    subprocess.run([faults.PASSING_SCRIPT, PASSING], check=True, timeout=600)
