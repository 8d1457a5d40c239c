"""Part of pytest that plain test functions use; the sandbox provides it as `pytest` if pytest is missing."""

# pyright: basic
import math
import re


class raises:
    """Context manager `with raises(ValueError, match="..."):`."""

    def __init__(self, expected, *, match=None):
        self.expected, self.match, self.value = expected, match, None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            raise AssertionError(f"did not raise {self.expected}")
        self.value = error
        if not issubclass(kind, self.expected):
            return False
        if self.match is not None and not re.search(self.match, str(error)):
            raise AssertionError(f"{str(error)!r} does not match {self.match!r}")
        return True


class approx:
    """Number, or list, tuple or dict of numbers, equal within a relative 1e-6 or an absolute 1e-12."""

    def __init__(self, expected, rel=None, abs=None):
        self.expected, self.rel, self.abs = expected, 1e-6 if rel is None else rel, 1e-12 if abs is None else abs

    def __eq__(self, other):
        return self._near(other, self.expected)

    __hash__ = None  # type: ignore[assignment]

    def _near(self, got, expected):
        if isinstance(expected, dict):
            same = isinstance(got, dict) and got.keys() == expected.keys()
            return same and all(self._near(got[key], expected[key]) for key in expected)
        if isinstance(expected, (list, tuple)):
            same = isinstance(got, (list, tuple)) and len(got) == len(expected)
            return same and all(self._near(a, b) for a, b in zip(got, expected, strict=True))
        if isinstance(got, (int, float)) and isinstance(expected, (int, float)):
            return math.isclose(got, expected, rel_tol=self.rel, abs_tol=self.abs)
        return got == expected
