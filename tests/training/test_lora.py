"""An adapter that is trained: what it computes, what is resumed, and that it is used as it was trained."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import redraft
from redraft.diffusion.randomness import Counter
from redraft.model.preparation import prepare
from redraft.training import LoRASettings, finetune
from redraft.training.data.examples import Example, make_batch
from redraft.training.loop import checkpoint_layers
from redraft.training.objective import losses
from redraft.training.run.trained import LoRA
from redraft.training.settings import lora_targets
from redraft.weights.adapters.files import ADAPTER_WEIGHTS
from redraft.weights.checkpoint import load_model
from tests.fakes.checkpoints import trainable_checkpoint
from tests.fakes.models import tiny_config, tiny_model

pytestmark = pytest.mark.usefixtures("without_curves")

CONFIG = tiny_config()
EXAMPLES = [Example((5, 6, 7), (8, 9, 1)), Example((3, 4), (*range(20, 30), 1))]
SETTINGS = LoRASettings(rank=3, alpha=6, targets=("all", "router.proj", "self_conditioning.up_proj"))


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return trainable_checkpoint(tmp_path_factory.mktemp("base"))


def loss(model) -> torch.Tensor:
    batch = make_batch(EXAMPLES, CONFIG.canvas_length, CONFIG.vocab_size, Counter(0), unrolling=0.5)
    return losses(model, batch).total


def merged(lora: LoRA, scale: float = SETTINGS.scale) -> dict[str, torch.Tensor]:
    """The state of the plain model that the adapter makes of its own."""
    sides = {name: parameter.detach() for name, parameter in lora.module.named_parameters()}
    state = dict(lora.model.state_dict())
    for name in state:
        if (key := f"{name}.a".replace(".", "/")) in sides:
            state[name] = state[name] + sides[f"{key[:-1]}b"] @ sides[key] * scale
    return state


def test_it_is_the_merged_model(tmp_path):
    plain = loss(tiny_model())
    lora = LoRA(tiny_model(), SETTINGS, base="", fingerprint="", seed=0)
    torch.testing.assert_close(loss(lora.model), plain, rtol=0, atol=0)
    with torch.no_grad():
        for parameter in lora.module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    other = tiny_model()
    other.load_state_dict(merged(lora))
    found = loss(lora.model)
    assert abs(found - plain) > 0.01
    torch.testing.assert_close(found, loss(other), rtol=1e-5, atol=1e-5)
    found.backward()
    assert all(parameter.grad is None for parameter in lora.model.parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in lora.module.parameters())
    before = [parameter.detach().clone() for parameter in lora.module.parameters()]
    with lora.validated({name: torch.zeros_like(one) for name, one in lora.module.named_parameters()}) as model:
        torch.testing.assert_close(loss(model), plain, rtol=0, atol=0)
    assert all(torch.equal(*pair) for pair in zip(before, lora.module.parameters(), strict=True))
    lora.write(tmp_path, lora.module.state_dict())
    other = LoRA(tiny_model(), SETTINGS, base="", fingerprint="", seed=1)
    other.read(tmp_path)
    torch.testing.assert_close(loss(other.model), found, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"holds an adapter of rank 3 for .*, which is not what is trained"):
        LoRA(tiny_model(), dataclasses.replace(SETTINGS, rank=4), base="", fingerprint="", seed=0).read(tmp_path)


def test_targets():
    kinds = {name.split(".", 2)[-1] for name in lora_targets(CONFIG, ("attention", "experts"))}
    assert kinds == {
        *(f"self_attn.{one}_proj.weight" for one in "qkvo"), "experts.gate_up_proj", "experts.down_proj",
    }  # fmt: skip
    assert len(lora_targets(CONFIG, ("up_proj",))) == CONFIG.num_layers + 1
    assert not any("router" in name for name in lora_targets(CONFIG, ("all",)))
    with pytest.raises(ValueError, match="targets has 'embed_tokens', which names no matrix of the model; known: att"):
        lora_targets(CONFIG, ("embed_tokens",))


def tune(base: Path, out: Path, **changes) -> Path:
    rows = out.parent / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"Say {i}", "answer": f"{i}"}) + "\n" for i in range(20)))
    lora = changes.pop("lora", LoRASettings(rank=4, dropout=0.1))
    settings = {"steps": 4, "batch_size": 2, "validation_answers": 1} | changes
    return finetune(rows, out, base=base, lora=lora, report=lambda _: None, **settings).checkpoint


def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(base, tmp_path):
    whole = tune(base, tmp_path / "whole", ema=0.9)
    tune(base, tmp_path / "cut", ema=0.9, stop_after=0.0)
    cut = tune(base, tmp_path / "cut", ema=0.9)
    assert whole.name == cut.name == "step-0000004"
    one, other = (load_file(folder / ADAPTER_WEIGHTS) for folder in (whole, cut))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(ValueError, match=r"holds a run with weights LoRA on all: rank 4, alpha 32, dropout 0\.1, not"):
        tune(base, tmp_path / "cut", lora=LoRASettings(rank=8))
    with pytest.raises(ValueError, match=r"holds a run with weights LoRA .*, not all"):
        tune(base, tmp_path / "cut", lora=None)


def test_what_was_trained_is_what_answers(base, tmp_path):
    """And the folder of a run is its adapter, with a card of its own and without the base's files."""
    checkpoint = tune(base, tmp_path / "run", learning_rate=0.05)
    assert {path.name for path in checkpoint.iterdir()} == {
        "adapter_config.json", ADAPTER_WEIGHTS, "redraft.json", "training",
    }  # fmt: skip
    model = redraft.load(base, adapters={"mine": tmp_path / "run"})
    adapted = model.with_adapter("mine")
    assert adapted.card.purpose == f"Fine-tuned from {base} on rows.jsonl."
    lora = LoRA(load_model(base, torch.float32), LoRASettings(rank=4), base="", fingerprint="", seed=0)
    lora.read(checkpoint)
    other = redraft.load(base)
    plain = load_model(base, torch.float32)
    plain.load_state_dict(merged(lora, 32 / 4))
    other.transformer = prepare(plain, "float32")
    for seed in range(4):
        expected = other.generate("hello", seed=seed).token_ids
        assert adapted.generate("hello", seed=seed).token_ids == expected
        assert model.generate("hello", seed=seed).token_ids != expected


@pytest.mark.parametrize("is_lora", [False, True])
def test_layers_that_are_computed_again_give_the_same_gradients_and_keep_less(is_lora):
    """Also where a dropout is drawn again, and the keys and values that canvases read come out of such a layer."""

    def gradients(*, again: bool) -> tuple[torch.Tensor, list[torch.Tensor], int]:
        torch.manual_seed(0)
        model = tiny_model()
        lora = LoRA(model, dataclasses.replace(SETTINGS, dropout=0.3), base="", fingerprint="", seed=0)
        module = lora.module if is_lora else model.requires_grad_(True)
        if again:
            checkpoint_layers(model)
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            total = loss(model)
        total.backward()
        return total.detach(), [one.grad for one in module.parameters() if one.grad is not None], sum(kept.values())

    (plain, expected, much), (found, again, little) = (gradients(again=again) for again in (False, True))
    assert torch.equal(found, plain)
    assert len(again) == len(expected) > 20
    assert all(torch.equal(*pair) for pair in zip(again, expected, strict=True))
    assert little < much / 2
