"""The layer and its parts: norms, rotation, feed-forward branches, router and experts.

N tokens, D hidden, H query heads, G key-value heads, d head size, E experts, K experts per token, M expert size.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from redraft.model.attention import AttentionContext
from redraft.model.batch import ROW_MULTIPLE
from redraft.model.config import AttentionShape, ModelConfig


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) × weight over the last dimension, computed in float32."""

    def __init__(self, size: int, eps: float, *, with_scale: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size)) if with_scale else None

    def forward(self, x: Tensor) -> Tensor:
        normed = x.float()
        normed = normed * torch.rsqrt(normed.pow(2).mean(-1, keepdim=True) + self.eps)
        if self.weight is not None:
            normed = normed * self.weight.float()
        return normed.to(x.dtype)


def rope_table(shape: AttentionShape, positions: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin float32 [N, 1, d/2] of every position and pair; pairs that do not turn have angle 0."""
    pairs = shape.head_dim // 2
    rotated = int(shape.rotated_fraction * pairs)
    exponent = torch.arange(rotated, dtype=torch.float32, device=positions.device) * 2 / shape.head_dim
    frequencies = torch.zeros(pairs, dtype=torch.float32, device=positions.device)
    frequencies[:rotated] = shape.rope_theta**-exponent
    angles = positions.float()[:, None, None] * frequencies
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns the pairs (i, i + d/2) of x [N, heads, d]."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Attention(nn.Module):
    """Projections, q/k/v norms and rotation around an AttentionContext. In full layers v is k, unrotated."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        shape = config.attention_shape(layer)
        self.layer = layer
        self.head_dim = shape.head_dim
        self.q_proj = nn.Linear(config.hidden_size, config.num_heads * shape.head_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, shape.num_kv_heads * shape.head_dim, bias=False)
        self.v_proj = (
            nn.Linear(config.hidden_size, shape.num_kv_heads * shape.head_dim, bias=False)
            if config.is_sliding(layer)
            else None
        )
        self.o_proj = nn.Linear(config.num_heads * shape.head_dim, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(shape.head_dim, config.norm_eps)
        self.k_norm = RMSNorm(shape.head_dim, config.norm_eps)
        self.v_norm = RMSNorm(shape.head_dim, config.norm_eps, with_scale=False)

    def project(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """x [N, D] → q [N, H, d], k and v [N, G, d], ready to attend."""
        n = x.shape[0]
        q = self.q_proj(x).view(n, -1, self.head_dim)
        k = self.k_proj(x).view(n, -1, self.head_dim)
        v = k if self.v_proj is None else self.v_proj(x).view(n, -1, self.head_dim)
        return rotate(self.q_norm(q), *rope), rotate(self.k_norm(k), *rope), self.v_norm(v)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], context: AttentionContext) -> Tensor:
        attended = context.attend(self.layer, *self.project(x, rope))
        out: Tensor = self.o_proj(attended.flatten(1))
        return out


class GatedMLP(nn.Module):
    """down(gelu(gate(x)) × up(x)) with the tanh form of GELU."""

    def __init__(self, hidden_size: int, inner_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, inner_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, inner_size, bias=False)
        self.down_proj = nn.Linear(inner_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))
        return out


def gated(gate_up: Tensor) -> Tensor:
    """[n, 2M], gates before ups → [n, M], with the tanh form of GELU."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh") * up


def add_choices(outputs: Tensor, place: Tensor, weights: Tensor, dtype: torch.dtype) -> Tensor:
    """Sums what a token's experts say: outputs [n, D], their places in it and weights [N, K] → [N, D]."""
    by_choice = outputs.index_select(0, place.flatten()).view(*place.shape, -1)
    return (by_choice * weights[..., None]).sum(dim=1).to(dtype)


class Router(nn.Module):
    """Which experts a token goes to: softmax over all E, top-K, renormalised to sum 1, × per_expert_scale."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.k = config.experts_per_token
        self.root_size = config.hidden_size**-0.5
        self.norm = RMSNorm(config.hidden_size, config.norm_eps, with_scale=False)
        self.scale = nn.Parameter(torch.ones(config.hidden_size))
        self.proj = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.per_expert_scale = nn.Parameter(torch.ones(config.num_experts))

    def forward(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """residual [N, D] → weights and expert indices [N, K]."""
        scores = self.proj(self.norm(residual) * self.scale * self.root_size)
        weights, experts = scores.float().softmax(dim=-1).topk(self.k, dim=-1)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        return weights * self.per_expert_scale[experts], experts


class Experts(nn.Module):
    """E gated MLPs in stacked tensors: gate_up_proj [E, 2M, D], down_proj [E, D, M].

    `row_block`: each expert's rows are filled up with zeros to a multiple of it, so that a token's result does not
    depend on how many others its expert was chosen for. In training, where every step sends other numbers of rows to
    an expert, products of a few sizes find the kernels that were built for them before.

    `added`: what training adds to a product, by the name of its matrices: rows [n, I] sorted by expert and how many
    each has → [n, O]. Matrices in few bits, which are trained beside, are modules that do the same.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        e, m, d = config.num_experts, config.expert_size, config.hidden_size
        self.row_block = ROW_MULTIPLE
        self.count = e
        self.added: dict[str, Callable[[Tensor, Sequence[int]], Tensor]] = {}
        self.gate_up_proj = nn.Parameter(torch.empty(e, 2 * m, d))
        self.down_proj = nn.Parameter(torch.empty(e, d, m))

    def forward(self, x: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """x [N, D], weights and experts [N, K] → [N, D]. A token's experts are summed in the order of their rank."""
        n, k = experts.shape
        chosen = experts.flatten()
        order = chosen.argsort(stable=True)
        counts = torch.bincount(chosen, minlength=self.count)
        sizes = -(-counts // self.row_block) * self.row_block
        # Where each of the sorted choices goes: onwards by the filling of the experts before its own.
        place = torch.arange(n * k, device=x.device) + ((sizes - counts).cumsum(0) - (sizes - counts))[chosen[order]]
        shares = sizes.tolist()
        rows = x.new_zeros(sum(shares), x.shape[1]).index_copy(0, place, x.index_select(0, order // k))
        out = self._multiply("down_proj", gated(self._multiply("gate_up_proj", rows, shares)), shares)
        return add_choices(out, place[order.argsort()].view(n, k), weights, x.dtype)

    def _multiply(self, name: str, x: Tensor, shares: Sequence[int]) -> Tensor:
        matrices = getattr(self, name)
        # Taken apart at once: the gradient of each single one would be as large as that of all.
        is_plain = isinstance(matrices, Tensor)
        out: Tensor = grouped_linear(x, matrices.unbind(), shares) if is_plain else matrices(x, shares)
        return out + self.added[name](x, shares) if name in self.added else out


def grouped_linear(x: Tensor, matrices: Iterable[Tensor], shares: Sequence[int]) -> Tensor:
    """x [n, I] sorted by matrix, of which each [O, I] has its share of the rows → [n, O]."""
    parts = zip(torch.split(x, list(shares)), matrices, strict=True)
    return torch.cat([F.linear(rows, matrix) for rows, matrix in parts if rows.shape[0]])


class Layer(nn.Module):
    """Attention, then a dense and an expert branch that both read the same residual (Gemma 4 with experts)."""

    layer_scalar: Tensor
    encoder_layer_scalar: Tensor

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.norm_eps
        self.input_layernorm = RMSNorm(size, eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(size, eps)
        self.pre_feedforward_layernorm = RMSNorm(size, eps)
        self.mlp = GatedMLP(size, config.dense_size)
        self.post_feedforward_layernorm_1 = RMSNorm(size, eps)
        self.router = Router(config)
        self.pre_feedforward_layernorm_2 = RMSNorm(size, eps)
        self.experts = Experts(config)
        self.post_feedforward_layernorm_2 = RMSNorm(size, eps)
        self.post_feedforward_layernorm = RMSNorm(size, eps)
        self.register_buffer("layer_scalar", torch.ones(1))
        self.register_buffer("encoder_layer_scalar", torch.ones(1))

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], scalar: Tensor, context: AttentionContext) -> Tensor:
        """x [N, D]; scalar [1] or [N, 1] is the pass's layer scalar."""
        residual = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), rope, context))
        dense = self.post_feedforward_layernorm_1(self.mlp(self.pre_feedforward_layernorm(residual)))
        weights, experts = self.router(residual)
        sparse = self.experts(self.pre_feedforward_layernorm_2(residual), weights, experts)
        combined = dense + self.post_feedforward_layernorm_2(sparse)
        out: Tensor = (residual + self.post_feedforward_layernorm(combined)) * scalar
        return out
