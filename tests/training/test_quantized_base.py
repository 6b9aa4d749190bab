"""An adapter that is trained beside a quantized model: the same numbers as beside its weights in float32."""

import json
from pathlib import Path

import pytest
import torch

import redraft
from redraft.model.layers import Experts
from redraft.model.linear import frozen
from redraft.model.linear.quantized import is_quantized
from redraft.model.transformer import Transformer
from redraft.training import LoRASettings, finetune
from redraft.training.loop import checkpoint_layers
from redraft.training.plan import check_memory
from redraft.training.run.trained import LoRA
from redraft.weights import memory
from redraft.weights.adapters.files import read_adapter
from redraft.weights.adapters.merge import merge_adapter
from redraft.weights.checkpoint import Checkpoint, load_model
from redraft.weights.config.file import read_config
from redraft.weights.quantize import quantize_checkpoint
from tests.fakes.checkpoints import trainable_checkpoint
from tests.training.test_lora import loss

pytestmark = pytest.mark.usefixtures("without_curves")

SETTINGS = LoRASettings(rank=3, alpha=6, targets=("all", "router.proj", "self_conditioning.up_proj"))


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> Path:
    """Folders base, int8 and int4."""
    folder = tmp_path_factory.mktemp("bases")
    trainable_checkpoint(folder / "base")
    for to in ("int8", "int4"):
        quantize_checkpoint(folder / "base", folder / to, to)
    return folder


def dequantized(folder: Path) -> Transformer:
    stored = load_model(folder, torch.float32)
    model = Transformer(stored.config)
    state = {name: value for name, value in stored.state_dict().items() if not is_quantized(name)}
    for name in filter(is_quantized, stored.config.parameter_shapes()):
        path, _, leaf = name.rpartition(".")
        matrix = getattr(stored.get_submodule(path), leaf)
        is_stacked = isinstance(stored.get_submodule(path), Experts)
        parts = [one.dequantized(torch.float32) for one in (matrix if is_stacked else [matrix])]
        state[name] = torch.stack(parts) if is_stacked else parts[0]
    model.load_state_dict(state)
    return model.eval()


def gradients(model: Transformer) -> tuple[torch.Tensor, list[torch.Tensor]]:
    lora = LoRA(model, SETTINGS, base="", fingerprint="", seed=0)
    with torch.no_grad():
        for parameter in lora.module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    total = loss(model)
    total.backward()
    return total.detach(), [parameter.grad for parameter in lora.module.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed again"])
@pytest.mark.parametrize("to", ["int8", "int4"])
def test_losses_and_gradients_are_those_of_the_dequantized_base(bases, monkeypatch, to, again):
    # Blocks of a few outputs, the last of them smaller.
    monkeypatch.setattr(frozen, "MAX_DEQUANTIZED", 7 * 32)
    model = frozen.train_beside_quantized(load_model(bases / to, torch.float32))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if again:
        checkpoint_layers(model)
    (expected, expected_gradients), (found, found_gradients) = map(gradients, (dequantized(bases / to), model))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert len(found_gradients) == len(expected_gradients) > 20
    for one, other in zip(found_gradients, expected_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_nothing_of_the_weights_is_kept_in_float32(bases):
    def kept_bytes(model: Transformer) -> int:
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        LoRA(model, LoRASettings(rank=1), base="", fingerprint="", seed=0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss(model)
        return sum(kept.values())

    model = frozen.train_beside_quantized(load_model(bases / "int8", torch.float32))
    of_matrices = sum(buffer.numel() for buffer in model.buffers() if buffer.dtype == torch.int8)
    assert of_matrices > 20_000
    # All but those whose input has no gradient: of self-conditioning, and of the first layer.
    assert kept_bytes(dequantized(bases / "int8")) - kept_bytes(model) >= 0.8 * 4 * of_matrices


@pytest.mark.parametrize("to", ["int8", "int4"])
def test_an_adapter_is_trained_resumed_and_answers_beside_its_base(bases, tmp_path, to):
    base, rows = bases / to, tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"Say {i}", "answer": f"{i}"}) + "\n" for i in range(20)))
    files = {path: path.read_bytes() for path in base.glob("*.safetensors")}
    settings = {"batch_size": 2, "validation_answers": 1, "learning_rate": 0.05, "ema": 0.9}
    for steps in (2, 4):
        run = finetune(
            rows, tmp_path / "run", base=base, lora=LoRASettings(rank=4), report=lambda _: None,
            validate_every=2, steps=steps, **settings,
        )  # fmt: skip
    assert run.summary["step"] == 4
    assert all(path.read_bytes() == content for path, content in files.items())
    adapter = read_adapter(run.checkpoint, read_config(base))
    assert adapter.base_bits == int(to[-1])
    # It names the base by what the quantized copy and its source have in common.
    for folder in (base, bases / "base"):
        adapter.check_base(Checkpoint.open(folder))
    model = redraft.load(base, adapters={"mine": tmp_path / "run"})
    answers = [
        [model.generate("hello", seed=seed, adapter=name).token_ids for seed in range(4)] for name in (None, "mine")
    ]
    assert answers[0] != answers[1]
    with pytest.raises(ValueError, match=r"is quantized to \d bits: rounded to them again, its weights would lose"):
        merge_adapter(base, run.checkpoint, tmp_path / "merged")
    merge_adapter(bases / "base", run.checkpoint, tmp_path / "merged")
    with pytest.raises(
        ValueError, match=r"is quantized to \d bits: it can be run, but not trained.* or train an adapter"
    ):
        finetune(rows, tmp_path / "full", base=base, lora=None, steps=1)


def test_its_memory_is_counted_in_few_bits(bases, monkeypatch):
    config, needed = read_config(bases / "base"), []
    monkeypatch.setattr(memory, "available_memory", lambda: 0)
    for bits in (None, 8, 4):
        with pytest.raises(ValueError, match=r"needs .* GB of memory") as caught:
            check_memory(config, LoRASettings(rank=1), bits)
        needed.append(str(caught.value))
    assert "quantize the base" in needed[0]
    assert "quantize the base" not in needed[1]
