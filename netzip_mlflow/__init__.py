"""netzip-mlflow: compress a trained network, measure what ships, score it, compare it in MLflow.

The names below are the public API; each is imported at its first use, so that
`import netzip_mlflow` loads neither torch nor mlflow.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netzip_mlflow.deployable import Deployable
    from netzip_mlflow.errors import InputError, NetzipError
    from netzip_mlflow.recipe import MeasureSpec, Recipe, ScoreSpec
    from netzip_mlflow.recipe import load as load_recipe
    from netzip_mlflow.scoring import Basis, read_table, score_table
    from netzip_mlflow.signature import OutputSpec
    from netzip_mlflow.stages.evaluate import evaluate, visualise
    from netzip_mlflow.tasks.classification import Classification
    from netzip_mlflow.tasks.task_base import TaskBase
    from netzip_mlflow.techniques import Context, Technique, Traits, parameter
    from netzip_mlflow.techniques.binarise import Binarise
    from netzip_mlflow.techniques.distil import Distil
    from netzip_mlflow.techniques.dynamic_int8 import DynamicInt8
    from netzip_mlflow.techniques.factorise import Factorise
    from netzip_mlflow.techniques.finetune import Finetune
    from netzip_mlflow.techniques.fp32 import deploy
    from netzip_mlflow.techniques.half import Half
    from netzip_mlflow.techniques.prune_channels import PruneChannels
    from netzip_mlflow.techniques.prune_l1 import PruneL1
    from netzip_mlflow.techniques.prune_random import PruneRandom
    from netzip_mlflow.techniques.ptq import PTQ
    from netzip_mlflow.techniques.qat import QAT
    from netzip_mlflow.techniques.share_kernels import ShareKernels
    from netzip_mlflow.twin import Twin

# Libraries that report to their makers unless told not to, which they ask when they are imported;
# here, since whatever of ours imports them has imported this. A user's own choice stands.
for _switch, _off in (
    ("ORT_DISABLE_TELEMETRY", "1"),
    ("MLFLOW_DISABLE_TELEMETRY", "true"),
    ("RAY_USAGE_STATS_ENABLED", "0"),
):
    if not os.environ.get(_switch):
        os.environ[_switch] = _off

_HOMES = {
    "Basis": "scoring",
    "Binarise": "techniques.binarise",
    "Classification": "tasks.classification",
    "Context": "techniques",
    "Deployable": "deployable",
    "Distil": "techniques.distil",
    "DynamicInt8": "techniques.dynamic_int8",
    "Factorise": "techniques.factorise",
    "Finetune": "techniques.finetune",
    "Half": "techniques.half",
    "InputError": "errors",
    "MeasureSpec": "recipe",
    "NetzipError": "errors",
    "OutputSpec": "signature",
    "PTQ": "techniques.ptq",
    "PruneChannels": "techniques.prune_channels",
    "PruneL1": "techniques.prune_l1",
    "PruneRandom": "techniques.prune_random",
    "QAT": "techniques.qat",
    "Recipe": "recipe",
    "ScoreSpec": "recipe",
    "ShareKernels": "techniques.share_kernels",
    "TaskBase": "tasks.task_base",
    "Technique": "techniques",
    "Traits": "techniques",
    "Twin": "twin",
    "deploy": "techniques.fp32",
    "evaluate": "stages.evaluate",
    "load_recipe": "recipe:load",
    "parameter": "techniques",
    "read_table": "scoring",
    "score_table": "scoring",
    "visualise": "stages.evaluate",
}

__all__ = [
    "PTQ",
    "QAT",
    "Basis",
    "Binarise",
    "Classification",
    "Context",
    "Deployable",
    "Distil",
    "DynamicInt8",
    "Factorise",
    "Finetune",
    "Half",
    "InputError",
    "MeasureSpec",
    "NetzipError",
    "OutputSpec",
    "PruneChannels",
    "PruneL1",
    "PruneRandom",
    "Recipe",
    "ScoreSpec",
    "ShareKernels",
    "TaskBase",
    "Technique",
    "Traits",
    "Twin",
    "deploy",
    "evaluate",
    "load_recipe",
    "parameter",
    "read_table",
    "score_table",
    "visualise",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(import_module(f"{__name__}.{module}"), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
