"""Any endpoint of OpenAI's protocol as a place where rows are answered: as fast as it lets us, whatever it does."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from redraft.batch.executors.limit import AdaptiveLimit
from redraft.batch.executors.protocol import ExecutorFailed, Outcome, answered, failed
from redraft.batch.requests import JobRow
from redraft.batch.results import answer_of
from redraft.client.errors import RequestFailed
from redraft.client.stream import check_url, is_local, named_failures

MAX_RESPONSE_BYTES = 32 * 2**20
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before a second attempt, doubled for each more, and at most."""
LATER = frozenset({408, 409, 425, 429})
"""Statuses below 500 that ask to come again."""
REFUSED = frozenset({401, 402, 403})
"""Statuses that every other row would get too."""
NO_CONNECTION, UNUSABLE = "no connection", "not the protocol"


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """An endpoint, and how patient to be with it.

    url: usually ends in /v1. concurrency: requests at a time, at most. timeout: seconds that one may take in all.
    attempts: of a row that fails for a reason that may pass. patience: seconds that an endpoint which says it is busy
    may keep a row waiting. Raises ValueError for values out of range.
    """

    url: str
    key: str | None = None
    concurrency: int = 64
    timeout: float = 600.0
    attempts: int = 6
    patience: float = 3600.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", check_url(self.url))
        for name in ("concurrency", "timeout", "attempts", "patience"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, must be above 0")


class EndpointBusy(Exception):
    """Raised for a response that says to come again. seconds: when, if it says so."""

    def __init__(self, outcome: Outcome, seconds: float | None) -> None:
        super().__init__()
        self.outcome, self.seconds = outcome, seconds


class EndpointExecutor:
    """Answers rows by requests to an endpoint; as many at a time as it answers well."""

    def __init__(self, settings: EndpointSettings, client: httpx2.AsyncClient) -> None:
        self._settings, self._client = settings, client
        self.in_flight = settings.concurrency
        self.limit = AdaptiveLimit(settings.concurrency)
        self._random = random.Random()
        self._has_answered = False

    async def answer(self, row: JobRow) -> Outcome:
        """Answers one row. Raises ExecutorFailed where the endpoint is not there, or refuses the key."""
        settings, attempts, waited = self._settings, 0, 0.0
        while True:
            async with self.limit.slot() as slot:
                try:
                    outcome = await self._ask(row)
                except EndpointBusy as busy:
                    outcome, wait = busy.outcome, busy.seconds
                    is_busy = True
                except RequestFailed as error:
                    outcome, wait, is_busy = failed(error.kind, str(error)), None, error.kind == "timeout"
                else:
                    slot.succeed()
                    self._has_answered |= "error" not in outcome
                    return outcome
                if is_busy:
                    slot.refuse(wait)
            attempts += not is_busy or wait is None
            if attempts >= settings.attempts or waited >= settings.patience:
                return self._give_up(outcome)
            if wait is None:
                wait = min(FIRST_WAIT * 2 ** (attempts - 1), LONGEST_WAIT)
            # Not all at once, and not at once: an endpoint may ask to come again in no time.
            wait = max(wait, FIRST_WAIT) * self._random.uniform(1, 1.5)
            waited += wait
            await asyncio.sleep(wait)

    async def _ask(self, row: JobRow) -> Outcome:
        """Sends one request. Raises EndpointBusy and RequestFailed for what may be otherwise next time."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": row.digest()}
        # Not httpx's own: it has no bytes for half a surrogate pair.
        content = json.dumps(row.body).encode("ascii")
        path = row.url.removeprefix("/v1")
        try:
            with named_failures():
                async with (
                    asyncio.timeout(self._settings.timeout),
                    self._client.stream(
                        "POST", self._settings.url + path, content=content, headers=headers
                    ) as response,
                ):
                    data = await _read(response)
        except TimeoutError:
            raise RequestFailed("timeout", f"no answer within {self._settings.timeout:g} s") from None
        body = _parse(data)
        status = response.status_code
        if status == httpx2.codes.OK:
            return _checked(body, data)
        outcome = _refusal(status, body, data)
        message = f"{self._settings.url} answers {status}: {outcome['error']['message']}"
        if status in REFUSED or (status == httpx2.codes.NOT_FOUND and not self._has_answered):
            raise ExecutorFailed(message)
        if status in LATER or status >= 500:
            raise EndpointBusy(outcome, _retry_after(response.headers))
        return outcome

    def _give_up(self, outcome: Outcome) -> Outcome:
        error = outcome["error"]
        if error["kind"] == NO_CONNECTION:
            raise ExecutorFailed(f"{self._settings.url} cannot be reached: {error['message']}")
        return outcome


@asynccontextmanager
async def endpoint_executor(settings: EndpointSettings) -> AsyncIterator[EndpointExecutor]:
    """Opens connections to an endpoint until the end of the block."""
    headers = {"Authorization": f"Bearer {settings.key}"} if settings.key else {}
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=settings.concurrency)
    async with httpx2.AsyncClient(
        headers=headers, timeout=settings.timeout, limits=limits, trust_env=not is_local(settings.url)
    ) as client:
        yield EndpointExecutor(settings, client)


async def _read(response: httpx2.Response) -> bytes:
    parts, size = [], 0
    async for part in response.aiter_bytes():
        parts.append(part)
        if (size := size + len(part)) > MAX_RESPONSE_BYTES:
            raise RequestFailed(UNUSABLE, f"the response has more than {MAX_RESPONSE_BYTES:,} bytes")
    return b"".join(parts)


def _parse(data: bytes) -> Any:
    """Returns a response's JSON, or None where it is not JSON."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None


def _checked(body: Any, data: bytes) -> Outcome:
    """Returns the outcome of a response that says it is an answer. Raises RequestFailed where it is not one."""
    try:
        outcome = answered(body)
        if isinstance(answer_of(outcome, None)["text"], str):
            return outcome
    except (AttributeError, LookupError, TypeError):
        pass
    raise RequestFailed(UNUSABLE, f"{data[:100].decode('utf-8', 'replace')!r} is not an answer")


def _refusal(status: int, body: Any, data: bytes) -> Outcome:
    error = body.get("error") if isinstance(body, dict) else None
    detail: Mapping[str, Any] = error if isinstance(error, dict) else {"message": error} if error else {}
    message = detail.get("message") or data[:200].decode("utf-8", "replace") or "no reason given"
    kind = detail.get("code") if isinstance(detail.get("code"), str) else f"HTTP {status}"
    told = body if body is not None else {"error": {"message": str(message)}}
    return failed(str(kind), " ".join(str(message).split()), status=status, body=told)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds that a response asks to wait, as a number or until a date; None where it says nothing."""
    told = headers.get("retry-after", "").strip()
    try:
        seconds = float(told)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(told).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), 3600.0) if seconds == seconds else None
