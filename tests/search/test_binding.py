"""What a study belongs to, in a real database."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from netzip_mlflow import processes
from netzip_mlflow.errors import InputError
from netzip_mlflow.search import leader
from netzip_mlflow.search import study as studies
from netzip_mlflow.search.binding import bind, bind_baseline, start_over

PARTS = {"recipe": "r", "data": "d", "weights": "", "netzip-mlflow": "c", "lamps:broken": "l"}


@pytest.fixture
def storage(tmp_path: Path) -> optuna.storages.RDBStorage:
    return studies.open_storage(f"sqlite:///{tmp_path / 's.db'}")


@pytest.fixture
def study(storage: optuna.storages.RDBStorage) -> optuna.Study:
    """With two trials that wait."""
    made = studies.create(storage, "s")
    bind(made, PARTS)
    studies.plan(made, 2)
    return made


def end_one(study: optuna.Study) -> None:
    with pytest.warns(UserWarning, match="Heartbeat"):
        study.tell(study.ask(), 1.0)


def test_the_same_goes_on(study):
    bind(study, PARTS)
    bind_baseline(study, "b")
    end_one(study)
    bind(study, PARTS)
    bind_baseline(study, "b")


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("recipe", "another recipe, or other overrides"),
        ("data", "other data"),
        ("weights", "other weights"),
        ("netzip-mlflow", "version of netzip-mlflow"),
        ("lamps:broken", "other code of lamps:broken"),
    ],
)
def test_the_part_that_changed_is_named_and_no_other(study, part, said):
    with pytest.raises(InputError, match=said) as refused:
        bind(study, PARTS | {part: "changed"})
    assert "and with" not in str(refused.value)
    assert "--restart" in str(refused.value)
    bind(study, PARTS)


def test_all_that_changed_is_named(study):
    less = {name: digest for name, digest in PARTS.items() if name != "lamps:broken"}
    with pytest.raises(InputError, match="other data and with other code of lamps:broken"):
        bind(study, less | {"data": "changed"})


def test_a_study_without_trials_may_be_bound_again_unless_it_is_led(storage):
    """The first try may have failed at its weights, before anything was made."""
    study = studies.create(storage, "s")
    bind(study, PARTS | {"weights": "too small"})
    bind(study, PARTS)
    with leader.leading(study), pytest.raises(InputError, match="other weights"):
        bind(study, PARTS | {"weights": "too small"})


def test_a_study_that_does_not_say_it_is_refused(storage):
    study = studies.create(storage, "s")
    study.set_user_attr("netzip.recipe", "0123456789abcdef")  # all that was kept before
    studies.plan(study, 1)
    with pytest.raises(InputError, match="does not say what its figures depend on"):
        bind(study, PARTS)


def test_another_baseline_is_refused_once_there_are_figures(study):
    bind_baseline(study, "b")
    bind_baseline(study, "trained again, before any trial")
    end_one(study)
    with pytest.raises(InputError, match="another baseline"):
        bind_baseline(study, "b")
    bind(study, PARTS)


def test_starting_over_forgets_the_trials(storage, study):
    end_one(study)
    start_over(storage, "s")
    again = studies.create(storage, "s")
    assert again.trials == []
    bind(again, PARTS | {"data": "changed"})
    start_over(storage, "none of that name")


def test_a_study_that_someone_works_on_is_not_started_over(storage, study):
    with leader.leading(study), pytest.raises(InputError, match="another process leads it"):
        start_over(storage, "s")
    with pytest.warns(UserWarning, match="Heartbeat"):
        study.ask().set_user_attr(studies.OWNER, processes.me())
    with pytest.raises(InputError, match="makes one of its trials"):
        start_over(storage, "s")
    assert len(study.trials) == 2
    assert not leader.led(study), "whoever was refused has not claimed it"
