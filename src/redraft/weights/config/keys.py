"""The keys of a checkpoint's config.json: which are read, ignored or refused, and their limits and defaults."""

from collections.abc import Mapping

CONFIG_FILE = "config.json"

IGNORED_KEYS = frozenset(
    {
        "_name_or_path", "architectures", "attn_implementation", "_attn_implementation", "boa_token_id", "boi_token_id",
        "chunk_size_feed_forward", "dtype", "eoa_token_id", "eoa_token_index", "eoi_token_id", "experts_implementation",
        "id2label", "image_token_id", "initializer_range", "audio_token_id", "label2id", "name_or_path", "num_labels",
        "output_attentions", "output_hidden_states", "problem_type", "return_dict", "torch_dtype",
        "transformers_version", "use_cache", "video_token_id",
    }
)  # fmt: skip
"""Keys that do not change what a text model computes. They are kept when a checkpoint is saved."""

IGNORED_TOP_KEYS = frozenset({"generation_config", "vision_config", "vision_soft_tokens_per_image"})
"""`generation_config` is a copy that some converters put here; only generation_config.json is read."""

IGNORED_TEXT_KEYS = frozenset({"attention_dropout", "vocab_size_per_layer_input"})
"""Dropout acts in training only, and training here does not use it. The second key is the size of a table that Gemma 4
has only if `hidden_size_per_layer_input` is above 0, which is refused."""

TOP_KEYS = frozenset({
    "bos_token_id", "canvas_length", "eos_token_id", "model_type", "pad_token_id", "quantization_config", "text_config",
    "tie_word_embeddings",
})  # fmt: skip

TEXT_KEYS = frozenset(
    {
        "attention_bias", "attention_k_eq_v", "bos_token_id", "enable_moe_block", "eos_token_id",
        "final_logit_softcapping", "global_head_dim", "head_dim", "hidden_activation", "hidden_size",
        "intermediate_size", "layer_types", "max_position_embeddings", "model_type", "moe_intermediate_size",
        "num_attention_heads", "num_experts", "num_global_key_value_heads", "num_hidden_layers", "num_key_value_heads",
        "pad_token_id", "per_layer_config", "rms_norm_eps", "rope_parameters", "sliding_window", "tie_word_embeddings",
        "top_k_experts", "use_bidirectional_attention", "vocab_size",
    }
)  # fmt: skip

REFUSED_KEYS: Mapping[str, str] = {
    "auto_map": "it names code in the checkpoint, and such code is never run",
    "quantization": "only what `redraft quantize` writes is supported; use the unquantized checkpoint",
    "rope_scaling": "scaled RoPE is not implemented; RoPE settings are read from rope_parameters",
}
"""Keys that are refused with any active value, and the reason. Unknown keys are refused as well."""

REQUIRED_VALUES: Mapping[str, tuple[tuple[object, ...], str]] = {
    "attention_bias": ((False,), "biases in attention are not implemented"),
    "attention_k_eq_v": ((True, None), "full-attention layers have no v projection in this architecture"),
    "enable_moe_block": ((True, None), "every layer has experts in this architecture"),
    "hidden_activation": (("gelu_pytorch_tanh",), "no other activation is implemented"),
    "tie_word_embeddings": (
        (True,),
        "untied, the encoder and the denoiser would be two stacks of weights; here they share one",
    ),
    "use_bidirectional_attention": (
        (None, "vision"),
        '"all" changes the window and the encoder\'s attention, which is not implemented',
    ),
}
"""Keys that must have one of these values, and the reason."""

MAX_SIZES: Mapping[str, int] = {
    "canvas_length": 2**16,
    "global_head_dim": 2**14,
    "head_dim": 2**14,
    "hidden_size": 2**17,
    "intermediate_size": 2**20,
    "max_position_embeddings": 2**31,
    "moe_intermediate_size": 2**20,
    "num_attention_heads": 2**12,
    "num_experts": 2**14,
    "num_global_key_value_heads": 2**12,
    "num_hidden_layers": 2**10,
    "num_key_value_heads": 2**12,
    "sliding_window": 2**31,
    "top_k_experts": 2**14,
    "vocab_size": 2**24,
}
"""The largest value accepted for each size: far above any model, yet small enough to keep memory bounded."""

DEFAULT_SIZES: Mapping[str, int] = {
    "canvas_length": 256,
    "head_dim": 256,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "max_position_embeddings": 131_072,
    "num_attention_heads": 8,
    "num_hidden_layers": 30,
    "num_key_value_heads": 4,
    "sliding_window": 512,
    "vocab_size": 262_144,
}
"""Sizes that replace absent keys, from transformers' DiffusionGemmaConfig. A size without a default is required."""

DEFAULT_GLOBAL_HEAD_DIM = 512
DEFAULT_SOFTCAP = 30.0
DEFAULT_NORM_EPS = 1e-6
DEFAULT_PAD_ID, DEFAULT_EOS_ID, DEFAULT_BOS_ID = 0, 1, 2
DEFAULT_SLIDING_ROPE: Mapping[str, object] = {"rope_type": "default", "rope_theta": 10_000.0}
DEFAULT_FULL_ROPE: Mapping[str, object] = {
    "rope_type": "proportional",
    "rope_theta": 1_000_000.0,
    "partial_rotary_factor": 0.25,
}
