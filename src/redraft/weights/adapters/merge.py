"""Merges an adapter into the model that it was trained on."""

from functools import partial
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from redraft.model.linear.low_rank import LowRank
from redraft.utils.json_files import json_bytes
from redraft.weights.adapters.files import read_adapter
from redraft.weights.card import CARD_FILE
from redraft.weights.checkpoint import Checkpoint, check_unchanged
from redraft.weights.config.file import GENERATION_CONFIG_FILE
from redraft.weights.config.keys import CONFIG_FILE
from redraft.weights.save import copy_companions
from redraft.weights.storage.header import StoredTensor
from redraft.weights.storage.publish import check_disk, check_new_folder, staged, write_synced
from redraft.weights.storage.shards import Report, TensorGroup, TensorSpec, write_shards


def merge_adapter(source: Path | str, adapter: Path | str, target: Path | str, report: Report | None = None) -> None:
    """Writes the checkpoint that the one in `source` is with an adapter, into a new folder, `target`.

    Its weights have the dtype of the source's, its card and its sampler settings are the adapter's where that has any.
    One tensor at a time is in memory. Raises ValueError, before anything is written, for a quantized source, an adapter
    of another base or with two passes that differ, a target that is not empty and a disk with too little space.
    """
    source, adapter, target = Path(source), Path(adapter), Path(target)
    check_new_folder(target)
    checkpoint = Checkpoint.open(source)
    if checkpoint.bits is not None:
        raise ValueError(
            f"{source} is quantized to {checkpoint.bits} bits: rounded to them again, its weights would lose most of "
            "what the adapter changes; serve it with --adapter, or merge the adapter into the checkpoint that this was "
            "made from (--base)"
        )
    read = read_adapter(adapter, checkpoint.config)
    read.check_base(checkpoint)
    if not read.is_shared:
        raise ValueError(
            f"{adapter} adapts the encoder pass and the denoiser pass in different ways: the two share their matrices, "
            "so it cannot be merged; run it with --adapter"
        )
    # In stored order, so that the source is read once from start to end.
    tensors = sorted(checkpoint.tensors.items(), key=lambda one: (one[1].file, one[1].start))
    groups = [
        _merged_group(stored, read.denoiser[name]) if name in read.denoiser else TensorGroup.of_stored(stored)
        for name, stored in tensors
    ]
    groups += map(TensorGroup.of_stored, checkpoint.unused.values())
    check_disk(target, sum(group.num_bytes for group in groups))
    with staged(target) as staging:
        write_shards(staging, groups, report=report)
        copy_companions(source, staging)
        for name in (CARD_FILE, GENERATION_CONFIG_FILE):
            if (adapter / name).is_file():
                write_synced(staging / name, (adapter / name).read_bytes())
        write_synced(staging / CONFIG_FILE, json_bytes(dict(checkpoint.original)))


def _merged_group(stored: StoredTensor, added: LowRank) -> TensorGroup:
    return TensorGroup((TensorSpec(stored.name, stored.dtype, stored.shape),), partial(_merge, stored, added))


def _merge(stored: StoredTensor, added: LowRank) -> tuple[Tensor]:
    with safe_open(stored.file, framework="pt") as file:
        check_unchanged(stored.file, stored.stamp)
        return (file.get_tensor(stored.name).float() + added.delta(),)
