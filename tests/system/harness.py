"""Real servers and the real replylog, started and stopped by tests. Nothing here waits by sleeping for a fixed time:
everything is polled for, with a deadline."""
import contextlib
import fcntl
import functools
import itertools
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from resp import Client
from transport import Tcp, Tls, Unix

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("REPLYLOG", ROOT / "replylog"))
SERVERS = Path(os.environ.get("REPLYLOG_SERVERS", ROOT / ".servers"))
F_SETPIPE_SZ = 1031


class Skip(Exception):
    """Raised by a test that can't run here; the text is the reason."""


def wait_until(condition, what, seconds=20.0, interval=0.005):
    """Returns condition()'s first true value. Polls with growing pauses, so that waiting takes no CPU away."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"no {what} within {seconds:g} s")
        time.sleep(interval)
        interval = min(interval * 1.5, 0.1)


class Slot:
    """What one process of tests has for itself while others run: a number below 40, and what follows from it. The lowest
    that is free, by a name in the network namespace that the kernel forgets when the process ends, however it ends."""
    COUNT, FIRST_PORT, PORTS = 40, 10_000, 500

    def __init__(self):
        self.number = next(filter(self.claim, range(self.COUNT)), None)
        assert self.number is not None, f"{self.COUNT} processes of tests at once"
        # Below the ports that the kernel gives to clients (ip_local_port_range): these would take a server's while it is
        # restarted.
        first = self.FIRST_PORT + self.number * self.PORTS
        ports = list(range(first, first + self.PORTS))
        turn = random.randrange(self.PORTS)
        self.ports = itertools.cycle(ports[turn:] + ports[:turn])

    def claim(self, number):
        self.claimed = socket.socket(socket.AF_UNIX)
        try:
            self.claimed.bind(f"\0tests of replylog {number}")
        except OSError:
            self.claimed.close()
            return False
        return True

    def free_port(self):
        for port in itertools.islice(self.ports, self.PORTS):
            with socket.socket() as sock:
                # As servers do: connections of the last one that are in TIME_WAIT are no hindrance.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with contextlib.suppress(OSError):
                    sock.bind(("127.0.0.1", port))
                    return port
        raise AssertionError(f"no port of slot {self.number} is free")

    def binary(self, root, path):
        """A copy of a server's binary, a path in the same chroot. Probes are put into a file: those of other tests, and of
        whoever observes that server on this machine, would be in ours, too."""
        folder = f"/tmp/replylog-slot-{self.number}"
        link, original = Path(f"{root}{path}"), Path(f"{root}{path}").resolve()
        copy = Path(f"{root}{folder}/{original.name}")
        copy.parent.mkdir(exist_ok=True)
        if not copy.exists() or copy.stat().st_mtime_ns != original.stat().st_mtime_ns:
            shutil.copy2(original, f"{copy}.new")
            os.rename(f"{copy}.new", copy)
        # Debian's is a link to another name, and looks at the one that it is called by.
        name = copy.with_name(link.name)
        if not name.exists():
            name.symlink_to(copy.name)
        return f"{folder}/{link.name}"


@functools.cache
def slot():
    """Of this process: first asked for after its fork."""
    return Slot()


def free_port():
    return slot().free_port()


def make(name):
    """The path of what make builds in .output. Several tests may want it: one after the other."""
    (ROOT / ".output").mkdir(exist_ok=True)
    with open(ROOT / ".output" / "tests.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(["make", "-s", "-C", ROOT, f".output/{name}"], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / ".output" / name


def status_kib(pid, key):
    """A value of /proc/<pid>/status that is in kB: VmRSS, VmHWM."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{key}:\s+(\d+) kB$", text, re.M).group(1))


def end(process, signum=signal.SIGTERM, seconds=10):
    """Ends a process of ours, whatever state it is in."""
    if process.poll() is None:
        process.send_signal(signum)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


class Server:
    """A server out of scripts/servers, in its own chroot, on a free loopback port."""

    AVOID_COPY = ("--min-io-threads-avoid-copy-reply", "2")     # hidden; 7 unless told otherwise
    ALWAYS_ACTIVE = ("--io-threads-always-active", "yes")       # hidden; else IO threads sleep on a quiet server
    # Before they start, arm64's servers look in /proc for a bug of the kernel's; their chroots have none.
    NO_SELF_TEST = ("--ignore-warnings", "ARM64-COW-BUG") if os.uname().machine == "aarch64" else ()
    BUILT = ("symbols", "stripped")                             # what tests/support/build_server makes, TLS as a module

    def __init__(self, name, *options, io_threads=1, transport="tcp4"):
        self.name = name
        self.kind, self.version, *build = name.split("-")
        self.built = build and build[0] in self.BUILT
        self.dir = SERVERS / name
        if not (self.dir / ".complete").exists():
            maker = "tests/support/build_server" if self.built else f"scripts/servers {name}"
            raise Skip(f"no {name} in {SERVERS}: run {maker}")
        self.options = self.io_options(io_threads) + list(options)
        if self.version >= "7":
            self.options += ["--enable-debug-command", "yes", *self.NO_SELF_TEST]
        self.binary = slot().binary(self.dir, f"/usr/bin/{self.kind}-server")
        self.port = free_port()
        self.work = f"/tmp/replylog-{os.getpid()}-{self.port}"
        self.transport = self.transport_of(transport)
        self.process = None

    def transport_of(self, name):
        """How clients of a test connect. The TCP port is there whatever the transport is."""
        if name == "tcp6":
            return Tcp(self.port, "::1")
        if name == "unix":
            return Unix(str(self.dir), f"{self.work}/socket")
        if name == "tls":
            module = "/usr/lib/valkey-tls.so" if self.built else ""
            return Tls(free_port(), files=self.work, root=str(self.dir), module=module)
        return Tcp(self.port)

    def io_options(self, io_threads):
        """IO threads in the server's own words, doing all they can do."""
        if io_threads == 1:
            return []
        options = ["--io-threads", str(io_threads)]
        if self.kind == "valkey":
            return options + ([*self.AVOID_COPY, *self.ALWAYS_ACTIVE] if self.version.startswith("9") else
                              ["--events-per-io-thread", "0"])  # hidden; all threads active all the time
        # Redis 8 has an event loop for each thread, and reads and writes in it without being asked to.
        return options + (["--io-threads-do-reads", "yes"] if self.version < "8" else [])

    @property
    def pid(self):
        return self.process.pid

    def command(self, binary=None):
        return ["chroot", self.dir, binary or self.binary, *self.arguments()]

    def __enter__(self):
        os.makedirs(f"{self.dir}{self.work}")
        # chroot execs the server: the process we start is the server. A session of its own keeps the terminal's
        # Ctrl-C away from it; --daemonize stays off, so it can't outlive us unseen.
        self.process = subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True)
        try:
            wait_until(self.answers, f"answer from {self.name}")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def log(self):
        path = Path(f"{self.dir}{self.work}/log")
        return path.read_text(errors="replace") if path.exists() else ""

    def answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.log()}")
        try:
            with self.client() as client:
                return client.call("PING") == b"PONG"
        except OSError:
            return False

    def arguments(self):
        return [*self.listeners(), "--save", "", "--appendonly", "no", "--dir", self.work, "--logfile",
                f"{self.work}/log", *self.options]

    def listeners(self):
        plain = Tcp(self.port)
        if isinstance(self.transport, Tcp) and not isinstance(self.transport, Tls):
            return self.transport.options()
        return plain.options() + self.transport.options()

    def client(self, timeout=30):
        return Client(Tcp(self.port), timeout)

    def stop(self):
        # Killed, not asked: there is nothing to save, and a server full of big values takes its time.
        end(self.process, signal.SIGKILL)
        shutil.rmtree(f"{self.dir}{self.work}", ignore_errors=True)

    def patched(self):
        """How many bytes of the server's code differ from its file: 0 when no probe is left in it."""
        count = 0
        with open(f"/proc/{self.pid}/maps") as maps, open(f"/proc/{self.pid}/mem", "rb", 0) as mem, \
                open(f"/proc/{self.pid}/exe", "rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            for line in maps:
                span, perms, offset, _, node = line.split()[:5]
                if int(node) != inode or "x" not in perms:
                    continue
                begin, stop = (int(text, 16) for text in span.split("-"))
                mem.seek(begin)
                file.seek(int(offset, 16))
                live, stored = mem.read(stop - begin), file.read(stop - begin)
                if live != stored:
                    count += sum(a != b for a, b in zip(live, stored))
        return count

    def assert_untouched(self):
        wait_until(lambda: self.patched() == 0, "server code without probes", 10)


class PreloadedServer(Server):
    """One with tests/system/preload/LIBRARY.c in it, which makes it do what servers hardly ever do."""

    preload_env = []    # NAME=VALUE, for the library

    def __init__(self, name, *options, library, **more):
        super().__init__(name, *options, **more)
        self.library = library

    def command(self, binary=None):
        if not shutil.which("gcc"):
            raise Skip("no gcc to build tests/system/preload with")
        shutil.copy(make(f"preload/{self.library}.so"), f"{self.dir}{self.work}/")
        chroot, folder, *server = super().command(binary)
        preload = f"LD_PRELOAD={self.work}/{self.library}.so"
        return [chroot, folder, "/usr/bin/env", preload, *self.preload_env, *server]


class ModuleServer(Server):
    """One that has loaded tests/system/modules/MODULE.c."""

    def __init__(self, name, *options, module="unruly", module_arguments=(), **more):
        super().__init__(name, *options, **more)
        self.module, self.module_arguments = module, module_arguments

    def arguments(self):
        return [*super().arguments(), "--loadmodule", f"{self.work}/{self.module}.so", *self.module_arguments]

    def command(self, binary=None):
        if not shutil.which("gcc"):
            raise Skip("no gcc to build tests/system/modules with")
        shutil.copy(make(f"modules/{self.module}.so"), f"{self.dir}{self.work}/")
        return super().command(binary)


class Replylog:
    """A running replylog whose stdout is read all the time. Enter waits for its start record. Without a pid, flags say
    which server."""

    # A burst may take longer than a second on a busy machine, and its records are ambiguous then. Tests of that say so.
    PATIENT = ("--verify-wait", "60000")

    def __init__(self, pid, threshold=0, *flags, wait=True):
        # REPLYLOG_FLAGS="--tap connection" has the tests of a whole run say the same of another tap.
        self.argv = [str(BINARY), *self.PATIENT, *os.environ.get("REPLYLOG_FLAGS", "").split(),
                     *(["-p", str(pid)] if pid else []), *flags]
        if threshold is not None:
            self.argv += ["--threshold", str(threshold)]
        self.wait = wait
        self.lines = []         # raw lines, as they came

    def __enter__(self):
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, start_new_session=True)
        with contextlib.suppress(OSError):
            # A reader that is briefly late must not count against replylog.
            fcntl.fcntl(self.process.stdout, F_SETPIPE_SZ, 1 << 20)
        self.errors = b""
        self.readers = [threading.Thread(target=self._read_lines, daemon=True),
                        threading.Thread(target=self._read_errors, daemon=True)]
        for reader in self.readers:
            reader.start()
        try:
            if self.wait:
                # An emulated newest kernel takes its time to verify the programs.
                wait_until(self._started, "start record", 120)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        end(self.process)
        self._join()

    def _read_lines(self):
        append = self.lines.append
        for line in self.process.stdout:
            append(line)

    def _read_errors(self):
        self.errors = self.process.stderr.read()

    def _join(self):
        for reader in self.readers:
            reader.join(10)

    def _started(self):
        if self.process.poll() is not None and not self.lines:
            self._join()
            raise AssertionError(f"replylog ended with {self.process.returncode}: {self.stderr.strip()}")
        return self.lines

    @property
    def pid(self):
        return self.process.pid

    @property
    def stderr(self):
        return self.errors.decode("utf-8", "replace")

    @property
    def returncode(self):
        return self.process.returncode

    def wait_replies(self, count, stalled=10.0):
        """Waits until count reply records (and the start record) are there, or none has come for a while: the client has
        its reply before the server's write returns, so the last records may be a moment behind it. That some are
        missing is for the caller to say."""
        seen, since = len(self.lines), time.monotonic()
        while len(self.lines) < count + 1:
            if len(self.lines) != seen:
                seen, since = len(self.lines), time.monotonic()
            if time.monotonic() - since > stalled or self.process.poll() is not None:
                return
            time.sleep(0.005)

    def stop(self, signum=signal.SIGINT):
        """Ends replylog as a person would; all its records."""
        self.process.send_signal(signum)
        return self.finish()

    def finish(self, seconds=30):
        """Waits for replylog to end; all its records."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"replylog still runs after {seconds} s: {self.argv}") from None
        self._join()
        return self.records()

    def records(self):
        return [json.loads(line) for line in list(self.lines)]

    def replies(self):
        return [record for record in self.records() if record["event"] == "reply"]


def run_replylog(*flags, argv=None, timeout=60):
    """A replylog that is expected to end by itself."""
    return subprocess.run(argv or [str(BINARY), *flags], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout)


def readable(fd, seconds):
    return bool(select.select([fd], [], [], seconds)[0])
