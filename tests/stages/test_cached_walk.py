"""A chain whose beginning was made before: the same file, no training, and it is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from netzip_mlflow import techniques
from netzip_mlflow.cache import StageCache
from netzip_mlflow.deployable import Deployable
from netzip_mlflow.runs import candidates
from netzip_mlflow.runs.candidates import Candidate
from netzip_mlflow.runs.job import job, open_tracker

ENTRIES = [{"prune_l1": {"ratio": 0.5}}, {"finetune": {"epochs": 2}}, {"half": {}}]

CODE = frozenset({"tiny_networks:tiny"})


@pytest.fixture
def at_work(workplace):
    with job("compress", "digits", workplace, open_tracker(workplace)) as found:
        yield found


@pytest.fixture
def walked(at_work, twin, context, tmp_path):
    """`walked(name, cache)`: the candidate's run, what was deployed, what was said."""

    def walk(
        name: str, cache: StageCache | None, entries=ENTRIES
    ) -> tuple[Candidate, Deployable, list[str]]:
        chain = techniques.chain(entries)
        said: list[str] = []
        made = candidates.start(at_work, name, techniques.label(chain))
        own = replace(context, log=made.epoch)
        deployable = candidates.walk(made, chain, twin, own, cache, said.append)
        candidates.finish(made)
        return made, deployable, said

    return walk


def _run(at_work, made: Candidate):
    return at_work.tracker.client.get_run(made.run.id)


def test_the_second_walk_trains_nothing_and_ships_the_same(at_work, walked, tmp_path: Path):
    cache = StageCache(tmp_path / "cache", allow=CODE)
    (first, one, quiet), (second, two, said) = (walked(n, cache) for n in ("first", "second"))
    _, plain, _ = walked("plain", None)
    assert one.digest == two.digest == plain.digest
    assert first.twin.digest() == second.twin.digest()
    assert quiet == []
    keys = {entry.name[:12] for entry in (tmp_path / "cache").iterdir()}
    assert len(keys) == 2
    assert [line.rsplit(" ", 1)[0] for line in said] == [
        "second: prune_l1(0.5): from the cache, key",
        "second: finetune: from the cache, key",
    ]
    assert {line.rsplit(" ", 1)[1] for line in said} == keys
    for line in said:
        assert line.removeprefix("second: ") in "\n".join(second.lines)
    runs = [_run(at_work, made).data for made in (first, second)]
    assert ["training/loss" in run.metrics for run in runs] == [True, False]
    assert [run.tags.get("netzip.cached") for run in runs] == [None, "prune_l1(0.5)+finetune"]
    assert any("epoch 2: training/loss" in line for line in first.lines)
    assert not any("epoch" in line.split("s  ")[1][:6] for line in second.lines)


def test_only_the_shared_beginning_comes_from_there(at_work, walked, tmp_path: Path):
    cache = StageCache(tmp_path / "cache", allow=CODE)
    walked("first", cache)
    other = [*ENTRIES[:1], {"finetune": {"epochs": 1}}, {"half": {}}]
    made, _, said = walked("other", cache, other)
    assert len(said) == 1
    assert _run(at_work, made).data.tags["netzip.cached"] == "prune_l1(0.5)"
    assert "training/loss" in _run(at_work, made).data.metrics


def test_why_a_step_is_not_kept_stands_in_the_log(walked, tmp_path: Path):
    made, _, said = walked(
        "own", StageCache(tmp_path / "cache", allow=CODE), [{"own_techniques:settle": {"eps": 0.5}}]
    )
    assert said == []
    assert any("settle: not cached: what it changed is not" in line for line in made.lines)
