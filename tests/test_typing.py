"""A type checker knows the sampler's settings: what a user's program calls wrongly is refused before it runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import redraft

ROOT = Path(__file__).parent.parent
PROGRAM = """
import redraft

model = redraft.load("bundled")
model.generate("x", steps=3, temperature=0.5, seed=None, acceptance="linear_quota")
model.generate("x", step=3)  # error: call-arg
model.generate("x", regex="a|b", schema=None, seed=1)
model.generate("x", regex=3)  # error: arg-type
model.generate("x", steps="3")  # error: arg-type
model.generate("x", acceptance="greedy")  # error: arg-type
for event in model.stream("x", step=3):  # error: call-arg
    pass
text: str = model.generate([{"role": "user", "content": "x"}]).text
with redraft.Engine("bundled") as engine:
    engine.generate_many(["x"], seed=1)
    engine.generate_many(["x"], sead=1)  # error: call-arg
    with redraft.Engine(model) as other:
        pass
redraft.Engine(3)  # error: arg-type
"""


def test_the_arguments_have_the_names_of_the_table():
    names = redraft.SamplerArguments.__annotations__.keys()
    assert names == {*(setting.name for setting in redraft.SETTINGS), "schedule"}


@pytest.mark.slow
def test_a_type_checker_refuses_a_setting_that_does_not_exist_and_a_value_of_another_type(tmp_path):
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    wanted = {
        (number, found[1])
        for number, line in enumerate(PROGRAM.splitlines(), 1)
        if (found := re.search(r"# error: ([\w-]+)", line))
    }
    checker = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--follow-imports=silent", str(file)]
    options = ["--config-file=", f"--cache-dir={tmp_path / 'cache'}"]
    ended = subprocess.run([*checker, *options], cwd=ROOT / "src", capture_output=True, text=True, check=False)
    found = re.findall(r"program\.py:(\d+): error: .*\[([\w-]+)\]", ended.stdout)
    assert {(int(number), code) for number, code in found} == wanted, ended.stdout + ended.stderr
