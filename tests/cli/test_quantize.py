"""`redraft quantize` and what the other commands make of its result; `redraft bench memory`."""

import json
import signal
import subprocess
import sys
import time

import pytest

import redraft
from redraft.model.precision import PRECISIONS


@pytest.fixture(scope="module")
def quantized(checkpoint, tmp_path_factory):
    from redraft.weights.quantize import quantize_checkpoint

    folder = tmp_path_factory.mktemp("quantized")
    for to in ("int4", "int8"):
        quantize_checkpoint(checkpoint, folder / to, to)
    return folder


def test_the_command_writes_what_can_be_run(run, checkpoint, tmp_path):
    code, out, err = run("quantize", checkpoint, tmp_path / "new", "--to", "int4")
    assert code == 0, err
    assert out.startswith(f"{tmp_path / 'new'}: ")
    assert out.endswith(f"redraft generate --model {tmp_path / 'new'}\n")
    code, out, _ = run("generate", "hello", "-m", tmp_path / "new", "--seed", 3, "--json")
    assert (code, json.loads(out)["seed"]) == (0, 3)
    code, _, err = run("quantize", checkpoint, tmp_path / "new", "--to", "int8")
    assert (code, err.count("\n")) == (2, 1)
    assert "new is not empty" in err


@pytest.mark.parametrize(("bits", "precision"), [(one.weight_bits, one.name) for one in PRECISIONS if one.is_quantized])
def test_it_writes_what_its_source_writes_in_that_precision(checkpoint, quantized, bits, precision):
    wanted = redraft.load(checkpoint, precision=precision).generate("hello", seed=3)
    assert redraft.load(quantized / f"int{bits}", precision=precision).generate("hello", seed=3) == _but(wanted)


def _but(wanted):
    """Equal to a result that differs in what is measured and in the model's name only."""

    class Alike:
        def __eq__(self, found):
            return (found.text, found.generation.canvases) == (wanted.text, wanted.generation.canvases)

        __hash__ = None

    return Alike()


def test_auto_is_what_is_stored_and_nothing_else_is_given(run, quantized):
    four, eight = (redraft.load(quantized / to).transformer.layers[0].mlp.down for to in ("int4", "int8"))
    assert (type(four).__name__, four.bits) == ("WeightOnlyLinear", 4)
    assert type(eight).__name__ == "Int8Linear"
    for to, precision in (("int4", "float32"), ("int4", "int8"), ("int8", "bf16"), ("int8", "int4-weight-only")):
        code, out, err = run("generate", "hello", "-m", quantized / to, "--precision", precision)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"precision is '{precision}', but the matrices of {quantized / to} are stored in {to[3:]} bits" in err


def test_info_of_a_quantized_checkpoint(run, quantized):
    code, out, _ = run("info", quantized / "int4", "--json")
    facts = json.loads(out)
    assert (code, facts["quantized"]) == (0, "int4")
    assert facts["weight_bytes"].keys() == facts["fits"].keys() == {"int4"}
    # Header and the format's filling aside, what it says is what the file has.
    assert 0 < (quantized / "int4" / "model.safetensors").stat().st_size - facts["weight_bytes"]["int4"] < 20_000
    code, out, _ = run("info", quantized / "int8")
    assert code == 0
    assert "to int8; runs as int8 or int8-weight-only" in out


def test_what_memory_cannot_hold_is_refused_before_it_is_read(run, checkpoint, monkeypatch):
    monkeypatch.setattr("redraft.weights.memory.available_memory", lambda: 10_000)
    monkeypatch.setattr("redraft.loading.load_model", lambda *_, **__: pytest.fail("read"))
    code, out, err = run("generate", "hello", "-m", checkpoint)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "GB are free: choose a precision of fewer bits; quantizing it to int8 or int4 makes a smaller" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("quantize", "bundled", "new", "--to", "int3"), "to is 'int3', must be int8 or int4"),
        (("quantize", "nowhere", "new", "--to", "int4"), "there is no folder 'nowhere'"),
        (("quantize", "bundled", "new"), "Missing option '--to'"),
        (("bench", "memory", "bundled", "--to", "bf16"), "to is 'bf16', must be int8 or int4"),
        (("bench", "memory", "bundled", "--steps", 0), "--steps is 0, must be at least 1"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"redraft: {message}")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(tmp_path):
    # Writing is slowed down, so that there is a middle to interrupt.
    code = """
import sys, time
from redraft.model.linear.quantized import QuantizedMatrix
quantize = QuantizedMatrix.of
QuantizedMatrix.of = lambda *a: (time.sleep(0.2), quantize(*a))[1]
from redraft.cli.main import main
main()
"""
    command = [sys.executable, "-c", code, "quantize", "bundled", str(tmp_path / "new"), "--to", "int4"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "new" / ".saving" / "model.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("redraft: interrupted\n")
    assert not (tmp_path / "new").exists()


def test_a_bench_reads_a_quantized_checkpoint_in_its_precision_or_refuses(run, quantized):
    asked = ("bench", "step", "--config", quantized / "int8", "--context", 5, "--rounds", 1, "--json")
    code, out, err = run(*asked, "--precision", "int8")
    assert (code, json.loads(out)["precision"]) == (0, "int8")
    for more in ((), ("--precision", "int4-weight-only")):
        code, out, err = run(*asked, *more)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "int8 are stored in 8 bits: what was rounded away does not come back. Take int8 or int8-we" in err
    pytest.importorskip("transformers")
    asked = ("bench", "compare", "--with", "transformers", "--config", quantized / "int8", "--precision", "int8")
    code, out, err = run(*asked, "--context", 5, "--rounds", 1)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "int8 is quantized to 8 bits: it can be run, but not trained, saved" in err


def test_a_bench_refuses_what_memory_cannot_hold(run, checkpoint, monkeypatch):
    monkeypatch.setattr("redraft.weights.memory.available_memory", lambda: 10_000)
    monkeypatch.setattr("redraft.benchmark.models.load_model", lambda *_, **__: pytest.fail("read"))
    monkeypatch.setattr("redraft.weights.synthetic.write_synthetic", lambda *_: pytest.fail("written"))
    for asked in (("step", "--config", checkpoint, "--context", 5), ("memory", "26b-a4b")):
        code, out, err = run("bench", *asked)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "but only 0.00 GB are free" in err


@pytest.mark.parametrize(("code", "said"), [(-9, ""), (1, "RuntimeError: can't allocate memory: you tried")])
def test_bench_memory_says_that_it_did_not_suffice(run, checkpoint, monkeypatch, code, said):
    killed = subprocess.CompletedProcess([], code, "", said)
    monkeypatch.setattr("redraft.benchmark.memory.subprocess.run", lambda *_, **__: killed)
    code, out, err = run("bench", "memory", checkpoint)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "memory" in err


def test_bench_memory_measures_and_keeps(run, checkpoint, tmp_path):
    keys = {
        "peak_resident", "peak_anonymous", "load_seconds", "seconds_per_step", "file_bytes", "machine",
    }  # fmt: skip
    for more in ((), ("--json",)):
        code, out, err = run("bench", "memory", checkpoint, "--folder", tmp_path / "kept", "--steps", 2, *more)
        assert code == 0, err
        assert bool(more) == (err == "")
        found = json.loads(out)
        assert found.keys() >= keys
        assert (found["bench"], found["machine"].keys() >= {"processor", "threads", "torch"}) == ("memory", True)
        assert found["peak_resident"] > found["peak_anonymous"] > 10**7
    assert found["file_bytes"] == (tmp_path / "kept" / "model.safetensors").stat().st_size
    code, _, err = run("bench", "memory", checkpoint, "--folder", tmp_path / "kept", "--to", "int8")
    assert code == 2
    assert "holds another checkpoint" in err
