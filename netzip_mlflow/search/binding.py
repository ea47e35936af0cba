"""What a study's figures depend on, as named parts: a refusal says which of them changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from netzip_mlflow.errors import InputError, Problem
from netzip_mlflow.search.leader import claim, led, resign
from netzip_mlflow.search.study import reclaim

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage

__all__ = ["PACKAGE", "bind", "bind_baseline", "start_over"]

PARTS = "netzip.depends_on"
PACKAGE, BASELINE = "netzip-mlflow", "baseline"
CHANGES = {
    "recipe": "another recipe, or other overrides",
    "data": "other data",
    "weights": "other weights",
    BASELINE: "another baseline",
    PACKAGE: "another version of netzip-mlflow's code",
}


def bind(study: optuna.Study, parts: Mapping[str, str]) -> None:
    """Have a study belong to what its figures depend on. One that has no trial, and that nobody
    leads, may be bound again: to what a first try was wrong about.

    Args:
        parts: digests by name: those of `CHANGES`, and code of the user's by `module:function`.

    Raises:
        InputError: it belongs to something else; its trials do not compare.
    """
    bound = study.user_attrs.get(PARTS)
    if not study.get_trials(deepcopy=False) and not led(study):
        study.set_user_attr(PARTS, dict(parts))
        return
    if bound is None:
        began = "an earlier version of netzip-mlflow, or something else, has begun it"
        raise _refused(study, f"does not say what its figures depend on: {began}")
    _compare(study, bound, {BASELINE: bound.get(BASELINE, ""), **parts})


def bind_baseline(study: optuna.Study, digest: str) -> None:
    """The same of the twin that every trial starts from and is held against.

    Raises:
        InputError: trials that have figures were held against another one.
    """
    from optuna.trial import TrialState

    bound = study.user_attrs[PARTS]
    figures = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    if BASELINE in bound and study.get_trials(deepcopy=False, states=figures):
        _compare(study, bound, {**bound, BASELINE: digest})
    study.set_user_attr(PARTS, {**bound, BASELINE: digest})


def start_over(storage: RDBStorage, name: str) -> None:
    """Forget a study, if there is one; its trials' runs in MLflow stay.

    Raises:
        InputError: a process leads it, or makes one of its trials.
    """
    import optuna

    try:
        study = optuna.load_study(storage=storage, study_name=name)
        busy = led(study) or not claim(study)
        if not busy and not reclaim(study).running:
            optuna.delete_study(storage=storage, study_name=name)
            return
        if not busy:
            resign(study)
    except KeyError:  # there is none, or another process has just started it over
        return
    what = "another process leads it" if busy else "another process makes one of its trials"
    raise InputError(
        Problem("--restart", f"study {name!r}: {what}", "a study that nobody works on")
    )


def _compare(study: optuna.Study, bound: Mapping[str, str], parts: Mapping[str, str]) -> None:
    names = [*CHANGES, *sorted({*bound, *parts} - {*CHANGES})]
    changed = [name for name in names if bound.get(name, "") != parts.get(name, "")]
    if changed:
        other = " and with ".join(CHANGES.get(name, f"other code of {name}") for name in changed)
        raise _refused(study, f"was begun with {other}: its trials do not compare with new ones")


def _refused(study: optuna.Study, what: str) -> InputError:
    hint = "--restart forgets its trials and begins it again"
    return InputError(
        Problem(f"study {study.study_name!r}", what, "the same, or another name", hint)
    )
