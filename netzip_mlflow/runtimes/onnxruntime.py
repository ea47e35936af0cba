"""ONNX Runtime: load a deployable, run it, and read what is really executed.

Needs numpy and onnxruntime; `executed` needs onnx too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnxruntime as ort
import onnxruntime.capi.onnxruntime_pybind11_state as state

from netzip_mlflow import folders
from netzip_mlflow.errors import InputError, NetzipError, Problem

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

__all__ = ["ERRORS", "Adapter", "OrtSession", "executed", "in_memory", "load"]

# The runtime's exceptions share no base class of their own; bound calls raise RuntimeError.
ERRORS = (
    MemoryError,  # of a failed allocation, as std::bad_alloc
    RuntimeError,
    MemoryError,
    ValueError,
    state.EPFail,
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoModel,
    state.NoSuchFile,
    state.NotFound,
    state.NotImplemented,
    state.RuntimeException,
)

_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
}

INT8_LAYERS = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QGemm",
        "QLinearConv",
        "QLinearConvTranspose",
        "QLinearMatMul",
    }
)
FLOAT_LAYERS = frozenset(
    {
        "Conv",
        "ConvTranspose",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "FusedMatMulActivation",
        "Gemm",
        "MatMul",
        "MatMulNBits",
        "NhwcConv",
        "NhwcFusedConv",
        "TransposeMatMul",
    }
)
_DYNAMIC = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeMatMul"})


@dataclass(frozen=True)
class Adapter:
    """How another tool's file wants its images: ``(x - mean) / std * scale``, then its own dtype.

    Attributes:
        layout: order of the file's axes.
        mean, std: one figure, or one per channel, on the [0, 1] scale.
        scale: 255 for a file that takes pixels from 0 to 255.

    >>> x = np.full((1, 3, 2, 2), 0.5, np.float32)
    >>> Adapter(layout="nhwc", mean=(0.5, 0.25, 0.0), scale=8).convert(x, np.uint8)[0, 0, 0]
    array([0, 2, 4], dtype=uint8)
    """

    layout: Literal["nchw", "nhwc"] = "nchw"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.layout not in ("nchw", "nhwc"):
            raise InputError(Problem("layout", f"is {self.layout!r}", "nchw, nhwc"))
        if not self.mean or not np.isfinite(self.mean).all():
            raise InputError(Problem("mean", f"is {self.mean}", "finite figures, one per channel"))
        if not self.std or not all(np.isfinite(s) and s > 0 for s in self.std):
            raise InputError(Problem("std", f"is {self.std}", "figures above 0, one per channel"))
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise InputError(Problem("scale", f"is {self.scale}", "a figure above 0"))

    def convert(self, x: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
        """float32 (n, C, ...) in [0, 1] -> the file's layout and dtype; integers are rounded and
        clipped."""
        channels = x.shape[1]
        for name, figures in (("mean", self.mean), ("std", self.std)):
            if len(figures) not in (1, channels):
                given = f"has {len(figures)} figures for {channels} channels"
                raise InputError(Problem(name, given, f"1 or {channels} figures"))
        a_channel = (-1, *[1] * (x.ndim - 2))
        mean = np.asarray(self.mean, np.float32).reshape(a_channel)
        std = np.asarray(self.std, np.float32).reshape(a_channel)
        y = (x - mean) / std * np.float32(self.scale)
        if self.layout == "nhwc":
            y = y.transpose(0, 2, 3, 1)
        if issubclass(dtype, np.integer):
            limits = np.iinfo(dtype)
            y = np.clip(np.rint(y), limits.min, limits.max)
        return np.ascontiguousarray(y, dtype)


class OrtSession:
    """A deployable in ONNX Runtime; see `netzip_mlflow.runtimes.Session` for the protocol.

    Attributes:
        shape: of one sample that `run` takes, (C, H, W) for images; None for an open axis.
        outputs: names of what `run` answers.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        path: Path,
        threads: int,
        adapter: Adapter | None = None,
    ) -> None:
        self._session = session
        self._path = path
        self._threads = threads
        self._adapter = adapter
        self._input, self._dtype = _only_input(session, path, adapter)
        self.outputs = tuple(output.name for output in session.get_outputs())
        dims = [d if isinstance(d, int) else None for d in session.get_inputs()[0].shape]
        self._batch = dims[0]
        self._nhwc = adapter is not None and adapter.layout == "nhwc"
        sample = [dims[3], dims[1], dims[2]] if self._nhwc else dims[1:]
        self.shape: tuple[int | None, ...] = tuple(sample)

    def run(self, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """The outputs, float32 (n, ...) each. A file of fixed batch is fed piece by piece.

        Raises:
            InputError: when `x` does not fit the file's input.
            NetzipError: when the runtime fails.
        """
        feed = self._feed(x)
        size = self._batch
        if size is None or size == len(feed):
            return self._answers(feed)
        pieces = []
        for start in range(0, len(feed), size):
            piece = feed[start : start + size]
            if (short := size - len(piece)) > 0:
                piece = np.concatenate([piece, np.repeat(piece[-1:], short, axis=0)])
            pieces.append(self._answers(piece))
        return tuple(np.concatenate(parts)[: len(feed)] for parts in zip(*pieces, strict=True))

    def bind(self, x: np.ndarray) -> Callable[[], None]:
        """One inference with input and output bound beforehand: no copies, no lookups by name.

        The adapter, where there is one, has already been applied to `x`: it is not timed.

        Raises:
            InputError: when `x` does not fit the file's input.
            NetzipError: when the runtime fails.
        """
        feed = self._feed(x)
        if self._batch not in (None, len(feed)):
            raise self._misfit(x, f"a batch of {self._batch}")
        session, binding = self._session, self._session.io_binding()
        try:
            binding.bind_ortvalue_input(self._input, ort.OrtValue.ortvalue_from_numpy(feed))
            for name in self.outputs:
                binding.bind_output(name)
            session.run_with_iobinding(binding)
        except ERRORS as error:
            raise self._failure(error) from None
        for name, value in zip(self.outputs, binding.get_outputs(), strict=True):
            if value.device_name() == "cpu":
                binding.bind_ortvalue_output(name, value)

        def call() -> None:
            try:  # costs nothing where nothing is raised
                session.run_with_iobinding(binding)
            except ERRORS as error:
                raise self._failure(error) from None

        return call

    def describe(self) -> dict[str, Any]:
        """Facts for the fingerprint."""
        return {
            "runtime": "onnxruntime",
            "version": ort.__version__,
            "providers": list(self._session.get_providers()),
            "threads": self._threads,
        }

    def _feed(self, x: np.ndarray) -> np.ndarray:
        sizes = ", ".join("any" if size is None else str(size) for size in self.shape)
        axes = 1 + len(self.shape)
        if not isinstance(x, np.ndarray) or x.dtype != np.float32 or x.ndim != axes or not len(x):
            raise self._misfit(x, f"a float32 array (n, {sizes}) with n >= 1")
        if any(size not in (None, n) for size, n in zip(self.shape, x.shape[1:], strict=True)):
            raise self._misfit(x, f"(n, {sizes})")
        if self._adapter is not None:
            return self._adapter.convert(x, self._dtype)
        return np.ascontiguousarray(x)

    def _answers(self, feed: np.ndarray) -> tuple[np.ndarray, ...]:
        try:
            values = self._session.run(self.outputs, {self._input: feed})
        except ERRORS as error:
            raise self._failure(error) from None
        return tuple(_flat(np.asarray(value, np.float32)) for value in values)

    def _misfit(self, x: Any, allowed: str) -> InputError:
        shape, dtype = getattr(x, "shape", None), getattr(x, "dtype", type(x).__name__)
        what = f"input {self._input!r} is given {dtype} {shape}"
        return InputError(Problem(str(self._path), what, allowed))

    def _failure(self, error: Exception) -> NetzipError:
        return NetzipError(f"{self._path}: ONNX Runtime failed: {_one_line(error)}")


def load(
    path: str | Path,
    *,
    threads: int = 1,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    adapter: Adapter | None = None,
) -> OrtSession:
    """Open an ONNX file with every graph optimisation and pinned threads.

    Args:
        path: the file.
        threads: of one operator; operators run one after the other. Above 1, idle threads do
            not spin: spinning ones steal time from whatever is measured next.
        providers: execution providers, in order of preference.
        adapter: how another tool's file wants its images.

    Raises:
        InputError: when the file is missing or corrupt, its input is not one batch of samples, or
            a provider is not in this build of the runtime.
    """
    if threads < 1:
        raise InputError(Problem("threads", f"is {threads}", "1 or more"))
    return OrtSession(_session(Path(path), threads, providers), Path(path), threads, adapter)


def in_memory(model: ModelProto) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
    """A graph that is no file: a function from its inputs to its outputs, on the CPU, as it is."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda feeds: [np.asarray(found) for found in session.run(None, dict(feeds))]


def executed(path: str | Path) -> dict[str, Any]:
    """What ONNX Runtime executes on the CPU, read from the graph that it optimised.

    Returns:
        `layers`: convolutions and matrix products; `int8_layers`: those in integer arithmetic;
        `float_layers`: names of the others; `casts`: Cast nodes; `conversions`: Quantize- and
        DequantizeLinear nodes that were not fused; `dynamic_nodes`: quantisations whose range
        is found anew at each call.

    Raises:
        InputError: when the file is missing or corrupt.
    """
    import onnx

    with folders.temporary() as folder:
        optimised = folder / "optimised.onnx"
        _session(Path(path), 1, ("CPUExecutionProvider",), optimised)
        graph = onnx.load(optimised).graph
    kinds: Counter[str] = Counter()
    floating: list[str] = []
    for node in _nodes(graph):
        kinds[node.op_type] += 1
        if node.op_type in FLOAT_LAYERS:
            floating.append(node.name or node.output[0])
    int8 = sum(kinds[kind] for kind in INT8_LAYERS)
    return {
        "layers": int8 + len(floating),
        "int8_layers": int8,
        "float_layers": floating,
        "casts": kinds["Cast"],
        "conversions": kinds["QuantizeLinear"] + kinds["DequantizeLinear"],
        "dynamic_nodes": sum(kinds[kind] for kind in _DYNAMIC),
    }


def _session(
    path: Path, threads: int, providers: Sequence[str], optimised: Path | None = None
) -> ort.InferenceSession:
    available = ort.get_available_providers()
    if missing := [p for p in providers if p not in available]:
        given = f"{', '.join(missing)} not in this build of ONNX Runtime"
        raise InputError(Problem("providers", given, ", ".join(available)))
    if not path.is_file():
        raise InputError("no such file", source=str(path))
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Anything less leaves out the NCHWc layout, and convolutions run 2 to 4 times slower.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    if threads > 1:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    try:
        return ort.InferenceSession(str(path), options, providers=list(providers))
    except ERRORS as error:
        what = f"ONNX Runtime {ort.__version__} cannot load it: {_one_line(error)}"
        raise InputError(what, source=str(path)) from None


def _flat(value: np.ndarray) -> np.ndarray:
    """(n, K, 1, 1), as some tools end a network, becomes (n, K)."""
    if value.ndim > 2 and value.size == value.shape[0] * value.shape[1]:
        return value.reshape(value.shape[:2])
    return value


def _only_input(
    session: ort.InferenceSession, path: Path, adapter: Adapter | None
) -> tuple[str, type[np.generic]]:
    """Name and dtype of the one input: a batch of images (n, C, H, W), of signals (n, C, L), ..."""
    inputs = session.get_inputs()
    if not session.get_outputs():
        raise InputError(Problem(str(path), "has no output", "one or more"))
    if len(inputs) != 1 or len(inputs[0].shape) < 3:
        given = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs) or "none"
        allowed = "one input of 3 axes or more: batch, channels, length or height and width"
        raise InputError(Problem(str(path), f"inputs are {given}", allowed))
    if adapter is not None and adapter.layout == "nhwc" and len(inputs[0].shape) != 4:
        given = f"the input has {len(inputs[0].shape)} axes"
        raise InputError(Problem(str(path), given, "4 axes with --layout nhwc"))
    kind = inputs[0].type
    if kind not in _DTYPES:
        raise InputError(Problem(str(path), f"the input is {kind}", ", ".join(_DTYPES)))
    if adapter is None and kind != "tensor(float)":
        hint = "say how the file wants its images: --layout, --mean, --std, --scale"
        raise InputError(Problem(str(path), f"the input is {kind}", "tensor(float)", hint))
    return inputs[0].name, _DTYPES[kind]


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Every node, those of inner graphs (If, Loop) too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
