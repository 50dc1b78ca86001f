"""Format ``triton``: a model repository that Triton Inference Server can serve as it stands.

``<root>/<model>/config.pbtxt`` and ``<root>/<model>/<version>/model.onnx``, run by Triton's ONNX Runtime backend.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facelm_sdk.contract import METADATA_KEY, ModelSpec, WithLandmarks
from facelm_sdk.errors import InputError

if TYPE_CHECKING:
    from onnx import ValueInfoProto

    from ..job import ExportJob

QUEUE_DELAY = 100
"""Microseconds that a request waits for others to share its run; short, since a client that is alone waits in vain."""

_FLOATS = {"FLOAT": "FP32", "FLOAT16": "FP16", "DOUBLE": "FP64"}


@dataclass(frozen=True)
class _Tensor:
    """An input or output as the graph has it; a dimension of any size is -1, as in Triton's configuration."""

    name: str
    kind: str
    dims: tuple[int, ...]


def files(job: ExportJob) -> tuple[dict[Path, bytes], dict[str, Any]]:
    """The files to write in the model repository ``job.path``, and the model's name and version there."""
    return model_files(job.path, job.data, job.spec, job.max_batch)


def model_files(
    root: Path,
    data: bytes,  # the ONNX file
    spec: ModelSpec,
    max_batch: int,
) -> tuple[dict[Path, bytes], dict[str, Any]]:
    """The files that add an exported ONNX file, of any task, to the model repository ``root``.

    A model that is already there gets its next version, which Triton then serves; the earlier ones stay. The same file
    again changes nothing. Landmark models of open batch are batched by the server, up to ``max_batch`` crops. Raises
    InputError where the repository has another's model of that name.
    """
    inputs, outputs = _tensors(data)
    batched = spec.task == "landmarks" and inputs[0].dims[0] == -1
    name = _name(spec, inputs[0], batched=batched)
    folder = root / name
    signature = _signature(inputs, outputs, batched=batched)
    _check_place(root, folder, signature)
    version = _version(folder, data)
    config = _config(name, spec, signature, max_batch if batched else 0)
    made = {folder / str(version) / "model.onnx": data, folder / "config.pbtxt": config.encode()}
    return made, {"triton": {"model": name, "version": version, "max_batch_size": max_batch if batched else 0}}


def _tensors(data: bytes) -> tuple[list[_Tensor], list[_Tensor]]:
    import onnx

    def read(value: ValueInfoProto) -> _Tensor:
        tensor = value.type.tensor_type
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
        dims = (dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
        return _Tensor(value.name, f"TYPE_{_FLOATS.get(kind, kind)}", tuple(dims))

    graph = onnx.load_model_from_string(data).graph
    return [read(value) for value in graph.input], [read(value) for value in graph.output]


def _name(spec: ModelSpec, source: _Tensor, *, batched: bool) -> str:
    """What clients ask for. Models with other results than the plain one have names of their own beside it."""
    fixed = spec.task == "landmarks" and not batched
    return "_".join(
        [
            re.sub(r"[^A-Za-z0-9_.-]", "_", spec.name),  # it stands in paths and addresses
            *(["flip"] if isinstance(spec, WithLandmarks) and spec.flip else []),
            *([f"b{source.dims[0]}"] if fixed else []),
            *([spec.precision] if spec.precision != "fp32" else []),
        ]
    )


def _check_place(root: Path, folder: Path, signature: str) -> None:
    if (root / "config.pbtxt").exists():
        raise InputError(f"{root} is the folder of one model; give the model repository that it lies in")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    config = folder / "config.pbtxt"
    if not config.is_file() or signature not in config.read_text("utf-8", "replace"):
        raise InputError(
            f"{folder} is there already and is another model, or has other inputs and outputs, so that a new version "
            f"would break its clients; move it away or give another folder"
        )


def _version(folder: Path, data: bytes) -> int:
    """The newest version's number where it is the same file, else the one after it."""
    entries = folder.iterdir() if folder.is_dir() else ()
    newest = max((int(entry.name) for entry in entries if entry.name.isdecimal()), default=0)
    file = folder / str(newest) / "model.onnx"
    return newest if file.is_file() and file.read_bytes() == data else newest + 1


def _signature(inputs: Sequence[_Tensor], outputs: Sequence[_Tensor], *, batched: bool) -> str:
    """The blocks ``input`` and ``output``; of batched models Triton wants the dimensions of one item."""
    blocks = []
    for what, tensors in (("input", inputs), ("output", outputs)):
        items = (_item(tensor, pixels=what == "input", batched=batched) for tensor in tensors)
        blocks.append(f"{what} [\n" + ",\n".join(items) + "\n]")
    return "\n".join(blocks)


def _item(tensor: _Tensor, *, pixels: bool, batched: bool) -> str:
    dims = tensor.dims[1:] if batched else tensor.dims
    scalar = "" if dims else "\n    reshape { shape: [ ] }"  # of one value an item; Triton asks for a dimension
    image = "\n    format: FORMAT_NHWC" if pixels and len(dims) == 3 else ""  # Triton knows it of 3 dimensions only
    return f"""  {{
    name: "{tensor.name}"
    data_type: {tensor.kind}{image}
    dims: [ {", ".join(map(str, dims or (1,)))} ]{scalar}
  }}"""


def _config(name: str, spec: ModelSpec, signature: str, max_batch: int) -> str:
    return "\n".join(
        [
            _HEAD.format(name=name, max_batch=max_batch),
            f"{signature}\n",
            *([_BATCHING.format(delay=QUEUE_DELAY)] if max_batch else []),
            _INSTANCES,
            _SEARCH + _parameter("cudnn_conv_algo_search", "1"),
            _CONTRACT + _parameter(METADATA_KEY, spec.to_json()),
        ]
    )


def _parameter(key: str, value: str) -> str:
    quoted = json.dumps(value, ensure_ascii=False)  # text format escapes as JSON does
    return f'''parameters {{
  key: "{key}"
  value {{ string_value: {quoted} }}
}}
'''


_HEAD = """\
# {name}, by facelm-export. Each export writes this file anew: keep settings of your own in
# configs/NAME.pbtxt beside it, and start tritonserver with --model-config-name=NAME.
name: "{name}"
backend: "onnxruntime"
max_batch_size: {max_batch}"""

_BATCHING = """\
# Requests of several clients run as one batch; none waits longer than this for others.
dynamic_batching {{
  max_queue_delay_microseconds: {delay}
}}
"""

_INSTANCES = """\
# On the GPU where the server has one, else on the CPU, where one instance takes all cores.
instance_group [
  {
    count: 1
    kind: KIND_AUTO
  }
]
"""

_SEARCH = "# On a GPU, cuDNN's heuristic: its search would start again with each new size of picture or batch.\n"

_CONTRACT = "# The contract, as facelm_sdk.ModelSpec.from_json reads it.\n"
