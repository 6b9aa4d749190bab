"""Typed, suspicious access to one object of a config file. Every error names the file, the key and the value."""

from collections.abc import Mapping
from dataclasses import dataclass

from redraft.weights.config.keys import DEFAULTS, LIMITS, REFUSED, REQUIRED_VALUES


@dataclass(frozen=True)
class Section:
    """One JSON object of a file; `prefix` is where it stands in the file, "text_config." for instance."""

    file: str
    values: Mapping[str, object]
    prefix: str = ""

    def error(self, key: str, problem: str) -> ValueError:
        return ValueError(f"{self.file}: {self.prefix}{key} {problem}")

    def sub(self, key: str) -> "Section":
        """The object under `key`; an empty one where it is absent or null."""
        value = self.values.get(key)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.error(key, f"is {_shown(value)}, must be an object")
        return Section(self.file, value, f"{self.prefix}{key}.")

    def size(self, key: str) -> int:
        """A whole number in [1, LIMITS[key]]; absent it is DEFAULTS[key], and without a default it is required."""
        if key not in self.values and key in DEFAULTS:
            return DEFAULTS[key]
        value = self.values.get(key)
        if value is None and key not in DEFAULTS:
            raise self.error(key, "is missing or null and has no default; it must be a whole number of at least 1")
        return self._whole(key, value, 1, LIMITS[key])

    def number(self, key: str, default: float | None, low: float, high: float) -> float:
        """A finite number in (low, high]; required where `default` is None."""
        if key not in self.values and default is not None:
            return default
        value = self.values.get(key)
        # NaN compares false with everything, so it ends here too.
        if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high:
            raise self.error(key, f"is {_shown(value)}, must be a number above {low:g} and at most {high:g}")
        return float(value)

    def token_ids(self, key: str, vocab_size: int) -> tuple[int, ...] | None:
        """One token id or a list of them; None where the key is absent or null."""
        value = self.values.get(key)
        if value is None:
            return None
        items = value if isinstance(value, list) else [value]
        return tuple(dict.fromkeys(self._whole(key, item, 0, vocab_size - 1) for item in items))

    def check_keys(self, known: frozenset[str]) -> None:
        """Refuses active values of keys that are not in `known`, and of known ones what cannot be obeyed."""
        for key, value in self.values.items():
            if key in REFUSED and value:
                raise self.error(key, f"is refused: {REFUSED[key]}")
            if key in REQUIRED_VALUES and key in known:
                allowed, reason = REQUIRED_VALUES[key]
                # By identity of type as well: 1 is not true, 0 is not false.
                if not any(value == one and type(value) is type(one) for one in allowed):
                    choices = " or ".join(_shown(one) for one in allowed)
                    raise self.error(key, f"is {_shown(value)}, must be {choices}: {reason}")
            if key not in known and value:
                raise self.error(
                    key,
                    f"is {_shown(value)}: this key is not known, so the model may compute something else than is "
                    "implemented here. If it changes nothing, remove it or set it to null",
                )

    def _whole(self, key: str, value: object, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(key, f"is {_shown(value)}, must be a whole number")
        if not low <= value <= high:
            raise self.error(key, f"is {_shown(value)}, must lie in [{low}, {high}]")
        return value


def _shown(value: object) -> str:
    """`value` as JSON would spell it, cut short."""
    names = {None: "null", True: "true", False: "false"}
    shown = names[value] if value is None or isinstance(value, bool) else repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "…"
