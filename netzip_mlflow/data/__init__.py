"""Data sets: what they ship, how it is cut into splits, and what holds the splits apart.

A source is one file with a `load(spec) -> Source` and one line in `catalogue.SOURCES`. Nothing
heavy is imported before a data set is opened.
"""

from __future__ import annotations

from netzip_mlflow.data.augmentation import Changes
from netzip_mlflow.data.catalogue import SOURCES, check, missing, names
from netzip_mlflow.data.dataset import Dataset, Split
from netzip_mlflow.data.images import Images, to_input
from netzip_mlflow.data.opening import load_source, open_source
from netzip_mlflow.data.source import Part, Source

__all__ = [
    "SOURCES",
    "Changes",
    "Dataset",
    "Images",
    "Part",
    "Source",
    "Split",
    "check",
    "load_source",
    "missing",
    "names",
    "open_source",
    "to_input",
]
