"""config.json ↔ ModelConfig, and the raw generation_config.json.

A checkpoint gives the shape of its full-attention layers in one of two ways: `global_head_dim` and
`num_global_key_value_heads` (as released, and as written here), or `per_layer_config` {layer index: overrides} (as
current transformers saves it). Defaults and precedence are those of transformers' DiffusionGemmaConfig.
"""

import copy
from collections.abc import Mapping
from pathlib import Path

from redraft.model.config import FULL, SLIDING, AttentionShape, ModelConfig
from redraft.model.linear.quantized import BITS, GROUP
from redraft.utils.files import write_whole
from redraft.utils.json_files import json_bytes, read_json_object
from redraft.weights.config import keys
from redraft.weights.config.keys import CONFIG_FILE
from redraft.weights.config.section import Section

GENERATION_CONFIG_FILE = "generation_config.json"
MODEL_TYPE = "diffusion_gemma"
TEXT_MODEL_TYPE = "diffusion_gemma_text"
QUANTIZATION_KEY = "quantization_config"
QUANTIZATION_METHOD = "redraft"


def read_config(folder: Path | str) -> ModelConfig:
    """Reads the configuration of the model in `folder` from its config.json.

    EOS, BOS and padding ids come from generation_config.json if it has them, else from the top level, else from
    text_config. Raises ValueError, with file and key, for anything missing, malformed or not implemented.
    """
    return parse_config(read_config_json(folder), read_generation_config(folder), folder=folder)


def read_config_json(folder: Path | str) -> dict[str, object]:
    """Reads config.json without interpreting it. Raises ValueError if it is missing or not a JSON object."""
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        raise ValueError(f"{folder} has no {CONFIG_FILE}: it is not a checkpoint folder")
    return read_json_object(path)


def read_generation_config(folder: Path | str) -> dict[str, object]:
    """Reads generation_config.json; empty if there is none. Raises ValueError if it is not a JSON object."""
    path = Path(folder) / GENERATION_CONFIG_FILE
    return read_json_object(path) if path.is_file() else {}


def write_generation_config(folder: Path | str, values: dict[str, object]) -> None:
    """Writes generation_config.json atomically."""
    write_whole(Path(folder) / GENERATION_CONFIG_FILE, json_bytes(values))


def parse_config(
    original: Mapping[str, object], generation: Mapping[str, object] | None = None, *, folder: Path | str = ""
) -> ModelConfig:
    """Builds a ModelConfig from the contents of config.json and generation_config.json; errors name `folder`."""
    where = str(Path(folder) / CONFIG_FILE)
    top = Section(where, original)
    if top.values.get("model_type") != MODEL_TYPE:
        found = top.values.get("model_type")
        raise top.error("model_type", f"is {found!r}, must be {MODEL_TYPE!r}: this is not a DiffusionGemma")
    top.check_keys(keys.TOP_KEYS | keys.IGNORED_TOP_KEYS | keys.IGNORED_KEYS)
    parse_quantization(original, folder=folder)
    text = top.sub("text_config")
    if (found := text.values.get("model_type", TEXT_MODEL_TYPE)) != TEXT_MODEL_TYPE:
        raise text.error("model_type", f"is {found!r}, must be {TEXT_MODEL_TYPE!r}")
    text.check_keys(keys.TEXT_KEYS | keys.IGNORED_TEXT_KEYS | keys.IGNORED_KEYS)

    vocab_size = text.size("vocab_size")
    layer_types = _read_layer_types(text)
    shapes = _read_head_shapes(text, layer_types)
    sources = (Section(str(Path(folder) / GENERATION_CONFIG_FILE), generation or {}), top, text)
    eos = _read_token_ids(sources, "eos_token_id", vocab_size, keys.DEFAULT_EOS_ID)
    bos = _read_token_id(sources, "bos_token_id", vocab_size, keys.DEFAULT_BOS_ID)
    pad = _read_token_id(sources, "pad_token_id", vocab_size, keys.DEFAULT_PAD_ID)
    ropes = _read_ropes(text, layer_types)
    try:
        return ModelConfig(
            vocab_size=vocab_size,
            hidden_size=text.size("hidden_size"),
            num_heads=text.size("num_attention_heads"),
            layer_types=layer_types,
            sliding=_attention_shape(*shapes[SLIDING], *ropes[SLIDING]),
            full=_attention_shape(*shapes[FULL], *ropes[FULL]),
            sliding_window=text.size("sliding_window"),
            dense_size=text.size("intermediate_size"),
            num_experts=text.size("num_experts"),
            experts_per_token=text.size("top_k_experts"),
            expert_size=text.size("moe_intermediate_size"),
            canvas_length=top.size("canvas_length"),
            max_context=text.size("max_position_embeddings"),
            softcap=text.number("final_logit_softcapping", keys.DEFAULT_SOFTCAP, 0, 1e6),
            norm_eps=text.number("rms_norm_eps", keys.DEFAULT_NORM_EPS, 0, 1),
            pad_id=0 if pad is None else pad,
            bos_id=bos,
            eos_ids=eos,
        )
    except ValueError as error:
        # ModelConfig knows which values do not fit together, but not which file they came from.
        if str(error).startswith(where):
            raise
        raise ValueError(f"{where}: {error}") from error


def parse_quantization(original: Mapping[str, object], *, folder: Path | str = "") -> int | None:
    """Returns the bits per weight of the quantized matrices according to config.json, or None if it is not quantized.

    Raises ValueError for formats that `redraft quantize` does not write.
    """
    found = original.get(QUANTIZATION_KEY)
    if not found:
        return None
    top = Section(str(Path(folder) / CONFIG_FILE), original)
    for bits in BITS:
        if found == quantization_json(bits):
            return bits
    method = found.get("quant_method") if isinstance(found, dict) else found
    if method != QUANTIZATION_METHOD:
        raise top.error(
            QUANTIZATION_KEY,
            f"has quant_method {method!r}: only {QUANTIZATION_METHOD!r}, written by `redraft quantize`, is supported; "
            "use the unquantized checkpoint",
        )
    known = " or ".join(str(quantization_json(bits)) for bits in BITS)
    raise top.error(QUANTIZATION_KEY, f"is {found}, must be {known}")


def quantization_json(bits: int) -> dict[str, object]:
    """Returns the `quantization_config` of config.json for matrices of `bits` bits per weight."""
    return {"quant_method": QUANTIZATION_METHOD, "bits": bits, "group_size": GROUP if bits == 4 else None}


def config_to_json(config: ModelConfig, original: Mapping[str, object] | None = None) -> dict[str, object]:
    """Returns the content of config.json for `config`, with full-attention layers described as released.

    Keys of `original` that are not read here (vision_config, dtype, …) are kept. transformers can load the result; if
    there is no vision_config, it adds a vision tower with random weights.
    """
    result: dict[str, object] = copy.deepcopy(dict(original or {}))
    result.setdefault("architectures", ["DiffusionGemmaForBlockDiffusion"])
    text = result.get("text_config")
    text = text if isinstance(text, dict) else {}
    # It would take precedence over the released keys.
    text.pop("per_layer_config", None)
    text |= {
        "model_type": TEXT_MODEL_TYPE,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.dense_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.sliding.num_kv_heads,
        "head_dim": config.sliding.head_dim,
        "num_global_key_value_heads": config.full.num_kv_heads,
        "global_head_dim": config.full.head_dim,
        "layer_types": list(config.layer_types),
        "sliding_window": config.sliding_window,
        "num_experts": config.num_experts,
        "top_k_experts": config.experts_per_token,
        "moe_intermediate_size": config.expert_size,
        "max_position_embeddings": config.max_context,
        "final_logit_softcapping": config.softcap,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": {SLIDING: _rope_json(config.sliding), FULL: _rope_json(config.full)},
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "tie_word_embeddings": True,
    } | token_ids_json(config)
    # Ids at the top level take precedence when read, so old ones must not stay there.
    result |= {key: value for key, value in token_ids_json(config).items() if key in result}
    result |= {
        "model_type": MODEL_TYPE,
        "canvas_length": config.canvas_length,
        "tie_word_embeddings": True,
        "text_config": text,
    }
    return result


def token_ids_json(config: ModelConfig) -> dict[str, object]:
    eos: object = config.eos_ids[0] if len(config.eos_ids) == 1 else list(config.eos_ids)
    return {"eos_token_id": eos, "bos_token_id": config.bos_id, "pad_token_id": config.pad_id}


def _read_layer_types(text: Section) -> tuple[str, ...]:
    count = text.size("num_hidden_layers")
    types = text.values.get("layer_types")
    if types is None:
        types = [FULL if i % 6 == 5 else SLIDING for i in range(count)]
    elif not isinstance(types, list) or len(types) != count or not all(one in (SLIDING, FULL) for one in types):
        raise text.error("layer_types", f"must be a list of {count} (num_hidden_layers) of {SLIDING!r} and {FULL!r}")
    # The reference makes the last layer full, whatever the config says.
    return (*types[:-1], FULL)


def _read_head_shapes(text: Section, layer_types: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """Returns (head_dim, number of key-value heads) of sliding and of full layers."""
    shared = (text.size("head_dim"), text.size("num_key_value_heads"))
    if "per_layer_config" in text.values:
        return _read_per_layer_shapes(text, layer_types, shared)
    full_dim = text.size("global_head_dim") if "global_head_dim" in text.values else keys.DEFAULT_GLOBAL_HEAD_DIM
    full_heads = text.values.get("num_global_key_value_heads")
    return {
        SLIDING: shared,
        FULL: (full_dim, shared[1] if full_heads is None else text.size("num_global_key_value_heads")),
    }


def _read_per_layer_shapes(
    text: Section, layer_types: tuple[str, ...], shared: tuple[int, int]
) -> dict[str, tuple[int, int]]:
    """Returns the same from `per_layer_config`: overrides of single layers, which must agree within each type."""
    overrides: dict[int, Section] = {}
    per_layer = text.sub("per_layer_config")
    for index in per_layer.values:
        if not (index.isascii() and index.isdigit() and len(index) < 10 and int(index) < len(layer_types)):
            raise per_layer.error(index, f"is not the index of one of the {len(layer_types)} layers")
        if int(index) in overrides:
            raise per_layer.error(index, "names a layer a second time")
        overrides[int(index)] = layer = per_layer.sub(index)
        for key, value in layer.values.items():
            if key not in ("head_dim", "num_key_value_heads") and value != text.values.get(
                key, keys.DEFAULT_SIZES.get(key)
            ):
                raise layer.error(
                    key, "differs from the other layers: only head_dim and num_key_value_heads may differ"
                )
    shapes: dict[str, tuple[int, int]] = {}
    for i, kind in enumerate(layer_types):
        shape = shared
        if i in overrides:
            layer = overrides[i]
            shape = (
                layer.size("head_dim") if "head_dim" in layer.values else shared[0],
                layer.size("num_key_value_heads") if "num_key_value_heads" in layer.values else shared[1],
            )
        if shapes.setdefault(kind, shape) != shape:
            raise text.error(
                "per_layer_config",
                f"makes layer {i} differ from the other {kind} layers (head_dim and "
                f"key-value heads {shape}, not {shapes[kind]}): layers of one type must be alike",
            )
    shapes.setdefault(SLIDING, shared)
    _check_released_spelling(text, shapes[FULL])
    return shapes


def _check_released_spelling(text: Section, full: tuple[int, int]) -> None:
    """Refuses released keys that contradict per_layer_config; the reference ignores them."""
    for key, value in zip(("global_head_dim", "num_global_key_value_heads"), full, strict=True):
        if text.values.get(key) is not None and text.size(key) != value:
            raise text.error(key, f"is {text.size(key)} but per_layer_config says {value}: remove one of the two")


def _read_ropes(text: Section, layer_types: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """Returns (theta, rotated fraction) of sliding and of full layers."""
    defaults = {SLIDING: keys.DEFAULT_SLIDING_ROPE, FULL: keys.DEFAULT_FULL_ROPE}
    ropes = text.sub("rope_parameters")
    if text.values.get("rope_parameters") is None:
        ropes = Section(text.file, defaults, ropes.prefix)
    ropes.check_keys(frozenset(defaults))
    # A type that no layer has may be absent.
    return {kind: _read_rope(ropes, kind, None if kind in layer_types else defaults[kind]) for kind in defaults}


def _read_rope(ropes: Section, kind: str, default: Mapping[str, object] | None) -> tuple[float, float]:
    if ropes.values.get(kind) is None:
        if default is None:
            raise ropes.error(kind, "is missing or null: without RoPE such layers cannot tell positions apart")
        ropes = Section(ropes.file, {kind: dict(default)}, ropes.prefix)
    rope = ropes.sub(kind)
    rope_type = rope.values.get("rope_type", rope.values.get("type", "default"))
    if rope_type not in ("default", "proportional"):
        raise rope.error(
            "rope_type", f"is {rope_type!r}, must be 'default' or 'proportional': others are not implemented"
        )
    if rope.number("factor", 1.0, 0, 1e9) != 1.0:
        raise rope.error("factor", f"is {rope.values['factor']}, must be 1: scaled RoPE is not implemented")
    fraction = rope.number("partial_rotary_factor", 1.0, 0, 1)
    if rope_type == "default" and fraction != 1.0:
        raise rope.error("partial_rotary_factor", f"is {fraction}: with rope_type 'default' it must be 1")
    rope.check_keys(frozenset({"rope_type", "type", "rope_theta", "partial_rotary_factor", "factor"}))
    return rope.number("rope_theta", None, 0, 1e15), fraction


def _attention_shape(head_dim: int, num_kv_heads: int, theta: float, fraction: float) -> AttentionShape:
    return AttentionShape(head_dim=head_dim, num_kv_heads=num_kv_heads, rope_theta=theta, rotated_fraction=fraction)


def _rope_json(shape: AttentionShape) -> dict[str, object]:
    if shape.rotated_fraction == 1.0:
        return {"rope_type": "default", "rope_theta": shape.rope_theta}
    return {
        "rope_type": "proportional",
        "rope_theta": shape.rope_theta,
        "partial_rotary_factor": shape.rotated_fraction,
    }


def _read_token_ids(sources: tuple[Section, ...], key: str, vocab_size: int, default: int) -> tuple[int, ...]:
    """Returns the ids of the first source that has any. Else, () if text_config, the last, has null, or (default,)."""
    for source in sources:
        if (ids := source.token_ids(key, vocab_size)) is not None:
            return ids
    return () if key in sources[-1].values else (default,)


def _read_token_id(sources: tuple[Section, ...], key: str, vocab_size: int, default: int) -> int | None:
    ids = _read_token_ids(sources, key, vocab_size, default)
    if len(ids) > 1:
        raise sources[-1].error(key, f"is {list(ids)}, must be one token id")
    return ids[0] if ids else None
