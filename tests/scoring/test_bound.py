from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netzip_mlflow.errors import InputError
from netzip_mlflow.scoring import Basis, Weights, ocs_bound, score

ACCURACY = "validation/accuracy/top1"


def rows(accuracy: float, s: float, c: float) -> tuple[dict[str, float], dict[str, float]]:
    """A baseline, and a candidate of ratios S and C whose accuracy is not known."""
    plain = {ACCURACY: accuracy, "speed/chats": 1e9, "size/disk_bytes": 1e6}
    return plain, {"speed/chats": 1e9 / s, "size/disk_bytes": 1e6 / c}


def ocs(plain: dict[str, float], small: dict[str, float], accuracy: float, basis: Basis) -> float:
    return score(plain, {**small, ACCURACY: accuracy}, basis, split="validation").ocs


@given(
    accuracy=st.floats(0.05, 1.0),
    s=st.floats(0.2, 40),
    c=st.floats(0.2, 40),
    limit=st.floats(0, 20),
    weights=st.tuples(*[st.floats(0, 3)] * 3),
    where=st.floats(0, 1),
)
def test_no_feasible_candidate_is_above_its_bound(accuracy, s, c, limit, weights, where):
    basis = Basis(weights=Weights(*weights))
    plain, small = rows(accuracy, s, c)
    bound = ocs_bound(plain, small, basis, max_drop_points=limit)
    least = max(0.0, accuracy - limit / 100)
    reached = ocs(plain, small, least + where * (1 - least), basis)
    assert reached <= bound + 1e-9 * max(1.0, abs(bound))


@given(st.floats(0.05, 1.0), st.floats(0.2, 40), st.floats(0.2, 40), st.floats(0, 20))
def test_the_bound_is_reached_at_one_end_of_the_range(accuracy, s, c, limit):
    plain, small = rows(accuracy, s, c)
    ends = [ocs(plain, small, a, Basis()) for a in (1.0, max(0.0, accuracy - limit / 100))]
    assert ocs_bound(plain, small, Basis(), max_drop_points=limit) == pytest.approx(max(ends))


def test_skipping_by_the_bound_never_loses_the_best():
    draw = np.random.default_rng(0)
    for _ in range(300):
        known, best = [], -float("inf")
        plain_accuracy, limit = draw.uniform(0.3, 0.99), draw.choice([0.0, 0.5, 1.0, 3.0])
        for _ in range(40):
            s, c, lost = draw.uniform(0.5, 8), draw.uniform(0.5, 25), draw.uniform(-1, 4)
            known.append((s, c, min(1.0, plain_accuracy - lost / 100)))
        feasible = [k for k in known if 100 * (plain_accuracy - k[2]) <= limit]
        truth = max(
            (ocs(*rows(plain_accuracy, s, c), a, Basis()) for s, c, a in feasible),
            default=-float("inf"),
        )
        evaluated = 0
        for s, c, a in known:
            plain, small = rows(plain_accuracy, s, c)
            if ocs_bound(plain, small, Basis(), max_drop_points=limit) <= best:
                continue
            evaluated += 1
            if 100 * (plain_accuracy - a) <= limit:
                best = max(best, ocs(plain, small, a, Basis()))
        assert best == truth
        assert evaluated <= len(known)


@pytest.mark.parametrize(
    ("speed", "size", "wrong"),
    [
        ("latency", "disk", "speed"),
        ("chats", "zip", "size"),
        ("chats", "ram", "size"),
    ],
)
def test_what_is_not_known_before_training_has_no_bound(speed, size, wrong):
    plain, small = rows(0.8, 4, 4)
    with pytest.raises(InputError, match=f"{wrong}: .* is not known before training"):
        ocs_bound(plain, small, Basis(speed=speed, size=size), max_drop_points=1)
