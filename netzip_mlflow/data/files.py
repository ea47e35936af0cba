"""Images in files of their own, decoded when they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from netzip_mlflow.data.images import digest, fit
from netzip_mlflow.errors import InputError, Problem

__all__ = ["Files", "open_files"]

GREY = frozenset({"1", "L"})
COLOUR = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV"})
SHOWN = 5  # faulty files named in one message


@dataclass(frozen=True, eq=False)
class Files:
    """Images by path, as `channels` (1 or 3) and `size` pixels a side (None: as they are)."""

    paths: Sequence[Path]
    channels: int
    size: int | None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return np.stack([self._decode(self.paths[int(i)]) for i in indices])

    def content_digests(self) -> np.ndarray:
        """Of the files' bytes: cheaper than decoding; one picture in two encodings differs."""
        return digest(path.read_bytes() for path in self.paths)

    def _decode(self, path: Path) -> np.ndarray:
        from PIL import Image

        try:
            with Image.open(path) as image:
                return fit(image, self.channels, self.size)
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"cannot be decoded: {error}", str(path)) from error


def open_files(parts: dict[str, Sequence[Path]], size: int | None, source: str) -> dict[str, Files]:
    """Read every file's header, and give the images of each part.

    One channel when all files of all parts are grey, else three.

    Raises:
        InputError: naming files that are no images, hold more than 8 bits a channel, or, without
            a `size`, differ in size.
    """
    paths = [path for part in parts.values() for path in part]
    headers = [_header(path) for path in paths]
    problems = [
        Problem(str(path), header, "8-bit JPEG or PNG images")
        for path, header in zip(paths, headers, strict=True)
        if isinstance(header, str)
    ]
    if problems:
        more = len(problems) - SHOWN
        rest = [Problem("", f"and {more} more files")] if more > 0 else []
        raise InputError(problems[:SHOWN] + rest, source)
    read = [header for header in headers if not isinstance(header, str)]
    if size is None:
        _require_one_size(paths, [pixels for _, pixels in read], source)
    channels = 1 if all(mode in GREY for mode, _ in read) else 3
    return {name: Files(part, channels, size) for name, part in parts.items()}


def _header(path: Path) -> tuple[str, tuple[int, int]] | str:
    """Mode and size (width, height), or what is wrong with the file."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            mode, pixels = image.mode, image.size
    except (OSError, SyntaxError, ValueError) as error:
        return f"is no image that can be read: {error}"
    return (mode, pixels) if mode in COLOUR else f"has pixels of mode {mode}"


def _require_one_size(paths: Sequence[Path], sizes: Sequence[tuple[int, int]], source: str) -> None:
    for path, pixels in zip(paths, sizes, strict=True):
        if pixels != sizes[0]:
            what = (
                f"images differ in size: {paths[0].name} has {sizes[0][0]}x{sizes[0][1]} pixels, "
                f"{path.name} {pixels[0]}x{pixels[1]}"
            )
            hint = "give `data.size`: the short side is resized to it and the centre kept"
            raise InputError(Problem("data.size", what, hint=hint), source)
