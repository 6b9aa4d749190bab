"""The client on a small real HTTP server: what it reads of a stream, and the name of every failure."""

import asyncio

import pytest

from redraft.client.errors import RequestFailed
from redraft.client.stream import ChunkReader, Endpoint, StreamChunk, check_url, list_models, request_fields
from tests.fakes.openai_server import USAGE, openai_server


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server():
    with openai_server() as running:
        yield running


def stream(url: str, prompt: str, **more: object) -> list[StreamChunk]:
    """The chunks of an answer, read by both clients."""
    endpoint = Endpoint(url=url, model="m", **more)

    async def run() -> list[StreamChunk]:
        async with endpoint.connect() as connection:
            return [chunk async for chunk in connection.stream(prompt)]

    chunks = asyncio.run(run())
    assert list(endpoint.stream(prompt)) == chunks
    return chunks


def complete(url: str, prompt: str):
    async def run():
        async with Endpoint(url=url, model="m").connect() as connection:
            return await connection.complete(prompt)

    return asyncio.run(run())


def test_a_streamed_answer(server):
    chunks = stream(server.url + "/", "good", key="k", fields={"max_tokens": 9})
    assert "".join(chunk.content for chunk in chunks) == "Hello"
    assert [chunk.usage for chunk in chunks if chunk.usage] == [USAGE["usage"]]
    for path, key, body in server.seen:
        assert (path, key) == ("/v1/chat/completions", "Bearer k")
        assert (body["model"], body["max_tokens"], body["stream"]) == ("m", 9, True)
        assert body["stream_options"] == {"include_usage": True}
        assert body["messages"] == [{"role": "user", "content": "good"}]


def test_thoughts_and_choices(server):
    assert "".join(chunk.reasoning for chunk in stream(server.url, "thinking")) == "hm"
    assert stream(server.url, "two choices")[0].content == "ab"
    assert not any(chunk.usage for chunk in stream(server.url, "no usage"))


def test_a_text_may_have_what_others_take_for_the_end_of_a_line(server):
    assert "".join(chunk.content for chunk in stream(server.url, "separators")) == "a\u2028b\x85c"


def test_warnings_of_an_answer():
    line = 'data: {"choices": [{"delta": {}, "finish_reason": "stop"}], "warnings": ["a", "b"]}'
    chunk = ChunkReader(is_strict=True).read(line)
    assert chunk is not None
    assert chunk.warnings == ("a", "b")


@pytest.mark.parametrize(
    ("prompt", "kind", "message"),
    [
        ("busy", "HTTP 429", "too many requests"),
        ("plain error", "HTTP 500", "no JSON object"),
        ("broken", "broken stream", "the stream ended before the answer did"),
        ("cut", "broken stream", "."),
        ("error inside", "error in the stream", "out of memory"),
        ("rubbish", "not the protocol", "'{not json' is not a chunk of a chat completion"),
        ("a list", "not the protocol", "is not a chunk"),
    ],
)
def test_a_failure_has_its_name(server, prompt, kind, message):
    endpoint = Endpoint(url=server.url, model="m")
    with pytest.raises(RequestFailed, match=message) as failed:
        stream(server.url, prompt)
    assert failed.value.kind == kind
    with pytest.raises(RequestFailed, match=message) as failed:
        list(endpoint.stream(prompt))
    assert failed.value.kind == kind


@pytest.mark.parametrize(("is_strict", "length"), [(False, 200), (True, 503)])
def test_a_long_message_is_cut_unless_it_is_redrafts_own(server, is_strict, length):
    with pytest.raises(RequestFailed) as failed:
        stream(server.url, "long error", is_strict=is_strict)
    assert len(str(failed.value)) == length


def test_a_server_that_hangs_or_is_not_there(server):
    with pytest.raises(RequestFailed) as failed:
        stream(server.url, "hangs", timeout=0.3)
    assert failed.value.kind == "timeout"
    with pytest.raises(RequestFailed) as failed:
        stream("http://127.0.0.1:9/v1", "good")
    assert failed.value.kind == "no connection"


def test_an_answer_in_one_piece(server):
    plain, canvases, unknown = (complete(server.url, name) for name in ("plain", "canvases", "no usage"))
    assert (plain.text, plain.tokens, plain.steps_per_canvas, plain.tokens_per_forward) == ("Hello", 7, (), None)
    assert (canvases.steps_per_canvas, canvases.tokens_per_forward) == ((3, 2), 1.4)
    assert (unknown.text, unknown.tokens) == ("", None)
    for prompt, kind in (("good", "not the protocol"), ("busy", "HTTP 429")):
        with pytest.raises(RequestFailed) as failed:
            complete(server.url, prompt)
        assert failed.value.kind == kind


def test_lines_without_data_are_skipped():
    reader = ChunkReader()
    assert [reader.read(line) for line in (": waiting", "", "event: draft", "data: [DONE]")] == [None] * 4
    reader.finish()
    with pytest.raises(RequestFailed, match="ended before"):
        ChunkReader().finish()


def test_the_models_of_a_server(server):
    assert list_models(server.url, timeout=5) == ["served", "other"]
    with pytest.raises(ValueError, match="lists no models"):
        list_models(server.url + "/x", timeout=5)
    with pytest.raises(ValueError, match=r"http://127.0.0.1:9/v1/models lists no models .* is the server running"):
        list_models("http://127.0.0.1:9/v1", timeout=5)


def test_settings_become_fields():
    assert request_fields({"seed": 1, "max_new_tokens": 8}) == {"seed": 1, "max_tokens": 8}
    assert request_fields({"steps": 3, "temperature": 1.0}) == {"temperature": 1.0, "canvas": {"steps": 3}}


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "/v1", ""])
def test_what_is_not_a_url_is_refused(url):
    with pytest.raises(ValueError, match=r"must be like http://localhost:8000/v1"):
        check_url(url)
    with pytest.raises(ValueError, match=r"must be like http://localhost:8000/v1"):
        Endpoint(url=url, model="m")


CONTENT = 'data: {"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}'


@pytest.mark.parametrize(
    "line", ['data: {"foo": 1}', 'data: {"choices": [{}]}', 'data: {"error": null, "choices": []}']
)
def test_only_a_strict_reader_refuses_what_redraft_never_sends(line):
    assert ChunkReader().read(line).content == ""
    with pytest.raises(RequestFailed):
        ChunkReader(is_strict=True).read(line)


def test_only_a_strict_reader_needs_the_end_of_the_stream():
    for is_strict in (False, True):
        reader = ChunkReader(is_strict=is_strict)
        assert reader.read(CONTENT).content == "x"
        if is_strict:
            with pytest.raises(RequestFailed, match="ended before the answer did"):
                reader.finish()
            reader.read("data: [DONE]")
        reader.finish()
