"""What is known of the processor, by what each system tells."""

from __future__ import annotations

import ctypes
import platform
import types
from pathlib import Path

import pytest

from facelm_sdk import machine


@pytest.fixture
def on(monkeypatch):
    """Has the processor asked anew, on a system and a kind of processor."""

    def ask(system, kind):
        monkeypatch.setattr(platform, "system", lambda: system)
        monkeypatch.setattr(platform, "machine", lambda: kind)
        machine.fast_int8.cache_clear()
        return machine.fast_int8()

    yield ask
    machine.fast_int8.cache_clear()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags : fpu avx2 avx512_vnni\n", True),
        ("flags : fpu avx2\n", False),
        ("flags : fpu avx_vnni\nflags : fpu\n", False),
        ("Features : fp asimd asimddp\n", True),
        ("", False),
    ],
)
def test_linux_names_abilities(on, monkeypatch, text, expected):
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: text)
    assert on("Linux", "x86_64") is expected


def test_linux_that_tells_nothing(on, monkeypatch):
    def missing(self, encoding):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert on("Linux", "aarch64") is False


def test_arm_processors_elsewhere(on, monkeypatch):
    assert on("Darwin", "arm64") is True
    assert on("FreeBSD", "arm64") is False
    for features in ((43,), (42, 44)):
        kernel = types.SimpleNamespace(IsProcessorFeaturePresent=lambda number, known=features: int(number in known))
        monkeypatch.setattr(ctypes, "windll", types.SimpleNamespace(kernel32=kernel), raising=False)
        assert on("Windows", "ARM64") is (43 in features)
    monkeypatch.delattr(ctypes, "windll")
    assert on("Windows", "ARM64") is False


@pytest.mark.parametrize(
    ("table", "expected"), [({"AVX512VNNI": True}, True), ({"AVX512VNNI": False}, False), ({}, False), (None, False)]
)
@pytest.mark.parametrize("system", ["Windows", "Darwin"])
def test_x86_elsewhere_is_what_numpy_found(on, monkeypatch, system, table, expected):
    module = types.SimpleNamespace(**({} if table is None else {"__cpu_features__": table}))
    monkeypatch.setattr(machine, "import_module", lambda name: module)
    assert on(system, "AMD64") is expected


def test_a_numpy_that_lies_elsewhere(on, monkeypatch):
    def moved(name):
        raise ImportError(name)

    monkeypatch.setattr(machine, "import_module", moved)
    assert on("Windows", "AMD64") is False
