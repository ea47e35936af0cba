"""How a layer's integer codes are stored in the file, and the nodes that unpack them.

Whatever the form, the nodes depend on stored numbers alone, so that a runtime folds them when it
loads the file and executes int8 weights. Only int4 needs a recent opset (21); the other narrow
forms are bytes, taken apart by integer arithmetic that every runtime has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from netzip_mlflow.errors import NetzipError

__all__ = ["BOOK", "FORMS", "Form", "Storage", "books", "opset_of", "split", "store"]

BOOK = 128  # kernels of a code book; each stands for its negative too, so a byte names one of 256


@dataclass(frozen=True)
class Form:
    """The codes of a form: `base` values, `step` apart, symmetric about zero; `digits` a byte."""

    base: int
    step: int = 1
    digits: int = 1

    @property
    def high(self) -> int:
        """The largest code; the least is its negative."""
        return self.step * (self.base - 1) // 2

    @property
    def bits(self) -> float:
        """Stored bits of one code."""
        return 8 / self.digits

    @property
    def has_zero(self) -> bool:
        """Whether zero is a code, so that pruned weights can stay zero."""
        return self.base % 2 == 1


# Even numbers of codes have none at zero: they use odd codes, so that every one is an integer.
FORMS: Mapping[str, Form] = {
    "int8": Form(255),
    "int4": Form(15, digits=2),
    "int3": Form(6, step=2, digits=3),
    "int2": Form(4, step=2, digits=4),
    "ternary": Form(3, digits=5),
    "binary": Form(2, step=2, digits=8),
    "kernels": Form(255),
}


@dataclass(frozen=True)
class Storage:
    """Initializers, and nodes that end in tensors under the names that were asked for."""

    initializers: tuple[TensorProto, ...]
    nodes: tuple[NodeProto, ...]


def opset_of(forms: Sequence[str]) -> int:
    """The least opset of ONNX's own operators that can hold these forms."""
    return 21 if "int4" in forms else 18


def store(codes: Mapping[str, tuple[str, np.ndarray]]) -> Storage:
    """Store codes (name -> form, integers of the weight's shape), each in its form.

    Raises:
        NetzipError: a code that its form does not have.
    """
    initializers: list[TensorProto] = []
    nodes: list[NodeProto] = []
    packed: dict[str, dict[str, np.ndarray]] = {}
    for name, (form, values) in codes.items():
        _check(name, form, values)
        if form == "int8":
            initializers.append(numpy_helper.from_array(values.astype(np.int8), name))
        elif form == "int4":
            initializers.append(_int4(f"{name}/4", values))
            nodes.append(helper.make_node("Cast", [f"{name}/4"], [name], to=TensorProto.INT8))
        else:
            packed.setdefault(form, {})[name] = values
    for form, arrays in packed.items():
        found = _kernels(arrays) if form == "kernels" else _digits(form, arrays)
        initializers += found.initializers
        nodes += found.nodes
    return Storage(tuple(initializers), tuple(nodes))


def _check(name: str, form: str, values: np.ndarray) -> None:
    kind = FORMS[form]
    wrong = np.abs(values.astype(np.int64)) > kind.high
    if kind.step > 1:
        wrong |= values % 2 == 0
    if wrong.any():
        raise NetzipError(f"{name}: code {values[wrong].flat[0]} is none of form {form}")


def _int4(name: str, values: np.ndarray) -> TensorProto:
    """Two codes a byte, the first in the low half, as ONNX packs them."""
    nibbles = np.append(values.astype(np.int8).ravel(), np.zeros(values.size % 2, np.int8)) & 15
    tensor = TensorProto(name=name, data_type=TensorProto.INT4, dims=values.shape)
    tensor.raw_data = (nibbles[::2] | nibbles[1::2] << 4).astype(np.uint8).tobytes()
    return tensor


def _digits(form: str, arrays: Mapping[str, np.ndarray]) -> Storage:
    """All layers of a form in one row of bytes; a byte holds `digits` digits to base `base`.

    code = step x digit - high, digit = byte / base^position modulo base.
    """
    kind = FORMS[form]
    flat = np.concatenate([a.ravel() for a in arrays.values()]).astype(np.int64)
    rest = -len(flat) % kind.digits
    figures = (np.append(flat, np.full(rest, -kind.high)) + kind.high) // kind.step
    weights = kind.base ** np.arange(kind.digits)
    stored = (figures.reshape(-1, kind.digits) * weights).sum(axis=1).astype(np.uint8)
    constants = {
        "bytes": stored[:, None],
        "weights": weights.astype(np.int32)[None],
        "base": np.array(kind.base, np.int32),
        "step": np.array(kind.step, np.int32),
        "high": np.array(kind.high, np.int32),
        "row": np.array([-1]),
    }
    steps = [
        ("Cast", ["bytes"], "whole", {"to": TensorProto.INT32}),
        ("Div", ["whole", "weights"], "shifted", {}),
        ("Mod", ["shifted", "base"], "figures", {}),
        *([("Mul", ["figures", "step"], "spread", {})] if kind.step > 1 else []),
        ("Sub", ["spread" if kind.step > 1 else "figures", "high"], "codes", {}),
        ("Cast", ["codes"], "narrow", {"to": TensorProto.INT8}),
        ("Reshape", ["narrow", "row"], "all", {}),
    ]
    nodes = [
        helper.make_node(op, [f"{form}/{i}" for i in inputs], [f"{form}/{output}"], **attributes)
        for op, inputs, output, attributes in steps
    ]
    used = {i for node in nodes for i in node.input}
    initializers = [
        numpy_helper.from_array(array, f"{form}/{name}")
        for name, array in constants.items()
        if f"{form}/{name}" in used
    ]
    parts = split(form, f"{form}/all", arrays, rest)
    return Storage((*initializers, *parts.initializers), (*nodes, *parts.nodes))


def split(name: str, source: str, arrays: Mapping[str, np.ndarray], rest: int) -> Storage:
    """A row of numbers, `rest` more at its end than the arrays have, as one tensor for each of
    them, under its name and in its shape; other names begin with `<name>/`."""
    sizes = [a.size for a in arrays.values()] + ([rest] if rest else [])
    parts = [f"{name}/part{i}" for i in range(len(sizes))]
    initializers = [numpy_helper.from_array(np.array(sizes), f"{name}/sizes")]
    nodes = [helper.make_node("Split", [source, f"{name}/sizes"], parts, axis=0)]
    for part, (own, array) in zip(parts, arrays.items(), strict=False):
        initializers.append(numpy_helper.from_array(np.array(array.shape), f"{own}/shape"))
        nodes.append(helper.make_node("Reshape", [part, f"{own}/shape"], [own]))
    return Storage(tuple(initializers), tuple(nodes))


def books(arrays: Mapping[str, np.ndarray]) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Code books for layers (name -> codes (out, in, h, w)): kernels (n, h, w), and per layer the
    number of each of its kernels, uint8 (out, in); numbers from n on mean the negatives.

    Neighbouring layers share a book as long as it has room.

    Raises:
        NetzipError: a layer alone has more kernels than a book has room for.
    """
    found: list[tuple[list[bytes], tuple[int, ...], dict[str, np.ndarray]]] = []
    for name, array in arrays.items():
        kernels = array.reshape(-1, *array.shape[2:]).astype(np.int8)
        keys = [_unsigned(kernel) for kernel in kernels]
        new = list(dict.fromkeys(key for key, _ in keys))
        shape = array.shape[2:]
        fits = found and found[-1][1] == shape and len({*found[-1][0], *new}) <= BOOK
        if not fits:
            found.append(([], shape, {}))
        book = found[-1][0]
        book += [key for key in new if key not in set(book)]
        if len(book) > BOOK:
            raise NetzipError(f"{name}: {len(book)} kernels differ; a code book has {BOOK}")
        found[-1][2][name] = np.array(
            [book.index(key) + BOOK * negative for key, negative in keys]
        ).reshape(array.shape[:2])
    result = []
    for book, shape, numbers in found:
        kernels = np.frombuffer(b"".join(book), np.int8).reshape(-1, *shape)
        final = {
            name: np.where(n >= BOOK, n - BOOK + len(book), n).astype(np.uint8)
            for name, n in numbers.items()
        }
        result.append((kernels, final))
    return result


def _unsigned(kernel: np.ndarray) -> tuple[bytes, bool]:
    """A kernel turned so that its first code that is not zero is positive, and whether it was
    turned for that."""
    leading = kernel[kernel != 0]
    negative = bool(leading.size and leading[0] < 0)
    return (-kernel if negative else kernel).tobytes(), negative


def _kernels(arrays: Mapping[str, np.ndarray]) -> Storage:
    initializers: list[TensorProto] = []
    nodes: list[NodeProto] = []
    for position, (kernels, numbers) in enumerate(books(arrays)):
        book = f"book{position}"
        initializers.append(numpy_helper.from_array(kernels, f"{book}/half"))
        nodes += [
            helper.make_node("Neg", [f"{book}/half"], [f"{book}/negatives"]),
            helper.make_node("Concat", [f"{book}/half", f"{book}/negatives"], [book], axis=0),
        ]
        for name, array in numbers.items():
            initializers.append(numpy_helper.from_array(array, f"{name}/numbers"))
            nodes += [
                helper.make_node(
                    "Cast", [f"{name}/numbers"], [f"{name}/whole"], to=TensorProto.INT32
                ),
                helper.make_node("Gather", [book, f"{name}/whole"], [name], axis=0),
            ]
    return Storage(tuple(initializers), tuple(nodes))
