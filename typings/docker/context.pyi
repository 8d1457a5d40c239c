from typing import Any

class Context:
    name: str
    @property
    def Host(self) -> str | None: ...

class ContextAPI:
    @classmethod
    def get_context(cls, name: str | None = ...) -> Context | None: ...
    @classmethod
    def kwargs_from_context(cls) -> dict[str, Any]: ...
