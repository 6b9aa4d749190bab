"""The `redraft eval` group."""

from redraft.cli.lazy import lazy_app
from redraft.evaluation.tasks import TASKS

MODULE = "redraft.cli.eval.evaluate"
app = lazy_app(
    "Measure how good a checkpoint is.",
    {
        "frontier": (
            "redraft.cli.eval.frontier:frontier",
            "Try sampler settings: which give how much quality at what speed, and which nothing else beats.",
        ),
        **{name: (f"{MODULE}:{name}", task.description) for name, task in TASKS.items()},
        "fill": (f"{MODULE}:fill", "Records of the extract task with one value open, all others given."),
        "wide": (
            f"{MODULE}:wide",
            "The test sets of requests for any field, a line of JSON each.",
        ),
        "rows": (f"{MODULE}:rows", "Any prompts with their right answers."),
        "trust": (
            "redraft.cli.eval.trust:trust",
            "How right the trust marks are: calibration error, and accuracy of the most trusted answers, on test sets.",
        ),
        "sudoku": (f"{MODULE}:sudoku", "Puzzles with one solution in three grades; not what the bundled model is for."),
        "needle": (f"{MODULE}:needle", "One fact among filler sentences, at every depth of every length."),
    },
)
