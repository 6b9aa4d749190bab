"""What memory is free, from files as the kernel writes them, and what loading takes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from redraft.weights import memory
from redraft.weights.checkpoint import Checkpoint
from redraft.weights.memory import available_memory, check_fits, loading_bytes, machine_memory
from redraft.weights.quantize import quantize_checkpoint
from redraft.weights.save import save_checkpoint
from redraft.weights.sizes import precision_bytes
from tests.weights.support import tiny_config, weights

GIB = 2**30


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says what the kernel's files hold; those not named are not there."""

    def write(**files: str) -> None:
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
        monkeypatch.setattr(memory, "CGROUPS", tmp_path / "groups")
        monkeypatch.setattr(memory, "CGROUP_ROOT", tmp_path / "root")

    return write


def test_this_machine() -> None:
    found = machine_memory()
    assert 2**28 < found.available <= found.total < 2**50


def test_what_the_kernel_says(kernel: Callable[..., None]) -> None:
    kernel(meminfo="MemTotal: 20971520 kB\nMemAvailable: 10485760 kB\n")
    assert available_memory() == 10 * GIB


def test_a_control_group_has_less(kernel: Callable[..., None]) -> None:
    kernel(
        meminfo="MemAvailable: 10485760 kB\n",
        groups="0::/a/b\n",
        root__a__memory_max=f"{4 * GIB}\n",
        root__a__memory_current=f"{3 * GIB}\n",
        root__a__memory_stat=f"anon {2 * GIB}\nactive_file 0\ninactive_file {GIB}\n",
        root__a__b__memory_max="max\n",
        root__a__b__memory_current="7\n",
        root__a__b__memory_stat="anon 7\n",
    )
    assert available_memory() == 2 * GIB


def test_the_older_control_groups(kernel: Callable[..., None], tmp_path: Path) -> None:
    folder = tmp_path / "root" / "memory"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(f"{GIB}")
    (folder / "memory.usage_in_bytes").write_text("24")
    (folder / "memory.stat").write_text("cache 0\n")
    kernel(meminfo="MemAvailable: 10485760 kB\n", groups="3:cpu:/x\n2:memory:/of/the/host\n")
    assert available_memory() == GIB - 24
    (folder / "memory.stat").write_text("active_file 1\ninactive_file 1\ntotal_active_file 4\ntotal_inactive_file 6\n")
    assert available_memory() == GIB - 14
    (folder / "memory.limit_in_bytes").write_text("9223372036854771712")
    assert available_memory() == 10 * GIB


def test_where_nothing_is_known_nothing_is_checked(kernel: Callable[..., None]) -> None:
    kernel()
    assert available_memory() is None
    assert machine_memory().available == machine_memory().total
    memory.check_available(10**18, "this", "none")


def test_what_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(vocab_size=2000)
    save_checkpoint(tmp_path / "plain", config, weights(config))
    quantize_checkpoint(tmp_path / "plain", tmp_path / "int4", "int4")
    plain, small = Checkpoint.open(tmp_path / "plain"), Checkpoint.open(tmp_path / "int4")
    needed = loading_bytes(plain, "float32")
    assert precision_bytes(config, "float32") < needed < precision_bytes(config, "float32") + 80e6
    monkeypatch.setattr(memory, "available_memory", lambda: needed)
    check_fits(plain, "float32")
    monkeypatch.setattr(memory, "available_memory", lambda: needed - 1)
    with pytest.raises(
        ValueError, match=r"plain in float32 needs 0\.\d\d GB.* choose a precision of fewer bits; quantizing"
    ):
        check_fits(plain, "float32")
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    with pytest.raises(ValueError, match=r"plain in int4-weight-only needs .* free: quantizing it to int8 or int4"):
        check_fits(plain, "int4-weight-only")
    with pytest.raises(ValueError, match=r"int4 in int4-weight-only needs .*: free some memory"):
        check_fits(small, "int4-weight-only")


def test_what_is_converted_is_there_twice_for_a_while(tmp_path: Path) -> None:
    config = tiny_config(num_experts=64)
    save_checkpoint(tmp_path / "float32", config, weights(config))
    save_checkpoint(tmp_path / "bf16", config, weights(config), dtype=torch.bfloat16)
    mapped, converted = (
        loading_bytes(Checkpoint.open(tmp_path / name), "int4-weight-only") for name in ("bf16", "float32")
    )
    assert converted - mapped > precision_bytes(config, "bf16") - precision_bytes(config, "int4-weight-only")
