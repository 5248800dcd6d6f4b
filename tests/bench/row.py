"""What runs beside the server during a measurement: nothing, replylog, or an alternative. Each is a row of a table.
beside() is a context: it yields an object with the process, if there is one, and afterwards with its output."""
import contextlib
import json
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

from environment import BINARY, ROOT, Skip
from processes import end
from replylog import Replylog
from waiting import wait_until

OUTPUT = ROOT / ".output"
SCRATCH = OUTPUT / "bench"
COMMANDLOG = "commandlog-reply-larger-than"


class Beside:
    """What runs beside the server now."""

    def __init__(self, process=None):
        self.process = process
        self.stop = {}              # replylog's stop record

    @property
    def pid(self):
        return self.process and self.process.pid


class Row:
    has_programs = False            # it has BPF programs whose time the kernel can count

    def __init__(self, name):
        self.name = name

    def lacks(self, server):
        """Returns why this row can't be measured here, or None."""
        return None

    @contextlib.contextmanager
    def beside(self, server):
        yield Beside()


class ReplylogRow(Row):
    has_programs = True

    def __init__(self, flags=""):
        super().__init__(f"replylog {flags}".strip())
        self.flags = shlex.split(flags)

    @contextlib.contextmanager
    def beside(self, server):
        with recording(server, self.flags) as beside:
            yield beside


@contextlib.contextmanager
def recording(server, flags, path=None):
    """A replylog that writes its lines to a file, as in production, so no reader competes with it for CPU."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        # Writer and reader need a handle each, because one handle has one position.
        out = stack.enter_context(open(path, "wb") if path else tempfile.NamedTemporaryFile(dir=SCRATCH))
        errors = stack.enter_context(tempfile.TemporaryFile(mode="w+"))
        lines = stack.enter_context(open(out.name, "rb"))
        process = subprocess.Popen([str(BINARY), "-p", str(server.pid), *flags], stdin=subprocess.DEVNULL, stdout=out,
                                   stderr=errors, start_new_session=True)
        beside = Beside(process)

        def started():
            if process.poll() is not None:
                errors.seek(0)
                raise Skip(f"replylog {' '.join(flags)} ended with {process.returncode}: {errors.read().strip()}")
            return lines.readline()

        try:
            wait_until(started, "start record", 30)
            yield beside
        finally:
            end(process, signal.SIGINT, 60)
        beside.stop = last_line(Path(out.name))


def last_line(path):
    """Returns the stop record without reading the gigabytes that may precede it."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - (16 << 10)))
        return json.loads(file.read().splitlines()[-1])


def places(server, flags):
    """Returns where this replylog has its probes for connections without TLS, in the form that empty_probes takes."""
    with Replylog(server.pid, None, *flags) as replylog:
        probes = [probe.split() for probe in replylog.stop()[0]["probes"]]
    found = []
    for program, site, *how in probes:
        if how == ["raw_tracepoint"]:
            found.append(f"raw_tracepoint:{site}")
        elif site.startswith("connSocket"):
            if how[1] == "perf":
                raise Skip("no empty programs for perf uprobes")
            session = program.endswith("_session")
            kind = "session" if session else "return" if program.endswith("_return") else "enter"
            found.append(f"{kind}:{how[0]}")
    return found


class EmptyRow(Row):
    """Programs that do nothing, where a replylog with these flags has its probes: the least that its approach can cost."""
    has_programs = True

    def __init__(self, flags=""):
        super().__init__(f"empty programs {flags}".strip())
        self.flags = shlex.split(flags)
        self.places = {}

    def lacks(self, server):
        if not (OUTPUT / "empty_probes").exists():
            return "make .output/empty_probes"
        try:
            self.places[server.pid] = places(server, self.flags)
        except (AssertionError, Skip) as error:
            return str(error)
        return None

    @contextlib.contextmanager
    def beside(self, server):
        process = subprocess.Popen([OUTPUT / "empty_probes", str(server.pid), *self.places[server.pid]],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            if process.stdout.readline() != "ready\n":
                raise Skip(process.communicate()[1].strip())
            yield Beside(process)
        finally:
            # It ends at the end of its stdin.
            process.communicate()


class CommandlogRow(Row):
    """The server's own log, at its default threshold. All other rows turn it off (-1)."""

    def __init__(self):
        super().__init__("COMMANDLOG")

    def lacks(self, server):
        with server.client() as client:
            return None if client.call("CONFIG", "GET", COMMANDLOG) else f"{server.name} has no COMMANDLOG of replies"

    @contextlib.contextmanager
    def beside(self, server):
        commandlog(server, 1 << 20)
        try:
            yield Beside()
        finally:
            commandlog(server, -1)


def commandlog(server, threshold):
    """Sets the threshold on servers that have such a log."""
    with server.client() as client:
        if client.call("CONFIG", "GET", COMMANDLOG):
            client.call("CONFIG", "SET", COMMANDLOG, threshold)


class MonitorRow(Row):
    """One MONITOR client, which discards what it reads as fast as it arrives."""

    def __init__(self):
        super().__init__("MONITOR")

    @contextlib.contextmanager
    def beside(self, server):
        with server.client(timeout=None) as client:
            client.call("MONITOR")
            reader = threading.Thread(target=self.discard, args=(client.sock,), daemon=True)
            reader.start()
            try:
                yield Beside()
            finally:
                # The server ends this client, because what it still has to send would keep it busy in the next run.
                with server.client(timeout=60) as other:
                    other.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                reader.join(60)

    @staticmethod
    def discard(sock):
        buffer = bytearray(1 << 20)
        with contextlib.suppress(OSError):
            while sock.recv_into(buffer):
                pass


class BpftraceRow(Row):
    """The script that a user would write. It does not choose cheap probe locations as replylog does."""

    def __init__(self):
        super().__init__("bpftrace")

    def lacks(self, server):
        if not shutil.which("bpftrace"):
            return "bpftrace is not installed"
        return None if server.version == "9.1" else "the script's offsets are valkey 9.1's"

    @contextlib.contextmanager
    def beside(self, server):
        script = (Path(__file__).parent / "large_replies.bt").read_text()
        script = script.replace("EXE", f"{server.dir}{server.binary}").replace("PID", str(server.pid))
        with tempfile.TemporaryFile(mode="w+") as errors:
            process = subprocess.Popen(["bpftrace", "-e", script], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                       stderr=errors, start_new_session=True)

            def attached():
                if process.poll() is not None:
                    errors.seek(0)
                    raise Skip(f"bpftrace ended with {process.returncode}: {errors.read().strip()[-300:]}")
                return server.patched() >= 2    # a breakpoint in each of two functions

            try:
                wait_until(attached, "probe of bpftrace", 30)
                yield Beside(process)
            finally:
                end(process, signal.SIGINT, 30)
                server.assert_untouched()


PEERS = {"commandlog": CommandlogRow, "monitor": MonitorRow, "bpftrace": BpftraceRow}
PEER_NAMES = ("empty", *PEERS)


def rows(flags, peers):
    """The baseline first, then a replylog for each text of flags, the empty programs of each, and the peers."""
    found = [Row("nothing")] + [ReplylogRow(text) for text in flags]
    if "empty" in peers:
        found += [EmptyRow(text) for text in flags]
    return found + [PEERS[name]() for name in PEERS if name in peers]
