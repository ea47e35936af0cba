"""A table that was measured elsewhere, as runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from netzip_mlflow.errors import InputError
from netzip_mlflow.scoring import Basis
from netzip_mlflow.stages import score as stage

TABLE = """technique,top1,latency_ms,macs_g,chats_g,disk_mb,energy_j,power_w
None (FP32),70.3,14,1.81,57.92,44.7,2.2,117.8
PTQ (INT8),70.1,7,1.81,14.48,11.3,0.8,111.6
GUP_R (FP32),50.8,15,1.81,57.92,44.7,1.8,121.8
"""


@pytest.fixture
def table(tmp_path) -> Path:
    file = tmp_path / "resnet18.csv"
    file.write_text(TABLE)
    return file


@pytest.fixture
def logged(table, workplace):
    """The client and the runs by name."""
    import mlflow

    basis = Basis("top1")
    rows = stage.score(table, basis, columns={}, baseline=None)
    parent = stage.log(rows, "resnet18", basis, workplace)
    client = mlflow.MlflowClient(workplace.tracking_uri)
    home = client.get_run(parent).info.experiment_id
    return parent, {r.info.run_name: r for r in client.search_runs([home])}


def test_every_row_is_a_finished_run_below_one_parent(logged):
    parent, runs = logged
    assert set(runs) == {"resnet18", "None (FP32)", "PTQ (INT8)", "GUP_R (FP32)"}
    assert runs["resnet18"].info.run_id == parent
    assert all(r.info.status == "FINISHED" for r in runs.values())
    for name in ("None (FP32)", "PTQ (INT8)", "GUP_R (FP32)"):
        tags = runs[name].data.tags
        assert tags["mlflow.parentRunId"] == parent
        assert tags["netzip.baseline"] == runs["None (FP32)"].info.run_id
        assert tags["netzip.basis"] == "accuracy=top1 speed=chats size=disk zeta=1 lambdas=1,1,1,1"
        assert tags["netzip.terms"] == "P,S,C,E"
    kinds = [runs[n].data.tags["netzip.kind"] for n in ("PTQ (INT8)", "GUP_R (FP32)")]
    assert kinds == ["scored", "scored"]


def test_figures_are_in_the_units_of_their_keys(logged):
    found = logged[1]["PTQ (INT8)"].data.metrics
    assert found["accuracy/top1"] == pytest.approx(0.701)
    assert found["speed/macs"] == pytest.approx(1.81e9)
    assert found["size/disk_bytes"] == pytest.approx(11.3e6)
    assert found["energy/joules"] == 0.8
    assert found["accuracy/drop_points"] == pytest.approx(0.2)
    assert round(found["score/ocs"], 3) == 7.681


def test_the_baseline_scores_nothing(logged):
    found = logged[1]["None (FP32)"].data.metrics
    assert (found["score/ocs"], found["ratio/P"], found["ratio/E"]) == (0.0, 1.0, 1.0)


def test_energy_that_is_not_power_times_time_is_flagged(logged):
    """The paper's own baseline: 2.2 J at 117.8 W and 14 ms, which is 1.65 J."""
    assert "energy 2.2 J differs" in logged[1]["None (FP32)"].data.tags["netzip.flags"]
    assert logged[1]["PTQ (INT8)"].data.tags["netzip.flags"] == ""


@pytest.mark.parametrize(
    ("header", "accuracy"),
    [
        ("technique,map50,disk_mb", "map50"),
        ("technique,map50,map50_95", "map50_95"),
        ("technique,map50,top1", "top1"),
        ("name,accuracy/map50", "map50"),
        ("technique,acc", "top1"),
        ("", "top1"),
    ],
)
def test_the_accuracy_is_the_first_known_one(tmp_path, header, accuracy):
    file = tmp_path / "t.csv"
    file.write_text(header + "\n")
    assert stage.find_accuracy(file, {}) == accuracy


def test_a_header_of_ones_own(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("model,quality\n")
    assert stage.find_accuracy(file, {"quality": "map50"}) == "map50"


def test_a_table_that_is_not_there(tmp_path):
    assert stage.find_accuracy(tmp_path / "none.csv", {}) == "top1"
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        stage.score(tmp_path / "none.csv", Basis("top1"), columns={}, baseline=None)
