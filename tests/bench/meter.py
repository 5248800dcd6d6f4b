"""Values that a measurement reads besides the client's own numbers: CPU time of threads, memory, and the cost of BPF."""
import contextlib
import ctypes
import os
import platform
import struct
from pathlib import Path

from processes import status_kib

# bpf(2): turns the kernel's statistics on while the file descriptor is open (Linux 5.8, d46edd671a14), so that they go
# off again however this process ends. kernel.bpf_stats_enabled would stay on.
BPF_ENABLE_STATS = 32
BPF_STATS_RUN_TIME = 0
SYS_BPF = {"x86_64": 321, "aarch64": 280}


def thread_ns(task):
    """Nanoseconds on a CPU: the first number of schedstat."""
    return int((task / "schedstat").read_text().split()[0])


def threads(pid):
    """Returns {tid: (name, nanoseconds on a CPU)}. A thread may end during the read."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found[int(task.name)] = ((task / "comm").read_text().strip(), thread_ns(task))
    return found


def server_cpu(pid):
    """(main thread's, IO threads') nanoseconds. IO threads are named io_thd_N in all servers."""
    all_threads = threads(pid)
    return all_threads[pid][1], sum(ns for name, ns in all_threads.values() if name.startswith("io_thd"))


@contextlib.contextmanager
def apart(pid):
    """Gives the first core to the server's main thread. Its other threads, this process and its children share the other
    cores. On a single core all stay together."""
    ours = os.sched_getaffinity(0)
    others = set(range(1, os.cpu_count())) or {0}
    for tid in threads(pid):
        os.sched_setaffinity(tid, {0} if tid == pid else others)
    os.sched_setaffinity(0, others)
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)


def process_ns(pid):
    return sum(ns for _, ns in threads(pid).values())


def peak_kib(pid):
    return status_kib(pid, "VmHWM")


def bpf_files(pid):
    """What the kernel says about each BPF map and program that the process holds."""
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
            if "map_type" in fields or "prog_type" in fields:     # not links, which name their program, too
                yield {key: value.strip() for key, value in fields.items()}


def kernel_bytes(pid):
    """Returns (maps, programs): memory in the kernel, each counted once. The size of maps is exact since Linux 6.4
    (90a5527d7686)."""
    maps, programs = {}, {}
    for fields in bpf_files(pid):
        if "prog_type" in fields:
            programs[fields["prog_id"]] = int(fields["memlock"])
        else:
            maps[fields["map_id"]] = int(fields["memlock"])
    return sum(maps.values()), sum(programs.values())


def programs_time(pid):
    """Returns (nanoseconds, runs) of the process's BPF programs, while bpf_stats() is on."""
    programs = {fields["prog_id"]: fields for fields in bpf_files(pid) if "prog_type" in fields}
    return (sum(int(fields["run_time_ns"]) for fields in programs.values()),
            sum(int(fields["run_cnt"]) for fields in programs.values()))


@contextlib.contextmanager
def bpf_stats():
    attr = ctypes.create_string_buffer(struct.pack("I", BPF_STATS_RUN_TIME))
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(SYS_BPF[platform.machine()], BPF_ENABLE_STATS, attr, 4)
    if fd < 0:
        raise OSError(ctypes.get_errno(), f"BPF_ENABLE_STATS: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        os.close(fd)
