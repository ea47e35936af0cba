"""An experiment's description: the user's text, and ours below it, between two markers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["BEGIN", "END", "LIMIT", "NOTE", "described", "set_tag"]

NOTE = "mlflow.note.content"
# HTML comments: Markdown shows nothing of them
BEGIN, END = "<!-- netzip begin -->", "<!-- netzip end -->"
LIMIT = 8000  # characters; MLflow refuses, or cuts, what is longer
# one of our blocks; a marker whose other one was removed belongs to the user's text
_OURS = re.compile(f"{BEGIN}(?:(?!{BEGIN}).)*?{END}", re.DOTALL)


def set_tag(client: MlflowClient, experiment_id: str, key: str, value: str) -> None:
    """A tag of an experiment; of the description (`NOTE`) only our part."""
    if key == NOTE:
        value = described(client.get_experiment(experiment_id).tags.get(NOTE, ""), value)
    client.set_experiment_tag(experiment_id, key, value)


def described(text: str, ours: str) -> str:
    """A description with our part replaced, or added below; left out where it finds no room.

    >>> described("Signs.", "See [views].")
    'Signs.\\n\\n<!-- netzip begin -->\\n\\nSee [views].\\n\\n<!-- netzip end -->'
    """
    block = f"{BEGIN}\n\n{ours}\n\n{END}"
    if _OURS.search(text):
        whole = _OURS.sub(lambda _: block, text, count=1)
    else:
        gap = "\n" * (2 - (len(text) - len(text.rstrip("\n")))) if text else ""
        whole = f"{text}{gap}{block}"
    return whole if len(whole) <= LIMIT else _OURS.sub("", text)
