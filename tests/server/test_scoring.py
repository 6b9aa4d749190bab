"""Prompts that are given back and scored: `echo` of text completions, and what clients ask of the tokenizer."""

import asyncio
import json
import re

import httpx2
import pytest
import torch

import redraft
from redraft.model.batch import FlatBatch, Pass
from redraft.model.cache import KVCache
from redraft.server.app import create_app
from redraft.server.service import Service
from redraft.server.settings import ServerSettings
from tests.fakes.checkpoints import tiny_checkpoint

PROMPT = "the quick brown f\u00f6x"
SCORED = {"echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0, "seed": 1234}
"""What lm-evaluation-harness sends beside the prompt."""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> redraft.Model:
    return redraft.load(tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny"), precision="float32")


@pytest.fixture(scope="module")
def ask(model):
    """Sends a request and gives the response's body; one event loop for the module, as a server has one."""
    service = Service(ServerSettings(max_concurrent=4, max_queue=8))
    app = create_app(service)
    loop = asyncio.new_event_loop()

    async def send(method: str, path: str, body: object) -> httpx2.Response:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, json=body)

    with redraft.Engine(model) as engine:
        service.attach_engine(engine, "tiny")

        def asked(path: str, body: object = None, *, expect: int = 200) -> dict:
            response = loop.run_until_complete(send("GET" if body is None else "POST", path, body))
            assert response.status_code == expect, response.text
            assert service.slots.taken == 0
            return response.json()

        def streamed(body: dict) -> list[dict]:
            response = loop.run_until_complete(send("POST", "/v1/completions", body | {"stream": True}))
            lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
            assert lines.pop() == "[DONE]"
            return [json.loads(line) for line in lines]

        asked.streamed = streamed
        yield asked
    loop.close()


def complete(ask, **body) -> dict:
    told = ask("/v1/completions", {"prompt": PROMPT, **body})
    for choice in told["choices"]:
        del choice["canvas"]["seconds"]
    return told


def test_what_clients_ask_of_the_tokenizer(ask, model):
    """As lm-evaluation-harness does, with its remote tokenizer."""
    told = ask("/tokenizer_info")
    assert told == {"bos_token": "<bos>", "eos_token": "<eos>", "vocab_size": 400, "model_max_length": 256}
    tokenizer = model.tokenizer
    for name, token in (("<eos>", tokenizer.eos_id), ("<bos>", tokenizer.bos_id)):
        assert ask("/tokenize", {"prompt": name, "add_special_tokens": False})["tokens"] == [token]
        assert ask("/detokenize", {"tokens": [token]})["prompt"] == name
    # In a text, and where a prompt is meant, they are text.
    for text in ("<eos> ", "x<eos>", "<eos><eos>"):
        assert ask("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"] == tokenizer.encode(text)
    assert ask("/tokenize", {"prompt": "<eos>"})["tokens"] == model.encode_plain("<eos>")
    assert tokenizer.eos_id not in model.encode_plain("<eos>")


@torch.inference_mode()
def plain(model: redraft.Model, ids: list[int]) -> torch.Tensor:
    """The causal pass's log-probabilities [N, V] behind each of a prompt's tokens, from all its logits."""
    transformer = model.transformer
    batch = FlatBatch.single(torch.tensor(ids), 0, Pass.ENCODER)
    return transformer.head.logits(transformer.run(batch, (KVCache(transformer.config),)).hidden).log_softmax(dim=-1)


def test_the_log_probabilities_of_a_prompt_are_those_of_a_plain_forward(ask, model):
    ids = model.encode_plain(PROMPT)
    expected = plain(model, ids)
    for prompt in (PROMPT, ids, [ids], [PROMPT]):
        (choice,) = complete(ask, prompt=prompt, **SCORED)["choices"]
        told = choice["logprobs"]
        assert told["tokens"][: len(ids)] == [model.tokenizer.token_text(token) for token in ids]
        assert len(told["tokens"]) == len(told["token_logprobs"]) == len(told["top_logprobs"]) == len(ids) + 1
        assert told["token_logprobs"][0] is None
        assert told["top_logprobs"][0] is None
        behind = [*ids[1:], int(expected[-1].argmax())]
        wanted = expected[range(len(ids)), behind]
        torch.testing.assert_close(torch.tensor(told["token_logprobs"][1:]), wanted, rtol=0, atol=1e-5)
        best = torch.tensor([max(top.values()) for top in told["top_logprobs"][1:]])
        torch.testing.assert_close(best, expected.max(dim=-1).values, rtol=0, atol=1e-5)
        for token, score, top in zip(
            told["tokens"][1:], told["token_logprobs"][1:], told["top_logprobs"][1:], strict=True
        ):
            assert top[token] >= score
            assert len(top) <= 2


def test_whether_a_token_is_the_greedy_one_can_be_asked_as_lm_eval_does(ask, model):
    ids = [*model.encode_plain("the dog")]
    for _ in range(12):
        ids.append(int(plain(model, ids)[-1].argmax()))
    told = complete(ask, prompt=ids, **SCORED)["choices"][0]["logprobs"]
    start = len(model.encode_plain("the dog"))
    pairs = zip(told["token_logprobs"][start:], told["top_logprobs"][start:], strict=True)
    assert all(score == max(top.values()) for score, top in pairs)


def test_text_and_offsets(ask, model):
    (choice,) = complete(ask, **SCORED)["choices"]
    told, ids = choice["logprobs"], model.encode_plain(PROMPT)
    answer = choice["text"].removeprefix(PROMPT)
    assert choice["text"] == PROMPT + answer
    assert told["text_offset"][0] == told["text_offset"][1] == 0  # BOS has no text
    assert told["text_offset"] == sorted(told["text_offset"])
    assert told["text_offset"][-1] == len(PROMPT)
    for token, start, end in zip(told["tokens"], told["text_offset"][:-1], told["text_offset"][1:], strict=False):
        if "\ufffd" not in token and token != "<bos>":
            assert PROMPT[start:end].endswith(token)
    # Of token ids the control tokens are written, as /detokenize does.
    (other,) = complete(ask, prompt=ids, **SCORED)["choices"]
    assert other["text"] == "<bos>" + choice["text"]
    assert other["logprobs"]["text_offset"][1:] == [at + len("<bos>") for at in told["text_offset"][1:]]
    assert other["logprobs"]["token_logprobs"] == told["token_logprobs"]


def test_a_prompt_alone(ask, model):
    with_token = complete(ask, **SCORED)
    told = complete(ask, **SCORED | {"max_tokens": 0})
    (choice,) = told["choices"]
    assert (choice["text"], choice["finish_reason"]) == (PROMPT, "length")
    assert choice["logprobs"] == {name: values[:-1] for name, values in with_token["choices"][0]["logprobs"].items()}
    assert (told["usage"]["completion_tokens"], with_token["usage"]["completion_tokens"]) == (0, 1)
    assert told["usage"]["prompt_tokens"] == with_token["usage"]["prompt_tokens"] == len(model.encode_plain(PROMPT))
    assert told["usage"]["denoising_steps"] == 0
    # Nothing is known about it but its length.
    assert "logprobs" not in complete(ask, echo=True, max_tokens=0)["choices"][0]
    assert complete(ask, echo=True, max_tokens=0)["choices"][0]["text"] == PROMPT
    # A temperature draws nothing where nothing is written.
    assert complete(ask, **SCORED | {"max_tokens": 0, "temperature": 0.7})["choices"] == told["choices"]


def test_several_prompts_each_as_alone(ask, model):
    prompts = ["the dog", "a", "turn the page, return to the eos", PROMPT]
    told = complete(ask, prompt=prompts, **SCORED | {"logprobs": 3})
    assert [choice["index"] for choice in told["choices"]] == [0, 1, 2, 3]
    for prompt, choice in zip(prompts, told["choices"], strict=True):
        (alone,) = complete(ask, prompt=prompt, **SCORED | {"logprobs": 3})["choices"]
        assert choice["logprobs"] == alone["logprobs"]
        assert choice["text"] == alone["text"]
    ids = [model.encode_plain(prompt) for prompt in prompts]
    other = complete(ask, prompt=ids, **SCORED | {"logprobs": 3})
    assert [one["logprobs"]["token_logprobs"] for one in other["choices"]] == [
        one["logprobs"]["token_logprobs"] for one in told["choices"]
    ]


def test_logprobs_of_no_likeliest_tokens_list_the_token_itself(ask):
    (choice,) = complete(ask, **SCORED | {"logprobs": 0})["choices"]
    told = choice["logprobs"]
    for token, score, top in zip(told["tokens"][1:], told["token_logprobs"][1:], told["top_logprobs"][1:], strict=True):
        assert top == {token: score}
    assert told["token_logprobs"] == complete(ask, **SCORED)["choices"][0]["logprobs"]["token_logprobs"]


def test_streamed_it_is_the_same(ask):
    (choice,) = complete(ask, **SCORED)["choices"]
    chunks = ask.streamed({"prompt": PROMPT, **SCORED})
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == choice["text"]
    assert chunks[-1]["choices"][0]["logprobs"] == choice["logprobs"]
    assert chunks[-1]["choices"][0]["finish_reason"] == choice["finish_reason"]


def test_an_eos_behind_the_prompt_is_scored_too(tmp_path):
    """Clients cut off the last entry, whatever it is."""
    folder = tiny_checkpoint(tmp_path / "tiny")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(3, 400))}))
    model = redraft.load(folder)
    service = Service(ServerSettings())

    async def send() -> httpx2.Response:
        transport = httpx2.ASGITransport(create_app(service))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post("/v1/completions", json={"prompt": PROMPT, **SCORED})

    with redraft.Engine(model) as engine:
        service.attach_engine(engine, "tiny")
        told = asyncio.run(send()).json()
    (choice,) = told["choices"]
    assert (choice["text"], choice["finish_reason"]) == (PROMPT, "stop")
    assert len(choice["logprobs"]["tokens"]) == len(model.encode_plain(PROMPT)) + 1


def test_echo_without_logprobs_goes_before_the_answer(ask, model):
    asked = {"prompt": ["the dog", PROMPT], "seed": 3, "n": 2, "max_tokens": 12}
    without = ask("/v1/completions", asked)
    told = ask("/v1/completions", asked | {"echo": True})
    for index, choice in enumerate(told["choices"]):
        assert choice["text"] == asked["prompt"][index // 2] + without["choices"][index]["text"]
    texts = [""] * 4
    for chunk in ask.streamed(asked | {"echo": True}):
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == [choice["text"] for choice in told["choices"]]
    ids = model.encode_plain("the dog")
    (choice,) = complete(ask, prompt=ids, seed=3, max_tokens=12, echo=True)["choices"]
    assert choice["text"] == "<bos>" + told["choices"][0]["text"]


@pytest.mark.parametrize(
    ("body", "param", "reason"),
    [
        ({"max_tokens": 16}, "max_tokens", "max_tokens is 16, .* send 0 or 1"),
        ({"max_tokens": None}, "max_tokens", "max_tokens is left out, .* send 0 or 1"),
        ({"n": 2}, "n", "scores the prompt by the causal pass; leave it out"),
        ({"temperature": 0.7}, "temperature", "scores the prompt"),
        ({"ignore_eos": True}, "ignore_eos", "scores the prompt"),
        ({"canvas": {"steps": 4}}, "canvas.steps", "scores the prompt"),
        ({"logprobs": 21}, "logprobs", "less than or equal to 20"),
        ({"prompt": [[3, 4], [3, 10**6]]}, "prompt", r"token ids \[1000000\] of the prompt lie outside the vocabulary"),
        ({"prompt": [3] * 256}, "prompt", "256 tokens and max_tokens is 1; the context holds 256: shorten"),
        ({"echo": False, "max_tokens": 0}, "max_tokens", "max_tokens is 0, must be at least 1"),
    ],
)
def test_what_a_scored_prompt_cannot_have(ask, body, param, reason):
    error = ask("/v1/completions", {"prompt": PROMPT, **SCORED, **body}, expect=400)["error"]
    assert error["param"] == param
    assert re.search(reason, error["message"])


def test_a_scored_prompt_may_fill_the_context(ask):
    told = complete(ask, prompt=[3] * 256, **SCORED | {"max_tokens": 0})
    assert len(told["choices"][0]["logprobs"]["tokens"]) == 256
    told = complete(ask, prompt=[3] * 255, **SCORED)
    assert len(told["choices"][0]["logprobs"]["tokens"]) == 256


def test_what_says_nothing_may_stand_beside_it(ask):
    plainly = complete(ask, **SCORED)["choices"]
    told = complete(ask, **SCORED, n=1, ignore_eos=False, stop=[], canvas={"stream_drafts": False}, top_p=1)
    assert told["choices"] == plainly
    # Nothing is continued: there is nothing to warn of.
    assert "warnings" not in complete(ask, **SCORED, strict=True)


def test_a_model_whose_answers_are_scored_for_their_trust_scores_prompts_too(model, ask, monkeypatch):
    monkeypatch.setattr(type(model), "is_scored", lambda model, asked: asked is None)
    assert complete(ask, prompt=PROMPT, **SCORED)["choices"][0]["logprobs"]["token_logprobs"]
