"""How far a job is, as another process sees it."""

import json
from pathlib import Path
from typing import Any

from redraft.batch.job import JOURNAL_FILE, KIND, PROGRESS_FILE
from redraft.batch.progress import Progress
from redraft.batch.results import FILE_NAMES
from redraft.utils.locks import is_locked
from redraft.utils.rows.journal import read_header, read_outcomes

FINISHED, RUNNING, INTERRUPTED = "finished", "running", "interrupted"


def read_status(folder: Path) -> dict[str, Any]:
    """Returns a job's counts as Progress.to_json has them, and its `state`. Raises ValueError for no job's folder.

    While it runs they are those of half a second ago; else the journal is read and counted. Writes nothing.
    """
    journal = folder / JOURNAL_FILE
    if not folder.is_dir():
        raise ValueError(f"there is no folder {str(folder)!r}: give the one that `redraft batch run --out` names")
    if not journal.is_file():
        raise ValueError(f"{folder} has no {JOURNAL_FILE}: it is not a job's folder, or no row was finished yet")
    if is_locked(folder):
        told: dict[str, Any] = json.loads((folder / PROGRESS_FILE).read_bytes())
        return {"state": RUNNING, **told}
    with journal.open("rb") as lines:
        progress = Progress(total=read_header(lines.readline(), KIND).facts["rows"])
    for outcome in read_outcomes(journal):
        progress.add(outcome)
    progress.begin()
    is_whole = progress.done == progress.total and any((folder / name).exists() for name in FILE_NAMES.values())
    return {"state": FINISHED if is_whole else INTERRUPTED, **progress.to_json()}
