"""Collects the real sentences of the repair task from freely licensed documentation into one file.

Run from the root of the checkout: `python tools/sentences.py`. Sources: the docstrings and help topics of Python's
standard library (PSF licence). The file is checked in, so the data do not depend on the installed version.
"""

import ast
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from pydoc_data import topics

TARGET = Path("src/redraft/bundled/data/repair_sentences.txt")
COUNT = 6000
WORDS = re.compile(r"[A-Z][A-Za-z ,;'-]+[.!?]")


def docstrings(folder: Path) -> Iterator[str]:
    """Yields every docstring below a folder, except those of tests."""
    for path in sorted(folder.rglob("*.py")):
        if {"test", "tests", "testing", "site-packages", "idlelib"} & set(path.parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                yield text


def sentences(text: str) -> Iterator[str]:
    """Yields whole sentences of plain words, of 30 to 110 characters."""
    for paragraph in re.split(r"\n\s*\n", text):
        flat = " ".join(line.strip() for line in paragraph.split("\n"))
        for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", flat):
            if 30 <= len(sentence) <= 110 and WORDS.fullmatch(sentence) and len(sentence.split()) >= 5:
                yield sentence


def main() -> None:
    """Collects the sentences and writes the file."""
    texts = [*topics.topics.values(), *docstrings(Path(sysconfig.get_path("stdlib")))]
    found = list(dict.fromkeys(sentence for text in texts for sentence in sentences(text)))
    chosen = sorted(random.Random(0).sample(found, min(COUNT, len(found))))
    TARGET.write_text("\n".join(chosen) + "\n", encoding="utf-8")
    print(f"{len(found)} found, {len(chosen)} kept")


if __name__ == "__main__":
    main()
