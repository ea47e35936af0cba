"""What people look at: tables, plots, the HTML report, saved views. Knows no MLflow, no torch.

Nothing is imported here: `views` needs neither pandas nor matplotlib, `table` no matplotlib.
"""

from __future__ import annotations

__all__: list[str] = []
