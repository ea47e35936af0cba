"""Scoring: ratios, OCS, verdict and choice; pure arithmetic on plain mappings of metric keys.

Definitions: Ghobrial et al., *Evaluation Metrics for DNNs Compression* (arXiv 2305.10616v4).
Needs neither numpy nor pandas nor torch, so that it runs wherever a table can be read.
"""

from __future__ import annotations

from netzip_mlflow.scoring.basis import SIZES, SPEEDS, Basis, Weights
from netzip_mlflow.scoring.bound import KNOWN_SIZES, KNOWN_SPEEDS, ocs_bound
from netzip_mlflow.scoring.choice import Choice, best
from netzip_mlflow.scoring.constraints import TIMED, Constraints, violation
from netzip_mlflow.scoring.ratios import Score, other_ratios, score
from netzip_mlflow.scoring.table import Row, ScoredRow, read_table, score_table
from netzip_mlflow.scoring.verdict import Verdict, verdict

__all__ = [
    "KNOWN_SIZES",
    "KNOWN_SPEEDS",
    "SIZES",
    "SPEEDS",
    "TIMED",
    "Basis",
    "Choice",
    "Constraints",
    "Row",
    "Score",
    "ScoredRow",
    "Verdict",
    "Weights",
    "best",
    "ocs_bound",
    "other_ratios",
    "read_table",
    "score",
    "score_table",
    "verdict",
    "violation",
]
