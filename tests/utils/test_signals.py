"""Interrupts that are delayed: who gets them, and when."""

import asyncio
import os
import signal

import pytest

from redraft.utils.signals import delay_interrupt, treat_sigterm_as_interrupt


def interrupted_block(number=signal.SIGINT):
    steps = []
    with delay_interrupt():
        os.kill(os.getpid(), number)
        steps.append("in the block")
    steps.append("after the block")
    return steps


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_block_is_finished_before_the_interrupt(number):
    done = []

    def interrupted():
        with treat_sigterm_as_interrupt(), delay_interrupt():
            os.kill(os.getpid(), number)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == [True]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_running_loop_gets_it_instead_of_the_task_that_delays_it(number):
    steps = []

    async def main():
        steps.extend(interrupted_block(number))
        await asyncio.sleep(100)

    with pytest.raises(KeyboardInterrupt), treat_sigterm_as_interrupt(), asyncio.Runner() as runner:
        runner.run(main())
    assert steps == ["in the block", "after the block"]


def test_the_outer_of_two_blocks_delays_it():
    steps = []
    with pytest.raises(KeyboardInterrupt), delay_interrupt():
        steps = interrupted_block()
    assert steps == ["in the block", "after the block"]


def test_who_ignores_interrupts_gets_none():
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert interrupted_block() == ["in the block", "after the block"]
    finally:
        signal.signal(signal.SIGINT, previous)
