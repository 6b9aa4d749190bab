import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from redraft.text.template import ChatTemplate, TemplateLimits

QUICK = TemplateLimits(seconds=0.3)


def render(source: str, *, limits: TemplateLimits | None = None, **variables: object) -> str:
    return ChatTemplate(source, limits=limits).render(variables)


def one_line_error(action: Callable[[], object]) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (each caller looks at the message)
        action()
    message = str(caught.value)
    assert message
    assert "\n" not in message
    assert len(message) < 1000
    return message


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("a\n{% if true %}\n  b\n  {% endif %}\nc", "a\n  b\nc"),
        ("{% for i in [1, 2, 3, 4] %}{% if i == 2 %}{% continue %}{% endif %}"
         "{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}", "13"),
        ("{{ {'b': '<é>', 'a': [1, none]} | tojson }}", '{"b": "<é>", "a": [1, null]}'),
        ("{{ {'b': 1, 'a': 2} | tojson(indent=1, sort_keys=true) }}", '{\n "a": 2,\n "b": 1\n}'),
        ("{% generation %}x{{ 1 + 1 }}{% endgeneration %}", "x2"),
        ("{% set ns = namespace(n=0) %}{% for i in range(3) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "3"),
        ("{{ missing }}{{ message.content is defined }}", "False"),
        ("{{ '\\ud83d\\ude42' | length }}", "2"),
    ],
)  # fmt: skip
def test_templates_have_what_checkpoints_expect(source: str, text: str) -> None:
    assert render(source, message={}) == text


def test_strftime_now_is_the_local_date() -> None:
    before = f"{datetime.now():%Y-%m-%d}"
    assert render("{{ strftime_now('%Y-%m-%d') }}") in (before, f"{datetime.now():%Y-%m-%d}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('roles must\nalternate') }}", "the chat template failed: roles must alternate"),
        ("a\n{% if %}", "the chat template failed: syntax error in line 2: .*"),
        ("{{ x.y.z }}", "the chat template failed: UndefinedError: .*"),
        ("{{ 1 // 0 }}", "the chat template failed: ZeroDivisionError: .*"),
        ("{% include '/etc/passwd' %}", "the chat template failed: .*"),
        ("{{ ''.__class__.__mro__ }}", "the chat template failed: SecurityError: .*"),
        ("{{ raise_exception.__globals__.os }}", "the chat template failed: SecurityError: .*"),
        ("{{ messages.append(1) }}", "the chat template failed: SecurityError: .*"),
    ],
)
def test_a_failing_template_says_why_in_one_line(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        render(source, messages=[])


NEST = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3


@pytest.mark.parametrize(
    "source",
    [
        NEST,
        "{% set x = range(99999) | list %}{% for i in x %}{% set y = x | sort | list | string %}{% endfor %}",
        "{{ 7 ** (7 ** 9) }}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    ],
)
def test_a_template_that_does_not_end_is_ended(source: str) -> None:
    began = time.monotonic()
    message = one_line_error(lambda: render(source, limits=QUICK))
    assert "took longer than 0.3 s" in message
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{{ 'x' * 10 ** 9 }}",
        "{{ 'x' * 10 ** 12 }}",
        "{{ 'x' * (10 ** 7) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 'x' | center(10 ** 9) }}",
        "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[0]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for i in range(99999) %}" + "x" * 1000 + "{% endfor %}",
        "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}",
        "{% if 1 %}" * 5000 + "{% endif %}" * 5000,
    ],
)
def test_bombs_end_in_one_line(source: str) -> None:
    one_line_error(lambda: render(source, limits=TemplateLimits(max_memory=128 * 1024 * 1024)))


def test_source_and_output_have_limits() -> None:
    limits = TemplateLimits(max_source=50, max_output=10)
    assert render("{{ x }}", limits=limits, x="x" * 10) == "x" * 10
    message = one_line_error(lambda: render("{{ x }}", limits=limits, x="x" * 11))
    assert "more than 10 characters" in message
    assert "51 characters, the limit is 50" in one_line_error(lambda: ChatTemplate("x" * 51, limits=limits))


def test_what_a_template_may_write_arrives_whole() -> None:
    text = "\U0001f642" * 100_000
    assert render("{{ x }}", limits=TemplateLimits(max_output=len(text)), x=text) == text


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes"])
def test_variables_are_json(value: object) -> None:
    assert "accepts only JSON values" in one_line_error(lambda: render("", value=value))


def test_a_template_works_again_after_it_was_ended() -> None:
    template = ChatTemplate("{% if loops %}" + NEST + "{% endif %}{{ x }}", limits=TemplateLimits(seconds=0.5))
    assert template.render({"x": "before"}) == "before"
    one_line_error(lambda: template.render({"loops": True}))
    assert template.render({"x": "after"}) == "after"


def test_renderings_of_many_threads_do_not_mix() -> None:
    template = ChatTemplate("{{ x }}")
    found: dict[int, list[str]] = {}

    def work(name: int) -> None:
        found[name] = [template.render({"x": f"{name}-{i}"}) for i in range(20)]

    threads = [threading.Thread(target=work, args=(name,)) for name in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {name: [f"{name}-{i}" for i in range(20)] for name in range(5)}


def children() -> set[int]:
    """The ids of this process's children."""
    return {int(id) for path in Path("/proc/self/task").glob("*/children") for id in path.read_text().split()}


def start_worker(template: ChatTemplate) -> int:
    """Renders for the first time; returns the id of the process that this starts."""
    before = children()
    template.render({"x": "first"})
    (started,) = children() - before
    return started


def test_an_interrupted_rendering_leaves_no_answer_for_the_next() -> None:
    loop = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"
    template = ChatTemplate(f"{{% if x == 'slow' %}}{loop}{{% endif %}}{{{{ x }}}}", limits=TemplateLimits(seconds=60))
    start_worker(template)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        template.render({"x": "slow"})
    assert template.render({"x": "third"}) == "third"


def test_a_machine_that_stands_still_ends_no_rendering() -> None:
    template = ChatTemplate("{{ x }}", limits=TemplateLimits(seconds=0.5))
    worker = start_worker(template)
    os.kill(worker, signal.SIGSTOP)
    threading.Timer(1.0, os.kill, (worker, signal.SIGCONT)).start()
    assert template.render({"x": "late"}) == "late"
    assert worker in children()


def test_a_worker_that_died_is_replaced() -> None:
    template = ChatTemplate("{{ x }}")
    worker = start_worker(template)
    os.kill(worker, signal.SIGKILL)
    os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)
    assert template.render({"x": 1}) == "1"
    assert worker not in children()


def test_the_worker_ends_with_its_template_and_knows_none_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    template = ChatTemplate("x")
    worker = start_worker(template)
    with open(f"/proc/{worker}/environ", "rb") as file:  # noqa: PTH123 (a pseudo-file)
        assert b"secret" not in file.read()
    del template
    assert worker not in children()


def test_a_fork_gets_a_worker_of_its_own() -> None:
    template = ChatTemplate("{{ x }}")
    worker = start_worker(template)
    child = os.fork()
    if child == 0:
        os._exit(0 if template.render({"x": "child"}) == "child" else 1)
    assert template.render({"x": "parent"}) == "parent"
    assert os.waitpid(child, 0)[1] == 0
    assert worker in children()


def test_literals_are_replaced_only_where_the_template_writes_them() -> None:
    source = "<a>{{ '<a>' ~ x ~ '<ab>' }}{# <a> #}{% raw %}<a>{% endraw %}{{ x == '<a>' }}"
    template = ChatTemplate(source, literals={"<a>": "1", "<ab>": "2"})
    assert template.render({"x": "<a>"}) == "11<a>21False"
