"""The process that renders a chat template: a sandboxed Jinja environment behind one JSON line in, one JSON line out.

It is run as a script by `redraft.text.template`, which says how it is bounded, and imports nothing but jinja2 and the
standard library, so that it starts in tens of milliseconds. The first line on stdin is the setup, each later line the
variables of one rendering; each is answered by {"text": ...} or {"error": ...}.
"""

import json
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from jinja2 import Environment, Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.lexer import Token
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_MESSAGE = 500


class Refusal(TemplateError):
    """What a template's `raise_exception` raises."""


class GenerationTag(Extension):
    """`{% generation %}` marks the model's words for training masks; here its body is rendered as it stands."""

    tags = {"generation"}  # noqa: RUF012 (Jinja declares it an instance variable)

    def parse(self, parser: Parser) -> nodes.Node:
        lineno = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=lineno)


def literal_replacer(literals: Mapping[str, str]) -> type[Extension]:
    """An extension that replaces texts in what the template itself writes: its plain text and its string constants."""
    longest_first = sorted(literals, key=len, reverse=True)
    pattern = re.compile("|".join(re.escape(text) for text in longest_first)) if literals else None

    class LiteralReplacer(Extension):
        def filter_stream(self, stream: Iterable[Token]) -> Iterator[Token]:
            for token in stream:
                if pattern is not None and token.type in ("data", "string"):
                    value = pattern.sub(lambda match: literals[match[0]], token.value)
                    token = Token(token.lineno, token.type, value)
                yield token

    return LiteralReplacer


def raise_exception(message: str) -> None:
    raise Refusal(message)


def tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as chat templates expect it; Jinja's own filter escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def build_environment(literals: Mapping[str, str]) -> Environment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[LoopControlExtension, GenerationTag, literal_replacer(literals)],
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return environment


def render(template: Template, variables: Mapping[str, Any], max_output: int) -> str:
    """Raises Refusal as soon as more than `max_output` characters have been written."""
    pieces: list[str] = []
    size = 0
    for piece in template.generate(variables):
        pieces.append(piece)
        size += len(piece)
        if size > max_output:
            raise Refusal(f"it writes more than {max_output} characters, the limit for one conversation")
    return "".join(pieces)


def describe(error: BaseException) -> str:
    if isinstance(error, Refusal):
        text = str(error)
    elif isinstance(error, TemplateSyntaxError):
        text = f"syntax error in line {error.lineno}: {error.message}"
    elif isinstance(error, MemoryError):
        text = "it needs more memory than rendering may use"
    else:
        text = f"{type(error).__name__}: {error}"
    line = " ".join(text.split())
    return line if len(line) <= MAX_MESSAGE else line[:MAX_MESSAGE] + "..."


def limit_process(max_memory: int) -> None:
    """Caps memory where the system can, and leaves Ctrl-C to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = max_memory if hard == resource.RLIM_INFINITY else min(max_memory, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def set_alarm(seconds: float) -> None:
    """Ends this process after so many seconds of processor time, whatever it is doing; 0 takes the alarm back.

    On Windows the parent's limit by the clock is the only one.
    """
    if sys.platform != "win32":
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds)


def answer(reply: Mapping[str, str]) -> None:
    sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    setup = json.loads(sys.stdin.buffer.readline() or b"null")
    if setup is None:
        return
    limit_process(setup["max_memory"])
    environment = build_environment(setup["literals"])
    template: Template | None = None
    answer({"text": ""})
    for line in sys.stdin.buffer:
        set_alarm(setup["seconds"])
        try:
            # Compiled here and not before the loop: constant folding runs the template's arithmetic.
            template = template or environment.from_string(setup["source"])
            reply = {"text": render(template, json.loads(line), setup["max_output"])}
        except Exception as error:
            reply = {"error": describe(error)}
        answer(reply)
        set_alarm(0)


if __name__ == "__main__":
    main()
