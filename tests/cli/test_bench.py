"""`redraft bench`: each command's one JSON line, and what is refused before anything is measured."""

import importlib.util
import json

import pytest


def line(out: str) -> dict[str, object]:
    """Standard output as the one JSON line that it must be."""
    assert out.count("\n") == 1
    return json.loads(out)


def test_step(run, checkpoint):
    asked = ("bench", "step", "--config", checkpoint, "--batch", 2, "--context", 5, "--rounds", 2)
    code, out, err = run(*asked, "--precision", "int8")
    found = line(out)
    assert code == 0
    assert "attention" in err
    assert found["ms"].keys() == {"attention", "dense", "experts", "readout", "sampler", "overhead", "step"}
    assert found["ms"]["step"]["count"] == found["share_of_ceiling"]["count"] == 2
    assert (found["batch"], found["precision"], found["canvas_length"]) == (2, "int8", 8)
    assert found["machine"]["threads"] == 1
    code, out, err = run(*asked, "--json")
    assert (code, err) == (0, "")
    assert line(out)["precision"] == "bf16"


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_compare_with_transformers(run, checkpoint):
    asked = ("bench", "compare", "--config", checkpoint, "--context", 5, "--rounds", 1)
    code, out, err = run(*asked, "--with", "transformers", "--json")
    found = line(out)
    assert (code, err) == (0, "")
    assert found["ratio"]["median"] == pytest.approx(found["peer_ms"]["median"] / found["ms"]["median"], rel=1e-3)
    assert found["peer"]["dtype"] == "bfloat16"
    code, out, err = run(*asked, "--precision", "float32")
    assert code == 0
    assert "transformers" in err
    assert line(out)["peer"]["dtype"] == "float32"


def test_compare_with_token_by_token(run, checkpoint):
    asked = ("bench", "compare", "--with", "autoregressive", "--config", checkpoint, "--context", 5, "--rounds", 1)
    code, out, err = run(*asked, "--batch", 2, "--steps", 3)
    found = line(out)
    assert code == 0
    assert "token by token" in err
    ms = {name: one["median"] / 1000 for name, one in found["ms"].items()}
    assert found["tokens_per_second"]["autoregressive"] == pytest.approx(2 / ms["token"], rel=1e-3)
    assert found["tokens_per_second"]["diffusion"] == pytest.approx(16 / (3 * ms["step"] + ms["commit"]), rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("step", "--config", "no-such"), "no-such"),
        (("step", "--precision", "fp4"), "precision is 'fp4', must be float32, bf16"),
        (("step", "--batch", 0), "batch is 0, must be at least 1"),
        (("step", "--rounds", 0), "--rounds is 0, must be at least 1"),
        (("step", "--config", "a", "--context", 32_768), "context is 32768, must lie between 0 and 32704"),
        (("compare", "--with", "vllm"), "--with is 'vllm', must be one of transformers, autoregressive"),
        (("compare", "--context", 0), "--context is 0, must be at least 1"),
    ],
)
def test_bad_numbers_are_refused_before_anything_is_loaded(run, monkeypatch, arguments, message):
    monkeypatch.setattr("redraft.measure.shapes.subject", lambda *_: pytest.fail("loaded"))
    code, out, err = run("bench", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_missing_peer_is_named(run, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "transformers" else find_spec(name, *more)
    )
    code, _, err = run("bench", "compare", "--with", "transformers")
    assert (code, err) == (2, "redraft: this needs transformers: pip install 'redraft[compare]'\n")
