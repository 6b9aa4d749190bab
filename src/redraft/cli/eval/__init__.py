"""The `redraft eval` group."""

from redraft.cli.lazy import lazy_app

TASKS = "redraft.cli.eval.evaluate"
app = lazy_app(
    "Measure how good a checkpoint is.",
    {
        "frontier": (
            "redraft.cli.eval.frontier:frontier",
            "Try sampler settings: which give how much quality at what speed, and which nothing else beats.",
        ),
        "extract": (
            f"{TASKS}:extract",
            "Extraction of named fields as JSON: 500 examples, half phrased as training never saw.",
        ),
        "normalize": (
            f"{TASKS}:normalize",
            "Dates, times, amounts, phone numbers and quantities in the format you ask for.",
        ),
        "repair": (f"{TASKS}:repair", "Sentences with typos; the score of copying them is shown too."),
        "wide": (
            f"{TASKS}:wide",
            "The test sets of the next bundled model, a line of JSON each; not what today's is for.",
        ),
        "rows": (f"{TASKS}:rows", "Any prompts with their right answers."),
        "sudoku": (f"{TASKS}:sudoku", "Puzzles with one solution in three grades; not what the bundled model is for."),
        "needle": (f"{TASKS}:needle", "One fact among filler sentences, at every depth of every length."),
    },
)
