"""The starter recipe: valid as it stands, never over something of the user's."""

from __future__ import annotations

import pytest

from netzip_mlflow import data, models, recipe, tasks, techniques
from netzip_mlflow.errors import InputError
from netzip_mlflow.stages.init import STARTER, write


def test_what_it_writes_is_a_valid_recipe(tmp_path):
    file = tmp_path / "new" / "folder" / "recipe.yaml"
    write(file)
    checks = [data.check, models.check, tasks.check, techniques.check]
    loaded = recipe.load(file, checks=checks)
    assert len(loaded.candidates) >= 3
    assert any(len(chain) > 1 for chain in loaded.candidates.values())


def test_it_is_commented(tmp_path):
    assert sum("#" in line for line in STARTER.splitlines()) >= 8


def test_a_file_that_exists_is_left_alone(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("mine")
    with pytest.raises(InputError, match=r"recipe\.yaml: exists already"):
        write(file)
    assert file.read_text() == "mine"


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write(tmp_path / "file" / "recipe.yaml")
