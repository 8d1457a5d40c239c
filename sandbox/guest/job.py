"""Turning a fork of a warm interpreter into an isolated job. Runs inside the sandbox: standard library only.

The zygote never sees a job's content: it forks, and the fork reads the content from its own file. So a job's memory
contains nothing of an earlier job, or of the tests that another job was given.
"""

# pyright: basic
import _io
import _socket as socket  # only the calls: what is imported here is copied for every job
import atexit
import gc
import io
import json
import marshal
import os
import random
import resource
import select
import signal
import struct
import sys
import threading
import types

import frames
import kernel

WORK = "/work"
PRIVATE = (WORK, "/tmp", "/dev/shm")
# imported by most programs: loaded once instead of in each job
WARM = ("bisect", "collections", "copy", "datetime", "decimal", "fractions", "functools", "heapq", "itertools", "json")
WARM += ("math", "operator", "random", "re", "string", "typing", "ast", "statistics", "contextlib", "dataclasses")
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": WORK, "LANG": "C.UTF-8", "TMPDIR": "/tmp", "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
}  # fmt: skip
STDIN, STDOUT, STDERR, RESULT, TO_HELPER, FROM_HELPER = range(6)
INT = struct.calcsize("i")
STATUS, GIVEN, CONTENT, BEYOND = 100, 128, 200, 4096  # descriptor numbers used while a job is made
MOST_GIVEN = 16
READY, BEGUN, FAULT = b"+", b".", b"!"  # process prepared; the job's own code starts next; preparation failed

library = {}
"""The owner's modules that a job may ask for, by name; loaded before the first job."""


def zygote(channel, config):
    """Prepare one process for each request on the channel, and report the end of each, until the channel closes.

    A request is the pid of the first process of the pid namespace to fork into (0: this one), with the socket over
    which the new process gets its job; its pid is sent there.
    """
    for name in WARM:
        __import__(name)
    library.update(loaded(config["modules"]))
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    set_standard_streams()
    for name in ("job", "kernel", "frames", "measure", "sweep", "child", "supervisor"):
        sys.modules.pop(name, None)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    filter_program, mounts = b"", []
    if config["mode"] == "namespaces":
        mounts = kernel.prepared_mounts(PRIVATE, config["tmpfs_bytes"], config["inodes"])
    if config["mode"] != "none":
        filter_program = kernel.seccomp_program()
        kernel.drop_bounding_set()
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    gc.collect()
    kernel.trim_memory()
    gc.freeze()
    ends = {}  # pidfd, which becomes readable when its process ends -> pid
    while True:
        for fd in select.select([channel, *ends], [], [])[0]:
            if fd in ends:
                pid, status, usage = os.wait4(ends.pop(fd), 0)
                os.close(fd)
                cpu, rss = usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10
                channel.send(json.dumps({"ended": pid, "status": status, "cpu": cpu, "rss": rss}).encode())
                continue
            message, ancillary, _, _ = channel.recvmsg(4096, socket.CMSG_SPACE(INT))
            if not message:
                os._exit(0)
            given = int.from_bytes(ancillary[0][2], sys.byteorder)
            try:
                if first := int(message):
                    kernel.join_pids(first)
                pid = kernel.fork()
                if not pid:
                    wait_for_job(given, config, mounts, filter_program)
                os.write(given, b"%d" % pid)
                ends[os.pidfd_open(pid)] = pid
            except OSError as error:
                complain(given, error)
            os.close(given)


def loaded(sources):
    """Load modules from their sources, in order; a job does not see them unless it asks for them."""
    found = {}
    for name, source in sources.items():
        found[name] = sys.modules[name] = types.ModuleType(name)
        exec(compile(source, f"{name}.py", "exec"), vars(found[name]))
    for name in found:
        del sys.modules[name]
    return found


def set_standard_streams():
    """Create the standard streams while descriptors 0 to 2 are of the kinds that a job has: a file and two pipes."""
    kept = [os.dup(fd) for fd in range(3)]
    given = [os.memfd_create("stdin"), *os.pipe()]
    for fd, kind in enumerate((given[0], given[2], given[2])):
        os.dup2(kind, fd)
    raw = open(2, "wb", buffering=0, closefd=False)
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.__stderr__ = io.TextIOWrapper(raw, "utf-8", "backslashreplace", write_through=True)
    for fd, before in enumerate(kept):
        os.dup2(before, fd)
    for fd in (*kept, *given):
        os.close(fd)


def wait_for_job(fd, config, mounts, filter_program):
    """Set up a job's isolation, wait for the job, and become it. Never returns.

    The socket delivers the arguments of `program`, with descriptors: content, then the job's own.
    """
    try:
        os.dup2(fd, STATUS, inheritable=False)
        os.closerange(0, STATUS)
        os.closerange(STATUS + 1, BEYOND)
        os.setsid()
        if config["mode"] == "namespaces":
            kernel.unshare(kernel.JOB_NAMESPACES)
            kernel.mount(mounts)
            kernel.raise_loopback()
        if config["mode"] != "none":
            kernel.install_seccomp(filter_program)
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, STATUS)
        channel.send(READY)
        message, ancillary, _, _ = channel.recvmsg(4096, socket.CMSG_SPACE(MOST_GIVEN * INT))
        if message:
            given = ancillary[0][2]
            channel.detach()
            program(config["mode"], struct.unpack(f"{len(given) // INT}i", given), *marshal.loads(message))
    except BaseException as error:
        complain(STATUS, error)
    os._exit(125)


def complain(fd, error):
    """Report on a descriptor that the sandbox, not the program, failed."""
    try:
        os.write(fd, FAULT + f"{type(error).__name__}: {error}".encode()[:400] + b"\n")
    except OSError:
        pass


def program(mode, fds, places, limits, uid, size):
    """Become the job: its descriptors, limits and files, no privileges, then its code. Never returns.

    Args:
        mode: of the sandbox.
        fds: content, then the job's own.
        places: numbers of the job's own descriptors.
        limits: kernel limits: resource, soft and hard.
        uid: uid to become, or None.
        size: bytes of the content's header, which consists of plain types.
    """
    os.dup2(fds[0], CONTENT, inheritable=False)
    moved = [os.dup2(fd, GIVEN + index, inheritable=False) for index, fd in enumerate(fds[1:])]
    os.closerange(0, STATUS)
    for place, fd in zip(places, moved):
        os.dup2(fd, place)
    os.closerange(GIVEN, CONTENT)
    if mode != "none":
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
        write("/proc/self/oom_score_adj", b"1000", os.O_WRONLY)
    for kind, soft, hard in limits:
        resource.setrlimit(kind, (soft, hard))
    if mode != "none":
        if uid is not None:
            for fd in (1, 2):
                os.fchmod(fd, 0o666)  # so that it may open /dev/stdout
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        kernel.drop_capabilities()
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    os.umask(0o022 if mode == "namespaces" else 0o077)
    argv, files, env, modules, work = marshal.loads(os.read(CONTENT, size))
    if work != WORK:
        os.makedirs(work, exist_ok=True)
    os.chdir(work)
    for name, size, permissions in files:
        if "/" in name:
            os.makedirs(os.path.dirname(name), exist_ok=True)
        write(name, os.read(CONTENT, size), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, permissions)
    os.closerange(CONTENT, BEYOND)
    if work != WORK:
        os.environ["HOME"] = work
    if env:
        os.environ.update(env)
    os.write(STATUS, BEGUN)
    os.close(STATUS)
    if argv[0] == "python" and len(argv) > 1 and not argv[1].startswith("-"):
        run_python(argv[1:], modules, work)
    command = sys.executable if argv[0] == "python" else argv[0]
    arguments = ["python", "-B", *argv[1:]] if argv[0] == "python" else argv
    try:
        os.execvpe(command, arguments, os.environ)
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(127)


def write(path, data, flags, permissions=0o666):
    """Write a file; direct calls touch fewer memory pages than a file object."""
    fd = os.open(path, flags, permissions)
    try:
        frames.write_all(fd, data)
    finally:
        os.close(fd)


def run_python(argv, modules, work):
    """Run a script as `python script args` would, in this warm interpreter, and exit the process."""
    random.seed()
    threading.main_thread()._set_native_id()  # type: ignore[attr-defined]
    sys.modules.update((name, library[name]) for name in modules)
    sys.argv = argv
    sys.path.insert(0, work)
    module = types.ModuleType("__main__")
    module.__file__ = argv[0]
    vars(module)["__builtins__"] = __builtins__
    sys.modules["__main__"] = module
    code = 0
    try:
        with open(argv[0], "rb") as file:
            source = file.read()
        exec(compile(source, argv[0], "exec"), vars(module))
    except SystemExit as stop:
        code = stop.code
        if code is None:
            code = 0
        elif not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException as error:
        import traceback

        trace = error.__traceback__
        traceback.print_exception(type(error), error, trace and trace.tb_next)
        code = 1
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter itself does before exit hooks
        atexit._run_exitfuncs()
    except BaseException:
        import traceback

        traceback.print_exc()
    code = flush_standard() or code
    let_go(module)
    code = code or flush_standard()
    os._exit(code & 0xFF)


def flush_standard():
    """Flush the standard streams; return 120 if that fails, as the interpreter does, else 0."""
    failed = 0
    for stream in (sys.stdout, sys.__stdout__, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except BaseException:
            failed = 120
    return failed


def let_go(module):
    """Delete the program's objects in the interpreter's order, so that finalizers run and files are written.

    Names with an underscore go first, then the others; open files are flushed, then reference cycles are collected.
    """
    names = vars(module)
    for private in (True, False):
        for name in [*names]:
            if name != "__builtins__" and (name[:1] == "_" and name[:2] != "__") is private:
                names[name] = None
    flush_open()  # first: in a reference cycle a file may be closed before its buffer is written
    gc.collect()
    flush_open()


def flush_open():
    """Flush every open file that is still referenced."""
    for found in gc.get_objects():
        if issubclass(type(found), _io._IOBase):  # a plain class check; io.IOBase would use an abstract class
            try:
                if not found.closed and found.writable():
                    found.flush()
            except BaseException:
                continue
