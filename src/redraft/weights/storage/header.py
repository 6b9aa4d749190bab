"""Reads and checks the header of a safetensors file before anything in the file is used.

A file is a little-endian u64 n, n bytes of JSON {name: {dtype, shape, data_offsets}}, and the tensors' bytes.
"""

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from redraft.utils.json_files import parse_json_object
from redraft.utils.words import counted

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library."""

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""The bits per element of each dtype of the format."""


@dataclass(frozen=True)
class FileStamp:
    """The identity of a file, which shows later whether it has been replaced or changed."""

    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> "FileStamp":
        stat = path.stat()
        return cls(stat.st_ino, stat.st_size, stat.st_mtime_ns)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, at bytes [start, start + num_bytes) of the file."""

    name: str
    file: Path
    stamp: FileStamp
    dtype: str
    shape: tuple[int, ...]
    start: int
    num_bytes: int


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Returns the tensors of a safetensors file by name. Raises ValueError, with file and tensor, for a wrong header.

    It checks the header's length against the file's, the form and dtype of every entry, that shape × element size is
    the span, and that the tensors cover the rest of the file without gaps or overlaps; so a truncated file is refused.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    with path.open("rb") as file:
        stat = os.fstat(file.fileno())
        stamp = FileStamp(stat.st_ino, stat.st_size, stat.st_mtime_ns)
        prefix = file.read(8)
        if len(prefix) < 8:
            raise ValueError(f"{path} has {counted(stamp.size, 'byte')}: too short for a safetensors file")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(MAX_HEADER_BYTES, stamp.size - 8):
            raise ValueError(
                f"{path} says its header has {length:,} bytes, but the file has {stamp.size:,} and the limit is "
                f"{MAX_HEADER_BYTES:,}: truncated, or not a safetensors file"
            )
        header = parse_json_object(file.read(length), f"the header of {path}")
    header.pop("__metadata__", None)
    tensors = [_parse_entry(path, stamp, 8 + length, name, entry) for name, entry in header.items()]
    end = 8 + length
    for tensor in sorted(tensors, key=lambda one: (one.start, one.num_bytes)):
        if tensor.start != end:
            raise ValueError(
                f"{path}: tensor {tensor.name} begins at byte {tensor.start:,}, but the one before it ends at {end:,}"
            )
        end += tensor.num_bytes
    if end != stamp.size:
        problem = "truncated" if stamp.size < end else "it has bytes that belong to no tensor"
        raise ValueError(f"{path} has {stamp.size:,} bytes, but its tensors end at {end:,}: {problem}")
    return {tensor.name: tensor for tensor in tensors}


def _parse_entry(path: Path, stamp: FileStamp, data: int, name: str, entry: object) -> StoredTensor:
    """Reads the entry of one tensor; `data` is the offset of the data in the file."""
    where = f"{path}: tensor {name}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{where} has an entry that is not {{dtype, shape, data_offsets}}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise ValueError(f"{where} has dtype {dtype!r}; known dtypes are {', '.join(DTYPE_BITS)}")
    if not _is_count_list(shape) or not _is_count_list(offsets) or len(offsets) != 2:
        raise ValueError(
            f"{where} has a shape or offsets that are not lists of non-negative integers: {shape!r}, {offsets!r}"
        )
    start, stop = offsets
    num_bytes, odd_bits = divmod(math.prod(shape) * DTYPE_BITS[dtype], 8)
    if odd_bits or stop - start != num_bytes:
        raise ValueError(
            f"{where}: {dtype} of shape {shape} needs {num_bytes:,} bytes, but its span is {stop - start:,}"
        )
    return StoredTensor(name, path, stamp, dtype, tuple(shape), data + start, num_bytes)


def _is_count_list(value: object) -> bool:
    return isinstance(value, list) and all(type(one) is int and 0 <= one < 2**63 for one in value)
