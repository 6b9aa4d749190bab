"""The `redraft batch` group."""

from redraft.cli.lazy import lazy_app

app = lazy_app(
    "Answer files of any size, as jobs that survive whatever interrupts them.",
    {
        "run": ("redraft.cli.batch.run:run", "Begin a job, or go on with it."),
        "status": ("redraft.cli.batch.status:status", "Show how far a job is, from anywhere, at any time."),
    },
)
