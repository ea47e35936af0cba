from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netzip_mlflow.errors import InputError
from netzip_mlflow.scoring import Basis, Weights, other_ratios, score

KEYS = ("accuracy/top1", "speed/chats", "size/disk_bytes", "energy/joules")
# wider, and a change of one term drowns in the rounding of another
positive = st.floats(1e-2, 1e2)
models = st.fixed_dictionaries(dict.fromkeys(KEYS, positive))
weights = st.builds(Weights, *[st.floats(0, 10)] * 4)

FP32 = {
    "accuracy/top1": 0.8821,
    "speed/chats": 2595e6,
    "speed/ops": 81.1e6,
    "speed/latency_ms": 2.0,
    "size/disk_bytes": 1.08e6,
}
INT8 = {
    "accuracy/top1": 0.8805,
    "speed/chats": 648.8e6,
    "speed/ops": 81.1e6,
    "speed/latency_ms": 1.0,
    "size/disk_bytes": 0.27e6,
}


@given(models, weights)
def test_a_model_against_itself(model, lambdas):
    found = score(model, model, Basis(weights=lambdas))
    assert (found.P, found.S, found.C, found.E) == (1, 1, 1, 1)
    assert found.ocs == 0


@given(models, models, st.floats(1.01, 100))
def test_ocs_grows_when_a_candidate_shrinks(baseline, candidate, factor):
    smaller = candidate | {"size/disk_bytes": candidate["size/disk_bytes"] / factor}
    basis = Basis()
    assert score(baseline, smaller, basis).ocs > score(baseline, candidate, basis).ocs


@given(models, models, st.floats(1e-3, 1e3))
def test_units_cancel(baseline, candidate, factor):
    scaled = [m | {"speed/chats": m["speed/chats"] * factor} for m in (baseline, candidate)]
    assert score(*scaled, Basis()).ocs == pytest.approx(
        score(baseline, candidate, Basis()).ocs, rel=1e-6, abs=1e-6
    )


@given(models, models)
def test_without_a_meter_e_is_left_out_not_set_to_one(baseline, candidate):
    unmetered = {k: v for k, v in candidate.items() if k != "energy/joules"}
    without = score(baseline, unmetered, Basis())
    assert without.E is None
    assert without.terms == "P,S,C"
    assert "ratio/E" not in without.metrics()
    assert "energy/joules" not in without.operands
    ignored = score(baseline, candidate, Basis(weights=Weights(E=0)))
    assert ignored.terms == "P,S,C,E"
    assert ignored.ocs == pytest.approx(without.ocs, rel=1e-12)


def test_operands_rebuild_the_score():
    found = score(FP32, INT8, Basis())
    (a, b), (c, d), (e, f) = (found.operands[k] for k in KEYS[:3])
    P, S, C = b / a, c / d, e / f
    assert found.ocs == pytest.approx(P * ((P - 1) + (S - 1) + (C - 1)), rel=1e-12)
    assert found.metrics() == {
        "ratio/P": P,
        "ratio/S": S,
        "ratio/C": C,
        "score/ocs": found.ocs,
    }


def test_each_weight_changes_its_term():
    base = score(FP32, INT8, Basis())
    for term in "PSC":
        heavier = score(FP32, INT8, Basis(weights=Weights(**{term: 2.0})))
        gained = base.P * (getattr(base, term) - 1)
        assert heavier.ocs - base.ocs == pytest.approx(gained)


def test_validation_prefix_goes_to_what_depends_on_the_split():
    baseline = FP32 | {"validation/accuracy/top1": 0.8875}
    candidate = INT8 | {"validation/accuracy/top1": 0.8800}
    found = score(baseline, candidate, Basis(), split="validation")
    assert pytest.approx(0.88 / 0.8875) == found.P
    assert set(found.metrics()) == {
        "validation/ratio/P",
        "ratio/S",
        "ratio/C",
        "validation/score/ocs",
    }
    with pytest.raises(ValueError, match="split"):
        score(baseline, candidate, Basis(), split="train")


def test_latency_basis_takes_the_interleaved_ratio():
    basis = Basis(speed="latency")
    assert score(FP32, INT8, basis).S == 2.0
    found = score(FP32, INT8 | {"ratio/its": 2.24}, basis)
    assert found.S == 2.24
    assert found.operands["ratio/its"] == (1.0, 2.24)


@pytest.mark.parametrize(("speed", "factor"), [("chats", 0.5), ("ops", 1), ("latency", 1)])
def test_zeta_touches_only_chats(speed, factor):
    plain = score(FP32, INT8, Basis(speed=speed))
    scaled = score(FP32, INT8, Basis(speed=speed, zeta=0.5))
    assert pytest.approx(factor * plain.S) == scaled.S


def test_zeta_touches_only_another_bit_width():
    pruned = INT8 | {"speed/chats": FP32["speed/chats"] / 2, "speed/ops": FP32["speed/ops"] / 2}
    assert score(FP32, pruned, Basis(zeta=0.5)).S == 2.0
    assert score(FP32, FP32, Basis(zeta=0.5)).ocs == 0


def test_zeta_reads_macs_where_ops_are_unknown_and_says_when_neither_is_there():
    def only_macs(model):
        return {k: v for k, v in model.items() if k != "speed/ops"} | {"speed/macs": 1.0}

    assert (
        pytest.approx(0.5 * score(FP32, INT8, Basis()).S)
        == score(only_macs(FP32), only_macs(INT8), Basis(zeta=0.5)).S
    )
    bare = {k: FP32[k] for k in KEYS[:3]}
    with pytest.raises(InputError, match="speed/ops"):
        score(bare, bare, Basis(zeta=0.5))


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_bad_denominators_name_row_and_column(value):
    with pytest.raises(InputError) as caught:
        score(FP32 | {"accuracy/top1": value}, INT8 | {"size/disk_bytes": value}, Basis())
    text = str(caught.value)
    assert "row 'baseline', column 'accuracy/top1'" in text
    assert "row 'candidate', column 'size/disk_bytes'" in text
    assert caught.value.exit_status == 2


def test_missing_operands_are_named_all_at_once():
    with pytest.raises(InputError) as caught:
        score({}, FP32, Basis(), names=("fp32", "int8"))
    assert len(caught.value.problems) == 3
    assert all(p.where.startswith("row 'fp32'") for p in caught.value.problems)


def test_a_dead_model_scores_zero_and_is_no_error():
    assert score(FP32, INT8 | {"accuracy/top1": 0.0}, Basis()).ocs == 0


def test_other_ratios():
    baseline = FP32 | {"size/parameters": 100.0, "size/zip_bytes": 90.0, "energy/joules": 3.0}
    candidate = INT8 | {"size/parameters": 50.0, "size/zip_bytes": 30.0, "energy/joules": 2.0}
    assert other_ratios(baseline, candidate, Basis()) == {
        "ratio/pcr": 2.0,
        "ratio/its": 2.0,
        "ratio/esr": 1.5,
        "ratio/zip": 3.0,
        "ratio/al": pytest.approx((0.8821 - 0.8805) / 0.8821),
    }


def test_other_ratios_are_absent_where_operands_are():
    assert other_ratios({"size/parameters": 1.0}, {"speed/latency_ms": 1.0}, Basis()) == {}
    assert other_ratios({}, {"ratio/its": 2.5}, Basis()) == {"ratio/its": 2.5}
    with pytest.raises(InputError, match="size/zip_bytes"):
        other_ratios({"size/zip_bytes": 1.0}, {"size/zip_bytes": 0.0}, Basis())
