"""/v1/files and /v1/batches as OpenAI's client speaks them, for several owners, and through a server's death."""

import io
import json
import time

import openai
import pytest

import redraft
from tests.server.conftest import Command, until


def lines(number, *, url="/v1/chat/completions", **body):
    asked = {"max_tokens": 6, "canvas": {"steps": 2, "canvas_length": 6}, **body}
    return "".join(
        json.dumps({
            "custom_id": f"r{n}", "method": "POST", "url": url,
            "body": {"messages": [{"role": "user", "content": f"row {n}"}], **asked},
        }) + "\n"
        for n in range(number)
    ).encode()  # fmt: skip


def client_of(server, key="none"):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=60)


def begin(client, content, **given):
    file = client.files.create(file=("in.jsonl", io.BytesIO(content)), purpose="batch")
    asked = {"endpoint": "/v1/chat/completions", "completion_window": "24h", **given}
    return file, client.batches.create(input_file_id=file.id, **asked)


def wait_for(client, id, *statuses):
    end = time.monotonic() + 60
    while (batch := client.batches.retrieve(id)).status not in statuses:
        assert time.monotonic() < end, batch
        time.sleep(0.02)
    return batch


ENDED = ("completed", "failed", "cancelled", "expired")


@pytest.fixture
def server(start, tmp_path):
    return start(state=tmp_path / "state", api_key="one", owner_keys=("two",))


def test_the_whole_flow_of_openais_client(server):
    with client_of(server, "one") as client:
        content = lines(5) + lines(1, max_tokens=9999).replace(b"r0", b"bad")
        file, batch = begin(client, content, metadata={"for": "me"})
        assert (file.purpose, file.bytes, file.filename) == ("batch", len(content), "in.jsonl")
        assert client.files.retrieve(file.id) == file
        assert client.files.content(file.id).content == content
        batch = wait_for(client, batch.id, *ENDED)
        assert batch.status == "completed", batch
        assert batch.request_counts.to_dict() == {"total": 6, "completed": 5, "failed": 1}
        assert batch.metadata == {"for": "me"}
        assert batch.completed_at >= batch.in_progress_at >= batch.created_at
        answers = {}
        for line in client.files.content(batch.output_file_id).text.splitlines():
            answers[json.loads(line)["custom_id"]] = json.loads(line)["response"]["body"]
        assert sorted(answers) == [f"r{n}" for n in range(5)]
        seed = answers["r3"]["choices"][0]["canvas"]["seed"]
        alone = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "row 3"}], seed=seed, max_tokens=6,
            extra_body={"canvas": {"steps": 2, "canvas_length": 6}},
        )  # fmt: skip
        assert answers["r3"]["choices"][0]["message"]["content"] == alone.choices[0].message.content
        (error,) = client.files.content(batch.error_file_id).text.splitlines()
        assert json.loads(error)["custom_id"] == "bad"
        assert json.loads(error)["response"]["status_code"] == 400
        assert [one.id for one in client.batches.list()] == [batch.id]
        assert [one.purpose for one in client.files.list()] == ["batch_output", "batch_output", "batch"]
        assert [len(page.data) for page in client.files.list(limit=2).iter_pages()] == [2, 1]
        assert client.files.delete(file.id).deleted
        with pytest.raises(openai.NotFoundError, match="there is no file"):
            client.files.retrieve(file.id)


def test_an_owner_sees_nothing_of_another(server):
    with client_of(server, "one") as one, client_of(server, "two") as two:
        file, batch = begin(one, lines(1))
        for refused in (
            lambda: two.files.retrieve(file.id),
            lambda: two.files.content(file.id),
            lambda: two.files.delete(file.id),
            lambda: two.batches.retrieve(batch.id),
            lambda: two.batches.cancel(batch.id),
            lambda: begin_with(two, file.id),
        ):
            with pytest.raises(openai.NotFoundError):
                refused()
        assert (two.files.list().data, two.batches.list().data) == ([], [])
        wait_for(one, batch.id, "completed")
        with client_of(server, "three") as three, pytest.raises(openai.AuthenticationError):
            three.files.list()


def begin_with(client, file):
    return client.batches.create(input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h")


def test_bad_input(server):
    with client_of(server, "one") as client:
        for content, told in (
            (lines(1) + b"{\n", "line 2 is not JSON"),
            (lines(1) + lines(1), "lines 1 and 2 have the same id 'r0'"),
            (lines(1, temprature=1), "line 1: temprature is not supported; did you mean temperature?"),
            (lines(1, url="/v1/completions"), "line 1: messages is not supported; send it to /v1/chat/comp"),
            (b"", "has no rows"),
        ):
            batch = wait_for(client, begin(client, content)[1].id, *ENDED)
            assert batch.status == "failed"
            assert told in batch.errors.data[0].message
        with pytest.raises(openai.BadRequestError, match="purpose is 'fine-tune', must be 'batch'"):
            client.files.create(file=b"x", purpose="fine-tune")
        with pytest.raises(openai.BadRequestError, match="completion_window"):
            begin(client, lines(1), completion_window="1h")
        with pytest.raises(openai.ConflictError, match="the batch is failed already"):
            client.batches.cancel(batch.id)
        with pytest.raises(openai.BadRequestError, match="limit is 0"):
            client.batches.list(limit=0)


def test_a_batch_can_be_cancelled(server):
    with client_of(server, "one") as client:
        file, batch = begin(client, lines(2000))
        wait_for(client, batch.id, "in_progress")
        until(lambda: client.batches.retrieve(batch.id).request_counts.completed)
        with pytest.raises(openai.ConflictError, match="is working on this file: cancel it first"):
            client.files.delete(file.id)
        assert client.batches.cancel(batch.id).status == "cancelling"
        batch = wait_for(client, batch.id, *ENDED)
        assert batch.status == "cancelled"
        answers = client.files.content(batch.output_file_id).text.splitlines()
        assert 0 < len(answers) == batch.request_counts.completed < 2000


def test_without_a_state_there_are_no_such_routes(start):
    told = r"there is no route /v1/(batches|files/x); .*: redraft serve --state FOLDER"
    with client_of(start()) as client:
        for ask in (client.batches.list, lambda: client.files.retrieve("x")):
            with pytest.raises(openai.NotFoundError, match=told):
                ask()
        told = r"there is no route /v1/files; .*: redraft serve --state FOLDER"
        with pytest.raises(openai.NotFoundError, match=told):
            client.files.create(file=b"{}", purpose="batch")
        with pytest.raises(openai.NotFoundError, match=told):
            client.post("/files", body={"purpose": "batch"}, cast_to=object)


def test_the_engine_tells_of_a_rows_tokens_only_where_a_stop_text_needs_them(server, monkeypatch):
    told = []
    events = redraft.Engine.events

    def spy(self, request, queue=None, *, at_once=False):
        told.append(at_once)
        return events(self, request, queue, at_once=at_once)

    monkeypatch.setattr(redraft.Engine, "events", spy)
    with client_of(server, "one") as client:
        for given, at_once in (({}, True), ({"stop": ["e"]}, False)):
            batch = wait_for(client, begin(client, lines(1, **given))[1].id, *ENDED)
            assert batch.request_counts.completed == 1
            assert told.pop() is at_once
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hello"}], max_tokens=6)
    assert told == [False]


def test_a_batch_survives_its_server(folder, tmp_path):
    state = tmp_path / "state"
    first = Command(folder, "--state", state).wait()
    with client_of(first) as client:
        batch = begin(client, lines(100))[1]
        journal = state / "jobs" / batch.id / "journal.jsonl"
        until(lambda: journal.exists() and journal.read_bytes().count(b"\n") > 5)
    first.process.kill()
    first.process.communicate()
    kept = journal.read_bytes().count(b"\n")
    second = Command(folder, "--state", state).wait()
    with client_of(second) as client:
        batch = wait_for(client, batch.id, *ENDED)
        ids = [json.loads(line)["custom_id"] for line in client.files.content(batch.output_file_id).text.splitlines()]
    second.stop()
    assert 5 < kept < 100
    assert sorted(ids) == sorted(f"r{n}" for n in range(100))
    assert batch.request_counts.to_dict() == {"total": 100, "completed": 100, "failed": 0}
