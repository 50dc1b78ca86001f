"""The loop: schedule, prefetching, averaging, checkpoints that resume."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math

import pytest
import torch
from rich.console import Console
from torch import nn

from facelm_sdk.errors import InputError
from facelm_training.lamb import Lamb
from facelm_training.loop import Schedule, parts, prefetch, train, update_average
from facelm_training.progress import StageProgress


def test_rates():
    schedule = Schedule(steps=100, rate=1.0, final_rate=0.1, warmup=10, decay=0.5)
    assert schedule.rate_at(0) == pytest.approx(0.1)
    assert schedule.rate_at(9) == pytest.approx(1.0)
    assert [schedule.rate_at(step) for step in (10, 30, 50)] == pytest.approx([1.0] * 3)
    assert schedule.rate_at(75) == pytest.approx(0.55)
    assert schedule.rate_at(100) == pytest.approx(0.1)
    rates = [schedule.rate_at(step) for step in range(50, 101)]
    assert rates == sorted(rates, reverse=True)
    assert Schedule(steps=100, warmup=0).rate_at(0) == pytest.approx(1e-3)


class Task:
    """A line fitted through noise, with dropout so that the random state matters."""

    watch = "score"

    def __init__(self, breaks_at=None):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 1))
        self.breaks_at, self.asked, self.scored = breaks_at, [], 0

    def batch(self, step):
        self.asked.append(step)
        if self.breaks_at is not None and step >= self.breaks_at:
            raise ConnectionError("the power went")
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        return {"x": x, "y": x.sum(1, keepdim=True)}

    def loss(self, batch):
        return {"square": (self.model(batch["x"]).float() - batch["y"]).square().mean(), "nothing": torch.zeros(())}

    def evaluate(self, model):
        self.scored += 1
        assert not model.training
        return {"score": [3.0, 1.0, 2.0][self.scored % 3]}


SCHEDULE = Schedule(steps=6, batch=8, rate=0.05, warmup=2)


@pytest.mark.parametrize(("start", "steps"), [(0, 0), (0, 1), (0, 2), (0, 3), (0, 10), (3, 6), (5, 6), (6, 6)])
def test_prefetch_keeps_the_order(start, steps):
    class Counting(Task):
        def batch(self, step):
            return {"step": torch.tensor(step)}

    assert [int(batch["step"]) for batch in prefetch(Counting(), start, steps)] == list(range(start, steps))


def test_a_resumed_run_is_the_run_in_one_go(tmp_path):
    whole = train(Task(), SCHEDULE, tmp_path / "whole", save_every=3)
    with pytest.raises(ConnectionError):
        train(Task(breaks_at=3), SCHEDULE, tmp_path / "parts", save_every=3)
    assert not (tmp_path / "parts" / "done.pt").exists()
    task = Task()
    parts = train(task, SCHEDULE, tmp_path / "parts", save_every=3)
    assert task.asked == [3, 4, 5]
    for key, value in parts.state_dict().items():
        assert torch.equal(value, whole.state_dict()[key]), key
    last = [torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "parts")]
    for key, value in last[0]["model"].items():
        assert torch.equal(value, last[1]["model"][key]), key
    assert not torch.equal(whole.state_dict()["0.weight"], Task().model.state_dict()["0.weight"])


def test_a_finished_run_is_read_back(tmp_path):
    done = train(Task(), SCHEDULE, tmp_path)
    again = Task(breaks_at=0)
    for key, value in train(again, SCHEDULE, tmp_path).state_dict().items():
        assert torch.equal(value, done.state_dict()[key])
    assert again.asked == []


def test_what_a_run_leaves(tmp_path):
    task = Task()
    train(task, SCHEDULE, tmp_path, evaluate_every=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.pt",
        "done.pt",
        "last.pt",
        "log.csv",
        "schedule.json",
    ]
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["step"] for row in rows] == ["4", "6"] and task.scored == 2
    assert {"rate", "square", "nothing", "score", "minutes"} <= rows[0].keys()
    assert json.loads((tmp_path / "schedule.json").read_text())["steps"] == 6


def test_the_best_weights_are_kept(tmp_path):
    class Weights(Task):
        def evaluate(self, model):
            self.states = [*getattr(self, "states", []), {k: v.clone() for k, v in model.state_dict().items()}]
            return {"score": [3.0, 1.0, 2.0][len(self.states) - 1]}

    task = Weights()
    train(task, SCHEDULE, tmp_path, evaluate_every=2)
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert all(torch.equal(value, task.states[1][key]) for key, value in best.items())
    assert not torch.equal(best["0.weight"], task.states[2]["0.weight"])


def test_rates_that_drop():
    schedule = Schedule(epochs=10, batch=32, rate=1.0, warmup=0, drops=(0.5, 0.75)).over(320)
    assert (schedule.steps, schedule.epochs) == (100, 0)
    assert [schedule.rate_at(step) for step in (0, 49, 50, 74, 75, 99)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("options", [{}, {"steps": 5, "epochs": 2}])
def test_a_schedule_has_one_length(options):
    with pytest.raises(InputError, match="steps or epochs"):
        Schedule(**options)


def test_lamb_by_hand():
    """The first step of Adam is the gradient's sign; LAMB gives it the length of the weights."""
    p = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    optimiser = Lamb([p], lr=0.1, eps=0.0)
    p.grad = torch.tensor([0.5, -2.0])
    optimiser.step()
    ratio = 5 / 2**0.5
    torch.testing.assert_close(p.data, torch.tensor([3 - 0.1 * ratio, 4 + 0.1 * ratio]))


def test_lamb_by_its_algorithm():
    """Algorithm 2 of its paper in Python's own arithmetic: three steps with weight decay, moments corrected in each."""
    p = torch.nn.Parameter(torch.tensor([3.0, -4.0], dtype=torch.float64))
    optimiser = Lamb([p], lr=0.1, weight_decay=0.3)
    x, mean, square = [3.0, -4.0], [0.0, 0.0], [0.0, 0.0]
    for step, gradient in enumerate(([0.5, -2.0], [-1.0, 0.25], [3.0, 1.0]), start=1):
        p.grad = torch.tensor(gradient, dtype=torch.float64)
        optimiser.step()
        mean = [0.9 * m + 0.1 * g for m, g in zip(mean, gradient, strict=True)]
        square = [0.999 * v + 0.001 * g * g for v, g in zip(square, gradient, strict=True)]
        ratio = [
            m / (1 - 0.9**step) / ((v / (1 - 0.999**step)) ** 0.5 + 1e-6) for m, v in zip(mean, square, strict=True)
        ]
        update = [r + 0.3 * w for r, w in zip(ratio, x, strict=True)]
        trust = math.hypot(*x) / math.hypot(*update)
        x = [w - 0.1 * trust * u for w, u in zip(x, update, strict=True)]
        assert p.tolist() == pytest.approx(x, rel=1e-9)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    class Broken(Task):
        def loss(self, batch):
            return {"square": self.model(batch["x"]).mean() * float("nan")}

    with pytest.raises(FloatingPointError, match=r"tiny: the loss is nan at step 0"):
        train(Broken(), SCHEDULE, tmp_path, description="tiny")


def test_the_average_follows():
    average, model = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.running_mean.fill_(-1.0)
        model.num_batches_tracked.fill_(7)
    update_average(average, model, 0.75)
    assert average.weight.tolist() == [1.5, 1.5]
    assert average.running_mean.tolist() == [-0.25, -0.25]
    assert int(average.num_batches_tracked) == 7


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "facelm_training.progress"]


def test_without_a_terminal_there_is_a_line_now_and_then(tmp_path, caplog, capfd, monkeypatch):
    """The first step, every hundred, the last, and the scores; nothing but the log writes, colours forced or not."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    caplog.set_level("INFO")
    schedule = Schedule(steps=230, batch=8, rate=0.01, warmup=2)
    train(Task(), schedule, tmp_path, evaluate_every=150, description="tiny full")
    found = lines(caplog)
    steps = [line.split(",")[0].removeprefix("tiny full ") for line in found]
    assert steps == ["1/230", "100/230", "150/230", "200/230", "230/230", "230/230"]
    assert all("minutes: square " in line for line in found if "held out" not in line)
    assert found[2] == "tiny full 150/230, held out: score 1" and "nothing 0" in found[0]
    captured = capfd.readouterr()
    assert captured.out == "" and "\x1b" not in captured.err and "━" not in captured.err


def test_a_resumed_run_says_at_once_that_it_lives(tmp_path, caplog):
    with pytest.raises(ConnectionError):
        train(Task(breaks_at=3), SCHEDULE, tmp_path, save_every=3)
    caplog.clear()
    caplog.set_level("INFO")
    train(Task(), SCHEDULE, tmp_path, description="tiny")
    assert lines(caplog)[0].startswith("tiny 4/6, ")


def test_a_terminal_has_a_bar(caplog):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    caplog.set_level("INFO")
    screen = Terminal()
    with StageProgress("tiny", 4, 0, Console(file=screen, force_terminal=True, width=100)) as progress:
        progress.step(4, 0.1, {"square": 0.25})
        progress.scores(4, {"score": 1.5})
    assert "4/4" in screen.getvalue() and "square 0.25" in screen.getvalue()
    assert "tiny 4/4, held out: score 1.5" in screen.getvalue() and lines(caplog) == []


def test_a_longer_schedule_goes_on_and_a_shorter_one_cannot(tmp_path):
    train(Task(), SCHEDULE, tmp_path)
    (tmp_path / "done.pt").unlink()
    with pytest.raises(InputError, match="at step 6 already, beyond the 4 asked for"):
        train(Task(), Schedule(steps=4, batch=8), tmp_path)
    task = Task()
    train(task, Schedule(steps=8, batch=8, weight_decay=0.5), tmp_path)
    assert task.asked == [6, 7]
    groups = torch.load(tmp_path / "last.pt", weights_only=True)["optimiser"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]


def test_parts_of_a_batch_keep_the_views_of_a_sample_together():
    base = torch.arange(4)
    batch = {"views": torch.cat([base, base + 10])[:, None], "base": base}
    found = list(parts(batch, 2))
    assert [part["base"].tolist() for part in found] == [[0, 1], [2, 3]]
    assert [part["views"][:, 0].tolist() for part in found] == [[0, 1, 10, 11], [2, 3, 12, 13]]


class Plain(Task):
    """Without what makes a part differ from the whole: batch norm and dropout."""

    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))


def test_an_accumulated_batch_is_the_batch(tmp_path):
    schedule = dataclasses.replace(SCHEDULE, precision="fp32")
    whole = train(Plain(), schedule, tmp_path / "whole", evaluate_every=3).state_dict()
    schedule = dataclasses.replace(schedule, accumulate=4)
    accumulated = train(Plain(), schedule, tmp_path / "parts", evaluate_every=3).state_dict()
    for key, value in whole.items():
        torch.testing.assert_close(accumulated[key], value, rtol=1e-3, atol=1e-4)
    logs = [list(csv.DictReader((tmp_path / name / "log.csv").open())) for name in ("whole", "parts")]
    for one, other in zip(*logs, strict=True):
        assert float(one["square"]) == pytest.approx(float(other["square"]), rel=1e-2)
    with pytest.raises(InputError, match="accumulate is a divisor of the batch, which is 8, not 3"):
        dataclasses.replace(SCHEDULE, accumulate=3)


def test_a_schedule_says_its_precision_and_which_weights_result(tmp_path, caplog):
    cpu = torch.device("cpu")
    told = dataclasses.replace(SCHEDULE, precision="bf16", accumulate=2, ema=0.99).told(cpu)
    assert told == {
        "batch": 8,
        "optimiser": "adamw",
        "accumulate": 2,
        "precision": "bf16 autocast",
        "weights": "exponential moving average, decay 0.99",
    }
    plain = dataclasses.replace(SCHEDULE, precision="fp32", ema=0.0)
    assert (plain.told(cpu)["precision"], plain.told(cpu)["weights"]) == ("fp32", "of the last step")
    with caplog.at_level("INFO"):
        train(Plain(), plain, tmp_path, description="a line")
    assert "a line: batch 8, optimiser adamw, precision fp32, weights of the last step" in caplog.text


def test_a_log_of_an_older_version_goes_on_in_its_columns(tmp_path):
    (tmp_path / "log.csv").write_text("step,score\n2,5.0\n")
    train(Task(), SCHEDULE, tmp_path, evaluate_every=3)
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["step"] for row in rows] == ["2", "3", "6"] and set(rows[0]) == {"step", "score"}
