from __future__ import annotations

from typing import Any

import optuna
import pytest

from netzip_mlflow import search, techniques
from netzip_mlflow.search import Space


def space(*entries: dict[str, Any]) -> Space:
    found = search.read(list(entries))
    assert isinstance(found, Space), [str(p) for p in found]
    return found


def suggestions(of: Space, count: int = 60) -> list[tuple[list, dict]]:
    """Chains and parameters of random trials."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    made = []
    for _ in range(count):
        trial = study.ask()
        made.append((of.suggest(trial), dict(trial.params)))
        study.tell(trial, 0.0)
    return made


def problems(*entries: Any) -> list[str]:
    return [str(p) for p in search.check({"search": {"space": list(entries)}})]


PRUNE = {"prune_l1": {"ratio": {"low": 0.1, "high": 0.9}}}
MIXED = (
    {"optional": True, "prune_channels": {"ratio": {"low": 0.1, "high": 0.5, "step": 0.1}}},
    {"optional": True, "one_of": [{"qat": {"lr": {"low": 1e-4, "high": 0.1, "log": True}}}, PRUNE]},
    {
        "one_of": [
            {"ptq": {"bits": [8, 4], "calibration": "auto", "percentile": "auto"}},
            {"half": {}},
        ]
    },
)


def test_every_suggestion_is_a_chain_and_leads_back_to_its_parameters():
    of = space(*MIXED)
    seen = set()
    for entries, parameters in suggestions(of):
        seen.add(techniques.label(techniques.chain(entries)).split("(")[0])
        assert of.encode(entries) == parameters
    assert seen == {"prune_channels", "qat", "prune_l1", "ptq", "half"}


def test_what_may_not_follow_is_not_offered():
    for entries, parameters in suggestions(space(*MIXED)):
        names = [name for entry in entries for name in entry]
        if "qat" in names:
            assert names[-1] == "ptq"
            assert "bits" not in entries[-1]["ptq"], "qat has decided the widths"
            assert "place 3" not in parameters


def test_a_parameter_varies_only_where_it_is_read():
    for entries, _ in suggestions(space({"ptq": {"calibration": "auto", "percentile": "auto"}})):
        given = entries[0]["ptq"]
        assert ("percentile" in given) == (given["calibration"] == "percentile")


def test_ranges_keep_their_steps_and_types():
    of = space(
        {"prune_channels": {"ratio": {"low": 0.1, "high": 0.5, "step": 0.2}, "round_to": [4, 8]}},
        {
            "finetune": {
                "epochs": {"low": 1, "high": 3},
                "lr": {"low": 1e-3, "high": 1, "log": True},
            }
        },
    )
    for entries, _ in suggestions(of):
        pruned, trained = entries[0]["prune_channels"], entries[1]["finetune"]
        assert round(pruned["ratio"], 9) in (0.1, 0.3, 0.5)
        assert pruned["round_to"] in (4, 8)
        assert trained["epochs"] in (1, 2, 3)
        assert type(trained["epochs"]) is int
        assert 1e-3 <= trained["lr"] <= 1


@pytest.mark.parametrize(
    ("entries", "inside"),
    [
        ([{"ptq": {}}], True),
        ([{"ptq": {"bits": 4}}], True),
        ([{"ptq": {"bits": 3}}], False),
        ([{"ptq": {"correct_bias": False}}], False),
        ([{"half": {}}], True),
        ([{"half": {"dtype": "bf16"}}], False),
        ([{"qat": {"lr": 0.01}}], True),
        ([{"qat": {"lr": 0.01}}, {"ptq": {}}], True),
        ([{"qat": {"lr": 0.01, "bits": 8}}], False),
        ([{"prune_channels": {"ratio": 0.2}}, {"ptq": {}}], True),
        ([{"prune_channels": {"ratio": 0.25}}, {"ptq": {}}], False),
        ([{"dynamic_int8": {}}], False),
        ([], False),
    ],
)
def test_which_candidates_lie_in_the_space(entries, inside):
    parameters = space(*MIXED).encode(entries)
    assert (parameters is not None) == inside


def test_what_is_enqueued_comes_out():
    of = space(*MIXED)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    wanted = [{"prune_channels": {"ratio": 0.3}}, {"qat": {"lr": 0.02}}, {"ptq": {}}]
    study.enqueue_trial(of.encode(wanted) or {})
    made = of.suggest(study.ask())
    assert techniques.chain(made) == techniques.chain(wanted)


def test_a_technique_that_stands_twice_varies_under_two_names():
    of = space(
        {"prune_l1": {"ratio": [0.1, 0.2]}}, {"prune_l1": {"ratio": [0.6, 0.7]}}, {"ptq": {}}
    )
    assert set(of.domains()) == {"prune_l1.ratio", "prune_l1#2.ratio"}
    first, second = (e["prune_l1"]["ratio"] for e in suggestions(of, 1)[0][0][:2])
    assert first in (0.1, 0.2)
    assert second in (0.6, 0.7)


def test_the_automatic_space_holds_every_family_and_only_sound_chains():
    of = space(*search.automatic())
    assert of.problems() == []
    seen = set()
    for entries, parameters in suggestions(of, 200):
        chain = techniques.chain(entries)
        seen |= {name for entry in entries for name in entry}
        assert of.encode(entries) == parameters
        assert len(chain) == len(entries), "what ends the chain is written"
    wanted = {n for n in techniques.TABLE if techniques.find(n).traits.searched}
    assert seen == wanted | {"finetune"}
    assert not seen & {"prune_random", "dynamic_int8", "distil"}


def test_an_installed_technique_takes_part(monkeypatch):
    monkeypatch.setitem(techniques.TABLE, "clip", "own_techniques:Clip")
    of = space(*search.automatic())
    names = [{n for e in entries for n in e} for entries, _ in suggestions(of, 30)]
    assert any("clip" in each for each in names)
    assert not all("clip" in each for each in names)
    assert "clip.limit" in of.domains()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"ptqq": {}}], "search.space[0]: unknown technique 'ptqq'"),
        ([{"ptqq": {}}], "did you mean 'ptq'?"),
        ([{"ptq": {"bitz": [8]}}], "search.space[0].ptq.bitz: unknown key"),
        ([{"ptq": {"bits": [8, 5]}}], "search.space[0].ptq.bits: 5 is not allowed"),
        ([{"ptq": {"bits": []}}], "no value to choose from"),
        ([{"ptq": {"bits": [8, 8]}}], "a value stands there twice"),
        ([{"ptq": {"bits": {"low": 2, "high": 8}}}], "a range given; allowed: a list of these"),
        ([{"ptq": {"edges": "auto"}}], "the technique proposes nothing"),
        ([{"prune_l1": {"ratio": {"low": 0.1}}}], "ratio.high: is missing"),
        ([{"prune_l1": {"ratio": {"low": 0.5, "high": 0.1}}}], "low below high"),
        ([{"prune_l1": {"ratio": {"low": 0.1, "high": 1.5}}}], "1.5 is not allowed"),
        ([{"prune_l1": {"ratio": {"low": 0.1, "hgih": 0.5}}}], "did you mean 'high'?"),
        ([{"finetune": {"epochs": {"low": 1, "high": 4, "step": 0.5}}}], "step: 0.5"),
        ([{"prune_l1": {"ratio": {"low": 0.0, "high": 0.5, "log": True}}}], "low above 0"),
        ([{"ptq": {"bits": 8}}], "search.space: nothing varies"),
        ([], "no technique is given"),
        ([{"one_of": []}], "one_of: []"),
        ([{"one_of": [PRUNE], "ptq": {}}], "ptq beside one_of"),
        ([{"one_of": [PRUNE, PRUNE]}], "the same techniques stand there twice"),
        ([{"optional": "yes", **PRUNE}], "optional: 'yes' is not allowed"),
        (
            [{"ptq": {"bits": [8, 4]}}, PRUNE],
            "ptq is a deploy technique and stands before prune_l1",
        ),
        ([PRUNE, {"prune_channels": {"ratio": 0.3}}], "prune_channels before prune_l1"),
    ],
)
def test_faults_say_where_and_what_is_allowed(entries, message):
    found = problems(*entries)
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize("samples", [None, 1200, 50_000])
def test_every_starting_point_is_a_chain_of_the_automatic_space(samples):
    space = search.read(search.automatic(samples))
    assert isinstance(space, search.Space)
    begun = search.starts(samples)
    for entries in begun:
        parameters = space.encode(entries)
        assert parameters is not None, entries
        trial = optuna.trial.FixedTrial(parameters)
        assert techniques.chain(space.suggest(trial)) == techniques.chain(entries)
    named = {name for entries in begun for entry in entries for name in entry}
    proposing = {n for n in techniques.names() if techniques.find(n).traits.starts}
    assert proposing <= named


@pytest.mark.parametrize(
    ("samples", "batches"),
    [(50_000, {}), (1200, {"finetune": 32, "qat": 32}), (100, {"finetune": 16, "qat": 16})],
)
def test_few_samples_make_small_batches(samples, batches):
    found = {}
    for entry in search.automatic(samples):
        for each in entry.get("one_of", [entry]):
            for step in each if isinstance(each, list) else [each]:
                found |= {name: given.get("batch") for name, given in step.items()}
    assert {name: found[name] for name in ("finetune", "qat")} == {
        "finetune": None,
        "qat": None,
    } | batches


def test_a_function_of_ones_own_varies_by_its_signature():
    given = {"own_functions:shift": {"steps": {"low": 1, "high": 3}, "how": ["up", "down"]}}
    found = space(given, {"half": {}})
    given = [chain[0]["own_functions:shift"] for chain, _ in suggestions(found)]
    tried = {(each["steps"], each["how"]) for each in given}
    assert tried == {(n, how) for n in (1, 2, 3) for how in ("up", "down")}
    candidate = [{"own_functions:shift": {"steps": 2}}, {"half": {}}]
    assert found.encode(candidate) == {
        "own_functions:shift.steps": 2,
        "own_functions:shift.how": "up",
    }
    assert problems({"own_functions:shift": {"step": [1, 2]}})[0].startswith(
        "search.space[0].own_functions:shift.step: unknown key"
    )
