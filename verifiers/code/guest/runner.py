"""Runs inside the sandbox: one program, once for each input, each time in a fresh folder and with limits of its own.

No expected output is here. What the program printed, its status and its CPU time go to descriptor 3: for each run a
line of JSON, and the output behind it. A run that is not over in time ends all: whoever reads this says what it means.
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
    """Read `request__.json`: command, limits, how many runs, and the names of files for input and output, if any."""
    with open("request__.json", "rb") as file:
        request = json.load(file)
    libc = ctypes.CDLL(None)
    libc.prctl(SUBREAPER, 1, 0, 0, 0)  # what a run leaves behind is a child of this process, and found
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
    """One run; whether the next one may follow."""
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
    """Whether a run ends within its limits of the clock and of CPU time, each looked at as it may be reached."""
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
    """Seconds of CPU time that a process has used so far, with all of its threads."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            user, system = file.read().rpartition(") ")[2].split()[11:13]
    except OSError:
        return 0.0
    return (int(user) + int(system)) * CLOCK_TICK


def reap():
    """Kill whatever a run left running; its CPU time."""
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
    os._exit(1)  # it makes new ones faster than they end


def children():
    """Pids of the children of this process."""
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
    """What a run wrote is not there for the next one."""
    places: dict[str, tuple[str, ...]] = {top: ("program", "input", "request__.json", "start__.py")}
    if f"{top}/".startswith("/work/") and "unsafe-host" not in top:
        places.update({"/tmp": (), "/dev/shm": ()})  # else these are other people's too
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
    """What a file holds; nothing where it is not there, or no file."""
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
    """The end of a file, as text."""
    return content(path)[-STDERR_KEPT:].decode("utf-8", "replace")


def send(index, answer, output):
    """One run's line and output."""
    line = json.dumps({"i": index, "size": len(output), **answer}).encode("ascii") + b"\n"
    view = memoryview(line + output)
    while view:
        view = view[os.write(CHANNEL, view) :]
