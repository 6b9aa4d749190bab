"""The readout against the same quantities in float64, by their definitions."""

import math

import pytest
import torch
from torch import Tensor

from redraft.model.readout.plain import inverse_cdf, plain_readout
from redraft.model.readout.query import ReadoutQuery
from redraft.model.transformer import Transformer
from tests.parity.reference import build_pair, make_config

TEMPERATURES = [0.05, 0.4, 0.8, 3.0]
CASES = [
    pytest.param(softcap, size, id=f"softcap-{softcap}-size-{size}")
    for softcap, sizes in ((0.5, (0.0, 1.0, 1e4)), (30.0, (0.0, 1.0, 40.0, 1e4)), (1000.0, (1.0, 40.0)))
    for size in sizes
]


def make(softcap: float, size: float) -> tuple[Transformer, Tensor]:
    """A model and hidden states [16, D] whose raw logits are of order `size`."""
    config = make_config(vocab_size=257, layer_types=("full_attention",), softcap=softcap)
    model = build_pair(config, 0, "eager").model
    return model, size * torch.randn(16, config.hidden_size, generator=torch.Generator().manual_seed(1))


def exact_logits(model: Transformer, hidden: Tensor, temperature: float) -> Tensor:
    raw = hidden.double() @ model.embed_tokens.weight.double().T
    return model.config.softcap * torch.tanh(raw / model.config.softcap) / temperature


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("softcap", "size"), CASES)
@torch.inference_mode()
def test_readout_is_exact(softcap: float, size: float, temperature: float) -> None:
    model, hidden = make(softcap, size)
    logits = exact_logits(model, hidden, temperature)
    probs = logits.softmax(dim=-1)
    cumulated = probs.cumsum(dim=-1)
    # The rounding of a logit of size x is about 1e-7 x, and temperature magnifies it.
    noise = 1e-6 * max(1.0, float(logits.abs().max()))

    # Uniforms in the middle of one token's share of [0, 1), so that rounding cannot move them out of it.
    generator = torch.Generator().manual_seed(2)
    wanted = torch.multinomial(probs, 1, generator=generator).squeeze(-1)
    share = probs.gather(1, wanted[:, None]).squeeze(-1)
    uniform = cumulated.gather(1, wanted[:, None]).squeeze(-1) - share / 2
    read = plain_readout(model.head, hidden, ReadoutQuery(temperature, uniform))

    sure = share > 10 * noise
    assert sure.float().mean() > 0.5
    assert torch.equal(read.sample[sure], wanted[sure])

    # Saturated logits tie; any of the greatest is an argmax.
    best = logits.gather(1, read.argmax[:, None]).squeeze(-1)
    assert float((logits.max(dim=-1).values - best).max()) <= noise

    # xlogy takes 0 log 0 as 0, which is what a token of vanishing probability adds.
    entropy = -torch.special.xlogy(probs, probs).sum(dim=-1)
    assert read.entropy.isfinite().all()
    assert float((read.entropy - entropy).abs().max()) <= 10 * noise
    assert float(read.entropy.min()) >= -1e-6 and float(read.entropy.max()) <= math.log(257) + 1e-5

    soft = probs @ model.embed_tokens.weight.double() * math.sqrt(model.config.hidden_size)
    assert float((read.soft_embedding - soft).abs().max()) <= 10 * noise


@torch.inference_mode()
def test_samples_follow_the_distribution() -> None:
    # Even uniforms visit each token as often as its probability says.
    model, hidden = make(30.0, 2.0)
    count = 5000
    probs = exact_logits(model, hidden[:1], 0.7).softmax(dim=-1)[0]
    uniform = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    read = plain_readout(model.head, hidden[:1].expand(count, -1), ReadoutQuery(0.7, uniform))
    frequencies = torch.bincount(read.sample, minlength=257).double() / count
    assert float((frequencies - probs).abs().max()) <= 1.5 / count
    assert read.sample.diff().min() >= 0


def test_inverse_cdf_never_takes_an_impossible_token() -> None:
    probs = torch.tensor([[0.0, 0.0, 0.25, 0.0, 0.75, 0.0, 0.0]]).expand(5, -1)
    uniform = torch.tensor([0.0, 0.25 - 1e-9, 0.25, 0.5, 1 - 2.0**-53], dtype=torch.float64)
    assert inverse_cdf(probs, uniform).tolist() == [2, 2, 4, 4, 4]
    # Nor where rounding left the probabilities' sum off 1.
    for total in (0.9999998, 1.0000002):
        assert inverse_cdf(probs * total, uniform)[[0, 3, 4]].tolist() == [2, 4, 4]
