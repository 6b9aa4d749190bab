"""What a job costs: its rows a second beside those of the engine that answers them."""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from redraft.answers import Failure
from redraft.api import Model
from redraft.async_engine import Engine
from redraft.batch.job import Job
from redraft.batch.rows import JobFile
from redraft.benchmark.timing import Comparison, Spread, alternate, ratio
from redraft.utils.rows.journal import RunIdentity

WARM_UP_ROWS = 500


def measure_batch(
    model: Model, prompts: Sequence[str], settings: Mapping[str, Any], *, rounds: int
) -> tuple[Comparison, int]:
    """Answers the prompts as a job's rows ("ours") and by `Engine.generate_many`, alternating.

    A job is all of it: the check of its file, the journal with its syncs, and the results. Both have the same limits
    and seeds, and warm up with the first WARM_UP_ROWS prompts. Returns rows a second of each, and the answer tokens of
    a round. Raises ValueError where a prompt is not answered, and where the two do not write the same answers. Requires
    the extra "batch".
    """
    from redraft.client.stream import request_fields
    from redraft.server.batches.executor import check_body, local_executor
    from redraft.server.service import served_name

    limits = Engine.context_limits(model, settings)

    def by_engine(prompts: Sequence[str]) -> tuple[float, list[str]]:
        with Engine(model, **limits) as engine:
            started = time.perf_counter()
            answers = list(engine.generate_many(prompts, **settings))
            seconds = time.perf_counter() - started
        if failed := [answer for answer in answers if isinstance(answer, Failure)]:
            raise ValueError(f"a prompt was not answered: {failed[0].error}")
        return len(prompts) / seconds, [str(answer) for answer in answers]

    def by_job(prompts: Sequence[str]) -> tuple[float, list[str]]:
        with tempfile.TemporaryDirectory() as folder:
            rows, out = Path(folder) / "rows.jsonl", Path(folder) / "out"
            rows.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts), encoding="utf-8")
            started = time.perf_counter()
            name = served_name(model.name)
            file = JobFile(
                rows, fields=request_fields(settings), check_body=lambda url, body: check_body(url, body, models=[name])
            )
            job = Job(out, file, file.check(), identity=RunIdentity({}, {}))
            job.run(lambda: local_executor(lambda: model, settings, name))
            seconds = time.perf_counter() - started
            found = [json.loads(line) for line in job.results_path.read_text(encoding="utf-8").splitlines()]
        if failed := [row["error"] for row in found if "error" in row]:
            raise ValueError(f"a row was not answered: {failed[0]}")
        return len(prompts) / seconds, [row["text"] for row in found]

    sides = (by_job, by_engine)
    ours, theirs = alternate(
        rounds, *(partial(side, prompts) for side in sides),
        warm_up=[partial(side, prompts[:WARM_UP_ROWS]) for side in sides],
    )  # fmt: skip
    if any(texts != theirs[0][1] for _, texts in (*ours, *theirs)):
        raise ValueError("engine and job wrote different answers to the same prompts")
    rates = [rate for rate, _ in ours], [rate for rate, _ in theirs]
    tokens = sum(len(model.tokenizer.encode(text)) for text in theirs[0][1])
    return Comparison(Spread.of(rates[0]), Spread.of(rates[1]), ratio(*rates)), tokens
