"""The command line in this process, in a folder of its own, with and without a store."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from netzip_mlflow import cli

VARIABLES = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
RECIPE = {
    "name": "stripes",
    "data": {"name": "npz", "path": "stripes.npz", "calibration": 32},
    "model": {"factory": "tiny_networks:tiny", "arguments": {"width": 4}},
    "train": {"epochs": 1, "lr": 0.1, "batch": 32, "precision": "float32", "threads": 1},
    "candidates": {"ruined": [{"prune_random": {"ratio": 0.95}}]},
    "measure": {"latency": {"target": 0.5, "max_seconds": 0.3, "min_rounds": 5}, "throughput": []},
    "score": {"max_drop_points": 0},
}


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it said."""

    status: int
    out: str
    err: str

    @property
    def object(self) -> dict:
        return json.loads(self.out)


@pytest.fixture
def netzip(capsys, monkeypatch) -> Callable[..., Ended]:
    """Runs the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["netzip"])
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None)  # or it says `python -m`
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Ended(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture(scope="session")
def migrated(tmp_path_factory) -> Path:
    """MLflow's tables in a sqlite file: making them takes seconds, copying them does not."""
    import mlflow

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working folder without a store in it."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def store(place, migrated):
    """The same with an empty store; gives the client that reads it, and all runs at once."""
    import mlflow

    class Store(mlflow.MlflowClient):
        def all_runs(self) -> list:
            """Of all experiments."""
            homes = [e.experiment_id for e in self.search_experiments()]
            return list(self.search_runs(homes))

    shutil.copy(migrated, place / "mlflow.db")
    return Store(f"sqlite:///{place}/mlflow.db")


@pytest.fixture
def save(place) -> Callable[..., Path]:
    """`save(section=...)` writes the quick recipe with other sections; None leaves one out."""

    def write(**changes: object) -> Path:
        sections = {k: v for k, v in (RECIPE | changes).items() if v is not None}
        file = Path("recipe.yaml")
        file.write_text(yaml.safe_dump(sections, sort_keys=False))
        return file

    return write


@pytest.fixture
def recipe(place, arrays, save) -> Path:
    """A recipe that runs in seconds, beside its data."""
    np.savez(place / "stripes.npz", **arrays)
    return save()


@pytest.fixture
def no_pictures(monkeypatch) -> None:
    """Pictures take seconds and nobody looks at them here."""
    from matplotlib.figure import Figure

    from netzip_mlflow.report import plots, search_plots

    monkeypatch.setattr(plots, "figures", lambda _frame, best: {"blank": Figure()})
    monkeypatch.setattr(search_plots, "figures", lambda *_given: {"blank": Figure()})
