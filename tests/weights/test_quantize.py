"""Quantized checkpoints: what is in them, that they load as what they were made from would, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from redraft.model.linear.quantized import is_quantized
from redraft.model.precision import Precision
from redraft.model.preparation import prepare
from redraft.weights.checkpoint import Checkpoint, load_model
from redraft.weights.quantize import TARGETS, quantize_checkpoint
from redraft.weights.save import save_checkpoint
from redraft.weights.storage.publish import SAVING
from tests.weights.support import (
    VISION_NAME,
    add_tensor,
    edit_json,
    join_file,
    read_json,
    split_file,
    tiny_config,
    weights,
    write_tiny,
)

BOTH = pytest.mark.parametrize("to", TARGETS)
FILE = "model.safetensors"
GATE = "model.decoder.layers.0.mlp.gate_proj.weight"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    write_tiny(folder)
    add_tensor(folder / FILE, VISION_NAME, b"abcdefgh")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "generation_config.json").write_text('{"t_max": 0.8}')
    edit_json(folder / "config.json", image_token_id=9)
    return folder


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_it_loads_as_its_source_does_in_that_precision(tmp_path: Path, to: str, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) for name, tensor in weights(tiny_config()).items()}
    save_checkpoint(tmp_path / "source", tiny_config(), state)
    quantize_checkpoint(tmp_path / "source", tmp_path / "new", to)
    for precision in (one.name for one in Precision.of_bits(TARGETS[to])):
        wanted, found = (
            prepare(load_model(tmp_path / name, Precision.named(precision).dtype), precision).state_dict()
            for name in ("source", "new")
        )
        assert found.keys() == wanted.keys()
        # Where the processor multiplies matrices by itself (AMX), some lie packed as torch's library has them.
        assert all(torch.equal(found[name].to_dense(), wanted[name].to_dense()) for name in wanted)


@BOTH
def test_what_is_in_it(source: Path, tmp_path: Path, to: str) -> None:
    quantize_checkpoint(source, tmp_path / "new", to)
    bits = TARGETS[to]
    config = read_json(tmp_path / "new" / "config.json")
    group = 64 if bits == 4 else None
    assert config["quantization_config"] == {"quant_method": "redraft", "bits": bits, "group_size": group}
    assert (config["image_token_id"], config["dtype"]) == (9, "bfloat16")
    assert read_json(tmp_path / "new" / "generation_config.json") == {"t_max": 0.8}
    assert (tmp_path / "new" / "tokenizer.json").read_text() == "{}"
    header, data = split_file(tmp_path / "new" / FILE)
    start, stop = header[VISION_NAME]["data_offsets"]
    assert data[start:stop] == b"abcdefgh"
    assert header[GATE]["dtype"] == {8: "I8", 4: "U8"}[bits]
    assert header[GATE]["shape"] == [64, {8: 48, 4: 32}[bits]]
    assert header[GATE + "_scale"]["dtype"] == {8: "F32", 4: "BF16"}[bits]
    assert header[GATE + "_scale"]["shape"] == [64] if bits == 8 else [64, 1]
    new = Checkpoint.open(tmp_path / "new")
    kept = [name for name in tiny_config().parameter_shapes() if not is_quantized(name)]
    assert {new.tensors[name].dtype for name in kept} == {"BF16"}
    assert len(new.tensors) == 2 * len(tiny_config().parameter_shapes()) - len(kept)


def test_values_stay_where_the_file_is_mapped(source: Path, tmp_path: Path) -> None:
    quantize_checkpoint(source, tmp_path / "new", "int4")
    model = prepare(load_model(tmp_path / "new", torch.bfloat16), "int4-weight-only")
    maps = Path("/proc/self/maps").read_text().splitlines()
    spans = [
        tuple(int(end, 16) for end in line.split()[0].split("-")) for line in maps if str(tmp_path / "new") in line
    ]
    values = [tensor for name, tensor in model.state_dict().items() if "experts" in name and name.endswith("values")]
    assert len(values) == 4 * 2 * 6
    assert all(any(low <= tensor.data_ptr() < high for low, high in spans) for tensor in values)


def test_progress_ends_with_all_of_it(source: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    quantize_checkpoint(source, tmp_path / "new", "int8", lambda done, total: told.append((done, total)))
    stored = Checkpoint.open(tmp_path / "new")
    assert told[-1] == (stored.num_bytes + 8, stored.num_bytes + 8)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_what_is_refused_before_anything_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize_checkpoint(source, tmp_path / "int8", "int8")
    new = tmp_path / "new"
    with pytest.raises(ValueError, match="to is 'int3', must be int8 or int4"):
        quantize_checkpoint(source, new, "int3")
    with pytest.raises(ValueError, match=r"int8 is quantized to 8 bits: .*use the checkpoint that it was made from"):
        quantize_checkpoint(tmp_path / "int8", new, "int4")
    with pytest.raises(ValueError, match=r"source is not empty, it holds config\.json: name a new folder"):
        quantize_checkpoint(source, source, "int4")
    with pytest.raises(ValueError, match=r"config\.json is a file"):
        quantize_checkpoint(source, source / "config.json", "int4")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000) if path == tmp_path else None)
    with pytest.raises(ValueError, match=r"new needs 0\.00 GB, but the disk has only 0\.00 GB free"):
        quantize_checkpoint(source, new, "int4")
    assert not new.exists()


def test_a_damaged_source_leaves_nothing(tmp_path: Path) -> None:
    state = weights(tiny_config())
    save_checkpoint(tmp_path / "source", tiny_config(), state)
    stored = Checkpoint.open(tmp_path / "source").tensors["layers.1.experts.down_proj"]
    content = bytearray((tmp_path / "source" / FILE).read_bytes())
    content[stored.start : stored.start + 4] = torch.tensor(float("nan")).numpy().tobytes()
    (tmp_path / "source" / FILE).write_bytes(content)
    with pytest.raises(ValueError, match=r"layers\.1\.experts\.down_proj holds NaN or infinite"):
        quantize_checkpoint(tmp_path / "source", tmp_path / "new", "int4")
    assert not (tmp_path / "new").exists()


def test_ctrl_c_leaves_nothing_and_what_a_kill_leaves_is_no_hindrance(source: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_checkpoint(source, tmp_path / "new", "int4", interrupt)
    assert not (tmp_path / "new").exists()
    (tmp_path / "new" / SAVING).mkdir(parents=True)
    (tmp_path / "new" / SAVING / FILE).write_bytes(b"half")
    quantize_checkpoint(source, tmp_path / "new", "int4")
    assert Checkpoint.open(tmp_path / "new").bits == 4


def test_what_a_killed_run_left_counts_as_free(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = tmp_path / "new"
    (new / SAVING).mkdir(parents=True)
    (new / SAVING / FILE).write_bytes(b"half" * 2**20)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    quantize_checkpoint(source, new, "int4")
    assert Checkpoint.open(new).bits == 4


def test_it_is_not_trained_or_saved(source: Path, tmp_path: Path) -> None:
    quantize_checkpoint(source, tmp_path / "new", "int8")
    with pytest.raises(ValueError, match="is quantized to 8 bits: it can be run, but not trained"):
        Checkpoint.open(tmp_path / "new").load()
    model = load_model(tmp_path / "new", torch.bfloat16)
    with pytest.raises(ValueError, match="stored in 8 bits, this precision needs them in 4"):
        prepare(model, "int4-weight-only")
    with pytest.raises(ValueError, match="stored in 8 bits, this precision needs them unquantized"):
        prepare(load_model(tmp_path / "new", torch.bfloat16), "bf16")


def change_entry(name: str, **changes: Any) -> Callable[[Path], None]:
    """Changes a tensor's entry in the header; its data may then no longer be what it says."""

    def change(folder: Path) -> None:
        header, data = split_file(folder / FILE)
        header[name] |= changes
        join_file(folder / FILE, header, data)

    return change


def rename_entry(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        header, data = split_file(folder / FILE)
        header[new] = header.pop(old)
        join_file(folder / FILE, header, data)

    return change


def cut(folder: Path) -> None:
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-1])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (rename_entry(GATE + "_scale", "model.encoder.vision_tower.x"), rf"lacks 1 tensor \({GATE}_scale\)"),
        (rename_entry(VISION_NAME, "model.decoder.norm.weight_scale"), "holds 1 tensor .*no place for"),
        (change_entry(GATE, shape=[32, 64]), rf"{GATE} in model\.safetensors is \[32, 64\], not \[64, 32\]"),
        (change_entry(GATE, dtype="I8"), rf"{GATE} in model\.safetensors is I8, not U8"),
        (change_entry(GATE + "_scale", dtype="F16"), rf"{GATE}_scale in model\.safetensors is F16, not BF16"),
        (change_entry(GATE + "_scale", shape=[1, 64]), r"_scale in model\.safetensors is \[1, 64\], not \[64, 1\]"),
        (cut, "truncated"),
        (lambda folder: edit_json(folder / "config.json", quantization_config=None), "holds 37 tensors"),
        (lambda folder: edit_json(folder / "config.json", quantization_config={"quant_method": "gptq"}), "'gptq'"),
    ],
)
def test_a_file_that_is_not_what_it_says(
    source: Path, tmp_path: Path, change: Callable[[Path], None], reason: str
) -> None:
    quantize_checkpoint(source, tmp_path / "new", "int4")
    change(tmp_path / "new")
    with pytest.raises(ValueError, match=reason):
        Checkpoint.open(tmp_path / "new")


def test_a_scale_that_is_not_finite(source: Path, tmp_path: Path) -> None:
    quantize_checkpoint(source, tmp_path / "new", "int4")
    stored = Checkpoint.open(tmp_path / "new").tensors["layers.0.mlp.gate_proj.weight_scale"]
    content = bytearray((tmp_path / "new" / FILE).read_bytes())
    content[stored.start : stored.start + 2] = b"\x80\x7f"
    (tmp_path / "new" / FILE).write_bytes(content)
    with pytest.raises(ValueError, match=r"gate_proj\.weight_scale \(BF16\) holds NaN or infinite"):
        load_model(tmp_path / "new", torch.bfloat16)
