"""Writes checkpoints in the released layout: config.json, safetensors shards, and an index if there are several."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from redraft.model.config import ModelConfig
from redraft.utils.json_files import json_bytes
from redraft.weights.card import CARD_FILE
from redraft.weights.checkpoint import DTYPE_NAMES, Checkpoint
from redraft.weights.config.file import (
    GENERATION_CONFIG_FILE,
    QUANTIZATION_KEY,
    config_to_json,
    parse_config,
    read_generation_config,
    token_ids_json,
)
from redraft.weights.config.keys import CONFIG_FILE
from redraft.weights.storage.names import checkpoint_name
from redraft.weights.storage.publish import staged, write_synced
from redraft.weights.storage.shards import DEFAULT_SHARD_BYTES, TensorGroup, write_shards

COMPANION_FILES = (
    "added_tokens.json", "chat_template.jinja", "chat_template.json", GENERATION_CONFIG_FILE, "merges.txt",
    "preprocessor_config.json", "processor_config.json", CARD_FILE, "special_tokens_map.json", "tokenizer.json",
    "tokenizer.model", "tokenizer_config.json", "video_preprocessor_config.json", "vocab.json",
)  # fmt: skip
"""The files that belong to a checkpoint besides weights and config.json: tokenizer, chat template, settings, card."""


def save_checkpoint(
    folder: Path | str,
    config: ModelConfig,
    state_dict: Mapping[str, Tensor],
    *,
    source: Checkpoint | None = None,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
) -> None:
    """Writes a model as a checkpoint into `folder`, and replaces a checkpoint that is there as a whole (see `publish`).

    `state_dict` must have exactly the names and shapes of `Transformer(config)`. Its tensors are stored in `dtype`
    (None: as they are), converted one at a time. `source` supplies what the model does not use: the tensors of the
    vision tower, byte for byte, the other keys of config.json, and the companion files, with the config's token ids in
    generation_config.json. It may be the checkpoint in `folder` itself. No shard exceeds `max_shard_bytes` unless a
    single tensor does. Raises ValueError for tensors that do not match the config, for dtypes other than float32,
    bfloat16, float16 and float8_e4m3fn, and for values that are not finite.
    """
    folder = Path(folder)
    if max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes is {max_shard_bytes}, must be at least 1")
    groups = list(_model_groups(config, state_dict, dtype))
    dtypes = {group.items[0].dtype for group in groups}
    if source is not None:
        groups += map(TensorGroup.of_stored, source.unused.values())
    original = dict(source.original) if source is not None else {}
    original.pop(QUANTIZATION_KEY, None)
    written = config_to_json(config, record_dtype(original, dtypes))
    if parse_config(written) != config:
        raise ValueError(f"config.json cannot express this config, which would be read back differently: {config}")
    with staged(folder) as staging:
        write_shards(staging, groups, max_shard_bytes)
        if source is not None:
            copy_companions(source.folder, staging)
        _write_generation_config(staging, folder, config, source)
        write_synced(staging / CONFIG_FILE, json_bytes(written))


def copy_companions(source: Path, target: Path) -> None:
    """Copies the companion files that `source` has into `target`, synced."""
    for name in COMPANION_FILES:
        if (source / name).is_file():
            write_synced(target / name, (source / name).read_bytes())


def _model_groups(
    config: ModelConfig, state_dict: Mapping[str, Tensor], dtype: torch.dtype | None
) -> Iterator[TensorGroup]:
    shapes = config.parameter_shapes()
    if different := sorted(shapes.keys() ^ state_dict.keys()):
        more = "lacks" if different[0] in shapes else "has unknown"
        raise ValueError(f"the state_dict {more} {different[0]} ({len(different)} names differ from the config's)")
    for name, tensor in state_dict.items():
        if tuple(tensor.shape) != shapes[name]:
            raise ValueError(f"{name} is {list(tensor.shape)}, the config requires {list(shapes[name])}")
        if tensor.is_meta:
            raise ValueError(f"{name} is on the meta device: it has no data to save")
        kept = dtype or tensor.dtype
        if kept not in (torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn):
            raise ValueError(f"{name} would be stored as {kept}; use float32, bfloat16, float16 or float8_e4m3fn")
        yield TensorGroup.of_tensor(checkpoint_name(name), DTYPE_NAMES[kept], tensor)


def _write_generation_config(staging: Path, folder: Path, config: ModelConfig, source: Checkpoint | None) -> None:
    """Writes the generation_config.json of the source, or of the folder, with the config's token ids.

    Other ids there would take precedence over those of config.json.
    """
    origin = folder if source is None else source.folder
    values = read_generation_config(origin)
    if not values:
        return
    # Null has no effect, so it may stay.
    ids = {key: value for key, value in token_ids_json(config).items() if values.get(key) is not None}
    if ids == {key: values[key] for key in ids}:
        content = (origin / GENERATION_CONFIG_FILE).read_bytes()
    else:
        content = json_bytes(values | ids)
    write_synced(staging / GENERATION_CONFIG_FILE, content)


def record_dtype(original: dict[str, object], dtypes: set[str]) -> dict[str, object]:
    """Returns `original` with the dtype that all weights are now stored in, or with null if there are several.

    8-bit floats do not count, because nothing computes with them.
    """
    spelled = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
    wide = dtypes - {"F8_E4M3"}
    dtype = spelled[next(iter(wide))] if len(wide) == 1 else None
    result = {key: value for key, value in original.items() if key not in ("dtype", "torch_dtype")} | {"dtype": dtype}
    text = result.get("text_config")
    if isinstance(text, dict) and text.keys() & {"dtype", "torch_dtype"}:
        result["text_config"] = {k: v for k, v in text.items() if k != "torch_dtype"} | {"dtype": dtype}
    return result
