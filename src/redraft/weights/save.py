"""Writing a checkpoint in the released layout: config.json, safetensors shards, an index where there are several."""

import ctypes
import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from redraft.model import ModelConfig
from redraft.weights.checkpoint import INDEX_FILE, WEIGHTS_FILE, Checkpoint, all_finite, check_unchanged
from redraft.weights.config_file import (
    CONFIG_FILE,
    GENERATION_CONFIG_FILE,
    config_to_json,
    parse_config,
    read_generation_config,
    token_ids_json,
)
from redraft.weights.header import BITS, StoredTensor
from redraft.weights.json_file import json_bytes
from redraft.weights.names import checkpoint_name
from redraft.weights.publish import staged, write_synced

COMPANIONS = (
    "added_tokens.json", "chat_template.jinja", "chat_template.json", "merges.txt", "preprocessor_config.json",
    "redraft.json",
    "processor_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "video_preprocessor_config.json", "vocab.json",
)  # fmt: skip
"""Files beside the weights that belong to a checkpoint and are copied as they are."""

DEFAULT_SHARD_BYTES = 5 * 10**9
_STORED_AS = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_COPY_BYTES = 2**24


@dataclass(frozen=True)
class _Item:
    """One tensor to be written: a tensor in memory (converted when its turn comes), or bytes of another file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int
    content: Tensor | StoredTensor


def save_checkpoint(
    folder: Path | str,
    config: ModelConfig,
    state_dict: Mapping[str, Tensor],
    *,
    source: Checkpoint | None = None,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
) -> None:
    """Writes a model as a checkpoint into `folder`, replacing one that is there as a whole (see `publish`).

    `state_dict` has exactly the names and shapes of `Transformer(config)`; its tensors are stored in `dtype` (None: as
    they are) and converted one at a time. From `source` comes what the model does not use: the vision part's tensors,
    byte for byte, the unread keys of config.json, generation_config.json (with the config's token ids), tokenizer and
    chat template. `source` may be the checkpoint in `folder` itself. No shard exceeds `max_shard_bytes` unless a single
    tensor does. Raises ValueError for tensors that do not fit the config, for other dtypes than float32, bfloat16 and
    float16, and for values that are not finite.
    """
    folder = Path(folder)
    if max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes is {max_shard_bytes}, must be at least 1")
    items = list(_own_items(config, state_dict, dtype))
    if source is not None:
        items += [_Item(one.name, one.dtype, one.shape, one.num_bytes, one) for one in source.unused.values()]
    shards = _shards(items, max_shard_bytes)
    original = dict(source.original) if source is not None else {}
    dtypes = {item.dtype for item in items if isinstance(item.content, Tensor)}
    written = config_to_json(config, _with_dtype(original, dtypes))
    if parse_config(written) != config:
        raise ValueError(f"config.json cannot say all of this config, it would be read back differently: {config}")
    with staged(folder) as staging:
        names = [WEIGHTS_FILE] if len(shards) == 1 else _shard_names(len(shards))
        for name, shard in zip(names, shards, strict=True):
            _write_shard(staging / name, shard)
        if len(shards) > 1:
            _write_index(staging / INDEX_FILE, dict(zip(names, shards, strict=True)))
        _write_generation_config(staging, folder, config, source)
        if source is not None:
            for name in COMPANIONS:
                if (source.folder / name).is_file():
                    write_synced(staging / name, (source.folder / name).read_bytes())
        write_synced(staging / CONFIG_FILE, json_bytes(written))


def _own_items(config: ModelConfig, state_dict: Mapping[str, Tensor], dtype: torch.dtype | None) -> Iterator[_Item]:
    shapes = config.parameter_shapes()
    if different := sorted(shapes.keys() ^ state_dict.keys()):
        more = "lacks" if different[0] in shapes else "has unknown"
        raise ValueError(f"the state_dict {more} {different[0]} ({len(different)} names differ from the config's)")
    for name, tensor in state_dict.items():
        if tuple(tensor.shape) != shapes[name]:
            raise ValueError(f"{name} is {list(tensor.shape)}, the config needs {list(shapes[name])}")
        if tensor.is_meta:
            raise ValueError(f"{name} lies on the meta device: it has no data to save")
        stored = _STORED_AS.get(dtype or tensor.dtype)
        if stored is None:
            raise ValueError(f"{name} would be stored as {dtype or tensor.dtype}; take float32, bfloat16 or float16")
        yield _Item(checkpoint_name(name), stored, shapes[name], tensor.numel() * BITS[stored] // 8, tensor)


def _shards(items: list[_Item], max_bytes: int) -> list[list[_Item]]:
    shards: list[list[_Item]] = [[]]
    size = 0
    for item in items:
        if shards[-1] and size + item.num_bytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(item)
        size += item.num_bytes
    return shards


def _shard_names(count: int) -> list[str]:
    return [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]


def _write_shard(path: Path, items: list[_Item]) -> None:
    # Wide items first, as the format's own writer does it: then every tensor is aligned to its item size.
    items = sorted(items, key=lambda item: (-BITS[item.dtype], item.name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for item in items:
        header[item.name] = {"dtype": item.dtype, "shape": item.shape, "data_offsets": [end, end + item.num_bytes]}
        end += item.num_bytes
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for item in items:
            if isinstance(item.content, Tensor):
                _write_tensor(file, item.name, item.content, item.dtype)
            else:
                _copy_stored(file, item.content)
        file.flush()
        os.fsync(file.fileno())


def _write_tensor(file: BinaryIO, name: str, tensor: Tensor, stored_as: str) -> None:
    dtype = next(dtype for dtype, stored in _STORED_AS.items() if stored == stored_as)
    tensor = tensor.detach().to(device="cpu", dtype=dtype).contiguous()
    if not all_finite(tensor):
        raise ValueError(f"{name} holds NaN or infinite values as {dtype}; such a checkpoint could not be used")
    if num_bytes := tensor.numel() * tensor.element_size():
        file.write(memoryview((ctypes.c_char * num_bytes).from_address(tensor.data_ptr())))


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


def _write_index(path: Path, shards: Mapping[str, list[_Item]]) -> None:
    weight_map: dict[str, object] = {item.name: file for file, items in shards.items() for item in items}
    total = sum(item.num_bytes for items in shards.values() for item in items)
    write_synced(path, json_bytes({"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}))


def _write_generation_config(staging: Path, folder: Path, config: ModelConfig, source: Checkpoint | None) -> None:
    """The source's, or what lies in the folder already, with token ids as in the config: they would win over it."""
    origin = folder if source is None else source.folder
    values = read_generation_config(origin)
    if not values:
        return
    # Null says nothing, so it may stay.
    ids = {key: value for key, value in token_ids_json(config).items() if values.get(key) is not None}
    if ids == {key: values[key] for key in ids}:
        content = (origin / GENERATION_CONFIG_FILE).read_bytes()
    else:
        content = json_bytes(values | ids)
    write_synced(staging / GENERATION_CONFIG_FILE, content)


def _with_dtype(original: dict[str, object], dtypes: set[str]) -> dict[str, object]:
    """`original` saying in which dtype the weights now are, where they are all in one."""
    spelled = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
    dtype = spelled[next(iter(dtypes))] if len(dtypes) == 1 else None
    result = {key: value for key, value in original.items() if key not in ("dtype", "torch_dtype")} | {"dtype": dtype}
    text = result.get("text_config")
    if isinstance(text, dict) and text.keys() & {"dtype", "torch_dtype"}:
        result["text_config"] = {k: v for k, v in text.items() if k != "torch_dtype"} | {"dtype": dtype}
    return result
