"""--argv-from dispatch: argv, database, user and name out of the server's structs, held against what the request's bytes
say: two replylogs beside each other on the same server and the same traffic, and their records one by one."""
import os
import random
from concurrent.futures import ThreadPoolExecutor

import workload
from harness import Replylog, Server
from resp import encode, to_bytes

COMMANDS = int(os.environ.get("REPLYLOG_COMMANDS", 4000))
MATRIX = os.environ.get("REPLYLOG_MATRIX") == "all"
SERVERS = (("valkey-9.1", 1), ("valkey-9.1", 4), ("redis-7.0", 1), ("redis-7.0", 4),
           *((name, threads) for name in ("redis-6.0", "redis-8.0", "redis-8.6", "valkey-8.0", "valkey-8.1")
             for threads in (1, 4) if MATRIX))
DISPATCH = ("--argv-from", "dispatch")
# What dispatch mode knows besides; the rest of a record must be the same.
ONLY_DISPATCHED = {"seq", "argv_from", "exec_us", "inner_commands", "inner_exec_us"}
WHO = ("db", "resp", "client_name", "user", "lib_name", "lib_ver")
# Times and writes: each replylog has its own clock readings of the same calls.
MEASURED = {"ts", "request_ts", "first_byte_us", "drain_us"}


def each_server(function):
    function.cases = {f"{name},{threads} io threads": (name, threads) for name, threads in SERVERS}
    return function


# ---- the traffic ---------------------------------------------------------------------------------------------------

class Mixed:
    """Commands of all kinds, as batches to be sent at once: (the requests' bytes, how many replies they get)."""

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
        """More than the last executions that are kept."""
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
    """One client's part. How many replies it got."""
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
    """The same in everything that both know and that is not the time of day; of who asked, dispatch may know more."""
    for key in (one.keys() | other.keys()) - ONLY_DISPATCHED - MEASURED:
        if key in WHO and key not in one:
            continue
        if key in WHO and key not in other and other["argv_from"] == "request":
            continue
        assert one.get(key) == other.get(key), f"{key} is not the same:\n{one}\n{other}"


def compare(asked, dispatched):
    """How many records came from the server's structs."""
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
def test_both_ways_agree(name, io_threads):
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
    structs, total = compare(one, other), len(other) - 2
    print(f"{name}, {io_threads} io threads: {total} records agree, {structs} of them from the server's structs; "
          f"stop: {other[-1]}")
    assert total >= sent >= COMMANDS
    assert other[-1]["dropped"] == other[-1]["dispatch_unread"] == other[-1]["dispatch_disagrees"] == 0, other[-1]
    assert structs >= total / 3, f"{structs} of {total}"
