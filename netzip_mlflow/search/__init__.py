"""Search: which chains to try, what may be skipped, and a study that survives its processes.

Knows Optuna, no MLflow: `stages.search` walks the trials and logs them.
"""

from __future__ import annotations

from netzip_mlflow.search.auto import automatic, starts
from netzip_mlflow.search.space import Space, check, read

__all__ = ["Space", "automatic", "check", "read", "starts"]
