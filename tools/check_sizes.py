"""Keeps the repository small: no file over 1 MB except the bundled weights, and a limit on all weights ever committed.

Run from the checkout's root: `python tools/check_sizes.py`. Exits with 1 and names the files if something is too large.
"""

import subprocess
import sys
from pathlib import Path

MAX_FILE_BYTES = 1_000_000
MAX_WEIGHT_BYTES = 120_000_000
BUNDLED_WEIGHTS = "src/redraft/bundled/checkpoint/model.safetensors"


def git(*arguments: str, stdin: str | None = None, cwd: Path) -> str:
    """Runs git and returns what it prints. Raises CalledProcessError if it fails."""
    return subprocess.run(["git", *arguments], cwd=cwd, input=stdin, text=True, capture_output=True, check=True).stdout


def large_files(root: Path) -> list[tuple[str, int]]:
    """Returns (path, bytes) of every file over the limit that is in git or that `git add .` would add."""
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=root).split("\0")
    sizes = [(name, (root / name).stat().st_size) for name in sorted(set(listed)) if name and (root / name).is_file()]
    return [(name, size) for name, size in sizes if size > MAX_FILE_BYTES and name != BUNDLED_WEIGHTS]


def weights_in_history(root: Path) -> tuple[int, int]:
    """Returns (count, bytes) of the distinct *.safetensors blobs in all commits that refs reach."""
    objects = git("rev-list", "--objects", "--all", cwd=root).splitlines()
    blobs = sorted({line.split(" ", 1)[0] for line in objects if line.endswith(".safetensors")})
    sizes = git("cat-file", "--batch-check=%(objectsize)", stdin="".join(f"{blob}\n" for blob in blobs), cwd=root)
    return len(blobs), sum(int(size) for size in sizes.split())


def main(root: Path) -> int:
    """Prints the result and returns the exit code."""
    if not (root / ".git").exists():
        print("sizes: not a git checkout, nothing checked")
        return 0
    large = large_files(root)
    for name, size in large:
        print(
            f"sizes: {name} has {size:,} bytes; the limit is {MAX_FILE_BYTES:,}: make it smaller or keep it out of git"
        )
    count, total = weights_in_history(root)
    shallow = " (a shallow clone: older commits are not seen)" if (root / ".git/shallow").exists() else ""
    print(f"sizes: {count} weight files in the history, {total:,} bytes of at most {MAX_WEIGHT_BYTES:,}{shallow}")
    if total > MAX_WEIGHT_BYTES:
        print("sizes: too many weights were committed: every clone downloads all of them")
    return 1 if large or total > MAX_WEIGHT_BYTES else 0


if __name__ == "__main__":
    sys.exit(main(Path.cwd()))
