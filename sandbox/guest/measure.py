"""What programs use: processor time, memory, processes. Runs inside the sandbox: standard library only."""

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
# program together shall weigh about as much as one ordinary process
NICE_STEP = 1.25
# what no process is charged for: a socket holds up to 400 KiB, one of TCP up to 6 MiB that came and 4 that go
MOST_SOCKETS = 1024
MOST_TCP = 128
LOWEST = 19
ORDINARY = (b"0", b"3")  # SCHED_OTHER, SCHED_BATCH (sched(7))
PROBE_WORK, PROBE_REST, PROBE_LOOK = 0.01, 0.12, 0.008  # seconds


class Use:
    """One program's use at one moment."""

    def __init__(self):
        self.cpu = 0.0
        self.rss = 0
        self.tasks = 0
        self.waited = 0.0
        self.lowest = 0
        self.pids = []
        self.holders = []  # of each process the thread that its memory is seen by
        self.rows = {}
        self.seconds = {}


class Meter:
    """Follows one job's programs from tick to tick.

    Args:
        mode: namespaces and none tell programs apart by descent, uid by the owner of a process.
        zygote: its pid; its processor time is not the job's.
    """

    def __init__(self, mode, zygote):
        self.mode = mode
        self.zygote = zygote
        self.group = None
        if mode != "none" and os.getpid() == 1:  # else a group that others share
            self.group = opened(*CPU_FILES, CPU_FILE_V2)
        self.begin()

    def begin(self):
        """A new job starts."""
        self.own = {}
        self.first = self.group_cpu([])

    def measure(self, running, others=()):
        """Use of each running program, by its pid.

        Args:
            running: the programs.
            others: pids of ours that have come since the job began.
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
            # children whose parent ignores SIGCHLD are in nobody's sum once they are gone: what was last seen of each
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
        """Count one process, which may have used something before it had its job."""
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
        """Processor seconds of this container's jobs so far, as the kernel sums them, or None where it does not."""
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
    """The root that a process descends from, or None."""
    while pid not in roots:
        if pid not in rows:
            return None
        pid = int(rows[pid][1])
    return pid


def weight_of_one(tasks):
    """The niceness at which so many tasks together weigh about as much as one."""
    nice, weight = 0, float(tasks)
    while weight > 1.0 and nice < LOWEST:
        nice, weight = nice + 1, weight / NICE_STEP
    return nice


def lower(use):
    """Give a program of many tasks the weight of one: a fork bomb slows nobody down."""
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
    """(id, row) of the thread that tells what a process holds once its first one is over: that one holds nothing."""
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
    """How far a thread stands back for others: its niceness, or LOWEST + 1 in a class below all niceness."""
    return int(row[16]) if row[38] in ORDINARY else LOWEST + 1


def group_lowered(pid):
    """How far the session of a process stands back, where sessions share the processors (sched(7), autogroup)."""
    try:
        return int(contents(f"/proc/{pid}/autogroup").split()[-1])
    except (OSError, ValueError, IndexError):
        return 0


class Probe:
    """A process of ours that now and then works a little, as an ordinary program beside the job: what the machine
    offers such a one says whether a job that waits for a processor is starved, or stands back by itself.
    """

    def __init__(self):
        self.offered = 0.0  # seconds of a processor that an ordinary program would have had since it began
        self.seen = 0.0, 0.0
        self.since = time.monotonic()
        self.pid = os.fork()
        if not self.pid:
            work_now_and_then()

    def look(self):
        """Take in what it had since the last look; nothing while it waits."""
        run, waited = schedule(self.pid)
        ran, stood = run - self.seen[0], waited - self.seen[1]
        if ran + stood >= PROBE_LOOK:
            now = time.monotonic()
            self.offered += (now - self.since) * ran / (ran + stood)
            self.seen, self.since = (run, waited), now

    def end(self):
        """It is needed no more."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def work_now_and_then():
    """Be a program that asks for a processor for PROBE_WORK seconds, over and over. Never returns."""
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.closerange(0, 4096)
        os.setsid()  # where sessions share the processors evenly, a job has one of its own too
        while True:
            until = time.process_time() + PROBE_WORK
            while time.process_time() < until:
                pass
            time.sleep(PROBE_REST)
    finally:
        os._exit(0)


def light(child):
    """Whether a program has had no time to reach a limit, but those on waiting: a look that is cheaper than measuring.

    It has one thread, no child that it has waited for, and has hardly run.
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
    """Every process here but this one."""
    me = os.getpid()
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != me]


def contents(path, most=4096):
    """What a short file of the kernel holds; cheaper than by a file object."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, most)
    finally:
        os.close(fd)


def opened(*paths):
    """A descriptor of the first of these files that is there, or None."""
    for path in paths:
        with contextlib.suppress(OSError):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return None


def stat_row(pid):
    """The fields of /proc/PID/stat from the state on, or None where the process is gone."""
    try:
        return contents(f"/proc/{pid}/stat").rsplit(b") ", 1)[1].split()
    except (OSError, IndexError):
        return None


def schedule(pid):
    """Seconds that a process's first thread has run, and has waited for a processor."""
    try:
        run, waited, _ = contents(f"/proc/{pid}/schedstat").split()
        return int(run) / 1e9, int(waited) / 1e9
    except (OSError, ValueError):
        return 0.0, 0.0


def owner_of(pid):
    """Real uid of a process, or None where it is gone; the owner of its folder would be root's where it wants that."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(b"Uid:"))
    except (OSError, StopIteration):
        return None


def resident(pids):
    """Bytes that processes hold together, shared pages counted once (their proportional set size)."""
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
    """What there is too much of in the network namespace of a process, or nothing."""
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
    """How often the kernel has killed for memory in this container, by one of OOM_FILES."""
    lines = [] if fd is None else os.pread(fd, 4096, 0).splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(b"oom_kill ")), 0)
