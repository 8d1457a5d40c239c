"""Files whose paths the tests pass to the program and that it changes; the two processes have separate disks.

Runs inside the sandbox, on both sides: standard library only.
"""

# pyright: basic
import os
import pathlib
import tempfile

MOST_BYTES = 4 << 20
MOST_FILES = 200
LONGEST = 250
KEPT_BACK = (".py", ".pyc", ".ini", ".cfg", ".toml", ".pth")
"""Suffixes of files that the tests' own process executes or reads as configuration."""


def paths_in(values, depth=3):
    """Return texts and paths among values that may name a file below the working or a temporary directory."""
    found = []
    for value in values:
        if isinstance(value, (str, pathlib.PurePath)):
            text = str(value)
            if 0 < len(text) < LONGEST and "\n" not in text and "\0" not in text and is_ours(text):
                found.append(text)
        elif depth and isinstance(value, (list, tuple, dict)):
            found += paths_in(value.values() if isinstance(value, dict) else value, depth - 1)
    return found[:MOST_FILES]


def is_ours(text):
    """Return True if a path is in the tests' directories and its folder exists."""
    whole = os.path.normpath(os.path.join(os.getcwd(), text))
    roots = [os.getcwd(), tempfile.gettempdir()]
    return any(whole.startswith(root + os.sep) for root in roots) and os.path.isdir(os.path.dirname(whole))


def contents(paths):
    """Return path -> content of the files that paths name and of those in folders that they name; None for a folder."""
    found, left = {}, MOST_BYTES
    for path in paths:
        for name in below(path):
            if os.path.isdir(name):
                found[name] = None
            elif os.path.isfile(name) and os.path.getsize(name) <= left and len(found) < MOST_FILES:
                with open(name, "rb") as file:
                    found[name] = file.read(left)
                left -= len(found[name])
    return found


def below(path):
    """Return a path and, for a folder, everything below it."""
    names = [path]
    for folder, folders, files in os.walk(path):
        names += [os.path.join(folder, name) for name in (*folders, *files)]
        if len(names) > MOST_FILES:
            break
    return names


def put(files, allowed=None):
    """Write files.

    Args:
        files: path -> content, None for a folder.
        allowed: paths that these must equal or be below; None: any.
    """
    for path, content in files.items():
        if allowed is not None and not permitted(path, allowed):
            continue
        try:
            os.makedirs(path if content is None else os.path.dirname(path) or ".", exist_ok=True)
            if content is not None:
                with open(path, "wb") as file:
                    file.write(content)
        except OSError:
            continue


def permitted(path, allowed):
    """Return True if the program may write this file on the tests' side."""
    if not isinstance(path, str) or ".." in path.split(os.sep) or path.endswith((*KEPT_BACK, "request.json")):
        return False
    return any(path == one or path.startswith(one.rstrip(os.sep) + os.sep) for one in allowed)
