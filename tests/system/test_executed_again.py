"""--dispatch and --argv-from dispatch where the server executes a command more than once: what a record says about the
execution is the command's own, or is absent. A value's size tells whose it is, and so does the time of a command that
sleeps."""
import os
from contextlib import contextmanager

from replylog import Replylog
from resp import encode, to_bytes
from server import ModuleServer, Server
from slot import free_port
from waiting import wait_until

MATRIX = os.environ.get("REPLYLOG_MATRIX") == "all"
FLAGS = {"times": ("--dispatch",), "argv": ("--argv-from", "dispatch")}
KEYS = "abcdef"
SLEEP_MS = 3


def size(key):
    return 1000 * (KEYS.index(key) + 1)


def reply_bytes(key):
    return size(key) + len(f"${size(key)}\r\n\r\n")


def on(*servers):
    """Runs a test on these servers, with and without IO threads, with and without --argv-from; all combinations only on
    request."""
    def decorate(function):
        function.cases = {f"{name},{threads} io threads,{flags}": (name, threads, FLAGS[flags])
                          for name in servers for threads, flags in ((1, "times"), (4, "argv"), (1, "argv"), (4, "times"))
                          if MATRIX or (threads == 1) == (flags == "times")}
        return function
    return decorate


def request(*commands):
    return b"".join(encode([to_bytes(arg) for arg in argv]) for argv in commands)


def sleep(ms=SLEEP_MS):
    return "DEBUG", "SLEEP", f"{ms / 1000}"


def behind():
    """The commands behind the one that is executed again. Each one can be told from the others."""
    return [command for key in KEYS for command in (("GET", key), sleep(SLEEP_MS + KEYS.index(key)))]


def fill(client):
    client.call("MSET", *[item for key in KEYS for item in (key, "v" * size(key))])


class Observed:
    """A server, replylog, and the client whose records the test checks."""

    def __init__(self, server, flags):
        self.server, self.flags = server, flags

    def __enter__(self):
        with self.server.client() as client:
            fill(client)
        self.replylog = Replylog(self.server.pid, 0, *self.flags).__enter__()
        self.client, self.other = self.server.client(), self.server.client()
        return self

    def __exit__(self, *error):
        self.client.close()
        self.other.close()
        self.replylog.__exit__(*error)

    def records(self, count):
        """Returns the client's records, and the stop record."""
        def mine():
            return [record for record in self.replylog.replies() if record.get("client_addr") == self.client.addr]
        wait_until(lambda: len(mine()) >= count, f"{count} records")
        stop = self.replylog.stop()[-1]
        assert len(mine()) == count and stop["dropped"] == 0, (mine(), stop)
        return mine(), stop


def executed(record):
    """Says whether the record describes the command's execution."""
    return "exec_us" in record or record.get("argv_from") == "dispatch"


def assert_own(records, commands, attribution="exact"):
    """Each record belongs to its command, and describes that command's own execution."""
    for record, command in zip(records, commands, strict=True):
        assert record["argv"] == [str(arg) for arg in command], (record, command)
        assert record["attribution"] == attribution, record
        if command[0] == "GET":
            assert record["reply_bytes"] == reply_bytes(command[1]), record
        if command[0] == "DEBUG" and "exec_us" in record:
            assert record["exec_us"] >= float(command[2]) * 1e6, f"the command slept longer: {record}"


def assert_all_executed(records):
    for record in records:
        assert "exec_us" in record and record.get("argv_from", "dispatch") == "dispatch", record


def blocked(client, command):
    return f"cmd={command}" in client.call("CLIENT", "LIST").decode()


# ---- executed again without the mark ---------------------------------------------------------------------------------

@on("valkey-8.0", "valkey-8.1", "valkey-9.1", "redis-8.0", "redis-8.6", "redis-7.0")
def test_served_while_paused(name, io_threads, flags):
    """A transaction pauses writers and serves a blocked command, so the server postpones it and executes it again later."""
    with Server(name, io_threads=io_threads) as server, Observed(server, flags) as o:
        commands = [("BLPOP", "list", "0"), *behind()]
        for _ in range(2):
            o.client.sock.sendall(request(*commands))
            wait_until(lambda: blocked(o.other, "blpop"), "blocked client")
            o.other.pipeline([("MULTI",), ("CLIENT", "PAUSE", "200", "WRITE"), ("LPUSH", "list", "x"), ("EXEC",)])
            for _ in commands:
                o.client.read()
        records, stop = o.records(2 * len(commands))
        assert_own(records, 2 * commands)
        assert_all_executed(records)
        assert stop["dispatch_disagrees"] == 0, stop


@on("valkey-8.0", "valkey-8.1", "valkey-9.1", "redis-8.0", "redis-8.6")
def test_woken_but_list_is_empty(name, io_threads, flags):
    """The element that wakes the blocked command is gone when the server executes it again, so it blocks again, several
    times."""
    with Server(name, io_threads=io_threads) as server, Observed(server, flags) as o:
        commands = [("BLPOP", "list", "0"), *behind()]
        o.client.sock.sendall(request(*commands))
        wait_until(lambda: blocked(o.other, "blpop"), "blocked client")
        for paused in (False, True, False, True):
            pause = [("CLIENT", "PAUSE", "100", "WRITE")] if paused else []
            o.other.pipeline([("MULTI",), *pause, ("LPUSH", "list", "x"), ("DEL", "list"), ("EXEC",)])
        o.other.call("LPUSH", "list", "x")
        for _ in commands:
            o.client.read()
        records, stop = o.records(len(commands))
        assert_own(records, commands)
        assert_all_executed(records)
        assert stop["dispatch_disagrees"] == 0, stop


@contextmanager
def primary_with_replica(name, io_threads):
    """A primary of a cluster that has all slots, and a replica that is online."""
    def options():
        return "--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--repl-diskless-sync-delay", "0"
    with Server(name, *options(), io_threads=io_threads) as primary, Server(name, *options()) as replica, \
            primary.client() as client, replica.client() as other:
        client.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        bus = primary.options[primary.options.index("--cluster-port") + 1]
        other.call("CLUSTER", "MEET", "127.0.0.1", primary.port, bus)
        node = client.call("CLUSTER", "MYID").decode()
        wait_until(lambda: node in other.call("CLUSTER", "NODES").decode(), "primary's name")
        wait_until(lambda: other.answer("CLUSTER", "REPLICATE", node) == b"OK", "replica")
        wait_until(lambda: b"state=online" in client.call("INFO", "replication"), "replica that is online", 60)
        wait_until(lambda: b"cluster_state:ok" in client.call("CLUSTER", "INFO"), "cluster that is ok")
        yield primary


@on("valkey-8.0", "valkey-8.1", "valkey-9.1")
def test_setslot(name, io_threads, flags):
    """CLUSTER SETSLOT waits for the replicas, and the server executes it again when they have it."""
    tag = "{x}"     # all keys in one slot
    with primary_with_replica(name, io_threads) as server, server.client() as client:
        for key in KEYS:
            client.call("SET", key + tag, "v" * size(key))
        setslot = "CLUSTER", "SETSLOT", "1", "STABLE"
        commands = [setslot, *[command for key in KEYS for command in (("GET", key + tag), sleep())], setslot, ("PING",)]
        with Replylog(server.pid, 0, *flags) as replylog, server.client() as client:
            client.drain(request(*commands), len(commands))
            wait_until(lambda: len([r for r in replylog.replies() if r.get("client_addr") == client.addr]) == len(commands),
                       "records")
            stop = replylog.stop()[-1]
            records = [record for record in replylog.replies() if record.get("client_addr") == client.addr]
    for record, command in zip(records, commands, strict=True):
        assert record["argv"] == list(command), record
        assert command[0] != "GET" or record["reply_bytes"] == reply_bytes(command[1][0]), record
        assert command[0] != "DEBUG" or record["exec_us"] >= SLEEP_MS * 1000, record
    assert_all_executed(records)
    assert stop["dispatch_disagrees"] == 0, stop


@on("valkey-8.0", "valkey-8.1", "valkey-9.1", "redis-8.0", "redis-8.6")
def test_auth_that_blocks(name, io_threads, flags):
    """A module blocks AUTH until its threads are done, and the server executes it again after each of them."""
    with ModuleServer(name, module="auth_blocks", io_threads=io_threads) as server, Observed(server, flags) as o:
        o.other.call("ACL", "SETUSER", "worker", "on", ">password", "+@all", "allkeys")
        # Each is the first of its pipeline: behind other commands a failing AUTH may go unanswered, which makes all
        # ambiguous.
        pipelines = [[("AUTH", "worker", "password"), *behind()], [("HELLO", "2", "AUTH", "worker", "password"), *behind()],
                     [("AUTH", "worker", "password")]]
        commands = [command for pipeline in pipelines for command in pipeline]
        sizes = [size for pipeline in pipelines for size in o.client.drain(request(*pipeline), len(pipeline))]
        assert sizes[0] == len("+OK\r\n")
        records, stop = o.records(len(commands))
        shown = [tuple("(redacted)" if arg == "password" or (arg == "worker" and command[0] == "AUTH") else arg
                       for arg in command) for command in commands]
        for record, command in zip(records, shown):
            if command[0] in ("AUTH", "HELLO"):
                record["argv"] = list(command)
        assert_own(records, shown)
        assert_all_executed(records)
        assert records[0].get("user", "default") == "default" and records[1]["user"] == "worker", records[:2]
        assert stop["dispatch_disagrees"] == 0, stop


# ---- blocked, and not executed again ---------------------------------------------------------------------------------

@on("valkey-8.0", "valkey-8.1", "valkey-9.1", "redis-8.0", "redis-8.6", "redis-7.0", "redis-6.0")
def test_not_executed_again(name, io_threads, flags):
    """The server executes a command once when its timeout or another client unblocks it. The same command may follow."""
    with Server(name, io_threads=io_threads) as server, Observed(server, flags) as o:
        waits = [("BLPOP", "list", "0.01"), ("BLPOP", "list", "0.01"), ("WAIT", "1", "10"), ("FLUSHDB",), ("FLUSHALL",),
                 ("XREAD", "BLOCK", "10", "STREAMS", "stream", "$"), ("XREAD", "BLOCK", "10", "STREAMS", "stream", "$")]
        commands = [command for wait in waits for command in (wait, ("ECHO", wait[0]), sleep())]
        o.client.drain(request(*commands), len(commands))
        o.client.sock.sendall(request(("BLPOP", "list", "0"), ("BLPOP", "list", "0.01"), sleep()))
        wait_until(lambda: blocked(o.other, "blpop"), "blocked client")
        own = o.client.addr
        number = next(int(line.split()[0].removeprefix("id=")) for line in o.other.call("CLIENT", "LIST").decode().splitlines()
                      if f" addr={own} " in line)
        o.other.call("CLIENT", "UNBLOCK", number)
        for _ in range(3):
            o.client.read()
        commands += [("BLPOP", "list", "0"), ("BLPOP", "list", "0.01"), sleep()]
        records, stop = o.records(len(commands))
        assert_own(records, commands)
        assert_all_executed(records)
        assert stop["dispatch_disagrees"] == 0, stop


@on("valkey-8.0", "valkey-8.1", "valkey-9.1", "redis-8.0", "redis-8.6")
def test_unblocked_with_an_error(name, io_threads, flags):
    """Records behind the error have no execution until nothing is outstanding. Later ones have it."""
    with Server(name, io_threads=io_threads) as server, Observed(server, flags) as o:
        first = [("BLPOP", "list", "0"), *behind()]
        o.client.sock.sendall(request(*first))
        wait_until(lambda: blocked(o.other, "blpop"), "blocked client")
        number = next(int(line.split()[0].removeprefix("id=")) for line in o.other.call("CLIENT", "LIST").decode().splitlines()
                      if f" addr={o.client.addr} " in line)
        o.other.call("CLIENT", "UNBLOCK", number, "ERROR")
        counted = o.client.drain(b"", len(first))
        assert len(counted) == len(first)
        # With IO threads the server notes only in its next loop that all is written. Until then replylog has no proof.
        o.other.call("PING")
        o.client.drain(request(*behind()), len(behind()))
        records, _ = o.records(len(first) + len(behind()))
        # A command that was unblocked with an error may have another reply.
        assert_own(records[:len(first)], first, "ambiguous")
        assert_own(records[len(first):], behind())
        assert not [record for record in records[:len(first)] if executed(record)]
        assert_all_executed(records[len(first):])
