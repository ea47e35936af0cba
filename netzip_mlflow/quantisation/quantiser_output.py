"""ONNX Runtime's quantiser prints and logs; stdout is for results, and its advice is not ours."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator

__all__ = ["quiet_quantiser"]


@contextlib.contextmanager
def quiet_quantiser() -> Iterator[None]:
    """Its calibrators print to stdout; both quantisers log advice to the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
