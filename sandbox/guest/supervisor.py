"""First process of a sandbox: takes jobs from its owner, has them forked, watches, kills, and tells what happened.

Runs inside the sandbox, one job at a time: standard library only, Python 3.9 or later. It ends when its owner does.
"""

# pyright: basic
import array
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time

import frames
import job
import kernel

TICK = 0.02
FIRST_TICK = 0.005
KILL_PATIENCE = 10.0
MIB = 1 << 20
CLOCK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def main(config):
    """Serve jobs from standard input to standard output until the owner closes it.

    Args:
        config: mode (namespaces, uid, none), uid (first uid of jobs, or null to keep ours), tmpfs_bytes, inodes.
    """
    if config["mode"] == "namespaces":
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        kernel.unmount("/dev/mqueue")
    owner_in, owner_out = os.dup2(0, 10, inheritable=False), os.dup2(1, 11, inheritable=False)
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    zygote = os.fork()
    if not zygote:
        ours.close()
        os.closerange(10, 12)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, kernel.SIGKILL)
        try:
            job.zygote(theirs, config)
        finally:
            os._exit(1)
    theirs.close()
    supervisor = Supervisor(config, owner_in, owner_out, ours, zygote)
    frames.write_frame(owner_out, {"ready": True, "python": sys.version.split()[0]})
    read = frames.exact_reader(owner_in)
    try:
        while True:
            header, blobs = frames.read_frame(read)
            answer, output = supervisor.run(header, blobs)
            frames.write_frame(owner_out, answer, output)
    except (frames.Closed, BrokenPipeError):
        supervisor.end()


class Child:
    """One program of a job: its processes, its output so far, what it used."""

    def __init__(self, header, cap):
        self.header = header
        self.cap = cap
        self.output = {"stdout": bytearray(), "stderr": bytearray(), "result": bytearray()}
        self.pipes = {}
        self.pid = self.pidfd = None
        self.status_fd = -1
        self.outcome = None
        self.detail = ""
        self.cpu = self.rss = 0
        self.waited = 0.0
        self.ended = None
        self.pids = []
        self.work = job.WORK
        self.exit_code = None
        self.started = time.monotonic()
        self.wall = 0.0

    def stop(self, outcome, detail):
        """Kill every process of it; the first reason given stands."""
        if self.outcome is None:
            self.outcome, self.detail = outcome, detail
        if self.pidfd is not None and self.ended is None:
            try:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
                for pid in self.pids:  # with namespaces they are gone by now
                    os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


class Supervisor:
    """Runs one job at a time."""

    def __init__(self, config, owner_in, owner_out, channel, zygote):
        self.config = config
        self.owner_in = owner_in
        self.owner_out = owner_out
        self.channel = channel
        self.zygote = zygote
        self.serial = 0
        self.oom_kills = oom_kills()
        self.anomaly = ""

    def end(self):
        """The owner is gone: take everything along."""
        os.kill(self.zygote, signal.SIGKILL)
        if self.config["mode"] == "uid":
            self.sweep_uid()
        os._exit(0)

    def run(self, header, blobs):
        """(answer, blobs) of one job."""
        self.anomaly = ""
        started = time.monotonic()
        self.serial += 1
        count = len(header["files"]) + 1
        main = Child(header, header["limits"]["output_bytes"])
        children = [main]
        helper = None
        if header.get("helper"):
            helper = Child(header["helper"], header["helper"]["limits"]["output_bytes"])
            children.append(helper)
        try:
            self.start(main, helper, blobs[:count], blobs[count:])
        except OSError as error:
            for child in children:
                child.stop("infrastructure_fault", str(error))
            self.anomaly = str(error)
        self.watch(children)
        for child in children:
            self.close(child)
        if self.config["mode"] == "uid":
            self.sweep_uid()
        kills = oom_kills()
        if kills > self.oom_kills:
            self.oom_kills = kills
            self.anomaly = self.anomaly or "out of memory"
            main.outcome, main.detail = "memory_limit", "the kernel killed a process of it for memory"
        answer = self.describe(main)
        if helper:
            answer["helper"] = self.describe(helper)
        answer["anomaly"] = self.anomaly
        answer["wall_seconds"] = time.monotonic() - started
        output = [bytes(child.output[name]) for child in children for name in ("stdout", "stderr", "result")]
        return answer, output

    def start(self, main, helper, blobs, helper_blobs):
        """Fork the job, and its helper wired to it, into their worlds."""
        extra = []
        if helper:
            ask_read, ask_write = os.pipe()
            reply_read, reply_write = os.pipe()
            extra = [(job.TO_HELPER, ask_write), (job.FROM_HELPER, reply_read)]
            try:
                self.fork(helper, helper_blobs, [(job.STDIN, ask_read), (job.RESULT, reply_write)])
            finally:
                os.close(ask_read)
                os.close(reply_write)
        try:
            self.fork(main, blobs, extra)
        finally:
            for _, fd in extra:
                os.close(fd)

    def fork(self, child, blobs, given):
        """Have the zygote fork one program."""
        header = child.header
        if self.config["mode"] == "none":
            child.work = tempfile.mkdtemp(prefix="unsafe-host-")
        content = memfd("content")
        payload = {"argv": header["argv"], "files": header["files"], "env": header["env"], "work": child.work}
        frames.write_frame(content, payload, blobs[1:])
        os.lseek(content, 0, os.SEEK_SET)
        status_read, status_write = os.pipe()
        os.set_blocking(status_read, False)
        child.status_fd = status_read
        fds, places, ours = [content, status_write], [], [content, status_write]
        taken = {place for place, _ in given}
        for place, fd in given:
            fds.append(fd)
            places.append(place)
        if job.STDIN not in taken:
            stdin = memfd("stdin")
            frames.write_all(stdin, blobs[0])
            os.lseek(stdin, 0, os.SEEK_SET)
            fds.append(stdin)
            ours.append(stdin)
            places.append(job.STDIN)
        wanted = [(job.STDOUT, "stdout"), (job.STDERR, "stderr")]
        if header.get("result_channel") and job.RESULT not in taken:
            wanted.append((job.RESULT, "result"))
        for place, name in wanted:
            read, write = os.pipe()
            os.set_blocking(read, False)
            child.pipes[read] = name
            fds.append(write)
            ours.append(write)
            places.append(place)
        request = {"places": places, "limits": kernel_limits(header["limits"]), "uid": self.uid()}
        try:
            self.channel.sendmsg(
                [json.dumps(request).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
            )
            answer = self.reply()
            if "error" in answer:
                raise OSError(answer["error"])
            child.pid = answer["pid"]
            child.started = time.monotonic()
            child.pidfd = os.pidfd_open(child.pid)
        finally:
            for fd in ours:
                os.close(fd)

    def uid(self):
        """The uid of the next job's processes; a fresh one where uids are all that keeps jobs apart."""
        base = self.config["uid"]
        if base is None:
            return None
        return base + self.serial % 10_000 if self.config["mode"] == "uid" else base

    def reply(self):
        """The zygote's answer to a request; news of ended children is not ours to wait for here."""
        while True:
            message = json.loads(self.channel.recv(4096) or b'{"error": "the zygote is gone"}')
            if "ended" not in message:
                return message
            self.news = message

    news = None

    def watch(self, children):
        """Drain, measure and limit until every program has ended."""
        poll = select.poll()
        poll.register(self.channel, select.POLLIN)
        poll.register(self.owner_in, select.POLLIN | select.POLLHUP)
        for child in children:
            for fd in child.pipes:
                poll.register(fd, select.POLLIN)
        by_fd = {fd: child for child in children for fd in child.pipes}
        running = [child for child in children if child.pid is not None]
        if self.news:
            self.note_end(running, self.news)
            self.news = None
        next_tick = time.monotonic() + FIRST_TICK
        deadline = None
        while any(child.ended is None for child in running):
            timeout = max(0.0, next_tick - time.monotonic())
            for fd, event in poll.poll(timeout * 1000):
                if fd == self.owner_in:
                    if event & select.POLLIN and not event & select.POLLHUP:
                        continue  # the owner sends the next job only after this one's answer
                    for child in running:
                        child.stop("killed", "the owner is gone")
                    self.end()
                elif fd == self.channel.fileno():
                    message = self.channel.recv(4096)
                    if not message:
                        os._exit(1)
                    self.note_end(running, json.loads(message))
                elif not self.drain(by_fd[fd], fd):
                    poll.unregister(fd)
            now = time.monotonic()
            if now >= next_tick:
                self.limit(running, now)
                next_tick = time.monotonic() + TICK
            if running[0].ended is not None or any(child.outcome for child in running):
                # one over, all over: a helper does not outlive its job
                deadline = deadline or now + KILL_PATIENCE
                for child in running:
                    if child.ended is None:
                        child.stop("killed", "the program it helps has ended")
                if now > deadline:
                    self.anomaly = "a killed job does not end"
                    return
        for child in children:
            for fd in list(child.pipes):
                while self.drain(child, fd, last=True):
                    pass

    def note_end(self, running, news):
        """A program's first process is gone, and its namespace with it."""
        for child in running:
            if child.pid == news.get("ended"):
                child.ended = news
                child.wall = time.monotonic() - child.started
                child.cpu = max(child.cpu, news["cpu"])
                child.rss = max(child.rss, news["rss"])

    def drain(self, child, fd, last=False):
        """Read what a pipe holds; False at its end."""
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return not last
        if not data:
            return False
        kept = child.output[child.pipes[fd]]
        room = child.cap - len(kept)
        kept += data[: max(0, room)]
        if len(data) > room:
            child.stop("output_limit", f"more than {child.cap} bytes of {child.pipes[fd]}")
            return not last
        return True

    def limit(self, running, now):
        """Measure every program and stop those over a limit."""
        spaces = usage(self.config, running)
        for child in running:
            if child.ended is not None:
                continue
            allowed = child.header["limits"]
            used = spaces.get(child.pid, {"cpu": 0.0, "rss": 0, "processes": 0, "waited": 0.0, "pids": []})
            child.cpu = max(child.cpu, used["cpu"])
            child.rss = max(child.rss, used["rss"])
            child.waited = max(child.waited, used["waited"])
            child.pids = used["pids"] if self.config["mode"] != "namespaces" else []
            if used["cpu"] > allowed["cpu_seconds"]:
                child.stop("cpu_limit", f"more than {allowed['cpu_seconds']:g} s of CPU time")
            elif used["rss"] > allowed["memory_bytes"] and resident(used["pids"]) > allowed["memory_bytes"]:
                child.stop("memory_limit", f"more than {allowed['memory_bytes'] // MIB} MiB resident")
            elif used["processes"] > allowed["processes"]:
                child.stop("killed", f"more than {allowed['processes']} processes")
            elif now - child.started > allowed["wall_seconds"]:
                child.stop("wall_timeout", f"more than {allowed['wall_seconds']:g} s")

    def close(self, child):
        """Let go of a program's descriptors."""
        for fd in [*child.pipes, child.pidfd, child.status_fd]:
            if fd is not None and fd >= 0:
                if fd == child.status_fd:
                    self.status(child, fd)
                os.close(fd)
        if self.config["mode"] == "none":
            shutil.rmtree(child.work, ignore_errors=True)

    def status(self, child, fd):
        """How the program ended, as its init saw it."""
        try:
            told = os.read(fd, 500)
        except BlockingIOError:
            told = b""
        if told.startswith(b"!"):
            child.outcome, child.detail = "infrastructure_fault", told[1:].decode("utf-8", "replace")
            self.anomaly = child.detail
            return
        if self.config["mode"] != "namespaces" and child.ended is not None:
            child.exit_code = os.waitstatus_to_exitcode(child.ended["status"])
        elif len(told) >= 4:
            child.exit_code = os.waitstatus_to_exitcode(int.from_bytes(told[:4], "little"))

    def describe(self, child):
        """What the owner is told of one program."""
        code = child.exit_code
        outcome, detail = child.outcome, child.detail
        allowed = child.header["limits"]
        if outcome is None:
            if code == -signal.SIGXCPU or (code == -signal.SIGKILL and child.cpu >= allowed["cpu_seconds"]):
                outcome, detail = "cpu_limit", f"more than {allowed['cpu_seconds']:g} s of CPU time"
            elif code == 0:
                outcome = "ok"
            elif code is None:
                outcome, detail = "infrastructure_fault", "its first process was killed from outside"
                self.anomaly = detail
            elif code < 0:
                outcome, detail = "killed", f"by signal {-code} ({signal.Signals(-code).name})"
            else:
                outcome, detail = "nonzero_exit", f"exit status {code}"
        return {
            "outcome": outcome,
            "detail": detail,
            "exit_code": code,
            "cpu_seconds": child.cpu,
            "job_seconds": child.wall or time.monotonic() - child.started,
            "peak_memory_bytes": child.rss,
            "starved": outcome == "wall_timeout" and child.waited + child.cpu > 0.5 * allowed["wall_seconds"],
        }

    def sweep_uid(self):
        """Without namespaces: kill all that runs under a job's uid, and delete all it left."""
        uid = self.uid()
        for _ in range(200):
            mine = [pid for pid in processes() if owner_of(pid) == uid]
            if not mine:
                break
            for pid in mine:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.002)
        else:
            self.anomaly = "processes of a job cannot be killed"
        for folder in job.PRIVATE:
            empty(folder)


def empty(folder):
    """Delete everything in a folder, following no link."""
    for root, folders, names in os.walk(folder, topdown=False):
        for name in names:
            os.unlink(os.path.join(root, name))
        for name in folders:
            path = os.path.join(root, name)
            os.unlink(path) if os.path.islink(path) else os.rmdir(path)


def owner_of(pid):
    """Real uid of a process, or None where it is gone."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def processes():
    """Every process here but this one."""
    me = os.getpid()
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != me]


def usage(config, running):
    """CPU seconds, resident bytes and processes of each running program, by the pid of its first process."""
    found = {child.pid: {"cpu": 0.0, "rss": 0, "processes": 0, "waited": 0.0, "pids": []} for child in running}
    parents, rows = {}, {}
    for pid in processes():
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                row = file.read().rsplit(b") ", 1)[1].split()
        except (OSError, IndexError):
            continue
        parents[pid] = int(row[1])
        rows[pid] = row
    for pid, row in rows.items():
        root = pid
        while root not in found and root in parents:
            root = parents[root]
        if root not in found:
            continue
        total = found[root]
        total["cpu"] += sum(map(int, row[11:15])) / CLOCK
        if config["mode"] == "namespaces" and pid == root:
            continue  # its init
        total["rss"] += int(row[21]) * PAGE
        total["processes"] += 1
        total["pids"].append(pid)
        try:
            with open(f"/proc/{pid}/schedstat", "rb") as file:
                total["waited"] = max(total["waited"], int(file.read().split()[1]) / 1e9)
        except (OSError, IndexError):
            pass
    return found


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


def oom_kills():
    """How often the kernel has killed for memory in this container."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        try:
            with open(path) as file:
                return next(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
        except (OSError, StopIteration):
            continue
    return 0


def memfd(name):
    """A file in memory."""
    return os.memfd_create(name, os.MFD_CLOEXEC)


def kernel_limits(limits):
    """(soft, hard) for each rlimit of a job's processes."""
    cpu = max(1, int(limits["cpu_seconds"]) + 1)
    address = 2 * limits["memory_bytes"] + 1024 * MIB
    return {
        "AS": (address, address),
        "CPU": (cpu, cpu + 1),
        "FSIZE": (limits["file_bytes"],) * 2,
        "NOFILE": (limits["open_files"],) * 2,
        "NPROC": (limits["processes"],) * 2,
        "CORE": (0, 0),
        "MSGQUEUE": (0, 0),
        "MEMLOCK": (0, 0),
        "STACK": (64 * MIB, 64 * MIB),
    }
