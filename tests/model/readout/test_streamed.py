"""The streamed readout against the definitions in float64, against the plain one, and what memory it takes."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from redraft.model.head import OutputHead
from redraft.model.native.build import load_kernels
from redraft.model.native.kernels import SHARE
from redraft.model.native.linear import PackedEmbedding
from redraft.model.readout.classes import TILE
from redraft.model.readout.plain import plain_readout
from redraft.model.readout.query import AllowedTokens, Readout, ReadoutQuery
from redraft.model.readout.streamed import STREAM_ROWS, streamed_readout
from tests.fakes.models import tiny_model

VOCAB_SIZES = [1, 61, TILE, TILE + 1, 2 * TILE + SHARE // 2]


@pytest.fixture(scope="module", params=["torch", "kernels", "kernels and packed embedding"])
def way(request: pytest.FixtureRequest) -> str:
    """The three ways to read a tile."""
    chosen: str = request.param
    if chosen != "torch" and load_kernels() is None:
        pytest.skip("no compiler here")
    return chosen


def made_ready(head: OutputHead, way: str) -> OutputHead:
    kernels = load_kernels() if way != "torch" else None
    packed = None
    if kernels is not None and "packed" in way:
        if not kernels.has_multiply(head.embedding.dtype, head.embedding.shape[1]):
            pytest.skip("no products of our own here")
        packed = PackedEmbedding(head.embedding, TILE, kernels)
    return replace(head, kernels=kernels, packed=packed)


def make(
    way: str,
    vocab_size: int,
    size: float = 3.0,
    *,
    rows: int = 40,
    softcap: float = 30.0,
    dtype: torch.dtype = torch.float32,
) -> tuple[OutputHead, Tensor]:
    """A head, and hidden states whose raw logits have a standard deviation of about `size`."""
    head = made_ready(tiny_model(vocab_size=vocab_size, softcap=softcap, eos_ids=(0,)).to(dtype).head, way)
    hidden = size * torch.randn(rows, head.embedding.shape[1], generator=torch.Generator().manual_seed(1))
    return head, hidden.to(dtype)


def exact_logits(head: OutputHead, hidden: Tensor, temperature: Tensor) -> Tensor:
    raw = hidden.double() @ head.embedding.double().T
    return head.softcap * torch.tanh(raw / head.softcap) / temperature.double()[:, None]


def uniforms(rows: int) -> Tensor:
    return torch.rand(rows, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def check(head: OutputHead, hidden: Tensor, temperature: Tensor, *, noise: float = 1e-5) -> None:
    """Every figure of the readout within `noise` of what it is by definition."""
    uniform = uniforms(hidden.shape[0])
    asked = torch.randint(0, head.vocab_size, (hidden.shape[0], 3), generator=torch.Generator().manual_seed(3))
    read = streamed_readout(head, hidden, ReadoutQuery(temperature, uniform, token_ids=asked))
    logits = exact_logits(head, hidden, temperature)
    log_probs = logits.log_softmax(dim=-1)
    probs = log_probs.exp()

    soft = probs @ head.embedding.double() * head.scale
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
    head, hidden = make(way, vocab_size, size)
    check(head, hidden, torch.full((len(hidden),), temperature))


@torch.inference_mode()
def test_each_row_has_its_own_temperature(way: str) -> None:
    head, hidden = make(way, 3000)
    check(head, hidden, torch.linspace(0.3, 2.0, len(hidden)))


@pytest.mark.parametrize(("softcap", "size"), [(0.5, 1e4), (0.5, 1.0), (30.0, 1e4), (1000.0, 40.0)])
@pytest.mark.parametrize("temperature", [0.05, 0.8, 30.0])
@torch.inference_mode()
def test_softcap_at_its_extremes(way: str, softcap: float, size: float, temperature: float) -> None:
    # The rounding of a logit of size x is about 1e-7 x, and temperature magnifies it: no float32 readout knows better.
    head, hidden = make(way, 2 * TILE + 7, size, softcap=softcap)
    temperatures = torch.full((len(hidden),), temperature)
    largest = float(exact_logits(head, hidden, temperatures).abs().max())
    check(head, hidden, temperatures, noise=max(1e-5, 1e-6 * largest))


@torch.inference_mode()
def test_it_reads_what_the_plain_one_reads(way: str) -> None:
    head, hidden = make(way, 2 * TILE + 500, rows=2 * STREAM_ROWS + 9)
    uniform = uniforms(len(hidden))
    asked = torch.arange(len(hidden))[:, None] * torch.tensor([[1, 7]])
    for temperature in (0.7, torch.linspace(0.4, 0.9, len(hidden))):
        fast = streamed_readout(head, hidden, ReadoutQuery(temperature, uniform, token_ids=asked))
        plain = plain_readout(head, hidden, ReadoutQuery(temperature, uniform, token_ids=asked))
        assert torch.equal(fast.argmax, plain.argmax)
        assert torch.equal(fast.sample, plain.sample)
        torch.testing.assert_close(fast.entropy, plain.entropy, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(fast.soft_embedding, plain.soft_embedding, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fast.log_probs, plain.log_probs, rtol=1e-5, atol=1e-5)
        assert fast.soft_embedding.dtype == fast.entropy.dtype == torch.float32
    assert streamed_readout(head, hidden, ReadoutQuery(0.7, uniform)).log_probs is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_a_row_does_not_depend_on_the_rows_beside_it(way: str, dtype: torch.dtype) -> None:
    head, hidden = make(way, 2 * TILE + 500, rows=2 * STREAM_ROWS + 30, dtype=dtype)
    uniform = uniforms(len(hidden))
    together = streamed_readout(head, hidden, ReadoutQuery(0.6, uniform))
    for rows in (slice(0, 1), slice(20, 27), slice(3, 67), slice(100, 2 * STREAM_ROWS + 30)):
        alone = streamed_readout(head, hidden[rows], ReadoutQuery(0.6, uniform[rows]))
        for name in ("sample", "argmax", "entropy", "soft_embedding"):
            assert torch.equal(getattr(alone, name), getattr(together, name)[rows]), name


@torch.inference_mode()
def test_bfloat16_weights_are_read_within_their_rounding(way: str) -> None:
    head, hidden = make(way, 2 * TILE + 500, 2.0, rows=200, dtype=torch.bfloat16)
    temperature = torch.full((len(hidden),), 0.7)
    read = streamed_readout(head, hidden, ReadoutQuery(temperature, uniforms(len(hidden))))
    logits = exact_logits(head, hidden, temperature)
    probs = logits.softmax(dim=-1)
    # bfloat16 keeps 8 bits: a logit of 16 is rounded to a sixteenth, less than 1/256 of it on either side.
    rounding = float(logits.abs().max()) / 256
    assert float((logits.amax(dim=-1) - logits.gather(1, read.argmax[:, None])[:, 0]).max()) <= 2 * rounding
    entropy = -torch.special.xlogy(probs, probs).sum(dim=-1)
    assert float((read.entropy - entropy).abs().mean()) <= rounding / 4
    soft = probs @ head.embedding.double() * head.scale
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
    head, hidden = make(way, 60, 1.0, rows=1)
    count = 10_000
    read = streamed_readout(head, hidden.expand(count, -1), ReadoutQuery(0.8, uniforms(count)))
    expected = exact_logits(head, hidden, torch.tensor([0.8])).softmax(dim=-1)[0] * count
    assert float(expected.min()) > 5
    observed = torch.bincount(read.sample, minlength=60)
    assert 20 < float(((observed - expected) ** 2 / expected).sum()) < 120


@torch.inference_mode()
def test_samples_follow_the_distribution_over_tiles_and_shares(way: str) -> None:
    # Even uniforms visit each token as often as its probability says, in order.
    head, hidden = make(way, TILE + 100, 1.0, rows=1)
    count = 4_000
    even = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    read = streamed_readout(head, hidden.expand(count, -1), ReadoutQuery(0.8, even))
    probs = exact_logits(head, hidden, torch.tensor([0.8])).softmax(dim=-1)[0]
    frequencies = torch.bincount(read.sample, minlength=len(probs)).double() / count
    assert float((frequencies - probs).abs().max()) <= 1.5 / count
    assert int(read.sample.diff().min()) >= 0


@torch.inference_mode()
def test_the_ends_of_the_unit_interval(way: str) -> None:
    head, hidden = make(way, 2100, 20.0, rows=30)
    for u in (0.0, 1 - 2.0**-53):
        read = streamed_readout(head, hidden, ReadoutQuery(0.4, torch.full((30,), u, dtype=torch.float64)))
        chosen = streamed_readout(
            head, hidden, ReadoutQuery(0.4, uniforms(30), token_ids=read.sample[:, None])
        ).log_probs
        assert chosen is not None
        # Not one that float32 gives no probability at all.
        assert float(chosen.min()) > -104


@torch.inference_mode()
def test_a_row_that_is_not_finite_stays_alone(way: str) -> None:
    head, hidden = make(way, 2100, rows=12)
    hidden[5, 3] = float("nan")
    read = streamed_readout(head, hidden, ReadoutQuery(0.7, uniforms(12)))
    assert read.entropy.isnan().nonzero().flatten().tolist() == [5]
    assert read.soft_embedding.isnan().any(dim=-1).nonzero().flatten().tolist() == [5]
    assert bool(((read.sample >= 0) & (read.sample < 2100)).all())
    assert bool(((read.argmax >= 0) & (read.argmax < 2100)).all())
    healthy = [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    plain = plain_readout(head, hidden[healthy], ReadoutQuery(0.7, uniforms(12)[healthy]))
    assert torch.equal(read.sample[healthy], plain.sample)


SETS = st.one_of(st.sampled_from(["one token", "the last token", "a tile's end", "all"]), st.floats(0.001, 1))


def allowed_tokens(sets: list[str | float], rows: list[int], vocab_size: int) -> AllowedTokens:
    """Sets of the tokens that their names say, or of a share of all."""
    masks = torch.zeros(len(sets), vocab_size, dtype=torch.bool)
    for i, (mask, which) in enumerate(zip(masks, sets, strict=True)):
        match which:
            case "one token":
                mask[vocab_size // 2] = True
            case "the last token":
                mask[-1] = True
            case "a tile's end":
                mask[max(0, min(TILE, vocab_size) - 3) : TILE] = True
            case "all":
                mask[:] = True
            case _:
                chosen = torch.rand(vocab_size, generator=torch.Generator().manual_seed(i))
                mask[:] = chosen <= max(float(which), float(chosen.min()))
    return AllowedTokens(masks, torch.tensor(rows))


@given(data=st.data())
@settings(max_examples=40, deadline=None)
@torch.inference_mode()
def test_any_query_is_answered_as_the_plain_one_answers(way: str, data: st.DataObject) -> None:
    vocab_size, count = data.draw(st.sampled_from(VOCAB_SIZES)), data.draw(st.integers(1, 40))
    head, hidden = make(way, vocab_size, data.draw(st.sampled_from([0.3, 3.0, 8.0])), rows=count)
    sets = data.draw(st.lists(SETS, min_size=1, max_size=3))
    rows = data.draw(st.lists(st.integers(-1, len(sets) - 1), min_size=count, max_size=count))
    query = ReadoutQuery(
        torch.linspace(data.draw(st.sampled_from([0.4, 0.9])), 1.2, count),
        uniforms(count),
        allowed=allowed_tokens(sets, rows, vocab_size) if data.draw(st.booleans()) else None,
        token_ids=torch.randint(0, vocab_size, (count, 3), generator=torch.Generator().manual_seed(3)),
        top=data.draw(st.sampled_from([0, 1, 5, 70])),
    )
    fast, plain = streamed_readout(head, hidden, query), plain_readout(head, hidden, query)
    assert torch.equal(fast.argmax, plain.argmax)
    torch.testing.assert_close(fast.entropy, plain.entropy, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fast.soft_embedding, plain.soft_embedding, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fast.log_probs, plain.log_probs, rtol=1e-5, atol=1e-5)
    forbidden = torch.zeros(count, vocab_size, dtype=torch.bool)
    if query.allowed is not None:
        forbidden = ~query.allowed.allows(torch.arange(vocab_size).expand(count, -1))
    assert not forbidden.gather(1, torch.stack((fast.sample, fast.argmax), dim=1)).any()
    # A uniform number near a boundary may fall to either side.
    assert isinstance(query.temperature, Tensor)
    logits = exact_logits(head, hidden, query.temperature).masked_fill(forbidden, -torch.inf)
    ends = logits.softmax(dim=-1).cumsum(dim=-1)
    clear = ((ends - query.uniforms[:, None]).abs() > 1e-5).all(dim=-1)
    assert torch.equal(fast.sample[clear], plain.sample[clear])
    if not query.top:
        assert fast.top is plain.top is None
        return
    assert fast.top is not None and plain.top is not None
    assert fast.top.ids.shape == (count, min(query.top, vocab_size))
    torch.testing.assert_close(fast.top.log_probs, plain.top.log_probs, rtol=1e-5, atol=2e-5)
    # Tokens may swap where they are as likely.
    at_one = (logits * query.temperature.double()[:, None]).log_softmax(dim=-1)
    there = ~fast.top.log_probs.isneginf()
    found = at_one.gather(1, fast.top.ids)
    torch.testing.assert_close(found[there], fast.top.log_probs.double()[there], rtol=1e-5, atol=2e-5)
    assert torch.equal(there.sum(dim=1), (~forbidden).sum(dim=1).clamp_max(there.shape[1]))
    assert not fast.top.ids[~there].any()


@torch.inference_mode()
def test_a_row_with_one_allowed_token_has_no_choice(way: str) -> None:
    head, hidden = make(way, 2 * TILE + 500, rows=9)
    mask = torch.zeros(1, head.vocab_size, dtype=torch.bool)
    mask[0, TILE + 7] = True
    allowed = AllowedTokens(mask, torch.zeros(9, dtype=torch.int64))
    ids = torch.tensor([[TILE + 7, 3]]).expand(9, -1)
    read = streamed_readout(head, hidden, ReadoutQuery(0.7, uniforms(9), allowed, ids, top=2))
    assert read.sample.tolist() == read.argmax.tolist() == [TILE + 7] * 9
    assert read.entropy.tolist() == [0.0] * 9
    torch.testing.assert_close(read.soft_embedding, (head.embedding[TILE + 7] * head.scale).expand(9, -1))
    assert read.log_probs is not None and read.top is not None
    assert read.top.log_probs.tolist() == [[0.0, -torch.inf]] * 9
    # The logit is computed again.
    torch.testing.assert_close(read.log_probs, read.top.log_probs, rtol=0, atol=1e-5)
    assert read.top.ids.tolist() == [[TILE + 7, 0]] * 9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_a_row_does_not_depend_on_what_is_allowed_beside_it(way: str, dtype: torch.dtype) -> None:
    head, hidden = make(way, 2 * TILE + 500, rows=2 * STREAM_ROWS + 30, dtype=dtype)
    count = len(hidden)
    rows = (torch.arange(count) % 5 - 1).clamp_max(2).tolist()
    allowed = allowed_tokens(["one token", "a tile's end", 0.1], rows, head.vocab_size)
    ids, temperatures = torch.arange(count)[:, None], torch.linspace(0.4, 1.0, count)
    query = ReadoutQuery(temperatures, uniforms(count), allowed, ids, top=4)
    together = figures(streamed_readout(head, hidden, query))
    for part in (slice(0, 1), slice(1, 2), slice(20, 27), slice(3, 67), slice(100, count)):
        of_part = AllowedTokens(allowed.masks, allowed.rows[part])
        query_of_part = ReadoutQuery(temperatures[part], query.uniforms[part], of_part, ids[part], top=4)
        for name, alone in figures(streamed_readout(head, hidden[part], query_of_part)).items():
            assert torch.equal(alone, together[name][part]), name
    # And where nothing is allowed or asked beside it, a row is read as ever.
    free = allowed.rows < 0
    assert free.any()
    as_ever = figures(streamed_readout(head, hidden, ReadoutQuery(query.temperature, query.uniforms)))
    for name, figure in as_ever.items():
        assert torch.equal(figure[free], together[name][free]), name


@torch.inference_mode()
def test_what_is_not_asked_is_not_there_and_changes_nothing(way: str) -> None:
    head, hidden = make(way, 2 * TILE + 500, rows=STREAM_ROWS + 30)
    whole = streamed_readout(head, hidden, ReadoutQuery(0.7, uniforms(len(hidden))))
    for readout in (streamed_readout, plain_readout):
        read = readout(head, hidden, ReadoutQuery(0.7, None, soft_embedding=False))
        assert read.soft_embedding is read.log_probs is read.top is None
        assert torch.equal(read.sample, read.argmax)
        assert torch.equal(read.argmax, whole.argmax)
        torch.testing.assert_close(read.entropy, whole.entropy, rtol=1e-5, atol=1e-5)


class Synchronisations(TorchDispatchMode):
    """Counts how often the host waits for a value."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_what_is_allowed_is_not_asked_of_each_tile_again(way: str) -> None:
    found = []
    for tiles, rows in ((2, 40), (9, 40), (9, 40 + 2 * STREAM_ROWS)):
        head, hidden = make(way, tiles * TILE, rows=rows)
        allowed = allowed_tokens(["one token"], [0] * rows, head.vocab_size)
        with torch.inference_mode(), Synchronisations() as synchronisations:
            streamed_readout(head, hidden, ReadoutQuery(0.7, uniforms(rows), allowed))
        found.append(synchronisations.count)
    assert found[0] == found[1] == found[2]


def figures(read: Readout) -> dict[str, Tensor]:
    found = {name: getattr(read, name) for name in ("sample", "argmax", "entropy", "soft_embedding", "log_probs")}
    if read.top is not None:
        found |= {"top ids": read.top.ids, "top log_probs": read.top.log_probs}
    return {name: figure for name, figure in found.items() if figure is not None}


def test_a_set_that_allows_nothing_is_refused() -> None:
    masks = torch.ones(3, 5, dtype=torch.bool)
    masks[1] = False
    with pytest.raises(ValueError, match="allowed set 1 has no tokens, must have at least one"):
        AllowedTokens(masks, torch.tensor([0]))
    for row in (-2, 3):
        with pytest.raises(ValueError, match="rows of allowed tokens must lie between -1 and 2, the last set"):
            AllowedTokens(torch.ones(3, 5, dtype=torch.bool), torch.tensor([row]))


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
    head, hidden = make(way, 12 * TILE, rows=STREAM_ROWS)
    with torch.no_grad(), LargestTensor() as largest:
        streamed_readout(
            head,
            hidden,
            ReadoutQuery(0.7, uniforms(STREAM_ROWS), token_ids=torch.zeros(STREAM_ROWS, 2, dtype=torch.int64)),
        )
    # A tile and what is gathered for samples.
    assert 0 < largest.elements <= 2**20
    with torch.no_grad(), LargestTensor() as largest:
        plain_readout(head, hidden, ReadoutQuery(0.7, uniforms(STREAM_ROWS)))
    assert largest.elements == STREAM_ROWS * 12 * TILE


MEASURE = """
import dataclasses, sys, torch
from redraft.model.head import OutputHead
from redraft.model.linear.methods import multiply
from redraft.model.readout.query import ReadoutQuery
from redraft.model.readout.streamed import streamed_readout
from redraft.model.native.build import load_kernels
torch.set_num_threads(1)
embedding = torch.empty(262144, 2816, dtype=getattr(torch, sys.argv[1]))
kernels = load_kernels() if sys.argv[2] == "kernels" else None
head = OutputHead(embedding=embedding, softcap=30.0, scale=2816.0**0.5, kernels=kernels)

def peak_mib():
    # Not getrusage's peak, which begins with that of the process that started this one.
    (peak,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024

with torch.inference_mode():
    for part in embedding.split(4096):
        part.normal_(std=2816.0**-0.5)
    hidden = torch.randn(256, 2816).to(embedding.dtype)
    uniforms = torch.rand(256, dtype=torch.float64)
    # The libraries' code, and the buffers of their own for a tile's products, which differ by processor, are not what a
    # readout needs.
    tile = embedding[:1024]
    multiply(multiply(hidden, tile), tile.t())
    streamed_readout(dataclasses.replace(head, embedding=embedding[:1024]), hidden[:8], ReadoutQuery(0.7, uniforms[:8]))
    before = peak_mib()
    read = streamed_readout(head, hidden, ReadoutQuery(0.7, uniforms))
    assert read.entropy.isfinite().all()
    print(peak_mib() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("kernels", ["kernels", "torch"])
def test_the_released_vocabulary_takes_32_mib(dtype: str, kernels: str) -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE, dtype, kernels], capture_output=True, text=True, check=True)
    # The kernel counts pages in batches, for each processor: the peak is known to about half a MiB.
    assert 0 < float(done.stdout) <= 33
