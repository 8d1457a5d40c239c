"""numpy arrays and pandas tables and columns as parts that `wire` can encode, and back, if these are installed.

Runs on both sides of the sandbox; imports them only when such a value occurs.
"""

# pyright: basic
import sys

MAX_DIMENSIONS = 16
ARRAY_KINDS = "biufcSUmM"
"""Kinds of elements that are transferred as bytes."""


def parts(value):
    """Return the tag and parts of an array, a table or a column; None for anything else."""
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    kind = type(value)
    if numpy is not None and kind is numpy.ndarray:
        return "$array", array_parts(value)
    if pandas is not None and kind is getattr(pandas, "Series", None):
        return "$series", [value.name, labels(value.index), array_parts(value.to_numpy())]
    if pandas is not None and kind is getattr(pandas, "DataFrame", None):
        columns = [array_parts(value.iloc[:, at].to_numpy()) for at in range(value.shape[1])]
        return "$frame", [list(value.columns), labels(value.index), columns]
    return None


def labels(index):
    """Return the labels of an index; None if they count from 0."""
    found = index.tolist()
    return None if found == list(range(len(found))) else found


def array_parts(value):
    """Return type, shape and elements of a numpy array."""
    if value.dtype.kind in ARRAY_KINDS:
        return [value.dtype.str, list(value.shape), value.tobytes()]
    return ["O", list(value.shape), value.ravel().tolist()]


def array(parts):
    """Build an array from its parts.

    Raises:
        ValueError: they are invalid, or numpy is not installed.
    """
    try:
        import numpy
    except ImportError:
        raise ValueError("an array, but numpy is not installed on this side") from None
    kind, shape, elements = parts
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or any(type(size) is not int for size in shape):
        raise ValueError("no shape")
    if kind == "O":
        found = numpy.empty(len(elements), dtype=object)
        found[:] = elements
        return found.reshape(shape)
    dtype = numpy.dtype(kind)
    if dtype.kind not in ARRAY_KINDS:
        raise ValueError("no type of plain elements")
    return numpy.frombuffer(elements, dtype=dtype).reshape(shape).copy()


def made(tag, parts):
    """Build a value from its tag and parts.

    Raises:
        ValueError: they are invalid, or a package that they need is not installed.
    """
    if tag == "$array":
        return array(parts)
    try:
        import pandas
    except ImportError:
        raise ValueError("a table, but pandas is not installed on this side") from None
    if tag == "$series":
        name, index, elements = parts
        return pandas.Series(array(elements), index=index, name=name)
    names, index, columns = parts
    found = pandas.DataFrame({at: array(column) for at, column in enumerate(columns)}, index=index)
    found.columns = names
    return found
