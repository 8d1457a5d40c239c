"""Runs inside the sandbox: compiles a program and sends the files that result to descriptor 3.

The reply is a line of JSON with the compiler's status, then for each file a line [name, size, executable] and its
content.
"""

# pyright: basic
import json
import os

CHANNEL = 3


def main():
    """Read the command in `request__.json`, run it, and send the reply."""
    with open("request__.json", "rb") as file:
        request = json.load(file)
    for name in ("request__.json", "start__.py"):
        os.unlink(name)
    before = {path: os.stat(path).st_mtime_ns for path in files()}
    command = request["command"]
    closed = [(os.POSIX_SPAWN_CLOSE, CHANNEL)]
    try:
        pid = os.posix_spawnp(command[0], command, os.environ, file_actions=closed)
    except OSError as error:
        send(json.dumps({"missing": f"{command[0]}: {error.strerror}"}).encode() + b"\n")
        return
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    send(json.dumps({"status": status}).encode() + b"\n")
    if status:
        return
    for path in files():
        if before.get(path) == os.stat(path).st_mtime_ns:
            continue
        with open(path, "rb") as file:
            content = file.read()
        send(json.dumps([path, len(content), bool(os.stat(path).st_mode & 0o100)]).encode() + b"\n")
        send(content)


def files():
    """Return the relative path of every file in the working directory."""
    return [os.path.relpath(os.path.join(folder, name)) for folder, _, names in os.walk(".") for name in sorted(names)]


def send(data):
    """Write all of the data."""
    view = memoryview(data)
    while view:
        view = view[os.write(CHANNEL, view) :]
