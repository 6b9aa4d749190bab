"""Servers on a tiny checkpoint: in a thread of this process, and as the command in a process of its own."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

import redraft
from redraft.server.lifecycle import ModelServer
from redraft.server.service import Service
from redraft.server.settings import ServerSettings
from tests.fakes.checkpoints import tiny_checkpoint
from tests.fakes.tokenizers import THINKING_TEMPLATE, save_checkpoint, thinking_tokenizer

ROOT = Path(__file__).parents[2]
SECONDS = 60
"""The machine may be busy with something else; nothing here waits for so long."""


class InThread:
    """A server in a thread. `settings` are fields of ServerSettings; `load` gives the model, else the folder does."""

    def __init__(self, folder: Path, *, load: Any = None, **settings: Any) -> None:
        load = load or (lambda: redraft.load(str(folder)))
        self.server = ModelServer(ServerSettings(**{"port": 0, **settings}), load)
        self.url = self.server.url
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def service(self):
        return self.server.service

    def wait(self) -> "InThread":
        """Waits until requests are answered."""
        until(lambda: self.service.unavailable_reason() is None or self.error)
        return self

    def client(self, **options: Any) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=SECONDS, trust_env=False, verify=False, **options)

    def stop(self) -> None:
        if self._thread.is_alive():
            self.server.stop()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            asyncio.run(self.server.run())
        except BaseException as error:
            self.error = error


class Command:
    """`redraft serve FOLDER --port 0 ...` as a process, after a program `before`; `wait` reads its line."""

    def __init__(self, folder: Path, *arguments: object, before: str = "") -> None:
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        program = f"{before}\nfrom redraft.cli import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "serve", str(folder), "--port", "0", *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.line = ""
        self.url = ""

    def wait(self) -> "Command":
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        assert self.line.startswith("redraft: serving "), (self.line, self.process.communicate())
        self.url = self.line.split(" at ")[1].split(" ")[0]
        return self

    def client(self, **options: Any) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=SECONDS, trust_env=False, verify=False, **options)

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """Waits for it; exit code, standard output and standard error."""
        out, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, self.line + out, err

    def stop(self) -> tuple[int, str, str]:
        if self.process.poll() is None:
            self.signal()
        return self.end()


@contextmanager
def bundled_service() -> Iterator[Service]:
    """A server's service with the bundled model, without a server."""
    service = Service(ServerSettings())
    with redraft.Engine(redraft.load()) as engine:
        service.attach_engine(engine, "bundled")
        yield service
        service.close()


@contextmanager
def posting(app: Any) -> Iterator[Callable[..., httpx2.Response]]:
    """Gives what posts the fields of a request to a path of an app."""
    loop = asyncio.new_event_loop()

    async def answer(path: str, body: dict[str, Any]) -> httpx2.Response:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost", timeout=SECONDS) as client:
            return await client.post(path, json=body)

    yield lambda path, **body: loop.run_until_complete(answer(path, body))
    loop.close()


def made_of(kind: type[redraft.Model], folder: Path) -> redraft.Model:
    """A checkpoint's model as one of a subclass."""
    model = redraft.load(folder)
    return kind(model.name, model.transformer, model.tokenizer, model.defaults, model.card)


def until(true: Any, seconds: float = SECONDS) -> None:
    """Waits until `true()` is."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """The command sets the loggers of this process up, with a standard error that ends with its test."""
    loggers = [logging.getLogger(name) for name in ("redraft.server", "uvicorn")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="session")
def thinking_folder(tmp_path_factory) -> Path:
    """The same with a template that knows tools and thoughts."""
    path = tiny_checkpoint(tmp_path_factory.mktemp("thinking") / "thinking", max_context=1024)
    save_checkpoint(path, thinking_tokenizer(), chat_template=THINKING_TEMPLATE)
    return path


@pytest.fixture(scope="module")
def server(folder) -> Iterator[InThread]:
    made = InThread(folder).wait()
    yield made
    made.stop()


@pytest.fixture
def start(folder) -> Iterator[Any]:
    """Starts servers in this process that end with the test."""
    made: list[InThread] = []

    def begin(where: Path = folder, *, wait: bool = True, **settings: Any) -> InThread:
        made.append(InThread(where, **settings))
        return made[-1].wait() if wait else made[-1]

    yield begin
    for one in made:
        one.stop()


@pytest.fixture
def command(folder) -> Iterator[Any]:
    """Starts `redraft serve`, which ends with the test."""
    made: list[Command] = []

    def begin(*arguments: object, where: Path = folder, wait: bool = True, before: str = "") -> Command:
        made.append(Command(where, *arguments, before=before))
        return made[-1].wait() if wait else made[-1]

    yield begin
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()
