"""An ONNX landmark model -> a TensorRT engine and its card. One builder for TensorRT 10, 11 and TensorRT for RTX.

Engines are built strongly typed: precision is what the graph says. TensorRT for RTX builds ahead of time, on any
machine, and was tried that way with every landmark model; with TensorRT proper, which builds on the GPU that the engine
is for, this module was never run for want of one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...contract import LandmarkSpec, ModelSpec, Tensor, Tensors, check
from ...errors import EngineError, InputError
from .api import Cuda, load_tensorrt, make_log, tensor
from .sidecar import EngineCard, card_path, sha256, timing_path

MAX_BATCH = 16
PORTABLE = ("8.0", "8.6", "8.9", "12.0+")
"""The compute capabilities that TensorRT for RTX builds for unless told otherwise."""

Progress = Callable[[float], None]


@dataclass(frozen=True)
class BuiltEngine:
    """``timing``: TensorRT's timing cache, with which it builds the like again in less time; None where it has none."""

    engine: bytes
    card: EngineCard
    timing: bytes | None

    def files(self, path: Path) -> dict[Path, bytes]:
        """The files of an engine ``path``: itself, its card and, where there is one, the timing cache."""
        made = {path: self.engine, card_path(path): self.card.to_json().encode()}
        return made if self.timing is None else {**made, timing_path(path): self.timing}


def read_timing(path: Path) -> bytes | None:
    """The timing cache that an earlier engine ``path`` left."""
    timing = timing_path(path)
    return timing.read_bytes() if timing.is_file() else None


def build_engine(
    onnx: bytes,
    spec: ModelSpec,
    *,
    max_batch: int = MAX_BATCH,
    device: str = "cuda:0",
    compute_capabilities: Sequence[str] = (),
    workspace: int | None = None,
    timing: bytes | None = None,
    rebuild: str | None = None,
    progress: Progress = lambda done: None,
) -> BuiltEngine:
    """Build the engine of ``onnx``, a landmark model's file whose contract is ``spec``.

    Where the file leaves the number of crops open, the engine takes 1 to ``max_batch``. TensorRT builds on the GPU
    ``device``, for that kind of GPU; TensorRT for RTX needs none and builds for ``compute_capabilities`` such as "8.6"
    (default: those of PORTABLE). ``workspace``: the most bytes of scratch memory; default: as much as there is.
    ``progress`` is told the part done, 0 to 1, from another thread. An interrupt ends the build
    at TensorRT's next step.

    Raises MissingDependencyError, InputError and EngineError with TensorRT's first error.
    """
    spec = check_buildable(spec)
    if max_batch < 1:
        raise InputError(f"max_batch is at least 1, not {max_batch}")
    trt = load_tensorrt()
    ahead = trt.__name__ == "tensorrt_rtx"
    if compute_capabilities and not ahead:
        raise InputError("compute_capabilities are for TensorRT for RTX; TensorRT builds for the GPU it runs on")
    gpu = None if ahead else Cuda(device)
    log = make_log(trt)
    builder = trt.Builder(log)
    network, parser = _parsed(trt, builder, onnx, log, spec)
    batch, profiles = _profiles(network, max_batch, ahead=ahead)
    config = builder.create_builder_config()
    _configure(trt, config, workspace)
    _add_profiles(builder, config, network, profiles)
    _set_targets(trt, config, compute_capabilities)
    cache = None if ahead else config.create_timing_cache(timing or b"")
    if cache is not None:
        config.set_timing_cache(cache, True)
    monitor = config.progress_monitor = _make_monitor(trt, progress)
    plan = _run(lambda: _build(builder, network, config, gpu), monitor)
    if plan is None:
        raise EngineError(f"{_name(trt)} cannot build {spec.name} in {spec.precision}: {log.first_error()}")
    del parser  # it holds the weights until here
    progress(1.0)
    engine = bytes(plan)
    card = EngineCard(
        flavour=trt.__name__,
        version=trt.__version__,
        gpu=gpu.name if gpu else None,
        compute_capabilities=(gpu.capability,) if gpu else tuple(compute_capabilities) or PORTABLE,
        batch=batch,
        profiles=profiles,
        engine_sha256=sha256(engine),
        source_sha256=sha256(onnx),
        rebuild=rebuild,
        spec=spec,
    )
    return BuiltEngine(engine, card, None if cache is None else bytes(config.get_timing_cache().serialize()))


def check_buildable(spec: ModelSpec) -> LandmarkSpec:
    """Return the contract of a model that can become an engine. Raises InputError where it cannot."""
    if not isinstance(spec, LandmarkSpec):
        raise InputError(
            f"{spec.name} is for {spec.task}: its non-maximum suppression gives as many faces as there are, which "
            f"an engine of fixed buffers does not; export it as ONNX and open that with "
            f"providers=['CUDAExecutionProvider', 'CPUExecutionProvider'], where TensorRT runs what it can with "
            f"'TensorrtExecutionProvider' before them"
        )
    return spec


def _name(trt: Any) -> str:
    return f"{trt.__name__} {trt.__version__}"


def _parsed(trt: Any, builder: Any, onnx: bytes, log: Any, spec: LandmarkSpec) -> tuple[Any, Any]:
    """The network, and the parser, which must outlive it."""
    flag = trt.NetworkDefinitionCreationFlag
    strongly_typed = getattr(flag, "STRONGLY_TYPED", None)  # from TensorRT 11 on it is so with or without
    network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(onnx):
        error = parser.get_error(0) if parser.num_errors else None
        reason = f"{error.desc()} {_where(error)}".strip() if error else log.first_error()
        if spec.precision == "int8":
            reason += "; int8 for TensorRT is another file than for the CPU: export it with --target tensorrt"
        raise EngineError(f"{_name(trt)} cannot read the ONNX graph of {spec.name}: {reason}")
    inputs, outputs = (
        _tensors(get, count)
        for get, count in ((network.get_input, network.num_inputs), (network.get_output, network.num_outputs))
    )
    check(Tensors(inputs, outputs), spec, f"the graph of {spec.name}")
    return network, parser


def _where(error: Any) -> str:
    return f"(node {error.node_name()}, {error.node_operator()})" if error.node_name() else ""


def _tensors(get: Callable[[int], Any], count: int) -> dict[str, Tensor]:
    return {one.name: tensor(one.dtype.name, one.shape) for one in map(get, range(count))}


def _profiles(network: Any, max_batch: int, *, ahead: bool) -> tuple[int | None, tuple[tuple[int, int, int], ...]]:
    """The fixed number of crops, or the (least, best, most) of each profile.

    TensorRT picks kernels by timing them on the best number: one profile for single faces, one for many. TensorRT for
    RTX fits its kernels to the shapes that it meets.
    """
    batch = network.get_input(0).shape[0]
    if batch > 0:
        return batch, ()
    if ahead or max_batch == 1:
        return None, ((1, max_batch, max_batch),)
    return None, ((1, 1, 1), (1, max_batch, max_batch))


def _configure(trt: Any, config: Any, workspace: int | None) -> None:
    # TF32 keeps as few digits as fp16: coordinates, and what fp32 promises, need them all.
    config.clear_flag(trt.BuilderFlag.TF32)
    user_allocation = getattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)
    if user_allocation is not None:  # TensorRT for RTX: without it, runs cannot be captured in a CUDA graph
        config.set_flag(user_allocation)
    if workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)


def _add_profiles(builder: Any, config: Any, network: Any, profiles: Sequence[tuple[int, int, int]]) -> None:
    crops = network.get_input(0)
    for sizes in profiles:
        profile = builder.create_optimization_profile()
        profile.set_shape(crops.name, *((size, *tuple(crops.shape)[1:]) for size in sizes))
        config.add_optimization_profile(profile)


def _set_targets(trt: Any, config: Any, targets: Sequence[str]) -> None:
    if not targets:
        return
    known = {
        f"{value // 10}.{value % 10}": member
        for member in trt.ComputeCapability.__members__.values()
        if (value := int(member.value)) >= 10
    }
    if unknown := [target for target in targets if target not in known]:
        raise InputError(f"{_name(trt)} builds for {', '.join(sorted(known, key=float))}, not {', '.join(unknown)}")
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(known[target], index)


def _build(builder: Any, network: Any, config: Any, gpu: Cuda | None) -> Any:
    if gpu is not None:
        gpu.use()
    return builder.build_serialized_network(network, config)


def _run(build: Callable[[], Any], monitor: Any) -> Any:
    """The plan, built in a thread: an interrupt raised inside one of TensorRT's callbacks would end the process."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(build)
        try:
            plan = future.result()
        except BaseException:
            monitor.stopped.set()
            raise
    if monitor.error is not None:
        raise monitor.error
    return plan


def _make_monitor(trt: Any, progress: Progress) -> Any:
    """TensorRT's view of ``progress``: phases lie in phases, each of so many steps."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.stopped = threading.Event()
            self.error: Exception | None = None
            self.phases: dict[str, tuple[int, int]] = {}  # steps done and all steps, the outermost first
            self.done = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases[phase_name] = (0, max(1, num_steps))

        def phase_finish(self, phase_name: str) -> None:
            self.phases.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.phases[phase_name] = (step + 1, self.phases.get(phase_name, (0, step + 1))[1])
            self.done = min(1.0, max(self.done, part_done(list(self.phases.values()))))
            try:
                progress(self.done)
            except Exception as error:  # must not reach TensorRT
                self.error = error
                self.stopped.set()
            return not self.stopped.is_set()

    return Monitor()


def part_done(phases: Sequence[tuple[int, int]]) -> float:
    """How much of the outermost phase is done, each phase lying in the step that the one before it is at."""
    done, width = 0.0, 1.0
    for steps, of in phases:
        done += width * steps / of
        width /= of
    return done
