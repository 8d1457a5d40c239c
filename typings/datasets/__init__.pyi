"""The part of datasets that tasks use: one split of a dataset of the hub."""

from collections.abc import Iterable, Mapping

def load_dataset(
    path: str, name: str | None = None, *, split: str, trust_remote_code: bool
) -> Iterable[Mapping[str, object]]: ...
