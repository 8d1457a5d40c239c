"""Packed tests of LiveCodeBench (base64 of zlib of a pickle of JSON), read without running anything in the pickle."""

from __future__ import annotations

import base64
import binascii
import io
import pickle
import zlib

from tasks.inputs.formats import UnfitRow

MOST_BYTES = 1 << 29
"""Limit for the unpacked tests of one problem. The largest of LiveCodeBench's are some tens of megabytes."""


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler for text, numbers and containers only; it refuses everything that must be looked up by name."""

    def find_class(self, module_name: str, global_name: str, /) -> object:
        raise pickle.UnpicklingError(f"it names {module_name}.{global_name}; no name is allowed")


def unpacked_tests(packed: str) -> str:
    """Return the JSON text inside packed tests.

    Raises:
        UnfitRow: they are not packed this way, are larger than MOST_BYTES, or contain anything but text.
    """
    try:
        unzip = zlib.decompressobj()
        data = unzip.decompress(base64.b64decode(packed.encode("ascii"), validate=True), MOST_BYTES)
    except (binascii.Error, zlib.error, UnicodeError) as error:
        raise UnfitRow(f"has private_test_cases that are neither JSON nor base64 of zlib: {error}") from None
    if unzip.unconsumed_tail:
        raise UnfitRow(f"has private_test_cases of more than {MOST_BYTES >> 20} MiB, unpacked")
    try:
        found = _PlainUnpickler(io.BytesIO(data)).load()
    except (
        pickle.UnpicklingError,
        EOFError,
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
        OverflowError,
    ) as error:
        raise UnfitRow(f"has a damaged pickle in private_test_cases: {error}"[:300]) from None
    if not isinstance(found, str):
        raise UnfitRow(f"has a {type(found).__name__} instead of text in private_test_cases")
    return found
