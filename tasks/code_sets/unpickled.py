"""LiveCodeBench's packed tests: base64 of zlib of a pickle of JSON, read without anything a pickle could run."""

from __future__ import annotations

import base64
import binascii
import io
import pickle
import zlib

from tasks.inputs.formats import UnfitRow

MOST_BYTES = 1 << 29
"""Of the tests of one problem, unpacked. The largest of LiveCodeBench's are some tens of megabytes."""


class _PlainUnpickler(pickle.Unpickler):
    """Makes text, numbers and containers; nothing that has to be looked up by name."""

    def find_class(self, module_name: str, global_name: str, /) -> object:
        raise pickle.UnpicklingError(f"it names {module_name}.{global_name}, and may name nothing")


def unpacked_tests(packed: str) -> str:
    """The JSON text inside packed tests.

    Raises:
        UnfitRow: they are not packed so, are larger than MOST_BYTES, or hold anything but text.
    """
    try:
        unzip = zlib.decompressobj()
        data = unzip.decompress(base64.b64decode(packed.encode("ascii"), validate=True), MOST_BYTES)
    except (binascii.Error, zlib.error, UnicodeError) as error:
        raise UnfitRow(f"holds private_test_cases that are no JSON, nor base64 of zlib: {error}") from None
    if unzip.unconsumed_tail:
        raise UnfitRow(f"holds private_test_cases of more than {MOST_BYTES >> 20} MiB, unpacked")
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
        raise UnfitRow(f"holds a damaged pickle in private_test_cases: {error}"[:300]) from None
    if not isinstance(found, str):
        raise UnfitRow(f"holds a {type(found).__name__} and no text in private_test_cases")
    return found
