"""Adapters in PEFT's layout: ours and those that PEFT itself writes and reads."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from redraft.model.linear.low_rank import LowRank, Matrices
from redraft.weights.adapters.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, fingerprint, read_adapter, write_adapter
from redraft.weights.checkpoint import Checkpoint
from redraft.weights.quantize import quantize_checkpoint
from redraft.weights.save import save_checkpoint
from tests.fakes.adapters import random_adapter
from tests.fakes.models import tiny_config, tiny_model

CONFIG = tiny_config()
MATRICES = random_adapter(CONFIG, 0, targets=("self_attn", "mlp", "experts", "router", "self_conditioning"))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_adapter(tmp_path, MATRICES, rank=4, alpha=8)
    return tmp_path


def change_config(folder: Path, **changes: object) -> None:
    path = folder / ADAPTER_CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(folder: Path, **changes: Tensor | None) -> None:
    path = folder / ADAPTER_WEIGHTS
    tensors = {name: one for name, one in (load_file(path) | changes).items() if one is not None}
    save_file(tensors, path)


def same(one: Matrices, other: Matrices, scale: float = 1.0) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name].a, other[name].a)
        torch.testing.assert_close(one[name].b, scale * other[name].b)


def test_what_is_written_is_read(written: Path) -> None:
    adapter = read_adapter(written, CONFIG)
    same(adapter.denoiser, MATRICES, scale=2.0)
    assert adapter.is_shared
    assert (adapter.rank, adapter.alpha) == (4, 8)
    assert {"self_attn.q_proj", "experts.down_proj", "router.proj"} < set(adapter.targets)


@pytest.mark.parametrize("leaf", ["gate_up_proj", "down_proj"])
@pytest.mark.parametrize("changes", [{"expert_size": 32}, {"hidden_size": 32, "expert_size": 16}, {}])
def test_a_single_stacked_matrix(tmp_path: Path, leaf: str, changes: dict[str, int]) -> None:
    """Also where a matrix is square: its name in the file does not say which one it is."""
    config = tiny_config(**changes)
    matrices = random_adapter(config, 0, targets=(f"experts.{leaf}",))
    write_adapter(tmp_path, matrices, rank=4, alpha=4)
    same(read_adapter(tmp_path, config).denoiser, matrices)


def test_scales(written: Path) -> None:
    change_config(written, use_rslora=True, alpha_pattern={"q_proj": 2})
    found = read_adapter(written, CONFIG).denoiser
    for name, factor in (("self_attn.q_proj", 2 / 2), ("self_attn.o_proj", 8 / 2)):
        name = f"layers.1.{name}.weight"
        torch.testing.assert_close(found[name].b, MATRICES[name].b * factor)


def test_two_passes_may_differ(written: Path) -> None:
    name = "base_model.model.model.encoder.language_model.layers.0.mlp.up_proj.lora_B.weight"
    change_weights(written, **{name: torch.zeros(CONFIG.dense_size, 4)})
    adapter = read_adapter(written, CONFIG)
    assert not adapter.is_shared
    assert not adapter.encoder["layers.0.mlp.up_proj.weight"].b.any()
    assert adapter.denoiser["layers.0.mlp.up_proj.weight"].b.any()


Q = "base_model.model.model.decoder.layers.0.self_attn.q_proj.lora_{}.weight"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({Q.format("A"): None}, r"of an adapter's two matrices only \S+q_proj.lora_B.weight is there"),
        ({Q.format("A"): torch.zeros(4, 31)}, r"\[4, 31\] and \[32, 4\], which do not fit a matrix of 32 × 32"),
        ({Q.format("B"): torch.full((32, 4), torch.nan)}, "holds NaN"),
        ({"base_model.model.model.decoder.layers.7.mlp.up_proj.lora_A.weight": torch.zeros(4, 32)}, "only"),
        ({"base_model.model.model.decoder.embed_tokens.lora_A.weight": torch.zeros(4, 32)}, "only|cannot adapt"),
        ({"model.something": torch.zeros(1)}, "model.something is not a matrix of an adapter"),
        ({"base_model.model.model.encoder.vision_tower.a.lora_A.weight": torch.zeros(1, 1)}, "vision tower"),
    ],
)
def test_refused_weights(written: Path, changes: Mapping[str, Tensor | None], message: str) -> None:
    change_weights(written, **changes)
    with pytest.raises(ValueError, match=message):
        read_adapter(written, CONFIG)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3', only 'LORA'"),
        ({"use_dora": True}, "use_dora is True: adapters with DoRA are not supported"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is .*: adapters with whole modules of its own"),
        ({"lora_alpha": "8"}, "lora_alpha is '8', must be a number"),
        ({"alpha_pattern": {"q": True}}, "alpha_pattern 'q' is True, must be a number"),
    ],
)
def test_refused_configurations(written: Path, changes: dict[str, Any], message: str) -> None:
    change_config(written, **changes)
    with pytest.raises(ValueError, match=message):
        read_adapter(written, CONFIG)


def test_missing_files(tmp_path: Path, written: Path) -> None:
    (written / ADAPTER_WEIGHTS).rename(written / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"adapter_model\.bin, which is not read"):
        read_adapter(written, CONFIG)
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'none' / ADAPTER_CONFIG} is missing")):
        read_adapter(tmp_path / "none", CONFIG)


def test_the_base_is_recognised(tmp_path: Path) -> None:
    for seed in (0, 1):
        save_checkpoint(tmp_path / str(seed), CONFIG, tiny_model(seed).bfloat16().state_dict())
    quantize_checkpoint(tmp_path / "0", tmp_path / "int8", "int8")
    right, wrong, quantized = (Checkpoint.open(tmp_path / name) for name in ("0", "1", "int8"))
    write_adapter(tmp_path / "a", MATRICES, rank=4, alpha=8, base="mine", base_fingerprint=fingerprint(right))
    adapter = read_adapter(tmp_path / "a", CONFIG)
    adapter.check_base(right)
    adapter.check_base(quantized)
    with pytest.raises(ValueError, match=r"was trained on another base than .*1: mine, with fingerprint"):
        adapter.check_base(wrong)


def test_low_rank() -> None:
    one = LowRank(torch.ones(2, 3, 5), torch.ones(2, 4, 3))
    assert one.rank == 3
    assert torch.equal(one.delta(), torch.full((2, 4, 5), 3.0))
