"""The prepared model against the plain one, and each form of product against the same product in float64."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from redraft.diffusion.settings import SamplerSettings
from redraft.generation.loop import generate
from redraft.model.batch import FlatBatch, Pass
from redraft.model.cache import KVCache
from redraft.model.linear.methods import Int8Linear, PackedLinear, PlainLinear, WeightOnlyLinear, has_onednn
from redraft.model.native.build import load_kernels
from redraft.model.precision import Precision
from redraft.model.preparation import prepare
from redraft.model.transformer import Transformer
from redraft.weights.checkpoint import load_model
from redraft.weights.fetch import BUNDLED_FOLDER
from tests.fakes.models import tiny_model

PRODUCTS: dict[str, Callable[[Tensor], nn.Module]] = {
    "plain": PlainLinear,
    "packed": PackedLinear,
    "int8": Int8Linear,
    "int8-weight-only": partial(WeightOnlyLinear, bits=8),
    "int4-weight-only": partial(WeightOnlyLinear, bits=4),
}
# The share of its norm that a precision may move the median hidden state by: about twice what is seen. (Some are moved
# further, where a router's near tie falls to another expert.) In float32 it is the most that any may be moved.
CLOSE = {"float32": 1e-5, "bf16": 0.02, "int8": 0.04, "int8-weight-only": 0.03, "int4-weight-only": 0.4}


Prepare = Callable[[Transformer, str], Transformer]


@pytest.fixture(params=["kernels", "torch"])
def prepared(request: pytest.FixtureRequest) -> Prepare:
    """`prepare` with and without kernels of our own."""
    if request.param == "torch":
        return partial(prepare, find_kernels=lambda: None)
    if load_kernels() is None:
        pytest.skip("no compiler here")
    return prepare


def matrices(rows: int = 40, inputs: int = 96, outputs: int = 50) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(rows, inputs, generator=generator)
    return x, torch.randn(outputs, inputs, generator=generator) * torch.logspace(-2, 2, outputs)[:, None]


@torch.inference_mode()
def hidden_states(model: Transformer, prompt_length: int = 19) -> Tensor:
    """Of a prompt in two passes, of a canvas without and of one with self-conditioning: [N, D]."""
    generator = torch.Generator().manual_seed(5)
    config = model.config
    cache = KVCache(config)
    found = []
    for length, kind in ((prompt_length, Pass.ENCODER), (3, Pass.ENCODER), (8, Pass.DENOISER), (8, Pass.DENOISER)):
        ids = torch.randint(0, config.vocab_size, (length,), generator=generator)
        soft = torch.randn(length, config.hidden_size, generator=generator) if len(found) == 3 else None
        batch = FlatBatch.single(ids, cache.length, kind, soft_embedding=soft)
        forward = model.run(batch, [cache])
        (cache,) = forward.caches
        found.append(forward.hidden)
    return torch.cat(found).float()


def distances(found: Tensor, wanted: Tensor) -> Tensor:
    return (found - wanted).norm(dim=-1) / wanted.norm(dim=-1)


@pytest.mark.parametrize("precision", CLOSE)
def test_hidden_states_are_the_plain_models(prepared: Prepare, precision: str) -> None:
    wanted = hidden_states(tiny_model())
    moved = distances(hidden_states(prepared(tiny_model().to(Precision.named(precision).dtype), precision)), wanted)
    assert float(moved.max() if precision == "float32" else moved.median()) <= CLOSE[precision]
    # And it is the precision asked for: none other is that exact.
    assert precision == "float32" or float(moved.median()) > 1e-3


def test_the_bundled_models_hidden_states_are_the_plain_models(prepared: Prepare) -> None:
    wanted = hidden_states(load_model(BUNDLED_FOLDER, torch.float32))
    found = hidden_states(prepared(load_model(BUNDLED_FOLDER, torch.float32), "float32"))
    assert float(distances(found, wanted).max()) <= 1e-5


def test_it_writes_what_the_plain_model_writes(prepared: Prepare) -> None:
    settings = SamplerSettings(seed=3, max_new_tokens=24, steps=6)
    plain = generate(tiny_model(), [4, 5, 6], settings)
    fast = generate(prepared(tiny_model(), "float32"), [4, 5, 6], settings)
    assert fast.canvases == plain.canvases
    assert fast.steps_per_canvas == plain.steps_per_canvas


def test_nothing_plain_is_left_beside_what_replaces_it(prepared: Prepare) -> None:
    def make() -> Transformer:
        return tiny_model(num_experts=32, hidden_size=64, expert_size=64, dense_size=64).bfloat16()

    plain = sum(tensor.nbytes for tensor in make().state_dict().values())
    for precision, most in {"int8": 0.55, "int8-weight-only": 0.55, "int4-weight-only": 0.3}.items():
        kept = sum(tensor.nbytes for tensor in prepared(make(), precision).state_dict().values()) / plain
        assert kept <= most, precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", PRODUCTS)
@torch.inference_mode()
def test_a_row_does_not_depend_on_the_rows_beside_it(name: str, dtype: torch.dtype) -> None:
    if name == "packed" and not has_onednn(torch.device("cpu"), dtype):
        pytest.skip("oneDNN does not multiply in this dtype here")
    x, weight = (one.to(dtype) for one in matrices())
    product = PRODUCTS[name](weight)
    together = product(x)
    assert together.dtype == dtype
    for rows in (slice(0, 1), slice(5, 12), slice(8, 25)):
        assert torch.equal(product(x[rows]), together[rows])


@torch.inference_mode()
def test_integer_products_are_wrong_by_their_rounding_only() -> None:
    x, weight = matrices()
    x_step, weight_step = x.abs().amax(1, keepdim=True) / 127, weight.abs().amax(1, keepdim=True) / 127
    bound = x.abs().sum(1, keepdim=True) @ weight_step.T / 2 + x_step @ weight.abs().sum(1, keepdim=True).T / 2
    bound += x.shape[1] * x_step @ weight_step.T / 4
    error = (Int8Linear(weight)(x) - x.double() @ weight.double().T).abs()
    assert bool((error <= bound * 1.0001).all())
    assert float((error / bound).max()) > 0.01
    assert Int8Linear(torch.zeros(3, 96))(x).abs().max() == 0
    assert Int8Linear(weight)(torch.zeros(4, 96)).abs().max() == 0


@torch.inference_mode()
def test_a_row_that_is_not_finite_stays_alone_in_integer_products() -> None:
    x, weight = matrices()
    for broken in (float("nan"), float("inf")):
        x[3, 7] = broken
        assert Int8Linear(weight)(x).isnan().any(dim=-1).nonzero().flatten().tolist() == [3]


def test_what_cannot_be_prepared_is_refused(prepared: Prepare) -> None:
    with pytest.raises(ValueError, match="precision is 'int3', must be float32, bf16, int8"):
        prepared(tiny_model(), "int3")
    with pytest.raises(
        ValueError, match=r"for precision 'int8' weights must be torch\.bfloat16, they are torch\.float"
    ):
        prepared(tiny_model(), "int8")
    with pytest.raises(ValueError, match="'int8' runs on the CPU only"):
        prepared(tiny_model().bfloat16().to("meta"), "int8")
