"""The baseline alone, and what decides whether it is trained again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from netzip_mlflow.errors import InputError
from netzip_mlflow.runs.baseline import prepare, training_digest
from netzip_mlflow.stages.train import train
from netzip_mlflow.tasks import open_task


@pytest.fixture(scope="module")
def task(compressed):
    return open_task("classification", compressed.recipe.data, compressed.recipe.seed)


@pytest.fixture(scope="module")
def trained(compressed):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(compressed.folder)
        patch.setenv("MLFLOW_TRACKING_URI", compressed.options.tracking_uri)
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        return train(compressed.recipe, compressed.options)


class TestCommand:
    def test_a_parent_of_its_own_kind_with_the_baseline_alone(self, compressed, trained):
        client = compressed.client
        child = client.get_run(trained.run.id)
        parent = client.get_run(child.data.tags["netzip.parent"])
        assert parent.data.tags["netzip.kind"] == "train"
        assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
        below = client.search_runs(
            [compressed.outcome.experiment_id], f"tags.`netzip.parent` = '{parent.info.run_id}'"
        )
        assert [r.info.run_name for r in below] == ["baseline"]

    def test_it_is_measured_whole_and_found_again(self, compressed, trained):
        found = compressed.client.get_run(trained.run.id).data
        first = compressed.runs["baseline"].data
        assert set(first.metrics) - set(found.metrics) == {
            key for key in first.metrics if key.startswith("training/")
        }
        assert found.tags["netzip.model_digest"] == first.tags["netzip.model_digest"]
        assert "netzip.reused_from" in found.tags


class TestDigest:
    @pytest.fixture
    def digest(self, compressed, task):
        base = compressed.recipe

        def of(**changes) -> str:
            changed = base.model_copy(
                update={
                    section: getattr(base, section).model_copy(update=values)
                    if isinstance(values, dict)
                    else values
                    for section, values in changes.items()
                }
            )
            return training_digest(changed, task, prepare(changed, task))

        return of

    @pytest.mark.parametrize(
        "changes", [{"train": {"epochs": 3}}, {"seed": 1}, {"model": {"name": "resnet8"}}]
    )
    def test_what_the_training_depends_on_changes_it(self, digest, changes):
        assert digest(**changes) != digest()

    @pytest.mark.parametrize(
        "changes",
        [{"name": "renamed"}, {"measure": {"threads": 2}}, {"score": {"speed": "latency"}}],
        ids=["name", "measure", "score"],
    )
    def test_what_comes_after_it_does_not(self, digest, changes):
        assert digest(**changes) == digest()

    def test_the_weights_count_and_not_where_they_lie(self, digest, compressed, task, tmp_path):
        from safetensors.torch import save_file

        def of(file: Path) -> str:
            return digest(model={"weights": str(file)})

        state = prepare(compressed.recipe, task).model.state_dict()
        other = {name: tensor + 1 for name, tensor in state.items()}
        files = [tmp_path / f"{name}.safetensors" for name in "abc"]
        for file, content in zip(files, (state, state, other), strict=True):
            save_file(content, file)
        assert of(files[0]) == of(files[1]) != of(files[2])


class TestPrepare:
    def changed(self, recipe, **model):
        return recipe.model_copy(update={"model": recipe.model.model_copy(update=model)})

    def test_one_seed_one_network(self, compressed, task):
        first, second = (prepare(compressed.recipe, task).digest() for _ in range(2))
        assert first == second
        other = prepare(compressed.recipe.model_copy(update={"seed": 1}), task)
        assert other.digest() != first

    def test_mean_and_deviation_are_the_training_splits(self, compressed, task):
        import numpy as np

        images = np.concatenate([x for x, _ in task.split("train").batches(500)])
        twin = prepare(compressed.recipe, task)
        assert twin.input.mean == (pytest.approx(float(images.mean()), abs=1e-4),)
        assert twin.input.std == (pytest.approx(float(images.std()), abs=1e-4),)

    def test_a_network_that_answers_with_another_shape(self, compressed, task):
        factory = self.changed(compressed.recipe, name=None, factory="five_classes:make")
        with pytest.raises(InputError, match=r"five_classes:make: answers 2 samples with \(2, 5\)"):
            prepare(factory, task)

    def test_one_mean_per_channel(self, compressed, task):
        wide = self.changed(compressed.recipe, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
        with pytest.raises(InputError, match=r"model\.mean: 3 values given .* 1 channels"):
            prepare(wide, task)

    def test_weights_of_another_network(self, compressed, task, tmp_path):
        from safetensors.numpy import save_file

        save_file({}, tmp_path / "none.safetensors")
        given = self.changed(compressed.recipe, weights=str(tmp_path / "none.safetensors"))
        with pytest.raises(InputError, match=r"none\.safetensors"):
            prepare(given, task)

    def test_a_twin_by_uri_starts_where_the_other_run_ended(self, inside, task):
        run = inside.runs["chain"].info.run_id
        given = self.changed(inside.recipe, name=None, uri=f"runs:/{run}")
        assert prepare(given, task).masks.keys()
        nowhere = self.changed(inside.recipe, name=None, uri="runs:/" + "0" * 32)
        with pytest.raises(InputError, match="no such run"):
            prepare(nowhere, task)

    def test_a_twin_by_uri_imports_nothing_that_the_recipe_does_not_allow(
        self, inside, task, tmp_path, monkeypatch
    ):
        (tmp_path / "left_behind.py").write_text("def make(num_classes):\n    raise LookupError\n")
        monkeypatch.syspath_prepend(tmp_path)
        run = inside.runs["chain"].info
        file = Path(run.artifact_uri.removeprefix("file://"), "twin", "twin.json")
        before = file.read_text()
        factory = {"kind": "factory", "name": "left_behind:make", "arguments": {"num_classes": 10}}
        given = self.changed(inside.recipe, name=None, uri=f"runs:/{run.run_id}")
        try:
            file.write_text(json.dumps(json.loads(before) | {"architecture": factory}))
            with pytest.raises(InputError, match=r"left_behind:make.*model\.allow"):
                prepare(given, task)
            assert "left_behind" not in sys.modules
            allowed = given.model.model_copy(update={"allow": ("left_behind:make",)})
            with pytest.raises(InputError, match=r"left_behind:make.*LookupError"):
                prepare(given.model_copy(update={"model": allowed}), task)
        finally:
            file.write_text(before)
            sys.modules.pop("left_behind", None)

    @pytest.fixture(autouse=True)
    def five_classes(self, tmp_path, monkeypatch):
        """A factory of the user's own that does not listen."""
        (tmp_path / "five_classes.py").write_text(
            "import torch\n"
            "def make(num_classes):\n"
            "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1024, 5))\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
