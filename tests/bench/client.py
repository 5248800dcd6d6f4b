"""The load: valkey-benchmark, and a client that discards replies which valkey-benchmark would parse more slowly than the
server sends them."""
import contextlib
import re
import signal
import statistics
import subprocess
import time

from environment import SERVERS, Skip
from processes import end
from resp import ReplyCounter, encode
from waiting import wait_until

# All servers use this client, because the other versions lack --duration, which bounds every run.
BENCHMARK = "valkey-9.1"
LONGEST_S = 3600        # a load that nothing else ends, ends after this time
PERCENTILES = {"p50_ms": 50.0, "p99_ms": 99.0, "p999_ms": 99.9}


class Load:
    """valkey-benchmark with this command for some seconds."""

    def __init__(self, command, pipeline=1, clients=50, keys=None, size=None, rate=None):
        self.command = command
        self.clients = clients
        options = ["-c", clients, "-P", pipeline]
        for flag, value in (("-r", keys), ("-d", size), ("--rps", rate)):
            options += [flag, value] if value else []
        self.options = [str(option) for option in options]

    def __str__(self):
        command = self.command if len(self.command) < 8 else [*self.command[:3], "..."]
        return " ".join(["valkey-benchmark", *self.options, *command])

    def argv(self, server, seconds):
        root = SERVERS / BENCHMARK
        if not (root / ".complete").exists():
            raise Skip(f"no {BENCHMARK} in {SERVERS}, for its valkey-benchmark: run scripts/servers {BENCHMARK}")
        return ["chroot", root, "/usr/bin/valkey-benchmark", "-p", str(server.port), "--duration",
                str(seconds), "--precision", "3", *self.options, *self.command]

    @contextlib.contextmanager
    def going_on(self, server):
        """A context in which the server is under full load from the first line to the last."""
        process = subprocess.Popen(self.argv(server, LONGEST_S), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            with server.client() as client:
                wait_until(lambda: connected(client) > self.clients or process.poll() is not None, "load", 30)
            if process.poll() is not None:
                raise AssertionError(f"{self}: ended with {process.returncode}")
            yield
        finally:
            end(process, signal.SIGTERM, 30)

    def run(self, server, seconds):
        # With slow replies and many connections the end takes long after the last second.
        done = subprocess.run(self.argv(server, seconds), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=seconds * 3 + 60)
        if done.returncode:
            raise AssertionError(f"{self}: {done.stderr.strip()[-300:]}")
        return parse(done.stdout)


def info_number(client, section, name):
    return int(client.call("INFO", section).decode().partition(f"{name}:")[2].split()[0])


def connected(client):
    return info_number(client, "clients", "connected_clients")


def commands_processed(client):
    return info_number(client, "stats", "total_commands_processed")


def parse(output):
    """Parses valkey-benchmark's report. A percentile is the first one in its table at or over the wanted one."""
    rate = re.search(r"throughput summary: ([0-9.]+) requests per second", output)
    table = output.partition("Latency by percentile distribution:")[2].partition("Cumulative distribution")[0]
    rows = [(float(percent), float(ms)) for percent, ms in re.findall(r"([0-9.]+)% <= ([0-9.]+) milli", table)]
    if not rate or not rows:
        raise AssertionError(f"valkey-benchmark said no throughput and latency:\n{output[-500:]}")
    result = {"rate": float(rate.group(1))}
    for name, wanted in PERCENTILES.items():
        result[name] = next(ms for percent, ms in rows if percent >= wanted)
    p99 = re.search(r"p50 +p95 +p99 +max\s+(?:[0-9.]+ +){4}([0-9.]+)", output)
    if p99:
        result["p99_ms"] = float(p99.group(1))
    return result


class Discard:
    """One connection that sends the same command again and again, and counts the bytes that arrive. Every reply has the
    same size."""

    def __init__(self, command):
        self.command = command

    def __str__(self):
        return f"one client that throws replies away: {' '.join(self.command)}"

    def run(self, server, seconds):
        request = encode([argument.encode() for argument in self.command])
        buffer = bytearray(1 << 20)
        with server.client(timeout=120) as client:
            size = self.measure(client.sock, request, buffer)
            times = []
            begin = time.monotonic()
            while not times or time.monotonic() - begin < seconds:
                times.append(self.once(client.sock, request, size, buffer))
        cuts = statistics.quantiles(times, n=1000, method="inclusive") if len(times) > 1 else times * 999
        # The first reply, which told the size, counts as a command, but the rate uses only the timed ones.
        return {"commands": len(times) + 1, "rate": len(times) / sum(times), "p50_ms": cuts[499] * 1e3,
                "p99_ms": cuts[989] * 1e3, "p999_ms": cuts[998] * 1e3}

    @staticmethod
    def measure(sock, request, buffer):
        counter, done = ReplyCounter(), []
        sock.sendall(request)
        while not done:
            count = sock.recv_into(buffer)
            if not count:
                raise AssertionError("the server closed the connection")
            done = counter.feed(bytes(memoryview(buffer)[:count]))
        return done[0][1]

    @staticmethod
    def once(sock, request, size, buffer):
        begin = time.monotonic()
        sock.sendall(request)
        while size > 0:
            count = sock.recv_into(buffer)
            if not count:
                raise AssertionError("the server closed the connection")
            size -= count
        return time.monotonic() - begin
