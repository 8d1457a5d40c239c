"""The error of a config that cannot be used."""

from __future__ import annotations

from reasoner.errors import USAGE, ReasonerError


class ConfigError(ReasonerError, ValueError):
    """Error of a config that cannot be used.

    `code` is stable: unknown-key, bad-value, no-file, bad-yaml, bad-override, changed, no-effect, found-code.
    """

    exit_code = USAGE

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, str]]:
        return ConfigError, (self.code, str(self))
