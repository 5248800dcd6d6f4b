"""--argv-from dispatch takes argv, database, user and name from the server's structs. Two replylogs observe the same
server and the same traffic, one with this option and one without, and the tests compare their records one by one."""
import os
import random
from concurrent.futures import ThreadPoolExecutor

import test_schema as schema
import test_secrets as secrets
import workload
from replylog import Replylog, run_replylog
from resp import encode, to_bytes
from server import Server
from waiting import wait_until

COMMANDS = int(os.environ.get("REPLYLOG_COMMANDS", 4000))
MATRIX = os.environ.get("REPLYLOG_MATRIX") == "all"
SERVERS = (("valkey-9.1", 1), ("valkey-9.1", 4), ("redis-7.0", 1), ("redis-7.0", 4),
           *((name, threads) for name in ("redis-6.0", "redis-8.0", "redis-8.6", "valkey-8.0", "valkey-8.1")
             for threads in (1, 4) if MATRIX))
DISPATCH = ("--argv-from", "dispatch")
# Keys that only dispatch mode has. All other keys must be the same.
ONLY_DISPATCHED = {"seq", "argv_from", "exec_us", "inner_commands", "inner_exec_us"}
WHO = ("db", "resp", "client_name", "user", "lib_name", "lib_ver")
# Each replylog reads the clock itself in the same calls.
MEASURED = {"ts", "request_ts", "first_byte_us", "drain_us"}


def each_server(function):
    function.cases = {f"{name},{threads} io threads": (name, threads) for name, threads in SERVERS}
    return function


# ---- the traffic ---------------------------------------------------------------------------------------------------

class Mixed:
    """Commands of all kinds, as batches that are sent at once: (the requests' bytes, the number of replies)."""

    def __init__(self, seed, name):
        self.random = random.Random(f"{seed}/{name}")
        self.load = workload.Workload(seed, name)

    def batch(self):
        make, = self.random.choices((self.plain, self.transaction, self.odd, self.selecting, self.blocking, self.deep),
                                    (60, 12, 10, 8, 5, 1))
        return make()

    def plain(self):
        requests = [request for argv, request in self.load.commands(self.random.choice((1, 1, 2, 3, 10, 30)))
                    if len(request) < 60_000 and b"DOCS" not in request]
        return b"".join(requests), len(requests)

    def deep(self):
        """More commands than the executions that replylog keeps."""
        return b"".join(encode([b"ECHO", b"%d" % i]) for i in range(200)), 200

    def of(self, *commands):
        return b"".join(encode([to_bytes(arg) for arg in argv]) for argv in commands), len(commands)

    def transaction(self):
        pick = self.random.choice
        inner = [pick((("GET", "s:100"), ("INCR", "n"), ("SET", "own", "v" * pick((3, 200))), ("ECHO", b"\xff\r\n\0"),
                       ("LPUSH", "s:1", "x"), ("GET",), ("EVAL", "return redis.call('PING')", 0), ("SELECT", pick("0123")),
                       ("CLIENT", "SETNAME", pick(("a", "b")))))
                 for _ in range(pick((0, 1, 2, 5, 20)))]
        return self.of(("MULTI",), *inner, (pick(("EXEC", "EXEC", "EXEC", "DISCARD")),))

    def odd(self):
        pick = self.random.choice
        return self.of(*pick(((("NOSUCH", "x"), ("PING",)), (("EXEC",), ("GET", "s:1")), (("DEBUG", "SLEEP", "0"),),
                              (("SET", "12345", "67890"), ("GET", "12345"), ("INCRBY", "12345", "-17")),
                              (("ECHO", ""), ("SET", "", ""), ("GET", "")),
                              (("MGET", *(f"key {i}" for i in range(pick((30, 31, 32, 100))))),),
                              (("DEL", *("k" * pick((127, 128, 129, 300)) for _ in range(40))),),
                              (("SET", "own", "v" * pick((32_000, 40_000, 70_000))), ("STRLEN", "own")),
                              (("EVAL", "for i = 1, 20 do redis.call('INCR', KEYS[1]) end return ARGV[1]", 1, "n", "x" * 200),),
                              (("GETSET", "own", "1"), ("EXPIRE", "own", "100"), ("SPOP", "missing", "3"),
                               ("INCRBYFLOAT", "float", "0.5"), ("GETEX", "own", "PERSIST"), ("SET", "own", "2", "EX", "100")))))

    def selecting(self):
        return self.of(("SELECT", self.random.choice("0123")), ("DBSIZE",), ("SELECT", "99"), ("SELECT", "0"))

    def blocking(self):
        return self.of(("BLPOP", "nothing", "0.01"), ("PING",), ("RPUSH", "own:list", "x"), ("BLPOP", "own:list", "1"))


def converse(server, seed, name, count):
    """Plays one client. Returns how many replies it received."""
    mixed, sent = Mixed(seed, name), 0
    with server.client(timeout=60) as client:
        while sent < count:
            requests, replies = mixed.batch()
            if replies:
                client.drain(requests, replies)
            sent += replies
    return sent


# ---- side by side --------------------------------------------------------------------------------------------------

def by_client(records):
    clients = {}
    for record in records:
        if record["event"] == "reply":
            clients.setdefault(record["client_addr"], []).append(record)
    return clients


def assert_same(one, other):
    """Both records have the same values for everything that both sources know, except times. Dispatch may know more about
    the client."""
    for key in (one.keys() | other.keys()) - ONLY_DISPATCHED - MEASURED:
        if key in WHO and key not in one:
            continue
        if key in WHO and key not in other and other["argv_from"] == "request":
            continue
        assert one.get(key) == other.get(key), f"{key} is not the same:\n{one}\n{other}"


def compare(asked, dispatched):
    """Returns how many records came from the server's structs."""
    asked, dispatched = by_client(asked), by_client(dispatched)
    assert asked.keys() == dispatched.keys()
    structs = 0
    for addr, records in asked.items():
        assert len(records) == len(dispatched[addr]), f"{addr}: {len(records)} and {len(dispatched[addr])} records"
        for one, other in zip(records, dispatched[addr]):
            assert other["argv_from"] in ("request", "dispatch"), other
            assert ("exec_us" in other) or other["argv_from"] == "request", other
            assert_same(one, other)
            structs += other["argv_from"] == "dispatch"
    return structs


@each_server
def test_both_sources_agree(name, io_threads):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}, {COMMANDS} commands")
    ring = ("--ring-size", "512mb" if COMMANDS > 10_000 else "64mb")
    with Server(name, "--databases", "4", io_threads=io_threads) as server:
        with server.client() as client:
            workload.fill(client)
        with Replylog(server.pid, 0, *ring) as asked, Replylog(server.pid, 0, *DISPATCH, *ring) as dispatched:
            with ThreadPoolExecutor(4) as clients:
                sent = sum(clients.map(lambda n: converse(server, seed, str(n), COMMANDS // 4), range(4)))
            for replylog in (asked, dispatched):
                replylog.wait_replies(sent)
            one, other = asked.stop(), dispatched.stop()
    schema.check_lines(dispatched.lines)
    structs, total = compare(one, other), len(other) - 2
    print(f"{name}, {io_threads} io threads: {total} records agree, {structs} of them from the server's structs; "
          f"stop: {other[-1]}")
    assert total >= sent >= COMMANDS
    assert other[-1]["dropped"] == other[-1]["dispatch_unread"] == other[-1]["dispatch_disagrees"] == 0, other[-1]
    assert structs >= total / 3, f"{structs} of {total}"


# ---- what only the structs know ------------------------------------------------------------------------------------

def dispatched(replylog, count):
    """Ends replylog when count records have arrived, and returns them. All must come from the structs."""
    replylog.wait_replies(count)
    records = [record for record in replylog.stop() if record["event"] == "reply"]
    assert len(records) == count, records
    assert not [record for record in records if record["argv_from"] != "dispatch"], records
    return records


def who(record):
    return tuple(record.get(key) for key in WHO)


@each_server
def test_older_connections(name, io_threads):
    """What a client said about itself before the attach is in the structs. What it says later holds from the next command
    on."""
    with Server(name, io_threads=io_threads) as server, server.client() as client:
        client.call("ACL", "SETUSER", "worker", "on", ">password", "+@all", "allkeys")
        client.call("AUTH", "worker", "password")
        client.call("CLIENT", "SETNAME", "older")
        client.call("SELECT", "3")
        with Replylog(server.pid, 0, *DISPATCH) as replylog:
            client.call("PING")
            client.call("HELLO", "3", "AUTH", "default", "", "SETNAME", "other")
            client.call("SELECT", "1")
            client.call("PING")
            records = dispatched(replylog, 4)
    assert [who(record) for record in records] == [
        (3, 2, "older", "worker", None, None), (3, 2, "older", "worker", None, None),
        (3, 3, "other", "default", None, None), (1, 3, "other", "default", None, None)], records


def test_library():
    """CLIENT SETINFO of an older connection. A name that is too long to keep whole is absent."""
    with Server("valkey-9.1") as server, server.client() as client:
        client.call("CLIENT", "SETINFO", "LIB-NAME", "somelib")
        client.call("CLIENT", "SETINFO", "LIB-VER", "1.2.3")
        client.call("CLIENT", "SETNAME", "n" * 128)
        with Replylog(server.pid, 0, *DISPATCH) as replylog:
            client.call("CLIENT", "SETNAME", "n" * 129)
            client.call("PING")
            records = dispatched(replylog, 2)
    assert [who(record)[2:] for record in records] == [
        ("n" * 128, "default", "somelib", "1.2.3"), (None, "default", "somelib", "1.2.3")], records


@each_server
def test_inside_exec(name, io_threads):
    """Queued commands change the database and the name for the commands after them."""
    with Server(name, io_threads=io_threads) as server, Replylog(server.pid, 0, *DISPATCH) as replylog, \
            server.client() as client:
        client.pipeline([("MULTI",), ("SELECT", "2"), ("CLIENT", "SETNAME", "x"), ("PING",), ("EXEC",)])
        replylog.wait_replies(7)
        records = [record for record in replylog.stop() if record.get("argv_from") == "dispatch"]
    assert [(record["cmd"], record["db"], record.get("client_name")) for record in records] == [
        ("MULTI", 0, None), ("SELECT", 0, None), ("CLIENT", 2, None), ("PING", 2, "x")], records


@each_server
def test_blocked(name, io_threads):
    """A blocked command that the server executes again is shown as it was sent. The next record belongs to the next
    command."""
    with Server(name, io_threads=io_threads) as server, Replylog(server.pid, 0, *DISPATCH) as replylog, \
            server.client() as client, server.client() as other:
        for _ in range(3):
            client.send("BRPOPLPUSH", "from", "to", "0")
            wait_until(lambda: "cmd=brpoplpush" in other.call("CLIENT", "LIST").decode(), "blocked client")
            other.call("RPUSH", "from", "value")
            assert client.read() == b"value"
            client.call("ECHO", "after")
        replylog.wait_replies(9)
        records = [record for record in replylog.stop() if record.get("client_addr") == client.addr]
    assert [record["argv"][0] for record in records[1::2]] == ["ECHO"] * 3, records
    for record in records[::2]:
        assert record["argv_from"] == "dispatch" and record["argv"] == ["BRPOPLPUSH", "from", "to", "0"], record


@each_server
def test_slow_drain(name, io_threads):
    """A reply that its client reads slowly keeps the argv from the structs, whatever other clients do meanwhile."""
    with Server(name, io_threads=io_threads) as server, server.client() as other, server.client() as client:
        other.call("SETRANGE", "big", 30_000_000, "x")
        with Replylog(server.pid, "1mb", *DISPATCH) as replylog:
            client.send("GET", "big")
            client.sock.recv(1000)
            other.drain(encode([b"ECHO", b"e" * 100]) * 5000, 5000)
            client.read()
            record, = dispatched(replylog, 1)
    assert record["argv"] == ["GET", "big"] and record["exec_us"] < record["drain_us"] + record["first_byte_us"], record


@each_server
def test_overwritten(name, io_threads):
    """With more commands than replylog keeps, the last ones have argv from the structs, and the others argv from the
    request."""
    with Server(name, io_threads=io_threads) as server, Replylog(server.pid, 0, *DISPATCH) as replylog, \
            server.client() as client:
        client.drain(b"".join(encode([b"ECHO", b"%d" % i]) for i in range(200)), 200)
        client.drain(b"".join(encode([b"ECHO", b"%d" % i * 100]) for i in range(200, 230)), 30)
        replylog.wait_replies(230)
        *records, stop = replylog.stop()[1:]
    assert [int(record["argv"][1][:3]) for record in records[200:]] == list(range(200, 230)), records
    assert [record["argv"][1] for record in records[:200]] == [str(i) for i in range(200)], records
    assert records[199]["argv_from"] == records[-1]["argv_from"] == "dispatch"
    # Without IO threads the server executes all commands of a read before it writes their first reply.
    assert io_threads > 1 or "request" in {record["argv_from"] for record in records[:200]}, records
    assert stop["dispatch_unread"] == stop["dispatch_disagrees"] == 0, stop


@each_server
def test_secrets(name, io_threads):
    """Both sources redact the same arguments."""
    with Server(name, io_threads=io_threads) as server, Replylog(server.pid, 0, *DISPATCH) as replylog, \
            server.client() as client:
        for argv, _ in secrets.SHOWN:
            client.drain(secrets.raw(argv), 1)
        for request in [secrets.raw(argv) for argv in secrets.HIDDEN] + secrets.INLINE:
            client.drain(request, 1)
        count = len(secrets.SHOWN) + len(secrets.HIDDEN) + len(secrets.INLINE)
        replylog.wait_replies(count)
        replylog.stop()
    secrets.assert_nothing_shows(replylog)
    records = replylog.replies()
    assert len(records) == count
    for (_, shown), record in zip(secrets.SHOWN, records):
        assert record["argv"] == shown, record
    assert [record for record in records if record["argv_from"] == "dispatch" and "(redacted)" in record["argv"]]


def test_off_by_default():
    """Without the option, records do not say where argv comes from."""
    with Server("valkey-9.1") as server, Replylog(server.pid, 0, "--dispatch") as replylog, server.client() as client:
        client.call("PING")
        replylog.wait_replies(1)
        _, record, stop = replylog.stop()
        assert "argv_from" not in record and "exec_us" in record, record
        assert stop["dispatch_unread"] == 0, stop


def test_check_says_what_it_costs():
    """--check measures the probes on each command, and says that reading argv costs more."""
    with Server("valkey-9.1") as server:
        plain, argv = (run_replylog("--check", *flags, "-p", str(server.pid)) for flags in (("--dispatch",), DISPATCH))
        for result in (plain, argv):
            assert result.returncode == 0 and "each command, on the main thread" in result.stdout, result
        assert "(--argv-from dispatch) comes on top" in argv.stdout and "--argv-from" not in plain.stdout, argv.stdout
