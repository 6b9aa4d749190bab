import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import redraft.engine
from redraft.engine import Limits, Phase, QueueFull
from redraft.engine.scheduler import Piece, Scheduler, Task


def task(unread: int = 0, *, canvas: int = 8, most: int = 100, phase: Phase = Phase.PREFILL, branch=None) -> Task:
    return Task(canvas_length=canvas, most_tokens=most, phase=phase, unread=unread, branch=branch)


def scheduler(*tasks: Task, **limits: int) -> Scheduler:
    made = Scheduler(Limits(**limits))
    for one in tasks:
        made.submit(one)
    made.admit()
    return made


def test_it_imports_no_torch():
    # The room's own __init__ imports the runner; so the module is loaded beside it, where torch cannot be had.
    folder = Path(redraft.engine.__file__).parent
    code = f"""
import sys, types
sys.modules["torch"] = None
package = types.ModuleType("redraft.engine")
package.__path__ = [{str(folder)!r}]
sys.modules["redraft.engine"] = package
from redraft.engine.scheduler import Limits, Scheduler
Scheduler(Limits()).plan()
"""
    source = str(folder.parent.parent)
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": source}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_forward_is_filled_with_all_three_kinds_of_work():
    prompt, canvas, commit = task(90), task(phase=Phase.DENOISE), task(8, phase=Phase.COMMIT)
    made = scheduler(prompt, canvas, commit, forward_tokens=60)
    # The prompt has its share, the commit takes the next canvas's first step along, and the prompt gets the rest.
    assert set(made.plan()) == {Piece(prompt, 36, False), Piece(canvas, 0, True), Piece(commit, 8, True)}


def test_a_last_chunk_takes_the_first_canvas_along_where_it_fits():
    one = task(10)
    assert scheduler(one, forward_tokens=18).plan() == [Piece(one, 10, True)]
    one = task(10)
    assert scheduler(one, forward_tokens=17).plan() == [Piece(one, 10, False)]


def test_a_chunk_ends_where_a_shared_prefix_does():
    one = task(30, branch=12)
    assert scheduler(one).plan() == [Piece(one, 12, False)]


def test_admission_by_count_and_by_tokens_in_order():
    tasks = [task(1, most=most) for most in (50, 60, 10)]
    made = scheduler(*tasks, admitted_tokens=100)
    # The third would fit, but it came after the second.
    assert made.admitted == tasks[:1]
    made.remove(tasks[0])
    assert made.admit() == tasks[1:]
    assert scheduler(*[task(1) for _ in range(5)], admitted_requests=2).admitted != []
    assert len(scheduler(*[task(1) for _ in range(5)], admitted_requests=2).admitted) == 2


def test_a_full_queue_refuses():
    made = scheduler(task(1), admitted_requests=1, queued_requests=2)
    made.submit(task(1))
    made.submit(task(1))
    with pytest.raises(QueueFull, match="2 requests are waiting, the limit is 2"):
        made.submit(task(1))
    assert len(made.waiting) == 2


def test_what_can_never_fit_is_refused_with_the_numbers():
    with pytest.raises(ValueError, match=r"canvas of 8 tokens .* at most 7.*raise forward_tokens"):
        scheduler(task(1), forward_tokens=7)
    with pytest.raises(ValueError, match=r"may come to hold 100 tokens, more than the engine's 99"):
        scheduler(task(1), admitted_tokens=99)


@pytest.mark.parametrize("name", ["forward_tokens", "admitted_requests", "admitted_tokens", "queued_requests"])
def test_limits_are_checked(name):
    with pytest.raises(ValueError, match=f"{name} is 0, must be at least 1"):
        Limits(**{name: 0})


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 16), st.integers(1, 6)), min_size=1, max_size=12),
    st.integers(16, 120),
    st.integers(1, 12),
)
def test_nobody_starves_and_no_forward_is_too_large(asked, budget, admitted):
    """(prompt, canvas, canvases of one step) of each request; simulated without a model."""
    made = Scheduler(Limits(forward_tokens=budget, admitted_requests=admitted))
    canvases = {}
    for prompt, canvas, count in asked:
        made.submit(one := task(prompt, canvas=canvas, most=prompt + canvas * count))
        canvases[one] = count
    since: dict[Task, int] = {}
    while made.waiting or made.admitted:
        for one in made.admit():
            since[one] = 0
        pieces = made.plan()
        assert pieces
        assert 0 < sum(piece.tokens for piece in pieces) <= budget
        assert len({piece.task for piece in pieces}) == len(pieces)
        served = {piece.task for piece in pieces}
        for one in made.admitted:
            since[one] = 0 if one in served else since[one] + 1
            # At most once after each of the others.
            assert since[one] < admitted
        for piece in pieces:
            one = piece.task
            assert piece.tokens > 0
            one.unread -= piece.encoded
            assert one.unread >= 0
            if piece.denoises:
                assert one.unread == 0
                canvases[one] -= 1
                one.unread, one.phase = one.canvas_length, Phase.COMMIT
                if not canvases[one]:
                    made.remove(one)
            elif not one.unread:
                one.phase = Phase.DENOISE
    assert not any(canvases.values())


def test_a_short_answer_does_not_wait_for_a_long_prompt():
    long, short = task(10_000, most=20_000), task(5)
    made = scheduler(long, short, forward_tokens=64)
    pieces = {piece.task: piece for piece in made.plan()}
    assert pieces[short] == Piece(short, 5, True)
    # And a long prompt is not put off by those that denoise: what they leave is its own.
    assert pieces[long].encoded == 64 - 13
