"""Every server as users run it: version x IO threads x transport, each cell exact. REPLYLOG_MATRIX=all runs all cells.
Otherwise the cells of two servers run, and one of each other server that exists here (scripts/servers,
tests/support/build_server)."""
import os

import oracle
import workload
from environment import SERVERS, Skip
from replylog import Replylog
from server import Server
from slot import free_port
from waiting import wait_until

NAMES = ("redis-6.0", "redis-7.0", "redis-8.0", "redis-8.6", "valkey-8.0", "valkey-8.1", "valkey-9.1",
         "valkey-9.1-symbols", "valkey-9.1-stripped")
WHOLE = ("redis-7.0", "valkey-9.1")
IO_THREADS = (1, 2, 4)
TRANSPORTS = ("tcp4", "tcp6", "unix", "tls")
COMMANDS = 2000


def cells():
    for name in NAMES:
        if os.environ.get("REPLYLOG_MATRIX") == "all" or name in WHOLE:
            yield from ((name, io_threads, transport) for io_threads in IO_THREADS for transport in TRANSPORTS)
        elif (SERVERS / name / ".complete").exists():
            yield name, 1 if name == "redis-6.0" else 2, "tls"


def threads_are_used(server):
    """Redis 6 and 7 put their IO threads to sleep when few clients wait for a write (stopThreadedIOIfNeeded). With so few
    commands the threads may have nothing to do."""
    return server.kind == "valkey" or server.version >= "8"


def bears_full_sockets(server, transport):
    """Before valkey 8.1 (last_failed_write_data_len in src/tls.c) servers retry a TLS write that found no room with fewer
    bytes than before. OpenSSL refuses that ("bad length"), and the server closes the connection, with and without
    replylog."""
    return transport != "tls" or (server.kind == "valkey" and server.version > "8.0")


def play_and_compare(server, replylog, slow=True):
    outcome = oracle.run(server.transport, COMMANDS, connections=8, slow=slow)
    replylog.wait_replies(sum(map(len, outcome.expected.values())))
    records = replylog.stop()
    print(records[0]["probes"], records[-1])
    oracle.compare(outcome.expected, records)
    assert replylog.returncode == 0, replylog.returncode
    assert replylog.stderr == "", replylog.stderr
    server.assert_untouched()
    return records[-1]


def run_cell(name, io_threads, transport):
    """Returns False when the server itself closed a connection that it should not have closed."""
    with Server(name, "--loglevel", "verbose", io_threads=io_threads, transport=transport) as server:
        bears = bears_full_sockets(server, transport)
        with server.client() as client:
            workload.fill(client)
        with Replylog(server.pid, 0) as replylog:
            try:
                stop = play_and_compare(server, replylog, slow=bears)
            except oracle.Difference:
                raise
            except AssertionError:
                if bears or "Error writing to client" not in server.log():
                    raise
                return False
        if io_threads > 1 and threads_are_used(server):
            assert stop["hits_io"] > 0, f"no IO thread did anything: {stop}"
    return True


def test_every_server(name, io_threads, transport):
    if (name, transport) == ("redis-6.0", "tls") and io_threads > 1:
        # Clients hang now and then, with and without replylog.
        raise Skip("redis.conf of 6.0 says that IO threads do not work with SSL")
    if not any(run_cell(name, io_threads, transport) for _ in range(5)):
        raise Skip(f"{name} closed TLS connections by itself, five times (see bears_full_sockets)")


test_every_server.cases = {f"{name},{io_threads} io threads,{transport}": (name, io_threads, transport)
                           for name, io_threads, transport in cells()}


def each_kind(function):
    function.cases = {name: (name,) for name in WHOLE}
    return function


@each_kind
def test_cluster(name):
    """A node of a cluster: its clients' records are exact, its links to the other node are no clients, and nothing is
    lost."""
    bus, other_bus = free_port(), free_port()
    with Server(name, "--cluster-enabled", "yes", "--cluster-port", str(bus)) as server, \
            Server(name, "--cluster-enabled", "yes", "--cluster-port", str(other_bus)) as other:
        with server.client() as client:
            client.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda: b"cluster_state:ok" in client.call("CLUSTER", "INFO"), "cluster that is ok")
            workload.fill(client)
        with Replylog(server.pid, 0) as replylog:
            with other.client() as client:
                client.call("CLUSTER", "MEET", "127.0.0.1", server.port, bus)
                wait_until(lambda: b"cluster_known_nodes:2" in client.call("CLUSTER", "INFO"), "second node")
                wait_until(lambda: b"cluster_state:ok" in client.call("CLUSTER", "INFO"), "links in both directions")
            stop = play_and_compare(server, replylog)
            assert stop["left_out_cluster"] >= 1, stop


class Sentinel(Server):
    """A server in sentinel mode, which needs a file that it can write to."""

    def __init__(self, name, primary):
        super().__init__(name)
        self.primary = primary

    def arguments(self):
        path = f"{self.work}/sentinel.conf"
        with open(f"{self.dir}{path}", "w") as file:
            file.write(f"sentinel monitor watched 127.0.0.1 {self.primary.port} 1\n")
        return [path, "--sentinel", *self.listeners(), "--dir", self.work, "--logfile", f"{self.work}/log"]


@each_kind
def test_sentinel(name):
    """The records of a sentinel's clients are exact, and its own requests to the servers that it watches are none of
    them."""
    with Server(name) as primary, Sentinel(name, primary) as sentinel, Replylog(sentinel.pid, 0) as replylog:
        commands = [("SENTINEL", "MASTERS"), ("PING",), ("SENTINEL", "CKQUORUM", "watched"), ("INFO",)]
        with sentinel.client() as client:
            lengths = [client.drain(oracle.encode([arg.encode() for arg in argv]), 1)[0] for argv in commands]
        replylog.wait_replies(len(commands))
        stop = replylog.stop()[-1]
    records = replylog.replies()
    assert [record["argv"] for record in records] == [list(argv) for argv in commands], records
    assert [record["reply_bytes"] for record in records] == lengths, (records, lengths)
    assert all(record["attribution"] == "exact" for record in records) and stop["dropped"] == 0, records
