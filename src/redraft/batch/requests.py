"""What a job asks for each row: a request of OpenAI's API, with the job's own fields and a seed of its own."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CHAT_URL = "/v1/chat/completions"
SEEDED_URLS = (CHAT_URL, "/v1/completions")
URLS = (*SEEDED_URLS, "/v1/responses")
MAX_ROW_SEED = 2**31 - 1
"""Every server's seeds have at least so many bits."""


@dataclass(frozen=True)
class JobRow:
    """A row that can be asked: its line in the file, its id, where its request goes, and the request's body.

    columns: what else the row has, which comes back beside its answer; of OpenAI's batch lines nothing.
    """

    line: int
    id: str
    url: str
    body: Mapping[str, Any]
    columns: Mapping[str, Any] = field(default_factory=dict)

    def digest(self) -> str:
        """Returns 16 hexadecimal digits that another request, or another seed, would have others of."""
        text = json.dumps([self.id, self.url, self.body], sort_keys=True)
        return hashlib.blake2b(text.encode("ascii"), digest_size=8).hexdigest()


@dataclass(frozen=True, kw_only=True)
class RequestFields:
    """What all requests of a job have: fields that a row's own override, and the seed that the rows' follow from.

    Of two objects of one field, as of `canvas`, the row's members override the job's one by one.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def body(self, line: int, url: str, own: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the body of the row at `line`: the job's fields, the row's own, and a seed where neither has one."""
        body = {**self.fields, **own}
        for name, value in self.fields.items():
            if isinstance(value, Mapping) and isinstance(given := own.get(name), Mapping):
                body[name] = {**value, **given}
        # -1 asks for one to be drawn, as no seed does.
        if url in SEEDED_URLS and body.get("seed") in (None, -1):
            body["seed"] = row_seed(self.seed, line)
        return body


def row_seed(seed: int, line: int) -> int:
    """Returns the seed of a row: that of the job and the row's place decide it, and nothing else."""
    drawn = hashlib.blake2b(f"{seed} {line}".encode("ascii"), digest_size=8).digest()
    return int.from_bytes(drawn, "big") & MAX_ROW_SEED
