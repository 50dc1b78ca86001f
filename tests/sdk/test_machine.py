"""What is known of the processor, by what each system tells: as such machines print it, shortened."""

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
        machine.int8.cache_clear()
        assert machine.fast_int8() is machine.int8().fast
        return machine.int8()

    yield ask
    machine.int8.cache_clear()


ZEN4 = "flags\t\t: sse4_2 avx f16c avx2 avx512f avx512bw avx512vl avx512_bf16 avx512_vbmi2 avx512_vnni rdpid fsrm"
SKYLAKE = "flags\t\t: fpu vme sse4_2 avx f16c avx2 avx512f avx512dq avx512cd avx512bw avx512vl xsaveopt md_clear"
ALDER_LAKE = "flags\t\t: fpu vme sse4_2 avx f16c avx2 sha_ni xsaveopt avx_vnni dtherm ida arat pln pts serialize"
GRAVITON2 = (
    "Features\t: fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs"
)
GRAVITON3 = f"{GRAVITON2} sve asimdfhm svei8mm svebf16 i8mm bf16 dgh rng"
RASPBERRY_PI_4 = "Features\t: fp asimd evtstrm crc32 cpuid"


@pytest.mark.parametrize(
    ("lines", "fast", "told"),
    [
        ([ZEN4] * 2, True, "/proc/cpuinfo has avx512_vnni"),
        ([SKYLAKE], False, "/proc/cpuinfo has none of avx512_vnni, avx_vnni, asimddp"),
        ([ALDER_LAKE], True, "/proc/cpuinfo has avx_vnni"),
        ([ALDER_LAKE, SKYLAKE], False, "/proc/cpuinfo has none"),
        ([GRAVITON2], True, "/proc/cpuinfo has asimddp"),
        ([GRAVITON3] * 4, True, "/proc/cpuinfo has asimddp"),
        ([RASPBERRY_PI_4] * 4, False, "/proc/cpuinfo has none"),
    ],
)
def test_linux_names_abilities_of_each_core(on, monkeypatch, lines, fast, told):
    text = "\n\n".join(f"processor\t: {core}\n{line}" for core, line in enumerate(lines))
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: text)
    found = on("Linux", "aarch64" if "Features" in text else "x86_64")
    assert found.fast is fast and found.told.startswith(told)


@pytest.mark.parametrize("text", [None, "", "processor : 0\n"])
@pytest.mark.parametrize("known", [True, False])
def test_numpy_is_asked_where_linux_tells_nothing(on, monkeypatch, text, known):
    def read(self, encoding):
        if text is None:
            raise FileNotFoundError
        return text

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(machine, "_numpy_found", lambda name: known and name == "ASIMDDP")
    found = on("Linux", "aarch64")
    assert found.fast is known and found.told.startswith("numpy found ASIMDDP" if known else "numpy found none of")


M1 = {"hw.optional.arm.FEAT_DotProd": 1, "hw.optional.arm.FEAT_I8MM": 0, "hw.optional.arm.FEAT_BF16": 0}


@pytest.mark.parametrize(
    ("known", "fast", "told"),
    [
        (M1, True, "hw.optional.arm.FEAT_DotProd is 1"),
        ({"hw.optional.arm.FEAT_DotProd": 0}, False, "hw.optional.arm.FEAT_DotProd is 0"),
        ({"hw.optional.neon": 1}, True, "hw.optional.arm.FEAT_DotProd is unknown"),  # macOS 11
        (None, True, "hw.optional.arm.FEAT_DotProd is unknown"),
    ],
)
def test_macos_is_asked_by_sysctl(on, monkeypatch, known, fast, told):
    def sysctlbyname(name, value, size, new, length):
        assert size._obj.value == ctypes.sizeof(value._obj) and new is None
        if name.decode() not in known:
            return -1
        value._obj.value = known[name.decode()]
        return 0

    library = types.SimpleNamespace() if known is None else types.SimpleNamespace(sysctlbyname=sysctlbyname)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    found = on("Darwin", "arm64")
    assert found.fast is fast and found.told.startswith(told)


def test_macos_on_intel_keeps_avx512_from_onnxruntime(on, monkeypatch):
    monkeypatch.setattr(machine, "_numpy_found", lambda name: True)
    assert on("Darwin", "x86_64") == machine.Int8(False, "onnxruntime cannot count on AVX-512 on macOS")


SNAPDRAGON_8CX_GEN_3, SNAPDRAGON_835 = {29, 30, 31, 34, 43}, {29, 30, 31}


@pytest.mark.parametrize(("features", "fast"), [(SNAPDRAGON_8CX_GEN_3, True), (SNAPDRAGON_835, False)])
def test_windows_is_asked_for_the_features_of_arm(on, monkeypatch, features, fast):
    kernel = types.SimpleNamespace(IsProcessorFeaturePresent=lambda number: int(number in features))
    monkeypatch.setattr(ctypes, "windll", types.SimpleNamespace(kernel32=kernel), raising=False)
    found = on("Windows", "ARM64")
    assert found.fast is fast and "PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE" in found.told
    monkeypatch.delattr(ctypes, "windll")
    assert not on("Windows", "ARM64").fast


@pytest.mark.parametrize(
    ("table", "expected"), [({"AVX512VNNI": True}, True), ({"AVX512VNNI": False}, False), ({}, False), (None, False)]
)
def test_windows_on_x86_is_what_numpy_found(on, monkeypatch, table, expected):
    module = types.SimpleNamespace(**({} if table is None else {"__cpu_features__": table}))
    monkeypatch.setattr(machine, "import_module", lambda name: module)
    found = on("Windows", "AMD64")
    assert found.fast is expected and found.told.startswith("numpy found")


def test_a_numpy_that_lies_elsewhere(on, monkeypatch):
    def moved(name):
        raise ImportError(name)

    monkeypatch.setattr(machine, "import_module", moved)
    assert not on("Windows", "AMD64").fast


@pytest.mark.skipif(platform.system() != "Linux", reason="/proc/cpuinfo is of Linux")
def test_numpy_and_linux_agree_on_this_machine():
    flags = machine._linux_flags()
    for linux, numpy in (("avx512_vnni", "AVX512VNNI"), ("asimddp", "ASIMDDP")):
        assert machine._numpy_found(numpy) == (linux in flags)
