"""torchvision's classifiers by name."""

from __future__ import annotations

import pytest
import torch
from torchvision import models

from netzip_mlflow.errors import InputError
from netzip_mlflow.models import build
from netzip_mlflow.models.torchvision import CLASSIFIERS
from netzip_mlflow.signature import OutputSpec
from netzip_mlflow.twin import Architecture


def test_the_literal_names_are_torchvisions() -> None:
    assert sorted(CLASSIFIERS) == sorted(models.list_models(module=models))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", (32, 32)),
        ("mobilenet_v3_small", (40, 32)),
        ("squeezenet1_1", (64, 64)),
        ("shufflenet_v2_x0_5", (32, 32)),
    ],
)
def test_the_head_is_fitted_to_the_classes(name: str, size: tuple[int, int]) -> None:
    model = build(name, (3, *size), {"num_classes": 7})
    assert not model.training
    with torch.no_grad():
        assert model(torch.rand(3, 3, *size)).shape == (3, 7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "vit_b_32", "maxvit_t", "swin_t"])
def test_constructors_that_need_more_get_it(name: str) -> None:
    model = build(name, (3, 96, 96) if name != "maxvit_t" else (3, 224, 224), {"num_classes": 5})
    x = torch.rand(2, 3, *((96, 96) if name != "maxvit_t" else (224, 224)))
    assert isinstance(model.train()(x), torch.Tensor)


def test_arguments_reach_the_constructor() -> None:
    model = build("mobilenet_v2", (3, 32, 32), {"num_classes": 4, "width_mult": 0.25})
    plain = build("mobilenet_v2", (3, 32, 32), {"num_classes": 4})
    assert 4 * _parameters(model) < _parameters(plain)


def _parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "channels", "size", "arguments", "message"),
    [
        ("resnet18", 1, (32, 32), {}, "resnet18 takes 3 channels, the data give 1"),
        ("alexnet", 3, (32, 32), {}, "alexnet: does not take samples of 3x32x32: "),
        (
            "vit_b_32",
            3,
            (50, 50),
            {},
            "vit_b_32 cannot be built for 50x50 with num_classes=10: .*patch size",
        ),
        (
            "resnet18",
            3,
            (32, 32),
            {"widht": 2},
            "cannot be built for 32x32 with num_classes=10, widht=2: .*unexpected",
        ),
        (
            "resnet18",
            3,
            (32, 32),
            {"num_classes": 4},
            r"answers 2 samples with \(2, 4\); .* scores \(10,\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(name, channels, size, arguments, message) -> None:
    architecture = Architecture("name", name, {"num_classes": 10, **arguments})
    with pytest.raises(InputError, match=message):
        architecture.build((channels, *size), OutputSpec.of(scores=(10,)))
