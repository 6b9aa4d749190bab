import json
import re
from pathlib import Path
from typing import Any

import pytest

from redraft.model.config import AttentionShape, ModelConfig
from redraft.weights.config.file import (
    config_to_json,
    parse_config,
    read_config,
    read_generation_config,
    write_generation_config,
)
from tests.weights.support import released_config, tiny_config

SLIDING, FULL = "sliding_attention", "full_attention"
EXPERTS = {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 8}


def released_json() -> dict[str, Any]:
    """The keys and values of the released 26B-A4B's config.json, its vision_config shortened."""
    return {
        "architectures": ["DiffusionGemmaForBlockDiffusion"],
        "boi_token_id": 255_999,
        "canvas_length": 256,
        "dtype": "bfloat16",
        "eoi_token_id": 258_882,
        "eos_token_id": [1, 106, 50],
        "image_token_id": 258_880,
        "initializer_range": 0.02,
        "model_type": "diffusion_gemma",
        "text_config": {
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 2,
            "dtype": "bfloat16",
            "eos_token_id": 1,
            "final_logit_softcapping": 30.0,
            "global_head_dim": 512,
            "head_dim": 256,
            "hidden_activation": "gelu_pytorch_tanh",
            "hidden_size": 2816,
            "initializer_range": 0.02,
            "intermediate_size": 2112,
            "layer_types": ([SLIDING] * 5 + [FULL]) * 5,
            "max_position_embeddings": 262_144,
            "model_type": "diffusion_gemma_text",
            "moe_intermediate_size": 704,
            "num_attention_heads": 16,
            "num_experts": 128,
            "num_global_key_value_heads": 2,
            "num_hidden_layers": 30,
            "num_key_value_heads": 8,
            "pad_token_id": 0,
            "rms_norm_eps": 1e-06,
            "rope_parameters": {
                FULL: {"partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0, "rope_type": "proportional"},
                SLIDING: {"rope_theta": 10_000.0, "rope_type": "default"},
            },
            "sliding_window": 1024,
            "tie_word_embeddings": True,
            "top_k_experts": 8,
            "use_bidirectional_attention": "vision",
            "vocab_size": 262_144,
        },
        "tie_word_embeddings": True,
        "vision_config": {"model_type": "gemma4_vision", "hidden_size": 1152},
        "vision_soft_tokens_per_image": 280,
    }


def minimal(**text: object) -> dict[str, Any]:
    return {"model_type": "diffusion_gemma", "text_config": EXPERTS | text}


def changed(where: str, value: object) -> dict[str, Any]:
    config = released_json()
    *path, key = where.split(".")
    place = config
    for step in path:
        place = place[step]
    place[key] = value
    return config


def test_the_released_spelling() -> None:
    assert parse_config(released_json()) == released_config()


def test_the_spelling_of_current_transformers() -> None:
    config = released_json()
    text = config["text_config"]
    del text["global_head_dim"], text["num_global_key_value_heads"]
    override = {"head_dim": 512, "num_key_value_heads": 2}
    text["per_layer_config"] = dict.fromkeys(("05", "11", "17", "23", "29"), override)
    assert parse_config(config) == released_config()


@pytest.mark.parametrize("nothing", [{}, None])
def test_an_empty_per_layer_config_overrides_nothing(nothing: object) -> None:
    config = parse_config(minimal(per_layer_config=nothing))
    assert config.full.head_dim == config.sliding.head_dim == 256
    assert config.full.num_kv_heads == config.sliding.num_kv_heads == 4


def test_per_layer_config_may_override_sliding_layers_and_repeat_what_is_shared() -> None:
    overrides = {"0": {"head_dim": 64, "hidden_size": 2304}, "1": {"head_dim": 256}}
    config = parse_config(minimal(num_hidden_layers=2, layer_types=[SLIDING, FULL], per_layer_config=overrides))
    assert (config.sliding.head_dim, config.full.head_dim) == (64, 256)


def test_defaults_are_the_references() -> None:
    assert parse_config(minimal()) == ModelConfig(
        vocab_size=262_144,
        hidden_size=2304,
        num_heads=8,
        layer_types=((SLIDING,) * 5 + (FULL,)) * 5,
        sliding=AttentionShape(head_dim=256, num_kv_heads=4, rope_theta=1e4),
        full=AttentionShape(head_dim=512, num_kv_heads=4, rope_theta=1e6, rotated_fraction=0.25),
        sliding_window=512,
        dense_size=9216,
        num_experts=4,
        experts_per_token=2,
        expert_size=8,
        canvas_length=256,
        max_context=131_072,
        softcap=30.0,
        norm_eps=1e-6,
        pad_id=0,
        bos_id=2,
        eos_ids=(1,),
    )


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [FULL]), (7, [SLIDING] * 5 + [FULL, FULL]), (12, ([SLIDING] * 5 + [FULL]) * 2)],
)
def test_layer_types_default_to_five_to_one_and_end_full(count: int, expected: list[str]) -> None:
    assert parse_config(minimal(num_hidden_layers=count)).layer_types == tuple(expected)


def test_a_sliding_last_layer_is_forced_full() -> None:
    assert parse_config(minimal(num_hidden_layers=2, layer_types=[SLIDING, SLIDING])).layer_types == (SLIDING, FULL)


@pytest.mark.parametrize(
    ("text", "top", "generation", "expected"),
    [
        ({}, {}, {}, (1,)),
        ({"eos_token_id": None}, {}, {}, ()),
        ({"eos_token_id": 5}, {}, {}, (5,)),
        ({"eos_token_id": [5, 6]}, {"eos_token_id": None}, {}, (5, 6)),
        ({"eos_token_id": 5}, {"eos_token_id": [1, 106, 50]}, {"eos_token_id": None}, (1, 106, 50)),
        ({"eos_token_id": 5}, {"eos_token_id": 6}, {"eos_token_id": [7, 7, 8]}, (7, 8)),
    ],
)
def test_where_eos_ids_come_from(
    text: dict[str, object], top: dict[str, object], generation: dict[str, object], expected: tuple[int, ...]
) -> None:
    assert parse_config(minimal(**text) | top, generation).eos_ids == expected


def test_read_config_takes_eos_ids_of_generation_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(released_json()))
    assert read_generation_config(tmp_path) == {}
    write_generation_config(tmp_path, {"eos_token_id": [4], "t_max": 0.8})
    assert read_generation_config(tmp_path) == {"eos_token_id": [4], "t_max": 0.8}
    assert read_config(tmp_path).eos_ids == (4,)


@pytest.mark.parametrize(
    ("where", "value", "reason"),
    [
        ("model_type", "gemma4", "this is not a DiffusionGemma"),
        ("model_type", None, "this is not a DiffusionGemma"),
        ("text_config", None, "num_experts is missing"),
        ("text_config", [1], "text_config is [1], must be an object"),
        ("text_config.model_type", "gemma4_text", "must be 'diffusion_gemma_text'"),
        ("auto_map", {"AutoConfig": "x.Y"}, "names code in the checkpoint"),
        ("quantization_config", {"bits": 4}, "has quant_method None: only 'redraft'"),
        ("quantization_config", {"quant_method": "fp8"}, "has quant_method 'fp8': only 'redraft'"),
        ("quantization_config", "fp8", "has quant_method 'fp8': only 'redraft'"),
        ("quantization_config", {"quant_method": "redraft", "bits": 2, "group_size": None}, "'bits': 2"),
        ("quantization_config", {"quant_method": "redraft", "bits": 4, "group_size": 128}, "must be {'quant_method'"),
        ("quantization", {"bits": 4}, "only what `redraft quantize` writes is supported"),
        ("text_config.quantization_config", {"bits": 4}, "this key is not known"),
        ("tie_word_embeddings", False, "two stacks of weights"),
        ("text_config.tie_word_embeddings", False, "two stacks of weights"),
        ("text_config.tie_word_embeddings", None, "must be true"),
        ("text_config.tie_word_embeddings", 1, "must be true"),
        ("text_config.use_bidirectional_attention", "all", '"all" changes the window'),
        ("text_config.use_bidirectional_attention", True, "must be null or 'vision'"),
        ("text_config.attention_bias", True, "biases"),
        ("text_config.attention_k_eq_v", False, "no v projection"),
        ("text_config.enable_moe_block", False, "every layer has experts"),
        ("text_config.hidden_activation", "silu", "no other activation"),
        ("text_config.num_experts", None, "num_experts is missing or null"),
        ("text_config.num_experts", 0, "num_experts is 0"),
        ("text_config.top_k_experts", 129, "not that many experts"),
        ("text_config.hidden_size_per_layer_input", 256, "this key is not known"),
        ("text_config.num_kv_shared_layers", 3, "this key is not known"),
        ("text_config.attn_logit_softcapping", 50.0, "this key is not known"),
        ("text_config.rope_theta", 1e4, "this key is not known"),
        ("text_config.rope_scaling", {"factor": 8}, "scaled RoPE"),
        ("audio_config", {"hidden_size": 8}, "this key is not known"),
        ("text_config.hidden_size", 2816.0, "must be an integer"),
        ("text_config.hidden_size", "2816", "must be an integer"),
        ("text_config.hidden_size", True, "must be an integer"),
        ("text_config.hidden_size", None, "must be an integer"),
        ("text_config.hidden_size", -1, "must be in [1, 131072]"),
        ("text_config.vocab_size", 10**30, "must be in"),
        ("text_config.num_hidden_layers", 10**6, "must be in"),
        ("canvas_length", None, "canvas_length is null"),
        ("canvas_length", 0, "canvas_length is 0"),
        ("text_config.num_key_value_heads", 5, "cannot share"),
        ("text_config.head_dim", 255, "must be even"),
        ("text_config.global_head_dim", None, "global_head_dim is missing or null"),
        ("text_config.rms_norm_eps", float("nan"), "rms_norm_eps is nan"),
        ("text_config.rms_norm_eps", 0, "rms_norm_eps is 0"),
        ("text_config.final_logit_softcapping", None, "final_logit_softcapping is null"),
        ("text_config.final_logit_softcapping", float("inf"), "final_logit_softcapping is inf"),
        ("text_config.final_logit_softcapping", 10**400, "final_logit_softcapping is 1000"),
        ("text_config.layer_types", [SLIDING, FULL], "must be a list of 30"),
        ("text_config.layer_types", ["linear_attention"] * 30, "must be a list of 30"),
        ("text_config.layer_types", [[]] * 30, "must be a list of 30"),
        ("text_config.eos_token_id", 262_144, "eos_token_id is 262144, must be in [0, 262143]"),
        ("eos_token_id", [1, "2"], "eos_token_id is '2'"),
        ("text_config.eos_token_id", -1, ""),
        ("text_config.bos_token_id", [1, 2], "must be one token id"),
        ("text_config.pad_token_id", -1, "pad_token_id is -1"),
        ("text_config.rope_parameters.full_attention", None, "full_attention is missing or null"),
        ("text_config.rope_parameters", {"rope_theta": 1e4, "rope_type": "default"}, "rope_theta"),
        ("text_config.rope_parameters.full_attention.rope_type", "yarn", "'default' or 'proportional'"),
        ("text_config.rope_parameters.full_attention.rope_type", [], "'default' or 'proportional'"),
        ("text_config.rope_parameters.full_attention.factor", 8.0, "scaled RoPE"),
        ("text_config.rope_parameters.full_attention.attention_factor", 2.0, "this key is not known"),
        ("text_config.rope_parameters.full_attention.partial_rotary_factor", 1.5, "at most 1"),
        ("text_config.rope_parameters.sliding_attention.partial_rotary_factor", 0.5, "it must be 1"),
        ("text_config.rope_parameters.sliding_attention.rope_theta", None, "rope_theta is null"),
        ("text_config.rope_parameters.sliding_attention.rope_theta", -1.0, "rope_theta is -1.0"),
        ("text_config.per_layer_config", {"5": {"head_dim": 512}}, "layers of one type must be alike"),
        ("text_config.per_layer_config", {"0": {"head_dim": 128}}, "layers of one type must be alike"),
        ("text_config.per_layer_config", {"30": {"head_dim": 512}}, "not the index of one of the 30 layers"),
        ("text_config.per_layer_config", {"x": {}}, "not the index"),
        ("text_config.per_layer_config", {"5": {}, "05": {}}, "a second time"),
        ("text_config.per_layer_config", {"5": {"intermediate_size": 8}}, "only head_dim and num_key_value_heads may"),
        ("text_config.per_layer_config", {"5": {"skip": ["mlp"]}}, "only head_dim and num_key_value_heads may"),
        ("text_config.per_layer_config", {"5": 3}, "must be an object"),
        ("text_config.per_layer_config", {}, "remove one of the two"),
    ],
)
def test_refused(where: str, value: object, reason: str) -> None:
    config = changed(where, value)
    if where == "text_config.eos_token_id":
        # The top level's would win.
        del config["eos_token_id"]
    with pytest.raises(ValueError, match=r"^somewhere/config\.json: ") as error:
        parse_config(config, folder="somewhere")
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("text_config.attention_dropout", 0.1),
        ("text_config.vocab_size_per_layer_input", 262_144),
        ("text_config.hidden_size_per_layer_input", 0),
        ("text_config.attention_k_eq_v", True),
        ("text_config.some_new_flag", False),
        ("audio_config", None),
        ("transformers_version", "5.23.0"),
        ("generation_config", {"t_max": 0.5}),
        ("quantization_config", None),
    ],
)
def test_what_changes_nothing_is_accepted(where: str, value: object) -> None:
    assert parse_config(changed(where, value)) == released_config()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[1, 2]", "must hold a JSON object, it holds a list"),
        (b'{"a": 1,', "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not valid JSON"),
        (b'{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        (b"", "is not valid JSON"),
    ],
)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_files_that_are_not_json_objects(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(released_json()))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(name)) as error:
        read_config(tmp_path)
    assert reason in str(error.value)


def test_a_missing_and_a_huge_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config\.json"):
        read_config(tmp_path)
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(ValueError, match="10,000,000,000 bytes"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        tiny_config(),
        tiny_config(eos_ids=(), bos_id=None, pad_id=3),
        tiny_config(eos_ids=(3,), softcap=21.5, norm_eps=1e-5),
        tiny_config(layer_types=("full_attention",) * 2),
        tiny_config(full=AttentionShape(head_dim=16, num_kv_heads=2, rope_theta=5e5)),
        released_config(),
    ],
)
def test_what_is_written_is_read_back(config: ModelConfig) -> None:
    assert parse_config(config_to_json(config)) == config
    over = released_json()
    over["text_config"]["per_layer_config"] = {"5": {"head_dim": 64}}
    over["bos_token_id"] = 77
    written = config_to_json(config, over)
    assert parse_config(written) == config
    assert json.loads(json.dumps(written)) == written


def test_unread_keys_pass_through_and_the_original_stays_as_it_was() -> None:
    original = released_json() | {"my_note": "hello"}
    before = json.dumps(original)
    written = config_to_json(tiny_config(), original)
    assert json.dumps(original) == before
    for key in ("vision_config", "dtype", "image_token_id", "vision_soft_tokens_per_image", "my_note"):
        assert written[key] == original[key]
    assert written["eos_token_id"] == [1, 7]
    text = written["text_config"]
    assert isinstance(text, dict)
    assert text["global_head_dim"] == 16
    assert text["num_global_key_value_heads"] == 1
    assert text["use_bidirectional_attention"] == "vision"
