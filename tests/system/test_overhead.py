"""--max-overhead: a server that is observed in windows. What is said in them is as exact as ever, what is not seen is said,
and when the load is over everything is seen again."""
import threading

from harness import Replylog, Server, wait_until
from resp import Client, encode
from test_schema import check_lines

ALONE = "a probe that is preempted counts the other thread's time as its own: beside other load pauses grow without bound"

PIPELINE = 20
BIG = 100_000
BUDGET = "0.1"      # percent: passed by whatever load there is


def reply_size(n):
    return len(b"$%d\r\n" % n) + n + 2


class Load:
    """Clients that ask for one byte more each time: which reply a record is about, and what it must say, follows from its
    argv."""

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


def events(records, name):
    return [record for record in records if record["event"] == name]


def assert_windows(records):
    """Windows and pauses take turns, and every reply is from the window at hand."""
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
    """The bytes are those of the command, and within a window a connection's replies are all there, in order. Clients on a
    Unix socket are told apart by their ids."""
    last = {}
    for record in events(records, "reply"):
        if record["cmd"] != "GETRANGE":
            continue
        n = int(record["argv"][3])
        assert record["reply_bytes"] == reply_size(n + 1), record
        assert record["attribution"] == "exact", record
        where = record["window"], record["client_id"]
        assert where not in last or n == (last[where] + 1) % BIG, f"after {last[where]}: {record}"
        last[where] = n
    return last


def test_windows(name, io_threads, transport):
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
    # Joined anew in each window, where the load left a moment in which nothing was outstanding.
    assert len(windows) > 1, followed


test_windows.cases = {
    "valkey-9.1,4 io threads": ("valkey-9.1", 4, "tcp4"),
    "valkey-9.1,tls": ("valkey-9.1", 1, "tls"),
    "redis-7.0,unix": ("redis-7.0", 1, "unix"),
}


def test_each_way_of_attaching(way):
    """Probes are attached anew whatever they are attached with."""
    with Server("valkey-9.1") as server, server.client() as client:
        client.call("SETRANGE", "big", BIG - 1, "x")
        with Replylog(server.pid, 0, "--max-overhead", BUDGET, "--tap", "connection", "--attach", way) as replylog, Load(server) as load:
            wait_until(lambda: any(b'"event":"resumed"' in line for line in replylog.lines), "second window", 120)
            records = replylog.stop()
        load.close()
        assert replylog.stderr == "" and replylog.returncode == 0, replylog.stderr
        server.assert_untouched()
    assert_windows(records)
    assert_exact(records)


test_each_way_of_attaching.cases = {way: (way,) for way in ("session", "multi", "perf")}


def test_unjoined_are_counted_once():
    """What can't be joined is met in each window, and is no more for that."""
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
    """A signal, or the server's end, needs not wait for the pause to be over."""
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


def test_within_budget():
    """A budget that is never passed changes nothing but what is said of it."""
    with Server("valkey-9.1") as server, Replylog(server.pid, 0, "--max-overhead", "100") as replylog:
        with server.client() as client:
            for _ in range(100):
                client.call("PING")
        replylog.wait_replies(100)
        records = replylog.stop()
    assert len(events(records, "reply")) == 100
    assert not events(records, "paused") and records[-1]["windows"] == 1 and records[-1]["paused_us"] == 0, records[-1]
