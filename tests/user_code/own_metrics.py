"""Metric families as a user writes them: found by `own_metrics:Name` in `measure.families`."""

from __future__ import annotations

import math

import onnx

from netzip_mlflow.metrics import Figures, Metric
from netzip_mlflow.metrics.metric import percent

__all__ = ["Breaks", "Dark", "Lies", "Nodes", "Queue", "Unfinished"]


class Nodes:
    """What a file tells."""

    needs = "file"
    metrics = (Metric("graph/nodes", "Nodes", "nodes of the graph", "less", header="Nodes"),)

    def measure(self, models, _conditions):
        return [Figures({"graph/nodes": len(onnx.load(model.path).graph.node)}) for model in models]


class Dark:
    """What the data tell: answers that stay when half of the light is gone."""

    needs = "data"
    metrics = (
        Metric(
            "robustness/dark_agreement", "Answers that stay in the dark",
            "fraction of samples that are answered alike at half of the light", "more",
            "%", 0.01, percent, header="Dark",
        ),
        Metric("robustness/night_agreement", "Answers that stay at night", "the same at night"),
    )  # fmt: skip

    def measure(self, models, conditions):
        (model,) = models
        split = conditions.task.split(conditions.split, final=True)
        same = 0
        for images, *_ in split.batches(64):
            plain, dark = (answers(model.session.run(x)) for x in (images, images / 2))
            same += int((plain == dark).sum())
        reason = "no lamp could be switched off"
        figures = {"robustness/dark_agreement": same / len(split)}
        return [Figures(figures, absent={"robustness/night_agreement": reason})]


class Queue:
    """What all models tell together: their place by size."""

    needs = "together"
    metrics = (Metric("graph/place", "Place by size", "1 = the smallest file", "less"),)

    def measure(self, models, _conditions):
        sizes = sorted(model.path.stat().st_size for model in models)
        return [Figures({"graph/place": sizes.index(m.path.stat().st_size) + 1.0}) for m in models]


class Breaks:
    """Code that does not work."""

    needs = "alone"
    metrics = (Metric("graph/broken", "Broken", "never there"),)

    def measure(self, models, conditions):
        raise ZeroDivisionError("by design")


class Lies:
    """A figure that no record describes."""

    needs = "file"
    metrics = (Metric("graph/truth", "Truth", "never there"),)

    def measure(self, models, _conditions):
        return [Figures({"graph/lie": 1.0}) for _ in models]


class Unfinished:
    """A figure that is not a number."""

    needs = "alone"
    metrics = (Metric("graph/limit", "Limit", "infinite"),)

    def measure(self, models, _conditions):
        return [Figures({"graph/limit": math.inf}) for _ in models]


class NotOne:
    """Lacks what a family has."""

    needs = "everything"


class Thief:
    """Takes a key that has a record."""

    needs = "file"
    metrics = (Metric("size/disk_bytes", "Mine", "not mine"),)

    def measure(self, models, _conditions):
        return [Figures() for _ in models]


class Greedy:
    """Needs what nobody has."""

    needs = "quantum"
    metrics = ()

    def measure(self, models, _conditions):
        return [Figures() for _ in models]


def answers(outputs):
    """The class of the highest score; a runtime may give its outputs in a tuple."""
    scores = outputs[0] if isinstance(outputs, tuple) else outputs
    return scores.argmax(1)
