"""The real servers that replylog observes. Each runs in a chroot of its own until its test ends."""
import os
import shutil
import signal
import subprocess
from pathlib import Path

from environment import SERVERS, Skip, make
from processes import end
from resp import Client
from slot import free_port, slot
from transport import Tcp, Tls, Unix
from waiting import wait_until


class Server:
    """A server from scripts/servers, in its own chroot, on a free loopback port."""

    AVOID_COPY = ("--min-io-threads-avoid-copy-reply", "2")     # a hidden option; its default is 7
    ALWAYS_ACTIVE = ("--io-threads-always-active", "yes")       # a hidden option; without it IO threads sleep on a quiet server
    # arm64 servers look in /proc for a kernel bug before they start, and their chroots have no /proc.
    NO_SELF_TEST = ("--ignore-warnings", "ARM64-COW-BUG") if os.uname().machine == "aarch64" else ()
    BUILT = ("symbols", "stripped")                             # made by tests/support/build_server, with TLS as a module

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
        """Returns how a test's clients connect. The TCP port is open with every transport."""
        if name == "tcp6":
            return Tcp(self.port, "::1")
        if name == "unix":
            return Unix(str(self.dir), f"{self.work}/socket")
        if name == "tls":
            module = "/usr/lib/valkey-tls.so" if self.built else ""
            return Tls(free_port(), files=self.work, root=str(self.dir), module=module)
        return Tcp(self.port)

    def io_options(self, io_threads):
        """Returns the server's options for IO threads, with every kind of I/O on them."""
        if io_threads == 1:
            return []
        options = ["--io-threads", str(io_threads)]
        if self.kind == "valkey":
            return options + ([*self.AVOID_COPY, *self.ALWAYS_ACTIVE] if self.version.startswith("9") else
                              ["--events-per-io-thread", "0"])  # a hidden option: all threads are always active
        # Redis 8 has an event loop for each thread, and always reads and writes in it.
        return options + (["--io-threads-do-reads", "yes"] if self.version < "8" else [])

    @property
    def pid(self):
        return self.process.pid

    def command(self, binary=None):
        return ["chroot", self.dir, binary or self.binary, *self.arguments()]

    def __enter__(self):
        os.makedirs(f"{self.dir}{self.work}")
        # chroot execs the server, so the process that starts here is the server. Its own session keeps the terminal's
        # Ctrl-C away from it. --daemonize stays off, so that it can't outlive the test unnoticed.
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
        # SIGKILL: there is nothing to save, and a server full of big values takes long to end in order.
        end(self.process, signal.SIGKILL)
        shutil.rmtree(f"{self.dir}{self.work}", ignore_errors=True)

    def patched(self):
        """Counts the bytes of the server's code that differ from its file: 0 when no probe is left in it."""
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
    """A server that preloads tests/system/preload/LIBRARY.c, which makes it do what servers hardly ever do."""

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
    """A server that has loaded tests/system/modules/MODULE.c."""

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
