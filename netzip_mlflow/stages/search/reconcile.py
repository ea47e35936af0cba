"""MLflow's runs of a search as Optuna's database, which is the truth, has its trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netzip_mlflow.search import records

if TYPE_CHECKING:
    import optuna

    from netzip_mlflow.runs.job import Job

__all__ = ["end_runs", "take_over"]


def take_over(work: Job, study: optuna.Study, baseline: str) -> None:
    """Have the runs of an earlier part of the search stand below this one, as the database has
    them: a process that was killed may have told the one and not the other."""
    for trial in study.get_trials(deepcopy=False):
        if trial.user_attrs.get(records.RUN) and trial.state.is_finished():
            status = "FINISHED" if records.made(trial) else ""
            work.run.adopt(trial.user_attrs[records.RUN], status, {"netzip.baseline": baseline})


def end_runs(work: Job, study: optuna.Study) -> None:
    """End the runs whose worker died, as the database has them."""
    statuses = {}
    for trial in study.get_trials(deepcopy=False):
        if run := trial.user_attrs.get(records.RUN):
            status = "FINISHED" if records.made(trial) else "KILLED"
            statuses[run] = status if trial.state.is_finished() else "RUNNING"
    work.run.end_trials(statuses)
