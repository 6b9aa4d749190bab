"""The model made ready to run: fast twins of the plain parts, chosen and packed here and nowhere else.

The stack stays `Transformer`'s own; of its layers the parts that multiply are replaced. N tokens, D hidden, H query
heads, G key-value heads, d head size, E experts, K experts per token, M expert size.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from redraft.model.attention import AttentionContext
from redraft.model.config import ModelConfig
from redraft.model.layers import Attention, Experts, Layer, add_choices, gated, rotate
from redraft.model.linear.adapters import AdaptedExperts, AdaptedLinear, AdapterBank, LowRankProducts
from redraft.model.linear.methods import Int8Linear, PackedLinear, PlainLinear, WeightOnlyLinear, has_onednn
from redraft.model.linear.quantized import concat_outputs
from redraft.model.native.build import load_kernels
from redraft.model.native.kernels import Kernels
from redraft.model.native.layer import ExpertProducts, FusedMLP, KernelLayer, LinearMethod
from redraft.model.native.linear import GroupedLinear, KernelLinear, PackedEmbedding
from redraft.model.precision import Precision
from redraft.model.readout.classes import TILE
from redraft.model.transformer import SelfConditioning, Transformer

FindKernels = Callable[[], Kernels | None]

MAX_PACKED_BYTES = 2**28
"""Bytes of an embedding up to which two packed copies of it for the readout are worth their memory."""


@torch.no_grad()
def prepare(model: Transformer, precision: str, *, find_kernels: FindKernels = load_kernels) -> Transformer:
    """Replaces parts of `model` by their fast twins, a layer at a time, and returns it: it can run, not train or save.

    The weights must be in the precision's dtype, quantized matrices in its bits. On a CPU our own kernels take part, if
    `find_kernels` finds any. ValueError for an unknown precision, weights in another dtype or other bits, and integer
    products on another device than the CPU.
    """
    chosen, weight = Precision.named(precision), model.embed_tokens.weight
    if weight.dtype != chosen.dtype:
        raise ValueError(f"for precision {precision!r} weights must be {chosen.dtype}, they are {weight.dtype}")
    for name, tensor in model.state_dict().items():
        if tensor.dtype != weight.dtype:
            raise ValueError(f"weights must have one dtype: {name} is {tensor.dtype}, the embedding {weight.dtype}")
    kernels = find_kernels() if weight.device.type == "cpu" else None
    if kernels is None:
        _prepare_with_torch(model, _linear_method(chosen, weight.device))
    else:
        _prepare_with_kernels(model, _layer_methods(chosen, model, kernels), kernels)
    return model.eval().requires_grad_(False)


def hold_adapters(model: Transformer) -> AdapterBank:
    """Puts hooks for adapters around the products of a prepared model, if it has none yet; returns its bank."""
    if model.adapters is not None:
        return model.adapters
    shapes, weight, kernels = model.config.parameter_shapes(), model.embed_tokens.weight, model.kernels
    if kernels is not None and _has_own_products(model, kernels):
        stack: LinearMethod = partial(KernelLinear, kernels=kernels)
    else:
        stack = partial(GroupedLinear, method=_unquantized_method(weight.dtype, weight.device))
    bank = AdapterBank(stack, weight)

    def products(prefix: str, *names: str) -> LowRankProducts:
        return bank.products([(name, shapes[name][-2]) for leaf in names if (name := prefix + leaf) in shapes])

    def hook(module: nn.Module, leaf: str, prefix: str, *names: str) -> None:
        module.add_module(leaf, AdaptedLinear(module.get_submodule(leaf), products(prefix, *names), bank))

    def hook_mlp(mlp: nn.Module, prefix: str) -> None:
        hook(mlp, "gate_up", prefix, "gate_proj.weight", "up_proj.weight")
        hook(mlp, "down", prefix, "down_proj.weight")

    for i, layer in enumerate(model.layers):
        prefix = f"layers.{i}."
        attention = layer.get_submodule("self_attn")
        hook(attention, "qkv", f"{prefix}self_attn.", "q_proj.weight", "k_proj.weight", "v_proj.weight")
        hook(attention, "o_proj", f"{prefix}self_attn.", "o_proj.weight")
        hook_mlp(layer.get_submodule("mlp"), f"{prefix}mlp.")
        on_kernels = isinstance(layer, KernelLayer)
        router, leaf = (layer, "router") if on_kernels else (layer.get_submodule("router"), "proj")
        hook(router, leaf, f"{prefix}router.", "proj.weight")
        parent, leaf = (layer, "experts") if on_kernels else (layer.get_submodule("experts"), "products")
        gate_up, down = (products(f"{prefix}experts.", name) for name in ("gate_up_proj", "down_proj"))
        parent.add_module(leaf, AdaptedExperts(parent.get_submodule(leaf), gate_up, down, bank))
    hook_mlp(model.get_submodule("self_conditioning.mlp"), "self_conditioning.")
    model.adapters = bank
    return bank


def packed_embedding_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Returns what the two packed copies of the embedding take on a CPU; 0 where none are made."""
    kernels = load_kernels()
    num_bytes = config.vocab_size * config.hidden_size * dtype.itemsize
    if kernels is None or num_bytes > MAX_PACKED_BYTES or not kernels.has_multiply(dtype, config.hidden_size):
        return 0
    return 2 * num_bytes


def _prepare_with_torch(model: Transformer, method: LinearMethod) -> None:
    for layer in model.layers:
        assert isinstance(layer, Layer)
        layer.add_module("self_attn", FusedAttention(layer.self_attn, method))
        layer.add_module("mlp", FusedMLP(layer.mlp, method, gated))
        layer.add_module("experts", GroupedExperts(layer.experts, method))
    mlp = FusedMLP(model.self_conditioning, method, gated)
    model.add_module("self_conditioning", FusedSelfConditioning(model.self_conditioning, mlp))


def _prepare_with_kernels(model: Transformer, methods: dict[str, LinearMethod], kernels: Kernels) -> None:
    for i, layer in enumerate(model.layers):
        assert isinstance(layer, Layer)
        model.layers[i] = KernelLayer(layer, kernels, **methods)
    mlp = FusedMLP(model.self_conditioning, methods["dense"], kernels.gate)
    model.add_module("self_conditioning", FusedSelfConditioning(model.self_conditioning, mlp))
    weight = model.embed_tokens.weight
    model.kernels = kernels
    model.attention_kernels = kernels if kernels.has_attend(weight.dtype) else None
    if packed_embedding_bytes(model.config, weight.dtype):
        model.packed_embedding = PackedEmbedding(weight, TILE, kernels)


def _linear_method(precision: Precision, device: torch.device, kernels: Kernels | None = None) -> LinearMethod:
    """Returns what makes a product of a layer from its weights."""
    if precision.is_integer:
        if device.type != "cpu":
            raise ValueError(
                f"precision {precision.name!r} runs on the CPU only, the device is {device}; take int8-weight-only"
            )
        return partial(Int8Linear, kernels=kernels)
    if precision.is_quantized:
        return partial(WeightOnlyLinear, bits=precision.weight_bits)
    return _unquantized_method(precision.dtype, device)


def _unquantized_method(dtype: torch.dtype, device: torch.device) -> LinearMethod:
    return PackedLinear if has_onednn(device, dtype) else PlainLinear


def _layer_methods(precision: Precision, model: Transformer, kernels: Kernels) -> dict[str, LinearMethod]:
    """Returns the linear methods of layers that run on kernels, by the names that `KernelLayer` has for them."""
    weight, own = model.embed_tokens.weight, _has_own_products(model, kernels)
    plain = partial(KernelLinear, kernels=kernels) if own else _unquantized_method(weight.dtype, weight.device)
    dense = _linear_method(precision, weight.device, kernels) if precision.is_quantized else plain
    stack = plain if own and not precision.is_quantized else partial(GroupedLinear, method=dense)
    return {"dense": dense, "router": plain, "stack": stack}


def _has_own_products(model: Transformer, kernels: Kernels) -> bool:
    config = model.config
    widths = {config.num_heads * config.attention_shape(layer).head_dim for layer in range(config.num_layers)}
    widths |= {config.hidden_size, config.dense_size, config.expert_size}
    return kernels.has_multiply(model.embed_tokens.weight.dtype, *widths)


class FusedAttention(nn.Module):
    """`Attention` with one product for queries, keys and values."""

    def __init__(self, plain: Attention, method: LinearMethod) -> None:
        super().__init__()
        projections = [one for one in (plain.q_proj, plain.k_proj, plain.v_proj) if one is not None]
        self.layer, self.head_dim = plain.layer, plain.head_dim
        self.sizes = [one.out_features for one in projections]
        self.qkv = method(concat_outputs([one.weight for one in projections]))
        self.o_proj = method(plain.o_proj.weight)
        self.q_norm, self.k_norm, self.v_norm = plain.q_norm, plain.k_norm, plain.v_norm

    def project(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """x [N, D] → q [N, H, d], k and v [N, G, d], ready to attend."""
        q, k, *v = (part.unflatten(1, (-1, self.head_dim)) for part in self.qkv(x).split(self.sizes, dim=1))
        return rotate(self.q_norm(q), *rope), rotate(self.k_norm(k), *rope), self.v_norm(v[0] if v else k)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], context: AttentionContext) -> Tensor:
        out: Tensor = self.o_proj(context.attend(self.layer, *self.project(x, rope)).flatten(1))
        return out


class FusedSelfConditioning(nn.Module):
    """`SelfConditioning` around a fast twin of its MLP."""

    def __init__(self, plain: SelfConditioning, mlp: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp
        self.pre_norm, self.post_norm = plain.pre_norm, plain.post_norm

    def forward(self, embedding: Tensor, soft_embedding: Tensor | None = None) -> Tensor:
        """embedding and soft_embedding [N, D], both × √D. None and zeros mean the same: no signal."""
        if soft_embedding is not None:
            embedding = embedding + self.mlp(self.pre_norm(soft_embedding.to(embedding.dtype)))
        out: Tensor = self.post_norm(embedding)
        return out


class GroupedExperts(nn.Module):
    """`Experts` without what only training needs: the choices sorted by expert, two products for each that has any."""

    def __init__(self, plain: Experts, method: LinearMethod) -> None:
        super().__init__()
        self._count = plain.count
        self.products = ExpertProducts(plain, partial(GroupedLinear, method=method), gated)

    def forward(self, x: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """x [N, D], weights and experts [N, K] → [N, D]. A token's experts are summed in the order of their rank."""
        n, k = experts.shape
        chosen = experts.flatten()
        order = chosen.argsort(stable=True)
        place = torch.empty_like(order).index_copy_(0, order, torch.arange(n * k, device=order.device)).view(n, k)
        # Counted on the CPU at once, where each product asks for them.
        counts = torch.bincount(chosen, minlength=self._count).cpu()
        outputs = self.products(x.index_select(0, order // k), counts, place)
        return add_choices(outputs, place, weights, x.dtype)
