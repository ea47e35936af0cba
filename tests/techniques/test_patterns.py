"""Layers by name or pattern."""

from __future__ import annotations

import pytest

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.techniques.patterns import chosen

NAMES = ["stem", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "linear"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linear", ["linear"]),
        ("linear, stem", ["stem", "linear"]),
        ("layer1.*", ["layer1.0.conv1", "layer1.0.conv2"]),
        ("*.conv1,stem", ["stem", "layer1.0.conv1", "layer2.0.conv1"]),
        ("*", NAMES),
        (" ", []),
    ],
)
def test_chosen(text: str, expected: list[str]) -> None:
    assert chosen(text, NAMES, "here") == expected


def test_what_matches_nothing() -> None:
    with pytest.raises(NetzipError, match=r"here: 'linaer' is no layer of the network; .*'linear'"):
        chosen("stem, linaer", NAMES, "here")
