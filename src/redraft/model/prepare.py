"""The model made ready to run: fast twins of the plain parts, chosen and packed here and nowhere else.

The stack stays `Transformer`'s own; of its layers the parts that multiply are replaced. N tokens, D hidden, H query
heads, G key-value heads, d head size, E experts, K experts per token, M expert size.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from redraft.model.attention import AttentionContext
from redraft.model.config import ModelConfig
from redraft.model.layers import Attention, Experts, GatedMLP, Layer, rotate
from redraft.model.linear.products import Int8Product, PackedProduct, PlainProduct, WeightOnlyProduct, has_kernels
from redraft.model.linear.quantized import joined
from redraft.model.native import kernels_here
from redraft.model.native.kernels import Kernels
from redraft.model.native.layer import KernelLayer, KernelMLP, MakeProduct, Products
from redraft.model.native.product import KernelProduct, KernelStack, LoopedStack, PackedEmbedding
from redraft.model.readout.streamed import TILE
from redraft.model.transformer import SelfConditioning, Transformer

PRECISIONS = ("float32", "bf16", "int8", "int8-weight-only", "int4-weight-only")
"""float32 and bf16: of weights and products. int8: integer products in the layers, the rest in bf16.
The weight-only ones: the layers' matrices in 8 or 4 bits, products in bf16."""

QUANTIZED_PRECISIONS = {8: ("int8", "int8-weight-only"), 4: ("int4-weight-only",)}
"""By the bits that a checkpoint's matrices are stored in, the precisions it can run in, which all use just those."""

MOST_PACKED = 2**28
"""Bytes of an embedding from which on its two packed copies for the readout are not worth their memory."""

PLAIN = {torch.float32: "float32", torch.bfloat16: "bf16"}
"""The precisions whose products are of the weights as they are."""


def base_dtype(precision: str) -> torch.dtype:
    """The dtype in which a model's weights are read for `precision`. ValueError for an unknown one."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}, must be {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}")
    return torch.float32 if precision == "float32" else torch.bfloat16


@torch.no_grad()
def prepare(model: Transformer, precision: str) -> Transformer:
    """Replaces parts of `model` by their fast twins, a layer at a time, and returns it: it can run, not train or save.

    The weights must be in the precision's `base_dtype`, quantized matrices in its bits. ValueError for an unknown
    precision, weights in another dtype or other bits, and integer products on another device than the CPU.
    """
    weight = model.embed_tokens.weight
    if weight.dtype != base_dtype(precision):
        raise ValueError(
            f"for precision {precision!r} weights must be {base_dtype(precision)}, they are {weight.dtype}"
        )
    for name, tensor in model.state_dict().items():
        if tensor.dtype != weight.dtype:
            raise ValueError(f"weights must have one dtype: {name} is {tensor.dtype}, the embedding {weight.dtype}")
    kernels = kernels_here() if weight.device.type == "cpu" else None
    if kernels is None:
        _with_torch(model, _product(precision, weight.device))
    else:
        _with_kernels(model, _products(precision, model, kernels), kernels)
    return model.eval().requires_grad_(False)


def packed_embedding_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """What the two packed copies of the embedding take on a CPU; 0 where none are made."""
    kernels = kernels_here()
    num_bytes = config.vocab_size * config.hidden_size * dtype.itemsize
    if kernels is None or num_bytes > MOST_PACKED or not kernels.multiplies(dtype, config.hidden_size):
        return 0
    return 2 * num_bytes


def _with_torch(model: Transformer, product: MakeProduct) -> None:
    for layer in model.layers:
        assert isinstance(layer, Layer)
        layer.add_module("self_attn", FusedAttention(layer.self_attn, product))
        layer.add_module("mlp", FusedMLP(layer.mlp, product))
        layer.add_module("experts", GroupedExperts(layer.experts, product))
    mlp = FusedMLP(model.self_conditioning, product)
    model.add_module("self_conditioning", FusedSelfConditioning(model.self_conditioning, mlp))


def _with_kernels(model: Transformer, products: Products, kernels: Kernels) -> None:
    for i, layer in enumerate(model.layers):
        assert isinstance(layer, Layer)
        model.layers[i] = KernelLayer(layer, products, kernels)
    mlp = KernelMLP(model.self_conditioning, products.dense, kernels)
    model.add_module("self_conditioning", FusedSelfConditioning(model.self_conditioning, mlp))
    model.kernels = kernels
    weight = model.embed_tokens.weight
    if packed_embedding_bytes(model.config, weight.dtype):
        model.packed_embedding = PackedEmbedding(weight, TILE, kernels)


def _product(precision: str, device: torch.device) -> MakeProduct:
    if precision == "int8":
        if device.type != "cpu":
            raise ValueError(f"precision 'int8' runs on the CPU only, the device is {device}; take int8-weight-only")
        return Int8Product
    if precision.endswith("weight-only"):
        return partial(WeightOnlyProduct, bits=int(precision[3]))
    return PackedProduct if has_kernels(device, base_dtype(precision)) else PlainProduct


def _products(precision: str, model: Transformer, kernels: Kernels) -> Products:
    """The products of layers that run on kernels."""
    weight, config = model.embed_tokens.weight, model.config
    widths = {config.num_heads * config.attention_shape(layer).head_dim for layer in range(config.num_layers)}
    widths |= {config.hidden_size, config.dense_size, config.expert_size}
    own = kernels.multiplies(weight.dtype, *widths)
    plain: MakeProduct = (
        partial(KernelProduct, kernels=kernels) if own else _product(PLAIN[weight.dtype], weight.device)
    )
    if precision not in PLAIN.values():
        chosen = partial(Int8Product, kernels=kernels) if precision == "int8" else _product(precision, weight.device)
        return Products(dense=chosen, router=plain, stack=partial(LoopedStack, product=chosen))
    stack: MakeProduct = partial(KernelStack, kernels=kernels) if own else partial(LoopedStack, product=plain)
    return Products(dense=plain, router=plain, stack=stack)


class FusedAttention(nn.Module):
    """`Attention` with one product for queries, keys and values."""

    def __init__(self, plain: Attention, product: MakeProduct) -> None:
        super().__init__()
        projections = [one for one in (plain.q_proj, plain.k_proj, plain.v_proj) if one is not None]
        self.layer, self.head_dim = plain.layer, plain.head_dim
        self.sizes = [one.out_features for one in projections]
        self.qkv = product(joined([one.weight for one in projections]))
        self.o_proj = product(plain.o_proj.weight)
        self.q_norm, self.k_norm, self.v_norm = plain.q_norm, plain.k_norm, plain.v_norm

    def project(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """x [N, D] → q [N, H, d], k and v [N, G, d], ready to attend."""
        q, k, *v = (part.unflatten(1, (-1, self.head_dim)) for part in self.qkv(x).split(self.sizes, dim=1))
        return rotate(self.q_norm(q), *rope), rotate(self.k_norm(k), *rope), self.v_norm(v[0] if v else k)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], context: AttentionContext) -> Tensor:
        out: Tensor = self.o_proj(context.attend(self.layer, *self.project(x, rope)).flatten(1))
        return out


class FusedMLP(nn.Module):
    """`GatedMLP` with one product for gate and up."""

    def __init__(self, plain: GatedMLP, product: MakeProduct) -> None:
        super().__init__()
        self.gate_up = product(joined((plain.gate_proj.weight, plain.up_proj.weight)))
        self.down = product(plain.down_proj.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(_gated(self.gate_up(x)))
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

    def __init__(self, plain: Experts, product: MakeProduct) -> None:
        super().__init__()
        self.gate_up = nn.ModuleList(product(weight) for weight in plain.gate_up_proj)
        self.down = nn.ModuleList(product(weight) for weight in plain.down_proj)

    def forward(self, x: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """x [N, D], weights and experts [N, K] → [N, D]. A token's experts are summed in the order of their rank."""
        n, k = experts.shape
        chosen = experts.flatten()
        order = chosen.argsort(stable=True)
        rows = x.index_select(0, order // k)
        outputs = torch.empty_like(rows)
        start = 0
        for expert, count in enumerate(torch.bincount(chosen, minlength=len(self.down)).tolist()):
            if count:
                share = slice(start, start + count)
                outputs[share] = self.down[expert](_gated(self.gate_up[expert](rows[share])))
                start += count
        by_choice = torch.empty_like(outputs).index_copy_(0, order, outputs).view(n, k, -1)
        return (by_choice * weights[..., None]).sum(dim=1).to(x.dtype)


def _gated(gate_up: Tensor) -> Tensor:
    """[n, 2M], gates before ups → [n, M], with the tanh form of GELU."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh") * up
