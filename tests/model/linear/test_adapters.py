"""Rows with adapters, in one forward with others, against models into which the adapters are merged."""

from functools import partial

import pytest
import torch
from torch import Tensor

from redraft.model.batch import FlatBatch, Pass, SegmentInput
from redraft.model.cache import KVCache
from redraft.model.linear.low_rank import Matrices
from redraft.model.native.build import load_kernels
from redraft.model.preparation import hold_adapters, prepare
from redraft.model.transformer import Transformer
from tests.fakes.adapters import held_adapter, merged, random_adapter
from tests.fakes.models import tiny_config, tiny_model

CONFIG = tiny_config()
BOTH = random_adapter(CONFIG, 1)
ENCODER, DENOISER = random_adapter(CONFIG, 2, rank=3), random_adapter(CONFIG, 3, rank=9, targets=("o_proj", "experts"))
ROUTING = random_adapter(CONFIG, 4, targets=("router.proj", "self_conditioning", "down_proj"))
ADAPTERS = {
    "both": held_adapter(BOTH), "two": held_adapter(ENCODER, DENOISER), "routing": held_adapter(ROUTING),
}  # fmt: skip
PROMPT, CANVAS = 13, 8


@pytest.fixture(params=["kernels", "torch"])
def ready(request: pytest.FixtureRequest) -> partial[Transformer]:
    if request.param == "torch":
        return partial(prepare, precision="float32", find_kernels=lambda: None)
    if load_kernels() is None:
        pytest.skip("no compiler here")
    return partial(prepare, precision="float32")


def holding(ready: partial[Transformer]) -> Transformer:
    model = ready(tiny_model())
    hold_adapters(model).add(ADAPTERS)
    return model


def inputs(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prompt, canvas = (torch.randint(0, CONFIG.vocab_size, (n,), generator=generator) for n in (PROMPT, CANVAS))
    return prompt, canvas, torch.randn(CANVAS, CONFIG.hidden_size, generator=generator)


@torch.inference_mode()
def hidden(model: Transformer, names: list[str | None]) -> list[Tensor]:
    """Of a prompt and a canvas for each name, all in one forward: [PROMPT + CANVAS, D] each."""
    parts = []
    for slot, name in enumerate(names):
        prompt, canvas, soft = inputs(slot)
        adapter = model.adapter(name)
        parts.append(SegmentInput(prompt, 0, Pass.ENCODER, slot=slot, adapter=adapter))
        parts.append(SegmentInput(canvas, PROMPT, Pass.DENOISER, soft, slot, adapter))
    found = model.run(FlatBatch.of(parts), [KVCache(CONFIG) for _ in names]).hidden
    return list(found.split(PROMPT + CANVAS))


def merged_hidden(ready: partial[Transformer], adapter: Matrices, slot: int) -> Tensor:
    model = tiny_model()
    model.load_state_dict(merged(model.state_dict(), adapter))
    return hidden(ready(model), [None] * (slot + 1))[slot]


@pytest.mark.parametrize("name", ["both", "routing"])
def test_adapted_rows_are_the_merged_models(ready: partial[Transformer], name: str) -> None:
    found = hidden(holding(ready), [None, name, "two", name])
    for slot in (1, 3):
        wanted = merged_hidden(ready, ADAPTERS[name].encoder, slot)
        assert (wanted - hidden(ready(tiny_model()), [None] * 4)[slot]).norm() > 0.1 * wanted.norm()
        torch.testing.assert_close(found[slot], wanted, rtol=1e-4, atol=1e-4)


def test_each_pass_has_its_own(ready: partial[Transformer]) -> None:
    found = hidden(holding(ready), ["two"])[0]
    torch.testing.assert_close(found[:PROMPT], merged_hidden(ready, ENCODER, 0)[:PROMPT], rtol=1e-4, atol=1e-4)
    other = ready(tiny_model())
    hold_adapters(other).add({"two": held_adapter(DENOISER)})
    assert not torch.allclose(found[PROMPT:], hidden(other, ["two"])[0][PROMPT:], atol=1e-3)


def test_a_row_does_not_depend_on_the_adapters_beside_it(ready: partial[Transformer]) -> None:
    model = holding(ready)
    names = [None, "both", "two", "routing", "both", None]
    together = hidden(model, names)
    for slot, name in enumerate(names):
        alone = hidden(model, [None] * slot + [name])[slot]
        assert torch.equal(alone, together[slot])
    base = hidden(ready(tiny_model()), [None])[0]
    assert torch.equal(together[0], base)


def test_the_base_alone_keeps_its_bits(ready: partial[Transformer]) -> None:
    for one, other in zip(hidden(holding(ready), [None] * 3), hidden(ready(tiny_model()), [None] * 3), strict=True):
        assert torch.equal(one, other)


def test_adapters_come_and_go(ready: partial[Transformer]) -> None:
    model = holding(ready)
    bank = hold_adapters(model)
    before, size = hidden(model, ["both"])[0], bank.num_bytes
    new = held_adapter(ENCODER)
    bound = bank.bytes_with(new)
    bank.add({"new": new})
    assert bound / 2 < bank.num_bytes <= bound
    for name in ("two", "routing", "new"):
        bank.remove(name)
        assert torch.equal(hidden(model, ["both"])[0], before)
    assert list(bank) == ["both"]
    assert "two" not in bank
    assert bank.num_bytes < size
    with pytest.raises(ValueError, match=r"there is no adapter 'two': there are 'both'"):
        hidden(model, ["two"])
    with pytest.raises(ValueError, match=r"an adapter 'both' is loaded already"):
        bank.add({"both": new})
    gone = SegmentInput(inputs(0)[0], 0, Pass.ENCODER, adapter=new)
    with pytest.raises(ValueError, match="unloaded before its answer was finished"):
        model.run(FlatBatch.of([gone]), [KVCache(CONFIG)])
    bank.remove("both")
    assert bank.num_bytes == 0
