"""The command `search`: statuses and messages; what it finds is tested with the stages."""

from __future__ import annotations

import sys

import pytest

SPACE = "search.space=[{prune_random: {ratio: [0.1, 0.2]}}, {ptq: {}}]"


def test_the_study_s_database_may_be_named_by_a_variable(netzip, recipe, place, monkeypatch):
    monkeypatch.setenv("NETZIP_STORAGE", "postgresql+psycopg://me:s3cret@127.0.0.1:1/d")
    ended = netzip("search", recipe, "--set", SPACE)
    assert ended.status == 2
    assert "storage: postgresql+psycopg://me:***@127.0.0.1:1/d cannot be used" in ended.err
    assert "s3cret" not in ended.err


class TestBadInput:
    """One clear message, status 2, and no run is left behind."""

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ("search.space=[{ptq: {bitz: [8, 4]}}]", ["ptq.bitz: unknown key", "mean 'bits'?"]),
            ("search.space=[{ptqq: {bits: [8, 4]}}]", ["'ptqq'", "mean 'ptq'?"]),
            ("search.space=[]", ["search.space", "no technique is given"]),
            ("search.space=[{ptq: {}}]", ["search.space", "nothing varies"]),
            ("search.space=atuo", ["search.space: 'atuo' is not allowed", "'auto'"]),
            ("search.sampler=tpee", ["search.sampler: 'tpee'", "mean 'tpe'?"]),
            ("search.timeout=soon", ["search.timeout: 'soon'", "30m"]),
            ("search.trials=0", ["search.trials: 0 is not allowed"]),
            ("search.limits={max_disk: 3}", ["limits.max_disk: unknown key", "max_disk_mib"]),
        ],
    )
    def test_of_the_recipe(self, netzip, recipe, place, change, says):
        ended = netzip("search", recipe, "--set", change)
        assert (ended.status, ended.out) == (2, "")
        for part in says:
            assert part in ended.err
        assert not (place / "mlflow.db").exists()

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            (["--workers", "none"], "--workers: 'none'; allowed: an integer, 1 or more"),
            (["--workers", "0"], "--workers: '0'"),
            (["--workers", "9" * 5000], "allowed: an integer, 1 or more"),
            (["--engine", "rya"], "--engine: 'rya' is unknown; allowed: local, ray (did you mean"),
            (["--engine", "ray", "--workers", "2"], "--workers: Ray's cluster decides how many"),
            (["--storage", "sqlite:////no/such/place/s.db"], "cannot be used"),
            (["--trials", "many"], "search.trials: 'many' is not allowed"),
            (["--restart"], "--restart: no study is named; allowed: with --study NAME"),
        ],
    )
    def test_of_the_command(self, netzip, recipe, place, options, says):
        ended = netzip("search", recipe, "--set", SPACE, *options)
        assert ended.status == 2
        assert says in ended.err

    def test_ray_that_is_not_installed(self, netzip, recipe, store, monkeypatch):
        monkeypatch.setitem(sys.modules, "ray", None)
        ended = netzip("search", recipe, "--set", SPACE, "--engine", "ray", "--quiet")
        assert ended.status == 2
        assert ended.err.startswith("netzip: --engine ray: ray is not installed here; allowed: ")
        assert "pip install 'netzip-mlflow[ray]'" in ended.err
        assert store.all_runs() == []

    def test_a_study_s_database_that_does_not_answer(self, netzip, recipe, store):
        url = "postgresql+psycopg://me:s3cret@127.0.0.1:1/d"
        ended = netzip("search", recipe, "--set", SPACE, "--storage", url, "--quiet")
        assert ended.status == 2
        assert "postgresql+psycopg://me:***@127.0.0.1:1/d cannot be used: " in ended.err
        assert "s3cret" not in ended.err
        assert store.all_runs() == []


class TestDryRun:
    def test_it_says_what_varies_and_leaves_nothing_behind(self, netzip, recipe, place):
        before = set(place.iterdir())
        ended = netzip("search", recipe, "--set", SPACE, "--trials", 7, "--dry-run")
        assert ended.status == 0
        assert "at most 7 trials by tpe" in ended.out
        assert "prune_random.ratio: 0.1 | 0.2" in ended.out
        assert set(place.iterdir()) == before

    def test_as_an_object_its_steps_add_up(self, netzip, recipe):
        space = "search.space=[{qat: {bits: [8, ternary], budget: auto}}]"
        options = ("--set", space, "--timeout", "90s", "--dry-run", "--json")
        found = netzip("search", recipe, *options).object
        assert found["seconds"] == pytest.approx(sum(s["seconds"] for s in found["steps"]), abs=0.5)
        (limit,) = (s["seconds"] for s in found["steps"] if s["step"].startswith("at most"))
        assert limit <= 90
        assert found["varies"] == {"qat.bits": "8 | ternary", "qat.budget": "null | 1.8 | 2.5"}


@pytest.mark.usefixtures("store", "no_pictures")
class TestStatus:
    def test_nothing_feasible_is_status_3_with_the_least_violating(self, netzip, recipe):
        ended = netzip("search", recipe, "--set", SPACE, "--trials", 2, "--json", "--quiet")
        assert ended.status == 3
        found = ended.object
        assert (found["best"], found["feasible"]) == (None, False)
        assert found["trials"] == 2
        names = [c["name"] for c in found["candidates"]]
        assert names[0] == "baseline"
        assert f"trial-{found['trial']}" in names

    def test_with_a_limit_that_can_be_kept_it_is_0(self, netzip, recipe):
        ended = netzip(*("search", recipe, "--set", SPACE, "--trials", 2, "--max-drop-points", 100))
        assert ended.status == 0
        assert "; best: trial" in ended.out
