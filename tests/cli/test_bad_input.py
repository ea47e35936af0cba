"""Bad input: one clear message, status 2, and nothing left behind."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from netzip_mlflow import models


class TestBadRecipe:
    """Each is one message with status 2, before a store is touched."""

    @pytest.fixture
    def refused(self, netzip, recipe, place):
        def run(*arguments: object) -> str:
            ended = netzip("compress", *arguments)
            assert ended.status == 2
            assert ended.out == ""
            assert ended.err.startswith("netzip: ")
            assert not (place / "mlflow.db").exists()
            return ended.err

        return run

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ("train.epoch=3", ["train.epoch: unknown key", "mean 'epochs'?"]),
            ("train.epochs=many", ["train.epochs: 'many' is not allowed", "integer"]),
            ("train.epochs=0", ["train.epochs: 0 is not allowed", "greater than or equal to 1"]),
            ("score.speed=warp", ["score.speed: 'warp'", "'chats'", "'latency'"]),
            ("score.accuracy=map50", ["score.accuracy: 'map50'", "top1"]),
            ("task=clasification", ["unknown task", "mean 'classification'?"]),
            ("data.name=nzp", ["data", "'nzp'", "mean 'npz'?"]),
            ("model={name: resnet9}", ["'resnet9'", "resnet8"]),
            ("candidates.ruined=[ptqq]", ["candidates.ruined[0]", "'ptqq'", "mean 'ptq'?"]),
            (
                "candidates.ruined=[{prune_l1: {ratio: 1.5}}]",
                ["candidates.ruined[0].prune_l1.ratio: 1.5 is not allowed", "from 0"],
            ),
            (
                "candidates.ruined=[{prune_l1: {ration: 0.5}}]",
                ["prune_l1.ration: unknown key", "mean 'ratio'?"],
            ),
            (
                "candidates.ruined=[{ptq: {bits: 5}}]",
                ["ruined[0].ptq.bits: 5 is not allowed; allowed: 8 | 4 | 3 | 2 | ternary"],
            ),
            (
                "candidates.ruined=[{qat: {bits: 1, edges: 16}}]",
                ["ruined[0].qat.bits: 1 is not allowed", "ruined[0].qat.edges: 16 is not allowed"],
            ),
            (
                "candidates.ruined=[{half: {dtype: fp8}}]",
                ["ruined[0].half.dtype: 'fp8' is not allowed; allowed: fp16 | bf16"],
            ),
            (
                "candidates.ruined=[{factorise: {ratio: 0}}]",
                ["ruined[0].factorise.ratio: 0 is not allowed", "from 0.01 to 1"],
            ),
            ("candidates.ruined=[ptq, prune_l1]", ["ptq is a deploy technique", "prune_l1"]),
            ("candidates.ruined=[ptq, half]", ["ptq is a deploy technique", "half"]),
            ("candidates.baseline=[half]", ["candidates.baseline: the name is reserved"]),
            ("candidates={'A (1)': [half]}", ["A (1)", "letters a-z"]),
            ("data.path=${NOWHERE_SET}/x.npz", ["data.path", "NOWHERE_SET", "is not set"]),
            ("train=null", ["a model without weights needs a train section"]),
            ("train.epochs", ["--set 'train.epochs': must be key.path=value"]),
            ("train.epochs=[", ["--set 'train.epochs=['", "not valid YAML"]),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_a_key_type_value_or_name(self, refused, change, says):
        said = refused("recipe.yaml", "--set", change)
        for part in says:
            assert part in said

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("name: [", "is not valid YAML"),
            ("", "must be a mapping of keys"),
            ("- one\n- two\n", "must be a mapping of keys"),
            ("name: a\nname: b\n", "is not valid YAML: key 'name' is given twice"),
            ("name: only\n", "data: is missing"),
        ],
    )
    def test_a_file_that_is_no_recipe(self, refused, content, says):
        Path("odd.yaml").write_text(content)
        assert f"odd.yaml: {says}" in refused("odd.yaml")

    def test_a_file_that_is_not_there(self, refused):
        said = refused("recpie.yaml")
        assert "recpie.yaml: no such file" in said
        assert "did you mean 'recipe.yaml'?" in said

    def test_a_technique_whose_module_fails(self, refused):
        Path("ruined_here.py").write_text("SHARE = 1 / 0\n")
        said = refused("recipe.yaml", "--set", "candidates.ruined=['ruined_here:f']")
        assert "candidates.ruined[0]: ruined_here cannot be imported: ZeroDivisionError" in said
        assert "(ruined_here.py, line 1)" in said

    def test_everything_at_once(self, refused):
        said = refused("recipe.yaml", "--set", "train.epochs=0", "--set", "score.zeta=-1")
        assert "train.epochs" in said
        assert "score.zeta" in said

    @pytest.mark.parametrize(
        ("option", "value", "says"),
        [("--seed", -1, "seed: -1"), ("--threads", 0, "measure.threads: 0")],
    )
    def test_options_are_held_to_the_recipes_bounds(self, refused, option, value, says):
        assert says in refused("recipe.yaml", option, value)

    def test_validate_says_the_same(self, netzip, recipe, refused):
        ended = netzip("validate", recipe, "--set", "train.epoch=3")
        assert (ended.status, ended.out) == (2, "")
        assert ended.err == refused("recipe.yaml", "--set", "train.epoch=3")


class TestBadData:
    """Found when data and network are read: status 2, and no run."""

    @pytest.fixture
    def refused(self, netzip, recipe, store):
        def run(*arguments: object) -> str:
            ended = netzip("compress", "recipe.yaml", *arguments)
            assert (ended.status, ended.out) == (2, "")
            assert store.all_runs() == []
            assert not store.get_experiment_by_name("netzip")
            return ended.err

        return run

    def save(self, arrays: dict, **changes: np.ndarray) -> None:
        np.savez("stripes.npz", **(arrays | changes))

    def test_data_that_are_not_there(self, refused):
        assert "nothing.npz" in refused("--set", "data.path=nothing.npz")

    def test_splits_that_overlap(self, refused, arrays):
        doubled = np.concatenate([arrays["x_train"][:2], arrays["x_test"][2:]])
        self.save(arrays, x_test=doubled)
        said = refused()
        assert "test" in said
        assert "train" in said
        assert "data.duplicates: drop" in said

    def test_a_class_that_is_missing(self, refused, arrays):
        keep = arrays["y_test"] != 2
        self.save(arrays, x_test=arrays["x_test"][keep], y_test=arrays["y_test"][keep])
        said = refused()
        assert "class" in said
        assert "2" in said
        assert "test" in said

    def test_images_and_labels_of_different_counts(self, refused, arrays):
        self.save(arrays, y_test=arrays["y_test"][:-1])
        said = refused()
        assert "120" in said
        assert "119" in said

    def test_images_of_another_shape(self, refused, arrays):
        self.save(arrays, x_test=arrays["x_test"][:, :8])
        said = refused()
        assert "train (3, 12, 12)" in said
        assert "test (3, 8, 12)" in said

    def test_images_of_a_size_that_the_network_does_not_take(self, refused, arrays):
        """The calibration split is a part of train: its shape is that of the data."""
        changes = ("model={name: lenet5}", "data={name: digits, size: 8, test: 0.2}")
        said = refused(*(word for change in changes for word in ("--set", change)))
        assert "model" in said
        assert "8x8" in said

    def test_images_of_too_many_axes(self, refused, arrays):
        self.save(arrays, x_train=arrays["x_train"][:, None])
        said = refused()
        assert "stripes.npz: x_train: has shape (320, 1, 12, 12, 3)" in said
        assert "(n, H, W, C) or (n, H, W)" in said

    def test_channels_that_do_not_come_last(self, refused, arrays):
        self.save(arrays, x_train=np.moveaxis(arrays["x_train"], -1, 1))
        assert "channels come last" in refused()

    def test_more_calibration_images_than_there_are(self, refused):
        said = refused("--set", "data.calibration=4000")
        assert "data.calibration: 4000 of 256 samples; allowed: 1 to 256" in said

    def test_images_that_are_no_pixels(self, refused, arrays):
        self.save(arrays, x_train=arrays["x_train"].astype(np.float64))
        said = refused()
        assert "float64" in said
        assert "uint8" in said

    def test_a_network_of_another_number_of_channels(self, refused):
        said = refused("--set", "model={name: resnet18}", "--set", "data={name: digits, test: 0.2}")
        assert "3 channels" in said

    def test_a_factory_that_is_not_there(self, refused):
        said = refused("--set", "model.factory=tiny_networks:tinny")
        assert "has no function 'tinny'" in said
        assert "did you mean 'tiny'?" in said

    @pytest.mark.parametrize("key", ["model", "data"])
    def test_a_factory_whose_module_fails(self, refused, key):
        Path("ruined_here.py").write_text("SHARE = 1 / 0\n")
        said = refused("--set", f"{key}={{factory: 'ruined_here:make'}}")
        assert f"{key}.factory: ruined_here cannot be imported: ZeroDivisionError" in said
        assert "(ruined_here.py, line 1)" in said

    def test_weights_that_are_a_pickle(self, refused):
        Path("weights.pt").write_bytes(pickle.dumps({"conv1.weight": [1.0]}))
        said = refused("--set", "model.weights=weights.pt")
        assert "weights.pt" in said
        assert "pickle" in said

    def test_weights_that_are_not_there(self, refused):
        assert "none.safetensors" in refused("--set", "model.weights=none.safetensors")

    def test_weights_of_another_network(self, refused):
        from safetensors.torch import save_file

        other = models.build("lenet5", (3, 32, 32), {"num_classes": 4})
        save_file(other.state_dict(), "other.safetensors")
        said = refused("--set", "model.weights=other.safetensors")
        assert "other.safetensors" in said
        assert "conv1.weight" in said

    def test_a_candidate_that_the_recipe_has_not(self, refused):
        said = refused("--only", "ruind")
        assert "--only: 'ruind'" in said
        assert "did you mean 'ruined'?" in said
