"""The tool that takes the mean of two checkpoints' weights."""

import importlib.util
from pathlib import Path

import pytest
import torch

from redraft.weights.checkpoint import Checkpoint
from tests.weights.support import write_tiny

TOOL = Path(__file__).parent.parent / "tools" / "mean.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("mean_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_weight_lies_between_those_of_the_two(tool, tmp_path):
    folders = [tmp_path / name for name in ("before", "after", "mean")]
    for seed, folder in enumerate(folders[:2]):
        write_tiny(folder, seed=seed)
    tool.write_mean(*folders, 0.25)
    before, after, mean = (Checkpoint.open(one).load(dtype=torch.float32) for one in folders)
    assert mean.keys() == after.keys()
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, 0.75 * before[name] + 0.25 * after[name], rtol=0.01, atol=0.01)
    assert Checkpoint.open(folders[2]).config == Checkpoint.open(folders[0]).config


def test_what_has_no_mean_is_refused(tool, tmp_path):
    write_tiny(tmp_path / "one")
    write_tiny(tmp_path / "other", vocab_size=40)
    with pytest.raises(ValueError, match="another configuration"):
        tool.write_mean(tmp_path / "one", tmp_path / "other", tmp_path / "out", 0.5)
    with pytest.raises(ValueError, match=r"the share is 1\.5, must lie"):
        tool.write_mean(tmp_path / "one", tmp_path / "one", tmp_path / "out", 1.5)
    assert not (tmp_path / "out").exists()
