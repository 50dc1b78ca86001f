"""Doubles of the CUDA runtime's bindings and of TensorRT, strict about what the real ones leave undefined.

Memory is real memory; a copy must lie within two live allocations and go the way its kind says, and what is captured
runs when its graph is launched, not before. An engine is JSON: its landmarks are, for each crop, the crop's first value
plus the point's index.
"""

from __future__ import annotations

import ctypes
import enum
import json
from types import SimpleNamespace

import numpy as np


class Error(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorNoDevice = 100
    cudaErrorStreamCaptureUnsupported = 900


class Cudart:
    """``cuda.bindings.runtime`` with one or no GPU."""

    class cudaMemcpyKind(enum.IntEnum):
        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2

    class cudaStreamCaptureMode(enum.IntEnum):
        cudaStreamCaptureModeThreadLocal = 1

    def __init__(self, capability=(8, 9), devices=1):
        self.capability, self.devices = capability, devices
        self.memory = {"host": {}, "device": {}}
        self.streams, self.graphs, self.launchable = set(), {}, {}
        self.capturing = None
        self.pending = []  # what the stream has been given and not been waited for
        self.log = []
        self.handles = iter(range(1, 10_000))

    def cudaSetDevice(self, index):
        return (Error.cudaSuccess if index < self.devices else Error.cudaErrorNoDevice,)

    def cudaGetDeviceProperties(self, index):
        major, minor = self.capability
        return Error.cudaSuccess, SimpleNamespace(name=b"GPU of a test", major=major, minor=minor)

    def _allocate(self, where, size):
        block = (ctypes.c_uint8 * size)(*([0xAB] * min(size, 64)))
        self.memory[where][ctypes.addressof(block)] = block
        return Error.cudaSuccess, ctypes.addressof(block)

    def _free(self, where, address):
        del self.memory[where][address]  # KeyError: freed twice, or never allocated
        return (Error.cudaSuccess,)

    def cudaMallocHost(self, size):
        return self._allocate("host", size)

    def cudaMalloc(self, size):
        return self._allocate("device", size)

    def cudaFreeHost(self, address):
        return self._free("host", address)

    def cudaFree(self, address):
        return self._free("device", address)

    def cudaStreamCreateWithFlags(self, flags):
        assert flags == 1
        self.streams.add(stream := next(self.handles))
        return Error.cudaSuccess, stream

    def cudaStreamDestroy(self, stream):
        self.streams.remove(stream)
        return (Error.cudaSuccess,)

    def do(self, stream, name, work):
        """Give the stream something to do, or the graph that is being captured."""
        assert stream in self.streams
        (self.pending if self.capturing is None else self.capturing).append((name, work))

    def holds(self, where, address, size):
        return any(start <= address and address + size <= start + len(b) for start, b in self.memory[where].items())

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        ends = ("device", "host") if kind == self.cudaMemcpyKind.cudaMemcpyHostToDevice else ("host", "device")
        if not (self.holds(ends[0], target, size) and self.holds(ends[1], source, size)):
            return (Error.cudaErrorInvalidValue,)
        self.do(stream, f"to {ends[0]} {size}", lambda: ctypes.memmove(target, source, size))
        return (Error.cudaSuccess,)

    def cudaStreamSynchronize(self, stream):
        if stream not in self.streams or self.capturing is not None:
            return (Error.cudaErrorInvalidValue,)
        for name, work in self.pending:
            self.log.append(name)
            work()
        self.pending = []
        return (Error.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream, mode):
        assert stream in self.streams and self.capturing is None and not self.pending
        self.capturing = []
        return (Error.cudaSuccess,)

    def cudaStreamEndCapture(self, stream):
        if self.capturing is None:
            return Error.cudaErrorInvalidValue, None
        self.graphs[graph := next(self.handles)] = self.capturing
        self.capturing = None
        self.log.append("captured")
        return Error.cudaSuccess, graph

    def cudaGraphInstantiate(self, graph, flags):
        self.launchable[launchable := next(self.handles)] = list(self.graphs[graph])
        return Error.cudaSuccess, launchable

    def cudaGraphDestroy(self, graph):
        del self.graphs[graph]
        return (Error.cudaSuccess,)

    def cudaGraphExecDestroy(self, launchable):
        del self.launchable[launchable]
        return (Error.cudaSuccess,)

    def cudaGraphLaunch(self, launchable, stream):
        self.do(stream, "launch", lambda: [work() for _, work in self.launchable[launchable]])
        return (Error.cudaSuccess,)

    @property
    def held(self):
        return [*self.memory["host"], *self.memory["device"], *self.streams, *self.graphs, *self.launchable]


class Context:
    def __init__(self, engine, config):
        self.engine, self.config, self.addresses, self.profile, self.shape = engine, config, {}, 0, None
        self.shape = engine.shape if engine.shape[0] > 0 else None
        engine.contexts.append(self)

    def set_optimization_profile_async(self, index, stream):
        self.profile = index
        return True

    def set_tensor_address(self, name, address):
        assert name in self.engine.tensors
        self.addresses[name] = address
        return True

    def set_input_shape(self, name, shape):
        least, _, most = self.engine.profiles[self.profile]
        assert name == "crops" and tuple(shape[1:]) == self.engine.shape[1:]
        self.shape = tuple(shape)
        return least <= shape[0] <= most

    def is_stream_capturable(self, stream):
        return self.engine.capturable

    def execute_async_v3(self, stream):
        shape, engine = self.shape, self.engine
        assert shape is not None and self.addresses.keys() == engine.tensors.keys()

        def compute():
            def view(name, dtype, shape):
                size = int(np.prod(shape)) * np.dtype(dtype).itemsize
                assert engine.cuda.holds("device", self.addresses[name], size), name
                memory = (ctypes.c_uint8 * size).from_address(self.addresses[name])
                return np.frombuffer(memory, dtype).reshape(shape)

            first = view("crops", np.uint8, shape)[:, 0, 0, 0].astype(np.float32)
            points = engine.tensors["landmarks"][1][1]
            index = np.arange(points, dtype=np.float32)
            view("landmarks", np.float32, (shape[0], points, 2))[:] = (first[:, None] + index)[..., None]
            if "scores" in engine.tensors:
                view("scores", np.float32, (shape[0], points))[:] = first[:, None] / 255
            if "presence" in engine.tensors:
                view("presence", np.float32, shape[:1])[:] = first / 255

        if engine.broken == "capture" and engine.cuda.capturing is not None:
            return False
        engine.cuda.do(stream, f"execute {shape[0]} profile {self.profile}", compute)
        return True


class Engine:
    def __init__(self, cuda, values):
        self.cuda, self.contexts = cuda, []
        self.profiles, self.capturable, self.broken = values["profiles"], values["capturable"], values["broken"]
        self.tensors = {name: (kind, tuple(shape)) for name, (kind, shape) in values["tensors"].items()}
        self.shape = self.tensors["crops"][1]
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index):
        return list(self.tensors)[index]

    def get_tensor_mode(self, name):
        return "in" if name == "crops" else "out"

    def get_tensor_dtype(self, name):
        return SimpleNamespace(name=self.tensors[name][0])

    def get_tensor_shape(self, name):
        return self.tensors[name][1]

    def create_runtime_config(self):
        return SimpleNamespace(create_runtime_cache=Cache, set_runtime_cache=lambda cache: None)

    def create_execution_context(self, config=None):
        return Context(self, config)


class Cache:
    def __init__(self):
        self.loaded = None

    def deserialize(self, data):
        self.loaded = data
        return data == b"kernels"

    def serialize(self):
        return b"kernels"


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


def tensorrt(cuda, name="tensorrt", version="11.2.0"):
    """A module ``name``; its ``engines`` are those it has deserialised."""
    engines = []

    class Runtime:
        def __init__(self, log):
            self.log = log

        def deserialize_cuda_engine(self, plan):
            if not plan.startswith(b"{"):
                self.log.log(ILogger.ERROR, "Magic tag does not match")
                return None
            engines.append(Engine(cuda, json.loads(plan)))
            return engines[-1]

    return SimpleNamespace(
        __name__=name,
        __version__=version,
        ILogger=ILogger,
        Runtime=Runtime,
        TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="eager"),
        engines=engines,
    )


def plan(spec, *, batch=None, profiles=((1, 1, 1), (1, 4, 4)), capturable=True, broken=None, **tensors):
    """The bytes of an engine of that contract; ``tensors`` put others in place of the contract's."""
    n, size = batch or -1, spec.crop.size
    own = {"crops": ("UINT8", (n, size, size, 3)), "landmarks": ("FLOAT", (n, spec.num_landmarks, 2))}
    if spec.has_scores:
        own["scores"] = ("FLOAT", (n, spec.num_landmarks))
    if spec.has_presence:
        own["presence"] = ("FLOAT", (n,))
    values = {"tensors": own | tensors, "profiles": profiles, "capturable": capturable, "broken": broken}
    return json.dumps(values).encode()
