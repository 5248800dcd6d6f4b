"""Known errors of other tools that read this protocol from the kernel. Each test has the name of the report.

pixie#1850     github.com/pixie-io/pixie/issues/1850: replies of about 3 MB don't appear at all
kyanos         github.com/hengyoush/kyanos: a pipeline of ten gives one record, arrays over 30 KB break, RESP3 isn't parsed
OBI#2663       github.com/open-telemetry/opentelemetry-ebpf-instrumentation/pull/2663: connections that were open before
               are paired wrongly, and spans are named after reply data
deepflow#11828 github.com/deepflowio/deepflow/issues/11828: of commands that share a TCP payload only the first appears
"""
from collections import deque

import oracle
import workload
from oracle import Expected
from replylog import Replylog
from resp import PUSH, ReplyCounter, encode
from server import Server
from waiting import wait_until

MARKER = "marker"


def each_server(function):
    function.cases = {f"{name},{io_threads} io threads": (name, io_threads)
                      for name in ("valkey-9.1", "redis-7.0") for io_threads in (1, 2)}
    return function


def as_bytes(argv):
    return [arg if isinstance(arg, bytes) else str(arg).encode() for arg in argv]


def converse(client, commands, pieces=1):
    """Sends all commands at once, in one write or a few. Returns what was sent and received, as compare_connection()
    wants it."""
    argvs = [as_bytes(argv) for argv in commands]
    wanted = [Expected.of(argv, encode(argv)) for argv in argvs]
    data = b"".join(encode(argv) for argv in argvs)
    for i in range(pieces - 1):
        client.sock.sendall(data[len(data) * i // pieces:len(data) * (i + 1) // pieces])
    for want, length in zip(wanted, client.drain(data[len(data) * (pieces - 1) // pieces:], len(wanted)), strict=True):
        want.reply_bytes = length
    return wanted


def check(server, threshold, commands, pieces=1, logged=lambda want: True):
    """Sends commands on a new connection. The records of those that must be logged are right, and there are no others."""
    with Replylog(server.pid, threshold) as replylog:
        with server.client() as client:
            wanted = [want for want in converse(client, commands, pieces) if logged(want)]
        replylog.wait_replies(len(wanted))
        records = replylog.stop()
    oracle.compare({client.addr: wanted}, records)
    return [record for record in records if record["event"] == "reply"]


# ---- pixie#1850 ----------------------------------------------------------------------------------------------------

@each_server
def test_pixie_1850_reply_of_3_mb_vanishes(name, io_threads):
    """As reported: two GETs of a value of 3 MB, and some of small values. At the default threshold replylog logs only the
    large ones."""
    size = 3 * 1024 * 1024
    with Server(name, io_threads=io_threads) as server:
        with server.client() as client:
            client.call("SETRANGE", "large", size - 1, "x")
            client.call("SET", "small", "x" * 30)
        commands = [("GET", "large"), ("GET", "small"), ("GET", "large"), ("STRLEN", "large")]
        records = check(server, None, commands, logged=lambda want: want.argv == ("GET", "large"))
        assert [record["reply_bytes"] for record in records] == [len(f"${size}\r\n\r\n") + size] * 2, records
        assert len(check(server, 0, commands)) == 4


# ---- kyanos --------------------------------------------------------------------------------------------------------

@each_server
def test_kyanos_pipeline_of_ten_is_one_record(name, io_threads):
    with Server(name, io_threads=io_threads) as server:
        with server.client() as client:
            client.pipeline([("SET", f"key:{i}", "x" * 3 ** i) for i in range(10)])
        records = check(server, 0, [("GET", f"key:{i}") for i in range(10)])
        assert [record["argv"] for record in records] == [["GET", f"key:{i}"] for i in range(10)]


@each_server
def test_kyanos_arrays_over_30_kb_break(name, io_threads):
    """Flat and nested arrays, from just under 30 KB to megabytes, in RESP2 and RESP3, with small commands between them."""
    with Server(name, io_threads=io_threads) as server:
        with server.client() as client:
            workload.fill(client)
            for count in (100, 300, 1000, 10_000, 40_000):
                client.pipeline([("RPUSH", f"list:{count}", *["e" * 95] * 100)] * (count // 100))
        arrays = [("LRANGE", f"list:{count}", 0, -1) for count in (100, 300, 1000, 10_000, 40_000)]
        nested = [("XRANGE", "x:400", "-", "+"), ("HGETALL", "h:400"), ("ZRANGE", "z:400", 0, -1, "WITHSCORES"), ("COMMAND",)]
        for hello in ([], [("HELLO", "3")]):
            commands = [*hello, *(command for array in arrays + nested for command in (array, ("ECHO", "between")))]
            records = check(server, 0, commands)
            assert sum(record["reply_bytes"] > 30_000 for record in records) >= 5, [record["reply_bytes"] for record in records]


@each_server
def test_kyanos_resp3_is_not_parsed(name, io_threads):
    """Every type that a server can be made to send."""
    types = ("string", "integer", "double", "null", "array", "set", "map", "attrib", "verbatim", "true", "false", "bignum")
    with Server(name, io_threads=io_threads) as server:
        check(server, 0, [("HELLO", "3"), *(("DEBUG", "PROTOCOL", kind) for kind in types), ("ECHO", "behind")])


# ---- deepflow#11828 ------------------------------------------------------------------------------------------------

@each_server
def test_deepflow_11828_pipelined_commands_vanish(name, io_threads):
    """Two and hundreds of commands and replies that share a payload, and a payload that cuts off its last command."""
    with Server(name, io_threads=io_threads) as server:
        with server.client() as client:
            workload.fill(client)
        check(server, 0, [("ECHO", "first"), ("ECHO", "second, and longer")])
        many = [("GET", f"s:{size}") for size in workload.SMALL] * 40
        for pieces in (1, 2, 7):
            records = check(server, 0, many, pieces)
            assert {record["kind"] for record in records[1:]} == {"pipelined"} or pieces > 1


# ---- OBI#2663 ------------------------------------------------------------------------------------------------------

class Conversation:
    """A client that knows the reply to each command. No two commands have the same argv, so argv identifies a reply."""

    def __init__(self, client):
        self.client = client
        self.counter = ReplyCounter()
        self.frames = deque()
        self.unanswered = deque()
        self.truth = []         # [[argv, bytes of its reply]]
        self.count = 0

    def send(self, *argv):
        """Sends a command that the server answers sooner or later."""
        self.client.send(*argv)
        self.asked(argv)

    def asked(self, argv):
        self.truth.append([[str(arg) for arg in argv], None])
        self.unanswered.append(self.truth[-1])

    def echo(self, times=1):
        """Sends an ECHO, each of another size."""
        for _ in range(times):
            self.count += 1
            self.send("ECHO", f"{self.count}:" + "x" * (30 + self.count))

    def frame(self):
        """Returns the size of the next reply or push."""
        while not self.frames:
            self.frames += self.counter.feed(self.client.sock.recv(1 << 18))
        return self.frames.popleft()

    def receive(self, count=None):
        """Receives the next replies, or all that are outstanding."""
        for _ in range(len(self.unanswered) if count is None else count):
            kind, size = self.frame()
            assert kind != PUSH
            self.unanswered.popleft()[1] = size


def idle(server, talk):
    """A connection on which nothing has been sent yet."""
    yield
    talk.echo(3)


def between_commands(server, talk):
    talk.echo(2)
    talk.receive()
    yield
    talk.echo(3)


def late_reply(server, talk):
    """The first thing that replylog sees is a reply."""
    talk.send("BLPOP", "queue", 0)
    yield
    push(server, "x" * 5000)
    talk.receive(1)
    talk.echo(3)


def blocked_with_more_behind(server, talk):
    """The server reads commands while the reply to an older one is outstanding."""
    talk.send("BLPOP", "queue", 0)
    yield
    talk.echo(3)
    push(server, "x" * 5000)


def paused(server, talk):
    """The server has read this command before the attach, and runs it after it has read others."""
    with server.client() as client:
        client.call("CLIENT", "PAUSE", 60_000, "WRITE")
        talk.send("SET", "key", "value")
        round_trip(server)
        yield
        talk.echo(3)
        round_trip(server)
        client.call("CLIENT", "UNPAUSE")


def in_a_transaction(server, talk):
    """Queued commands get QUEUED. Then EXEC gives a reply for each, and one of its own."""
    talk.send("MULTI")
    talk.echo()
    talk.receive()
    yield
    talk.echo(2)
    talk.receive()
    queued = [argv for argv, _ in talk.truth if argv[0] == "ECHO"]
    talk.client.send("EXEC")
    _, size = talk.frame()
    # replylog may log them one by one, or EXEC as a whole.
    talk.truth += [[argv, len(f"${len(argv[1])}\r\n{argv[1]}\r\n")] for argv in queued] + [[["EXEC"], size]]
    talk.echo(3)


def half_a_command(server, talk):
    request = encode([b"ECHO", b"y" * 1000])
    talk.client.sock.sendall(request[:500])
    round_trip(server)
    yield
    talk.client.sock.sendall(request[500:])
    talk.asked(("ECHO", "y" * 1000))
    talk.echo(3)


def half_a_command_then_what_looks_like_one(server, talk):
    """The rest of an argument, which reads like commands."""
    payload = encode([b"PING"]) * 3
    request = encode([b"ECHO", b"y" * 1000 + payload])
    cut = len(request) - len(payload) - 2
    talk.client.sock.sendall(request[:cut])
    round_trip(server)
    yield
    talk.client.sock.sendall(request[cut:])
    talk.asked(("ECHO", "y" * 1000 + payload.decode()))
    talk.receive()
    talk.echo(3)


def half_a_reply(server, talk):
    with server.client() as client:
        client.call("SETRANGE", "huge", 20_000_000, "x")
    talk.send("GET", "huge")
    talk.frames += talk.counter.feed(talk.client.sock.recv(1000))
    yield
    talk.echo(3)


def replies_off(server, talk):
    """Commands that get no reply, then one that does."""
    talk.client.send("CLIENT", "REPLY", "OFF")
    round_trip(server)
    yield
    for i in range(3):
        talk.client.send("ECHO", f"not answered {i}")
        round_trip(server)
    talk.send("CLIENT", "REPLY", "ON")
    talk.receive()
    talk.echo(3)


def subscribed(server, talk):
    """In RESP2 messages arrive as arrays, with replies between them."""
    talk.send("SUBSCRIBE", "news")
    talk.receive()
    yield
    with server.client() as publisher:
        for _ in range(3):
            assert publisher.call("PUBLISH", "news", "x" * 1000) == 1
            talk.frame()
            talk.send("PING", "subscribed")
            talk.receive()
    talk.send("UNSUBSCRIBE", "news")
    talk.receive()
    talk.echo(3)


def monitoring(server, talk):
    talk.send("MONITOR")
    talk.receive()
    yield
    with server.client() as other:
        other.call("SET", "key", "x" * 1000)
        talk.frame()
        other.call("GET", "key")
        talk.frame()


STATES = (idle, between_commands, late_reply, blocked_with_more_behind, paused, in_a_transaction, half_a_command,
          half_a_command_then_what_looks_like_one, half_a_reply, replies_off, subscribed, monitoring)


def push(server, value):
    with server.client() as client:
        client.call("RPUSH", "queue", value)


def round_trip(server):
    """After this round trip the server has gone around its event loop, so it has read everything sent to it."""
    with server.client() as client:
        client.call("PING")


def assert_never_wrong(records, truth):
    """Each record's command was sent, and its reply had that many bytes, in the order of the replies. Some records may be
    missing: replylog logs an older connection only from where it has joined it."""
    left = iter(truth)
    for record in records:
        argv = record.get("argv")
        if argv is None:
            assert record["kind"] == "push" or record["attribution"] == "ambiguous", record
            continue
        cut = record.get("argv_truncated", False)
        said = argv, record.get("reply_bytes")
        for true_argv, size in left:
            if ([arg[:128] for arg in true_argv] if cut else true_argv, size) == said:
                break
        else:
            raise AssertionError(f"nothing like this came next: {oracle.describe_record(record)}; the conversation was "
                                 f"{[(oracle.shorten(argv), size) for argv, size in truth]}")


def test_obi_2663_older_connections_are_mispaired(state):
    with Server("valkey-9.1") as server, server.client() as older:
        talk = Conversation(older)
        rest = state(server, talk)
        next(rest)
        before = len(talk.truth) - len(talk.unanswered)
        with Replylog(server.pid, 0) as replylog:
            next(rest, None)
            talk.receive()
            with server.client() as newer:
                newer.call("ECHO", MARKER)
            wait_until(lambda: any(MARKER in record.get("argv", ()) for record in replylog.replies()), "marker")
            stop = replylog.stop()[-1]
    truth = talk.truth[before:]
    records = [record for record in replylog.replies() if record["client_addr"] == older.addr]
    print(f"{len(truth)} replies, {len(records)} records: {[record['attribution'] for record in records]}; {stop}")
    assert_never_wrong(records, truth)


test_obi_2663_older_connections_are_mispaired.cases = {state.__name__.replace("_", " "): (state,) for state in STATES}
