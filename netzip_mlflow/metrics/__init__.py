"""What is measured, one file per family; all of it off the deployable, none of it needs torch.

metric, family, row     a figure's record, who takes figures, what is known of a model
catalogue               all records and families
file                    what the ONNX file tells: operations, size
speed, throughput       on what the runtime executes
process                 a fresh process: load time, memory
accuracy, fidelity      on scores (numpy): the classification task's
scores, bookkeeping     records of what scoring and commands log
published               records of what `netzip score` reads and nothing here measures
machine                 what the figures were measured on
"""

from __future__ import annotations

from netzip_mlflow.metrics.family import Conditions, Family, Figures, Model
from netzip_mlflow.metrics.metric import Metric

__all__ = ["Conditions", "Family", "Figures", "Metric", "Model"]
