"""MATLAB 5 files against scipy's reader, and damaged ones, at which that one ends the process."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from facelm_sdk.errors import InputError
from facelm_training.datasets import matlab
from facelm_training.datasets.matlab import read_mat

CONTENT = {
    "Points": np.random.default_rng(0).uniform(0, 200, (68, 2)),
    "unused": {"a": [1, 2], "b": np.array([["x"]], object)},
    "Occ": np.arange(68, dtype=np.uint8)[None] % 2,
    "names": np.array([["0/a.jpg"], ["2/größe.jpg"], [""]], object),
    "ra": np.array([[3, 1, 2]], np.uint16),
    "single": np.float32([[0.5, -3e30]]),
    "wide": np.array([[-1, 2**40]], np.int64),
}


def packed(compressed=False):
    file = io.BytesIO()
    savemat(file, CONTENT, do_compression=compressed)
    return file.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_as_scipy_reads_them(tmp_path, compressed):
    path = tmp_path / "a.mat"
    path.write_bytes(packed(compressed))
    expected = loadmat(path)
    names = [name for name in CONTENT if name not in ("unused", "names")]
    for name, values in zip(names, read_mat(path, *names), strict=True):
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, expected[name])
    (texts,) = read_mat(path, "names")
    np.testing.assert_array_equal(texts, CONTENT["names"])


@pytest.mark.parametrize("compressed", [False, True])
def test_one_byte_of_damage_is_told(tmp_path, compressed):
    path, rng = tmp_path / "a.mat", np.random.default_rng(1)
    whole, told = packed(compressed), 0
    places = rng.permutation(np.concatenate([np.arange(120, 240), rng.integers(len(whole), size=900)]))
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            points, occluded, names = read_mat(path, "Points", "Occ", "names")
        except InputError as error:
            told += 1
            assert "a.mat cannot be read; it is truncated or lacks Points, Occ, names" in str(error)
        else:
            assert points.dtype == occluded.dtype == np.float64 and all(isinstance(name, str) for name in names.flat)
    assert told > (500 if compressed else 50)


@pytest.mark.parametrize("compressed", [False, True])
def test_every_cut_is_told(tmp_path, compressed):
    path, whole = tmp_path / "a.mat", packed(compressed)
    for end in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"truncated or lacks Points, wide"):
            read_mat(path, "Points", "wide")


def test_other_files_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.mat"
    with pytest.raises(InputError, match="No such file"):
        read_mat(path, "Points")
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + b"\x89HDF")
    with pytest.raises(InputError, match="not a MATLAB 5 file"):
        read_mat(path, "Points")
    savemat(path, {"Points": np.array([[1j]]), "Occ": "text"})
    for name in ("Points", "Occ"):
        with pytest.raises(InputError, match="neither an array of real numbers nor a cell"):
            read_mat(path, name)
    monkeypatch.setattr(matlab, "MOST_BYTES", 1000)
    path.write_bytes(packed(compressed=True))
    with pytest.raises(InputError, match="too large"):
        read_mat(path, "Points")


def test_big_endian_and_values_of_a_smaller_type(tmp_path):
    """As written on another machine: one (1, 2) array of int16 in a variable of doubles."""

    def element(kind, data):
        return kind.to_bytes(4, "big") + len(data).to_bytes(4, "big") + data + bytes(-len(data) % 8)

    head = element(6, (6).to_bytes(4, "big") + bytes(4)) + element(5, b"\0\0\0\1\0\0\0\2") + b"\0\1\0\1x\0\0\0"
    matrix = element(14, head + b"\0\4\0\3\1\0\xff\xff")
    stream = zlib.compress(matrix)
    for body in (matrix, b"\0\0\0\x0f" + len(stream).to_bytes(4, "big") + stream):
        (tmp_path / "a.mat").write_bytes(bytes(124) + b"\1\0MI" + body)
        np.testing.assert_array_equal(read_mat(tmp_path / "a.mat", "x")[0], [[256, -1]])
