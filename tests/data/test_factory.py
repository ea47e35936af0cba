"""Data sets by a user's own function (how it is found and called: tests/test_factories.py)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from netzip_mlflow.data import Dataset, load_source, open_source
from netzip_mlflow.errors import InputError
from netzip_mlflow.recipe import DataSpec
from netzip_mlflow.tasks.classification import Classification

MODULE = """
import numpy as np
from netzip_mlflow.data import Part, Source

def arrays(n, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "x_train": rng.integers(0, 256, (n, 6, 6, 3), dtype=np.uint8),
        "y_train": np.arange(n) % 2,
        "track_train": np.arange(n) // 5,
    }

def source():
    a = arrays(40)
    return Source("own", ("no", "yes"), {"train": Part(a["x_train"], a["y_train"])})

def nothing():
    return None

def failing():
    raise LookupError("the user's own")
"""


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_images.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_images", None)


def opened(spec: DataSpec, seed: int) -> Dataset:
    """The data set of a recipe, as classification cuts and checks it."""
    source = load_source(spec)
    Classification.cut(source, spec, seed)
    return open_source(source, spec, seed, np.asarray)


def _spec(factory: str, **keys) -> DataSpec:
    return DataSpec(factory=factory, validation=0.2, test=0.2, calibration=4, **keys)


def test_a_function_of_the_working_folder_returns_arrays() -> None:
    data = opened(_spec("own_images:arrays", arguments={"n": 50}), 0)
    assert (data.name, data.classes, data.shape) == ("own_images:arrays", ("0", "1"), (3, 6, 6))
    other = opened(_spec("own_images:arrays", arguments={"n": 50, "seed": 1}), 0)
    assert data.digest != other.digest


def test_arrays_may_carry_groups() -> None:
    data = opened(_spec("own_images:arrays", arguments={"n": 100}, groups="track"), 0)
    assert len(data.splits["validation"]) == 20


def test_a_function_returns_a_source() -> None:
    data = opened(_spec("own_images:source"), 0)
    assert (data.name, data.classes) == ("own", ("no", "yes"))


@pytest.mark.parametrize(
    ("factory", "keys", "message"),
    [
        ("own_images:array", {}, "data.factory: own_images has no function 'array'"),
        ("own_images:source", {"arguments": {"n": 3}}, "data.arguments: .*cannot be called with n"),
        ("own_images:source", {"groups": "track"}, "carry their groups themselves"),
        ("own_images:nothing", {}, "returned a NoneType; allowed: "),
        ("own_images:arrays", {"arguments": {"n": 40}, "size": 9}, "a factory takes no size"),
    ],
)
def test_a_faulty_factory_is_refused(factory: str, keys: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        opened(_spec(factory, **keys), 0)


def test_what_the_function_raises_passes_through() -> None:
    with pytest.raises(InputError, match=r"own_images:failing fails .*LookupError: .*own"):
        opened(_spec("own_images:failing"), 0)
