"""Each kernel against the plain lines it is the twin of, in float32 and in bfloat16, and how they come to be built."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from redraft.model.attention import SegmentedAttention
from redraft.model.batch import FlatBatch, Pass, Segment
from redraft.model.cache import KVCache
from redraft.model.layers import Experts, RMSNorm, Router, rotate
from redraft.model.linear.quantized import rows_to_int8
from redraft.model.native import build
from redraft.model.native.build import load_kernels
from redraft.model.native.kernels import Kernels, packed_panels
from redraft.model.preparation import prepare
from redraft.model.readout.query import ReadoutQuery
from redraft.model.readout.streamed import streamed_readout
from tests.fakes.models import tiny_config, tiny_model

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
EPS = 1e-6


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    if shutil.which("g++") is None:
        pytest.skip("no compiler here")
    found = load_kernels()
    assert found is not None
    return found


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_close(found: Tensor, wanted: Tensor) -> None:
    """Equal but for rounding: in bfloat16 a last place here and there, which later steps may magnify a little."""
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    if found.dtype == torch.float32:
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    else:
        torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02)
        assert float((found != wanted).float().mean()) < 0.05


def rms(weight: Tensor) -> Callable[[Tensor], Tensor]:
    plain = RMSNorm(weight.shape[0], EPS).to(weight.dtype)
    with torch.no_grad():
        assert plain.weight is not None
        plain.weight.copy_(weight)
    return plain.requires_grad_(False)


@DTYPES
@pytest.mark.parametrize("size", [1, 7, 32, 300])
def test_norm(kernels: Kernels, dtype: torch.dtype, size: int) -> None:
    x, weight = 5 * normal(40, size, dtype=dtype), normal(size, seed=1, dtype=dtype)
    assert_close(kernels.norm(x, weight, EPS), rms(weight)(x))
    assert_close(kernels.norm(x[3:4], weight, EPS), rms(weight)(x)[3:4])


@DTYPES
@torch.no_grad()
def test_branch(kernels: Kernels, dtype: torch.dtype) -> None:
    x, change = normal(30, 96, dtype=dtype), normal(30, 96, seed=1, dtype=dtype)
    post, dense, scale, experts = (normal(96, seed=2 + i, dtype=dtype) for i in range(4))
    found = kernels.branch(x, change, post, dense, scale, experts, EPS)
    residual = x + rms(post)(change)
    wanted = (
        residual, rms(dense)(residual), RMSNorm(96, EPS, with_scale=False)(residual) * scale * 96**-0.5,
        rms(experts)(residual),
    )  # fmt: skip
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other)


@DTYPES
@pytest.mark.parametrize("has_values", [True, False])
@torch.no_grad()
def test_heads(kernels: Kernels, dtype: torch.dtype, has_values: bool) -> None:
    n, heads, groups, d = 21, 6, 2, 20
    qkv = normal(n, (heads + (1 + has_values) * groups) * d, dtype=dtype)
    q_norm, k_norm = normal(d, seed=1, dtype=dtype), normal(d, seed=2, dtype=dtype)
    angles = 3 * normal(n, 1, d // 2, seed=3)
    rope = (angles.cos(), angles.sin())
    q, k, *v = qkv.view(n, -1, d).split([heads, groups, groups][: 2 + has_values], dim=1)
    found = kernels.heads(qkv, q_norm, k_norm, rope, heads, groups, EPS)
    wanted = (
        rotate(rms(q_norm)(q), *rope), rotate(rms(k_norm)(k), *rope),
        RMSNorm(d, EPS, with_scale=False)(v[0] if v else k),
    )  # fmt: skip
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other)


@DTYPES
def test_gate(kernels: Kernels, dtype: torch.dtype) -> None:
    gate_up = normal(50, 70, dtype=dtype)
    gate_up[0, :4] = torch.tensor([200.0, -200.0, 0.0, -0.0])
    gate, up = gate_up.chunk(2, dim=-1)
    assert_close(kernels.gate(gate_up), F.gelu(gate, approximate="tanh") * up)
    gate_up[5, 3] = torch.nan
    assert kernels.gate(gate_up).isnan().nonzero().tolist() == [[5, 3]]


@DTYPES
@torch.no_grad()
def test_routing_and_merging_are_the_plain_branch(kernels: Kernels, dtype: torch.dtype) -> None:
    config = tiny_config(num_experts=8, experts_per_token=3)
    model = tiny_model(num_experts=8, experts_per_token=3).to(dtype)
    layer = model.layers[0]
    router, experts = layer.get_submodule("router"), layer.get_submodule("experts")
    assert isinstance(router, Router)
    assert isinstance(experts, Experts)
    residual, to_experts = normal(37, 32, dtype=dtype), normal(37, 32, seed=1, dtype=dtype)
    # No two alike: which of two equal scores is chosen is left open.
    scores = (normal(37, 8, seed=2).argsort(dim=-1) / 4).to(dtype)
    plain_weights, plain_experts = scores.float().softmax(dim=-1).topk(3, dim=-1)
    plain_weights = plain_weights / plain_weights.sum(dim=-1, keepdim=True) * router.per_expert_scale[plain_experts]
    weights, place, counts, rows = kernels.route(scores, router.per_expert_scale, to_experts, 3)
    torch.testing.assert_close(weights, plain_weights.float(), rtol=1e-5, atol=1e-6)
    assert torch.equal(counts, torch.bincount(plain_experts.flatten(), minlength=config.num_experts))
    assert torch.equal(rows[place], to_experts[:, None].expand(-1, 3, -1))
    assert torch.equal(torch.repeat_interleave(torch.arange(8), counts)[place], plain_experts)

    chosen = torch.cat(
        [
            F.linear(F.gelu(gate, approximate="tanh") * up, down)
            for share, up_weight, down in zip(
                rows.split(counts.tolist()), experts.gate_up_proj, experts.down_proj, strict=True
            )
            for gate, up in [F.linear(share, up_weight).chunk(2, dim=-1)]
        ]
    )
    dense, norms = normal(37, 32, seed=2, dtype=dtype), [normal(32, seed=3 + i, dtype=dtype) for i in range(3)]
    for scalar in (normal(1, seed=8, dtype=dtype), normal(37, 1, seed=9, dtype=dtype)):
        sparse = experts(to_experts, plain_weights, plain_experts)
        combined = rms(norms[0])(dense) + rms(norms[1])(sparse)
        wanted = (residual + rms(norms[2])(combined)) * scalar
        found = kernels.merge(
            residual, dense, chosen, place, weights, (norms[0], norms[1], norms[2]), scalar, EPS
        )  # fmt: skip
        assert_close(found, wanted)


@DTYPES
def test_scores_that_are_not_numbers_choose_different_experts(kernels: Kernels, dtype: torch.dtype) -> None:
    scores = torch.full((4, 6), torch.nan, dtype=dtype)
    _, place, counts, _ = kernels.route(scores, torch.ones(6, dtype=dtype), torch.zeros(4, 8, dtype=dtype), 3)
    assert int(counts.max()) == 4
    assert sorted(place.flatten().tolist()) == list(range(12))


@DTYPES
def test_quantizing(kernels: Kernels, dtype: torch.dtype) -> None:
    x = normal(30, 77, dtype=dtype) * torch.logspace(-3, 3, 30, dtype=dtype)[:, None]
    x[3], x[4, 5], x[5, 6] = 0, torch.nan, torch.inf
    found, scale = kernels.quantize(x)
    wanted, wanted_scale = rows_to_int8(x.float())
    assert torch.equal(found[[*range(4), *range(6, 30)]], wanted[[*range(4), *range(6, 30)]])
    torch.testing.assert_close(scale, wanted_scale, equal_nan=True)
    sums = torch.randint(-(2**20), 2**20, (30, 9), dtype=torch.int32)
    columns = normal(9, seed=1)
    assert_close(
        kernels.scale_sums(sums[:3], scale[:3], columns, dtype), (sums[:3] * wanted_scale[:3] * columns).to(dtype)
    )


@DTYPES
@given(data=st.data())
def test_products(kernels: Kernels, dtype: torch.dtype, data: st.DataObject) -> None:
    inputs, outputs = 2 * data.draw(st.integers(1, 40)), data.draw(st.integers(1, 100))
    if not kernels.has_multiply(dtype, inputs):
        pytest.skip("no products of our own here")
    counts = torch.tensor(data.draw(st.lists(st.integers(0, 20), min_size=1, max_size=5)))
    x, weights = normal(int(counts.sum()), inputs, dtype=dtype), normal(len(counts), outputs, inputs, dtype=dtype)
    found = kernels.multiply(x, packed_panels(weights), counts, outputs)
    shares = x.double().split(counts.tolist())
    wanted = torch.cat([share @ weight.double().T for share, weight in zip(shares, weights, strict=True)])
    torch.testing.assert_close(found.double(), wanted, rtol=4e-3 if dtype == torch.bfloat16 else 1e-5, atol=1e-4)


@DTYPES
@given(data=st.data())
def test_attention(kernels: Kernels, dtype: torch.dtype, data: st.DataObject) -> None:
    """Of up to three requests, each with a prompt in chunks and a canvas, in one batch."""
    if not kernels.has_attend(dtype):
        pytest.skip("no attention of our own here")
    config = tiny_config(sliding_window=data.draw(st.sampled_from([2, 5, 40, 200])), max_context=400)
    layer = data.draw(st.sampled_from([0, 2]))
    shape = config.attention_shape(layer)
    seed = data.draw(st.integers(0, 1000))
    lengths = [0] * data.draw(st.integers(1, 3))
    found, wanted = ([KVCache(config) for _ in lengths] for _ in range(2))
    for batch in range(data.draw(st.integers(1, 3))):
        segments: list[Segment] = []
        for slot in range(len(lengths)):
            for kind in data.draw(st.sampled_from([[Pass.ENCODER], [Pass.DENOISER], [Pass.ENCODER, Pass.DENOISER]])):
                length = data.draw(st.integers(1, 70))
                start = segments[-1].rows.stop if segments else 0
                segments.append(Segment(slot, start, length, lengths[slot], kind))
                lengths[slot] += length if kind is Pass.ENCODER else 0
        n = segments[-1].rows.stop + 3
        q, k, v = (
            normal(n, heads, shape.head_dim, seed=seed + 7 * batch + i, dtype=dtype)
            for i, heads in enumerate((config.num_heads, shape.num_kv_heads, shape.num_kv_heads))
        )
        contexts = [
            SegmentedAttention(config, segments, caches, way) for caches, way in ((found, kernels), (wanted, None))
        ]
        one, other = (context.attend(layer, q, k, v) for context in contexts)
        torch.testing.assert_close(
            one, other, rtol=0, atol=0.03 if dtype == torch.bfloat16 else 1e-5
        )  # fmt: skip
        found, wanted = (list(context.extended_caches()) for context in contexts)


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.KERNELS_VARIABLE, "off")
    assert build.load_kernels.__wrapped__() is None
    monkeypatch.setenv(build.KERNELS_VARIABLE, "perhaps")
    with pytest.raises(ValueError, match="REDRAFT_KERNELS is 'perhaps', must be on or off"):
        build.load_kernels.__wrapped__()


@pytest.mark.usefixtures("kernels")
def test_they_are_built_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.load_kernels.__wrapped__() is not None
    (library,) = (tmp_path / "redraft").iterdir()
    before = library.stat().st_mtime_ns
    assert build.load_kernels.__wrapped__() is not None
    assert library.stat().st_mtime_ns == before


@pytest.mark.parametrize("compiler", ["false", "no-such-compiler", "env no-such-compiler"])
def test_without_a_compiler_torch_does_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiler: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", compiler)
    assert build.load_kernels.__wrapped__() is None
    assert not any((tmp_path / "redraft").glob("*"))


@pytest.mark.usefixtures("kernels")
def test_a_broken_library_is_built_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.load_kernels.__wrapped__()
    (library,) = (tmp_path / "redraft").iterdir()
    whole = library.read_bytes()
    library.unlink()
    # Not in place: the one that is loaded is mapped.
    library.write_bytes(whole[:5000])
    assert build.load_kernels.__wrapped__() is not None
    assert [len(file.read_bytes()) for file in (tmp_path / "redraft").iterdir()] == [len(whole)]


@pytest.mark.usefixtures("kernels")
def test_without_a_place_to_keep_them_they_are_built_for_this_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert build.load_kernels.__wrapped__() is not None


@torch.inference_mode()
def test_what_the_programs_default_dtype_is_does_not_matter(kernels: Kernels) -> None:
    """Nor how what it is given lies in memory."""
    model = prepare(tiny_model(), "float32")
    assert model.kernels is kernels
    embeddings, uniform = normal(32, 9).t(), torch.full((9,), 0.5, dtype=torch.float64)

    def hidden() -> Tensor:
        batch = FlatBatch(
            torch.arange(9), torch.arange(9), (Segment(0, 0, 9, 0, Pass.ENCODER),), embeddings=embeddings,
            embedded=torch.ones(9, dtype=torch.bool),
        )  # fmt: skip
        found = model.run(batch, [KVCache(model.config)]).hidden
        assert bool(streamed_readout(model.head, found, ReadoutQuery(0.7, uniform)).entropy.isfinite().all())
        return found

    wanted = hidden()
    torch.set_default_dtype(torch.float64)
    try:
        torch.testing.assert_close(hidden(), wanted, rtol=0, atol=0)
    finally:
        torch.set_default_dtype(torch.float32)


def test_weights_of_two_dtypes_are_refused() -> None:
    model = tiny_model().bfloat16()
    model.layers[1].get_submodule("input_layernorm").float()
    with pytest.raises(ValueError, match=r"layers\.1\.input_layernorm\.weight is torch\.float32, the embedding"):
        prepare(model, "bf16")
