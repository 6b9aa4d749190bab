"""Writing tensors as safetensors files, one tensor in memory at a time, with an index where there are several files."""

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
from redraft.weights.checkpoint import INDEX_FILE, STORED_AS, WEIGHTS_FILE, all_finite, check_unchanged
from redraft.weights.storage.header import BITS, StoredTensor
from redraft.weights.storage.publish import write_synced

DEFAULT_SHARD_BYTES = 5 * 10**9
_DTYPES = {stored: dtype for dtype, stored in STORED_AS.items()}
_COPY_BYTES = 2**24


@dataclass(frozen=True)
class Item:
    """One tensor to be written, by its name in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * BITS[self.dtype] // 8


@dataclass(frozen=True)
class Piece:
    """Tensors that are made together, when their turn comes: `contents` gives one for each item, in their order.

    A tensor in memory is converted to its item's dtype; a stored one is copied byte for byte.
    """

    items: tuple[Item, ...]
    contents: Callable[[], Iterable[Tensor | StoredTensor]]

    @classmethod
    def of_tensor(cls, name: str, dtype: str, tensor: Tensor) -> "Piece":
        return cls((Item(name, dtype, tuple(tensor.shape)),), lambda: (tensor,))

    @classmethod
    def of_stored(cls, stored: StoredTensor) -> "Piece":
        return cls((Item(stored.name, stored.dtype, stored.shape),), lambda: (stored,))

    @property
    def num_bytes(self) -> int:
        return sum(item.num_bytes for item in self.items)


def write_shards(
    folder: Path,
    pieces: Sequence[Piece],
    max_bytes: int = DEFAULT_SHARD_BYTES,
    report: Callable[[int], None] = lambda num_bytes: None,
) -> None:
    """Writes all pieces into `folder`, synced; `report` is told the bytes of each piece that is done.

    No file exceeds `max_bytes` unless a single piece does. ValueError for values that are not finite.
    """
    shards = _shards(pieces, max_bytes)
    count = len(shards)
    names = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)] if count > 1 else [WEIGHTS_FILE]
    for name, shard in zip(names, shards, strict=True):
        _write_shard(folder / name, shard, report)
    if count > 1:
        _write_index(folder / INDEX_FILE, dict(zip(names, shards, strict=True)))


def _shards(pieces: Sequence[Piece], max_bytes: int) -> list[list[Piece]]:
    shards: list[list[Piece]] = [[]]
    size = 0
    for piece in pieces:
        if shards[-1] and size + piece.num_bytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(piece)
        size += piece.num_bytes
    return shards


def _write_shard(path: Path, pieces: Sequence[Piece], report: Callable[[int], None]) -> None:
    # Wide items first, as the format's own writer does it: then every tensor is aligned to its item size.
    items = sorted((item for piece in pieces for item in piece.items), key=lambda item: (-BITS[item.dtype], item.name))
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
        for piece in pieces:
            for item, content in zip(piece.items, piece.contents(), strict=True):
                file.seek(data + starts[item.name])
                if isinstance(content, Tensor):
                    _write_tensor(file, item, content)
                else:
                    _copy_stored(file, content)
            report(piece.num_bytes)
        file.flush()
        os.fsync(file.fileno())


def _write_tensor(file: BinaryIO, item: Item, tensor: Tensor) -> None:
    dtype = _DTYPES[item.dtype]
    assert tuple(tensor.shape) == item.shape
    # A part at a time: what is converted and tested is not in memory as a whole.
    for part in torch.split(tensor.detach().reshape(-1), _COPY_BYTES):
        part = part.to(device="cpu", dtype=dtype).contiguous()
        if dtype.is_floating_point and not all_finite(part):
            raise ValueError(
                f"{item.name} holds NaN or infinite values as {dtype}; such a checkpoint could not be used"
            )
        if num_bytes := part.numel() * part.element_size():
            file.write(memoryview((ctypes.c_char * num_bytes).from_address(part.data_ptr())))


def _copy_stored(file: BinaryIO, stored: StoredTensor) -> None:
    with stored.file.open("rb") as source:
        check_unchanged(stored.file, stored.stamp)
        source.seek(stored.start)
        left = stored.num_bytes
        while left:
            part = source.read(min(left, _COPY_BYTES))
            if not part:
                raise ValueError(f"{stored.file} ended within {stored.name}")
            file.write(part)
            left -= len(part)


def _write_index(path: Path, shards: Mapping[str, Sequence[Piece]]) -> None:
    weight_map: dict[str, object] = {
        item.name: file for file, pieces in shards.items() for piece in pieces for item in piece.items
    }
    total = sum(piece.num_bytes for pieces in shards.values() for piece in pieces)
    write_synced(path, json_bytes({"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}))
