"""The live canvas: noise is dim, newly accepted tokens are green, settled ones plain; the finished text stays."""

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

import redraft
from redraft.cli.answers.answer_warnings import say_warnings
from redraft.cli.streams import print_answer
from redraft.text import TextTokenizer
from redraft.utils.words import counted

if TYPE_CHECKING:
    from redraft.api import Prompt

NOISE, ACCEPTED, SETTLED = "bright_black", "bold green", ""
FREE_LINES = 2
"""Lines left free below the canvas, so that a terminal that shrinks between two frames does not scroll."""


class CanvasView:
    """A rich renderable: the committed text, the current canvas, and a status line about the step."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._committed = ""
        self._canvas = Text()
        self._status = ""
        self._draft = ""
        self._previous: list[int] = []

    @property
    def text(self) -> str:
        """The answer so far: committed text, then the current draft."""
        return self._committed + self._draft

    def update(self, event: "redraft.Draft | redraft.Committed") -> None:
        if isinstance(event, redraft.Committed):
            self._committed += event.text
            self._canvas, self._draft, self._previous = Text(), "", []
            return
        step = event.step
        draft, accepted, shown = step.draft.tolist(), step.accepted.tolist(), step.renoised.tolist()
        styles = [
            NOISE if not kept else SETTLED if at < len(self._previous) and self._previous[at] == token else ACCEPTED
            for at, (kept, token) in enumerate(zip(accepted, draft, strict=True))
        ]
        self._canvas = Text()
        for style, run in groupby(zip(styles, shown, strict=True), key=lambda pair: pair[0]):
            # Whole runs are decoded together: a character may be made of several tokens.
            self._canvas.append(_printable(self._tokenizer.decode([token for _, token in run])), style=style)
        self._previous, self._draft = draft, event.text
        self._status = (
            f"canvas {step.canvas + 1}  {counted(step.step - 1, 'step')} left at most  "
            f"accepted {sum(accepted)}/{len(accepted)}  mean entropy {step.entropy.mean():.3f}  "
            f"temperature {step.temperature:.2f}"
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        body = Text(_printable(self._committed)) + self._canvas
        lines = console.render_lines(body, options, pad=False)
        height = max(1, (options.size.height or 25) - 1 - FREE_LINES)
        for line in lines[-height:]:
            yield from line
            yield Text("")
        yield Text(self._status, style="dim", no_wrap=True, overflow="ellipsis")


def show(
    events: "Iterator[redraft.Draft | redraft.Committed | redraft.Result]",
    tokenizer: TextTokenizer,
    *,
    step_delay: float = 0.0,
    is_wrapped: bool = False,
) -> "redraft.Result":
    """Shows a stream on the terminal until it ends and returns its result.

    is_wrapped: lines of the finished text end between words, as those of the drafts do; else the terminal breaks them,
    and what is copied from it is the text as it is. After ctrl-C the text so far stays on the screen; KeyboardInterrupt
    is raised again.
    """
    console = Console(highlight=False)
    view = CanvasView(tokenizer)
    result: redraft.Result | None = None
    try:
        with Live(view, console=console, transient=True, auto_refresh=False, vertical_overflow="crop") as live:
            for event in events:
                if isinstance(event, redraft.Result):
                    result = event
                    break
                view.update(event)
                live.refresh()
                if step_delay and isinstance(event, redraft.Draft):
                    time.sleep(step_delay)
    except KeyboardInterrupt:
        console.print(Text(_printable(view.text)), soft_wrap=not is_wrapped)
        raise
    assert result is not None
    generation = result.generation
    console.print(Text(_printable(result.text)), soft_wrap=not is_wrapped)
    console.print(
        f"{_effort(generation)}, {generation.tokens_per_forward:.1f} tokens per forward, {generation.seconds:.2f} s, "
        f"{generation.tokens_per_second:.0f} tokens/s, seed {generation.seed}"
        + ("" if result.finish_reason == "stop" else ", cut at the limit"),
        style="dim",
    )
    return result


def _effort(generation: "redraft.Generation") -> str:
    """Returns what an answer took: the steps of its canvases, or its passes where it was written causally."""
    if generation.parts > 1:
        return f"{generation.parts} parts: {_effort(replace(generation, parts=1))}"
    if (found := generation.verification) is not None:
        drafts = f"{found.drafted_rounds} of them over drafts of {counted(found.denoiser_passes, 'denoiser pass')}"
        return f"{counted(found.rounds, 'causal pass')}, {drafts}"
    *canvases, last = generation.steps_per_canvas
    return " + ".join([*map(str, canvases), counted(last, "step") if not canvases else f"{last} steps"])


def answer(
    model: "redraft.Model",
    prompt: "Prompt",
    settings: dict[str, Any],
    *,
    is_live: bool,
    quiet: bool,
    step_delay: float = 0.0,
    is_wrapped: bool = False,
) -> "redraft.Result":
    """Prints an answer, with the live canvas if `is_live`, and returns it; is_wrapped: as in `show`.

    What may be wrong with it is told on standard error, unless `quiet`.
    """
    events = model.stream(prompt, **settings)
    if is_live:
        result = show(events, model.tokenizer, step_delay=step_delay, is_wrapped=is_wrapped)
    else:
        *_, last = events
        assert isinstance(last, redraft.Result)
        result = last
        print_answer(result)
    say_warnings(result.warnings, result.trust, quiet=quiet)
    return result


def _printable(text: str) -> str:
    """Replaces control characters, which could move the cursor or worse, except line breaks and tabs."""
    return "".join(char if char in "\n\t" or char.isprintable() else "�" for char in text)
