"""First process of a sandbox: takes jobs from its owner, has them forked, watches and kills them, reports results.

Runs inside the sandbox, one job at a time: standard library only, Python 3.9 or later. It ends when its owner does.
"""

# pyright: basic
import _socket as socket  # only the calls: what is imported here is copied for every job
import contextlib
import json
import marshal
import os
import resource
import select
import signal
import sys
import time

import child as programs
import frames
import job
import kernel
import measure
import sweep

TICK = 0.02
FIRST_LOOK = 0.005
KILL_PATIENCE = 10.0
TRIES = 3
SUSPECT = 0.05  # fraction of the wall limit: a program that has waited this long for a processor may be starving
HALF_A_PIPE = 1 << 15
MIB = 1 << 20
UIDS = 25_000


def main(config):
    """Serve jobs from standard input to standard output until the owner closes it.

    Args:
        config: mode (namespaces, uid, none), uid (first uid of jobs, or null to keep this one), tmpfs_bytes, inodes,
            modules (name -> source of those that jobs may ask for).
    """
    if config["mode"] != "none":
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    if config["mode"] == "namespaces":
        kernel.unmount("/dev/mqueue")
    elif config["mode"] == "uid":
        for folder in job.PRIVATE:
            os.chmod(folder, 0o1777)  # an engine gives a tmpfs the mode of the folder that it covers
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, job.BEYOND), files))
    owner_in, owner_out = os.dup2(0, 10, inheritable=False), os.dup2(1, 11, inheritable=False)
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    # first processes of namespaces inherit this: with a handler, a job of the same uid could reach them with the signal
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
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
    kernel.give_memory_back()
    if config["mode"] == "namespaces":
        kernel.hold_devices()
    supervisor = Supervisor(config, owner_in, owner_out, ours, zygote)
    own_files = b"\noverlay /usr " in measure.contents("/proc/self/mounts", 1 << 16)
    frames.write_frame(owner_out, {"ready": True, "python": sys.version.split()[0], "own_files": own_files})
    read = frames.exact_reader(owner_in)
    try:
        while True:
            frames.write_frame(owner_out, *supervisor.run(*frames.read_frame(read)))  # nothing of a job is stored
    except (frames.Closed, BrokenPipeError):
        supervisor.end()


class Supervisor:
    """Supervisor, which runs one job at a time."""

    def __init__(self, config, owner_in, owner_out, channel, zygote):
        self.config = config
        self.owner_in = owner_in
        self.owner_out = owner_out
        self.channel = channel
        self.zygote = zygote
        self.serial = 0
        self.oom_file = measure.opened(*measure.OOM_FILES)
        self.oom_kills = measure.oom_kills(self.oom_file)
        self.anomaly = ""
        self.meter = measure.Meter(config["mode"], zygote)
        self.world = self.probe = None
        self.prepare()

    def end(self):
        """Kill the zygote and exit, because the owner is gone."""
        os.kill(self.zygote, signal.SIGKILL)
        os._exit(0)

    def run(self, header, blobs):
        """Run one job; return its answer and output."""
        self.anomaly = ""
        started = time.monotonic()
        count = len(header["files"]) + 1
        main = programs.Child(header, header["limits"]["output_bytes"])
        children = [main]
        helper = None
        if header.get("helper"):
            helper = programs.Child(header["helper"], header["helper"]["limits"]["output_bytes"], helps=True)
            children.append(helper)
        try:
            self.start(main, helper, blobs[:count], blobs[count:])
        except OSError as error:
            for child in children:
                child.stop("infrastructure_fault", str(error))
            self.anomaly = str(error)
        self.watch(children)
        self.probe = self.probe and self.probe.end()
        if self.config["mode"] == "uid":
            self.sweep_uid([child.uid for child in children])
        for child in children:
            self.close(child)
        kills = measure.oom_kills(self.oom_file)
        if kills > self.oom_kills:
            self.oom_kills = kills
            self.anomaly = self.anomaly or "out of memory"
            main.outcome, main.detail = "memory_limit", "the kernel killed one of its processes for memory"
        answer = main.describe()
        if helper:
            answer["helper"] = helper.describe()
            answer["starved"] = answer["starved"] or answer["helper"]["starved"]
        answer["anomaly"] = self.anomaly or next(filter(None, (child.anomaly for child in children)), "")
        answer["wall_seconds"] = time.monotonic() - started
        output = [child.output[name] for child in children for name in ("stdout", "stderr", "result")]
        return answer, output

    def start(self, main, helper, blobs, helper_blobs):
        """Start the job, and its helper connected to it, in their prepared processes."""
        extra = []
        for program in filter(None, (main, helper)):
            program.kernel_limits = programs.kernel_limits(program.header["limits"])
        self.world = self.ready_world()
        self.meter.begin()
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
        """Give one program to the prepared process, and have the next one prepared."""
        header = child.header
        if self.config["mode"] == "none":
            import tempfile

            child.work = tempfile.mkdtemp(prefix="unsafe-host-")
        child.uid = self.next_uid(child)
        if self.config["mode"] == "uid":
            child.work = f"{job.WORK}/{child.uid}"
        content = kernel.memfd("content")
        modes = [0o777 if name in header["executable"] else 0o666 for name in header["files"]]
        files = [(name, len(data), mode) for name, data, mode in zip(header["files"], blobs[1:], modes)]
        head = marshal.dumps((header["argv"], files, header["env"], header["modules"], child.work))
        frames.write_all(content, head)
        for data in blobs[1:]:
            frames.write_all(content, data)
        os.lseek(content, 0, os.SEEK_SET)
        fds, places, ours = [content], [], [content]
        taken = {place for place, _ in given}
        for place, fd in given:
            fds.append(fd)
            places.append(place)
        if job.STDIN not in taken:
            stdin = kernel.memfd("stdin")
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
        request = places, child.kernel_limits, child.uid, len(head)
        try:
            child.begin(self.ready_world(), request, fds)
        finally:
            for fd in ours:
                os.close(fd)
        self.prepare()

    def next_uid(self, child):
        """Return the uid of a program's processes: another for a helper, and a fresh one if only uids isolate jobs."""
        base = self.config["uid"]
        if base is None:
            return None
        self.serial += 1
        return base + self.serial % UIDS if self.config["mode"] == "uid" else base + child.helps

    def prepare(self):
        """Prepare a process for the next program. If that fails, it is tried again when one is needed.

        Without namespaces a job would see the prepared process, so it is made only when needed.
        """
        self.world = None
        if self.config["mode"] == "namespaces":
            with contextlib.suppress(OSError):
                self.world = programs.World(self.channel, True)

    def ready_world(self):
        """Return the prepared process; replace one that died meanwhile, or that could not be made during the last job.

        Raises:
            OSError: none can be made.
        """
        reason = ""
        for _ in range(TRIES):
            try:
                world = self.world or programs.World(self.channel, self.config["mode"] == "namespaces")
                self.world = None
                world.wait()
                return world
            except OSError as error:
                reason = str(error)
        raise OSError(f"no process can be made for a job: {reason}")

    def watch(self, children):
        """Read output, measure, and enforce limits until every program has ended."""
        poll = select.poll()
        poll.register(self.channel, select.POLLIN)
        poll.register(self.owner_in, 0)  # only for its end: the owner sends the next job after this one's answer
        by_fd = {fd: child for child in children for fd in child.pipes}
        quiet = list(by_fd)  # pipes that are checked at each tick, until one is found half full
        running = [child for child in children if child.pid is not None]
        next_tick = time.monotonic() + FIRST_LOOK  # catches a fork bomb early
        tick = TICK - FIRST_LOOK
        deadline = None
        while any(child.ended is None for child in running):
            timeout = max(0.0, next_tick - time.monotonic())
            for fd, _ in poll.poll(timeout * 1000):
                if fd == self.owner_in:
                    for child in running:
                        child.stop("killed", "the owner is gone")
                    self.end()
                elif fd == self.channel.fileno():
                    self.note_end(running, self.channel.recv(4096))
                elif not self.drain(by_fd[fd], fd):
                    poll.unregister(fd)
            now = time.monotonic()
            if now >= next_tick:
                self.limit([child for child in running if child.ended is None], now)
                for fd in quiet[:]:
                    before = len(by_fd[fd].output[by_fd[fd].pipes[fd]])
                    if not self.drain(by_fd[fd], fd):
                        quiet.remove(fd)
                    elif len(by_fd[fd].output[by_fd[fd].pipes[fd]]) - before > HALF_A_PIPE:
                        quiet.remove(fd)
                        poll.register(fd, select.POLLIN)
                next_tick, tick = time.monotonic() + tick, TICK
            if running[0].ended is not None or any(child.outcome for child in running):
                # when one ends, all end: a helper does not outlive its job
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

    def note_end(self, running, message):
        """Record the end of a process, reported by the zygote; if it was a program, end its namespace too."""
        if not message:
            os._exit(1)
        news = json.loads(message)
        for child in running:
            if child.pid == news["ended"]:
                row = measure.stat_row(self.zygote)
                news["shared"] = int(row[21]) * measure.PAGE if row else 0
                child.end(news)
                if not child.gone(KILL_PATIENCE):
                    self.anomaly = "a killed job does not end"

    def drain(self, child, fd, last=False):
        """Read the content of a pipe; return False at its end."""
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
        """Measure every program, and stop those over a limit."""
        worlds = [*running, *([self.world] if self.world else [])]
        expected = 1 + bool(self.probe) + sum(1 + bool(world.first) for world in worlds)
        if len(measure.processes()) > expected or not all(map(measure.light, running)):
            self.measure(running)
        self.weigh(running, now)
        for child in running:
            if self.config["mode"] != "none" and (
                many := measure.many_sockets(child.pid)
            ):  # quickly made, so always checked
                child.stop("memory_limit", f"more than {many}, whose memory is not charged to any process")
            elif now - child.started > child.header["limits"]["wall_seconds"]:
                child.stop("wall_timeout", f"more than {child.header['limits']['wall_seconds']:g} s")

    def weigh(self, running, now):
        """Find out how much CPU time an ordinary program would be offered, once a program waits for a processor."""
        if self.probe:
            before = self.probe.offered
            self.probe.look()
            for child in running:
                child.offered += self.probe.offered - before
                child.lowered = child.lowered or any(measure.group_lowered(pid) > 0 for pid in child.seen)
        elif any(child.waited > SUSPECT * child.header["limits"]["wall_seconds"] for child in running):
            with contextlib.suppress(OSError):
                self.probe = measure.Probe()
                for child in running:
                    child.offered = now - child.started - child.waited

    def measure(self, running):
        """Stop every program that exceeds a limit."""
        if self.world:
            self.world.receive()
        ours = [self.world.pid] if self.world and self.world.pid else []
        uses = self.meter.measure(running, [*ours, *([self.probe.pid] if self.probe else [])])
        for child in running:
            allowed = child.header["limits"]
            use = uses[child.pid]
            child.cpu = max(child.cpu, use.cpu)
            child.rss = max(child.rss, use.rss)
            child.waited = max(child.waited, use.waited)
            child.most_tasks = max(child.most_tasks, use.tasks)
            child.seen = use.pids
            child.pids = use.pids if self.config["mode"] != "namespaces" else []
            child.lowered = child.lowered or use.lowest > child.given
            if self.config["mode"] != "none":
                child.given = max(
                    child.given, measure.weight_of_one(use.tasks) if use.tasks > measure.MANY_TASKS else 0
                )
                measure.lower(use)
            if use.rss > allowed["memory_bytes"] and measure.resident(use.holders) > allowed["memory_bytes"]:
                child.stop("memory_limit", f"more than {allowed['memory_bytes'] // MIB} MiB resident")
            elif use.cpu > allowed["cpu_seconds"]:  # checked after memory, which slows a program down before it is seen
                child.stop("cpu_limit", f"more than {allowed['cpu_seconds']:g} s of CPU time")
            elif use.tasks > allowed["processes"]:
                child.stop("killed", f"more than {allowed['processes']} processes")

    def close(self, child):
        """Close a program's descriptors."""
        if child.channel:
            child.read_status()
            child.channel.close()
        for fd in [*child.pipes, child.pidfd, child.clock]:
            if fd is not None:
                os.close(fd)
        if self.config["mode"] == "none":
            import shutil

            shutil.rmtree(child.work, ignore_errors=True)

    def sweep_uid(self, uids):
        """Without namespaces: kill all processes of a job's uids, and delete all files that it left."""
        if not sweep.killed(uids):
            self.anomaly = "processes of a job cannot be killed"
        try:
            for folder in job.PRIVATE:
                sweep.empty(folder)
        except (OSError, RecursionError) as error:
            self.anomaly = f"what a job left cannot be deleted: {error}"
