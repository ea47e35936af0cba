"""What commands leave on stdout: the contract's objects, and tables for people."""

from __future__ import annotations

import json
from dataclasses import replace

from netzip_mlflow.cli import output
from netzip_mlflow.report.search_note import Winner
from netzip_mlflow.scoring import Basis, Choice
from netzip_mlflow.stages import score
from netzip_mlflow.stages.search.result import Found


def test_compress_for_machines(compressed):
    found = json.loads(json.dumps(output.compress_object(compressed.outcome), allow_nan=False))
    assert set(found) == {"experiment_id", "run_id", "best", "feasible", "candidates"}
    assert found["run_id"] == compressed.outcome.run_id
    assert found["best"] == compressed.parent.data.tags["netzip.best"]
    assert found["feasible"] is True
    rows = {row["name"]: row for row in found["candidates"]}
    assert list(rows) == ["baseline", "int8", "broken", "chain"]
    for name, row in rows.items():
        assert set(row) == {"name", "run_id", "status", "metrics"}
        run = compressed.runs[name]
        assert (row["run_id"], row["status"]) == (run.info.run_id, run.info.status)
        logged = run.data.metrics
        assert row["metrics"] == {k: v for k, v in logged.items() if not k.startswith("training/")}


def test_compress_for_people(compressed):
    text = output.compress_text(compressed.outcome, "sqlite:////data/mlflow.db")
    for word in ("baseline", "int8", "chain", "broken failed: RuntimeError: the lamp is out"):
        assert word in text
    assert f"run {compressed.outcome.run_id}" in text
    assert "\x1b" not in text, "no colours where nobody sees them"


def test_where_to_look_at_it(compressed):
    home = compressed.outcome.experiment_id
    view = f"#/experiments/{home}/runs?viewStateShareKey=netzip-overview&"
    local = output.compress_text(compressed.outcome, "sqlite:////data/mlflow.db").splitlines()
    assert local[-2] == "mlflow ui --backend-store-uri sqlite:////data/mlflow.db"
    assert local[-1].startswith(f"http://127.0.0.1:5000/{view}")
    served = output.compress_text(compressed.outcome, "https://mlflow.example/").splitlines()
    assert served[-1].startswith(f"https://mlflow.example/{view}")
    assert not any("mlflow ui" in line for line in served)


def test_a_search_says_which_model_was_registered_and_why(compressed):
    why = (
        "highest OCS on validation; it is the recipe's own candidate, which lies outside the space"
    )
    won = Winner("int8", why, "models:/small@best-ocs")
    given = ("mine", "sqlite:///s.db", 3, 8, compressed.outcome)
    *_, study, end = output.search_text(Found(*given, won), "sqlite:////m.db").splitlines()
    assert study == "study mine: 8 trials; best: trial 3"
    assert end == f"registered as models:/small@best-ocs: int8, {why}"
    nothing = replace(compressed.outcome, choice=Choice(None, "int8", "int8 violates least"))
    lost = Found("mine", "sqlite:///s.db", None, 8, nothing)
    *_, study, end = output.search_text(lost, "sqlite:////m.db").splitlines()
    assert study == "study mine: 8 trials", "it is the recipe's own candidate"
    assert end == "nothing keeps every limit, no model was registered: int8 violates least"
    told = output.search_object(lost)
    assert (told["best"], told["feasible"], told["trial"]) == (None, False, None)


def test_a_table_scored_with_a_term_missing(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("technique,top1,chats_g,disk_mb\nnone,50,4,2\nhalved,50,2,1\n")
    basis = Basis("top1")
    rows = score.score(file, basis, columns={}, baseline=None)
    found = output.score_object(rows, basis)
    assert found["basis"]["terms"] == "P,S,C"
    assert found["basis"]["weights"] == {"P": 1.0, "S": 1.0, "C": 1.0, "E": 1.0}
    # P (P-1 + S-1 + C-1) = 1 (0 + 1 + 1)
    assert found["rows"] == [
        {"technique": "none", "P": 1.0, "S": 1.0, "C": 1.0, "E": None, "ocs": 0.0},
        {"technique": "halved", "P": 1.0, "S": 2.0, "C": 2.0, "E": None, "ocs": 2.0},
    ]
    text = output.score_text(rows, basis)
    assert "2.000" in text
    assert "terms: P,S,C" in text
