"""The shape of a model: everything that decides names and sizes of tensors and what is computed with them."""

from dataclasses import dataclass, field

SLIDING = "sliding_attention"
FULL = "full_attention"


@dataclass(frozen=True, kw_only=True)
class AttentionShape:
    """Heads and rotation of one type of attention layer.

    `rotated_fraction` is the share of the head's pairs (i, i + head_dim / 2) that turn; frequencies are
    rope_theta ** (-2 i / head_dim) with the whole head in the exponent ("proportional" RoPE where it is below 1).
    """

    head_dim: int
    num_kv_heads: int
    rope_theta: float
    rotated_fraction: float = 1.0


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A DiffusionGemma's structure. Raises ValueError on sizes that do not fit together."""

    vocab_size: int
    hidden_size: int
    num_heads: int
    layer_types: tuple[str, ...]
    sliding: AttentionShape
    full: AttentionShape
    sliding_window: int
    dense_size: int
    num_experts: int
    experts_per_token: int
    expert_size: int
    canvas_length: int
    max_context: int
    softcap: float = 30.0
    norm_eps: float = 1e-6
    pad_id: int = 0
    bos_id: int | None = 2
    eos_ids: tuple[int, ...] = field(default=(1,))

    def __post_init__(self) -> None:
        for name in (
            "vocab_size", "hidden_size", "num_heads", "sliding_window", "dense_size", "num_experts",
            "experts_per_token", "expert_size", "canvas_length", "max_context",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if not self.layer_types or self.layer_types[-1] != FULL:
            raise ValueError(f"the last layer must be {FULL!r}, got layer_types {list(self.layer_types)}")
        if unknown := set(self.layer_types) - {SLIDING, FULL}:
            raise ValueError(f"unknown layer types {sorted(unknown)}; known: {SLIDING}, {FULL}")
        for shape in (self.sliding, self.full):
            if shape.head_dim < 2 or shape.head_dim % 2:
                raise ValueError(f"head_dim is {shape.head_dim}, must be even and at least 2")
            if shape.num_kv_heads < 1 or self.num_heads % shape.num_kv_heads:
                raise ValueError(f"{self.num_heads} heads cannot share {shape.num_kv_heads} key-value heads evenly")
        if self.experts_per_token > self.num_experts:
            raise ValueError(f"top-{self.experts_per_token} of {self.num_experts} experts: not that many experts")
        if self.softcap <= 0:
            raise ValueError(f"softcap is {self.softcap}, must be above 0")
        if bad := [token for token in self.eos_ids if not 0 <= token < self.vocab_size]:
            raise ValueError(f"EOS ids {bad} lie outside the vocabulary of {self.vocab_size}")

    @property
    def num_layers(self) -> int:
        return len(self.layer_types)

    def is_sliding(self, layer: int) -> bool:
        return self.layer_types[layer] == SLIDING

    def attention_shape(self, layer: int) -> AttentionShape:
        return self.sliding if self.is_sliding(layer) else self.full

    def visible_past(self, layer: int) -> int | None:
        """How many cached tokens a later token can still see in this layer; None is all of them."""
        return self.sliding_window - 1 if self.is_sliding(layer) else None

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor the model holds, buffers included, as `Transformer.state_dict` names them."""
        # Built on the meta device, so that the network's own code stays the only description of it.
        import torch

        from redraft.model.transformer import Transformer

        with torch.device("meta"):
            return {name: tuple(tensor.shape) for name, tensor in Transformer(self).state_dict().items()}
