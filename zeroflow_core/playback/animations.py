"""Films as .gif and .webp, written picture by picture. Pillow's own way keeps all of them in memory.

Both formats store of a picture what has changed since the last one.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from itertools import chain, islice
from typing import IO

import numpy as np
from PIL import GifImagePlugin, Image, ImageChops

_SEEN_FOR_PALETTE = 8  # pictures that a .gif's colours are chosen by
_UNCHANGED = 255  # the colour that lets the last picture through
_LEAST_S = 0.02  # what browsers are to show for a shorter time, they show for 0.1 s
_WEBP_QUALITY, _WEBP_EFFORT = 80, 2


def write_gif(file: IO[bytes], frames: Iterator[tuple[Image.Image, float]]) -> None:
    """An endless .gif of RGB pictures, each shown for its seconds, to a file that is open.

    It has one palette of 255 colours, chosen by the first pictures: nothing flickers.
    """
    seen = list(islice(frames, _SEEN_FOR_PALETTE))
    palette = _Palette([image for image, _ in seen])
    width, height = seen[0][0].size
    file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF7, 0, 0) + palette.colours.tobytes())
    file.write(b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00")  # again and again
    clock, before = _Clock(100), None
    for image, seconds in chain(seen, frames):
        colours = palette.indices(image)
        changed = np.ones(colours.shape, bool) if before is None else colours != before
        x0, y0, x1, y1 = _box(changed)
        part = Image.fromarray(np.where(changed, colours, _UNCHANGED)[y0:y1, x0:x1].astype(np.uint8))
        how = {"duration": 10 * clock.ticks(seconds), "transparency": _UNCHANGED, "disposal": 1}
        file.write(b"".join(GifImagePlugin.getdata(part, (x0, y0), **how)))
        before = colours
    file.write(b";")


def write_webp(file: IO[bytes], frames: Iterator[tuple[Image.Image, float]]) -> None:
    """An endless .webp of RGB pictures, each shown for its seconds, to a file that is open and can be rewound."""
    clock, before = _Clock(1000), None
    for image, seconds in frames:
        if before is None:
            sides = _three(image.width - 1) + _three(image.height - 1)
            file.write(b"RIFF\0\0\0\0WEBP" + _chunk(b"VP8X", b"\x02\0\0\0" + sides) + _chunk(b"ANIM", bytes(6)))
            box = (0, 0, *image.size)
        else:
            x0, y0, x1, y1 = ImageChops.difference(image, before).getbbox() or (0, 0, 1, 1)
            box = (x0 // 2 * 2, y0 // 2 * 2, x1, y1)  # the format counts corners by twos
        still = io.BytesIO()
        part = image.crop(box)
        part.save(still, "WEBP", quality=_WEBP_QUALITY, method=_WEBP_EFFORT)
        place = b"".join(map(_three, (box[0] // 2, box[1] // 2, part.width - 1, part.height - 1, clock.ticks(seconds))))
        file.write(_chunk(b"ANMF", place + b"\x02" + still.getvalue()[12:]))  # over what is there, not blended
        before = image
    size = file.tell()
    file.seek(4)
    file.write(struct.pack("<I", size - 8))


class _Clock:
    """Durations in whole ticks, whose sum stays right."""

    def __init__(self, per_second: int) -> None:
        self._per_second, self._now, self._told = per_second, 0.0, 0

    def ticks(self, seconds: float) -> int:
        self._now += max(seconds, _LEAST_S)
        ticks = max(round(self._now * self._per_second) - self._told, 1)
        self._told += ticks
        return ticks


def _box(changed: np.ndarray) -> tuple[int, int, int, int]:
    """Left, upper, right and lower bound of the pixels that are set; of one pixel where none is."""
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    if len(rows) == 0:
        return 0, 0, 1, 1
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class _Palette:
    """255 colours for pictures like these. How often a colour is there counts by its root alone: few pixels move."""

    def __init__(self, images: list[Image.Image]) -> None:
        pixels = np.concatenate([_codes(image)[::2, ::2].ravel() for image in images])
        codes, counts = np.unique(pixels, return_counts=True)
        weighted = np.repeat(_colours(codes), np.ceil(np.sqrt(counts)).astype(int), axis=0).astype(np.uint8)
        chosen = Image.fromarray(weighted[None]).quantize(255, method=Image.Quantize.MEDIANCUT)
        self.colours = np.zeros((256, 3), np.uint8)
        found = np.array(chosen.getpalette(), np.uint8).reshape(-1, 3)[:255]
        self.colours[: len(found)] = found
        self._nearest = np.full(1 << 24, -1, np.int16)  # by code; filled as colours come up

    def indices(self, image: Image.Image) -> np.ndarray:
        """(H,W) uint8: for each pixel the nearest colour. Pillow's own search has steps of four, which dark gradients
        show."""
        codes = _codes(image)
        new = np.unique(codes[self._nearest[codes] < 0])
        for some in np.array_split(new, len(new) // 10_000 + 1):
            apart = _colours(some)[:, None] - self.colours[None, :_UNCHANGED].astype(np.int32)
            self._nearest[some] = np.einsum("ijk,ijk->ij", apart, apart).argmin(axis=1)
        return self._nearest[codes].astype(np.uint8)


def _codes(image: Image.Image) -> np.ndarray:
    """(H,W) int32: each pixel's colour as one number."""
    red, green, blue = np.moveaxis(np.asarray(image).astype(np.int32), 2, 0)
    return red << 16 | green << 8 | blue


def _colours(codes: np.ndarray) -> np.ndarray:
    """(N,3) int32 of (N,) codes."""
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1)


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def _three(number: int) -> bytes:
    return number.to_bytes(3, "little")
