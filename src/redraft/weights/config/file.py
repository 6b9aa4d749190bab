"""config.json ↔ ModelConfig, and the raw generation_config.json.

A checkpoint spells the shape of its full layers in one of two ways: `global_head_dim` + `num_global_key_value_heads`
(as released; written here), or `per_layer_config` {layer index: overrides} (as current transformers saves). Defaults
and precedence are those of transformers' DiffusionGemmaConfig.
"""

import copy
from collections.abc import Mapping
from pathlib import Path

from redraft.model import AttentionShape, ModelConfig
from redraft.model.config import FULL, SLIDING
from redraft.model.linear.quantized import BITS, GROUP
from redraft.utils.files import write_whole
from redraft.utils.json_files import json_bytes, read_json_object
from redraft.weights.config import keys as keys
from redraft.weights.config.section import Section

CONFIG_FILE = "config.json"
GENERATION_CONFIG_FILE = "generation_config.json"
MODEL_TYPE = "diffusion_gemma"
TEXT_MODEL_TYPE = "diffusion_gemma_text"
QUANTIZATION_KEY = "quantization_config"
QUANTIZATION_METHOD = "redraft"


def read_config(folder: Path | str) -> ModelConfig:
    """The structure of the model in `folder`, from its config.json.

    EOS, BOS and padding ids are taken from generation_config.json where it has them, then from the top level, then from
    text_config. Raises ValueError naming file and key for anything missing, malformed or not implemented.
    """
    return parse_config(read_config_json(folder), read_generation_config(folder), folder=folder)


def read_config_json(folder: Path | str) -> dict[str, object]:
    """config.json as it is. Raises ValueError if it is missing or not a JSON object."""
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        raise ValueError(f"{folder} has no {CONFIG_FILE}: it is not the folder of a checkpoint")
    return read_json_object(path)


def read_generation_config(folder: Path | str) -> dict[str, object]:
    """generation_config.json as it is, empty where there is none. Raises ValueError if it is not a JSON object."""
    path = Path(folder) / GENERATION_CONFIG_FILE
    return read_json_object(path) if path.is_file() else {}


def write_generation_config(folder: Path | str, values: dict[str, object]) -> None:
    """Writes generation_config.json, whole or not at all."""
    write_whole(Path(folder) / GENERATION_CONFIG_FILE, json_bytes(values))


def parse_config(
    original: Mapping[str, object], generation: Mapping[str, object] | None = None, *, folder: Path | str = ""
) -> ModelConfig:
    """ModelConfig from the content of config.json and generation_config.json; `folder` is for the errors."""
    where = str(Path(folder) / CONFIG_FILE)
    top = Section(where, original)
    if top.values.get("model_type") != MODEL_TYPE:
        found = top.values.get("model_type")
        raise top.error("model_type", f"is {found!r}, must be {MODEL_TYPE!r}: this is not a DiffusionGemma")
    top.check_keys(keys.READ_AT_TOP | keys.UNREAD_AT_TOP | keys.UNREAD_ANYWHERE)
    parse_quantization(original, folder=folder)
    text = top.sub("text_config")
    if (found := text.values.get("model_type", TEXT_MODEL_TYPE)) != TEXT_MODEL_TYPE:
        raise text.error("model_type", f"is {found!r}, must be {TEXT_MODEL_TYPE!r}")
    text.check_keys(keys.READ_IN_TEXT | keys.UNREAD_IN_TEXT | keys.UNREAD_ANYWHERE)

    vocab_size = text.size("vocab_size")
    layer_types = _layer_types(text)
    shapes = _head_shapes(text, layer_types)
    sources = (Section(str(Path(folder) / GENERATION_CONFIG_FILE), generation or {}), top, text)
    eos = _tokens(sources, "eos_token_id", vocab_size, keys.DEFAULT_EOS_ID)
    bos = _single(text, _tokens(sources, "bos_token_id", vocab_size, keys.DEFAULT_BOS_ID), "bos_token_id")
    pad = _single(text, _tokens(sources, "pad_token_id", vocab_size, keys.DEFAULT_PAD_ID), "pad_token_id")
    sliding_rope, full_rope = _ropes(text, layer_types)
    try:
        return ModelConfig(
            vocab_size=vocab_size,
            hidden_size=text.size("hidden_size"),
            num_heads=text.size("num_attention_heads"),
            layer_types=layer_types,
            sliding=AttentionShape(
                head_dim=shapes[SLIDING][0],
                num_kv_heads=shapes[SLIDING][1],
                rope_theta=sliding_rope[0],
                rotated_fraction=sliding_rope[1],
            ),
            full=AttentionShape(
                head_dim=shapes[FULL][0],
                num_kv_heads=shapes[FULL][1],
                rope_theta=full_rope[0],
                rotated_fraction=full_rope[1],
            ),
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
        # ModelConfig knows what does not fit together but not where it was read.
        if str(error).startswith(where):
            raise
        raise ValueError(f"{where}: {error}") from error


def parse_quantization(original: Mapping[str, object], *, folder: Path | str = "") -> int | None:
    """The bits that config.json says the matrices are stored in; None where they are not quantized.

    ValueError for what `redraft quantize` has not written.
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
            f"has quant_method {method!r}: only {QUANTIZATION_METHOD!r}, what `redraft quantize` writes, is read; take "
            "the unquantized checkpoint",
        )
    known = " or ".join(str(quantization_json(bits)) for bits in BITS)
    raise top.error(QUANTIZATION_KEY, f"is {found}, must be {known}")


def quantization_json(bits: int) -> dict[str, object]:
    """What config.json says of matrices in so many bits."""
    return {"quant_method": QUANTIZATION_METHOD, "bits": bits, "group_size": GROUP if bits == 4 else None}


def config_to_json(config: ModelConfig, original: Mapping[str, object] | None = None) -> dict[str, object]:
    """The content of config.json for `config`, full layers spelled as released.

    Whatever `original` has that is not read here (vision_config, dtype, …) is kept. transformers loads the result;
    where there is no vision_config it adds a vision tower of its own with random weights.
    """
    result: dict[str, object] = copy.deepcopy(dict(original or {}))
    result.setdefault("architectures", ["DiffusionGemmaForBlockDiffusion"])
    text = result.get("text_config")
    text = text if isinstance(text, dict) else {}
    # It would take precedence over the released spelling.
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
    # Ids at the top level take precedence when read, so old ones may not stay there.
    result |= {key: value for key, value in token_ids_json(config).items() if key in result}
    result |= {
        "model_type": MODEL_TYPE,
        "canvas_length": config.canvas_length,
        "tie_word_embeddings": True,
        "text_config": text,
    }
    return result


def token_ids_json(config: ModelConfig) -> dict[str, object]:
    """EOS, BOS and padding ids as config files spell them."""
    eos: object = config.eos_ids[0] if len(config.eos_ids) == 1 else list(config.eos_ids)
    return {"eos_token_id": eos, "bos_token_id": config.bos_id, "pad_token_id": config.pad_id}


def _layer_types(text: Section) -> tuple[str, ...]:
    count = text.size("num_hidden_layers")
    types = text.values.get("layer_types")
    if types is None:
        types = [FULL if i % 6 == 5 else SLIDING for i in range(count)]
    elif not isinstance(types, list) or len(types) != count or not all(one in (SLIDING, FULL) for one in types):
        raise text.error("layer_types", f"must be a list of {count} (num_hidden_layers) of {SLIDING!r} and {FULL!r}")
    # As the reference forces it.
    return (*types[:-1], FULL)


def _head_shapes(text: Section, layer_types: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """(head_dim, number of key-value heads) of sliding and of full layers."""
    shared = (text.size("head_dim"), text.size("num_key_value_heads"))
    if "per_layer_config" in text.values:
        return _per_layer_shapes(text, layer_types, shared)
    full_dim = text.size("global_head_dim") if "global_head_dim" in text.values else keys.DEFAULT_GLOBAL_HEAD_DIM
    full_heads = text.values.get("num_global_key_value_heads")
    return {
        SLIDING: shared,
        FULL: (full_dim, shared[1] if full_heads is None else text.size("num_global_key_value_heads")),
    }


def _per_layer_shapes(
    text: Section, layer_types: tuple[str, ...], shared: tuple[int, int]
) -> dict[str, tuple[int, int]]:
    """The same from `per_layer_config`: overrides of single layers, which must agree within each type."""
    overrides: dict[int, Section] = {}
    per_layer = text.sub("per_layer_config")
    for index in per_layer.values:
        if not (index.isascii() and index.isdigit() and len(index) < 10 and int(index) < len(layer_types)):
            raise per_layer.error(index, f"is not the index of one of the {len(layer_types)} layers")
        if int(index) in overrides:
            raise per_layer.error(index, "names a layer a second time")
        overrides[int(index)] = layer = per_layer.sub(index)
        for key, value in layer.values.items():
            if key not in ("head_dim", "num_key_value_heads") and value != text.values.get(key, keys.DEFAULTS.get(key)):
                raise layer.error(key, "differs from the other layers': only head_dim and num_key_value_heads may")
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
                f"makes layer {i} differ from the other {kind} layers ({shape} against {shapes[kind]} of head_dim and "
                "key-value heads): layers of one type must be alike",
            )
    shapes.setdefault(SLIDING, shared)
    _check_other_spelling(text, shapes[FULL])
    return shapes


def _check_other_spelling(text: Section, full: tuple[int, int]) -> None:
    """The reference ignores the released spelling beside per_layer_config; a contradiction is refused instead."""
    for key, value in zip(("global_head_dim", "num_global_key_value_heads"), full, strict=True):
        if text.values.get(key) is not None and text.size(key) != value:
            raise text.error(key, f"is {text.size(key)} but per_layer_config says {value}: remove one of the two")


def _ropes(text: Section, layer_types: tuple[str, ...]) -> tuple[tuple[float, float], tuple[float, float]]:
    """(theta, rotated fraction) of sliding and of full layers."""
    defaults = {SLIDING: keys.DEFAULT_SLIDING_ROPE, FULL: keys.DEFAULT_FULL_ROPE}
    ropes = text.sub("rope_parameters")
    if text.values.get("rope_parameters") is None:
        ropes = Section(text.file, defaults, ropes.prefix)
    ropes.check_keys(frozenset(defaults))
    # A type that no layer has may be left out.
    return _rope(ropes, SLIDING, None if SLIDING in layer_types else defaults[SLIDING]), _rope(ropes, FULL, None)


def _rope(ropes: Section, kind: str, default: Mapping[str, object] | None) -> tuple[float, float]:
    if ropes.values.get(kind) is None:
        if default is None:
            raise ropes.error(kind, "is missing or null: without rotation such layers cannot tell positions apart")
        ropes = Section(ropes.file, {kind: dict(default)}, ropes.prefix)
    rope = ropes.sub(kind)
    kind_of_rope = rope.values.get("rope_type", rope.values.get("type", "default"))
    if kind_of_rope not in ("default", "proportional"):
        raise rope.error(
            "rope_type", f"is {kind_of_rope!r}, must be 'default' or 'proportional': others are not implemented"
        )
    if rope.number("factor", 1.0, 0, 1e9) != 1.0:
        raise rope.error("factor", f"is {rope.values['factor']}, must be 1: scaled RoPE is not implemented")
    fraction = rope.number("partial_rotary_factor", 1.0, 0, 1)
    if kind_of_rope == "default" and fraction != 1.0:
        raise rope.error("partial_rotary_factor", f"is {fraction}: with rope_type 'default' it must be 1")
    rope.check_keys(frozenset({"rope_type", "type", "rope_theta", "partial_rotary_factor", "factor"}))
    return rope.number("rope_theta", None, 0, 1e15), fraction


def _rope_json(shape: AttentionShape) -> dict[str, object]:
    if shape.rotated_fraction == 1.0:
        return {"rope_type": "default", "rope_theta": shape.rope_theta}
    return {
        "rope_type": "proportional",
        "rope_theta": shape.rope_theta,
        "partial_rotary_factor": shape.rotated_fraction,
    }


def _tokens(sources: tuple[Section, ...], key: str, vocab_size: int, default: int) -> tuple[int, ...]:
    """The first source that has ids. Without any: none if the last source, text_config, says null, else the default."""
    for source in sources:
        if (ids := source.token_ids(key, vocab_size)) is not None:
            return ids
    return () if key in sources[-1].values else (default,)


def _single(text: Section, ids: tuple[int, ...], key: str) -> int | None:
    if len(ids) > 1:
        raise text.error(key, f"is {list(ids)}, must be one token id")
    return ids[0] if ids else None
