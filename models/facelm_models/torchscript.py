"""The tensors of a TorchScript archive, read without running any of its code.

Such an archive (``torch.jit.save``) is a zip of ``data.pkl``, the tree of modules as a pickle, of ``data/0``,
``data/1``, ... with the values of tensors, and of the modules' code. Here the pickle may name nothing but tensors,
plain containers and the archive's own classes, which are read as inert bags of attributes. ``torch.jit.load`` runs what
the archive says its modules do on loading.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

DTYPES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}
LISTS = frozenset({"build_boollist", "build_doublelist", "build_intlist", "build_tensorlist"})
MODULES = 100_000
"""More modules than any network has: modules that hold each other end here."""
CODE = 1 << 26
"""More bytes than any module's code has."""


class Refused(pickle.UnpicklingError):
    """The archive asks for more than tensors, or says what does not hold together."""


class Bag:
    """A module of the archive: its attributes, and none of its code."""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            raise Refused("a module restores itself by code of its own")
        self.__dict__ = state


def is_script(path: Path) -> bool:
    """Return whether a file is a TorchScript archive. Raises zipfile.BadZipFile where its directory is damaged."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.partition("/")[2] == "constants.pkl" for name in archive.namelist())


def read_script(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of an archive's modules under the names that ``state_dict`` gives them, on the CPU.

    Tensors that a module holds as plain attributes are among them. Raises :class:`Refused` where the archive's pickle
    names anything that could run, or its modules define ``__setstate__``, and whatever zipfile, pickle and torch raise
    on damaged files.
    """
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".py"):
                with archive.open(name) as file:
                    code = file.read(CODE + 1)
                if len(code) > CODE or b"__setstate__" in code:
                    raise Refused(f"{name} restores a module by code of its own")
        root = next(name for name in archive.namelist() if name.partition("/")[2] == "constants.pkl").partition("/")[0]
        records = _Records(archive, root)
        tree = _Unpickler(records).load()
    if not isinstance(tree, Bag):
        raise Refused(f"it holds a {type(tree).__name__}, not a module")
    return dict(_tensors(tree))


def _tensors(root: Bag) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a tree of modules, each under its path from the root."""
    waiting, count = [("", root)], 0
    while waiting:
        prefix, module = waiting.pop()
        count += 1
        if count > MODULES:
            raise Refused("its modules hold each other")
        for name, value in vars(module).items():
            if isinstance(value, Bag):
                waiting.append((f"{prefix}{name}.", value))
            elif isinstance(value, torch.Tensor):
                yield prefix + name, value


class _Records:
    """The stored files of an archive, and the values of tensors in them."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        self.archive, self.root = archive, root
        self.storages: dict[str, torch.Tensor] = {}
        names = archive.namelist()
        order = self.read("byteorder").decode() if f"{root}/byteorder" in names else "little"
        if order != sys.byteorder:
            raise Refused(f"its values are {order}-endian")

    def read(self, name: str) -> bytes:
        """Return a record. They are stored as they are: none is larger than the archive."""
        info = self.archive.getinfo(f"{self.root}/{name}")
        if info.compress_type != zipfile.ZIP_STORED:
            raise Refused(f"{name} is compressed")
        return self.archive.read(info)

    def storage(self, name: str, dtype: torch.dtype, count: int) -> torch.Tensor:  # (count,)
        """Return the values in ``data/<name>``."""
        if name not in self.storages:
            data = bytearray(self.read(f"data/{name}"))
            self.storages[name] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        found = self.storages[name]
        if found.dtype != dtype or found.numel() != count:
            raise Refused(f"data/{name} is not {count} values of {dtype}")
        return found


class _Unpickler(pickle.Unpickler):
    """Knows tensors, plain containers and bags."""

    def __init__(self, records: _Records) -> None:
        data = records.read("data.pkl")
        for code, place, _ in pickletools.genops(data):
            # Pickle takes memory up to the highest number that a file gives a place of its memo.
            if "PUT" in code.name and isinstance(place, int) and place > len(data):
                raise Refused(f"its memo has a place {place} of {len(data)} bytes")
        super().__init__(io.BytesIO(data))
        self.records = records

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "__torch__":
            return Bag
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle" and name in LISTS:
            return list
        raise Refused(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> torch.Tensor:
        kind, dtype, name, _, count = pid
        if kind != "storage":
            raise Refused(f"it holds a {kind}")
        return self.records.storage(name, dtype, count)


def _tensor(
    storage: torch.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> torch.Tensor:
    if math.prod(size) > storage.numel():
        raise Refused(f"a tensor of {size} in {storage.numel()} values")
    return storage.as_strided(size, stride, offset)
