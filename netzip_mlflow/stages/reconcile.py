"""MLflow's runs of a search as Optuna's database, which is the truth, has its trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netzip_mlflow.search import told

if TYPE_CHECKING:
    import optuna

    from netzip_mlflow.stages.job import Job

__all__ = ["end_runs", "take_over"]


def take_over(work: Job, study: optuna.Study, baseline: str) -> None:
    """Have the runs of an earlier part of the search stand below this one, as the database has
    them: a process that was killed may have told the one and not the other."""
    for trial in study.get_trials(deepcopy=False):
        if trial.user_attrs.get(told.RUN) and trial.state.is_finished():
            status = "FINISHED" if told.made(trial) else ""
            work.run.adopt(trial.user_attrs[told.RUN], status, {"netzip.baseline": baseline})


def end_runs(work: Job, study: optuna.Study) -> None:
    """End the runs whose worker died, as the database has them."""
    trials = study.get_trials(deepcopy=False)
    known = {t.user_attrs[told.RUN]: t for t in trials if told.RUN in t.user_attrs}
    of = f"tags.`netzip.parent` = '{work.run.id}' AND tags.`netzip.kind` = 'trial'"

    def call() -> None:
        client, home = work.run.client, work.run.experiment_id
        for run in client.search_runs([home], f"attributes.status = 'RUNNING' AND {of}"):
            trial = known.get(run.info.run_id)
            if trial is None or trial.state.is_finished():
                made = trial is not None and told.made(trial)
                client.set_terminated(run.info.run_id, "FINISHED" if made else "KILLED")

    work.run.deferred(call)
