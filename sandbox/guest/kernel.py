"""Linux calls that Python does not provide. Runs inside the sandbox: standard library only, Python 3.9 or later."""

# pyright: basic
import contextlib
import ctypes
import fcntl
import os
import platform
import struct

LIBC = ctypes.CDLL(None, use_errno=True)
HELD = ctypes.PyDLL(None)  # calls that do not release the interpreter's lock
STACK = ctypes.create_string_buffer(1 << 14)  # of all first processes: each writes the same there, none returns

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER = 0x00020000, 0x04000000, 0x08000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWCGROUP, CLONE_NEWTIME = 0x20000000, 0x40000000, 0x02000000, 0x00000080
CLONE_VM, CLONE_FILES = 0x00000100, 0x00000400
JOB_NAMESPACES = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET
"""Namespaces that a job's process creates for itself; its pid namespace exists before."""
ANY_NAMESPACE = JOB_NAMESPACES | CLONE_NEWPID | CLONE_NEWUSER | CLONE_NEWCGROUP | CLONE_NEWTIME
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP, PR_SET_SECCOMP = 1, 4, 38, 24, 22
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
SIGCHLD, SIGKILL = 17, 9
M_MMAP_THRESHOLD = -3
DEVICES = ("null", "zero", "full", "random", "urandom")
F_OFD_SETLK = 37  # fcntl(2)
INET, DATAGRAM, SET_INTERFACE_FLAGS = 2, 2, 0x8914
LOOPBACK_UP = struct.pack("16sh22x", b"lo", 1)  # struct ifreq: the name, and IFF_UP
PERF_SOFTWARE, PERF_TASK_CLOCK, PERF_CLOEXEC = 1, 1, 8  # perf_event_open(2)
# descendants too; the kernel's part counts in this clock as well, despite the flag
PERF_INHERIT_USER = 1 << 1 | 1 << 5
CLONE_NUMBER = {"x86_64": 56, "aarch64": 220}


def checked(result, what):
    """Return the result of a call; raise OSError with `what` if it failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prepared_mounts(private, size, inodes):
    """Return the mounts of a job as prepared arguments of mount(2): a job's process then touches fewer memory pages.

    Args:
        private: folders of which each job gets its own.
        size: bytes of each.
        inodes: inodes of each.
    """
    options = f"size={size},nr_inodes={inodes},mode=1777".encode()
    flags = ctypes.c_ulong(MS_NOSUID | MS_NODEV)
    proc = ctypes.c_ulong(MS_NOSUID | MS_NODEV | MS_NOEXEC)
    return [
        [(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)],
        *([(b"tmpfs", folder.encode(), b"tmpfs", flags, options)] for folder in private),
        # only processes, nothing of the machine; the second form is for Linux before 5.8
        [(b"proc", b"/proc", b"proc", proc, b"subset=pid"), (b"proc", b"/proc", b"proc", proc, None)],
    ]


def mount(mounts):
    """Mount, for each target in the first way that works."""
    for ways in mounts:
        for way in ways:
            if LIBC.mount(*way) == 0:
                break
        else:
            checked(-1, f"mount at {ways[0][1].decode()}")


def unmount(target):
    """Detach what is mounted at `target`, if anything."""
    LIBC.umount2(target.encode(), MNT_DETACH)


def prctl(option, first, second=0):
    """Call prctl(2); raise OSError if it fails."""
    return checked(LIBC.prctl(option, ctypes.c_ulong(first), second, 0, 0), f"prctl {option}")


def first_process():
    """Create a new pid namespace; return the pid of its first process.

    It sleeps in the kernel until it is killed, and everything in its namespace with it. It is not a fork, which would
    cost more than all the rest, but libc's `pause` in this process's memory. The caller ignores SIGCHLD, and so does
    the new process. The kernel then reaps its orphans, and itself.
    """
    top = ctypes.c_void_p((ctypes.addressof(STACK) + len(STACK)) & ~15)
    return checked(LIBC.clone(LIBC.pause, top, CLONE_VM | CLONE_FILES | CLONE_NEWPID | SIGCHLD, None), "clone")


def join_pids(pid):
    """Let the next fork's child be in the pid namespace of a process."""
    fd = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        checked(LIBC.setns(fd, CLONE_NEWPID), "setns")
    finally:
        os.close(fd)


def unshare(namespaces):
    """Enter new namespaces; the network namespace has no interface except a loopback that is down."""
    checked(LIBC.unshare(namespaces), "unshare")


def raise_loopback():
    """Enable the network namespace's loopback; without the right to do so (CAP_NET_ADMIN) it stays down."""
    fd = LIBC.socket(INET, DATAGRAM, 0)
    if fd >= 0:
        LIBC.ioctl(fd, ctypes.c_ulong(SET_INTERFACE_FLAGS), LOOPBACK_UP)
        os.close(fd)


def fork():
    """Fork by libc only, a third cheaper than `os.fork`: the interpreter's hooks (new seeds, threads that do not exist)
    do not run. For single-threaded processes; the child does itself what it needs of the hooks.
    """
    pid = HELD.fork()
    if pid < 0:
        raise OSError("fork failed")
    return pid


def give_memory_back():
    """Make glibc return the memory of large outputs; by default it keeps more of it with every one."""
    with contextlib.suppress(AttributeError):  # another libc
        LIBC.mallopt(M_MMAP_THRESHOLD, 1 << 17)


def trim_memory():
    """Return free memory to the system; a fork would copy it."""
    with contextlib.suppress(AttributeError):  # another libc
        LIBC.malloc_trim(0)


def drop_bounding_set():
    """Drop the capability bounding set, for any later exec. Needs CAP_SETPCAP, so it comes before other drops."""
    for number in range(64):
        if LIBC.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0) < 0:
            break


def drop_capabilities():
    """Drop all capabilities."""
    LIBC.prctl(PR_CAP_AMBIENT, ctypes.c_ulong(PR_CAP_AMBIENT_CLEAR_ALL), 0, 0, 0)
    header = struct.pack("=Ii", 0x20080522, 0)
    checked(LIBC.capset(header, struct.pack("=6I", 0, 0, 0, 0, 0, 0)), "capset")


# Calls that a job never needs and that reach the kernel, other processes, or memory that no limit counts.
# name: (x86_64, aarch64)
DENIED = {
    "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "bpf": (321, 280), "chroot": (161, 51),
    "clock_adjtime": (305, 266), "clock_settime": (227, 112), "delete_module": (176, 106),
    "fanotify_init": (300, 262), "finit_module": (313, 273), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fsopen": (430, 430), "fspick": (433, 433), "init_module": (175, 105), "io_uring_enter": (426, 426),
    "inotify_init": (253, None), "inotify_init1": (294, 26),
    "io_uring_register": (427, 427), "io_uring_setup": (425, 425), "ioperm": (173, None), "iopl": (172, None),
    "kcmp": (312, 272), "kexec_file_load": (320, 294), "kexec_load": (246, 104), "keyctl": (250, 219),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "migrate_pages": (256, 238), "mount": (165, 40),
    "mount_setattr": (442, 442), "move_mount": (429, 429), "move_pages": (279, 239), "mq_open": (240, 180),
    "msgget": (68, 186), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "open_tree": (428, 428),
    "perf_event_open": (298, 241), "pidfd_getfd": (438, 438), "pivot_root": (155, 41),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "ptrace": (101, 117), "quotactl": (179, 60),
    "reboot": (169, 142), "request_key": (249, 218), "semget": (64, 190), "setdomainname": (171, 162),
    "sethostname": (170, 161), "setns": (308, 268), "settimeofday": (164, 170), "shmget": (29, 194),
    "swapoff": (168, 225), "swapon": (167, 224), "syslog": (103, 116), "umount2": (166, 39), "unshare": (272, 97),
    "userfaultfd": (323, 282), "vmsplice": (278, 75), "_sysctl": (156, None), "create_module": (174, None),
    "listmount": (458, 458), "lookup_dcookie": (212, 18), "mbind": (237, 235), "modify_ldt": (154, None),
    "nfsservctl": (180, 42), "personality": (135, 92), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "quotactl_fd": (443, 443), "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450), "statmount": (457, 457), "sysfs": (139, None), "uselib": (134, None),
    "ustat": (136, None), "vhangup": (153, 58),
}  # fmt: skip
NEWEST = 463  # calls from here on are newer than this table: ENOSYS
PRLIMIT, IOCTL, FCNTL = (302, 261), (16, 29), (72, 25)
F_NOTIFY = 1026  # watches a folder; like inotify, it reveals what others do with shared files
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # typing into a terminal
SOCKET = (41, 198)
CLONE3 = 435
FAMILIES = (1, 2, 10)  # unix, inet, inet6; a network namespace does not contain the rest (vsock, netlink, alg, packet)
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN, JUMP = 0x20, 0x15, 0x35, 0x45, 0x06, 0x05
ALLOW, KILL, EPERM, ENOSYS, EAFNOSUPPORT = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026, 0x00050061


def seccomp_program():
    """Return the job's system-call filter as classic BPF: DENIED and new namespaces give EPERM, clone3 gives ENOSYS.

    Raises:
        OSError: there is no table for this processor.
    """
    if platform.machine() not in ARCHITECTURES:
        raise OSError(f"no system-call table for {platform.machine()}; supported: {', '.join(ARCHITECTURES)}")
    column, audit = ARCHITECTURES[platform.machine()]
    code = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, audit), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    code += [(AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, EPERM)]  # the x32 doors to the same calls
    code += refuse(sorted(numbers[column] for numbers in DENIED.values() if numbers[column] is not None))
    code += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, ENOSYS)]
    code += [(AT_LEAST, 0, 1, NEWEST), (RETURN, 0, 0, ENOSYS)]
    # only own limits: the first process of the namespace may have the job's uid
    code += [(EQUAL, 0, 4, PRLIMIT[column]), (LOAD, 0, 0, 16), (EQUAL, 1, 0, 0), (RETURN, 0, 0, EPERM)]
    code += [(LOAD, 0, 0, 0)]
    code += [(EQUAL, 0, 5, IOCTL[column]), (LOAD, 0, 0, 24), (EQUAL, 1, 0, TIOCSTI), (EQUAL, 0, 1, TIOCLINUX)]
    code += [(RETURN, 0, 0, EPERM), (LOAD, 0, 0, 0)]
    code += [(EQUAL, 0, 4, FCNTL[column]), (LOAD, 0, 0, 24), (EQUAL, 0, 1, F_NOTIFY), (RETURN, 0, 0, EPERM)]
    code += [(LOAD, 0, 0, 0)]
    code += [(EQUAL, 0, 3, CLONE_NUMBER[platform.machine()]), (LOAD, 0, 0, 16)]
    code += [(ANY_BIT, 0, 1, ANY_NAMESPACE), (RETURN, 0, 0, EPERM), (LOAD, 0, 0, 0)]
    code += [(EQUAL, 0, len(FAMILIES) + 2, SOCKET[column]), (LOAD, 0, 0, 16)]
    code += [(EQUAL, len(FAMILIES) - index, 0, family) for index, family in enumerate(FAMILIES)]
    code += [(RETURN, 0, 0, EAFNOSUPPORT), (RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def refuse(numbers):
    """Return code that gives EPERM for these calls, by binary search, as the kernel runs the filter for every call."""
    if len(numbers) <= 3:
        return [part for number in numbers for part in ((EQUAL, 0, 1, number), (RETURN, 0, 0, EPERM))]
    middle = len(numbers) // 2
    low, high = refuse(numbers[:middle]), refuse(numbers[middle:])
    return [(AT_LEAST, len(low) + 1, 0, numbers[middle]), *low, (JUMP, 0, 0, len(high)), *high]


def cpu_clock(pid):
    """Open a counter of the CPU time, from now on, of a process and all its descendants, including those that nobody
    waited for. Reading it gives nanoseconds in eight bytes. None if the kernel forbids it (perf_event_paranoid above
    2).
    """
    number = DENIED["perf_event_open"][["x86_64", "aarch64"].index(platform.machine())]
    attributes = struct.pack("=IIQ3QQ2Q", PERF_SOFTWARE, 64, PERF_TASK_CLOCK, 0, 0, 0, PERF_INHERIT_USER, 0, 0)
    fd = LIBC.syscall(number, attributes, pid, -1, -1, ctypes.c_ulong(PERF_CLOEXEC))
    return fd if fd >= 0 else None


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def install_seccomp(program):
    """Apply a filter to this process and all its children; needs no_new_privs."""
    holder = _Program(len(program) // 8, program)
    checked(LIBC.prctl(PR_SET_SECCOMP, 2, ctypes.byref(holder), 0, 0), "seccomp")


def hold_devices():
    """Take a shared lock on every device that jobs see, since these files can be the whole machine's: so each lock that
    a job requests there is granted or refused whatever locks the jobs of other workers have.
    """
    held = []
    for name in DEVICES:
        try:
            fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.fcntl(fd, F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))  # record locks too
            held.append(fd)
        except OSError:
            continue
    return held


def memfd(name):
    """Create a file in memory; return its descriptor."""
    return os.memfd_create(name, os.MFD_CLOEXEC)
