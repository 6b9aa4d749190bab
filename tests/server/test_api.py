"""The API as a client sees it, in process: what is asked is obeyed, in OpenAI's shape, streamed and not."""

import asyncio
import dataclasses
import json

import httpx2
import pytest

import redraft
from redraft.server.app import create_app
from redraft.server.openai.requests import OPENAI_NAMES, Canvas
from redraft.server.service import Service
from redraft.server.settings import ServerSettings
from tests.fakes.checkpoints import tiny_checkpoint

PROMPT = "the quick brown fox"
MESSAGES = [{"role": "user", "content": PROMPT}]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> redraft.Model:
    return redraft.load(tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def ask(model):
    """Sends a request and gives the response; one event loop for the module, as a server has one."""
    service = Service(ServerSettings(max_concurrent=4, max_queue=8))
    app = create_app(service)
    loop = asyncio.new_event_loop()

    async def send(method: str, path: str, body: object, headers: dict[str, str]) -> httpx2.Response:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, json=body, headers=headers)

    with redraft.Engine(model, queued_requests=64) as engine:
        service.attach_engine(engine, "tiny")

        def asked(path: str, body: object = None, *, expect: int = 200, **headers: str) -> httpx2.Response:
            response = loop.run_until_complete(send("GET" if body is None else "POST", path, body, headers))
            assert response.status_code == expect, response.text
            assert service.slots.taken == 0
            return response

        yield asked
    loop.close()


def chat(ask, **more) -> dict:
    return ask("/v1/chat/completions", {"messages": MESSAGES, **more}).json()


def events_of(response: httpx2.Response) -> list[tuple[str | None, object]]:
    """(kind, data) of each event; the last must be [DONE], which is left out."""
    assert response.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in response.text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((fields.get("event"), fields["data"]))
    assert found.pop() == (None, "[DONE]")
    return [(kind, json.loads(data)) for kind, data in found]


def streamed(ask, path: str = "/v1/chat/completions", **body) -> list[tuple[str | None, dict]]:
    asked = {"messages": MESSAGES} if "prompt" not in body else {}
    return events_of(ask(path, {**asked, **body, "stream": True}))


def content(events, index: int = 0) -> str:
    return "".join(
        choice["delta"].get("content", "")
        for kind, data in events
        if kind is None
        for choice in data["choices"]
        if choice["index"] == index
    )


def error(response: httpx2.Response) -> tuple[str | None, str | None, str]:
    told = response.json()["error"]
    return told["param"], told["code"], told["message"]


def test_an_answer_is_what_generate_gives(ask, model):
    told = chat(ask, seed=7)
    expected = model.generate(PROMPT, seed=7)
    (choice,) = told["choices"]
    assert choice["message"] == {"role": "assistant", "content": expected.text}
    assert choice["finish_reason"] == expected.finish_reason
    assert choice["canvas"]["seed"] == 7
    assert tuple(choice["canvas"]["steps_per_canvas"]) == expected.generation.steps_per_canvas
    usage = told["usage"]
    assert usage["prompt_tokens"] == len(model.encode(PROMPT))
    assert usage["completion_tokens"] == len(expected.token_ids)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["denoising_steps"] == sum(expected.generation.steps_per_canvas)
    assert usage["tokens_per_forward"] == pytest.approx(expected.tokens_per_forward, abs=1e-3)
    assert (told["object"], told["model"]) == ("chat.completion", "tiny")


def test_a_seed_that_was_drawn_is_told_and_gives_the_answer_again(ask):
    first = chat(ask)
    seed = first["choices"][0]["canvas"]["seed"]
    assert 0 <= seed < 2**53
    assert chat(ask, seed=seed)["choices"][0]["message"] == first["choices"][0]["message"]


def test_n_answers_are_the_choices_of_one_seed(ask, model):
    told = chat(ask, seed=7, n=3)
    assert [choice["index"] for choice in told["choices"]] == [0, 1, 2]
    texts = [choice["message"]["content"] for choice in told["choices"]]
    assert texts == [model.generate(PROMPT, seed=7, index=i).text for i in range(3)]
    events = streamed(ask, seed=7, n=3)
    assert [content(events, i) for i in range(3)] == texts


def test_settings_are_obeyed(ask, model):
    canvas = {"steps": 3, "entropy_bound": 0.5, "t_min": 0.1, "t_max": 0.3, "canvas_length": 5}
    told = chat(ask, seed=8, temperature=0.5, max_tokens=12, canvas=canvas)
    expected = model.generate(PROMPT, seed=8, temperature=0.5, max_new_tokens=12, **canvas)
    assert told["choices"][0]["message"]["content"] == expected.text
    assert told["choices"][0]["finish_reason"] == expected.finish_reason == "length"
    assert told["usage"]["completion_tokens"] == 12
    assert chat(ask, seed=8, max_completion_tokens=5)["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize(
    "canvas",
    [
        {"acceptance": "linear_quota"},
        {"stopping": "every_position_confident", "entropy_limit": 0.5},
        {"stability_threshold": 2, "confidence_threshold": 0.01},
    ],
)
def test_every_rule_and_threshold_can_be_chosen(ask, model, canvas):
    told = chat(ask, seed=7, canvas=canvas)
    expected = model.generate(PROMPT, seed=7, **canvas)
    assert told["choices"][0]["message"]["content"] == expected.text
    assert tuple(told["choices"][0]["canvas"]["steps_per_canvas"]) == expected.generation.steps_per_canvas


def test_the_fields_of_canvas_are_those_of_the_table():
    settings = {setting.name: setting for setting in redraft.SETTINGS}
    ours = {"stream_drafts", "alternatives", "mode", "autoregressive", "start", "pinned", "strength"}
    assert set(Canvas.model_fields) - ours == settings.keys() - OPENAI_NAMES.keys()
    for name, shown in Canvas.model_json_schema()["properties"].items():
        if name not in ours:
            setting, (field, _) = settings[name], shown["anyOf"]
            assert shown["description"] == setting.help
            assert field.get("minimum") == setting.minimum
            assert field.get("maximum") == setting.maximum
            assert tuple(field.get("enum", ())) == setting.choices


def test_a_stream_is_the_same_answer_in_pieces(ask):
    events = streamed(ask, seed=7, stream_options={"include_usage": True})
    whole = chat(ask, seed=7)
    assert content(events) == whole["choices"][0]["message"]["content"]
    chunks = [data for _, data in events]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    # One for each canvas of 8 tokens: the first text does not wait for the last.
    assert len(chunks) == len(whole["choices"][0]["canvas"]["steps_per_canvas"]) + 2
    assert len(chunks) >= 3 + 2
    assert [chunk["choices"][0]["delta"].get("role") for chunk in chunks[:2]] == ["assistant", None]
    *_, last, usage = chunks
    assert last["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert last["choices"][0]["canvas"]["seed"] == 7
    assert usage["choices"] == []
    for told in (whole["usage"], usage["usage"]):
        assert told.pop("prompt_tokens_details")["cached_tokens"] <= told["prompt_tokens"]
    assert usage["usage"] == whole["usage"]


def test_a_prompt_is_counted_once_for_all_its_choices_cached_or_not(ask):
    prompt = "the user says hello and the model says hello to the user"
    body = {"prompt": [prompt, "good bye, " + prompt], "n": 3, "seed": 7}
    for _ in range(2):
        usage = ask("/v1/completions", body).json()["usage"]
    assert 0 < usage["prompt_tokens_details"]["cached_tokens"] <= usage["prompt_tokens"]


def test_every_chunk_may_tell_the_usage_so_far(ask):
    events = streamed(ask, seed=7, stream_options={"continuous_usage_stats": True})
    counts = [data["usage"]["completion_tokens"] for _, data in events]
    assert counts == sorted(counts)
    assert counts[-1] == chat(ask, seed=7)["usage"]["completion_tokens"]


def test_an_answer_may_go_on_behind_an_eos(ask):
    # Seed 3 ends after six tokens by itself.
    assert chat(ask, seed=3)["usage"]["completion_tokens"] < 20
    told = chat(ask, seed=3, ignore_eos=True, max_tokens=20)
    assert told["usage"]["completion_tokens"] == 20
    assert told["choices"][0]["finish_reason"] == "length"


def test_a_draft_goes_on_behind_an_eos_as_its_answer_does(ask):
    events = streamed(ask, seed=3, ignore_eos=True, max_tokens=20, canvas={"stream_drafts": True})
    drafts = [data["draft"] for kind, data in events if kind == "draft"]
    last = [draft for draft in drafts if draft["finished"]]
    assert any("<eos>" in draft["tokens"][:-1] for draft in last[:-1])
    assert "".join(draft["text"] for draft in last) == content(events)


def test_drafts_are_typed_events_before_what_their_canvas_commits(ask, model):
    events = streamed(ask, seed=7, canvas={"stream_drafts": True, "alternatives": 2})
    drafts = [data["draft"] for kind, data in events if kind == "draft"]
    expected = [event for event in model.stream(PROMPT, seed=7) if isinstance(event, redraft.Draft)]
    assert len(drafts) == len(expected)
    for draft, event in zip(drafts, expected, strict=True):
        step = event.step
        assert (draft["canvas"], draft["steps_left"], draft["finished"]) == (step.canvas, step.step - 1, step.finished)
        assert draft["text"] == event.text
        assert draft["accepted"] == [int(one) for one in step.accepted]
        assert draft["entropies"] == pytest.approx(step.entropy.tolist(), abs=1e-4)
        assert draft["mean_entropy"] == pytest.approx(float(step.entropy.mean()), abs=1e-4)
        texts = [model.tokenizer.token_text(token) for token in step.draft.tolist()]
        assert draft["tokens"] == texts
        assert [found[0][0] for found in draft["alternatives"]] == texts
        assert {len(found) for found in draft["alternatives"]} == {2}
    assert all(data["choices"] == [] for kind, data in events if kind == "draft")
    kinds = [kind for kind, _ in events]
    assert kinds[0] == "draft"
    assert (
        kinds.index(None)
        == next(at for at, (_, data) in enumerate(events) if data.get("draft", {}).get("finished")) + 1
    )
    assert content(events) == model.generate(PROMPT, seed=7).text


def test_log_probabilities_of_chat(ask):
    told = chat(ask, seed=7, logprobs=True, top_logprobs=2)
    listed = told["choices"][0]["logprobs"]["content"]
    assert len(listed) == told["usage"]["completion_tokens"]
    for token in listed:
        assert token["logprob"] == token["top_logprobs"][0]["logprob"] <= 0
        assert token["top_logprobs"][1]["logprob"] <= token["logprob"]
        halved = "\ufffd" in token["token"]
        expected = (
            [] if token["token"].startswith("<") and token["token"].endswith(">") else list(token["token"].encode())
        )
        assert len(token["bytes"]) == 1 if halved else token["bytes"] == expected
    bare = chat(ask, seed=7, logprobs=True)["choices"][0]["logprobs"]["content"]
    assert [token["logprob"] for token in bare] == pytest.approx([token["logprob"] for token in listed], abs=1e-5)
    assert {len(token["top_logprobs"]) for token in bare} == {0}
    events = streamed(ask, seed=7, logprobs=True, top_logprobs=2)
    pieces = [data["choices"][0].get("logprobs") for _, data in events]
    assert [t["token"] for piece in pieces if piece for t in piece["content"]] == [t["token"] for t in listed]


def test_log_probabilities_of_text_completions(ask, model):
    choice = ask("/v1/completions", {"prompt": PROMPT, "seed": 7, "logprobs": 1}).json()["choices"][0]
    told = choice["logprobs"]
    assert len(told["tokens"]) == len(told["token_logprobs"]) == len(told["top_logprobs"]) == len(told["text_offset"])
    assert all(token in top for token, top in zip(told["tokens"], told["top_logprobs"], strict=True))
    named = {model.tokenizer.token_text(token) for token in model.tokenizer.special_ids}
    placed = zip(told["text_offset"], told["tokens"], strict=True)
    # A single character may be a byte whose place in a run of broken ones nobody knows.
    whole = [(offset, token) for offset, token in placed if len(token) > 1 and token not in named]
    assert told["text_offset"] == sorted(told["text_offset"])
    assert whole
    assert all(choice["text"].startswith(token, offset) for offset, token in whole)


def test_a_stop_text_ends_the_answer_and_frees_its_place(ask, model):
    text = model.generate(PROMPT, seed=7).text
    stop = text[10:13]
    told = chat(ask, seed=7, stop=[stop, "never"])
    assert told["choices"][0]["message"]["content"] == text[: text.index(stop)]
    assert told["choices"][0]["finish_reason"] == "stop"
    assert stop not in content(streamed(ask, seed=7, stop=stop))
    scored = chat(ask, seed=7, stop=stop, logprobs=True)["choices"][0]
    assert 0 < len(scored["logprobs"]["content"]) < chat(ask, seed=7)["usage"]["completion_tokens"]


def test_completions_of_several_prompts_as_text_and_as_tokens(ask, model):
    ids = [model.encode_plain(text) for text in ("hello", "good bye")]
    one = ask("/v1/completions", {"prompt": ["hello", "good bye"], "seed": 7, "n": 2}).json()
    other = ask("/v1/completions", {"prompt": ids, "seed": 7, "n": 2}).json()
    assert [choice["text"] for choice in one["choices"]] == [choice["text"] for choice in other["choices"]]
    assert [choice["index"] for choice in one["choices"]] == [0, 1, 2, 3]
    assert one["usage"]["prompt_tokens"] == sum(map(len, ids))
    single = ask("/v1/completions", {"prompt": ids[1], "seed": 7}).json()
    assert single["choices"][0]["text"] == one["choices"][2]["text"]
    events = streamed(ask, "/v1/completions", prompt="hello", seed=7, stream_options={"include_usage": True})
    assert "".join(c["text"] for _, data in events for c in data["choices"]) == one["choices"][0]["text"]
    assert events[-1][1]["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.5, "seed": 3}, {"temperature": 1.5, "seed": 4}])
@pytest.mark.parametrize("canvas", [{"autoregressive": True}, {"mode": "autoregressive"}, {"mode": "verified"}])
def test_causal_modes(ask, model, canvas, sampling):
    told = chat(ask, canvas=canvas, logprobs=True, top_logprobs=2, **sampling)
    expected = model.generate_autoregressive(PROMPT, **sampling)
    (choice,) = told["choices"]
    assert choice["message"]["content"] == expected.text
    assert choice["canvas"]["mode"] == canvas.get("mode", "autoregressive")
    assert content(streamed(ask, canvas=canvas, **sampling)) == expected.text
    scores = [token["logprob"] for token in choice["logprobs"]["content"]]
    assert all(score < 0 for score in scores)
    likeliest = [token["top_logprobs"][0]["logprob"] for token in choice["logprobs"]["content"]]
    assert scores == likeliest or sampling
    usage, written = told["usage"], len(expected.token_ids) + (expected.finish_reason == "stop")
    if canvas != {"mode": "verified"}:
        assert (usage["denoising_steps"], usage["causal_passes"]) == (0, sum(expected.generation.steps_per_canvas))
        assert usage["tokens_per_forward"] == pytest.approx(expected.tokens_per_forward, abs=0.001)
        assert "verification" not in choice["canvas"]
        return
    found = choice["canvas"]["verification"]
    assert (found["rounds"], found["denoiser_passes"]) == (usage["causal_passes"], usage["denoising_steps"])
    # Drafts are of a seed, and say how long the answer takes.
    again = model.generate(PROMPT, mode="verified", **{"seed": choice["canvas"]["seed"], **sampling})
    # Rounded where it is sent.
    assert found == pytest.approx(dataclasses.asdict(again.generation.verification), abs=0.001)
    assert usage["tokens_per_forward"] == pytest.approx(
        written / (found["rounds"] + found["denoiser_passes"]), abs=0.001
    )


def test_choices_of_a_causal_answer_are_drawn_apart(ask, model):
    told = chat(ask, canvas={"mode": "verified"}, n=2, temperature=1.5, seed=3)
    expected = [model.generate_autoregressive(PROMPT, temperature=1.5, seed=3, index=i).text for i in range(2)]
    assert [choice["message"]["content"] for choice in told["choices"]] == expected
    assert expected[0] != expected[1]


def test_verified_drafts_as_events(ask):
    events = streamed(ask, canvas={"mode": "verified", "stream_drafts": True}, ignore_eos=True, max_tokens=20)
    rounds = [data["verified"] for name, data in events if name == "verified"]
    steps = [data["draft"] for name, data in events if name == "draft"]
    assert 1 in {one["step"] for one in steps}
    # The pass over the prompt writes the first token, without a draft.
    assert (rounds[0]["kept"], rounds[0]["rejected"]) == ([], [])
    assert any(one["rejected"] or one["kept"] for one in rounds)
    for one in rounds:
        assert len(one["written"]) == 1
        assert one["rejected"][:1] != one["written"]
    assert sum(len(one["kept"]) + len(one["written"]) for one in rounds) == 20


def test_a_stop_text_ends_a_verified_answer(ask):
    text = chat(ask, canvas={"mode": "autoregressive"})["choices"][0]["message"]["content"]
    stop = text[len(text) // 2 :][:3]
    told = chat(ask, canvas={"mode": "verified"}, stop=stop)
    assert told["choices"][0]["message"]["content"] == text[: text.index(stop)]
    assert told["choices"][0]["finish_reason"] == "stop"
    assert told["usage"]["causal_passes"] > 0


def test_token_by_token_is_limited_by_tokens_and_not_by_whole_canvases(ask):
    text = "a" * 400
    tokens = ask("/tokenize", {"prompt": text}).json()["tokens"]
    prompt = (tokens * 256)[:253]
    body = {"prompt": prompt, "canvas": {"autoregressive": True}}
    told = ask("/v1/completions", body).json()
    assert told["choices"][0]["finish_reason"] in ("stop", "length")
    assert told["usage"]["completion_tokens"] <= 3
    assert error(ask("/v1/completions", {"prompt": prompt}, expect=400))[1] == "context_length_exceeded"
    body["prompt"] = (tokens * 256)[:256]
    assert error(ask("/v1/completions", body, expect=400))[1] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"top_p": 0.5}, "top_p"),
        ({"frequency_penalty": 1.0}, "frequency_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, "chat_template_kwargs.enable_thinking"),
        ({"chat_template_kwargs": {"bos_token": "x"}}, "chat_template_kwargs.bos_token"),
        ({"chat_template": "{{ 1 }}"}, "chat_template"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"canvas": {"step": 3}}, "canvas.step"),
        ({"canvas": {"steps": 0}}, "canvas.steps"),
        ({"canvas": {"t_min": 0.9}}, "canvas.t_min"),
        ({"canvas": {"acceptance": "all"}}, "canvas.acceptance"),
        ({"canvas": {"stopping": "never"}}, "canvas.stopping"),
        ({"canvas": {"entropy_limit": 0.5}}, "canvas.entropy_limit"),
        ({"canvas": {"stopping": "every_position_confident", "entropy_limit": 0}}, "canvas.entropy_limit"),
        ({"canvas": {"canvas_length": 300}}, "messages"),
        ({"canvas": {"stream_drafts": True}}, "canvas.stream_drafts"),
        ({"canvas": {"alternatives": 2}}, "canvas.alternatives"),
        ({"canvas": {"autoregressive": True, "steps": 3}}, "canvas.steps"),
        ({"canvas": {"mode": "autoregressive", "steps": 3}}, "canvas.steps"),
        ({"canvas": {"mode": "autoregressive", "entropy_bound": 0}}, "canvas.entropy_bound"),
        ({"canvas": {"mode": "autoregressive", "stream_drafts": True}, "stream": True}, "canvas.stream_drafts"),
        ({"canvas": {"mode": "verified", "stopping": "every_position_confident"}}, "canvas.stopping"),
        ({"canvas": {"mode": "verified", "autoregressive": True}}, "canvas.autoregressive"),
        ({"canvas": {"mode": "greedy"}}, "canvas.mode"),
        ({"messages": [{"role": "user", "content": "x", "name": "Ana"}]}, "messages.0.name"),
        ({"messages": [{"role": "user", "content": "x" * 100_000}]}, "messages"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"max_tokens": 257}, "max_tokens"),
        ({"n": 13}, "n"),
        ({"temperature": 2.5}, "temperature"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "word " * 400}]}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
        ({"messages": [{"role": "user", "content": "x", "reasoning_content": "y"}]}, "messages.0.reasoning_content"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_by_name(ask, body, param):
    response = ask("/v1/chat/completions", {"messages": MESSAGES, **body}, expect=400)
    found, _, message = error(response)
    assert found is not None
    assert found == param or (found.startswith(param) and param == "messages.0.content")
    assert param.rpartition(".")[2] in message or "context" in message or "empty" in message


def test_what_changes_nothing_may_be_said(ask):
    neutral = {
        "top_p": 1.0, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": None, "n": 1, "stop": None,
        "response_format": {"type": "text"}, "tool_choice": "auto", "parallel_tool_calls": True, "store": False,
        "user": "somebody", "temperature": 1, "logprobs": False, "service_tier": "auto",
    }  # fmt: skip
    assert chat(ask, seed=7, **neutral)["choices"] == [
        {**choice, "canvas": choice["canvas"] | {"seconds": pytest.approx(choice["canvas"]["seconds"], abs=60)}}
        for choice in chat(ask, seed=7)["choices"]
    ]


def test_an_answer_may_be_sent_back_as_it_came(ask):
    message = chat(ask, seed=7, max_tokens=4)["choices"][0]["message"] | {"refusal": None, "annotations": []}
    chat(ask, messages=[*MESSAGES, message, {"role": "user", "content": "hello"}])


def test_models_and_tokens(ask, model):
    (told,) = ask("/v1/models").json()["data"]
    assert told == ask("/v1/models/tiny").json()
    assert (told["id"], told["max_model_len"]) == ("tiny", 256)
    assert told["canvas"]["canvas_length"] == 8
    assert told["canvas"]["max_tokens"] == model.defaults.max_new_tokens
    assert told["canvas"]["stopping"] == "stable_and_confident"
    assert told["canvas"].keys() == {
        "max_tokens" if name == "max_new_tokens" else name for name in model.defaults.flat().keys() - {"seed", "index"}
    }
    assert told["card"]["examples"] == list(model.card.examples)
    found = ask("/tokenize", {"prompt": PROMPT}).json()
    assert found == {"tokens": model.encode_plain(PROMPT), "count": len(found["tokens"]), "max_model_len": 256}
    assert ask("/tokenize", {"messages": MESSAGES}).json()["tokens"] == model.encode(PROMPT)
    bare = ask("/tokenize", {"prompt": PROMPT, "add_special_tokens": False}).json()["tokens"]
    assert ask("/detokenize", {"tokens": bare}).json() == {"prompt": PROMPT}
    assert "<|turn>" in ask("/detokenize", {"tokens": model.encode(PROMPT)}).json()["prompt"]
    assert error(ask("/detokenize", {"tokens": [10**6]}, expect=400))[0] == "tokens"
    assert error(ask("/tokenize", {"prompt": "a", "messages": MESSAGES}, expect=400))[0] == "prompt"
    special = {"messages": MESSAGES, "add_special_tokens": False}
    assert error(ask("/tokenize", special, expect=400))[0] == "add_special_tokens"
    assert error(ask("/tokenize", {"prompt": "x" * 100_000}, expect=400))[1] == "context_length_exceeded"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/tokenize"])
def test_another_model_is_not_found(ask, path):
    body = {"messages": MESSAGES} if "chat" in path else {"prompt": "x"}
    param, code, message = error(ask(path, {**body, "model": "gpt-5"}, expect=404))
    assert (param, code) == ("model", "model_not_found")
    assert "'tiny'" in message


def test_no_model_at_all_is_no_route(ask):
    assert error(ask("/v1/models/", expect=404))[1] == "unknown_route"


def test_metrics_count_what_was_done(ask):
    def counted(name: str) -> float:
        lines = ask("/metrics").text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(f"redraft_{name} "))

    names = (
        "prompt_tokens_total",
        "generation_tokens_total",
        "request_seconds_count",
        "queue_seconds_count",
        "time_to_first_token_seconds_count",
        "denoising_steps_per_canvas_count",
        "tokens_per_forward_sum",
    )
    before = {name: counted(name) for name in names}
    told = chat(ask, seed=7, n=2)
    usage = told["usage"]
    grown = {name: counted(name) - before[name] for name in names}
    assert grown["prompt_tokens_total"] == usage["prompt_tokens"]
    assert grown["generation_tokens_total"] == usage["completion_tokens"]
    assert grown["request_seconds_count"] == grown["queue_seconds_count"] == 2
    canvases = sum(len(choice["canvas"]["steps_per_canvas"]) for choice in told["choices"])
    assert grown["denoising_steps_per_canvas_count"] == canvases
    assert grown["tokens_per_forward_sum"] > 0
    assert counted("requests_running") == counted("requests_waiting") == 0
