class Context:
    name: str
    @property
    def Host(self) -> str | None: ...

class ContextAPI:
    @classmethod
    def get_context(cls, name: str | None = ...) -> Context | None: ...
