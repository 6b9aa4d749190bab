import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from redraft.text.trust.calibration import TRUST_FILE
from redraft.weights.checkpoint import Checkpoint, load_model
from redraft.weights.config.file import read_config, read_generation_config
from redraft.weights.quantize import quantize_checkpoint
from redraft.weights.save import COMPANION_FILES, save_checkpoint
from redraft.weights.storage.publish import SAVED, SAVING, staged
from tests.weights.support import (
    VISION_NAME,
    add_tensor,
    edit_json,
    read_json,
    split_file,
    tiny_config,
    weights,
    write_tiny,
)

BYTES = bytes(range(200, 240))


@pytest.fixture
def source(tmp_path: Path) -> Checkpoint:
    """A checkpoint with everything around it that a real one has."""
    folder = tmp_path / "source"
    write_tiny(folder)
    add_tensor(folder / "model.safetensors", VISION_NAME, BYTES, "F8_E4M3", (5, 8))
    edit_json(folder / "config.json", vision_config={"hidden_size": 5}, dtype="float32", image_token_id=9)
    (folder / "generation_config.json").write_text('{"t_max": 0.8,   "eos_token_id": [1, 7], "bos_token_id": null}')
    (folder / "tokenizer.json").write_text('{"any": "thing"}')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "code.py").write_text("raise SystemExit")
    return Checkpoint.open(folder)


def same(folder: Path, state: dict[str, Tensor]) -> bool:
    loaded = Checkpoint.open(folder).load()
    return all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("max_shard_bytes", [10**9, 50_000, 1])
def test_what_is_not_used_passes_through(source: Checkpoint, tmp_path: Path, max_shard_bytes: int) -> None:
    state = weights(tiny_config(), seed=3)
    folder = tmp_path / "new" / "er"
    save_checkpoint(folder, tiny_config(), state, source=source, max_shard_bytes=max_shard_bytes)
    assert same(folder, state)
    stored = Checkpoint.open(folder).unused[VISION_NAME]
    assert (stored.dtype, stored.shape) == ("F8_E4M3", (5, 8))
    assert stored.file.read_bytes()[stored.start : stored.start + stored.num_bytes] == BYTES
    for name in ("generation_config.json", "tokenizer.json", "chat_template.jinja"):
        assert (folder / name).read_bytes() == (source.folder / name).read_bytes()
    assert not (folder / "code.py").exists()
    config = read_json(folder / "config.json")
    assert config["vision_config"] == {"hidden_size": 5}
    assert config["image_token_id"] == 9
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_every_companion_file_is_kept(source: Checkpoint, tmp_path: Path) -> None:
    for name in COMPANION_FILES:
        if not (source.folder / name).exists():
            (source.folder / name).write_text(name)
    save_checkpoint(tmp_path / "saved", source.config, source.load(), source=source)
    quantize_checkpoint(source.folder, tmp_path / "quantized", "int8")
    for folder in (tmp_path / "saved", tmp_path / "quantized"):
        for name in COMPANION_FILES:
            assert (folder / name).read_bytes() == (source.folder / name).read_bytes()


def test_the_file_is_as_the_library_would_have_it(tmp_path: Path) -> None:
    state = weights(tiny_config()) | {"norm.weight": torch.ones(96, dtype=torch.bfloat16)[::2]}
    save_checkpoint(tmp_path, tiny_config(), state)
    path = tmp_path / "model.safetensors"
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert torch.equal(file.get_tensor("model.decoder.norm.weight"), state["norm.weight"])
        assert torch.equal(file.get_tensor("model.decoder.embed_tokens.weight"), state["embed_tokens.weight"])
    header, _ = split_file(path)
    length = path.stat().st_size - header["model.decoder.norm.weight"]["data_offsets"][1]
    assert length % 8 == 0


def test_dtype_is_converted_and_said(source: Checkpoint, tmp_path: Path) -> None:
    state = weights(tiny_config())
    save_checkpoint(tmp_path / "new", tiny_config(), state, source=source, dtype=torch.bfloat16)
    checkpoint = Checkpoint.open(tmp_path / "new")
    assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {"BF16"}
    assert read_json(tmp_path / "new" / "config.json")["dtype"] == "bfloat16"
    assert same(tmp_path / "new", {name: tensor.bfloat16() for name, tensor in state.items()})


def test_matrices_may_be_kept_in_floats_of_8_bits(source: Checkpoint, tmp_path: Path) -> None:
    state = {name: tensor.bfloat16() for name, tensor in weights(tiny_config()).items()}
    short = "layers.0.mlp.gate_proj.weight"
    state[short] = state[short].to(torch.float8_e4m3fn)
    save_checkpoint(tmp_path / "new", tiny_config(), state, source=source)
    checkpoint = Checkpoint.open(tmp_path / "new")
    assert checkpoint.tensors[short].dtype == "F8_E4M3"
    assert checkpoint.tensors[short].num_bytes == state[short].numel()
    assert read_json(tmp_path / "new" / "config.json")["dtype"] == "bfloat16"
    # Loaded they are what holds all their values, or what was asked for.
    for asked, found in ((None, torch.bfloat16), (torch.float32, torch.float32)):
        tensor = checkpoint.load(asked)[short]
        assert tensor.dtype == found
        assert torch.equal(tensor, state[short].to(found))
    model = load_model(checkpoint, torch.float32)
    assert model.get_parameter(short).dtype == torch.float32
    state[short] = torch.full(state[short].shape, float("nan")).to(torch.float8_e4m3fn)
    with pytest.raises(ValueError, match=r"gate_proj\.weight holds NaN"):
        save_checkpoint(tmp_path / "new", tiny_config(), state)


def test_new_token_ids_reach_every_file_that_says_them(source: Checkpoint, tmp_path: Path) -> None:
    config = tiny_config(eos_ids=(5,), bos_id=4)
    save_checkpoint(tmp_path / "new", config, weights(config), source=source)
    assert read_config(tmp_path / "new") == config
    assert read_generation_config(tmp_path / "new") == {"t_max": 0.8, "eos_token_id": 5, "bos_token_id": None}


def test_in_place_over_its_own_source(source: Checkpoint) -> None:
    state = source.load()
    state["norm.weight"] = state["norm.weight"] + 1
    (source.folder / "notes.txt").write_text("mine")
    save_checkpoint(source.folder, source.config, state, source=source, max_shard_bytes=100_000)
    assert not (source.folder / "model.safetensors").exists()
    assert same(source.folder, state)
    assert (source.folder / "notes.txt").read_text() == "mine"
    shards = len(list(source.folder.glob("*.safetensors")))
    save_checkpoint(source.folder, source.config, state, source=Checkpoint.open(source.folder), max_shard_bytes=150_000)
    assert 1 < len(list(source.folder.glob("*.safetensors"))) < shards
    save_checkpoint(source.folder, source.config, state, source=Checkpoint.open(source.folder))
    assert [path.name for path in source.folder.glob("model*")] == ["model.safetensors"]
    assert same(source.folder, state)
    assert set(Checkpoint.open(source.folder).unused) == {VISION_NAME}


def test_without_a_source_what_lies_in_the_folder_stays(source: Checkpoint) -> None:
    """But not the calibration of the weights that it had."""
    config = tiny_config(eos_ids=(3,))
    (source.folder / TRUST_FILE).write_text("{}")
    save_checkpoint(source.folder, config, weights(config))
    assert (source.folder / "tokenizer.json").exists()
    assert not (source.folder / TRUST_FILE).exists()
    assert read_config(source.folder) == config
    assert not Checkpoint.open(source.folder).unused


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state.pop("norm.weight"), "lacks norm.weight"),
        (lambda state: state.update({"aaa": torch.ones(1)}), "has unknown aaa"),
        (
            lambda state: state.update({"norm.weight": torch.ones(47)}),
            r"norm.weight is \[47\], the config requires \[48\]",
        ),
        (
            lambda state: state.update({"norm.weight": torch.ones(48).long()}),
            "use float32, bfloat16, float16 or float8_e4m3fn",
        ),
        (lambda state: state.update({"norm.weight": torch.ones(48, device="meta")}), "no data to save"),
        (lambda state: state.update({"norm.weight": torch.full((48,), float("nan"))}), "norm.weight holds NaN"),
    ],
)
def test_a_state_that_does_not_fit_leaves_everything_as_it_was(
    source: Checkpoint, tmp_path: Path, change: Callable[[dict[str, Tensor]], object], reason: str
) -> None:
    before = source.load()
    state = weights(tiny_config(), seed=1)
    change(state)
    for folder in (source.folder, tmp_path / "new"):
        with pytest.raises(ValueError, match=reason):
            save_checkpoint(folder, tiny_config(), state)
    assert not (tmp_path / "new").exists()
    assert not (source.folder / SAVING).exists()
    assert same(source.folder, before)


def test_other_refusals(tmp_path: Path) -> None:
    state = weights(tiny_config())
    with pytest.raises(ValueError, match="max_shard_bytes is 0"):
        save_checkpoint(tmp_path, tiny_config(), state, max_shard_bytes=0)
    with pytest.raises(ValueError, match=r"norm\.weight holds NaN or infinite values as torch\.float16"):
        save_checkpoint(tmp_path, tiny_config(), state | {"norm.weight": torch.full((48,), 1e5)}, dtype=torch.float16)
    with pytest.raises(ValueError, match="read back differently"):
        save_checkpoint(tmp_path, tiny_config(eos_ids=(1, 1)), state)


def test_a_source_that_changed_is_noticed(source: Checkpoint, tmp_path: Path) -> None:
    path = source.folder / "model.safetensors"
    shutil.copy(path, tmp_path / "copy")
    (tmp_path / "copy").replace(path)
    with pytest.raises(ValueError, match="has changed since it was opened"):
        save_checkpoint(tmp_path / "new", tiny_config(), weights(tiny_config()), source=source)


def test_two_saves_at_once(tmp_path: Path) -> None:
    with staged(tmp_path) as staging:
        (staging / "config.json").write_text("{}")
        with pytest.raises(ValueError, match=r"another save into .* is running"):
            save_checkpoint(tmp_path, tiny_config(), weights(tiny_config()))
    assert (tmp_path / "config.json").read_text() == "{}"


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, count: int) -> Iterator[list[bool]]:
    """Kills before the `count`-th change to the file system; the list gets an entry if it came to that."""
    happened: list[bool] = []
    calls = itertools.count()

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            if happened or next(calls) == count:
                happened.append(True)
                raise Killed
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for owner, name in (
            (Path, "rename"),
            (Path, "replace"),
            (Path, "unlink"),
            (Path, "mkdir"),
            (shutil, "rmtree"),
        ):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        patch.setattr("os.fsync", counted(lambda descriptor: None))
        with suppress(Killed):
            yield happened


@pytest.mark.parametrize(
    "sizes",
    [
        (10**9, 10**9),
        pytest.param((100_000, 10**9), marks=pytest.mark.slow),
        pytest.param((10**9, 100_000), marks=pytest.mark.slow),
        (100_000, 150_000),
    ],
)
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, int]
) -> None:
    # The two differ in a number of the config that no shape shows: a mix would load without an error.
    old_config, new_config = tiny_config(softcap=30.0), tiny_config(softcap=20.0)
    old, new = weights(old_config, 0), weights(new_config, 1)
    outcomes = []
    for count in itertools.count():
        folder = tmp_path / str(count)
        save_checkpoint(folder, old_config, old, max_shard_bytes=sizes[0])
        (folder / "generation_config.json").write_text("{}")
        with killed_at(monkeypatch, count) as happened:
            save_checkpoint(folder, new_config, new, max_shard_bytes=sizes[1])
        check_what_others_see(folder, old, new)
        is_new = Checkpoint.open(folder).config == new_config
        assert Checkpoint.open(folder).config == (new_config if is_new else old_config)
        assert same(folder, new if is_new else old)
        outcomes.append(is_new)
        # And the next save finds nothing in its way.
        save_checkpoint(folder, old_config, old)
        assert same(folder, old)
        assert {path.name for path in folder.iterdir()} == {
            "config.json", "generation_config.json", "model.safetensors",
        }  # fmt: skip
        shutil.rmtree(folder)
        if not happened:
            break
    assert outcomes == sorted(outcomes), "first the old one stays, from the commit on it is the new one"
    assert 3 < sum(outcomes) < len(outcomes) - 3


def check_what_others_see(folder: Path, old: dict[str, Tensor], new: dict[str, Tensor]) -> None:
    """A program that does not know how we save finds no config.json, or one with the weights that belong to it."""
    if not (folder / "config.json").exists():
        return
    softcap = json.loads((folder / "config.json").read_text())["text_config"]["final_logit_softcapping"]
    expected = old if softcap == 30.0 else new
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    assert index.exists() != single.exists()
    files = set(read_json(index)["weight_map"].values()) if index.exists() else {single.name}
    found = 0
    for name in files:
        with safe_open(folder / name, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (not a dict)
                ours = key.removeprefix("model.decoder.")
                if ours in expected:
                    assert torch.equal(file.get_tensor(key), expected[ours])
                    found += 1
    assert found == len(expected) - len(tiny_config().layer_types)


def test_every_file_is_synced_before_the_commit(source: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[int] = set()
    rename = Path.rename

    def commit(path: Path, target: Path) -> Path:
        assert path.name == SAVING
        assert {one.name for one in path.iterdir() if one.stat().st_ino not in synced} == set()
        assert path.stat().st_ino in synced
        synced.clear()
        return rename(path, target)

    monkeypatch.setattr("os.fsync", lambda descriptor: synced.add(os.fstat(descriptor).st_ino))
    monkeypatch.setattr(Path, "rename", commit)
    save_checkpoint(source.folder, source.config, source.load(), source=source, max_shard_bytes=100_000)
    assert source.folder.stat().st_ino in synced


def test_a_kill_while_finishing_a_killed_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = weights(tiny_config(), 0), weights(tiny_config(), 1)
    save_checkpoint(tmp_path, tiny_config(), old, max_shard_bytes=100_000)
    moments = itertools.count()
    while not (tmp_path / SAVED).is_dir():
        with killed_at(monkeypatch, next(moments)):
            save_checkpoint(tmp_path, tiny_config(), new)
    for count in range(1, 30):
        with killed_at(monkeypatch, count) as happened:
            Checkpoint.open(tmp_path)
        if not happened:
            break
    assert same(tmp_path, new)
    assert not (tmp_path / SAVED).exists()


def test_a_save_that_overtakes_an_open_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path, softcap=30.0)
    new = weights(tiny_config(), 1)
    with monkeypatch.context() as patch:
        from redraft.weights import checkpoint

        read = checkpoint.read_header

        def overtaken(path: Path) -> object:
            save_checkpoint(tmp_path, tiny_config(softcap=20.0), new)
            return read(path)

        patch.setattr(checkpoint, "read_header", overtaken)
        with pytest.raises(ValueError, match=r"config\.json has changed"):
            Checkpoint.open(tmp_path)
    assert same(tmp_path, new)
