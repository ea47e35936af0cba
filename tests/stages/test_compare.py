"""Comparing runs that lie in a store: groups, the choice, the published views, bad requests."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace

import pytest
from matplotlib.figure import Figure

from netzip_mlflow.errors import InputError
from netzip_mlflow.report import plots
from netzip_mlflow.stages.compare import compare

pytestmark = pytest.mark.usefixtures("no_pictures")
VIEWS = ("netzip-overview", "netzip-trade-offs")


def view(client, experiment_id: str, name: str) -> dict:
    """A saved view as MLflow's page reads it."""
    tags = client.get_experiment(experiment_id).tags
    found = json.loads(tags[f"mlflow.sharedViewState.{name}"])
    packed = base64.b64decode(found["state"].removeprefix("deflate;"))
    return found | {"state": json.loads(zlib.decompress(packed))}


def selected(client, experiment_id: str, name: str) -> set[str]:
    """The names of the runs that a view's filter leaves over."""
    wanted = view(client, experiment_id, name)["state"]["searchFilter"]
    return {r.info.run_name or "" for r in client.search_runs([experiment_id], wanted)}


def compared(where: str = "", runs=(), *, of, **changes):
    """Compare in the store of a compress run, into an experiment of its own."""
    options = replace(of.options, experiment="comparisons")
    return compare(options, runs, where, source="stages", **changes)


def names(groups) -> list[list[str]]:
    return [list(frame["name"]) for frame, _ in groups]


def copy_run(client, run, experiment_id: str, tags: dict, metrics: dict | None = None) -> str:
    """A finished run like another one, with changed tags and metrics; a baseline is its own."""
    from mlflow.entities import Metric

    made = client.create_run(experiment_id, tags=run.data.tags | tags)
    if run.data.tags["netzip.kind"] == "baseline" and "netzip.baseline" not in tags:
        client.set_tag(made.info.run_id, "netzip.baseline", made.info.run_id)
    values = run.data.metrics | (metrics or {})
    client.log_batch(made.info.run_id, [Metric(k, v, 0, 0) for k, v in values.items()])
    client.set_terminated(made.info.run_id, "FINISHED")
    return made.info.run_id


class TestGroups:
    def test_runs_on_another_basis_never_share_a_table(self, inside, again):
        _, groups = compared(of=inside)
        assert names(groups) == [["baseline", "int8", "chain"], ["baseline", "int8"]]
        for frame, choice in groups:
            bases = {
                inside.client.get_run(run).data.tags["netzip.basis"] for run in frame["run_id"]
            }
            assert len(bases) == 1
            assert choice.best in set(frame["name"]) - {"baseline"}

    def test_each_group_has_its_own_artifacts(self, inside, again, monkeypatch):
        monkeypatch.setattr(plots, "figures", lambda _frame, best: {"radar": Figure()})
        run_id, _ = compared(of=inside)
        files = inside.files(run_id)
        wanted = ("comparison.csv", "report.html", "plots/radar.svg", "plots/radar.png")
        assert files == {f"group-{n}/{file}" for n in (1, 2) for file in wanted}
        run = inside.client.get_run(run_id)
        assert (run.data.tags["netzip.kind"], run.info.status) == ("compare", "FINISHED")

    def test_several_groups_have_no_best_of_all_and_one_note(self, inside, again, monkeypatch):
        def figures(frame, best):
            if len(frame) == 2:
                raise RuntimeError("the ink is dry")
            return {}

        monkeypatch.setattr(plots, "figures", figures)
        run_id, ((_, first), (_, second)) = compared(of=inside)
        tags = inside.client.get_run(run_id).data.tags
        assert tags["netzip.best"] == ""
        before, of_first, of_second = tags["mlflow.note.content"].split("### ")
        assert before.strip() == tags["netzip.reason"]
        assert f"**best: {first.best}**" in of_first
        assert f"**best: {second.best}**" in of_second
        assert "Not made" not in of_first
        assert "- `group-2/plots`: RuntimeError: the ink is dry" in of_second

    @pytest.mark.parametrize(
        ("tag", "other"),
        [
            ("basis", "accuracy=top1 speed=latency size=disk zeta=1 lambdas=1,1,1,1"),
            ("terms", "P,S,C,E"),
            ("fingerprint", "0123456789ab"),
        ],
    )
    def test_each_of_the_tags_sets_runs_apart(self, inside, tag, other):
        """Each group has only the runs of one value, even where both name one baseline."""
        home = inside.client.create_experiment(f"apart-by-{tag}")
        origin = copy_run(inside.client, inside.runs["baseline"], home, {})
        of_it = {"netzip.baseline": origin}
        copy_run(inside.client, inside.runs["int8"], home, of_it)
        copy_run(inside.client, inside.runs["chain"], home, of_it | {f"netzip.{tag}": other})
        options = replace(inside.options, experiment="comparisons")
        _, groups = compare(options, source=f"apart-by-{tag}")
        assert names(groups) == [["baseline", "int8"]]

    def test_failed_and_unscored_runs_are_left_out(self, inside):
        parent = inside.outcome.run_id
        _, groups = compared(runs=[parent], of=inside)
        assert names(groups) == [["baseline", "int8", "chain"]]


class TestRequests:
    def test_a_candidate_brings_its_baseline_along(self, inside):
        run = inside.runs["chain"].info.run_id
        _, ((frame, choice),) = compared(runs=[run], of=inside)
        assert list(frame["name"]) == ["baseline", "chain"]
        assert choice.best == "chain"

    def test_a_run_given_twice_stands_there_once(self, inside):
        ids = [inside.runs[n].info.run_id for n in ("chain", "baseline", "chain")]
        _, ((frame, _),) = compared(runs=[*ids, inside.outcome.run_id], of=inside)
        assert sorted(frame["name"]) == ["baseline", "chain", "int8"]

    @pytest.mark.parametrize("kind", ["", " AND tags.`netzip.kind` = 'candidate'"])
    def test_a_filter_whose_candidates_bring_their_baseline(self, inside, again, kind):
        where = "tags.`netzip.basis` LIKE '%speed=latency%'" + kind
        _, groups = compared(where, of=inside)
        assert names(groups) == [["baseline", "int8"]]

    @pytest.mark.parametrize(
        ("request_", "says"),
        [
            ({"runs": ["0" * 32]}, "--runs"),
            ({"where": "metrics.`score/ocs` >"}, "--filter"),
            ({"where": "tags.`netzip.kind` = 'nothing'"}, "nothing to compare"),
            ({"source": "stagse"}, "did you mean 'stages'"),
            ({"source": "424242"}, "--experiment"),
        ],
        ids=["run", "filter", "nothing", "experiment", "experiment id"],
    )
    def test_what_is_not_there_is_bad_input_and_leaves_no_run(self, inside, request_, says):
        client = inside.client
        before = {e.name for e in client.search_experiments()}
        options = replace(inside.options, experiment="untouched")
        with pytest.raises(InputError) as caught:
            compare(options, **({"source": "stages"} | request_))
        assert says in str(caught.value)
        found = client.get_experiment_by_name("untouched")
        assert found is None or client.search_runs([found.experiment_id]) == []
        assert {e.name for e in client.search_experiments()} - before <= {"untouched"}


class TestChoice:
    def test_the_baseline_is_never_the_best(self, inside):
        """A group of measurements has its baseline among runs of one kind."""
        home = inside.client.create_experiment("measured")
        measured = {"netzip.kind": "measurement"}
        origin = copy_run(inside.client, inside.runs["baseline"], home, measured)
        measured["netzip.baseline"] = origin
        poor = {"validation/score/feasible": 0.0}
        copy_run(inside.client, inside.runs["int8"], home, measured, poor)
        _, ((frame, choice),) = compare(
            replace(inside.options, experiment="comparisons"), source="measured"
        )
        assert list(frame["name"]) == ["baseline", "int8"]
        assert choice.best is None
        assert choice.least_violating == "int8"

    def test_what_was_not_judged_is_not_chosen(self, inside):
        home, origin = inside.client.create_experiment("tables"), ""
        for name, ocs in (("None (FP32)", 0.0), ("PTQ (INT8)", 4.7)):
            run = inside.client.create_run(
                home,
                run_name=name,
                tags={"netzip.kind": "scored"},
            )
            origin = origin or run.info.run_id
            inside.client.set_tag(run.info.run_id, "netzip.baseline", origin)
            for key, value in {"score/ocs": ocs, "ratio/P": 1.0, "accuracy/top1": 0.7}.items():
                inside.client.log_metric(run.info.run_id, key, value)
            inside.client.set_terminated(run.info.run_id)
        _, ((frame, choice),) = compare(
            replace(inside.options, experiment="comparisons"), source="tables"
        )
        assert list(frame["name"]) == ["None (FP32)", "PTQ (INT8)"]
        assert choice.best is None


class TestViews:
    def test_both_are_offered_and_linked(self, compressed):
        client, home = compressed.client, compressed.outcome.experiment_id
        notes = (
            client.get_experiment(home).tags["mlflow.note.content"],
            compressed.parent.data.tags["mlflow.note.content"],
        )
        for name in VIEWS:
            assert view(client, home, name)["name"]
            for note in notes:
                assert f"#/experiments/{home}/runs?viewStateShareKey={name}&" in note

    def test_they_show_one_group_and_no_parents(self, inside):
        client, home = inside.client, inside.outcome.experiment_id
        compare(inside.options, [inside.outcome.run_id])
        for name in VIEWS:
            assert selected(client, home, name) == {"baseline", "int8", "chain"}

    def test_publishing_again_overwrites(self, inside, again):
        client, home = inside.client, inside.outcome.experiment_id
        compare(inside.options, [inside.outcome.run_id])
        before = {name: view(client, home, name) for name in VIEWS}
        compare(inside.options, [again.outcome.run_id])
        after = {name: view(client, home, name) for name in VIEWS}
        tags = client.get_experiment(home).tags
        published = [key for key in tags if key.startswith("mlflow.sharedViewState.")]
        assert len(published) == len(VIEWS)
        for name in VIEWS:
            assert after[name]["updatedAt"] > before[name]["updatedAt"]
            assert after[name]["state"]["searchFilter"] != before[name]["state"]["searchFilter"]
            assert selected(client, home, name) == {"baseline", "int8"}
