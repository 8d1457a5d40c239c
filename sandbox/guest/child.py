"""Supervisor's view of one program of a job, and of the prepared process that waits for it. Runs inside the sandbox:
standard library only.
"""

# pyright: basic
import _socket as socket
import contextlib
import marshal
import os
import resource
import select
import signal
import struct
import time

import job
import kernel
import measure

MIB = 1 << 20
ULIMITS = {
    resource.RLIMIT_AS: "-v, in bytes",
    resource.RLIMIT_CPU: "-t, in seconds",
    resource.RLIMIT_FSIZE: "-f, in bytes",
    resource.RLIMIT_NOFILE: "-n",
    resource.RLIMIT_NPROC: "-u",
    resource.RLIMIT_STACK: "-s, in bytes",
}
FILES = 256  # descriptors that a process uses as it becomes a job
ENOUGH = 1.5  # factor on its CPU limit: what a program was offered is only sampled
CROWD = 16  # with more tasks than this a program competes with itself: its waiting says nothing about the machine


class World:
    """Process that the zygote has prepared for a program, in its own namespaces; it still waits for the program.

    Args:
        zygote: the channel to it.
        namespaced: True if a pid namespace is to be made, which exists as long as its first process.
    Raises:
        OSError: it cannot be created.
    """

    def __init__(self, zygote, namespaced):
        self.pid = self.pidfd = None
        self.ready = False
        self.first = 0
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            if namespaced:
                self.first = kernel.first_process()
                self.pidfd = os.pidfd_open(self.first)
            given = struct.pack("i", theirs.fileno())
            zygote.sendmsg([b"%d" % self.first], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, given)])
        except OSError:
            self.abandon()
            raise
        finally:
            theirs.close()

    def wait(self):
        """Wait until it is ready.

        Raises:
            OSError: it has failed.
        """
        message = b""
        while not (self.pid and self.ready) and (message := self.channel.recv(500)):
            if not self.take(message):
                break
        poll = select.poll()
        poll.register(self.channel, 0)
        if not (self.pid and self.ready) or poll.poll(0):
            self.abandon()
            fault = message[1:].decode("utf-8", "replace").strip() if message.startswith(job.FAULT) else ""
            raise OSError(fault or "it ended before it got its job")

    def receive(self):
        """Read the messages that have arrived so far."""
        try:
            while self.take(self.channel.recv(500, socket.MSG_DONTWAIT)):
                pass
        except OSError:
            return

    def take(self, message):
        """Read its pid (from the zygote) or that it is ready from a message; return False for any other message."""
        if message == job.READY:
            self.ready = True
        elif message.isdigit():
            self.pid = int(message)
        else:
            return False
        return True

    def abandon(self):
        """Close its channel, at which it ends, and kill its namespace."""
        self.channel.close()
        if self.pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            os.close(self.pidfd)


class Child:
    """Program of a job: its processes, its output so far, its resource use."""

    def __init__(self, header, cap, helps=False):
        self.header = header
        self.helps = helps
        self.cap = cap
        self.output = {"stdout": bytearray(), "stderr": bytearray(), "result": bytearray()}
        self.pipes = {}
        self.pid = self.pidfd = self.uid = None
        self.first = 0
        self.channel = None
        self.clock = None
        self.outcome = None
        self.detail = self.anomaly = ""
        self.cpu = self.rss = self.own_rss = 0
        self.waited = 0.0
        self.given = os.getpriority(os.PRIO_PROCESS, 0)  # the highest niceness that the supervisor gave it
        self.lowered = False
        self.offered = 0.0
        self.before = 0.0, 0.0
        self.most_tasks = 0
        self.ended = None
        self.pids = []
        self.seen = []
        self.work = job.WORK
        self.exit_code = None
        self.started = time.monotonic()
        self.wall = 0.0

    def begin(self, world, request, fds):
        """Start the program in a prepared process."""
        self.seen = [world.pid]
        self.pid, self.first, self.channel = world.pid, world.first, world.channel
        self.pidfd = os.pidfd_open(self.pid) if world.pidfd is None else world.pidfd
        self.before = measure.schedule(self.pid)
        self.clock = kernel.cpu_clock(self.pid) if world.first else None
        given = struct.pack(f"{len(fds)}i", *fds)
        self.started = time.monotonic()
        self.channel.sendmsg([marshal.dumps(request)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, given)])

    def clocked(self):
        """Return the CPU seconds of all its processes so far, as counted by the kernel; 0 if it does not count them."""
        return 0.0 if self.clock is None else int.from_bytes(os.read(self.clock, 8), "little") / 1e9

    def end(self, news):
        """Record the end of its process, reported by the zygote."""
        self.ended = news
        self.wall = time.monotonic() - self.started
        self.cpu = max(self.cpu, news["cpu"] - self.before[0], self.clocked())
        self.rss = max(self.rss, news["rss"])
        self.own_rss = news["rss"] - news["shared"]

    def gone(self, patience):
        """Kill its namespace, if it has one; return True if it ends within `patience` seconds."""
        if not self.first or self.pidfd is None:
            return True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(patience * 1000))

    def stop(self, outcome, detail):
        """Kill all its processes and set the outcome; the first outcome set remains."""
        if self.outcome is None:
            self.outcome, self.detail = outcome, detail
        if self.pidfd is not None and self.ended is None:
            try:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
                for pid in self.pids:  # with namespaces they have ended by now
                    os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def read_status(self):
        """Read from its channel how it ended, or that it never started."""
        assert self.channel
        try:
            message = self.channel.recv(500, socket.MSG_DONTWAIT)
        except OSError:
            message = b""
        if message.startswith(job.FAULT):
            self.outcome = "infrastructure_fault"
            self.detail = self.anomaly = message[1:].partition(b"\n")[0].decode("utf-8", "replace")
        elif self.ended is not None and message == job.BEGUN:
            # a stopped program counts as killed, even if it was just ending by itself
            self.exit_code = -signal.SIGKILL if self.outcome else os.waitstatus_to_exitcode(self.ended["status"])

    def describe(self):
        """Return the report on it for the owner."""
        code = self.exit_code
        outcome, detail = self.outcome, self.detail
        allowed = self.header["limits"]
        if outcome is None and self.own_rss > allowed["memory_bytes"]:
            outcome, detail = (
                "memory_limit",
                f"more than {allowed['memory_bytes'] // MIB} MiB, between two measurements",
            )
        if outcome is None:
            if code == -signal.SIGXCPU or (code == -signal.SIGKILL and self.cpu >= allowed["cpu_seconds"]):
                outcome, detail = "cpu_limit", f"more than {allowed['cpu_seconds']:g} s of CPU time"
            elif code == 0:
                outcome = "ok"
            elif code == 1 and self.output["stderr"].rstrip().rpartition(b"\n")[2].startswith(b"MemoryError"):
                outcome, detail = "memory_limit", "an allocation was refused (MemoryError)"
            elif code is None:
                outcome, detail = "infrastructure_fault", "it was killed before it began"
                self.anomaly = detail
            elif code < 0:
                outcome, detail = "killed", f"by signal {-code} ({signal.strsignal(-code)})"
            else:
                outcome, detail = "nonzero_exit", f"exit status {code}"
        return {
            "outcome": outcome,
            "detail": detail,
            "exit_code": code,
            "cpu_seconds": self.cpu,
            "job_seconds": self.wall or time.monotonic() - self.started,
            "peak_memory_bytes": self.rss,
            "starved": outcome == "wall_timeout" and self.starved(),
        }

    def starved(self):
        """Return True if the machine is to blame for its wall timeout: it waited for a processor without lowering its
        own priority, and an ordinary program next to it would not have had enough time either.
        """
        allowed = self.header["limits"]
        return (
            self.most_tasks <= CROWD
            and not self.lowered
            and self.waited > starving(allowed)
            and self.offered < ENOUGH * allowed["cpu_seconds"]
        )


def starving(limits):
    """Return the seconds of waiting for a processor from which the machine may be to blame for a wall timeout.

    Half of the wall limit, or the wall limit minus the CPU limit if that is less, but at least a quarter of the wall
    limit: if the wall limit is close to the CPU limit, a program that sleeps is not starved.
    """
    wall = limits["wall_seconds"]
    return max(0.25 * wall, min(0.5 * wall, wall - limits["cpu_seconds"]))


def kernel_limits(limits):
    """Return (resource, soft, hard) limits for a job's processes; sums over processes are limited from outside.

    Raises:
        OSError: one exceeds what this process may set, so that a job would not get what it is promised.
    """
    cpu = max(1, int(limits["cpu_seconds"]) + 1)
    address = 2 * limits["memory_bytes"] + limits["address_bytes"]
    wanted = {
        resource.RLIMIT_AS: (address, address),
        resource.RLIMIT_CPU: (cpu, cpu + 1),
        resource.RLIMIT_FSIZE: (limits["file_bytes"],) * 2,
        resource.RLIMIT_NOFILE: (limits["open_files"],) * 2,
        resource.RLIMIT_NPROC: (limits["processes"],) * 2,
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_MSGQUEUE: (0, 0),
        resource.RLIMIT_MEMLOCK: (0, 0),
        # programs often raise it to the maximum: setrlimit(RLIMIT_STACK, (-1, -1)); the stack counts as memory
        resource.RLIMIT_STACK: (limits["stack_bytes"], resource.getrlimit(resource.RLIMIT_STACK)[1]),
    }
    for kind, (soft, _) in wanted.items():
        ceiling = resource.getrlimit(kind)[1]
        needed = max(soft, FILES) if kind == resource.RLIMIT_NOFILE else soft
        if ceiling != resource.RLIM_INFINITY and needed > ceiling:
            name = ULIMITS.get(kind, "")
            raise OSError(f"a limit of this machine is too low (ulimit {name}: {ceiling}; a job needs {needed})")
    return [(kind, *edges) for kind, edges in wanted.items()]
