"""Session on a TensorRT engine: native runtime, pinned and pre-allocated buffers, one CUDA graph per number of crops.

Everything but the CUDA and TensorRT calls themselves is tested with doubles of both; this module was never run on a
GPU for want of one.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ...contract import LandmarkSpec, Tensor, Tensors, check
from ...errors import EngineError, InputError, MissingDependencyError, ModelFileError, OutputError
from ...files import write_bytes
from ..base import DEFAULTS, Reopened, RuntimeOptions
from . import api
from .sidecar import EngineCard, card_path, sha256

logger = logging.getLogger(__name__)


class TrtSession(Reopened):
    """A landmark model's TensorRT engine, opened with the runtime that built it. Experimental: never run on a GPU yet.

    ``path`` is the .engine; its card lies beside it. An engine of another TensorRT, another kind of GPU or another
    ``source`` (the ONNX file it must have been built from, where given), or one that is damaged, is refused with an
    EngineError that names the difference and the line to type. The ``device`` is "cuda" or "cuda:<index>"; "cpu", the
    default, is the first GPU, as an engine runs nowhere else. ``providers``, ``threads``, ``session_options`` and
    ``inference_precision`` are other runtimes': InputError.

    With TensorRT for RTX, kernels that are compiled when first run are kept in ``<engine>.cache``. A session may be
    used from several threads; their runs wait for each other. ``close()`` gives the GPU's memory back at once.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        options: RuntimeOptions = DEFAULTS,
        *,
        source: str | os.PathLike[str] | None = None,
    ) -> None:
        others = ("providers", "threads", "session_options", "inference_precision")
        options.refuse(others, "another runtime's and mean nothing to a TensorRT engine; leave them out")
        super().__init__(path, options, **({} if source is None else {"source": Path(source).absolute()}))
        self.path = Path(path)
        card = self._card = EngineCard.read(self.path)
        plan, trt = self._checked(source)
        self._cuda = api.Cuda(options.device)
        if not card.runs_on(self._cuda.capability):
            targets = ", ".join(card.compute_capabilities)
            self._refuse(
                f"it is for compute capability {targets}{f' ({card.gpu})' if card.gpu else ''}, but {self._cuda.name} "
                f"has {self._cuda.capability}"
            )
        self._lock = threading.Lock()
        stack = contextlib.ExitStack()
        self._release = weakref.finalize(self, stack.close)
        self._log = api.make_log(trt)
        self._runtime = trt.Runtime(self._log)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            self._refuse(f"TensorRT cannot read it: {self._log.first_error()}")
        check(_tensors(trt, engine), card.spec, str(self.path))
        self._outputs = list(card.spec.tensors.outputs)
        self._stream = int(self._cuda("cudaStreamCreateWithFlags", 1))  # 1: does not wait for the default stream
        stack.callback(self._cuda.free, "cudaStreamDestroy", self._stream)
        self._buffers = _buffers(self._cuda, stack, card, self._outputs)
        self._cache_path = Path(f"{self.path}.cache")
        self._cache, contexts = self._contexts(trt, engine)
        self._plans = _Plans(self._cuda, self._stream, self._buffers, contexts, card, stack, self._log)

    @property
    def spec(self) -> LandmarkSpec:
        """The model's contract."""
        return self._card.spec

    @property
    def card(self) -> EngineCard:
        """What the engine was built from, by what and for which GPUs."""
        return self._card

    @property
    def providers(self) -> tuple[str, ...]:
        """The runtime in use."""
        return (self._card.flavour,)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs, in the contract's order, for ``crops`` uint8 (n, S, S, 3), in runs of at most the engine's."""
        crops = _checked_crops(feeds, self.spec)
        results = [np.empty((len(crops), *self._buffers[name].host.shape[1:]), np.float32) for name in self._outputs]
        most = self._card.max_batch
        with self._lock:
            if not self._release.alive:
                raise EngineError(f"the session of {self.path} is closed")
            self._cuda.use()
            for start in range(0, len(crops), most):
                part = crops[start : start + most]
                self._run_part(part, [result[start : start + len(part)] for result in results])
        return results

    def close(self) -> None:
        """Free the buffers, the graphs and the stream; the session cannot run any more."""
        with self._lock:
            self._release()

    def _run_part(self, crops: NDArray[np.uint8], results: list[NDArray[np.float32]]) -> None:
        count = len(crops)
        host = self._buffers["crops"].host
        host[:count] = crops
        size = self._card.batch or count
        host[count:size] = 0
        if self._plans.run(size) and self._cache is not None:
            self._save_cache()
        for name, result in zip(self._outputs, results, strict=True):
            result[:] = self._buffers[name].host[:count]

    def _checked(self, source: str | os.PathLike[str] | None) -> tuple[bytes, Any]:
        """The engine's bytes and the TensorRT module that runs them, once both are known to be the card's."""
        card = self._card
        try:
            plan = self.path.read_bytes()
        except OSError as error:
            raise ModelFileError(f"{self.path} cannot be read: {error.strerror or error}") from error
        if sha256(plan) != card.engine_sha256:
            self._refuse(f"its sha256 is not the one in {card_path(self.path).name}; it is damaged or another engine's")
        if source is not None and sha256(Path(source).read_bytes()) != card.source_sha256:
            self._refuse(f"it was built from another ONNX file than {source}")
        try:
            trt = api.load_tensorrt(card.flavour)
        except MissingDependencyError as error:
            other = _other_flavour(card.flavour)
            if other is None:
                raise
            self._refuse(f"it was built with {card.flavour} {card.version}; here is {other}", error)
        if trt.__version__ != card.version:
            self._refuse(f"it was built with {card.flavour} {card.version}; here is {trt.__version__}")
        return plan, trt

    def _refuse(self, why: str, cause: Exception | None = None) -> NoReturn:
        advice = self._card.rebuild or (
            f"facelm_sdk.Aligner(landmarks=<the .onnx it is of>, engine={os.fspath(self.path)!r}), which builds it anew"
        )
        raise EngineError(f"{self.path} cannot be used: {why}. Rebuild it: {advice}") from cause

    def _contexts(self, trt: Any, engine: Any) -> tuple[Any, list[Any]]:
        """The cache of compiled kernels, None where there is none, and a context for each profile."""
        cache = config = None
        if self._card.flavour == "tensorrt_rtx":
            config = engine.create_runtime_config()
            # Compiled in full at the first run: a captured graph would keep the stand-ins for ever.
            config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            cache = config.create_runtime_cache()
            if self._cache_path.is_file() and not cache.deserialize(self._cache_path.read_bytes()):
                logger.info("%s is of another GPU, driver or TensorRT; it is made anew", self._cache_path)
            config.set_runtime_cache(cache)
        contexts = []
        for index in range(max(1, len(self._card.profiles))):
            context = engine.create_execution_context(*([config] if config is not None else []))
            if context is None:
                raise EngineError(f"{self.path} cannot run on {self._cuda.name}: {self._log.first_error()}")
            if index:
                context.set_optimization_profile_async(index, self._stream)
                self._cuda("cudaStreamSynchronize", self._stream)
            for name, buffer in self._buffers.items():
                context.set_tensor_address(name, buffer.device)
            contexts.append(context)
        return cache, contexts

    def _save_cache(self) -> None:
        try:
            write_bytes(self._cache_path, bytes(self._cache.serialize()))
        except OutputError as error:
            logger.info("compiled kernels are not kept: %s", error)


def _other_flavour(flavour: str) -> str | None:
    """The flavour that is installed in place of this one, with its version."""
    for name in api.OLDEST:
        with contextlib.suppress(MissingDependencyError):
            if name != flavour:
                return f"{name} {api.load_tensorrt(name).__version__}"
    return None


def _tensors(trt: Any, engine: Any) -> Tensors:
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    for index in range(engine.num_io_tensors):
        key = engine.get_tensor_name(index)
        found = inputs if engine.get_tensor_mode(key) == trt.TensorIOMode.INPUT else outputs
        found[key] = api.tensor(engine.get_tensor_dtype(key).name, engine.get_tensor_shape(key))
    return Tensors(inputs, outputs)


def _checked_crops(feeds: Mapping[str, NDArray[Any]], spec: LandmarkSpec) -> NDArray[np.uint8]:
    size = spec.crop.size
    if feeds.keys() != {"crops"}:
        raise InputError(f"{spec.name} is fed with crops, not {', '.join(feeds) or 'nothing'}")
    crops = feeds["crops"]
    if crops.dtype != np.uint8 or crops.shape[1:] != (size, size, 3):
        raise InputError(f"crops for {spec.name} are uint8 (n, {size}, {size}, 3); got {crops.dtype} {crops.shape}")
    return crops


class _Buffer:
    """A tensor's pinned memory on the host, as an array, and its memory on the GPU."""

    def __init__(self, cuda: api.Cuda, stack: contextlib.ExitStack, shape: tuple[int, ...], dtype: type) -> None:
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        pinned = int(cuda("cudaMallocHost", count))
        stack.callback(cuda.free, "cudaFreeHost", pinned)
        self.device = int(cuda("cudaMalloc", count))
        stack.callback(cuda.free, "cudaFree", self.device)
        self.address = pinned
        memory: Any = (ctypes.c_uint8 * count).from_address(pinned)
        self.host: NDArray[Any] = np.frombuffer(memory, dtype).reshape(shape)

    def bytes_of(self, count: int) -> int:
        """How many bytes the first ``count`` of the batch take."""
        return count * int(self.host[0].nbytes)


def _buffers(
    cuda: api.Cuda, stack: contextlib.ExitStack, card: EngineCard, outputs: Sequence[str]
) -> dict[str, _Buffer]:
    """The input's and outputs' buffers, each as large as the engine's largest run."""
    size, points, most = card.spec.crop.size, card.spec.num_landmarks, card.max_batch
    shapes = {"landmarks": (most, points, 2), "scores": (most, points), "presence": (most,)}
    crops = _Buffer(cuda, stack, (most, size, size, 3), np.uint8)
    return {"crops": crops, **{name: _Buffer(cuda, stack, shapes[name], np.float32) for name in outputs}}


class _Plans:
    """Runs of each number of crops: copied in, computed and copied out, the first time by calls, then by one graph."""

    def __init__(
        self,
        cuda: api.Cuda,
        stream: int,
        buffers: Mapping[str, _Buffer],
        contexts: Sequence[Any],
        card: EngineCard,
        stack: contextlib.ExitStack,
        log: Any,
    ) -> None:
        self._cuda, self._stream, self._buffers = cuda, stream, buffers
        self._contexts, self._card, self._stack, self._log = contexts, card, stack, log
        self._graphs: dict[int, Any] = {}

    def run(self, count: int) -> bool:
        """One run of ``count`` crops, from buffer to buffer; whether it was the first of this number."""
        first = count not in self._graphs
        if first or self._graphs[count] is None:
            context = self._context(count)
            self._enqueue(context, count)  # TensorRT settles a new shape outside of any capture
            self._wait()
            if first:
                self._graphs[count] = self._captured(context, count)
        else:
            self._cuda("cudaGraphLaunch", self._graphs[count], self._stream)
            self._wait()
        return first

    def _wait(self) -> None:
        self._cuda("cudaStreamSynchronize", self._stream)

    def _context(self, count: int) -> Any:
        """The context of the first profile that takes so many crops, set to them."""
        if self._card.batch is not None:
            return self._contexts[0]
        fits = [least <= count <= most for least, _, most in self._card.profiles]
        context = self._contexts[fits.index(True)]
        crops = self._buffers["crops"].host
        if not context.set_input_shape("crops", (count, *crops.shape[1:])):
            raise EngineError(f"the engine does not take {count} crops: {self._log.first_error()}")
        return context

    def _enqueue(self, context: Any, count: int) -> None:
        copy = self._cuda.runtime.cudaMemcpyKind
        for name, buffer in self._buffers.items():
            if name == "crops":
                size, kind = buffer.bytes_of(count), copy.cudaMemcpyHostToDevice
                self._cuda("cudaMemcpyAsync", buffer.device, buffer.address, size, kind, self._stream)
        if not context.execute_async_v3(self._stream):
            raise EngineError(f"the engine of {self._card.spec.name} fails: {self._log.first_error()}")
        for name, buffer in self._buffers.items():
            if name != "crops":
                size, kind = buffer.bytes_of(count), copy.cudaMemcpyDeviceToHost
                self._cuda("cudaMemcpyAsync", buffer.address, buffer.device, size, kind, self._stream)

    def _captured(self, context: Any, count: int) -> Any:
        """The graph of a run, or None, with a warning, where this engine's runs cannot be captured."""
        capturable: Callable[[int], bool] = getattr(context, "is_stream_capturable", lambda stream: True)
        try:
            if not capturable(self._stream):
                raise EngineError("TensorRT says that they cannot be captured")
            return self._capture(context, count)
        except EngineError as error:
            logger.warning("runs of %d crops go without a CUDA graph, which is slower: %s", count, error)
            return None

    def _capture(self, context: Any, count: int) -> Any:
        modes = self._cuda.runtime.cudaStreamCaptureMode
        self._cuda("cudaStreamBeginCapture", self._stream, modes.cudaStreamCaptureModeThreadLocal)
        try:
            self._enqueue(context, count)
        except EngineError:
            with contextlib.suppress(EngineError):  # the stream must leave the capture in any case
                self._cuda("cudaStreamEndCapture", self._stream)
            raise
        graph = self._cuda("cudaStreamEndCapture", self._stream)
        launchable = self._cuda("cudaGraphInstantiate", graph, 0)
        self._cuda("cudaGraphDestroy", graph)
        self._stack.callback(self._cuda.free, "cudaGraphExecDestroy", launchable)
        return launchable
