"""ONNX Runtime: load a deployable, run it, and read what is really executed.

Needs numpy and onnxruntime; `executed` needs onnx too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnxruntime as ort
import onnxruntime.capi.onnxruntime_pybind11_state as state

from netzip_mlflow import folders
from netzip_mlflow.errors import InputError, NetzipError, Problem
from netzip_mlflow.runtimes.signature import Declared, Signature, answers

if TYPE_CHECKING:
    from onnx import ModelProto

    from netzip_mlflow.runtimes.adapter import Adapter
    from netzip_mlflow.runtimes.protocol import Executed

__all__ = ["OnnxRuntime", "OrtSession", "in_memory"]

# The runtime's exceptions share no base class; bound calls raise RuntimeError.
_ERRORS = (
    MemoryError,  # of a failed allocation, as std::bad_alloc
    RuntimeError,
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
_DTYPES = {  # by ONNX Runtime's name, to numpy's
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
}


class OrtSession:
    """A deployable in ONNX Runtime; see `netzip_mlflow.runtimes.Session`."""

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
        outputs = [output.name for output in session.get_outputs()]
        self._signature = Signature.of(path, _declared(session), outputs, adapter)
        self.shape, self.outputs = self._signature.shape, self._signature.outputs

    def run(self, x: np.ndarray) -> tuple[np.ndarray, ...]:
        return self._signature.in_batches(x, self._answers)

    def bind(self, x: np.ndarray) -> Callable[[], None]:
        """One inference with input and outputs bound beforehand: no copies, no lookups by name.

        The adapter, where there is one, has already been applied to `x`: it is not timed.
        """
        feed = self._signature.one_feed(x)
        session, binding = self._session, self._session.io_binding()
        try:
            value = ort.OrtValue.ortvalue_from_numpy(feed)
            binding.bind_ortvalue_input(self._signature.input, value)
            for name in self.outputs:
                binding.bind_output(name)
            session.run_with_iobinding(binding)
        except _ERRORS as error:
            raise self._failure(error) from None
        for name, output in zip(self.outputs, binding.get_outputs(), strict=True):
            if output.device_name() == "cpu":
                binding.bind_ortvalue_output(name, output)

        def call() -> None:
            try:  # costs nothing where nothing is raised
                session.run_with_iobinding(binding)
            except _ERRORS as error:
                raise self._failure(error) from None

        return call

    def describe(self) -> dict[str, Any]:
        return {
            "runtime": "onnxruntime",
            "version": ort.__version__,
            "providers": list(self._session.get_providers()),
            "threads": self._threads,
        }

    def _answers(self, feed: np.ndarray) -> tuple[np.ndarray, ...]:
        try:
            return answers(self._session.run(self.outputs, {self._signature.input: feed}))
        except _ERRORS as error:
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> NetzipError:
        return NetzipError(f"{self._path}: ONNX Runtime failed: {_one_line(error)}")


@dataclass(frozen=True)
class OnnxRuntime:
    """See `netzip_mlflow.runtimes.Runtime`; `providers` are in order of preference."""

    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    about: ClassVar[str] = "ONNX Runtime on the CPU, with every graph optimisation"
    timed: ClassVar[bool] = True

    def load(
        self, path: str | Path, *, threads: int = 1, adapter: Adapter | None = None
    ) -> OrtSession:
        """Open an ONNX file with pinned threads.

        Args:
            path: the file.
            threads: of one operator; operators run one after the other. Above 1, idle threads do
                not spin: spinning ones steal time from whatever is measured next.
            adapter: how another tool's file wants its images.

        Raises:
            InputError: when the file is missing or corrupt, its input is not one batch of samples,
                or a provider is not in this build of the runtime.
        """
        if threads < 1:
            raise InputError(Problem("threads", f"is {threads}", "1 or more"))
        return OrtSession(self._session(Path(path), threads), Path(path), threads, adapter)

    def executed(self, path: str | Path) -> Executed:
        """Read from the graph that ONNX Runtime has optimised."""
        import onnx

        from netzip_mlflow.runtimes import layer_kinds

        with folders.temporary() as folder:
            optimised = folder / "optimised.onnx"
            self._session(Path(path), 1, optimised)
            return layer_kinds.count(onnx.load(optimised).graph)

    def _session(
        self, path: Path, threads: int, optimised: Path | None = None
    ) -> ort.InferenceSession:
        available = ort.get_available_providers()
        if missing := [p for p in self.providers if p not in available]:
            what = f"{', '.join(missing)} not in this build of ONNX Runtime"
            raise InputError(Problem("providers", what, ", ".join(available)))
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
            return ort.InferenceSession(str(path), options, providers=list(self.providers))
        except _ERRORS as error:
            what = f"ONNX Runtime {ort.__version__} cannot load it: {_one_line(error)}"
            raise InputError(what, source=str(path)) from None


def in_memory(
    model: ModelProto, *, as_written: bool = False
) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
    """See `netzip_mlflow.runtimes.evaluator`."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if as_written:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except _ERRORS as error:
        raise NetzipError(f"ONNX Runtime says {_one_line(error)}") from None

    def run(feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        try:
            return [np.asarray(value) for value in session.run(None, dict(feeds))]
        except _ERRORS as error:
            raise NetzipError(f"ONNX Runtime says {_one_line(error)}") from None

    return run


def _declared(session: ort.InferenceSession) -> list[Declared]:
    return [
        Declared(
            each.name,
            _DTYPES.get(each.type or "", str(each.type)),
            tuple(size if isinstance(size, int) else None for size in each.shape),
        )
        for each in session.get_inputs()
    ]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
