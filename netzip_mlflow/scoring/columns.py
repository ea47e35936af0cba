"""Headers of published tables, as the metrics' records name them (MEASURING.md, section 2)."""

from __future__ import annotations

import functools

__all__ = ["accuracies", "columns"]


@functools.cache
def columns() -> dict[str, tuple[str, float]]:
    """Header -> metric key, and the factor to the key's unit."""
    from netzip_mlflow.metrics.catalogue import METRICS  # numpy: `import scoring` needs none

    return {m.column: (m.key, m.factor) for m in METRICS if m.column}


def accuracies() -> tuple[str, ...]:
    """Headers that are accuracies; the first one counts where nothing else is said."""
    return tuple(header for header, (key, _) in columns().items() if key.startswith("accuracy/"))
