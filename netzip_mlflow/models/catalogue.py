"""Which networks there are, how one is built, and the check of a recipe's `model`.

Literal tables: listing and checking import no torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netzip_mlflow.errors import InputError, Problem, did_you_mean
from netzip_mlflow.factories import FACTORY_PATH, call, import_function
from netzip_mlflow.models.torchvision import CLASSIFIERS, classifier
from netzip_mlflow.recipe import locate

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "PRETRAINED",
    "SUFFIXES",
    "TABLE",
    "build",
    "build_factory",
    "check",
    "names",
    "no_file",
]

TABLE = {
    "lenet5": "netzip_mlflow.models.lenet5:lenet5",
    "resnet8": "netzip_mlflow.models.resnet8:resnet8",
    "resnet20_cifar": "netzip_mlflow.models.cifar_resnet:resnet20_cifar",
    "resnet32_cifar": "netzip_mlflow.models.cifar_resnet:resnet32_cifar",
    "resnet44_cifar": "netzip_mlflow.models.cifar_resnet:resnet44_cifar",
    "resnet56_cifar": "netzip_mlflow.models.cifar_resnet:resnet56_cifar",
    "resnet110_cifar": "netzip_mlflow.models.cifar_resnet:resnet110_cifar",
}
ABOUT = {
    "lenet5": "LeNet-5 (LeCun 1998), 61,706 parameters at 1x32x32",
    "resnet8": "ResNet-8 of MLPerf Tiny, 78 thousand parameters",
    "resnet20_cifar": "ResNet-20 for CIFAR (He 2015, section 4.2), 0.27 M parameters",
    "resnet32_cifar": "ResNet-32 for CIFAR, 0.46 M parameters",
    "resnet44_cifar": "ResNet-44 for CIFAR, 0.66 M parameters",
    "resnet56_cifar": "ResNet-56 for CIFAR, 0.85 M parameters",
    "resnet110_cifar": "ResNet-110 for CIFAR, 1.73 M parameters",
}
SUFFIXES = (".safetensors", ".pt", ".pth")
PRETRAINED = "pretrained"


def names() -> dict[str, str]:
    """The networks that a recipe's `model.name` may give, each with one line about it."""
    return ABOUT | dict.fromkeys(
        CLASSIFIERS, "torchvision's, 3 channels, head fitted to the classes"
    )


def build(name: str, shape: tuple[int, ...], arguments: Mapping[str, Any]) -> nn.Module:
    """A network with fresh random weights (of torch's global generator), in eval mode.

    Args:
        name: of `TABLE`, or one of torchvision's classifiers.
        shape: of an image, (C, H, W).
        arguments: further keywords of the network's own constructor; `num_classes` among them.

    Raises:
        InputError: no such network, or it does not take such images or arguments.
    """
    if name not in TABLE and name not in CLASSIFIERS:
        raise InputError(_unknown(name))
    if len(shape) != 3:
        what = f"{name} takes images, and the data give samples of shape {shape}"
        raise InputError(Problem("model.name", what, "a network of your own: model.factory"))
    channels, height, width = shape
    if name in CLASSIFIERS:
        return classifier(name, channels, (height, width), arguments).eval()
    module, _, function_name = TABLE[name].partition(":")
    function = getattr(importlib.import_module(module), function_name)
    settings = {"channels": channels, "size": (height, width)} | dict(arguments)
    return call(function, settings, TABLE[name], "model").eval()


def build_factory(path: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A user's own network, from ``function(**arguments)``, in eval mode.

    Args:
        path: "module:function".
        arguments: its keywords: the task's (`num_classes`, where it has classes) and the recipe's.

    Raises:
        InputError: the function cannot be imported, does not take the arguments, returns no
            module, or fails.
    """
    from torch import nn

    model = call(import_function(path, "model.factory"), arguments, path, "model")
    if not isinstance(model, nn.Module):
        what = f"{path} returned a {type(model).__name__}"
        raise InputError(Problem("model.factory", what, "a torch.nn.Module"))
    return model.eval()


def check(raw: Mapping[str, Any], *, files: bool = True) -> list[Problem]:
    """What is wrong with the names and paths in a raw recipe's `model`; shapes are the schema's.

    `files`: a weights file that is not there is wrong too.
    """
    model = raw.get("model")
    if not isinstance(model, Mapping):
        return []
    name, factory, weights = model.get("name"), model.get("factory"), model.get("weights")
    problems = []
    if isinstance(name, str) and name not in TABLE and name not in CLASSIFIERS:
        problems.append(_unknown(name))
    if isinstance(factory, str) and not FACTORY_PATH.fullmatch(factory):
        problems.append(Problem("model.factory", f"{factory!r}", "module:function"))
    allow = model.get("allow")
    problems += [
        Problem(f"model.allow[{place}]", f"{path!r}", "module:function")
        for place, path in enumerate(allow if isinstance(allow, list) else [])
        if isinstance(path, str) and not FACTORY_PATH.fullmatch(path)
    ]
    if isinstance(weights, str):
        problems += _weights_problems(name, weights, files)
    return problems


def _unknown(name: str) -> Problem:
    known = list(names())
    allowed = f"{', '.join(TABLE)}, or one of torchvision's classifiers (`netzip list models`)"
    what = f"no network is called {name!r}"
    return Problem("model.name", what, allowed, did_you_mean(name.lower(), known))


def _weights_problems(name: Any, weights: str, files: bool) -> list[Problem]:
    if weights == PRETRAINED:
        if name in CLASSIFIERS:
            return []
        what = f"{name or 'this model'} has no pretrained weights of its own"
        return [Problem("model.weights", what, f"a file ({', '.join(SUFFIXES)})")]
    try:
        path = locate(weights, "model.weights")
    except InputError as error:
        return list(error.problems)
    if path.suffix not in SUFFIXES:
        allowed = f"{', '.join(SUFFIXES)}, or `{PRETRAINED}`"
        return [Problem("model.weights", f"{path.name} is no weights file", allowed)]
    if files and not path.is_file():
        return [no_file(path)]
    return []


def no_file(path: Path) -> Problem:
    """The weights file is not there."""
    return Problem("model.weights", f"no such file: {path}", "an existing file")
