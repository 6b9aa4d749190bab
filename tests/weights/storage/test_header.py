import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from redraft.weights.storage.header import MAX_HEADER_BYTES, read_header
from tests.weights.support import join_file, split_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}, path, {"format": "pt"})
    return path


def test_what_the_library_writes_is_read(path: Path) -> None:
    tensors = read_header(path)
    assert set(tensors) == {"a", "b"}
    a, b = tensors["a"], tensors["b"]
    assert (a.dtype, a.shape, a.num_bytes) == ("F32", (2, 3), 24)
    assert (b.dtype, b.shape, b.num_bytes) == ("BF16", (4,), 8)
    content = path.read_bytes()
    assert content[a.start : a.start + 24] == struct.pack("<6f", *range(6))


def test_scalars_and_empty_tensors_are_tensors(path: Path) -> None:
    save_file({"one": torch.tensor(3.0), "none": torch.empty(0, 5)}, path)
    assert {name: tensor.shape for name, tensor in read_header(path).items()} == {"one": (), "none": (0, 5)}


@pytest.mark.parametrize("length", [0, 7, 8, 9, 100])
def test_truncated(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"x\.safetensors"):
        read_header(path)


def test_truncated_data(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="truncated"):
        read_header(path)


def test_bytes_that_belong_to_nothing(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="belong to no tensor"):
        read_header(path)


@pytest.mark.parametrize("length", [2**64 - 1, MAX_HEADER_BYTES + 1, 5000])
def test_a_header_longer_than_the_file(path: Path, length: int) -> None:
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    with pytest.raises(ValueError, match=f"says its header has {length:,} bytes"):
        read_header(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is missing"):
        read_header(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dtype": "F33"}, "dtype 'F33'"),
        ({"dtype": 3}, "dtype 3"),
        ({"dtype": ["F32"]}, "dtype"),
        ({"dtype": "F16"}, "needs 12 bytes, but its span is 24"),
        ({"shape": [2, 4]}, "needs 32 bytes, but its span is 24"),
        ({"shape": [2**62, 2**62, 2**62]}, "its span is 24"),
        ({"shape": [-2, -3]}, "not lists of non-negative integers"),
        ({"shape": [2.0, 3]}, "not lists of non-negative integers"),
        ({"shape": [True, 6]}, "not lists of non-negative integers"),
        ({"shape": None}, "not lists of non-negative integers"),
        ({"data_offsets": [0]}, "not lists of non-negative integers"),
        ({"data_offsets": [24, 0]}, "its span is -24"),
        ({"data_offsets": [-24, 0]}, "not lists of non-negative integers"),
        ({"data_offsets": [8, 32]}, "begins at byte"),
        ({"data_offsets": [4, 28]}, "begins at byte"),
        ({"data_offsets": [1000, 1024]}, "begins at byte"),
        ({"extra": 1}, "not {dtype, shape, data_offsets}"),
        ({"dtype": "F4", "shape": [3]}, "needs 1 bytes"),
    ],
)
def test_a_lying_entry(path: Path, changes: dict[str, Any], reason: str) -> None:
    header, data = split_file(path)
    header["a"] |= changes
    join_file(path, header, data)
    with pytest.raises(ValueError, match=r"x\.safetensors") as error:
        read_header(path)
    assert reason in str(error.value)


@pytest.mark.parametrize("header", [[1], "x", {"a": 3}, {"a": {"dtype": "F32"}}])
def test_a_header_of_another_form(path: Path, header: object) -> None:
    join_file(path, header, b"")
    with pytest.raises(ValueError, match=r"x\.safetensors"):
        read_header(path)
