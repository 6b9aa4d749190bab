"""Adapters: PEFT around transformers' model, and ours beside the products of the prepared model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from redraft.model.batch import FlatBatch, Pass, SegmentInput
from redraft.model.cache import KVCache
from redraft.model.preparation import hold_adapters, prepare
from redraft.model.transformer import Transformer
from redraft.weights.adapters.files import Adapter, read_adapter, write_adapter
from tests.fakes.adapters import random_adapter
from tests.parity.reference import Pair, Theirs, build_pair, make_config, max_difference

peft = pytest.importorskip("peft")
# PEFT asks transformers' models for it.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

CONFIG = make_config()
TOLERANCE = 1e-4
MODULES = (
    r"model\.(decoder|encoder\.language_model)\.(layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.up_proj|router\.proj)"
    r"|self_conditioning\.gate_proj)"
)


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    prompt, canvas = (torch.randint(CONFIG.vocab_size, (n,), generator=generator) for n in (11, CONFIG.canvas_length))
    return prompt, canvas


@torch.inference_mode()
def theirs(model: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states of a prompt; logits of a canvas, and of the same with self-conditioning."""
    prompt, canvas = inputs()
    side = Theirs(model.base_model.model)
    return side.encode(prompt), (first := side.denoise(canvas)), side.denoise(canvas, first)


@torch.inference_mode()
def ours(pair: Pair, adapter: Adapter) -> tuple[Tensor, Tensor, Tensor]:
    """The same of our model with the adapter, from a model of its own: `prepare` changes what it is given."""
    model = Transformer(pair.config)
    model.load_state_dict(pair.model.state_dict())
    prepare(model, "float32")
    hold_adapters(model).add({"it": adapter})
    prompt, canvas = inputs()
    read = model.run(FlatBatch.of([SegmentInput(prompt, 0, Pass.ENCODER, adapter=adapter)]), [KVCache(CONFIG)])

    def denoise(soft: Tensor | None) -> Tensor:
        part = SegmentInput(canvas, len(prompt), Pass.DENOISER, soft, adapter=adapter)
        return model.head.logits(model.run(FlatBatch.of([part]), read.caches).hidden)

    first = denoise(None)
    return read.hidden, first, denoise(model.head.soft_embedding(first))


def check_equal(pair: Pair, model: Any, adapter: Adapter) -> None:
    assert max_difference(zip(ours(pair, adapter), theirs(model), strict=True)) <= TOLERANCE


@pytest.mark.parametrize("parameters", [["experts.gate_up_proj", "experts.down_proj"], ["experts.down_proj"], None])
def test_we_read_what_peft_writes(tmp_path: Path, parameters: list[str] | None) -> None:
    """Encoder and denoiser have different ones."""
    pair = build_pair(CONFIG, 0, "eager")
    before = theirs_of_base(pair)
    config = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=MODULES, target_parameters=parameters, alpha_pattern={"q_proj": 3}
    )
    model = peft.get_peft_model(pair.reference, config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                size = 0.3 if "lora_B" in name else parameter.shape[1] ** -0.5
                parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(tmp_path)
    adapter = read_adapter(tmp_path, CONFIG)
    assert not adapter.is_shared
    check_equal(pair, model, adapter)
    assert max_difference(zip(before, theirs(model), strict=True)) > 0.1


def test_peft_reads_what_we_write(tmp_path: Path) -> None:
    pair = build_pair(CONFIG, 0, "eager")
    shared = random_adapter(CONFIG, 3, targets=("q_proj", "mlp.up_proj", "experts", "self_conditioning", "router.proj"))
    write_adapter(tmp_path, shared, rank=4, alpha=8)
    adapter = read_adapter(tmp_path, CONFIG)
    assert adapter.is_shared
    check_equal(pair, peft.PeftModel.from_pretrained(pair.reference, tmp_path), adapter)


@torch.inference_mode()
def theirs_of_base(pair: Pair) -> tuple[Tensor, Tensor, Tensor]:
    prompt, canvas = inputs()
    side = Theirs(pair.reference)
    return side.encode(prompt), (first := side.denoise(canvas)), side.denoise(canvas, first)
