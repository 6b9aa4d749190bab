"""Checkpoints go both ways between us and transformers, and mean the same to both."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.models.diffusion_gemma.configuration_diffusion_gemma import DiffusionGemmaConfig
from transformers.models.diffusion_gemma.modeling_diffusion_gemma import DiffusionGemmaForBlockDiffusion as Reference
from transformers.utils import logging

from redraft.model.linear.quantized import is_quantized
from redraft.weights.checkpoint import Checkpoint, load_model
from redraft.weights.config.file import config_to_json, parse_config, read_config
from redraft.weights.save import save_checkpoint
from redraft.weights.sizes import ModelSizes
from redraft.weights.storage.names import checkpoint_name, is_tied_copy, is_unused
from tests.weights.support import LAYERS, VISION, edit_json, logits, read_json, released_config, tiny_config, weights

TEXT = {
    "vocab_size": 101,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "sliding_window": 5,
    "layer_types": list(LAYERS),
    "num_experts": 6,
    "top_k_experts": 2,
    "moe_intermediate_size": 24,
    "max_position_embeddings": 1000,
    "eos_token_id": [1, 7],
}
FULL_SHAPE = {"global_head_dim": 16, "num_global_key_value_heads": 1}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def reference(**text: Any) -> Reference:
    config = DiffusionGemmaConfig(text_config=TEXT | text, vision_config=VISION, canvas_length=8)
    torch.manual_seed(0)
    model = Reference(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    for name, buffer in model.named_buffers():
        if name.endswith("layer_scalar"):
            buffer.copy_(torch.rand(1) + 0.5)
    return model


@pytest.fixture(scope="module")
def model() -> Reference:
    return reference(**FULL_SHAPE)


@pytest.fixture
def saved(model: Reference, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


@torch.no_grad()
def reference_logits(model: Reference, prompt: Tensor, canvas: Tensor) -> tuple[Tensor, Tensor]:
    cache = DynamicCache(config=model.config.text_config)
    first = model(input_ids=prompt[None], past_key_values=cache, decoder_input_ids=canvas[None]).logits
    second = model(past_key_values=cache, decoder_input_ids=canvas[None], self_conditioning_logits=first).logits
    return first[0], second[0]


def assert_same_logits(theirs: Reference, folder: Path) -> None:
    prompt, canvas = torch.arange(20) * 3 % 101, torch.arange(8) * 7 % 101
    ours = load_model(folder, torch.float32)
    for a, b in zip(logits(ours, prompt, canvas), reference_logits(theirs, prompt, canvas), strict=True):
        assert b.std() > 0.1
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def from_pretrained(folder: Path) -> Reference:
    """As transformers loads it, nothing missing, nothing left over."""
    loaded, info = Reference.from_pretrained(folder, output_loading_info=True)
    assert {key: list(info[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")} == {
        "missing_keys": [],
        "unexpected_keys": [],
        "mismatched_keys": [],
    }
    return loaded.eval()


def test_we_load_what_transformers_saves(model: Reference, saved: Path) -> None:
    assert "per_layer_config" in read_json(saved / "config.json")["text_config"]
    assert read_config(saved) == tiny_config()
    assert_same_logits(model, saved)


def test_we_load_the_released_spelling(model: Reference, saved: Path) -> None:
    config = read_json(saved / "config.json")
    del config["text_config"]["per_layer_config"]
    config["text_config"] |= FULL_SHAPE
    edit_json(saved / "config.json", **config)
    assert read_config(saved) == tiny_config()
    assert_same_logits(model, saved)


def test_we_load_shards(model: Reference, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, max_shard_size="150KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert_same_logits(model, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        # Full layers shaped like sliding ones: saved with an empty per_layer_config.
        {"global_head_dim": 32},
        # The default: head_dim 512 and no key-value heads of their own.
        {"num_hidden_layers": 2, "layer_types": list(LAYERS[:2])},
        {
            **FULL_SHAPE,
            "final_logit_softcapping": 7.0,
            "rms_norm_eps": 1e-3,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "proportional", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
                "full_attention": {"rope_type": "default", "rope_theta": 90.0},
            },
        },
        {**FULL_SHAPE, "layer_types": None},
    ],
)
def test_other_configurations_mean_the_same(tmp_path: Path, text: dict[str, Any]) -> None:
    theirs = reference(**text)
    theirs.save_pretrained(tmp_path / "theirs")
    assert_same_logits(theirs, tmp_path / "theirs")
    # And once around: ours, read by transformers.
    source = Checkpoint.open(tmp_path / "theirs")
    save_checkpoint(tmp_path / "ours", source.config, source.load(), source=source)
    assert_same_logits(from_pretrained(tmp_path / "ours"), tmp_path / "theirs")


def test_defaults_are_the_references_today() -> None:
    experts = {"num_experts": 6, "top_k_experts": 2, "moe_intermediate_size": 24}
    theirs = json.loads(DiffusionGemmaConfig(text_config=experts).to_json_string(use_diff=False))
    assert parse_config({"model_type": "diffusion_gemma", "text_config": experts}) == parse_config(theirs)


@pytest.mark.parametrize("max_shard_bytes", [10**9, 100_000])
def test_transformers_loads_what_we_save(model: Reference, saved: Path, tmp_path: Path, max_shard_bytes: int) -> None:
    source = Checkpoint.open(saved)
    state = weights(source.config, seed=5)
    save_checkpoint(tmp_path / "ours", source.config, state, source=source, max_shard_bytes=max_shard_bytes)
    theirs = from_pretrained(tmp_path / "ours")
    assert_same_logits(theirs, tmp_path / "ours")
    before = model.state_dict()
    vision = {name: tensor for name, tensor in theirs.state_dict().items() if "vision" in name}
    assert len(vision) > 10
    assert all(torch.equal(tensor, before[name]) for name, tensor in vision.items())
    config = theirs.config.text_config
    assert list(config.eos_token_id) == [1, 7]
    assert theirs.config.canvas_length == 8


def test_bfloat16_goes_both_ways(saved: Path, tmp_path: Path) -> None:
    source = Checkpoint.open(saved)
    save_checkpoint(tmp_path / "ours", source.config, source.load(), source=source, dtype=torch.bfloat16)
    theirs = from_pretrained(tmp_path / "ours")
    assert theirs.dtype == torch.bfloat16
    ours = Checkpoint.open(tmp_path / "ours").load()
    assert torch.equal(theirs.model.decoder.embed_tokens.weight, ours["embed_tokens.weight"])


def test_transformers_reads_our_floats_of_8_bits(saved: Path, tmp_path: Path) -> None:
    source = Checkpoint.open(saved)
    short = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in source.load().items() if is_quantized(name)}
    save_checkpoint(tmp_path / "ours", source.config, source.load() | short, source=source)
    theirs = Reference.from_pretrained(tmp_path / "ours", dtype=torch.float32).eval()
    found = theirs.model.decoder.layers[0].mlp.gate_proj.weight
    assert torch.equal(found, short["layers.0.mlp.gate_proj.weight"].float())
    assert_same_logits(theirs, tmp_path / "ours")


def saved_names(model: Reference) -> dict[str, tuple[int, ...]]:
    """What save_pretrained writes of a model: its state without the names that are tied to another."""
    tied = model.all_tied_weights_keys
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}


def test_how_save_pretrained_chooses_what_to_write(model: Reference, saved: Path) -> None:
    checkpoint = Checkpoint.open(saved)
    stored = {one.name: one.shape for one in (*checkpoint.tensors.values(), *checkpoint.unused.values())}
    assert stored == saved_names(model)
    wanted = {checkpoint_name(name) for name in checkpoint.tensors}
    assert all(is_tied_copy(name, wanted) for name in model.all_tied_weights_keys)


def test_names_and_shapes_of_26b_a4b_are_the_references() -> None:
    text = config_to_json(released_config())["text_config"]
    with torch.device("meta"):
        theirs = Reference(DiffusionGemmaConfig(text_config=text, vision_config=VISION))
    expected = {name: shape for name, shape in saved_names(theirs).items() if not is_unused(name)}
    ours = {checkpoint_name(name): shape for name, shape in released_config().parameter_shapes().items()}
    assert ours == expected
    assert len(ours) == 691
    everything = sum(torch.Size(shape).numel() for shape in expected.values())
    assert everything == ModelSizes.of(released_config()).parameters
