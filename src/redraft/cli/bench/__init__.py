"""The `redraft bench` group."""

from redraft.cli.lazy import lazy_app

app = lazy_app(
    "Measure and predict speed; each command ends in one JSON line.",
    {
        "step": (
            "redraft.cli.bench.speed:step",
            "Milliseconds of a denoising step by stage, and its share of what its matrix products reach alone.",
        ),
        "compare": (
            "redraft.cli.bench.speed:compare",
            "The same weights in our engine and in a peer, alternating, and the ratio round by round.",
        ),
        "load": (
            "redraft.cli.bench.load:load",
            "Throughput and percentiles under load: of our engine, or with --endpoint of a server.",
        ),
        "batch": (
            "redraft.cli.bench.batch:batch",
            "Rows a second of a job with its journal and its results, over those of the engine alone.",
        ),
        "memory": (
            "redraft.cli.bench.memory:memory",
            "Write random weights of a shape, load them in a fresh process and denoise one canvas.",
        ),
        "plan": (
            "redraft.cli.bench.plan:plan",
            "Predict milliseconds of a step and tokens per second of each way to decode.",
        ),
        "cost": (
            "redraft.cli.bench.cost:cost",
            "What a million answer tokens cost in each mode at a price per hour, with the quality of the answers.",
        ),
    },
)
