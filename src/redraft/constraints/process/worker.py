"""The process that builds constraints: one JSON line in, one JSON line out, and only so much time and memory.

The first line on stdin is the setup, with the vocabulary; each later line a constraint. Each is answered by
{"automaton": ...}, or by {"refused": ..., "reason": ...}. Imports nothing but numpy and the rooms that it needs.
"""

import base64
import dataclasses
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redraft.constraints.build import ConstraintSpec, build
from redraft.constraints.json_schema.compiler import SchemaOptions
from redraft.constraints.json_schema.document import SchemaRefused
from redraft.constraints.limits import Budget, BuildLimits, LimitExceeded
from redraft.constraints.tool_calls import ChatSpec, ToolSpec
from redraft.constraints.vocabulary import Vocabulary

NICENESS = 10
"""Of two processes that want one core the other, which writes answers, gets nine parts of ten."""


def vocabulary_to_json(vocabulary: Vocabulary) -> dict[str, Any]:
    """Returns a vocabulary as JSON. Of lengths, −1 stands for a token without bytes."""
    tokens = vocabulary.token_bytes
    return {
        "lengths": [-1 if token is None else len(token) for token in tokens],
        "bytes": base64.b64encode(b"".join(token or b"" for token in tokens)).decode(),
        "end_ids": vocabulary.end_ids,
        "strips_first_space": vocabulary.strips_first_space,
    }


def vocabulary_from_json(given: Mapping[str, Any]) -> Vocabulary:
    lengths, text = given["lengths"], base64.b64decode(given["bytes"])
    ends = itertools.accumulate(max(length, 0) for length in lengths)
    tokens = [None if length < 0 else text[end - length : end] for length, end in zip(lengths, ends, strict=True)]
    return Vocabulary(tokens, end_ids=given["end_ids"], strips_first_space=given["strips_first_space"])


def spec_to_json(spec: ConstraintSpec | ChatSpec) -> dict[str, Any]:
    return dataclasses.asdict(spec)


def spec_from_json(given: Mapping[str, Any]) -> ConstraintSpec | ChatSpec:
    if "tools" in given:
        tools = tuple(ToolSpec(**tool) for tool in given["tools"])
        content = None if given["content"] is None else _constraint(given["content"])
        return ChatSpec(**{**given, "tools": tools, "content": content})
    return _constraint(given)


def _constraint(given: Mapping[str, Any]) -> ConstraintSpec:
    options = SchemaOptions(**given["options"])
    return ConstraintSpec(**{**given, "choices": tuple(given["choices"]), "options": options})


def reply_to(given: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, str]:
    """Returns what is answered to a constraint. The reason of a refusal is that of `BuildRefused`."""
    try:
        # On a busy machine this process waits: whether a constraint is refused must not depend on that.
        budget = Budget(BuildLimits(seconds=given["seconds"]), time.process_time)
        automaton = build(spec_from_json(given["spec"]), vocabulary, budget)
        return {"automaton": base64.b64encode(automaton.to_bytes()).decode()}
    except LimitExceeded as error:
        return {"refused": str(error), "reason": "too_large"}
    except SchemaRefused as error:
        return {"refused": str(error), "reason": "schema"}
    except ValueError as error:
        return {"refused": str(error), "reason": "invalid"}
    except (MemoryError, RecursionError):
        return {"refused": "this constraint takes more memory to build than there is for it", "reason": "too_large"}


def limit_memory(more: int) -> None:
    """Caps what this process may take beyond what it has, where the system can."""
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def answer(reply: Mapping[str, str]) -> None:
    sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    # Ctrl-C is for the process that started this one. When that ends, so does the standard input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = sys.stdin.buffer.readline()
    if not line:
        return
    if sys.platform != "win32":
        os.nice(NICENESS)
    setup = json.loads(line)
    vocabulary = vocabulary_from_json(setup["vocabulary"])
    vocabulary.levels  # noqa: B018 - made before the memory is counted
    limit_memory(setup["memory"])
    answer({})
    for line in sys.stdin.buffer:
        answer(reply_to(json.loads(line), vocabulary))


if __name__ == "__main__":
    main()
