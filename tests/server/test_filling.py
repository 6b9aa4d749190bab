"""Texts between a prompt and a suffix, and canvases that begin as something, through the API."""

import json

import pytest

from tests.server.test_structured import ask, send, service  # noqa: F401

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


def patiently(send, asked):  # noqa: F811
    """Sends one request; again where the machine is too busy to build its constraint in time."""
    for _ in range(20):
        (response,) = send(asked)
        if response.status_code != 429:
            break
    return response


def refusal(response, param: str) -> str:
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == param
    return error["message"]


def test_the_answer_is_what_stands_between_prompt_and_suffix(send):  # noqa: F811
    asked = {"prompt": "ab", "suffix": " and so on", "max_tokens": 6, "seed": 1}
    whole = patiently(send, (COMPLETIONS, asked))
    longer = patiently(send, (COMPLETIONS, asked | {"suffix": " and so on" * 50}))
    streamed = patiently(send, (COMPLETIONS, asked | {"stream": True}))
    assert whole.status_code == 200, whole.text
    choice = whole.json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert " and so" not in choice["text"]
    assert "\x00" not in choice["text"]
    assert any("of the suffix the model sees the first" in one for one in longer.json()["warnings"])
    chunks = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
    assert "".join(one["text"] for chunk in chunks for one in chunk["choices"]) == choice["text"]


def test_a_canvas_begins_as_it_is_told_to(send):  # noqa: F811
    asked = {"prompt": "ab", "max_tokens": 12, "seed": 1, "temperature": 0}
    pinned = {"start": "so it", "pinned": True}
    (held,) = send((COMPLETIONS, asked | {"canvas": pinned}))
    assert held.json()["choices"][0]["text"].startswith("so it")
    for canvas, param, message in (
        ({"pinned": [0]}, "canvas.pinned", "canvas.pinned requires canvas.start"),
        ({"strength": 0.5}, "canvas.strength", "canvas.strength requires canvas.start"),
        ({"start": [3, None], "pinned": [1]}, "canvas.pinned", "position 1 is pinned, but no token"),
        ({"start": [3] * 5000}, "canvas.start", "5000 tokens are given, the canvas has"),
        ({"start": [10**6]}, "canvas.start", "lie outside the vocabulary"),
        ({"start": "a", "strength": 2}, "canvas.strength", "less than or equal to 1"),
        ({"start": "a", "mode": "verified"}, "canvas.start", "canvas.start has no effect in mode 'verified'"),
    ):
        (response,) = send((COMPLETIONS, asked | {"canvas": canvas}))
        assert message in refusal(response, param)


@pytest.mark.parametrize(
    ("more", "param", "message"),
    [
        ({"structured_outputs": {"regex": "a"}}, "suffix", "suffix does not go with structured_outputs.regex"),
        ({"echo": True, "max_tokens": 0}, "suffix", "suffix has no effect where echo"),
    ],
)
def test_what_does_not_go_with_a_suffix_is_refused(send, more, param, message):  # noqa: F811
    response = patiently(send, (COMPLETIONS, {"prompt": "ab", "suffix": "c", "max_tokens": 6, **more}))
    assert message in refusal(response, param)
