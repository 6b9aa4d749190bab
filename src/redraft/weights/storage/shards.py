"""Writes safetensors files, with one tensor in memory at a time, and an index if there are several files."""

import ctypes
import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from redraft.utils.json_files import json_bytes
from redraft.weights.checkpoint import DTYPE_NAMES, INDEX_FILE, WEIGHTS_FILE, all_finite, check_unchanged
from redraft.weights.storage.header import DTYPE_BITS, StoredTensor
from redraft.weights.storage.publish import write_synced

DEFAULT_SHARD_BYTES = 5 * 10**9
_DTYPE_BY_NAME = {stored: dtype for dtype, stored in DTYPE_NAMES.items()}
_COPY_CHUNK = 2**24

Report = Callable[[int, int], None]
"""Called with the bytes written so far, and in total."""


@dataclass(frozen=True)
class TensorSpec:
    """The name in the file, dtype and shape of a tensor to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * DTYPE_BITS[self.dtype] // 8


@dataclass(frozen=True)
class TensorGroup:
    """Tensors that are computed together, just before they are written.

    `contents` returns one tensor per entry of `items`, in the same order. A tensor in memory is converted to the dtype
    of its item; a stored one is copied byte for byte.
    """

    items: tuple[TensorSpec, ...]
    contents: Callable[[], Iterable[Tensor | StoredTensor]]

    @classmethod
    def of_tensor(cls, name: str, dtype: str, tensor: Tensor) -> "TensorGroup":
        return cls((TensorSpec(name, dtype, tuple(tensor.shape)),), lambda: (tensor,))

    @classmethod
    def of_stored(cls, stored: StoredTensor) -> "TensorGroup":
        return cls((TensorSpec(stored.name, stored.dtype, stored.shape),), lambda: (stored,))

    @property
    def num_bytes(self) -> int:
        return sum(item.num_bytes for item in self.items)


def write_shards(
    folder: Path,
    groups: Sequence[TensorGroup],
    max_bytes: int = DEFAULT_SHARD_BYTES,
    report: Report | None = None,
) -> None:
    """Writes all groups into `folder`, synced, and reports after each of them.

    No file exceeds `max_bytes` unless a single group does. Raises ValueError for values that are not finite.
    """
    shards = _divide(groups, max_bytes)
    count = len(shards)
    names = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)] if count > 1 else [WEIGHTS_FILE]
    total, written = sum(group.num_bytes for group in groups), 0

    def count_written(num_bytes: int) -> None:
        nonlocal written
        written += num_bytes
        if report is not None:
            report(written, total)

    for name, shard in zip(names, shards, strict=True):
        _write_shard(folder / name, shard, count_written)
    if count > 1:
        _write_index(folder / INDEX_FILE, dict(zip(names, shards, strict=True)))


def _divide(groups: Sequence[TensorGroup], max_bytes: int) -> list[list[TensorGroup]]:
    shards: list[list[TensorGroup]] = [[]]
    size = 0
    for group in groups:
        if shards[-1] and size + group.num_bytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(group)
        size += group.num_bytes
    return shards


def _write_shard(path: Path, groups: Sequence[TensorGroup], report: Callable[[int], None]) -> None:
    # Wide dtypes first, as in the format's own writer, so that every tensor is aligned to its element size.
    items = sorted(
        (item for group in groups for item in group.items), key=lambda item: (-DTYPE_BITS[item.dtype], item.name)
    )
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts: dict[str, int] = {}
    end = 0
    for item in items:
        starts[item.name] = end
        header[item.name] = {"dtype": item.dtype, "shape": item.shape, "data_offsets": [end, end + item.num_bytes]}
        end += item.num_bytes
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        data = file.write(struct.pack("<Q", len(encoded)) + encoded)
        for group in groups:
            for item, content in zip(group.items, group.contents(), strict=True):
                file.seek(data + starts[item.name])
                if isinstance(content, Tensor):
                    _write_tensor(file, item, content)
                else:
                    _copy_stored(file, content)
            report(group.num_bytes)
        file.flush()
        os.fsync(file.fileno())


def _write_tensor(file: BinaryIO, item: TensorSpec, tensor: Tensor) -> None:
    dtype = _DTYPE_BY_NAME[item.dtype]
    assert tuple(tensor.shape) == item.shape
    # In chunks, so that the converted copy is never in memory as a whole.
    for part in torch.split(tensor.detach().reshape(-1), _COPY_CHUNK):
        part = part.to(device="cpu", dtype=dtype).contiguous()
        if dtype.is_floating_point and not all_finite(part):
            raise ValueError(
                f"{item.name} holds NaN or infinite values as {dtype}; such a checkpoint would be unusable"
            )
        if num_bytes := part.numel() * part.element_size():
            file.write(memoryview((ctypes.c_char * num_bytes).from_address(part.data_ptr())))


def _copy_stored(file: BinaryIO, stored: StoredTensor) -> None:
    with stored.file.open("rb") as source:
        check_unchanged(stored.file, stored.stamp)
        source.seek(stored.start)
        left = stored.num_bytes
        while left:
            part = source.read(min(left, _COPY_CHUNK))
            if not part:
                raise ValueError(f"{stored.file} ends within {stored.name}")
            file.write(part)
            left -= len(part)


def _write_index(path: Path, shards: Mapping[str, Sequence[TensorGroup]]) -> None:
    weight_map: dict[str, object] = {
        item.name: file for file, groups in shards.items() for group in groups for item in group.items
    }
    total = sum(group.num_bytes for groups in shards.values() for group in groups)
    write_synced(path, json_bytes({"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}))
