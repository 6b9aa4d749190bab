"""`redraft bench`: each command's one JSON line, and what is refused before anything is measured."""

import importlib.util
import json
import time

import pytest

import redraft.cli.bench.batch as bench_batch
from redraft.benchmark.timing import Comparison, Spread
from redraft.cli.bench.plan import table_of


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


def test_step_beside_neighbours(run, checkpoint):
    code, out, _ = run("bench", "step", "--config", checkpoint, "--context", 5, "--rounds", 2, "--neighbours", 1)
    found = line(out)
    assert (code, found["neighbours"], found["share_of_quiet_speed"]["count"]) == (0, 1, 2)
    code, out, err = run("bench", "step", "--neighbours", -1)
    assert (code, out) == (2, "")
    assert "--neighbours is -1, must be at least 0" in err


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


def test_load_on_our_engine(run, checkpoint):
    asked = ("bench", "load", "-m", checkpoint, "--requests", 5, "--words", "2-9", "--steps", 2)
    for loop in (("--concurrency", 3), ("--rate", 500)):
        start = time.perf_counter()
        code, out, err = run(*asked, *loop)
        taken = time.perf_counter() - start
        found = line(out)
        # From the command's start, its imports and the loading of the model included.
        assert found["seconds"] < found["process"]["seconds"] < taken
        assert code == 0
        assert "canvas steps/s" in err
        assert "_" not in err
        assert (found["requests"], found["answered"], found["failed"]) == (5, 5, {})
        assert found["first_canvas_ms"]["p50"] <= found["answer_ms"]["p50"]
        assert found["process"]["tokens_per_second"] <= found["tokens_per_second"]
    assert (found["rate"], found["prompts"], found["settings"]) == (500, "2-9 words", {"steps": 2, "seed": 0})


def test_load_where_some_fail_and_where_all_do(run, checkpoint):
    asked = ("bench", "load", "-m", checkpoint, "--json", "--requests", 16, "--max-new-tokens", 8, "--steps", 1)
    code, out, err = run(*asked, "--words", "2-120")
    found = line(out)
    assert code == 0
    assert found["answered"] + found["failed"]["ValueError"] == 16
    assert "failed, ValueError: the prompt has" in err
    code, out, err = run(*asked, "--words", 300)
    assert (code, out) == (2, "")
    assert "none of 16 requests was answered: ValueError (16): the prompt has" in err


def test_a_job_beside_its_engine(run, checkpoint):
    asked = ("bench", "batch", "-m", checkpoint, "--rows", 6, "--rounds", 1, "--words", 5, "--max-new-tokens", 8)
    code, out, err = run(*asked, "--steps", 2)
    found = line(out)
    assert code == 0
    assert "rows/s" in err
    rates = {name: one["median"] for name, one in found["rows_per_second"].items()}
    assert found["ratio"]["median"] == pytest.approx(rates["job"] / rates["engine"], rel=1e-2)


def test_a_long_job_repeats_the_prompts_and_is_measured_once(run, monkeypatch):
    taken = []

    def measure(_, prompts, __, *, rounds):
        taken.append((len(prompts), len(set(prompts)), rounds))
        return Comparison(*[Spread.of([1.0])] * 3), 1

    monkeypatch.setattr(bench_batch, "measure_batch", measure)
    for rows in (10_000, 4):
        assert run("bench", "batch", "--rows", rows)[0] == 0
    assert taken == [(10_000, 500, 1), (4, 4, 3)]


def test_load_against_the_step(run, checkpoint):
    asked = ("bench", "load", "--against-step", "-m", checkpoint, "--words", "2-9", "--concurrency", 2)
    code, out, err = run(*asked, "--seconds", 0.1, "--rounds", 2)
    found = line(out)
    assert code == 0
    assert "bare step" in err
    assert found["ratio"]["count"] == 2
    assert found["canvas_steps_per_second"]["engine"]["median"] > 0


def test_load_in_a_mode(run, checkpoint):
    asked = ("bench", "load", "-m", checkpoint, "--words", "2-9", "--requests", 4, "--max-new-tokens", 8)
    found = line(run(*asked, "--mode", "autoregressive")[1])
    assert found["settings"] == {"seed": 0, "max_new_tokens": 8, "mode": "autoregressive"}
    assert found["answered"] == 4


def test_load_against_the_server(run, checkpoint):
    asked = ("bench", "load", "--against-server", "-m", checkpoint, "--words", "2-9", "--concurrency", 2)
    # Both write the same number of tokens, or it fails.
    code, out, err = run(*asked, "--requests", 4, "--rounds", 2, "--mode", "verified", "--max-new-tokens", 8)
    found = line(out)
    assert code == 0
    assert "server" in err
    assert found["ratio"]["count"] == 2
    assert found["answer_tokens"] <= 32
    assert found["tokens_per_second"]["server"]["median"] > 0
    assert found["settings"] == {"seed": 0, "max_new_tokens": 8, "mode": "verified"}


def test_load_beside_a_batch(run, checkpoint):
    asked = ("bench", "load", "--beside-batch", "-m", checkpoint, "--words", "2-9")
    code, out, err = run(*asked, "--requests", 3, "--rounds", 1, "--steps", 2, "--max-new-tokens", 8)
    found = line(out)
    assert code == 0
    assert "1 request at a time, beside a batch" in err
    assert found["ratio"]["median"] > 0
    for name in ("p95_ms", "median_ms"):
        assert {side: spread["count"] for side, spread in found[name].items()} == {"alone": 1, "beside_batch": 1}
    assert found["p95_ms"]["alone"]["median"] >= found["median_ms"]["alone"]["median"] > 0


def test_load_beside_neighbours(run, checkpoint):
    asked = ("bench", "load", "--neighbours", 1, "-m", checkpoint, "--words", "2-9", "--concurrency", 1)
    code, out, err = run(*asked, "--requests", 2, "--rounds", 2, "--steps", 2, "--max-new-tokens", 8)
    found = line(out)
    assert code == 0
    assert "1 request at once" in err
    assert "beside 1 busy process" in err
    assert (found["neighbours"], found["ratio"]["count"]) == (1, 2)
    rates = found["tokens_per_second_beside_neighbours"], found["tokens_per_second"]
    assert all(rate["median"] > 0 and rate["count"] == 2 for rate in rates)


def test_load_on_a_server_that_is_not_there(run, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    asked = ("bench", "load", "--endpoint", "http://127.0.0.1:9/v1", "--requests", 2)
    code, out, err = run(*asked)
    assert (code, out) == (2, "")
    assert "is the server running?" in err
    code, out, err = run(*asked, "-m", "some/model")
    assert (code, out) == (2, "")
    assert "none of 2 requests was answered: no connection (2)" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("load", "--words", "9-2"), "prompts of 9 to 2 words"),
        (("load", "--words", "many"), "--words is 'many', must be a number or a range like 20-200"),
        (("load", "--prompts", "jokes"), "prompts is 'jokes', must be one of extract, normalize, repair"),
        (("load", "--requests", 501), "requests is 501, the test set has 500 prompts"),
        (("load", "--rate", 0), "--rate is 0.0, must be a finite number above 0"),
        (("load", "--rate", 1, "--concurrency", 16), "--rate is an open loop, --concurrency a closed one"),
        (("load", "--words", 9, "--prompts", "extract"), "--words generates prompts, --prompts names a test"),
        (
            ("load", "--rounds", 5),
            "--rounds has no effect without one of --against-step, --against-server, --neighbours",
        ),
        (("load", "--seconds", 4), "--seconds has no effect without --against-step"),
        (
            ("load", "--against-server", "--seconds", 4),
            "--seconds has no effect without --against-step",
        ),
        (("load", "--against-server", "--against-step"), "are 2 measurements; leave one of them out"),
        (("load", "--against-server", "--rate", 4), "--against-server is a closed loop, --rate an open one"),
        (("load", "--neighbours", 2, "--against-step"), "are 2 measurements; leave one of them out"),
        (("load", "--neighbours", 2, "--endpoint", "x"), "--neighbours measures our own engine, not an --endpoint"),
        (("load", "--neighbours", 2, "--rate", 4), "--neighbours is a closed loop, --rate an open one"),
        (("load", "--against-step", "--mode", "auto"), "--mode names a way to answer; leave one of them out"),
        (("load", "--mode", "fast"), "--mode is 'fast', must be one of diffusion, autoregressive, verified, auto"),
        (("load", "--neighbours", 0), "--neighbours is 0, must be at least 1"),
        (("load", "--timeout", 600), "--timeout has no effect without --endpoint"),
        (("load", "--api-key-env", "KEY"), "--api-key-env has no effect without --endpoint"),
        (("load", "--against-step", "--seconds", "inf"), "--seconds is inf, must be a finite number above 0"),
        (("load", "--endpoint", "x", "--timeout", "nan"), "--timeout is nan, must be a finite number above 0"),
        (("load", "--against-step", "--seed", 1), "every request has a seed of its own; leave --seed out"),
        (("load", "--rate", 1, "--against-step"), "is a closed loop, --rate an open one; leave one"),
        (("load", "--endpoint", "x", "--against-step"), "leave one of them out"),
        (("load", "--endpoint", "x"), "the endpoint is 'x', must be like http://localhost:8000/v1"),
        (
            ("load", "--endpoint", "http://x/v1", "--index", 3),
            "--index has no field in a request to a server; leave it",
        ),
        (("load", "--endpoint", "http://x/v1", "--precision", "bf16"), "--precision are the server's choice"),
        (("load", "--endpoint", "http://x/v1", "--api-key-env", "NO_SUCH_KEY"), "names NO_SUCH_KEY, but no such"),
    ],
)
def test_load_that_makes_no_sense_is_refused(run, arguments, message):
    code, out, err = run("bench", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_plan_for_this_machine_beside_what_is_measured(run, checkpoint):
    asked = ("bench", "plan", checkpoint, "--requests", "1,2", "--context", 5, "--tokens-per-forward", 2)
    code, out, err = run(*asked, "--device", "here", "--precision", "bf16", "--check")
    assert code == 0
    assert "ratio" in err
    for row in line(out)["predicted"]:
        measured = row["measured_seconds"]
        assert row["ratio"] == pytest.approx(row["denoising_seconds"] / measured["median"], rel=0.01)
        assert measured["low"] <= measured["median"] <= measured["high"]
        assert measured["count"] == 5
    code, _, err = run(*asked, "--check")
    assert (code, err) == (2, "redraft: --check measures this machine; give --device here\n")
    code, _, err = run(*asked, "--device", "here")
    assert code == 2
    assert "precision is 'fp8'; for this machine" in err


def test_plan_has_what_others_published_beside_it(run):
    code, out, err = run("bench", "plan", "--device", "h100", "--requests", 1)
    assert code == 0
    assert "PREDICTED" in err
    assert "published by others for h100: 1,008 tokens/s" in err
    (row,) = line(out)["predicted"]
    assert "1,008 tokens/s" in row["published"]
    code, out, err = run("bench", "plan", "bundled", "--device", "h100", "--requests", 1, "--json")
    found = line(out)
    assert (code, err, found["bench"]) == (0, "", "plan")
    assert found["machine"]["threads"] == 1
    assert "published" not in found["predicted"][0]


def test_a_break_even_that_does_not_exist_is_shown_as_never(run):
    _, out, _ = run("bench", "plan", "--device", "h100", "--requests", 1, "--json")
    (row,) = line(out)["predicted"]
    columns, (shown,) = table_of([row | {"break_even": None}])
    assert shown[columns.index("break-even")] == "never"
    columns, (shown,) = table_of([row])
    assert shown[columns.index("break-even")] == f"{row['break_even']:.1f}"


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
    monkeypatch.setattr("redraft.benchmark.models.load_model", lambda *_: pytest.fail("loaded"))
    monkeypatch.setattr("redraft.benchmark.models.synthetic_model", lambda *_: pytest.fail("made"))
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
    assert (code, err) == (2, "redraft: this needs transformers: pip install -e '.[compare]' in the checkout\n")
