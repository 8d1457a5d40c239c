"""Measurement of programs: CPU time, memory, processes. Runs inside the sandbox: standard library only."""

# pyright: basic
import contextlib
import os
import signal
import time

import kernel

CLOCK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
CPU_FILES = ("/sys/fs/cgroup/cpuacct/cpuacct.usage", "/sys/fs/cgroup/cpu,cpuacct/cpuacct.usage")
CPU_FILE_V2 = "/sys/fs/cgroup/cpu.stat"
OOM_FILES = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
MANY_TASKS = 2
HARDLY = 0.01  # seconds of processor time
# each step of niceness is a factor 1.25 of weight (Linux, kernel/sched/core.c, sched_prio_to_weight): the tasks of a
# program together should have about the weight of one ordinary process
NICE_STEP = 1.25
# memory that is not charged to any process: a socket takes up to 400 KiB; a TCP socket up to 6 MiB received and 4 sent
MOST_SOCKETS = 1024
MOST_TCP = 128
LOWEST = 19
ORDINARY = (b"0", b"3")  # SCHED_OTHER, SCHED_BATCH (sched(7))
PROBE_WORK, PROBE_REST, PROBE_LOOK = 0.01, 0.12, 0.008  # seconds


class Use:
    """Resource use of one program at one moment."""

    def __init__(self):
        self.cpu = 0.0
        self.rss = 0
        self.tasks = 0
        self.waited = 0.0
        self.lowest = 0
        self.pids = []
        self.holders = []  # for each process, the thread by which its memory can be read
        self.rows = {}
        self.seconds = {}


class Meter:
    """Measurement of one job's programs from tick to tick.

    Args:
        mode: with namespaces and none programs are distinguished by descent, with uid by the owner of a process.
        zygote: its pid; its CPU time is not the job's.
    """

    def __init__(self, mode, zygote):
        self.mode = mode
        self.zygote = zygote
        self.group = None
        if mode != "none" and os.getpid() == 1:  # otherwise others share the group
            self.group = opened(*CPU_FILES, CPU_FILE_V2)
        self.begin()

    def begin(self):
        """Start a new job."""
        self.own = {}
        self.first = self.group_cpu([])

    def measure(self, running, others=()):
        """Measure the use of each running program; return pid -> use.

        Args:
            running: the programs.
            others: pids of the supervisor's own processes that were started since the job began.
        """
        found = {child.pid: Use() for child in running}
        firsts = {child.first: found[child.pid] for child in running if child.first}
        roots = {**found, **firsts}
        before = {child.pid: child.before for child in running}
        rows = {}
        for pid in processes():
            row = stat_row(pid)
            if row:
                rows[pid] = row
        by_uid = {child.uid: child.pid for child in running}
        for pid, row in rows.items():
            root = by_uid.get(owner_of(pid)) if self.mode == "uid" else ancestor(pid, rows, roots)
            if root is not None and pid not in firsts:
                self.add(roots[root], pid, row, *before.get(pid, (0.0, 0.0)))
        for child in running:
            use = found[child.pid]
            # children whose parent ignores SIGCHLD are in no sum once they have ended, so the last value seen of each
            # process is kept
            mine = self.own.setdefault(child.pid, {})
            mine.update(use.seconds)
            use.cpu = max(use.cpu, sum(mine.values()), child.clocked())
        total = self.group_cpu(others) if len(running) == 1 else None
        if total is not None and self.first is not None:
            use = found[running[0].pid]
            use.cpu = max(use.cpu, total - self.first)
        return found

    def add(self, use, pid, row, cpu_before, waited_before):
        """Add the use of one process, without what it used before it got its job."""
        use.rows[pid] = row
        exact, waited = schedule(pid)
        use.seconds[pid, row[19]] = max(exact, (int(row[11]) + int(row[12])) / CLOCK) - cpu_before
        use.cpu += sum(map(int, row[11:15])) / CLOCK - cpu_before
        use.tasks += int(row[17])
        use.pids.append(pid)
        if row[0] == b"Z" and int(row[17]) > 1:
            pid, row = living_thread(pid, row)
        use.holders.append(pid)
        use.rss += int(row[21]) * PAGE
        use.waited = max(use.waited, waited - waited_before)
        use.lowest = max(use.lowest, lowered(row))

    def group_cpu(self, others):
        """Return the CPU seconds of this container's jobs so far, as summed by the kernel; None if it has no sum.

        The CPU time of the supervisor's own processes (this one, the zygote and the pids in `others`) is subtracted.
        """
        if self.group is None:
            return None
        text = os.pread(self.group, 4096, 0)
        total = int(text.split(None, 2)[1]) / 1e6 if b" " in text else int(text) / 1e9
        own = time.process_time()
        for pid in (self.zygote, *others):
            row = stat_row(pid)
            own += (int(row[11]) + int(row[12])) / CLOCK if row else 0.0
        return total - own


def ancestor(pid, rows, roots):
    """Return the root from which a process descends, or None."""
    while pid not in roots:
        if pid not in rows:
            return None
        pid = int(rows[pid][1])
    return pid


def weight_of_one(tasks):
    """Return the niceness at which this number of tasks has about the weight of one."""
    nice, weight = 0, float(tasks)
    while weight > 1.0 and nice < LOWEST:
        nice, weight = nice + 1, weight / NICE_STEP
    return nice


def lower(use):
    """Give a program of many tasks the weight of one, so that a fork bomb does not slow others down."""
    if use.tasks <= MANY_TASKS:
        return
    nice = weight_of_one(use.tasks)
    for pid, row in use.rows.items():
        if int(row[16]) >= nice and int(row[17]) == 1:
            continue
        try:
            for task in os.listdir(f"/proc/{pid}/task") if int(row[17]) > 1 else [pid]:
                if os.getpriority(os.PRIO_PROCESS, int(task)) < nice:
                    os.setpriority(os.PRIO_PROCESS, int(task), nice)
        except OSError:
            continue


def living_thread(pid, row):
    """Return (id, stat row) of the thread with the process's memory; the first thread shows none once it has ended."""
    try:
        tasks = [int(task) for task in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return pid, row
    best = pid, row
    for task in tasks:
        found = stat_row(task)
        if found is not None and int(found[21]) > int(best[1][21]):
            best = task, found
    return best


def lowered(row):
    """Return how far a thread's priority is lowered: its niceness, or LOWEST + 1 in a class below all niceness."""
    return int(row[16]) if row[38] in ORDINARY else LOWEST + 1


def group_lowered(pid):
    """Return how far the priority of a process's session is lowered, if sessions share CPUs (sched(7), autogroup)."""
    try:
        return int(contents(f"/proc/{pid}/autogroup").split()[-1])
    except (OSError, ValueError, IndexError):
        return 0


class Probe:
    """Probe process that works a little now and then, like an ordinary program next to the job. The CPU time that the
    machine offers it tells if a job that waits for a processor is starved, or has lowered its own priority.
    """

    def __init__(self):
        self.offered = 0.0  # CPU seconds that an ordinary program would have been given since it began
        self.seen = 0.0, 0.0
        self.since = time.monotonic()
        self.pid = os.fork()
        if not self.pid:
            work_now_and_then()

    def look(self):
        """Add what it was given since the last look; nothing while it waits."""
        run, waited = schedule(self.pid)
        ran, stood = run - self.seen[0], waited - self.seen[1]
        if ran + stood >= PROBE_LOOK:
            now = time.monotonic()
            self.offered += (now - self.since) * ran / (ran + stood)
            self.seen, self.since = (run, waited), now

    def end(self):
        """End the process."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def work_now_and_then():
    """Request a processor for PROBE_WORK seconds, over and over. Never returns."""
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.closerange(0, 4096)
        os.setsid()  # if sessions share the processors evenly, a job has its own session too
        while True:
            until = time.process_time() + PROBE_WORK
            while time.process_time() < until:
                pass
            time.sleep(PROBE_REST)
    finally:
        os._exit(0)


def light(child):
    """Return True if a program cannot have reached a limit yet, except the wall limit; cheaper than measuring.

    It then has one thread, no child that it has waited for, and has hardly run.
    """
    row = stat_row(child.pid)
    run, waited = schedule(child.pid)
    child.waited = max(child.waited, waited - child.before[1])
    if row is not None:
        child.lowered = child.lowered or lowered(row) > child.given
    allowed = child.header["limits"]
    return (
        row is not None
        and row[17] == b"1"
        and row[13] == row[14] == b"0"
        and max(run - child.before[0], child.clocked()) < min(HARDLY, allowed["cpu_seconds"] / 2)
        and int(row[21]) * PAGE < allowed["memory_bytes"] / 2
    )


def processes():
    """Return the pids of all processes here except this one."""
    me = os.getpid()
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != me]


def contents(path, most=4096):
    """Return the content of a short kernel file; cheaper than with a file object."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, most)
    finally:
        os.close(fd)


def opened(*paths):
    """Open the first of these files that exists; return its descriptor, or None."""
    for path in paths:
        with contextlib.suppress(OSError):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return None


def stat_row(pid):
    """Return the fields of /proc/PID/stat from the state on; None if the process is gone."""
    try:
        return contents(f"/proc/{pid}/stat").rsplit(b") ", 1)[1].split()
    except (OSError, IndexError):
        return None


def schedule(pid):
    """Return the seconds that a process's first thread has run, and that it has waited for a processor."""
    try:
        run, waited, _ = contents(f"/proc/{pid}/schedstat").split()
        return int(run) / 1e9, int(waited) / 1e9
    except (OSError, ValueError):
        return 0.0, 0.0


def owner_of(pid):
    """Return the real uid of a process; None if it is gone. (A process can make its /proc folder belong to root.)"""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(b"Uid:"))
    except (OSError, StopIteration):
        return None


def resident(pids):
    """Return the bytes that processes use together, counting shared pages once (their proportional set size)."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                total += next(int(line.split()[1]) << 10 for line in file if line.startswith(b"Pss:"))
        except (OSError, StopIteration):
            try:
                with open(f"/proc/{pid}/statm", "rb") as file:
                    total += int(file.read().split()[1]) * PAGE
            except (OSError, IndexError):
                pass
    return total


def many_sockets(pid):
    """Return what exceeds a limit in the network namespace of a process; empty if nothing does."""
    counts = {}
    for name in ("sockstat", "sockstat6"):
        try:
            with open(f"/proc/{pid}/net/{name}", "rb") as file:
                counts.update((line.split()[0], int(line.split()[2])) for line in file)
        except (OSError, IndexError, ValueError):
            pass
    if counts.get(b"sockets:", 0) > MOST_SOCKETS:
        return f"{MOST_SOCKETS} sockets"
    if counts.get(b"TCP:", 0) + counts.get(b"TCP6:", 0) > MOST_TCP:
        return f"{MOST_TCP} TCP sockets"
    return ""


def oom_kills(fd):
    """Return how often the kernel killed a process of this container for memory, from one of OOM_FILES."""
    lines = [] if fd is None else os.pread(fd, 4096, 0).splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(b"oom_kill ")), 0)
