"""`redraft info ADAPTER` and `redraft merge`."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import redraft
from redraft.weights.adapters.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from redraft.weights.quantize import quantize_checkpoint
from tests.fakes.adapters import adapter_folder
from tests.fakes.checkpoints import tiny_checkpoint


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "base")


@pytest.fixture
def adapter(tmp_path: Path, base: Path) -> Path:
    folder = adapter_folder(tmp_path / "mails", base, 0, targets=("q_proj", "experts"))
    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": str(base)}))
    return folder


def test_info_describes_an_adapter(run, base, adapter, tmp_path):
    code, out, _ = run("info", adapter, "--json")
    facts = json.loads(out)
    assert code == 0
    assert (facts["base"], facts["rank"], facts["alpha"], facts["base_is_known"]) == (str(base), 4, 4, True)
    assert set(facts["targets"]) == {"self_attn.q_proj", "experts.gate_up_proj", "experts.down_proj"}
    assert facts["parameters"] < facts["of_weights"]
    assert "both alike" in run("info", adapter)[1]
    other = tiny_checkpoint(tmp_path / "other", seed=1)
    code, _, err = run("info", adapter, "--base", other)
    assert code == 2
    assert f"{adapter} was trained on another base than {other}: {base}, with fingerprint" in err
    shape = tiny_checkpoint(tmp_path / "shape", expert_size=24)
    assert "the adapter belongs to a model of another shape" in run("info", adapter, "--base", shape)[2]
    assert (
        run("info", base, "--base", base)[2] == f"redraft: --base is for adapters, and {base} is none; leave it out\n"
    )


def test_a_merged_checkpoint_answers_as_the_adapter_does(run, base, adapter, tmp_path):
    code, out, _ = run("merge", adapter, tmp_path / "merged", "--base", base)
    assert (code, out.startswith(f"{tmp_path / 'merged'}: ")) == (0, True)
    adapted, merged = redraft.load(base).load_adapter(adapter), redraft.load(tmp_path / "merged")
    for seed in range(5):
        assert merged.generate("hello", seed=seed).token_ids == adapted.generate("hello", seed=seed).token_ids
    code, _, err = run("merge", adapter, tmp_path / "merged", "--base", base)
    assert (code, "is not empty" in err) == (2, True)


def test_what_cannot_be_merged(run, base, adapter, tmp_path):
    quantize_checkpoint(base, tmp_path / "small", "int8")
    assert "is quantized to 8 bits" in run("merge", adapter, tmp_path / "a", "--base", tmp_path / "small")[2]
    tensors = load_file(adapter / ADAPTER_WEIGHTS)
    name = next(one for one in tensors if "encoder" in one and "lora_B" in one)
    save_file(tensors | {name: torch.zeros_like(tensors[name])}, adapter / ADAPTER_WEIGHTS)
    assert "in different ways: the two share their matrices" in run("merge", adapter, tmp_path / "a", "--base", base)[2]
    assert not (tmp_path / "a").exists()


def test_an_adapter_that_is_not_there_is_told_of_as_one(run, base):
    code, _, err = run("generate", "hi", "--model", base, "--adapter", "nosuch")
    assert (code, "name the folder of an adapter" in err, "bundled" in err) == (2, True, False)
