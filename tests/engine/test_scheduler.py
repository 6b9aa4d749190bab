import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import redraft.engine
from redraft.engine import Limits, QueueFull
from redraft.engine.scheduler import BACKGROUND_TURN, Scheduler
from redraft.engine.sequence import Chunk, Phase, Sequence


def sequence(
    pending: int = 0, *, canvas: int = 8, most: int = 100, phase: Phase = Phase.PREFILL, branch=None, background=False
):
    """A sequence with no more to it than the scheduler looks at."""
    nothing = dict.fromkeys(("request", "mode", "record", "cache"))
    return Sequence(
        canvas_length=canvas, max_tokens=most, phase=phase, pending=[0] * pending, branch=branch,
        is_background=background, **nothing,
    )  # fmt: skip


def scheduler(*sequences: Sequence, **limits: int) -> Scheduler:
    made = Scheduler(Limits(**limits))
    for one in sequences:
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
    prompt, canvas, commit = sequence(90), sequence(), sequence(8, phase=Phase.COMMIT)
    made = scheduler(prompt, canvas, commit, forward_tokens=60)
    # The prompt has its share, the commit takes the next canvas's first step along, and the prompt gets the rest.
    assert set(made.plan()) == {Chunk(prompt, 36, False), Chunk(canvas, 0, True), Chunk(commit, 8, True)}


def test_a_last_chunk_takes_the_first_canvas_along_where_it_fits():
    one = sequence(10)
    assert scheduler(one, forward_tokens=18).plan() == [Chunk(one, 10, True)]
    one = sequence(10)
    assert scheduler(one, forward_tokens=17).plan() == [Chunk(one, 10, False)]


def test_a_chunk_ends_where_a_shared_prefix_does():
    one = sequence(30, branch=12)
    assert scheduler(one).plan() == [Chunk(one, 12, False)]


def test_admission_by_count_and_by_tokens_in_order():
    sequences = [sequence(1, most=most) for most in (50, 60, 10)]
    made = scheduler(*sequences, admitted_tokens=100)
    # The third would fit, but it came after the second.
    assert made.admitted == sequences[:1]
    made.remove(sequences[0])
    assert made.admit() == sequences[1:]
    assert scheduler(*[sequence(1) for _ in range(5)], admitted_requests=2).admitted != []
    assert len(scheduler(*[sequence(1) for _ in range(5)], admitted_requests=2).admitted) == 2


def test_a_full_queue_refuses():
    made = scheduler(sequence(1), admitted_requests=1, queued_requests=2)
    made.submit(sequence(1))
    made.submit(sequence(1))
    with pytest.raises(QueueFull, match="the queue holds 2 requests, the limit is 2"):
        made.submit(sequence(1))
    assert len(made.waiting) == 2


def test_what_can_never_fit_is_refused_with_the_numbers():
    with pytest.raises(ValueError, match=r"canvas of 8 tokens .* at most 7.*raise forward_tokens"):
        scheduler(sequence(1), forward_tokens=7)
    with pytest.raises(ValueError, match=r"may come to hold 100 tokens, more than the engine's 99"):
        scheduler(sequence(1), admitted_tokens=99)


@pytest.mark.parametrize("name", ["forward_tokens", "admitted_requests", "admitted_tokens", "queued_requests"])
def test_limits_are_checked(name):
    with pytest.raises(ValueError, match=f"{name} is 0, must be at least 1"):
        Limits(**{name: 0})


def test_short_requests_that_keep_coming_do_not_starve_a_long_one():
    made = scheduler(sequence(1, canvas=14), forward_tokens=16, admitted_requests=2)
    made.plan()[0].sequence.pending.clear()
    for _ in range(20):
        made.submit(short := sequence(1, canvas=2))
        made.admit()
        served = {chunk.sequence for chunk in made.plan()}
        if made.admitted[0] in served:
            return
        assert short in served
        made.remove(short)
    pytest.fail("the long one was never served")


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 16), st.integers(1, 6)), min_size=1, max_size=12),
    st.integers(16, 120),
    st.integers(1, 12),
)
@example([(99, 14, 2), (46, 3, 1), (1, 2, 1)], 16, 2)
def test_nobody_starves_and_no_forward_is_too_large(asked, budget, admitted):
    """(prompt, canvas, canvases of one step) of each request; simulated without a model."""
    made = Scheduler(Limits(forward_tokens=budget, admitted_requests=admitted))
    canvases = {}
    for prompt, canvas, count in asked:
        made.submit(one := sequence(prompt, canvas=canvas, most=prompt + canvas * count))
        canvases[one] = count
    since: dict[Sequence, int] = {}
    while made.waiting or made.admitted:
        for one in made.admit():
            since[one] = 0
        chunks = made.plan()
        assert chunks
        assert 0 < sum(chunk.tokens for chunk in chunks) <= budget
        assert len({chunk.sequence for chunk in chunks}) == len(chunks)
        served = {chunk.sequence for chunk in chunks}
        for one in made.admitted:
            since[one] = 0 if one in served else since[one] + 1
            # At most once after each of the others.
            assert since[one] < admitted
        for chunk in chunks:
            one = chunk.sequence
            assert chunk.tokens > 0
            assert chunk.encode <= len(one.pending)
            del one.pending[: chunk.encode]
            if chunk.denoises:
                assert not one.pending
                canvases[one] -= 1
                one.pending, one.phase = [0] * one.canvas_length, Phase.COMMIT
                if not canvases[one]:
                    made.remove(one)
    assert not any(canvases.values())


def test_a_short_answer_does_not_wait_for_a_long_prompt():
    long, short = sequence(10_000, most=20_000), sequence(5)
    made = scheduler(long, short, forward_tokens=64)
    chunks = {chunk.sequence: chunk for chunk in made.plan()}
    assert chunks[short] == Chunk(short, 5, True)
    # And a long prompt is not put off by those that denoise: what they leave is its own.
    assert chunks[long].encode == 64 - 13


def test_background_waits_behind_others_and_has_a_turn_beside_them():
    slow = [sequence(background=True) for _ in range(2)]
    quick = [sequence(), sequence()]
    made = Scheduler(Limits(admitted_requests=3))
    for one in (slow[0], quick[0], slow[1], quick[1]):
        made.submit(one)
    assert list(made.waiting) == [*quick, *slow]
    assert made.admit() == [*quick, slow[0]]
    made.remove(quick[1])
    made.admit()
    served = [{chunk.sequence for chunk in made.plan()} for _ in range(2 * BACKGROUND_TURN)]
    assert all(quick[0] in one for one in served)
    # One of them at a time, in turn, now and then.
    turns = {at: one for at, some in enumerate(served) for one in slow if one in some}
    assert turns == {0: slow[0], BACKGROUND_TURN: slow[1]}
    made.remove(quick[0])
    assert {chunk.sequence for chunk in made.plan()} == set(slow)
