"""Runs inside the sandbox: runs a program once for each input, each time in a fresh folder and with its own limits.

No expected output is here. The program's output, status and CPU time go to descriptor 3: for each run a line of JSON,
followed by the output. A run that does not end in time ends them all; the reader decides what that means.
"""

# pyright: basic
import contextlib
import ctypes
import json
import os
import resource
import select
import shutil
import signal
import time

CHANNEL = 3
SUBREAPER, DUMPABLE = 36, 4
STDERR_KEPT = 2000
PATIENCE = 200
CLOCK_TICK = 1 / os.sysconf("SC_CLK_TCK")


def main():
    """Read `request__.json` (command, limits, number of runs, names of input and output files, if any); run all."""
    with open("request__.json", "rb") as file:
        request = json.load(file)
    libc = ctypes.CDLL(None)
    libc.prctl(SUBREAPER, 1, 0, 0, 0)  # processes that a run leaves behind become children of this one
    libc.prctl(DUMPABLE, 0, 0, 0, 0)
    seconds = int(request["cpu_seconds"]) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (request["output_bytes"], request["output_bytes"]))
    top = os.getcwd()
    for index in range(request["runs"]):
        if not run(index, request, top):
            break
        os.chdir(top)
        clean(top)


def run(index, request, top):
    """Run the program once; return True if the next run may follow."""
    folder = f"{top}/run{index}"
    os.mkdir(folder)
    for name in request["files"]:
        os.makedirs(os.path.dirname(f"{folder}/{name}"), exist_ok=True)
        os.symlink(f"{top}/program/{name}", f"{folder}/{name}")
    os.chdir(folder)
    given, printed, complaint = f"{top}/input/{index}", f"{top}/stdout", f"{top}/stderr"
    if request["input_file"]:
        shutil.copyfile(given, request["input_file"])
        given = os.devnull
    new = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, given, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, printed, new, 0o600),
        (os.POSIX_SPAWN_OPEN, 2, complaint, new, 0o600),
        (os.POSIX_SPAWN_CLOSE, CHANNEL),
    ]
    command = request["command"]
    try:
        pid = os.posix_spawnp(command[0], command, os.environ, file_actions=actions, setpgroup=0)
    except OSError as error:
        send(index, {"missing": f"{command[0]}: {error.strerror}"}, b"")
        return False
    in_time = ends(pid, request)
    if not in_time:
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    cpu = usage.ru_utime + usage.ru_stime + reap()
    if not in_time and cpu <= request["cpu_seconds"]:
        send(index, {"late": True}, b"")
        return False
    if request["output_file"]:
        printed = request["output_file"]
    answer = {"status": os.waitstatus_to_exitcode(status), "cpu": cpu, "stderr": tail(complaint)}
    send(index, answer, content(printed))
    return not (request["stop"] and status)


def ends(pid, request):
    """Return True if a run ends within its limits of wall clock and CPU time."""
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    until = time.monotonic() + request["wall_seconds"]
    try:
        while (left := until - time.monotonic()) > 0 and (spare := request["cpu_seconds"] - cpu_of(pid)) >= 0:
            if poll.poll(1000 * min(left, spare + CLOCK_TICK)):
                return True
        return False
    finally:
        os.close(pidfd)


def cpu_of(pid):
    """Return the CPU seconds that a process has used so far, with all of its threads."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            user, system = file.read().rpartition(") ")[2].split()[11:13]
    except OSError:
        return 0.0
    return (int(user) + int(system)) * CLOCK_TICK


def reap():
    """Kill whatever a run left running; return its CPU seconds."""
    cpu = 0.0
    for _ in range(PATIENCE):
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return cpu
        if pid:
            cpu += usage.ru_utime + usage.ru_stime
            continue
        for child in children():
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        select.select([], [], [], 0.001)
    os._exit(1)  # it creates processes faster than they end


def children():
    """Return the pids of the children of this process."""
    me = str(os.getpid())
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    if file.read().rpartition(") ")[2].split()[1] == me:
                        found.append(int(name))
            except OSError:
                continue
    return found


def clean(top):
    """Delete what a run wrote, so that the next one does not see it."""
    places: dict[str, tuple[str, ...]] = {top: ("program", "input", "request__.json", "start__.py")}
    if f"{top}/".startswith("/work/") and "unsafe-host" not in top:
        places.update({"/tmp": (), "/dev/shm": ()})  # elsewhere others use these folders too
    for place, kept in places.items():
        for name in os.listdir(place):
            path = f"{place}/{name}"
            if name in kept:
                continue
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    os.unlink(path)


def content(path):
    """Return the content of a file; empty if it does not exist or is not a file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    with os.fdopen(fd, "rb") as file:
        try:
            return file.read()
        except OSError:
            return b""


def tail(path):
    """Return the end of a file as text."""
    return content(path)[-STDERR_KEPT:].decode("utf-8", "replace")


def send(index, answer, output):
    """Write the line and the output of one run."""
    line = json.dumps({"i": index, "size": len(output), **answer}).encode("ascii") + b"\n"
    view = memoryview(line + output)
    while view:
        view = view[os.write(CHANNEL, view) :]
