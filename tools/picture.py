"""Draws docs/canvas.svg: the demo's answer as its canvas resolves, from a real run of the bundled model.

Run from the checkout's root: `python tools/picture.py`. What it prints is the run's last line.
"""

import io
from pathlib import Path

from rich.console import Console
from rich.text import Text

import redraft
from redraft.cli.answers.live import CanvasView

SEED = 0
TARGET = Path("docs/canvas.svg")


def draw(target: Path = TARGET) -> redraft.Result:
    """Writes every step's canvas, one below the other, under the command that the run answers."""
    model = redraft.load()
    prompt = model.card.examples[0]
    console = Console(record=True, file=io.StringIO(), width=100, force_terminal=True, highlight=False)
    console.print(Text(f'$ redraft generate "{prompt}"', style="bold"))
    view = CanvasView(model.tokenizer)
    result = None
    for event in model.stream(prompt, mode="diffusion", seed=SEED):
        if isinstance(event, redraft.Result):
            result = event
            break
        view.update(event)
        if isinstance(event, redraft.Draft):
            console.print(Text())
            console.print(view)
    assert result is not None
    console.print(Text(f"\n{result.text}"))
    target.write_text(console.export_svg(title="redraft"), encoding="utf-8")
    return result


if __name__ == "__main__":
    made = draw()
    print(f"{TARGET}: {made.generation.steps_per_canvas} steps, seed {made.seed}")
