"""The streamed readout against the definitions in float64, against the plain one, and what memory it takes."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from redraft.model import Transformer, plain_readout, streamed_readout
from redraft.model.native import kernels_here
from redraft.model.native.kernels import SHARE
from redraft.model.native.product import PackedEmbedding
from redraft.model.readout.streamed import ROW_BLOCK, TILE
from tests.fakes.models import tiny_model

VOCAB_SIZES = [1, 61, TILE, TILE + 1, 2 * TILE + SHARE // 2]


@pytest.fixture(params=["torch", "kernels", "kernels and packed embedding"])
def way(request: pytest.FixtureRequest) -> str:
    """The three ways to read a tile."""
    chosen: str = request.param
    if chosen != "torch" and kernels_here() is None:
        pytest.skip("no compiler here")
    return chosen


def readied(model: Transformer, way: str) -> Transformer:
    kernels = kernels_here() if way != "torch" else None
    weight = model.embed_tokens.weight
    model.kernels = kernels
    if kernels is not None and "packed" in way:
        if not kernels.multiplies(weight.dtype, weight.shape[1]):
            pytest.skip("no products of our own here")
        model.packed_embedding = PackedEmbedding(weight, TILE, kernels)
    return model


def make(
    way: str,
    vocab_size: int,
    size: float = 3.0,
    *,
    rows: int = 40,
    softcap: float = 30.0,
    dtype: torch.dtype = torch.float32,
) -> tuple[Transformer, Tensor]:
    """A model, and hidden states whose raw logits have a standard deviation of about `size`."""
    model = readied(tiny_model(vocab_size=vocab_size, softcap=softcap, eos_ids=(0,)).to(dtype), way)
    hidden = size * torch.randn(rows, model.config.hidden_size, generator=torch.Generator().manual_seed(1))
    return model, hidden.to(dtype)


def exact_logits(model: Transformer, hidden: Tensor, temperature: Tensor) -> Tensor:
    raw = hidden.double() @ model.embed_tokens.weight.double().T
    return model.config.softcap * torch.tanh(raw / model.config.softcap) / temperature.double()[:, None]


def uniforms(rows: int) -> Tensor:
    return torch.rand(rows, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def check(model: Transformer, hidden: Tensor, temperature: Tensor, *, noise: float = 1e-5) -> None:
    """Every figure of the readout within `noise` of what it is by definition."""
    uniform = uniforms(hidden.shape[0])
    asked = torch.randint(0, model.config.vocab_size, (hidden.shape[0], 3), generator=torch.Generator().manual_seed(3))
    read = streamed_readout(model, hidden, temperature, uniform, asked=asked)
    logits = exact_logits(model, hidden, temperature)
    log_probs = logits.log_softmax(dim=-1)
    probs = log_probs.exp()

    soft = probs @ model.embed_tokens.weight.double() * model.embedding_scale
    assert float(((read.soft_embedding - soft).norm(dim=-1) / soft.norm(dim=-1)).max()) <= noise
    entropy = -torch.special.xlogy(probs, probs).sum(dim=-1)
    assert bool(((read.entropy - entropy).abs() <= noise * (1 + entropy)).all())
    # Any of those that tie within a tenth of the noise may be the argmax.
    best = logits.gather(1, read.argmax[:, None])
    assert float((logits.amax(dim=-1, keepdim=True) - best).max()) <= noise / 10
    # A uniform number near a boundary may fall to either side.
    ends = probs.cumsum(dim=-1)
    end = ends.gather(1, read.sample[:, None])[:, 0]
    start = end - probs.gather(1, read.sample[:, None])[:, 0]
    assert bool(((start - noise <= uniform) & (uniform <= end + noise)).all())
    exact = torch.searchsorted(ends, uniform[:, None], right=True)[:, 0].clamp_max(logits.shape[1] - 1)
    clear = ((ends - uniform[:, None]).abs() > noise).all(dim=-1)
    assert torch.equal(read.sample[clear], exact[clear])
    assert read.log_probs is not None
    wanted = log_probs.gather(1, asked)
    assert bool(((read.log_probs - wanted).abs() <= noise * (1 + wanted.abs())).all())


@pytest.mark.parametrize("temperature", [0.4, 0.8, 3.0])
@pytest.mark.parametrize("size", [0.0, 0.3, 3.0, 8.0])
@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
@torch.inference_mode()
def test_each_figure_is_what_it_is_by_definition(way: str, vocab_size: int, size: float, temperature: float) -> None:
    model, hidden = make(way, vocab_size, size)
    check(model, hidden, torch.full((len(hidden),), temperature))


@torch.inference_mode()
def test_each_row_has_its_own_temperature(way: str) -> None:
    model, hidden = make(way, 3000)
    check(model, hidden, torch.linspace(0.3, 2.0, len(hidden)))


@pytest.mark.parametrize(("softcap", "size"), [(0.5, 1e4), (0.5, 1.0), (30.0, 1e4), (1000.0, 40.0)])
@pytest.mark.parametrize("temperature", [0.05, 0.8, 30.0])
@torch.inference_mode()
def test_softcap_at_its_extremes(way: str, softcap: float, size: float, temperature: float) -> None:
    # The rounding of a logit of size x is about 1e-7 x, and temperature magnifies it: no float32 readout knows better.
    model, hidden = make(way, 2 * TILE + 7, size, softcap=softcap)
    temperatures = torch.full((len(hidden),), temperature)
    largest = float(exact_logits(model, hidden, temperatures).abs().max())
    check(model, hidden, temperatures, noise=max(1e-5, 1e-6 * largest))


@torch.inference_mode()
def test_it_reads_what_the_plain_one_reads(way: str) -> None:
    model, hidden = make(way, 2 * TILE + 500, rows=2 * ROW_BLOCK + 9)
    uniform = uniforms(len(hidden))
    asked = torch.arange(len(hidden))[:, None] * torch.tensor([[1, 7]])
    for temperature in (0.7, torch.linspace(0.4, 0.9, len(hidden))):
        fast = streamed_readout(model, hidden, temperature, uniform, asked=asked)
        plain = plain_readout(model, hidden, temperature, uniform, asked=asked)
        assert torch.equal(fast.argmax, plain.argmax)
        assert torch.equal(fast.sample, plain.sample)
        torch.testing.assert_close(fast.entropy, plain.entropy, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(fast.soft_embedding, plain.soft_embedding, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fast.log_probs, plain.log_probs, rtol=1e-5, atol=1e-5)
        assert fast.soft_embedding.dtype == fast.entropy.dtype == torch.float32
    assert streamed_readout(model, hidden, 0.7, uniform).log_probs is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_a_row_does_not_depend_on_the_rows_beside_it(way: str, dtype: torch.dtype) -> None:
    model, hidden = make(way, 2 * TILE + 500, rows=2 * ROW_BLOCK + 30, dtype=dtype)
    uniform = uniforms(len(hidden))
    together = streamed_readout(model, hidden, 0.6, uniform)
    for rows in (slice(0, 1), slice(20, 27), slice(3, 67), slice(100, 2 * ROW_BLOCK + 30)):
        alone = streamed_readout(model, hidden[rows], 0.6, uniform[rows])
        for name in ("sample", "argmax", "entropy", "soft_embedding"):
            assert torch.equal(getattr(alone, name), getattr(together, name)[rows]), name


@torch.inference_mode()
def test_bfloat16_weights_are_read_within_their_rounding(way: str) -> None:
    model, hidden = make(way, 2 * TILE + 500, 2.0, rows=200, dtype=torch.bfloat16)
    temperature = torch.full((len(hidden),), 0.7)
    read = streamed_readout(model, hidden, temperature, uniforms(len(hidden)))
    logits = exact_logits(model, hidden, temperature)
    probs = logits.softmax(dim=-1)
    # bfloat16 keeps 8 bits: a logit of 16 is rounded to a sixteenth, less than 1/256 of it on either side.
    rounding = float(logits.abs().max()) / 256
    assert float((logits.amax(dim=-1) - logits.gather(1, read.argmax[:, None])[:, 0]).max()) <= 2 * rounding
    entropy = -torch.special.xlogy(probs, probs).sum(dim=-1)
    assert float((read.entropy - entropy).abs().mean()) <= rounding / 4
    soft = probs @ model.embed_tokens.weight.double() * model.embedding_scale
    assert float(((read.soft_embedding - soft).norm(dim=-1) / soft.norm(dim=-1)).mean()) <= 0.01
    ends = probs.cumsum(dim=-1)
    end = ends.gather(1, read.sample[:, None])[:, 0]
    start = end - probs.gather(1, read.sample[:, None])[:, 0]
    uniform = uniforms(len(hidden))
    outside = torch.maximum(start - uniform, uniform - end).clamp_min(0)
    assert float(outside.max()) <= 0.05
    assert float(outside.mean()) <= 0.002


@torch.inference_mode()
def test_samples_follow_the_distribution(way: str) -> None:
    # Pearson's chi-square of 10,000 samples over 60 tokens: its mean is 59, a standard deviation 11.
    model, hidden = make(way, 60, 1.0, rows=1)
    count = 10_000
    read = streamed_readout(model, hidden.expand(count, -1), 0.8, uniforms(count))
    expected = exact_logits(model, hidden, torch.tensor([0.8])).softmax(dim=-1)[0] * count
    assert float(expected.min()) > 5
    observed = torch.bincount(read.sample, minlength=60)
    assert 20 < float(((observed - expected) ** 2 / expected).sum()) < 120


@torch.inference_mode()
def test_samples_follow_the_distribution_over_tiles_and_shares(way: str) -> None:
    # Even uniforms visit each token as often as its probability says, in order.
    model, hidden = make(way, TILE + 100, 1.0, rows=1)
    count = 4_000
    even = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    read = streamed_readout(model, hidden.expand(count, -1), 0.8, even)
    probs = exact_logits(model, hidden, torch.tensor([0.8])).softmax(dim=-1)[0]
    frequencies = torch.bincount(read.sample, minlength=len(probs)).double() / count
    assert float((frequencies - probs).abs().max()) <= 1.5 / count
    assert int(read.sample.diff().min()) >= 0


@torch.inference_mode()
def test_the_ends_of_the_unit_interval(way: str) -> None:
    model, hidden = make(way, 2100, 20.0, rows=30)
    for u in (0.0, 1 - 2.0**-53):
        read = streamed_readout(model, hidden, 0.4, torch.full((30,), u, dtype=torch.float64))
        chosen = streamed_readout(model, hidden, 0.4, uniforms(30), asked=read.sample[:, None]).log_probs
        assert chosen is not None
        # Not one that float32 gives no probability at all.
        assert float(chosen.min()) > -104


@torch.inference_mode()
def test_a_row_that_is_not_finite_stays_alone(way: str) -> None:
    model, hidden = make(way, 2100, rows=12)
    hidden[5, 3] = float("nan")
    read = streamed_readout(model, hidden, 0.7, uniforms(12))
    assert read.entropy.isnan().nonzero().flatten().tolist() == [5]
    assert read.soft_embedding.isnan().any(dim=-1).nonzero().flatten().tolist() == [5]
    assert bool(((read.sample >= 0) & (read.sample < 2100)).all())
    assert bool(((read.argmax >= 0) & (read.argmax < 2100)).all())
    healthy = [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    plain = plain_readout(model, hidden[healthy], 0.7, uniforms(12)[healthy])
    assert torch.equal(read.sample[healthy], plain.sample)


class LargestTensor(TorchDispatchMode):
    """Notes the most elements that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else (out,):
            # Views of the embedding are no memory of ours.
            if isinstance(one, Tensor) and not one._is_view():
                self.elements = max(self.elements, one.numel())
        return out


def test_no_tensor_has_the_size_of_all_logits(way: str) -> None:
    model, hidden = make(way, 12 * TILE, rows=ROW_BLOCK)
    with torch.no_grad(), LargestTensor() as largest:
        streamed_readout(model, hidden, 0.7, uniforms(ROW_BLOCK), asked=torch.zeros(ROW_BLOCK, 2, dtype=torch.int64))
    # A tile and what is gathered for samples.
    assert 0 < largest.elements <= 2**20
    with torch.no_grad(), LargestTensor() as largest:
        plain_readout(model, hidden, 0.7, uniforms(ROW_BLOCK))
    assert largest.elements == ROW_BLOCK * 12 * TILE


MEASURE = """
import resource, sys, torch
from redraft.model.readout.plain import plain_readout
from redraft.model.native import kernels_here
from redraft.model.readout.streamed import streamed_readout
torch.set_num_threads(1)
dtype = getattr(torch, sys.argv[1])

class Config:
    softcap, vocab_size = 30.0, 262144

class Embedding:
    weight = torch.empty(262144, 2816, dtype=dtype)

class Model:
    config, embed_tokens, embedding_scale = Config, Embedding, 2816.0**0.5
    kernels, packed_embedding = kernels_here() if sys.argv[2] == "kernels" else None, None

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

with torch.inference_mode():
    for part in Embedding.weight.split(4096):
        part.normal_(std=2816.0**-0.5)
    hidden = torch.randn(256, 2816).to(dtype)
    uniform = torch.rand(256, dtype=torch.float64)
    class Small(Model):
        class embed_tokens:
            weight = Embedding.weight[:1024]
    # Loads the libraries' code, which is not what a readout needs.
    streamed_readout(Small, hidden[:8], 0.7, uniform[:8])
    before = peak_mib()
    read = streamed_readout(Model, hidden, 0.7, uniform)
    assert read.entropy.isfinite().all()
    print(peak_mib() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("kernels", ["kernels", "torch"])
def test_the_released_vocabulary_takes_32_mib(dtype: str, kernels: str) -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE, dtype, kernels], capture_output=True, text=True, check=True)
    assert 0 < float(done.stdout) <= 32
