"""Damage to files: of any bytes, and of JSON, TOML, zip, PNG, safetensors and ONNX files in their own structure.

Each function takes a ``random.Random`` and is a function of it and of its arguments alone.
"""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

NUMBERS = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 5, 0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), 10**30, 2**63, -(2**31)),
    *("", "x", "é\u0000", "\ud800", "nan", "a" * 5000, [], {}, [[]], [0, 0], [None], {"": None}, [1] * 300),
)
"""JSON values that are seldom what is wanted."""
DEPTHS = (17, 450, 100_000)
DEEP = "a deep value"


def damaged(rng: random.Random, data: bytes, words: Sequence[bytes] = (), others: Sequence[bytes] = ()) -> bytes:
    """Return ``data`` after one to four blows: flips, cuts, copies, lies in length fields, ``words``, splices."""
    blows = [_flip, _overwrite, _cut, _truncate, _repeat, _insert, _lie]
    for _ in range(rng.choice((1, 1, 2, 4))):
        if words and rng.random() < 0.2:
            data = _word(rng, data, rng.choice(words))
        elif others and rng.random() < 0.1:
            other = rng.choice(others)
            data = data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]
        else:
            data = rng.choice(blows)(rng, data)
    return data


def _span(rng: random.Random, data: bytes, longest: int = 64) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(len(data), start + rng.randint(1, longest))


def _flip(rng: random.Random, data: bytes) -> bytes:
    if not data:
        return data
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


def _overwrite(rng: random.Random, data: bytes) -> bytes:
    start, end = _span(rng, data, 16)
    return (
        data[:start]
        + rng.choice((rng.randbytes(end - start), b"\0" * (end - start), b"\xff" * (end - start)))
        + (data[end:])
    )


def _cut(rng: random.Random, data: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:start] + data[end:]


def _truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randint(0, len(data))]


def _repeat(rng: random.Random, data: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:end] + data[start:end] * rng.choice((1, 2, 100)) + data[end:]


def _insert(rng: random.Random, data: bytes) -> bytes:
    return _word(rng, data, rng.randbytes(rng.randint(1, 8)))


def _word(rng: random.Random, data: bytes, word: bytes) -> bytes:
    """Put a word in, or in the place of as many bytes."""
    start = rng.randint(0, len(data))
    return data[:start] + word + data[start + rng.choice((0, len(word))) :]


def _lie(rng: random.Random, data: bytes) -> bytes:
    """Write a number of another size where one may stand."""
    width, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    value = rng.choice((*NUMBERS, len(data), len(data) + 1)) % (1 << 8 * width)
    start = rng.randint(0, max(0, min(len(data), rng.choice((64, len(data)))) - width))
    return data[:start] + value.to_bytes(width, order) + data[start + width :]  # type: ignore[arg-type]


def odd_value(rng: random.Random) -> Any:
    """Return a JSON value that is seldom what is wanted, now and then what :func:`json_text` writes as a deep one."""
    return DEEP if rng.random() < 0.02 else copy.deepcopy(rng.choice(ODD_VALUES))


def changed_json(rng: random.Random, value: Any) -> Any:
    """Return a JSON value with one to three of its places changed, left out, renamed or doubled."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        holder = {"": value}
        places = [(holder, ""), *_places(value)]
        inside, key = rng.choice(places)
        kind = rng.random()
        if kind < 0.6 or inside is holder:
            inside[key] = odd_value(rng)
        elif kind < 0.75:
            del inside[key]
        elif kind < 0.9 and isinstance(inside, dict):
            inside[rng.choice(("x", "", str(key).upper(), f"{key}_"))] = inside.pop(key)
        else:
            _, other = rng.choice(places[1:] or places)
            if isinstance(inside, list):
                inside.append(copy.deepcopy(inside[key]))
            elif other in inside:
                inside[key] = copy.deepcopy(inside[other])
        value = holder[""]
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting and len(found) < 1000:
        one = waiting.pop()
        for key in list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ():
            found.append((one, key))
            waiting.append(one[key])
    return found


def json_text(value: Any) -> bytes:
    """Return the text of a JSON value."""
    text = json.dumps(value)
    depth = DEPTHS[len(text) % len(DEPTHS)]
    return text.replace(json.dumps(DEEP), "[" * depth + "]" * depth).encode()


def damaged_json(rng: random.Random, value: Any) -> bytes:
    """Return the text of a changed JSON value; one in eight is damaged as text."""
    text = json_text(changed_json(rng, value))
    return (
        damaged(rng, text, (b"[", b"{", b"null", b"NaN", b"1e999", b"\\ud800", b"\xff"))
        if rng.random() < 0.125
        else text
    )


TOML_VALUES = (
    *('""', '"x"', "0", "-1", "1.5", "nan", "inf", "-inf", "1e999", "9223372036854775807", "99999999999999999999999"),
    *("true", "[]", "[[]]", "[0, 0, 0]", "{}", '{ kind = "box" }', "1979-05-27", '"\\u0000"', '"../x"', "[1, 'a']"),
    *("[" * 3000, "{a=" * 3000, '"' + "a" * 5000 + '"', "0x7fffffff", "07:32:00", "16385", "100000"),
)


def damaged_toml(rng: random.Random, text: str) -> bytes:
    """Return a TOML file with values changed and lines left out, doubled or moved; one in eight damaged as bytes."""
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not lines:
            break
        index, kind = rng.randrange(len(lines)), rng.random()
        key, sign, _ = lines[index].partition(" = ")
        if kind < 0.7 and sign:
            lines[index] = f"{key} = {rng.choice(TOML_VALUES)}"
        elif kind < 0.8:
            del lines[index]
        elif kind < 0.9:
            lines.insert(rng.randrange(len(lines)), lines[index])
        else:
            lines.insert(index, rng.choice(("[a.b]", "[[stages]]", f"{key}_ = 1", '"" = 2', "[stages]", "x")))
    data = "\n".join(lines).encode()
    return damaged(rng, data, (b"[[", b"]", b"=", b'"""', b"\xff")) if rng.random() < 0.125 else data


def damaged_zip(rng: random.Random, data: bytes, damage: Callable[[random.Random, bytes], bytes] = damaged) -> bytes:
    """Return an archive whose records are damaged, left out, doubled or renamed, with checksums that hold."""
    if rng.random() < 0.3:
        return damaged(rng, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = [(name, archive.read(name)) for name in archive.namelist()]
    index, kind = rng.randrange(len(records)), rng.random()
    name, content = records[index]
    if kind < 0.7:
        records[index] = (name, damage(rng, content))
    elif kind < 0.8:
        del records[index]
    elif kind < 0.9:
        records[index] = (rng.choice(("../x", "", "a" * 300, name.upper(), f"{name}/", "é")), content)
    else:
        records.append((f"{name}x", content))
    return zipped(records, zipfile.ZIP_STORED if rng.random() < 0.9 else zipfile.ZIP_DEFLATED)


def zipped(records: Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip of records, the same whenever it is made."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in records:
            archive.writestr(zipfile.ZipInfo(name or "x"), content, method)
    return target.getvalue()


def damaged_png(rng: random.Random, data: bytes) -> bytes:
    """Return a PNG with a chunk damaged, left out, doubled or moved, with checksums that hold."""
    chunks, place = [], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    index, kind = rng.randrange(len(chunks)), rng.random()
    name, content = chunks[index]
    if kind < 0.6:
        if name == b"IDAT" and len(chunks) == 3 and rng.random() < 0.5:
            content = zlib.compress(damaged(rng, zlib.decompress(content)))
        else:
            content = damaged(rng, content)
        chunks[index] = (name, content)
    elif kind < 0.8:
        chunks.insert(
            rng.randrange(len(chunks)), (rng.choice((b"tRNS", b"PLTE", b"eXIf", b"iCCP", b"acTL", name)), content)
        )
    else:
        del chunks[index]
    parts = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return data[:8] + b"".join(parts)


def damaged_safetensors(rng: random.Random, data: bytes) -> bytes:
    """Return a safetensors file whose header, card or values are changed, with a length that holds."""
    if rng.random() < 0.3:
        return damaged(rng, data, (b'"dtype"', b"F64", b"[0]", b'"__metadata__"'))
    length = int.from_bytes(data[:8], "little")
    header, values = json.loads(data[8 : 8 + length]), data[8 + length :]
    if rng.random() < 0.5 and "__metadata__" in header:
        card = json.loads(header["__metadata__"]["facelm"])
        header["__metadata__"]["facelm"] = damaged_json(rng, card).decode("utf-8", "replace")
        text = json.dumps(header).encode()
    else:
        text = damaged_json(rng, header)
    return struct.pack("<Q", len(text)) + text + values


def damaged_onnx(rng: random.Random, data: bytes) -> bytes:
    """Return an ONNX file with its contract, a name, a shape, a type, a node or a value changed, or as bytes."""
    import onnx

    if rng.random() < 0.3:
        return damaged(rng, data)
    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    values, kind = [*graph.input, *graph.output], rng.random()
    if kind < 0.3 and model.metadata_props:
        entry = model.metadata_props[0]
        entry.value = damaged_json(rng, json.loads(entry.value)).decode("utf-8", "replace")
    elif kind < 0.45:
        one = rng.choice(values)
        tensor = one.type.tensor_type
        if rng.random() < 0.3 or not tensor.shape.dim:
            tensor.elem_type = rng.randrange(24)
        elif rng.random() < 0.5:
            size = rng.choice(tensor.shape.dim)
            size.dim_value = rng.choice((0, -1, 1, 2, 4, 5, 2**31, 2**62))
        else:
            tensor.ClearField("shape") if rng.random() < 0.5 else tensor.shape.dim.add()
    elif kind < 0.6:
        node = rng.choice(graph.node)
        node.op_type = rng.choice(("Add", "Mul", "Loop", "If", "Nope", "Reshape", "Cast", "Expand", "Div", "Range", ""))
    elif kind < 0.75 and graph.initializer:
        tensor = rng.choice(graph.initializer)
        if rng.random() < 0.4:
            tensor.raw_data = damaged(rng, tensor.raw_data)
        elif rng.random() < 0.5 and tensor.dims:
            tensor.dims[0] = rng.choice((0, -1, 1, 2, 3, 2**40, 2**62))
        elif rng.random() < 0.5:
            tensor.data_type = rng.randrange(24)
        else:
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(
                key="location", value=rng.choice(("../secret", "/etc/passwd", "none.bin", "", "model.onnx"))
            )
            tensor.external_data.add(key="length", value=rng.choice(("", "-1", "8", str(2**62))))
    elif kind < 0.9:
        node = rng.choice(graph.node)
        names = rng.choice((node.input, node.output))
        if names:
            names[rng.randrange(len(names))] = rng.choice(("", "nowhere", graph.input[0].name, graph.output[0].name))
    else:
        model.opset_import[0].version = rng.choice((0, -1, 1, 7, 18, 22, 99, 2**40))
        model.ir_version = rng.choice((0, 3, 8, 10, 99, 2**40))
    data = model.SerializeToString()
    if rng.random() < 0.1:  # names and texts that are not UTF-8
        word = rng.choice((b"crops", b"landmarks", b"facelm", b"image", b"ibug68", b"scores"))
        data = data.replace(word, b"\xff" * len(word), rng.choice((1, 9)))
    return data
