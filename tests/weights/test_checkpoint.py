import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from redraft.weights.checkpoint import Checkpoint, all_finite, load_model
from redraft.weights.save import save_checkpoint
from redraft.weights.storage.names import checkpoint_name
from tests.weights.support import (
    VISION_NAME,
    add_tensor,
    edit_json,
    join_file,
    logits,
    read_json,
    split_file,
    tiny_config,
    weights,
    write_tiny,
)

SCALAR = "layers.2.encoder_layer_scalar"


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    folder = tmp_path / "model"
    return folder, write_tiny(folder)


def test_round_trip_keeps_every_bit(written: tuple[Path, dict[str, Tensor]]) -> None:
    folder, state = written
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.config == tiny_config()
    loaded = checkpoint.load()
    assert list(loaded) == [name for name, _ in tiny_config().parameter_shapes().items()]
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    assert checkpoint.num_bytes == sum(tensor.numel() * 4 for tensor in state.values())


def test_names_in_the_file_are_the_released_ones(written: tuple[Path, dict[str, Tensor]]) -> None:
    folder, _ = written
    names = set(split_file(folder / "model.safetensors")[0]) - {"__metadata__"}
    assert "model.decoder.layers.2.layer_scalar" in names
    assert "model.encoder.language_model.layers.2.layer_scalar" in names
    assert not any("encoder_layer_scalar" in name for name in names)
    assert checkpoint_name(SCALAR) == "model.encoder.language_model.layers.2.layer_scalar"


def test_same_dtype_is_a_view_of_the_file(written: tuple[Path, dict[str, Tensor]]) -> None:
    loaded = Checkpoint.open(written[0]).load(torch.float32)
    mapped = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(written[0]) in line]
    spans = [tuple(int(end, 16) for end in fields[0].split("-")) for fields in mapped]
    assert all(any(low <= tensor.data_ptr() < high for low, high in spans) for tensor in loaded.values())
    # A private view: writing to it leaves the file alone.
    loaded["norm.weight"].zero_()
    assert torch.equal(Checkpoint.open(written[0]).load()["norm.weight"], written[1]["norm.weight"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_conversion(written: tuple[Path, dict[str, Tensor]], dtype: torch.dtype) -> None:
    loaded = Checkpoint.open(written[0]).load(dtype)
    assert all(torch.equal(loaded[name], tensor.to(dtype)) for name, tensor in written[1].items())


def test_load_model_is_ready_for_inference(written: tuple[Path, dict[str, Tensor]]) -> None:
    model = load_model(written[0])
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    assert all_finite(logits(model, torch.arange(10), torch.arange(8))[1])


def test_an_unaligned_file_is_read(written: tuple[Path, dict[str, Tensor]]) -> None:
    folder, state = written
    path = folder / "model.safetensors"
    header, data = split_file(path)
    header["model.encoder.vision_tower.x"] = {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}
    for name, entry in header.items():
        if name not in ("__metadata__", "model.encoder.vision_tower.x"):
            entry["data_offsets"] = [offset + 3 for offset in entry["data_offsets"]]
    join_file(path, header, b"abc" + data)
    loaded = Checkpoint.open(folder).load()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_links_are_followed_as_the_hubs_cache_is_made_of_them(written: tuple[Path, dict[str, Tensor]]) -> None:
    folder, state = written
    snapshot = folder.parent / "snapshot"
    snapshot.mkdir()
    for path in folder.iterdir():
        (snapshot / path.name).symlink_to(Path("..") / folder.name / path.name)
    assert torch.equal(Checkpoint.open(snapshot).load()[SCALAR], state[SCALAR])


def test_tied_copies_are_ignored(written: tuple[Path, dict[str, Tensor]]) -> None:
    folder, state = written
    for name in (
        "lm_head.weight",
        "model.encoder.language_model.embed_tokens.weight",
        "model.encoder.language_model.norm.weight",
        "model.encoder.language_model.layers.1.self_attn.q_proj.weight",
        "model.encoder.language_model.layers.1.experts.down_proj",
    ):
        add_tensor(folder / "model.safetensors", name, bytes(8))
    assert set(Checkpoint.open(folder).load()) == set(state)


@pytest.mark.parametrize(
    "name",
    [
        "model.encoder.language_model.layers.9.norm.weight",
        "model.encoder.language_model.layers.1.self_attn.v_proj.weight",
        "model.encoder.language_model.layers.4.layer_scalar",
        "model.encoder.language_model.self_conditioning.pre_norm.weight",
        "model.decoder.lm_head.weight",
        "model.decoder.layers.1.self_attn.v_proj.weight",
        "model.encoder.audio_tower.x",
    ],
)
def test_unexpected_tensors(written: tuple[Path, dict[str, Tensor]], name: str) -> None:
    add_tensor(written[0] / "model.safetensors", name, bytes(8))
    with pytest.raises(ValueError, match="no place for") as error:
        Checkpoint.open(written[0])
    assert name in str(error.value)


def test_missing_tensors_are_named_the_first_few(written: tuple[Path, dict[str, Tensor]]) -> None:
    folder, _ = written
    config = read_json(folder / "config.json")
    config["text_config"] |= {"num_hidden_layers": 5, "layer_types": ["sliding_attention"] * 4 + ["full_attention"]}
    edit_json(folder / "config.json", **config)
    with pytest.raises(ValueError, match="lacks") as error:
        Checkpoint.open(folder)
    assert "model.decoder.layers.4" in str(error.value)
    assert "…" in str(error.value)


def test_shapes_that_do_not_fit(written: tuple[Path, dict[str, Tensor]]) -> None:
    folder, _ = written
    config = read_json(folder / "config.json")
    config["text_config"]["moe_intermediate_size"] = 20
    edit_json(folder / "config.json", **config)
    with pytest.raises(
        ValueError, match=r"experts\.down_proj in model\.safetensors is \[6, 48, 24\], not \[6, 48, 20\]"
    ):
        Checkpoint.open(folder)


def test_integers_are_not_weights(written: tuple[Path, dict[str, Tensor]]) -> None:
    path = written[0] / "model.safetensors"
    header, data = split_file(path)
    header["model.decoder.norm.weight"]["dtype"] = "I32"
    join_file(path, header, data)
    with pytest.raises(ValueError, match=r"norm\.weight in model\.safetensors is I32, not F32 or BF16"):
        Checkpoint.open(written[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_weights(written: tuple[Path, dict[str, Tensor]], value: float) -> None:
    folder, _ = written
    stored = Checkpoint.open(folder).tensors["layers.1.experts.down_proj"]
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[stored.start + 40 : stored.start + 44] = torch.tensor(value).numpy().tobytes()
    (folder / "model.safetensors").write_bytes(content)
    checkpoint = Checkpoint.open(folder)
    with pytest.raises(ValueError, match=r"model\.decoder\.layers\.1\.experts\.down_proj .* holds NaN or infinite"):
        checkpoint.load()
    assert not all_finite(load_file(folder / "model.safetensors")[stored.name])


def test_what_float16_cannot_hold(written: tuple[Path, dict[str, Tensor]]) -> None:
    folder, state = written
    save_checkpoint(folder, tiny_config(), state | {"norm.weight": torch.full((48,), 1e5)})
    with pytest.raises(ValueError, match="its values are too large for float16: use bfloat16"):
        Checkpoint.open(folder).load(torch.float16)


def test_a_file_that_changes_after_open(written: tuple[Path, dict[str, Tensor]]) -> None:
    folder, _ = written
    checkpoint = Checkpoint.open(folder)
    write_tiny(folder, seed=1)
    with pytest.raises(ValueError, match="has changed since it was opened"):
        checkpoint.load()


def test_no_weights_and_pickles(tmp_path: Path, written: tuple[Path, dict[str, Tensor]]) -> None:
    folder, _ = written
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="has neither"):
        Checkpoint.open(folder)
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is not read: convert it to safetensors"):
        Checkpoint.open(folder)
    with pytest.raises(ValueError, match=r"has no config\.json"):
        Checkpoint.open(tmp_path / "nowhere")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    config = tiny_config()
    save_checkpoint(tmp_path / "sharded", config, weights(config), max_shard_bytes=100_000)
    return tmp_path / "sharded"


def test_shards(sharded: Path, written: tuple[Path, dict[str, Tensor]]) -> None:
    shards = sorted(sharded.glob("*.safetensors"))
    assert len(shards) > 3
    assert shards[0].name == f"model-00001-of-{len(shards):05d}.safetensors"
    assert all(path.stat().st_size < 120_000 for path in shards)
    index = read_json(sharded / "model.safetensors.index.json")
    assert index["metadata"]["total_size"] == Checkpoint.open(sharded).num_bytes
    loaded = Checkpoint.open(sharded).load()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in written[1].items())


def _outside(name: str) -> Callable[[Path, dict[str, str]], None]:
    def change(folder: Path, weight_map: dict[str, str]) -> None:
        shutil.copy(folder / next(iter(weight_map.values())), folder.parent / "outside.safetensors")
        weight_map[next(iter(weight_map))] = name.replace("$", str(folder.parent))

    return change


def _moved(_: Path, weight_map: dict[str, str]) -> None:
    files = sorted(set(weight_map.values()))
    name = next(name for name, file in weight_map.items() if file == files[0])
    weight_map[name] = files[1]


def _invented(_: Path, weight_map: dict[str, str]) -> None:
    weight_map["model.decoder.more"] = next(iter(weight_map.values()))


def _without_file(folder: Path, weight_map: dict[str, str]) -> None:
    (folder / next(iter(weight_map.values()))).unlink()


def _unlisted(_: Path, weight_map: dict[str, str]) -> None:
    weight_map.pop("model.decoder.norm.weight")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_outside("../outside.safetensors"), "must be a .safetensors file beside it"),
        (_outside("$/outside.safetensors"), "must be a .safetensors file beside it"),
        (_outside("..\\outside.safetensors"), "must be a .safetensors file beside it"),
        (_outside(".."), "must be a .safetensors file beside it"),
        (_outside(""), "must be a .safetensors file beside it"),
        (_outside("model.bin"), "must be a .safetensors file beside it"),
        (_moved, "which the index puts in"),
        (_invented, "not in the file that the index names"),
        (_without_file, "is missing"),
        (_unlisted, "which the index puts in None"),
    ],
)
def test_an_index_that_lies(sharded: Path, change: Callable[[Path, dict[str, str]], None], reason: str) -> None:
    path = sharded / "model.safetensors.index.json"
    weight_map = read_json(path)["weight_map"]
    change(sharded, weight_map)
    edit_json(path, weight_map=weight_map)
    with pytest.raises(ValueError, match=reason):
        Checkpoint.open(sharded)


@pytest.mark.parametrize("weight_map", [None, {}, [], {"a": 3}])
def test_an_index_of_another_form(sharded: Path, weight_map: object) -> None:
    edit_json(sharded / "model.safetensors.index.json", weight_map=weight_map)
    with pytest.raises(ValueError, match=r"index\.json"):
        Checkpoint.open(sharded)


def test_two_checkpoints_in_one_folder(sharded: Path, written: tuple[Path, dict[str, Tensor]]) -> None:
    shutil.copy(written[0] / "model.safetensors", sharded)
    with pytest.raises(ValueError, match="has both"):
        Checkpoint.open(sharded)


WATCHED_LOAD = """
import sys
from pathlib import Path
import torch
from redraft.weights import checkpoint
from redraft.weights.checkpoint import Checkpoint

def anonymous_bytes():
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024

def watched(tensor):
    peaks.append(anonymous_bytes())
    return all_finite(tensor)

opened, peaks, all_finite = Checkpoint.open(sys.argv[1]), [], checkpoint.all_finite
checkpoint.all_finite = watched
torch.ones(2).bfloat16().isfinite()  # what torch allocates once
before = anonymous_bytes()
sizes = [tensor.numel() * tensor.element_size() for tensor in opened.load(torch.bfloat16).values()]
print(max(peaks) - before, sum(sizes), max(sizes))
"""


def test_memory_peaks_at_the_result_plus_one_tensor(tmp_path: Path) -> None:
    config = tiny_config(num_experts=64, expert_size=256, layer_types=("full_attention",) * 8)
    save_checkpoint(tmp_path, config, weights(config))
    # In a process whose allocator returns freed blocks at once, so that what other tests left does not count.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", WATCHED_LOAD, str(tmp_path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    peak, result, largest = map(int, ended.stdout.split())
    assert result > 30 * 2**20
    assert peak < result + largest + 2 * 2**20


def test_vision_tensors_are_kept_apart(written: tuple[Path, dict[str, Tensor]]) -> None:
    add_tensor(written[0] / "model.safetensors", VISION_NAME, bytes(5), "I8", (5,))
    checkpoint = Checkpoint.open(written[0])
    assert set(checkpoint.unused) == {VISION_NAME}
    assert VISION_NAME not in checkpoint.tensors
