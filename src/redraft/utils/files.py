"""Writing small files so that nobody ever finds half of one."""

from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file (text as UTF-8) under another name and renames it; leaves one with the same content alone."""
    new = content.encode() if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == new:
        return
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(new)
    partial.replace(path)
