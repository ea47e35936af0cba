"""LeNet-5 against the counts of the original."""

from __future__ import annotations

import pytest
import torch

from netzip_mlflow.errors import InputError
from netzip_mlflow.models import build


def test_parameters_are_those_of_the_paper() -> None:
    # C1 156, C3 fully connected 2,416, C5 48,120, F6 10,164, output 850
    model = build("lenet5", (1, 32, 32), {"num_classes": 10})
    assert [sum(p.numel() for p in m.parameters()) for m in model.children()] == [
        *(156, 2416, 0, 0, 48120, 10164, 850)
    ]


@pytest.mark.parametrize("size", [(16, 16), (28, 28), (33, 40)])
def test_any_size_from_16_fits(size: tuple[int, int]) -> None:
    model = build("lenet5", (3, *size), {"num_classes": 7})
    assert model(torch.zeros(2, 3, *size)).shape == (2, 7)


def test_smaller_images_are_refused() -> None:
    with pytest.raises(InputError, match="lenet5 cannot take images of 15x16; allowed: 16x16"):
        build("lenet5", (1, 15, 16), {"num_classes": 10})
