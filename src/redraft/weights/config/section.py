"""Typed and checked access to one object of a config file. Every error names the file, the key and the value."""

from collections.abc import Mapping
from dataclasses import dataclass

from redraft.weights.config.keys import DEFAULT_SIZES, MAX_SIZES, REFUSED_KEYS, REQUIRED_VALUES


@dataclass(frozen=True)
class Section:
    """A JSON object in a file; `prefix` is its place in the file, for example "text_config."."""

    file: str
    values: Mapping[str, object]
    prefix: str = ""

    def error(self, key: str, problem: str) -> ValueError:
        """Builds the error for `key`, with file and path."""
        return ValueError(f"{self.file}: {self.prefix}{key} {problem}")

    def sub(self, key: str) -> "Section":
        """Returns the object under `key`, or an empty one if it is absent or null."""
        value = self.values.get(key)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.error(key, f"is {_to_json_text(value)}, must be an object")
        return Section(self.file, value, f"{self.prefix}{key}.")

    def size(self, key: str) -> int:
        """Returns an integer in [1, MAX_SIZES[key]]. An absent one is DEFAULT_SIZES[key], if there is one."""
        if key not in self.values and key in DEFAULT_SIZES:
            return DEFAULT_SIZES[key]
        value = self.values.get(key)
        if value is None and key not in DEFAULT_SIZES:
            raise self.error(key, "is missing or null and has no default: it must be an integer of at least 1")
        return self._check_integer(key, value, 1, MAX_SIZES[key])

    def number(self, key: str, default: float | None, low: float, high: float) -> float:
        """Returns a finite number in (low, high]; it is required if `default` is None."""
        if key not in self.values and default is not None:
            return default
        value = self.values.get(key)
        # Comparisons with NaN are false, so NaN is refused here as well.
        if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high:
            raise self.error(key, f"is {_to_json_text(value)}, must be a number above {low:g} and at most {high:g}")
        return float(value)

    def token_ids(self, key: str, vocab_size: int) -> tuple[int, ...] | None:
        """Returns one token id or a list of them as a tuple without duplicates; None if the key is absent or null."""
        value = self.values.get(key)
        if value is None:
            return None
        items = value if isinstance(value, list) else [value]
        return tuple(dict.fromkeys(self._check_integer(key, item, 0, vocab_size - 1) for item in items))

    def check_keys(self, known: frozenset[str]) -> None:
        """Raises ValueError for active values of keys that are not in `known`, and for unsupported values."""
        for key, value in self.values.items():
            if key in REFUSED_KEYS and value:
                raise self.error(key, f"is refused: {REFUSED_KEYS[key]}")
            if key in REQUIRED_VALUES and key in known:
                allowed, reason = REQUIRED_VALUES[key]
                # The types must be the same, too: 1 is not true, and 0 is not false.
                if not any(value == one and type(value) is type(one) for one in allowed):
                    choices = " or ".join(_to_json_text(one) for one in allowed)
                    raise self.error(key, f"is {_to_json_text(value)}, must be {choices}: {reason}")
            if key not in known and value:
                raise self.error(
                    key,
                    f"is {_to_json_text(value)}: this key is not known, so the model may compute something that is not "
                    "implemented here. If the key has no effect, remove it or set it to null",
                )

    def _check_integer(self, key: str, value: object, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(key, f"is {_to_json_text(value)}, must be an integer")
        if not low <= value <= high:
            raise self.error(key, f"is {_to_json_text(value)}, must be in [{low}, {high}]")
        return value


def _to_json_text(value: object) -> str:
    """Writes `value` as JSON would, cut to 60 characters."""
    names = {None: "null", True: "true", False: "false"}
    shown = names[value] if value is None or isinstance(value, bool) else repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "…"
