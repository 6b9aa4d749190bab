"""Clients that others wrote, on a server in a process of its own: openai-python, curl, and our own load test."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Literal

import httpx2
import openai
import pytest
from pydantic import BaseModel

from redraft.benchmark.load.serving import Serving, serving
from redraft.cli import main
from tests.fakes.checkpoints import tiny_checkpoint

ASKED: Any = {"model": "tiny", "messages": [{"role": "user", "content": "say hello"}], "seed": 0, "max_tokens": 24}
# Every canvas takes as many steps as it may: the answer is under way for a second and more.
SLOW: Any = {
    "max_tokens": 160,
    "extra_body": {"canvas": {"steps": 100, "entropy_bound": 0.0, "t_min": 2.0, "t_max": 2.0}},
}
KEY = "a-key"


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("clients") / "tiny")


@pytest.fixture(scope="module")
def ours(checkpoint) -> Iterator[Serving]:
    with serving(str(checkpoint), "--max-concurrent", "4") as running:
        yield running


@pytest.fixture(scope="module")
def guarded(checkpoint) -> Iterator[Serving]:
    """With a key, and room for one request."""
    with serving(str(checkpoint), "--api-key", KEY, "--max-concurrent", "1", "--max-queue", "0") as running:
        yield running


@pytest.fixture
def client(ours) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=ours.url + "/v1", api_key="none", max_retries=0) as made:
        yield made


def running(url: str, key: str | None = None) -> float:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    told = httpx2.get(url + "/metrics", headers=headers, trust_env=False).text
    return float(told.partition("\nredraft_requests_running ")[2].split()[0])


def until_idle(url: str) -> None:
    end = time.monotonic() + 20
    while running(url):
        assert time.monotonic() < end, "still in work"
        time.sleep(0.02)


def text_of(chunks: list[Any]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_the_models_are_listed(client):
    (model,) = client.models.list().data
    assert (model.id, model.owned_by) == ("tiny", "redraft")
    assert client.models.retrieve("tiny").max_model_len == 256
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt'"):
        client.models.retrieve("gpt")


def test_a_chat_in_one_piece_and_streamed_is_the_same_text(client):
    whole = client.chat.completions.create(**ASKED)
    (choice,) = whole.choices
    assert whole.usage.prompt_tokens > 0
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert (choice.message.role, choice.finish_reason, choice.canvas["seed"]) == ("assistant", "length", 0)
    assert len(choice.canvas["steps_per_canvas"]) == 3
    chunks = list(client.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True}))
    assert text_of(chunks) == choice.message.content != ""
    assert [one.finish_reason for chunk in chunks for one in chunk.choices if one.finish_reason] == ["length"]
    assert (chunks[-1].choices, chunks[-1].usage.completion_tokens) == ([], whole.usage.completion_tokens)
    assert all(chunk.usage is None for chunk in client.chat.completions.create(**ASKED, stream=True))


def test_a_prompt_that_was_read_before_is_told_in_the_usage(client):
    asked = ASKED | {"messages": [{"role": "user", "content": "the quick brown fox " * 12}]}
    first, second = (client.chat.completions.create(**asked).usage for _ in range(2))
    assert first.prompt_tokens_details.cached_tokens < second.prompt_tokens_details.cached_tokens
    assert second.prompt_tokens_details.cached_tokens <= second.prompt_tokens


def test_the_helper_for_streams_gathers_the_answer(client):
    # It takes an answer that was cut by max_tokens for an error; with this seed the answer ends by itself.
    asked = ASKED | {"seed": 3}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    with client.chat.completions.stream(**asked) as stream:
        kinds = {event.type for event in stream}
        assert stream.get_final_completion().choices[0].message.content == whole
    assert {"chunk", "content.delta", "content.done"} <= kinds


def test_many_at_once_from_an_event_loop(ours, client):
    seeds = range(6)
    alone = [client.chat.completions.create(**ASKED | {"seed": seed}).choices[0].message.content for seed in seeds]

    async def streamed(asking: openai.AsyncOpenAI, seed: int) -> str:
        stream = await asking.chat.completions.create(**ASKED | {"seed": seed}, stream=True)
        return text_of([chunk async for chunk in stream])

    async def run() -> list[str]:
        async with openai.AsyncOpenAI(base_url=ours.url + "/v1", api_key="none", max_retries=0) as asking:
            return await asyncio.gather(*(streamed(asking, seed) for seed in seeds))

    assert asyncio.run(run()) == alone
    assert len(set(alone)) > 1


def test_leaving_a_stream_ends_the_work(ours, client):
    with client.chat.completions.create(**ASKED | SLOW, stream=True) as stream:
        next(stream)
        assert running(ours.url) == 1
    until_idle(ours.url)


def test_two_choices_differ_and_come_again_with_their_seed(client):
    def texts(**asked: Any) -> list[str]:
        return [choice.message.content for choice in client.chat.completions.create(**ASKED | asked).choices]

    first, second = texts(n=2)
    assert first != second
    assert [first, second] == texts(n=2)
    assert [first] == texts()
    chunks = list(client.chat.completions.create(**ASKED, n=2, stream=True))
    streamed = ["", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == [first, second]


def test_a_stop_text_ends_the_answer(client):
    whole = client.chat.completions.create(**ASKED).choices[0].message.content
    stop = whole[len(whole) // 2 :][:3]
    cut = client.chat.completions.create(**ASKED, stop=["never in there", stop]).choices[0]
    assert (cut.finish_reason, cut.message.content) == ("stop", whole[: whole.index(stop)])
    assert text_of(list(client.chat.completions.create(**ASKED, stop=stop, stream=True))) == cut.message.content


def test_log_probabilities(client):
    answer = client.chat.completions.create(**ASKED, logprobs=True, top_logprobs=3)
    told = answer.choices[0].logprobs.content
    assert len(told) == answer.usage.completion_tokens
    assert all(len(one.top_logprobs) == 3 and one.logprob <= 0 for one in told)
    assert all(one.top_logprobs[0].logprob == one.logprob for one in told)
    chunks = list(client.chat.completions.create(**ASKED, logprobs=True, top_logprobs=3, stream=True))
    streamed = [
        one for chunk in chunks for choice in chunk.choices if choice.logprobs for one in choice.logprobs.content
    ]
    assert streamed == told


def test_settings_of_the_canvas_and_its_drafts(client):
    canvas = {"steps": 2, "canvas_length": 4, "stream_drafts": True, "alternatives": 2}
    chunks = list(
        client.chat.completions.create(
            **ASKED, stream=True, stream_options={"include_usage": True}, extra_body={"canvas": canvas}
        )
    )
    drafts = [chunk.draft for chunk in chunks if chunk.object == "chat.completion.draft"]
    assert len(drafts) == chunks[-1].usage.denoising_steps > 0
    assert {draft["canvas"] for draft in drafts} == set(range(6))
    assert all(draft["step"] <= 2 and len(draft["tokens"]) == 4 for draft in drafts)
    assert all(len(place) == 2 for draft in drafts for place in draft["alternatives"])
    plain = client.chat.completions.create(**ASKED, extra_body={"canvas": {"steps": 2, "canvas_length": 4}})
    assert text_of(chunks) == plain.choices[0].message.content


class City(BaseModel):
    city: str
    size: Literal["small", "large"]
    founded: int | None


def test_answers_are_parsed_into_the_class_that_was_asked_for(client):
    asked: Any = ASKED | {"max_tokens": 64}
    message = client.chat.completions.parse(**asked, response_format=City).choices[0].message
    assert isinstance(message.parsed, City)
    with client.chat.completions.stream(**asked, response_format=City) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == message.parsed
    response = client.responses.parse(model="tiny", input="say hello", text_format=City, max_output_tokens=64)
    assert isinstance(response.output_parsed, City)
    chosen = client.chat.completions.create(**asked, extra_body={"structured_outputs": {"choice": ["yes", "no"]}})
    assert chosen.choices[0].message.content in ("yes", "no")
    with pytest.raises(openai.BadRequestError, match="does not support tools"):
        client.chat.completions.parse(**asked, tools=[openai.pydantic_function_tool(City)])


# What openai-python says of its own types.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_a_parsed_answer_may_be_sent_back_as_it_came(client):
    asked: Any = ASKED | {"max_tokens": 64}
    parsed = client.chat.completions.parse(**asked, response_format=City).choices[0].message
    with client.chat.completions.stream(**asked, response_format=City) as stream:
        streamed = stream.get_final_completion().choices[0].message
    question = asked["messages"][0]
    for message in (parsed, parsed.to_dict(), parsed.model_dump(), streamed, streamed.to_dict(), streamed.model_dump()):
        again = client.chat.completions.create(**asked | {"messages": [question, message, question]})
        assert "left out 2 other messages" in again.warnings[0]
    output = client.responses.parse(model="tiny", input="say hello", text_format=City, max_output_tokens=64).output
    for items in (output, [item.to_dict() for item in output], [item.model_dump() for item in output]):
        again = client.responses.create(model="tiny", input=[question, *items, question], max_output_tokens=8)
        assert "left out 2 other messages" in again.warnings[0]


def test_text_completions(client):
    asked: Any = {"model": "tiny", "prompt": "the quick brown", "seed": 1, "max_tokens": 16}
    whole = client.completions.create(**asked, logprobs=2)
    (choice,) = whole.choices
    assert len(choice.logprobs.tokens) == whole.usage.completion_tokens
    streamed = "".join(one.text for chunk in client.completions.create(**asked, stream=True) for one in chunk.choices)
    assert streamed == choice.text
    both = client.completions.create(**asked | {"prompt": ["the quick brown", "the dog"]})
    assert both.choices[0].text == choice.text
    assert len(both.choices) == 2


@pytest.mark.parametrize(
    ("asked", "param", "code"),
    [
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"frequency_penalty": 1}, "frequency_penalty", "unsupported_value"),
        ({"response_format": {"type": "xml"}}, "response_format", "invalid_value"),
        ({"extra_body": {"best": 1}}, "best", "unsupported_parameter"),
        ({"extra_body": {"canvas": {"steps": 0}}}, "canvas.steps", "invalid_value"),
        ({"extra_body": {"canvas": {"speed": 1}}}, "canvas.speed", "unsupported_parameter"),
        ({"extra_body": {"canvas": {"stream_drafts": True}}}, "canvas.stream_drafts", None),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "user", "content": "dog " * 400}]}, "messages", "context_length_exceeded"),
        ({"max_tokens": 4000}, "max_tokens", "invalid_value"),
    ],
)
def test_what_cannot_be_is_a_bad_request_with_its_parameter(client, asked, param, code):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**ASKED | asked)
    assert (refused.value.param, refused.value.code) == (param, code)
    assert refused.value.type == "invalid_request_error"


def test_the_responses_api_gives_the_answer_of_chat_whole_and_streamed(client):
    chosen = client.chat.completions.create(**ASKED).choices[0]
    asked: Any = {"model": "tiny", "input": "say hello", "max_output_tokens": 24, "extra_body": {"seed": 0}}
    whole = client.responses.create(**asked)
    assert (whole.output_text, whole.status) == (chosen.message.content, "incomplete")
    assert whole.incomplete_details.reason == "max_output_tokens"
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    assert whole.canvas["seed"] == 0

    events = list(client.responses.create(**asked, stream=True))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.output_text == whole.output_text

    again = [{"role": "user", "content": "say hello"}, *whole.output, {"role": "user", "content": "again"}]
    second = client.responses.create(model="tiny", input=again, instructions="be kind", store=True)
    assert any("left out" in warning for warning in second.warnings)
    assert any("not stored" in warning for warning in second.warnings)

    with client.responses.stream(model="tiny", input="say hello", extra_body={"seed": 3}) as stream:
        assert stream.get_final_response().output_text
    for wrong, param in (
        ({"input": []}, "input"), ({"previous_response_id": "r"}, "previous_response_id"), ({"top_p": 0.5}, "top_p"),
        ({"input": "dog " * 400}, "input"), ({"max_output_tokens": 4000}, "max_output_tokens"),
    ):  # fmt: skip
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(**asked | wrong)
        assert refused.value.param == param


def test_a_wrong_model_a_wrong_key_and_a_full_server_have_their_errors(guarded):
    with openai.OpenAI(base_url=guarded.url + "/v1", api_key="wrong", max_retries=0) as wrong:
        with pytest.raises(openai.AuthenticationError, match="the API key is missing or wrong") as refused:
            wrong.chat.completions.create(**ASKED)
        assert refused.value.code == "invalid_api_key"
    with openai.OpenAI(base_url=guarded.url + "/v1", api_key=KEY, max_retries=0) as client:
        with pytest.raises(openai.NotFoundError) as refused:
            client.chat.completions.create(**ASKED | {"model": "gpt"})
        assert (refused.value.param, refused.value.code) == ("model", "model_not_found")
        with client.chat.completions.create(**ASKED | SLOW, stream=True) as stream:
            next(stream)
            with pytest.raises(openai.RateLimitError, match="1 of 1 slots for answers are taken") as full:
                client.chat.completions.create(**ASKED)
            assert int(full.value.response.headers["retry-after"]) >= 1
        # As it is meant: asked again after that time, it is answered.
        patient = client.with_options(max_retries=5)
        assert patient.chat.completions.create(**ASKED).choices[0].finish_reason == "length"


def test_curl_shows_the_answer_while_it_is_written(ours):
    body = ASKED | {"max_tokens": 64, "stream": True} | SLOW["extra_body"]
    with subprocess.Popen(
        ["curl", "-sSN", "--noproxy", "*", "-H", "Content-Type: application/json", "-d", json.dumps(body),
         ours.url + "/v1/chat/completions"],
        stdout=subprocess.PIPE, text=True,
    ) as curl:  # fmt: skip
        assert curl.stdout is not None
        first = curl.stdout.readline()
        assert running(ours.url) == 1
        lines = [first, *curl.stdout]
    assert curl.returncode == 0
    assert all(line.startswith("data: ") for line in lines[::2])
    assert set(lines[1::2]) == {"\n"}
    assert lines[-2] == "data: [DONE]\n"
    assert len(lines) > 16


def test_bench_load_measures_our_server(ours, monkeypatch, capsys):
    asked = ["--endpoint", ours.url + "/v1", "--requests", "12", "--concurrency", "4", "--words", "2-30"]
    monkeypatch.setattr("sys.argv", ["redraft", "bench", "load", *asked, "--max-new-tokens", "16", "--seed", "1"])
    with pytest.raises(SystemExit) as ended:
        main()
    found = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0
    assert (found["model"], found["answered"], found["failed"]) == ("tiny", 12, {})
    assert found["settings"] == {"max_tokens": 16, "seed": 1}
    assert 12 <= found["answer_tokens"] <= 12 * 16
    assert found["tokens_per_second"] > 0
    assert found["first_canvas_ms"]["p50"] <= found["answer_ms"]["p50"]


LM_EVAL_TASKS = {
    "generate": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 64, do_sample: false, temperature: 0}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
    "choose": """
output_type: multiple_choice
doc_to_text: "{{question}}\\n"
doc_to_choice: ["{{answer}}", "{\\"city\\": \\"Lisbon\\"}"]
doc_to_target: 0
target_delimiter: ""
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "roll": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list: [{metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}]
""",
}
LM_EVAL_PROGRAM = """
import json, sys
import lm_eval
from lm_eval.tasks import TaskManager
kind, address, folder, *tasks = sys.argv[1:]
found = lm_eval.simple_evaluate(
    model=kind, model_args=f"model=bundled,base_url={address}", tasks=tasks, bootstrap_iters=0, batch_size=2,
    task_manager=TaskManager(include_path=folder, include_defaults=False), apply_chat_template="chat" in kind,
)
print(json.dumps(found["results"], default=str))
"""


@pytest.mark.slow
def test_lm_eval_as_it_comes_from_its_registry(tmp_path):
    """Chat and completions, on local tasks, in an environment of its own; skipped where it cannot be had."""
    python = tmp_path / "venv/bin/python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    installed = subprocess.run(
        [python, "-m", "pip", "install", "-q", "lm-eval[api]"], capture_output=True, text=True, timeout=1200
    )
    if installed.returncode:
        pytest.skip(f"lm-eval cannot be installed: {installed.stderr[-300:]}")
    rows = [{"question": f"Extract city as JSON: I live in {city}.", "answer": json.dumps({"city": city})}
            for city in ("Porto", "Oslo", "Rome")]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run.py").write_text(LM_EVAL_PROGRAM)
    (tmp_path / "tasks").mkdir()
    for name, task in LM_EVAL_TASKS.items():
        data = f"task: {name}\ndataset_path: json\ntest_split: test\ndataset_kwargs: "
        data += json.dumps({"data_files": {"test": str(tmp_path / "rows.jsonl")}})
        (tmp_path / f"tasks/{name}.yaml").write_text(data + task)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    environment.pop("PYTHONPATH", None)

    def run(kind: str, address: str, *tasks: str) -> Any:
        done = subprocess.run(
            [python, tmp_path / "run.py", kind, address, tmp_path / "tasks", *tasks],
            capture_output=True, text=True, timeout=600, env=environment, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    with serving("bundled") as running:
        found = run("local-chat-completions", running.url + "/v1/chat/completions", "generate")
        assert found["generate"]["exact_match,none"] > 0.5
        found = run("local-completions", running.url + "/v1/completions", "choose", "roll", "generate")
    assert 0 <= found["choose"]["acc,none"] <= 1
    assert found["roll"]["word_perplexity,none"] > 1
    assert "exact_match,none" in found["generate"]
