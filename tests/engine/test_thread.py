"""The engine in its thread."""

import threading
import time
from pathlib import Path

import pytest

from redraft.diffusion.settings import SamplerSettings
from redraft.engine import (
    Admitted,
    Cancelled,
    CanvasCommitted,
    EngineThread,
    Failed,
    Finished,
    Limits,
    QueueFull,
    Request,
    Shutdown,
    StepTaken,
)
from redraft.generation.loop import generate
from redraft.model.readout.streamed import streamed_readout
from tests.fakes.models import tiny_model

PROMPT = (3, 4, 5, 6, 7)
SETTINGS = SamplerSettings(max_new_tokens=16, steps=3, seed=5)
# More than any test waits for.
ENDLESS = SETTINGS.replace(max_new_tokens=3_900_000, steps=4096, confidence_threshold=1e-30)


@pytest.fixture(scope="module")
def model():
    return tiny_model(eos_ids=(), max_context=4_000_000)


@pytest.fixture
def loop(model):
    made = EngineThread(model, Limits(admitted_tokens=100_000_000, admitted_requests=4, queued_requests=2))
    yield made
    made.shutdown(finish=False)


class Listener:
    """A sink that keeps what it is told; `wait` until it has been told something of that kind."""

    def __init__(self) -> None:
        self.events = []
        self._changed = threading.Condition()

    def __call__(self, event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait(self, *kinds):
        with self._changed:
            assert self._changed.wait_for(lambda: any(isinstance(e, kinds) for e in self.events), timeout=120)
            return next(event for event in self.events if isinstance(event, kinds))


def submit(loop: EngineThread, id: str, settings=SETTINGS, **more) -> Listener:
    listener = Listener()
    loop.submit(Request(id=id, prompt=PROMPT, settings=settings, **more), listener)
    return listener


def test_an_answer_and_its_events(loop, model):
    listener = submit(loop, "a", drafts=True)
    finished = listener.wait(Finished)
    assert finished.generation.token_ids == generate(model, PROMPT, SETTINGS).token_ids
    assert [type(event) for event in listener.events[-2:]] == [CanvasCommitted, Finished]
    assert [type(event) for event in listener.events[:2]] == [Admitted, StepTaken]
    assert loop.held == ()


def test_cancelling(loop):
    one, other = submit(loop, "a", ENDLESS, drafts=True), submit(loop, "b", ENDLESS)
    one.wait(StepTaken)
    assert loop.cancel("a")
    one.wait(Cancelled)
    assert isinstance(one.events[-1], Cancelled)
    assert loop.held == ("b",)
    assert not loop.cancel("a")
    # Its name is free again.
    submit(loop, "a").wait(Finished)
    assert [type(event) for event in other.events] == [Admitted]


def test_a_sink_that_raises_ends_its_own_request_only(loop):
    def broken(_):
        raise RuntimeError("nobody listens")

    loop.submit(Request(id="a", prompt=PROMPT, settings=ENDLESS, drafts=True), broken)
    submit(loop, "b").wait(Finished)
    submit(loop, "c").wait(Finished)
    assert loop.held == ()


def test_refusals_come_at_once(loop):
    with pytest.raises(ValueError, match="the prompt is empty"):
        loop.submit(Request(id="a", prompt=(), settings=SETTINGS), Listener())
    with pytest.raises(ValueError, match=r"stop ids \[99\] lie outside the vocabulary"):
        submit(loop, "a", stop_ids=(99,))
    submit(loop, "a", ENDLESS)
    with pytest.raises(ValueError, match="already holds a request 'a'"):
        submit(loop, "a")


def test_a_full_queue_refuses(loop):
    busy = [submit(loop, str(i), ENDLESS, drafts=True) for i in range(2)]
    for listener in busy:
        listener.wait(StepTaken)
    for i in range(2, 4):
        submit(loop, str(i), ENDLESS, drafts=True).wait(StepTaken)
    submit(loop, "4")
    submit(loop, "5")
    with pytest.raises(QueueFull, match="the queue holds 2 requests, the limit is 2"):
        submit(loop, "6")
    loop.cancel("4")


def test_the_queue_is_counted_right_from_many_threads(model):
    loop = EngineThread(model, Limits(admitted_requests=2, queued_requests=2))
    listeners = []

    def ask(name: str) -> None:
        for i in range(15):
            listeners.append(listener := Listener())
            request = Request(id=f"{name}{i}", prompt=PROMPT, settings=SETTINGS.replace(max_new_tokens=8, steps=1))
            while True:
                try:
                    loop.submit(request, listener)
                except QueueFull:
                    time.sleep(0.001)
                else:
                    break

    threads = [threading.Thread(target=ask, args=name) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loop.shutdown()
    assert len(listeners) == 60
    assert all(isinstance(listener.events[-1], Finished) for listener in listeners)


def test_shutdown_finishes_what_it_holds(model):
    loop = EngineThread(model)
    listeners = [submit(loop, str(i)) for i in range(3)]
    done = loop.shutdown()
    assert set(done.finished) | {str(i) for i in range(3) if listeners[i].events} == {"0", "1", "2"}
    assert done.cancelled == ()
    assert all(isinstance(listener.events[-1], Finished) for listener in listeners)
    with pytest.raises(RuntimeError, match="shut down"):
        submit(loop, "9")


def test_shutdown_cancels_what_it_holds(loop):
    one, other = submit(loop, "a", ENDLESS, drafts=True), submit(loop, "b", ENDLESS)
    one.wait(StepTaken)
    assert loop.shutdown(finish=False) == Shutdown(finished=(), cancelled=("a", "b"))
    assert isinstance(one.events[-1], Cancelled)
    assert isinstance(other.events[-1], Cancelled)


def test_a_forward_that_raises_fails_only_whose_fault_it_is(loop, model, monkeypatch):
    forward = type(model).forward

    def failing(this, batch, context):
        if any(one.position == 0 and batch.token_ids[one.start] == 60 for one in batch.segments):
            raise RuntimeError("out of memory")
        return forward(this, batch, context)

    monkeypatch.setattr(type(model), "forward", failing)
    bad = Listener()
    loop.submit(Request(id="bad", prompt=(60,), settings=SETTINGS), bad)
    good = submit(loop, "good")
    assert str(bad.wait(Failed).error) == "out of memory"
    assert good.wait(Finished).generation.token_ids == generate(model, PROMPT, SETTINGS).token_ids


def test_a_readout_that_raises_leaves_the_caches_as_they_were(loop, model, monkeypatch):
    calls = []

    def failing(*args, **named):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return streamed_readout(*args, **named)

    monkeypatch.setattr("redraft.engine.modes.diffusion.streamed_readout", failing)
    listeners = [submit(loop, str(i)) for i in range(2)]
    wanted = generate(model, PROMPT, SETTINGS).token_ids
    assert [listener.wait(Finished, Failed).generation.token_ids for listener in listeners] == [wanted] * 2


def test_what_is_cancelled_while_the_engine_ends_was_not_finished(model):
    loop = EngineThread(model, Limits(admitted_tokens=100_000_000))
    listeners = {name: submit(loop, name, ENDLESS if name == "b" else SETTINGS, drafts=True) for name in "ab"}
    listeners["b"].wait(StepTaken)
    threading.Thread(target=lambda: (time.sleep(0.2), loop.cancel("b"))).start()
    done = loop.shutdown()
    assert done.cancelled == ("b",)
    assert "b" not in done.finished


def test_a_bug_leaves_nobody_waiting(model, monkeypatch):
    loop = EngineThread(model)
    monkeypatch.setattr(loop.core, "step", lambda: 1 / 0)
    assert "division by zero" in str(submit(loop, "a").wait(Failed).error)
    with pytest.raises(RuntimeError, match=r"the engine has stopped: .*division by zero"):
        submit(loop, "b")
    loop.shutdown()


@pytest.mark.slow
def test_ten_thousand_short_requests_leave_memory_flat(model):
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    loop = EngineThread(model, Limits(prefix_tokens=2000))
    settings = SETTINGS.replace(max_new_tokens=8, canvas_length=4, steps=1)

    def run(start: int) -> None:
        for i in range(start, start + 500):
            listener = Listener()
            prompt = tuple((i // 60**k) % 60 for k in range(1 + i % 30))
            loop.submit(Request(id=str(i), prompt=prompt, settings=settings), listener)
        listener.wait(Finished)

    sizes = []
    for start in range(0, 10_000, 500):
        run(start)
        sizes.append(resident())
    print("MiB after each 500 requests:", *(f"{size / 2**20:.1f}" for size in sizes))
    loop.shutdown()
    # What allocators and caches take once is taken after a fifth of them; a kilobyte lost by each would be 8 MB.
    assert sizes[-1] - sizes[3] < 4 * 2**20


def test_a_request_is_checked_and_made_into_a_sequence_once(model, monkeypatch):
    """Where no seed is given one is drawn, and once."""
    drawn = []
    monkeypatch.setattr("secrets.randbelow", lambda limit: drawn.append(limit) or 7)
    engine = EngineThread(model)
    listener = submit(engine, "a", SETTINGS.replace(seed=None))
    engine.shutdown()
    assert len(drawn) == 1
    assert listener.events[-1].generation.seed == 7


def test_work_is_done_between_forwards_and_ends_with_the_engine():
    engine = EngineThread(tiny_model())
    assert engine.call(lambda: 3).result(timeout=60) == 3
    with pytest.raises(ValueError, match="no good"):
        engine.call(lambda: (_ for _ in ()).throw(ValueError("no good"))).result(timeout=60)
    started, may_end = threading.Event(), threading.Event()
    engine.call(lambda: (started.set(), may_end.wait(60)))
    waiting = [engine.call(lambda: 4) for _ in range(3)]
    assert started.wait(60)
    closer = threading.Thread(target=engine.shutdown, kwargs={"finish": False})
    closer.start()
    while engine._closing is None:
        time.sleep(0.01)
    may_end.set()
    closer.join(60)
    assert all(future.cancelled() for future in waiting)
    with pytest.raises(RuntimeError, match="shut down"):
        engine.call(lambda: 5)
