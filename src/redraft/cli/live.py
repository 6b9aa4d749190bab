"""The live canvas: noise dim, accepted tokens green, settled ones plain, and the finished text left behind."""

import time
from collections.abc import Iterator
from itertools import groupby

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from redraft import Committed, Draft, Result
from redraft.text import TextTokenizer

NOISE, ACCEPTED, SETTLED = "bright_black", "bold green", ""
LINES_KEPT_FREE = 2
"""Below the canvas, so that a terminal that shrinks between two frames does not scroll."""


class CanvasView:
    """What is committed so far, the canvas as it stands, and a line about the step."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._committed = ""
        self._canvas = Text()
        self._status = ""
        self._draft = ""
        self._before: list[int] = []

    @property
    def text(self) -> str:
        """The answer as far as it is known: committed text, then the current draft."""
        return self._committed + self._draft

    def take(self, event: Draft | Committed) -> None:
        if isinstance(event, Committed):
            self._committed += event.text
            self._canvas, self._draft, self._before = Text(), "", []
            return
        step = event.step
        draft, accepted, shown = step.draft.tolist(), step.accepted.tolist(), step.renoised.tolist()
        styles = [
            NOISE if not kept else SETTLED if at < len(self._before) and self._before[at] == token else ACCEPTED
            for at, (kept, token) in enumerate(zip(accepted, draft, strict=True))
        ]
        self._canvas = Text()
        for style, run in groupby(zip(styles, shown, strict=True), key=lambda pair: pair[0]):
            # Whole runs are decoded together: a character may be made of several tokens.
            self._canvas.append(_printable(self._tokenizer.decode([token for _, token in run])), style=style)
        self._before, self._draft = draft, event.text
        self._status = (
            f"canvas {step.canvas + 1}  {step.step - 1} steps left at most  accepted {sum(accepted)}/{len(accepted)}  "
            f"mean entropy {step.entropy.mean():.3f}  temperature {step.temperature:.2f}"
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        body = Text(_printable(self._committed)) + self._canvas
        lines = console.render_lines(body, options, pad=False)
        height = max(1, (options.size.height or 25) - 1 - LINES_KEPT_FREE)
        for line in lines[-height:]:
            yield from line
            yield Text("")
        yield Text(self._status, style="dim", no_wrap=True, overflow="ellipsis")


def show(events: Iterator[Draft | Committed | Result], tokenizer: TextTokenizer, *, step_delay: float = 0.0) -> Result:
    """Shows a stream on the terminal until it ends; returns its result.

    On ctrl-C the text so far stays on the screen and KeyboardInterrupt goes on.
    """
    console = Console(highlight=False)
    view = CanvasView(tokenizer)
    result: Result | None = None
    try:
        with Live(view, console=console, transient=True, auto_refresh=False, vertical_overflow="crop") as live:
            for event in events:
                if isinstance(event, Result):
                    result = event
                    break
                view.take(event)
                live.refresh()
                if step_delay and isinstance(event, Draft):
                    time.sleep(step_delay)
    except KeyboardInterrupt:
        console.print(Text(_printable(view.text)), soft_wrap=True)
        raise
    assert result is not None
    generation = result.generation
    console.print(Text(_printable(result.text)), soft_wrap=True)
    steps = " + ".join(map(str, generation.steps_per_canvas))
    console.print(
        f"{steps} steps, {generation.tokens_per_forward:.1f} tokens per forward, {generation.seconds:.2f} s, "
        f"{generation.tokens_per_second:.0f} tokens/s, seed {generation.seed}"
        + ("" if result.finish_reason == "stop" else ", cut at the limit"),
        style="dim",
    )
    return result


def _printable(text: str) -> str:
    """Control characters would move the cursor or worse; line breaks and tabs may stay."""
    return "".join(char if char in "\n\t" or char.isprintable() else "�" for char in text)
