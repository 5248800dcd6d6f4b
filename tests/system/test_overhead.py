"""--max-overhead observes a server in windows with pauses between them. Records in a window are exact, the stream marks
each pause, and after the load replylog sees everything again."""
import fcntl
import os
import signal
import threading
from pathlib import Path

from replylog import F_SETPIPE_SZ, Replylog
from resp import Client, encode
from server import Server
from test_schema import check_lines
from waiting import readable, wait_until

ALONE = "a preempted probe counts the other thread's time as its own: beside other load, pauses grow without bound"

PIPELINE = 20
BIG = 100_000
BUDGET = "0.1"      # percent: any load exceeds it
WRITE = {"x86_64": "1", "aarch64": "64"}[os.uname().machine]


def reply_size(n):
    return len(b"$%d\r\n" % n) + n + 2


class Load:
    """Clients that request one byte more each time. The argv of a record tells which reply it is about, and what it must
    say."""

    def __init__(self, server, clients=4):
        self.over = threading.Event()
        self.clients = [Client(server.transport, 30) for _ in range(clients)]
        self.threads = [threading.Thread(target=self.run, args=(client,)) for client in self.clients]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def run(self, client):
        n = 0
        while not self.over.is_set():
            asked = range(n, n + PIPELINE)
            lengths = client.drain(b"".join(encode([b"GETRANGE", b"big", b"0", b"%d" % (i % BIG)]) for i in asked), PIPELINE)
            assert lengths == [reply_size(i % BIG + 1) for i in asked]
            n += PIPELINE

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def close(self):
        for client in self.clients:
            client.close()


class Unread(Replylog):
    """A replylog whose stdout is a small pipe that nobody reads until read() is called."""

    def __init__(self, *arguments):
        super().__init__(*arguments, wait=False)
        self.is_read = threading.Event()

    def __enter__(self):
        super().__enter__()
        try:
            wait_until(lambda: readable(self.process.stdout, 0), "start record", 120)
            fcntl.fcntl(self.process.stdout, F_SETPIPE_SZ, 4096)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.read()
        super().__exit__()

    def _read_lines(self):
        self.is_read.wait()
        super()._read_lines()

    def read(self):
        self.is_read.set()

    def observers(self):
        """The processes with probes: replylog itself, or one worker for each of several servers."""
        return Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split() or [self.pid]

    def is_stuck(self):
        return all(waits_for_stdout(pid) for pid in self.observers())


def waits_for_stdout(pid):
    return Path(f"/proc/{pid}/syscall").read_text().split()[:2] == [WRITE, "0x1"]


def fill_stdout(replylog, servers):
    """Fills the pipe with few system calls of the servers, so that the budget is not exceeded before it is full."""
    clients = [server.client() for server in servers]

    def is_full():
        for client in clients:
            client.pipeline([("PING",)] * 200)
        return replylog.is_stuck()
    wait_until(is_full, "write that waits", 60)
    for client in clients:
        client.close()
    assert all(server.patched() for server in servers), "paused before stdout was full: the test proves nothing"


def count(replylog, event):
    return sum(b'"event":"%s"' % event.encode() in line for line in replylog.lines)


def events(records, name):
    return [record for record in records if record["event"] == name]


def assert_windows(records):
    """Windows and pauses alternate, and every reply belongs to the current window."""
    window, observed = 1, True
    for record in records:
        if record["event"] == "paused":
            assert observed and record["window"] == window, record
            assert record["observed_us"] > 0 and record["pause_us"] > 0 and record["probes_us"] > 0, record
            observed = False
        elif record["event"] == "resumed":
            window += 1
            assert not observed and record["window"] == window, record
            observed = True
        elif record["event"] == "reply":
            assert observed and record["window"] == window, record
    assert records[-1]["windows"] == window, records[-1]
    assert records[-1]["paused_us"] >= sum(record["paused_us"] for record in events(records, "resumed"))


def assert_exact(records):
    """Sizes match the commands. Within a window a connection's replies are complete, in order, and exact except for the
    last ones. Clients on a Unix socket are told apart by their ids."""
    last, unproven = {}, set()
    for record in events(records, "reply"):
        if record["cmd"] != "GETRANGE":
            continue
        n = int(record["argv"][3])
        assert record["reply_bytes"] == reply_size(n + 1), record
        where = record["window"], record["client_id"]
        # A record that waits for its proof when the probes are detached does not get it, at the end of a window.
        if record["attribution"] == "ambiguous":
            unproven.add(where)
        else:
            assert where not in unproven, record
        assert where not in last or n == (last[where] + 1) % BIG, f"after {last[where]}: {record}"
        last[where] = n
    return last


def test_pauses_under_load(name, io_threads, transport):
    with Server(name, io_threads=io_threads, transport=transport) as server:
        with server.client() as client:
            client.call("SETRANGE", "big", BIG - 1, "x")
        load = Load(server)
        with Replylog(server.pid, 0, "--max-overhead", BUDGET) as replylog:
            with load:
                wait_until(lambda: sum(b'"event":"paused"' in line for line in replylog.lines) >= 3, "third pause", 120)
            replies = len(replylog.replies())
            wait_until(lambda: sum(b'"event":"resumed"' in line for line in replylog.lines) >=
                       sum(b'"event":"paused"' in line for line in replylog.lines), "window after the load", 120)
            with Client(server.transport, 30) as client:
                client.call("ECHO", "after")
                wait_until(lambda: any(b'"after"' in line for line in replylog.lines), "record after the load")
            load.close()
            records = replylog.stop()
        assert replylog.stderr == "" and replylog.returncode == 0, replylog.stderr
        server.assert_untouched()
    check_lines(replylog.lines)
    start = records[0]
    assert start["max_overhead_permille"] == 1 and start["probe_ns"] > 0, start
    assert replies > 0
    assert_windows(records)
    followed = assert_exact(records)
    windows = {window for window, _ in followed}
    print(f"{replies} replies in windows {sorted(windows)} of {records[-1]['windows']}; {records[-1]}")
    # replylog joins the connections again in each window, where the load had a moment with nothing outstanding.
    assert len(windows) > 1, followed


test_pauses_under_load.cases = {
    "valkey-9.1,4 io threads": ("valkey-9.1", 4, "tcp4"),
    "valkey-9.1,tls": ("valkey-9.1", 1, "tls"),
    "redis-7.0,unix": ("redis-7.0", 1, "unix"),
}


def test_every_attach_mode(mode):
    """replylog attaches its probes again, in every attach mode."""
    with Server("valkey-9.1") as server, server.client() as client:
        client.call("SETRANGE", "big", BIG - 1, "x")
        with Replylog(server.pid, 0, "--max-overhead", BUDGET, "--tap", "connection", "--attach", mode) as replylog, Load(server) as load:
            wait_until(lambda: any(b'"event":"resumed"' in line for line in replylog.lines), "second window", 120)
            records = replylog.stop()
        load.close()
        assert replylog.stderr == "" and replylog.returncode == 0, replylog.stderr
        server.assert_untouched()
    assert_windows(records)
    assert_exact(records)


test_every_attach_mode.cases = {mode: (mode,) for mode in ("session", "multi", "perf")}


def test_unjoined_are_counted_once():
    """A connection that can't be joined is seen in each window, and still counts once."""
    with Server("valkey-9.1") as server, server.client() as client:
        client.call("SETRANGE", "big", BIG - 1, "x")
        older = [Client(server.transport, 30) for _ in range(20)]
        for subscriber in older:
            subscriber.call("SUBSCRIBE", "channel")
        over = threading.Event()
        publisher = threading.Thread(target=publish, args=(server, over))
        with Replylog(server.pid, 0, "--max-overhead", BUDGET) as replylog:
            publisher.start()
            with Load(server) as load:
                wait_until(lambda: sum(b'"event":"paused"' in line for line in replylog.lines) >= 4, "fourth pause", 120)
                stop = replylog.stop()[-1]
                over.set()
            load.close()
        publisher.join()
        for subscriber in older:
            subscriber.close()
    assert stop["unjoined"] <= len(older) + len(load.clients) + 2, stop


def publish(server, over):
    with server.client() as client:
        while not over.wait(0.01):
            client.call("PUBLISH", "channel", "message")


def test_stopped_in_a_pause():
    """A signal, or the end of the server, ends a pause at once."""
    with Server("valkey-9.1") as server, server.client() as client:
        client.call("SETRANGE", "big", BIG - 1, "x")
        with Replylog(server.pid, 0, "--max-overhead", BUDGET) as by_signal, \
                Replylog(server.pid, 0, "--max-overhead", BUDGET) as by_end:
            for replylog in (by_signal, by_end):
                with Load(server) as load:
                    wait_until(lambda: b'"event":"paused"' in replylog.lines[-1], "pause", 120)
                load.close()
            stop = by_signal.stop()[-1]
            assert stop["reason"] == "signal" and stop["paused_us"] > 0, stop
            server.stop()
            stop = by_end.finish()[-1]
            assert stop["reason"] == "server_exited", stop


def test_stdout_is_stuck():
    """While a line waits for a reader, replylog keeps to its budget. Once the line is read, an ordinary pause follows."""
    with Server("valkey-9.1") as server, server.client() as client:
        client.call("SETRANGE", "big", BIG - 1, "x")
        with Unread(server.pid, 0, "--max-overhead", BUDGET, "--ring-size", "64mb") as replylog:
            fill_stdout(replylog, [server])
            with Load(server) as load:
                wait_until(lambda: server.patched() == 0, "server code without probes", 120)
                wait_until(replylog.is_stuck, "write that still waits")
                replylog.read()
                wait_until(lambda: count(replylog, "paused") >= 2, "second pause", 120)
            load.close()
            wait_until(lambda: count(replylog, "resumed") >= count(replylog, "paused"), "window after the load", 120)
            client.call("ECHO", "after")
            wait_until(lambda: any(b'"after"' in line for line in replylog.lines), "record after the load")
            records = replylog.stop()
        assert replylog.stderr == "" and replylog.returncode == 0, replylog.stderr
        server.assert_untouched()
    check_lines(replylog.lines)
    assert_windows(records)
    windows = {window for window, _ in assert_exact(records)}
    print(f"replies in windows {sorted(windows)}; {records[-1]}")
    assert windows > {1}, windows


def test_stdout_is_stuck_with_several_servers():
    """Each worker waits for the supervisor, and keeps to its own budget meanwhile."""
    with Server("valkey-9.1") as one, Server("redis-7.0") as other:
        servers = one, other
        for server in servers:
            with server.client() as client:
                client.call("SETRANGE", "big", BIG - 1, "x")
        with Unread(None, 0, "-p", str(one.pid), "-p", str(other.pid), "--max-overhead", "0.5") as replylog:
            wait_until(lambda: all(server.patched() for server in servers), "probes", 120)
            fill_stdout(replylog, servers)
            loads = [Load(server) for server in servers]
            with loads[0], loads[1]:
                for server in servers:
                    wait_until(lambda server=server: server.patched() == 0, "server code without probes", 120)
                wait_until(replylog.is_stuck, "write that still waits")
                replylog.read()
            for load in loads:
                load.close()
            for server in servers:
                ours = f'resumed","server_pid":{server.pid},'.encode()
                wait_until(lambda ours=ours: any(ours in line for line in replylog.lines), "window after the load", 120)
            records = replylog.stop()
        assert replylog.stderr == "" and replylog.returncode == 0, replylog.stderr
        for server in servers:
            server.assert_untouched()
    check_lines(replylog.lines)
    for server in servers:
        assert_windows([record for record in records if record["server_pid"] == server.pid])


def test_stopped_while_stdout_is_stuck():
    """After the first signal, or the server's end, replylog waits for the reader to take the line. After a second signal
    it does not."""
    with Server("valkey-9.1") as server, server.client() as client:
        client.call("SETRANGE", "big", BIG - 1, "x")
        arguments = server.pid, 0, "--max-overhead", BUDGET
        with Unread(*arguments) as by_signal, Unread(*arguments) as by_end, Unread(*arguments) as by_two:
            for replylog in (by_signal, by_end, by_two):
                fill_stdout(replylog, [server])
            with Load(server) as load:
                wait_until(lambda: server.patched() == 0, "server code without probes", 120)
            load.close()
            wait_until(lambda: by_two.process.send_signal(signal.SIGINT) or by_two.process.poll(), "end by the second signal")
            assert by_two.returncode == 1
            by_signal.process.send_signal(signal.SIGINT)
            wait_until(by_signal.is_stuck, "write that still waits")
            by_signal.read()
            records = by_signal.finish()
            assert records[-1]["reason"] == "signal" and records[-2]["event"] == "paused", records[-2:]
            assert_windows(records)
            server.stop()
            by_end.read()
            records = by_end.finish()
            assert records[-1]["reason"] == "server_exited" and events(records, "paused"), records[-2:]
            assert_windows(records)


def test_within_budget():
    """A budget that is never exceeded only adds its own keys to the records."""
    with Server("valkey-9.1") as server, Replylog(server.pid, 0, "--max-overhead", "100") as replylog:
        with server.client() as client:
            for _ in range(100):
                client.call("PING")
        replylog.wait_replies(100)
        records = replylog.stop()
    assert len(events(records, "reply")) == 100
    assert not events(records, "paused") and records[-1]["windows"] == 1 and records[-1]["paused_us"] == 0, records[-1]
