"""Weights from files, without unpickling anything, and torchvision's pretrained ones."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from netzip_mlflow.errors import InputError, Problem
from netzip_mlflow.models.catalogue import PRETRAINED, SUFFIXES, no_file
from netzip_mlflow.models.torchvision import CLASSIFIERS
from netzip_mlflow.recipe import ModelSpec, locate

__all__ = ["load_pretrained", "load_weights", "missing"]

WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which checkpoints hold weights
COUNTER = "num_batches_tracked"  # of BatchNorm; old files lack it and inference does not use it
SHOWN = 3  # of each kind of fault


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Fill the model from a .safetensors file, or a .pt or .pth that `weights_only=True` accepts.

    A prefix `module.` on every name (left by DataParallel) is stripped. Nothing is loaded
    unless everything fits.

    Raises:
        InputError: the file is missing, damaged or a pickle of code, or does not fit the model.
    """
    path = Path(path)
    state = _read(path)
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    problems = _misfits(model, state)
    if problems:
        raise InputError(problems, str(path))
    model.load_state_dict(state, strict=False)


def load_pretrained(model: nn.Module, name: str) -> tuple[str, ...]:
    """Fill a torchvision classifier with torchvision's best ImageNet weights.

    Returns:
        The names of the tensors that keep their random values, because the number of classes
        differs; empty when all was loaded.

    Raises:
        InputError: there are none for this network, or they cannot be had.
    """
    from torchvision import models

    if name not in CLASSIFIERS:
        what = f"{name} has no pretrained weights of its own"
        raise InputError(Problem("model.weights", what, f"a file ({', '.join(SUFFIXES)})"))
    best = models.get_model_weights(name)["DEFAULT"]
    file = _kept(best.url)
    try:
        state = best.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        what = f"{name}'s pretrained weights cannot be had: {error}"
        hint = f"looked for {file}, then tried {best.url}; put the file there, or name your own"
        raise InputError(Problem("model.weights", what, hint=hint)) from error
    own = model.state_dict()
    # auxiliary heads are not built; a head for other classes stays random
    state = {key: value for key, value in state.items() if key in own}
    heads = tuple(key for key, value in state.items() if _is_other_head(value, own[key], best))
    state = {key: value for key, value in state.items() if key not in heads}
    problems = _misfits(model, state, allowed_missing=heads)
    if problems:
        raise InputError(problems, str(file))
    model.load_state_dict(state, strict=False)
    return heads


def missing(spec: ModelSpec) -> Problem | None:
    """Which weights of a recipe's model are not on this machine; downloads nothing."""
    if spec.weights is None:
        return None
    if spec.weights != PRETRAINED:
        path = locate(spec.weights, "model.weights")
        return None if path.is_file() else no_file(path)
    from torchvision import models

    file = _kept(models.get_model_weights(spec.name or "")["DEFAULT"].url)
    if file.is_file():
        return None
    what = f"{spec.name}'s pretrained weights are not here yet: {file}"
    return Problem("model.weights", what, hint="compress would download them")


def _kept(url: str) -> Path:
    """Where torch keeps what it downloads."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


def _is_other_head(value: torch.Tensor, own: torch.Tensor, best: Any) -> bool:
    classes = len(best.meta["categories"])
    return value.shape != own.shape and len(value) == classes and value.shape[1:] == own.shape[1:]


def _read(path: Path) -> dict[str, torch.Tensor]:
    source = str(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"is no weights file; allowed: {', '.join(SUFFIXES)}", source)
    if not path.is_file():
        raise InputError("no such file", source)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            # torch warns of odd pickles before it refuses them; the refusal is what counts
            warnings.simplefilter("ignore", UserWarning)
            held = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise InputError(f"is no safetensors file, or is damaged: {error}", source) from None
    except pickle.UnpicklingError:
        what = (
            "is damaged, or a pickle that holds more than tensors: "
            "loading that could run code, so it is refused"
        )
        hint = "where it was made, save model.state_dict() with safetensors.torch.save_file"
        raise InputError(Problem("", what, hint=hint), source) from None
    except (OSError, EOFError, RuntimeError) as error:
        raise InputError(f"cannot be read, is it damaged? {error}", source) from None
    return _unwrap(held, source)


def _unwrap(held: Any, source: str) -> dict[str, torch.Tensor]:
    """The state dict in a checkpoint, bare or under one of the usual keys."""
    if isinstance(held, Mapping):
        for key in WRAPPERS:
            if isinstance(held.get(key), Mapping):
                held = held[key]
                break
    if isinstance(held, Mapping) and held:
        state = {str(k): v for k, v in held.items() if isinstance(v, torch.Tensor)}
        if len(state) == len(held):
            return state
    allowed = f"a state dict (names to tensors), bare or under {', '.join(WRAPPERS)}"
    raise InputError(Problem("", "holds no state dict", allowed), source)


def _misfits(
    model: nn.Module, state: Mapping[str, torch.Tensor], allowed_missing: tuple[str, ...] = ()
) -> list[Problem]:
    """Every way in which weights do not fit the model, the first few of each kind by name."""
    own = model.state_dict()
    shared = [key for key in own if key in state]
    missing = [
        key
        for key in own
        if key not in state and key not in allowed_missing and not key.endswith(COUNTER)
    ]
    kinds = [
        ("missing", missing),
        ("not in the model", [key for key in state if key not in own]),
        (
            "of another shape",
            [
                f"{key} {tuple(state[key].shape)}, the model's is {tuple(own[key].shape)}"
                for key in shared
                if state[key].shape != own[key].shape
            ],
        ),
        (
            "of another kind of number",
            [
                f"{key} {state[key].dtype}, the model's is {own[key].dtype}"
                for key in shared
                if state[key].is_floating_point() != own[key].is_floating_point()
            ],
        ),
        ("not finite (NaN or inf)", [k for k in shared if not bool(state[k].isfinite().all())]),
    ]
    return [Problem("", f"{_few(found)}: {kind}") for kind, found in kinds if found]


def _few(found: list[str]) -> str:
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more
