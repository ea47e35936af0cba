"""A disk that is full: one sentence, status 1, nothing RUNNING, and what was measured is kept."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Folder


@pytest.fixture
def small() -> Iterator[Callable[[Path, int], None]]:
    """`small(folder, size)`: a disk of so many KiB in the folder's place."""
    mounted: list[Path] = []

    def mount(place: Path, size: int) -> None:
        place.mkdir(exist_ok=True)
        command = [
            shutil.which("mount") or "",
            "-t",
            "tmpfs",
            "-o",
            f"size={size}k",
            "tmpfs",
            str(place),
        ]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("only root can mount a small disk here")
        mounted.append(place)

    yield mount
    for place in mounted:
        subprocess.run([shutil.which("umount") or "", "-l", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "size"), [("scratch", 40), ("scratch", 600), ("mlruns", 40), ("mlruns", 600)]
)
def test_a_full_disk_is_one_sentence(
    folder: Folder, small: Callable[[Path, int], None], place: str, size: int
) -> None:
    small(folder.path / place, size)
    process = folder.netzip("compress", "quick.yaml", "--set", "candidates.half=[half]", "--quiet")
    out, err = process.communicate()
    assert "Traceback" not in err
    assert process.returncode in (0, 1)
    assert "RUNNING" not in folder.states().values()
    if process.returncode:
        assert out == ""
        assert "No space left on device" in err.splitlines()[-1]
    if place == "mlruns":  # what is measured needs no artifact: it is in the store, or kept beside
        (baseline,) = [run for run in folder.runs() if run.info.run_name == "baseline"]
        kept = [file.read_text(encoding="utf-8") for file in folder.path.rglob("unsent.json")]
        assert any("accuracy/top1" in where for where in (baseline.data.metrics, *kept))
