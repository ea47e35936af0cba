"""A cache in a folder of the test's own, and a count of the work that is really done."""

from __future__ import annotations

from pathlib import Path

import pytest

from netzip_mlflow.cache import StageCache
from netzip_mlflow.techniques.finetune import Finetune


@pytest.fixture
def cache(tmp_path: Path) -> StageCache:
    """Empty, and large enough."""
    return StageCache(tmp_path / "cache", 10**8, frozenset({"tiny_networks:tiny"}))


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Finetune]:
    """Every fine-tuning that really runs."""
    seen: list[Finetune] = []
    train = Finetune.apply

    def counted(self, twin, context):
        seen.append(self)
        return train(self, twin, context)

    monkeypatch.setattr(Finetune, "apply", counted)
    return seen
