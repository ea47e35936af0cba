"""What stands beside the package: MLproject, conda.yaml, pyproject.toml, recipes, in step."""

from __future__ import annotations

import re
import tomllib
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from netzip_mlflow import cli, data, models, recipe, tasks, techniques
from netzip_mlflow.cli.arguments import DEFAULT_RECIPE
from netzip_mlflow.signature import OutputSpec
from netzip_mlflow.stages.plan import plan
from netzip_mlflow.twin import Architecture

ROOT = Path(__file__).parent.parent
PROJECT = yaml.safe_load((ROOT / "MLproject").read_text())
CONDA = yaml.safe_load((ROOT / "conda.yaml").read_text())
PACKAGE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENTRIES: dict[str, dict[str, Any]] = PROJECT["entry_points"]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


# of the data sets that recipes name: classes, channels, and the side of an image as it comes
IMAGES = {
    "digits": (10, 1, 32),
    "npz": (10, 3, 32),
    "CIFAR10": (10, 3, 32),
    "ImageNet": (1000, 3, None),
    "Imagenette": (10, 3, None),
    "GTSRB": (43, 3, None),
    "imagefolder": (200, 3, 64),
}


def load(file: Path) -> recipe.Recipe:
    """As the command line does; data and weights need not be there."""
    rooms = [partial(data.check, files=False), partial(models.check, files=False)]
    return recipe.load(file, checks=[*rooms, tasks.check, techniques.check])


def options(command: str) -> set[str]:
    """The options that a command of ours really has."""
    group = typer.main.get_command(cli.app)
    found = group.commands[command]  # type: ignore[attr-defined]
    return {text for parameter in found.params for text in parameter.opts}


class TestMLproject:
    def test_its_environment_is_the_conda_file_alone(self):
        assert PROJECT["conda_env"] == "conda.yaml"
        assert not {"python_env", "docker_env"} & set(PROJECT), "only one is allowed"

    def test_the_entry_points_of_the_contract(self):
        assert {"main", "train", "compress", "search", "measure", "compare"} <= set(ENTRIES)
        assert ENTRIES["main"] == ENTRIES["compress"]

    @pytest.mark.parametrize("name", ENTRIES)
    def test_its_command_and_options_are_real(self, name):
        words = ENTRIES[name]["command"].split()
        assert words[:3] == ["python", "-m", "netzip_mlflow"]
        assert words[3] == ("compress" if name == "main" else name)
        pairs = list(zip(words[4::2], words[5::2], strict=True))
        assert pairs
        for option, value in pairs:
            assert option in options(words[3])
            assert value == "{" + option.removeprefix("--").replace("-", "_") + "}"

    @pytest.mark.parametrize("name", ENTRIES)
    def test_every_parameter_is_a_text_and_is_used(self, name):
        """A type other than string would put MLflow's message in place of ours."""
        entry = ENTRIES[name]
        used = re.findall(r"\{(\w+)\}", entry["command"])
        assert sorted(used) == sorted(entry["parameters"])
        assert {p["type"] for p in entry["parameters"].values()} == {"string"}

    def test_the_parameters_of_the_contract(self):
        given = {name: set(entry["parameters"]) for name, entry in ENTRIES.items()}
        assert {"recipe", "set", "only"} <= given["compress"]
        assert {"recipe", "set"} <= given["train"]
        assert {"model", "baseline", "recipe", "runtime"} <= given["measure"]
        assert {"runs", "experiment"} <= given["compare"]
        searching = {"trials", "timeout", "workers", "storage", "study", "engine"}
        assert {"recipe", "set", "max_drop_points"} | searching <= given["search"]

    @pytest.mark.parametrize("name", ["main", "compress", "train"])
    def test_the_default_recipe_is_there(self, name):
        default = ENTRIES[name]["parameters"]["recipe"]["default"]
        assert default == DEFAULT_RECIPE
        assert (ROOT / default).is_file()


class TestEnvironment:
    def test_conda_takes_a_python_that_the_package_allows(self):
        (wanted,) = (d for d in CONDA["dependencies"] if str(d).startswith("python="))
        given = tuple(int(part) for part in wanted.removeprefix("python=").split("."))
        least = re.fullmatch(r">=(\d+)\.(\d+)", PACKAGE["requires-python"])
        assert least is not None
        assert given >= tuple(int(part) for part in least.groups())

    def test_it_follows_the_checkout(self):
        """With a plain `.` MLflow would go on with an environment that holds the old source."""
        assert "pip" in CONDA["dependencies"]
        (pip,) = (d["pip"] for d in CONDA["dependencies"] if isinstance(d, dict))
        assert pip == ["-e ."]

    def test_one_name_and_one_version(self):
        assert PROJECT["name"] == CONDA["name"] == PACKAGE["name"] == "netzip-mlflow"
        assert version("netzip-mlflow") == PACKAGE["version"]

    def test_the_script_is_the_command_line(self):
        assert PACKAGE["scripts"] == {"netzip": "netzip_mlflow.cli:main"}


class TestRecipes:
    @pytest.fixture(autouse=True)
    def folders(self, monkeypatch, tmp_path):
        """Folders of data that are not there."""
        for name in ("NETZIP_DATA", "TINY_IMAGENET"):
            monkeypatch.setenv(name, str(tmp_path / name))

    @pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.name)
    def test_each_is_valid(self, file):
        loaded = load(file)
        assert loaded.candidates
        assert yaml.safe_load(loaded.to_yaml())["name"] == loaded.name

    @pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.name)
    def test_its_network_takes_its_images(self, file):
        loaded = load(file)
        classes, channels, side = IMAGES[loaded.data.name or ""]
        side = loaded.data.size or side
        assert side is not None, "images of many sizes need data.size"
        arguments = {"num_classes": classes, **loaded.model.arguments}
        architecture = Architecture("name", loaded.model.name or "", arguments)
        architecture.build((channels, side, side), OutputSpec.of(scores=(classes,)))

    def test_the_documentation_lists_them(self):
        page = (ROOT / "docs" / "recipes.md").read_text()
        listed = re.findall(r"^\| `(\w+\.yaml)` \|", page, re.MULTILINE)
        assert sorted(listed) == [file.name for file in RECIPES]

    @pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.name)
    def test_each_says_what_it_is(self, file):
        assert file.read_text().startswith("# ")

    def test_the_default_shows_what_there_is(self):
        """Six candidates from at least four techniques, chains among them (issue 9, "Speed")."""
        loaded = load(ROOT / DEFAULT_RECIPE)
        used = {name for chain in loaded.candidates.values() for entry in chain for name in entry}
        assert len(loaded.candidates) >= 6
        assert len(used) >= 4
        assert any(len(chain) > 1 for chain in loaded.candidates.values())

    def test_the_default_can_be_planned(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        loaded = load(ROOT / DEFAULT_RECIPE)
        found = plan(loaded)
        assert len(found.steps) >= len(loaded.candidates) + 3
        assert list(tmp_path.iterdir()) == []

    def test_the_real_images_can_be_planned(self, data_folder, monkeypatch):
        monkeypatch.setenv("NETZIP_DATA", str(data_folder))
        loaded = load(ROOT / "recipes" / "resnet20_cifar10.yaml")
        found = plan(loaded)
        assert found.missing == ()
        steps = [step for step, _ in found.steps]
        assert not any(step.startswith("train ") for step in steps), "its weights are given"
        assert any(step.startswith("ptq: ") for step in steps)
