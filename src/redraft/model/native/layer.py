"""A layer whose products are the chosen ones, and all between them kernels: the twin of `Layer`.

N tokens, D hidden, E experts, K experts per token.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from redraft.model.attention import AttentionContext
from redraft.model.layers import Attention, Experts, GatedMLP, Layer
from redraft.model.linear.quantized import Matrix, concat_outputs
from redraft.model.native.kernels import Kernels

LinearMethod = Callable[[Matrix], nn.Module]
"""Makes a module that multiplies with the weights."""


class KernelLayer(nn.Module):
    """`Layer` with products of the chosen kinds: dense, the router's, and those of the experts' stacked matrices."""

    input_norm: Tensor
    attention_norm: Tensor
    to_dense: Tensor
    to_router: Tensor
    to_experts: Tensor
    expert_scales: Tensor
    dense_norm: Tensor
    experts_norm: Tensor
    last_norm: Tensor
    layer_scalar: Tensor
    encoder_layer_scalar: Tensor

    def __init__(
        self, plain: Layer, kernels: Kernels, *, dense: LinearMethod, router: LinearMethod, stack: LinearMethod
    ) -> None:
        super().__init__()
        self._kernels = kernels
        self._eps = plain.input_layernorm.eps
        self._experts_per_token = plain.router.k
        self.self_attn = KernelAttention(plain.self_attn, dense, kernels)
        self.mlp = FusedMLP(plain.mlp, dense, kernels.gate)
        self.router = router(plain.router.proj.weight)
        self.experts = ExpertProducts(plain.experts, stack, kernels.gate)

        def keep(name: str, weight: Any) -> None:
            self.register_buffer(name, weight.detach())

        keep("input_norm", plain.input_layernorm.weight)
        keep("attention_norm", plain.post_attention_layernorm.weight)
        keep("to_dense", plain.pre_feedforward_layernorm.weight)
        keep("to_router", plain.router.scale)
        keep("to_experts", plain.pre_feedforward_layernorm_2.weight)
        keep("expert_scales", plain.router.per_expert_scale)
        keep("dense_norm", plain.post_feedforward_layernorm_1.weight)
        keep("experts_norm", plain.post_feedforward_layernorm_2.weight)
        keep("last_norm", plain.post_feedforward_layernorm.weight)
        keep("layer_scalar", plain.layer_scalar)
        keep("encoder_layer_scalar", plain.encoder_layer_scalar)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], scalar: Tensor, context: AttentionContext) -> Tensor:
        """x [N, D]; scalar [1] or [N, 1] is the pass's layer scalar."""
        run, eps = self._kernels, self._eps
        x = x.contiguous()
        attended = self.self_attn(run.norm(x, self.input_norm, eps), rope, context)
        residual, to_dense, to_router, to_experts = run.branch(
            x, attended, self.attention_norm, self.to_dense, self.to_router, self.to_experts, eps
        )
        dense = self.mlp(to_dense)
        weights, place, counts, rows = run.route(
            self.router(to_router), self.expert_scales, to_experts, self._experts_per_token
        )
        chosen = self.experts(rows, counts, place)
        norms = (self.dense_norm, self.experts_norm, self.last_norm)
        return run.merge(residual, dense, chosen, place, weights, norms, scalar, eps)


class KernelAttention(nn.Module):
    """`Attention` with one product for queries, keys and values."""

    def __init__(self, plain: Attention, method: LinearMethod, kernels: Kernels) -> None:
        super().__init__()
        projections = [one for one in (plain.q_proj, plain.k_proj, plain.v_proj) if one is not None]
        self._kernels = kernels
        self._layer, self._eps = plain.layer, plain.q_norm.eps
        self._heads = plain.q_proj.out_features // plain.head_dim
        self._groups = plain.k_proj.out_features // plain.head_dim
        self.qkv = method(concat_outputs([one.weight for one in projections]))
        self.o_proj = method(plain.o_proj.weight)
        self.q_norm, self.k_norm = plain.q_norm, plain.k_norm

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], context: AttentionContext) -> Tensor:
        assert self.q_norm.weight is not None and self.k_norm.weight is not None
        q, k, v = self._kernels.heads(
            self.qkv(x), self.q_norm.weight, self.k_norm.weight, rope, self._heads, self._groups, self._eps
        )
        out: Tensor = self.o_proj(context.attend(self._layer, q, k, v).flatten(1))
        return out


class FusedMLP(nn.Module):
    """`GatedMLP` with one product for gate and up; `gate` makes gelu(gate) × up [n, M] of them [n, 2M]."""

    def __init__(self, plain: GatedMLP, method: LinearMethod, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._gate = gate
        self.gate_up = method(concat_outputs((plain.gate_proj.weight, plain.up_proj.weight)))
        self.down = method(plain.down_proj.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self._gate(self.gate_up(x)))
        return out


class ExpertProducts(nn.Module):
    """The products of `Experts`, of rows that are sorted by expert; `gate` as in `FusedMLP`."""

    def __init__(self, plain: Experts, stack: LinearMethod, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.gate = gate
        self.gate_up = stack(plain.gate_up_proj)
        self.down = stack(plain.down_proj)

    def forward(self, rows: Tensor, counts: Tensor, place: Tensor) -> Tensor:
        """rows [N · K, D], of which counts int64 [E] belong to each expert → [N · K, D].

        place int64 [N, K]: that of each token's choices among the rows; only adapters ask for it.
        """
        out: Tensor = self.down(self.gate(self.gate_up(rows, counts)), counts)
        return out
