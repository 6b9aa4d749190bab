import pytest
import torch

from redraft.model import attention
from redraft.model.batch import FlatBatch, Pass
from redraft.model.cache import KVCache
from redraft.model.precision import Precision
from redraft.model.preparation import prepare
from redraft.model.transformer import Transformer
from redraft.weights.sizes import ModelSizes, precision_bytes
from tests.weights.support import released_config, tiny_config


def test_26b_a4b() -> None:
    sizes = ModelSizes.of(released_config())
    # It is said to have 25.2 B: that is without the self-conditioning block, or cut instead of rounded.
    assert sizes.parameters == 25_250_986_812
    assert round((sizes.parameters - sizes.self_conditioning_parameters) / 1e9, 1) == 25.2
    assert round(sizes.active_parameters / 1e9, 1) == 3.8
    assert sizes.embedding_parameters == 262_144 * 2816
    assert sizes.weight_bytes["bfloat16"] == 2 * sizes.parameters
    # 8 and 4.25 bits a value, and 16 of the embedding and the routers; scales of outputs and vectors aside.
    kept = sizes.embedding_parameters + 30 * 128 * 2816
    rest = sizes.parameters - kept
    assert sizes.weight_bytes["int8"] == pytest.approx(2 * kept + rest, rel=3e-3)
    assert sizes.weight_bytes["int4"] == pytest.approx(2 * kept + rest * 4.25 / 8, rel=1e-3)
    # 5 full layers of 2 heads of 512, 25 sliding ones of 8 heads of 256; keys and values in 16 bits.
    assert sizes.kv_bytes_per_1000_tokens() == 1000 * 5 * 2 * 2 * 512 * 2
    assert sizes.kv_bytes_sliding() == 1023 * 25 * 2 * 8 * 256 * 2


def test_parameters_are_the_models() -> None:
    sizes = ModelSizes.of(tiny_config())
    model = Transformer(tiny_config())
    assert sizes.parameters == sum(tensor.numel() for tensor in model.state_dict().values())
    idle = sum(tensor.numel() for name, tensor in model.named_parameters() if ".experts." in name) * 4 // 6
    assert sizes.active_parameters == sizes.parameters - idle


@pytest.mark.parametrize("context", [0, 3, 5, 6, 40])
def test_kv_bytes_are_what_the_cache_holds(context: int) -> None:
    config = tiny_config()
    cache = KVCache(config)
    model = Transformer(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    if context:
        batch = FlatBatch.single(torch.zeros(context, dtype=torch.long), 0, Pass.ENCODER)
        with torch.no_grad():
            (cache,) = model.run(batch, [cache]).caches
    sizes = ModelSizes.of(config)
    assert sizes.kv_bytes(context, bytes_per_value=4) == cache.num_bytes
    assert sizes.kv_bytes(1040) - sizes.kv_bytes(40) == sizes.kv_bytes_per_1000_tokens()
    assert sizes.kv_bytes(40) - 40 * sizes.kv_bytes_per_1000_tokens() // 1000 == sizes.kv_bytes_sliding()


def test_flops_of_the_products_are_counted_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing is filled up.
    monkeypatch.setattr(attention, "KEY_BLOCK", 8)
    from torch.utils.flop_counter import FlopCounterMode

    config = tiny_config(num_experts=2, experts_per_token=2)
    model = Transformer(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    batch = FlatBatch.single(torch.arange(8), 0, Pass.DENOISER, soft_embedding=torch.ones(8, 48))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.head.soft_embedding(model.head.logits(model.run(batch, [KVCache(config)]).hidden))
    estimate = ModelSizes.of(config).step_flops(0)
    # The estimate counts vectors (norms, scales) as if they were products.
    vectors = sum(tensor.numel() for tensor in model.state_dict().values() if tensor.dim() < 2)
    assert estimate == counter.get_total_flops() + 2 * 8 * vectors


def test_flops_grow_with_context_in_full_layers_only() -> None:
    sizes = ModelSizes.of(released_config())
    assert sizes.step_flops(3000) - sizes.step_flops(2000) == 5 * 4 * 256 * 16 * 512 * 1000
    assert 2.3e12 < sizes.step_flops(0) < 2.5e12


def test_fits() -> None:
    sizes = ModelSizes.of(released_config())
    assert sizes.fits(24 * 10**9) == {"float32": False, "bfloat16": False, "int8": False, "int4": True}
    exact = sizes.weight_bytes["bfloat16"] + sizes.kv_bytes(5000)
    assert sizes.fits(exact, context=5000)["bfloat16"]
    assert not sizes.fits(exact - 1, context=5000)["bfloat16"]
    for function in (sizes.kv_bytes, sizes.step_flops, lambda context: sizes.fits(10**9, context)):
        with pytest.raises(ValueError, match="context is -1, must be at least 0"):
            function(-1)


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8", "int8-weight-only", "int4-weight-only"])
def test_weight_bytes_are_what_a_prepared_model_holds(precision: str) -> None:
    config = tiny_config(expert_size=64, dense_size=64, hidden_size=64)
    model = prepare(Transformer(config).to(Precision.named(precision).dtype), precision)
    held = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    # Packed, a matrix is filled up to whole blocks: all of them in float32 and bf16, the small routers' otherwise.
    assert precision_bytes(config, precision) == pytest.approx(held, rel=0.06 if precision.startswith("int") else 0.2)
