"""The training loop: optimiser, schedule, EMA, prefetching, checkpoints that resume and a CSV log."""

from __future__ import annotations

import copy
import csv
import io
import json
import logging
import math
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import nn

from facelm_sdk.errors import InputError
from facelm_sdk.files import write_bytes

from .checks import number, part
from .lamb import Lamb
from .progress import StageProgress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """Optimiser and learning rate.

    ``steps``, or ``epochs`` over the data. The rate rises linearly over ``warmup`` steps, then either falls by
    ``factor`` at each of ``drops`` (parts of the whole, 0..1) or, without drops, is constant and falls as a cosine over
    the last ``decay`` part. ``clip``: largest norm of the gradient, 0 for any. ``ema``: decay of the averaged weights,
    which are the result; 0: the last weights. ``precision``: of the forward pass; ``auto`` is bf16 where the processor
    computes in it and fp32 elsewhere. ``accumulate``: the parts a batch is computed in, one after the other, where it
    does not fit into the memory as a whole; the loss is the mean of theirs, and batch norm sees a part at a time.
    Raises InputError where an entry is out of its bounds.
    """

    steps: int = 0
    epochs: int = 0
    batch: int = 32
    accumulate: int = 1
    optimiser: Literal["adamw", "adam", "lamb"] = "adamw"
    rate: float = 1e-3
    final_rate: float = 0.0
    warmup: int = 200
    decay: float = 1.0
    drops: tuple[float, ...] = ()
    factor: float = 0.1
    weight_decay: float = 0.02
    clip: float = 5.0
    ema: float = 0.998
    precision: Literal["auto", "bf16", "fp32"] = "auto"

    def __post_init__(self) -> None:
        if (self.steps > 0) == (self.epochs > 0):
            raise InputError(f"a schedule has steps or epochs, one of them; got {self.steps} and {self.epochs}")
        for name in ("steps", "epochs", "warmup", "final_rate", "weight_decay", "clip"):
            number(name, getattr(self, name), least=0)
        number("batch", self.batch, least=1)
        number("accumulate", self.accumulate, least=1)
        if self.batch % self.accumulate:
            raise InputError(f"accumulate is a divisor of the batch, which is {self.batch}, not {self.accumulate}")
        number("rate", self.rate, least=0)
        number("factor", self.factor, above=0)
        number("ema", self.ema, least=0, below=1)
        part("decay", self.decay)
        for drop in self.drops:
            part("drops", drop)

    def told(self, device: torch.device) -> dict[str, Any]:
        """Return what a card says of it: batch, parts, precision on ``device``, and which weights result."""
        told: dict[str, Any] = {"batch": self.batch, "optimiser": self.optimiser}
        if self.accumulate > 1:
            told["accumulate"] = self.accumulate
        weights = f"exponential moving average, decay {self.ema:g}" if self.ema else "of the last step"
        return told | {"precision": "bf16 autocast" if _in_bf16(self, device) else "fp32", "weights": weights}

    def over(self, samples: int) -> Schedule:
        """The same with its epochs over ``samples`` counted in steps."""
        return replace(self, steps=self.epochs * math.ceil(samples / self.batch), epochs=0) if self.epochs else self

    def rate_at(self, step: int) -> float:
        """Learning rate of step ``step``, counted from 0."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        if self.drops:
            return self.rate * self.factor ** sum(step >= drop * self.steps for drop in self.drops)
        start = self.steps * (1 - self.decay)
        part = min(max((step - start) / max(self.steps - start, 1), 0.0), 1.0)
        return self.final_rate + (self.rate - self.final_rate) * 0.5 * (1 + math.cos(math.pi * part))


class Task(Protocol):
    """What one stage of training needs to say for itself."""

    model: nn.Module
    watch: str
    """The score by which the best weights are chosen; the lower the better."""

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """The batch of that step, by the seed and ``step`` alone, so that a resumed run sees the same data."""

    def loss(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Named losses; their sum is minimised."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Scores of ``model`` on held-out data."""


def prefetch(task: Task, start: int, steps: int, ahead: int = 3) -> Iterator[dict[str, torch.Tensor]]:
    """Batches ``start`` to ``steps``, made in the background."""
    with ThreadPoolExecutor(1) as pool:
        queue: list[Future[dict[str, torch.Tensor]]] = []
        for step in range(start, steps + ahead):
            if step < steps:
                queue.append(pool.submit(task.batch, step))
            if step >= start + ahead or step >= steps:
                if not queue:
                    return
                yield queue.pop(0).result()
        while queue:
            yield queue.pop(0).result()


def parts(batch: dict[str, torch.Tensor], count: int) -> Iterator[dict[str, torch.Tensor]]:
    """Split a batch in ``count`` parts; tensors of several views of each sample, one after the other, by sample."""
    samples = min(len(value) for value in batch.values())
    for index in torch.arange(samples).chunk(count):
        yield {
            key: value.unflatten(0, (-1, samples))[:, index[0] : index[-1] + 1].flatten(0, 1)  # type: ignore[no-untyped-call]
            for key, value in batch.items()
        }


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Exponential moving average of every floating tensor, batch-norm statistics included."""
    own = model.state_dict()
    for key, value in average.state_dict().items():
        if value.dtype.is_floating_point:
            value.lerp_(own[key], 1 - decay)
        else:
            value.copy_(own[key])


def train(
    task: Task,
    schedule: Schedule,
    folder: Path,
    *,
    evaluate_every: int = 500,
    save_every: int = 100,
    description: str = "training",
) -> nn.Module:
    """Run a stage to its end, from its last checkpoint in ``folder`` when there is one. Returns the averaged model.

    ``folder`` gets ``last.pt`` (resumable), ``best.pt`` (the averaged weights that scored best so far), ``log.csv``
    and, at the end, ``done.pt`` (the averaged weights). The model trains on the device its weights are on.
    """
    model = task.model
    average = copy.deepcopy(model).eval()
    if (folder / "done.pt").is_file():
        average.load_state_dict(torch.load(folder / "done.pt", map_location="cpu", weights_only=True))
        return average
    optimiser = _optimiser(model, schedule)
    device = next(model.parameters()).device
    half = _in_bf16(schedule, device)
    log.info("%s: %s", description, ", ".join(f"{key} {value}" for key, value in schedule.told(device).items()))
    start, best, before = 0, math.inf, 0.0
    if (folder / "last.pt").is_file():
        state = torch.load(folder / "last.pt", map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        for group, decay in zip(optimiser.param_groups, _decays(schedule), strict=True):
            group["weight_decay"] = decay  # a changed schedule's
        start, best, before = state["step"], state["best"], state.get("minutes", 0.0)
        if start > schedule.steps:
            raise InputError(f"{folder} is at step {start} already, beyond the {schedule.steps} asked for")
        log.info("resumed %s at step %d of %d", description, start, schedule.steps)
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "schedule.json", json.dumps(asdict(schedule), indent=1).encode())

    began = time.monotonic()

    def minutes() -> float:
        """Of training so far, earlier runs included."""
        return before + (time.monotonic() - began) / 60

    def save(step: int) -> None:
        state = {
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimiser": optimiser.state_dict(),
            "step": step,
            "best": best,
            "minutes": minutes(),
        }
        write_bytes(folder / "last.pt", _serialised(state))

    running: dict[str, float] = {}
    with StageProgress(description, schedule.steps, start) as progress:
        for step, batch in enumerate(prefetch(task, start, schedule.steps), start):
            model.train()
            rate = schedule.rate_at(step)
            for group in optimiser.param_groups:
                group["lr"] = rate
            torch.manual_seed(step)  # dropout, so that a resumed run repeats
            optimiser.zero_grad(set_to_none=True)
            values: dict[str, float] = {}
            for piece in [batch] if schedule.accumulate == 1 else parts(batch, schedule.accumulate):
                with torch.autocast(device.type, torch.bfloat16, enabled=half):
                    losses = task.loss({key: value.to(device) for key, value in piece.items()})
                total = torch.stack(list(losses.values())).sum() / schedule.accumulate
                if not torch.isfinite(total):
                    raise FloatingPointError(f"{description}: the loss is {total.item()} at step {step}")
                total.backward()  # type: ignore[no-untyped-call]
                for key, value in losses.items():
                    values[key] = values.get(key, 0.0) + value.item() / schedule.accumulate
            if schedule.clip:
                nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
            optimiser.step()
            update_average(average, model, min(schedule.ema, (step + 1) / (step + 10)))
            for key, mean in values.items():
                running[key] = 0.98 * running.get(key, mean) + 0.02 * mean
            done = step + 1
            progress.step(done, minutes(), running)
            if done % save_every == 0:
                save(done)
            if done % evaluate_every == 0 or done == schedule.steps:
                scores = task.evaluate(average)
                row = {"step": done, "minutes": round(minutes(), 2), "rate": rate}
                row |= {key: round(value, 5) for key, value in (running | scores).items()}
                _append(folder / "log.csv", row)
                if scores[task.watch] < best:
                    best = scores[task.watch]
                    write_bytes(folder / "best.pt", _serialised(average.state_dict()))
                progress.scores(done, scores)
    save(schedule.steps)
    write_bytes(folder / "done.pt", _serialised(average.state_dict()))
    return average


def _decays(schedule: Schedule) -> tuple[float, float]:
    return schedule.weight_decay, 0.0


def _optimiser(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """Weight decay is for matrices and kernels, not for biases and norms."""
    trained = [p for p in model.parameters() if p.requires_grad]
    kernels, biases = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
    groups = [
        {"params": part, "weight_decay": decay}
        for part, decay in zip((kernels, biases), _decays(schedule), strict=True)
    ]
    kinds: dict[str, type[Any]] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "lamb": Lamb}
    fused = {} if schedule.optimiser == "lamb" else {"fused": True}  # a kernel for all of a thousand tensors
    optimiser: torch.optim.Optimizer = kinds[schedule.optimiser](groups, lr=schedule.rate, **fused)
    return optimiser


def _in_bf16(schedule: Schedule, device: torch.device) -> bool:
    if schedule.precision != "auto":
        return schedule.precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capable = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(capable())


def _serialised(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _append(path: Path, row: dict[str, Any]) -> None:
    new = not path.is_file()
    with path.open("a+", newline="") as file:
        file.seek(0)  # a run of an older version goes on in its own columns
        columns = list(row) if new else next(csv.reader(file))
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerow(row)
