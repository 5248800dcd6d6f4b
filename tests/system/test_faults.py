"""Inputs that gave a wrong answer once, each one write on a fresh connection, all of them on one server after another.

The servers have bugs, their parsers are not ours, and modules and typed lines may do anything: no list of that can be
complete. So what is asked here is always the same, whatever the reason: no record that is marked exact is wrong, a reply
that has none is counted as a loss or its record says that it is ambiguous, nobody is called what CLIENT LIST does not call
them, and what comes behind is exact again. What lossless inputs say is all exact.

REPLYLOG_MATRIX=all: on all servers.
"""
import os
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import test_secrets as secrets
from conversation import Talker, client_listed, compare, request
from harness import ModuleServer, Replylog, Server, Skip, wait_until
from test_left_out import cluster, meet
from test_transactions import model
from truth import Stream, bulk, echoed, payload, unknown_identity, wrong, wrong_identity

MATRIX = os.environ.get("REPLYLOG_MATRIX") == "all"
SERVERS = ("valkey-9.1", "valkey-8.1", "redis-7.0", "redis-8.0") + \
    (("valkey-8.0", "redis-6.0", "redis-8.6") if MATRIX else ())
WAYS = {"as asked": (), "as dispatched": ("--argv-from", "dispatch")}

VALUES = {"big": 1_000_000, **{key: 1100 * (at + 1) for at, key in enumerate("abcdef")}}
BIG = ("GET", "big")
LETTERS = tuple(("GET", key) for key in "abcdef")
BACK_SECONDS = 5        # until a connection must have been joined again
LATE_SECONDS = 3        # until a record that was held must have been written


@dataclass(frozen=True)
class Input:
    """What is sent in one write: commands, and bytes as they are."""
    parts: tuple
    first: tuple = ()           # commands that are asked before, one by one
    lossless: bool = False      # each command gets one reply, and its record is exact
    knows: bool = False         # afterwards it is known who the client is
    then: tuple = ()            # sent before it must be exact again
    older: bool = False         # on a connection that was there before replylog
    send: object = None         # (talker, another client): how it is sent, when not in one write
    meanwhile: tuple = ()       # what CLIENT LIST would have said in between
    whole: int = 0              # bytes of an EXEC that is a reply as a whole, for it can't be known for one
    since: str = "6.0"          # of the servers' versions (valkey's first is 7.2)

    def commands(self):
        return [part for part in self.parts if isinstance(part, tuple)]

    def data(self):
        return b"".join(part if isinstance(part, bytes) else request(*part) for part in self.parts)


def urgent(talker, _):
    """A byte that is no part of the stream, between two commands."""
    talker.send(BIG)
    talker.sock.send(b"!", socket.MSG_OOB)
    talker.send(("PING",))


def cut_before(mark):
    """A write that ends before mark, another that begins with it, once the first is read."""
    def send(talker, other):
        head, tail = INPUTS_OF_TWO_WRITES[mark]
        talker.sock.sendall(head)
        round_trips(other)
        talker.sock.sendall(tail)
    return send


INPUTS_OF_TWO_WRITES = {b"RCmb": (b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$9\r\nabcde", b"RCmb\r\n")}


def served_while_paused(talker, other):
    """A blocked command that is served, and postponed by a pause before it is executed again."""
    talker.send(("BLPOP", "list", "0"), *LETTERS)
    wait_until(lambda: b"blocked_clients:1\r" in other.call("INFO", "clients"), "a blocked client")
    other.pipeline([("MULTI",), ("CLIENT", "PAUSE", "300", "WRITE"), ("LPUSH", "list", "x"), ("EXEC",)])


def round_trips(other, count=3):
    """The server has been around its event loop since."""
    for _ in range(count):
        other.call("PING")


def transactions(count):
    keys = ("big" if turn % 100 == 50 else "abcdef"[turn % 6] for turn in range(count))
    return tuple(part for key in keys for part in (("MULTI",), ("GET", key), ("EXEC",)))


def one_each(count, *names):
    """As task queues and clients' libraries do it: one channel at a time."""
    return tuple((name, f"channel:{number}") for name in names for number in range(count))


PING, ECHO, END = ("PING",), ("ECHO", "x"), ("ECHO", "end")
BAD = ("AUTH", "nouser", "bad")
INPUTS = {
    # A failing AUTH answers nothing while replies are pending: redis#15640, valkey#2106.
    "AUTH fails behind a reply": Input((PING, BAD, BIG, ECHO, PING)),
    "AUTH fails in a transaction": Input((("MULTI",), BAD, ("EXEC",), BIG, PING, PING)),
    "HELLO AUTH fails behind a reply": Input((PING, ("HELLO", "3", "AUTH", "nouser", "bad"), BIG, ECHO)),
    "HELLO AUTH fails in a transaction": Input((("MULTI",), ("HELLO", "3", "AUTH", "nouser", "bad"), ("EXEC",), BIG, PING)),
    "AUTH fails twice behind a reply": Input((PING, BAD, BIG, BAD, *LETTERS, PING)),
    "AUTH fails behind a large reply": Input((BIG, BAD, *LETTERS)),
    "AUTH of one word fails behind a reply": Input((PING, ("AUTH", "bad"), BIG, ECHO)),
    "AUTH fails, then succeeds": Input((PING, BAD, ("AUTH", "bob", "b"), BIG, ("ACL", "WHOAMI"))),
    "AUTH fails in a transaction among others": Input((("MULTI",), ("GET", "a"), BAD, BIG, ("EXEC",), *LETTERS)),
    # What is echoed in an error holds a line's end: redis#15496, valkey#4120.
    "FUNCTION LIST echoes": Input((("FUNCTION", "LIST", "x\r\n$5\r\nhello"), BIG, PING, END)),
    "EVAL unescapes its flags": Input((("EVAL", '#!lua flags="a\\r\\n$5\\r\\nhello"\nreturn 1', "0"), BIG, PING, END)),
    "EVAL echoes its flags": Input((("EVAL", '#!lua flags=a\r\n$5\r\nhello\nreturn 1', "0"), BIG, PING, END)),
    "FUNCTION LOAD echoes a name": Input((("FUNCTION", "LOAD", '#!lua name="a\\r\\n$5\\r\\nhello"\n'), BIG, PING, END)),
    "a script answers with an error of two lines": Input(
        (("EVAL", "return redis.error_reply('ERR a\\r\\n$5\\r\\nhello')", "0"), BIG, PING, END)),
    "a script answers with a status of two lines": Input(
        (("EVAL", "return redis.status_reply('a\\r\\n$5\\r\\nhello')", "0"), BIG, PING, END)),
    "the same in a transaction": Input((("MULTI",), ("EVAL", '#!lua flags="a\\r\\n$5\\r\\nhello"\nreturn 1', "0"), BIG, ("EXEC",),
                                        PING, END)),

    # Any count that is not positive is passed over, without a reply.
    "negative counts": Input((b"*-5\r\n", PING, b"*0\r\n", b"\r\n", b"*-1\r\n", BIG, b"*-2147483648\r\n", ("ECHO", "e")),
                             lossless=True),
    "typed as a cluster's link begins": Input((b"RCmb x\r\n", PING), older=True),
    "a read begins as a cluster's link does": Input((("SET", "key", "abcdeRCmb"),), older=True, send=cut_before(b"RCmb")),
    "urgent data": Input((BIG, PING), send=urgent, lossless=True),
    "17 transactions at once": Input(transactions(17), lossless=True),
    "1,000 transactions at once": Input(transactions(1000), lossless=True),
    "1,000 transactions at once in RESP3": Input(transactions(1000), first=(("HELLO", "3"),), lossless=True),
    "33 UNSUBSCRIBE at once": Input((*one_each(33, "UNSUBSCRIBE"), BIG), lossless=True),
    "1,000 UNSUBSCRIBE at once": Input((*one_each(1000, "UNSUBSCRIBE"), BIG), lossless=True),
    "33 SUBSCRIBE at once in RESP3": Input((*one_each(33, "SUBSCRIBE"), BIG), first=(("HELLO", "3"),), lossless=True),
    "33 SUBSCRIBE and UNSUBSCRIBE at once": Input((*one_each(33, "SUBSCRIBE", "UNSUBSCRIBE"), BIG), lossless=True),
    "1,000 SUBSCRIBE and UNSUBSCRIBE at once in RESP3": Input(
        (*one_each(1000, "SUBSCRIBE"), BIG, *one_each(1000, "UNSUBSCRIBE"), BIG), first=(("HELLO", "3"),), lossless=True),
    "1,000 PSUBSCRIBE and PUNSUBSCRIBE at once": Input((*one_each(1000, "PSUBSCRIBE", "PUNSUBSCRIBE"), BIG), lossless=True),
    "SUNSUBSCRIBE": Input((("SUNSUBSCRIBE", "x"), BIG), lossless=True, since="7.0"),
    "SUNSUBSCRIBE by itself": Input((("SUNSUBSCRIBE", "x"),), lossless=True, since="7.0"),
    "CLIENT REPLY ON": Input((("CLIENT", "REPLY", "ON"), BIG), first=(("HELLO", "3", "SETNAME", "me"),), lossless=True, knows=True),

    # The servers' parsers.
    "a blank line": Input((b" \r\n", *LETTERS)),
    "a line of blanks": Input((b" \t  \r\n", BIG, *LETTERS)),
    "a blank line behind a command": Input((PING, b" \r\n", *LETTERS)),
    "a name with 0xff is CLIENT": Input((b"CLI\xffENT REPLY SKIP\r\n", *LETTERS)),
    "a word with 0xff is REPLY": Input((b"CLIENT REP\xffLY SKIP\r\n", *LETTERS)),
    "a word in quotes with 0xff is OFF": Input((b'CLIENT REPLY "O\\xffFF"\r\n', *LETTERS, b"CLIENT REPLY ON\r\n", *LETTERS)),
    # Who is subscribed is not joined again.
    "a name with 0xff is SUBSCRIBE": Input((b"SUB\xffSCRIBE x y\r\n", *LETTERS), first=(("HELLO", "3"),),
                                           then=(("UNSUBSCRIBE",), PING)),
    "a name with 0xff is MULTI": Input((b"MUL\xffTI\r\n", BIG, ("EXEC",), *LETTERS), whole=len("*1\r\n") + bulk(VALUES["big"])),
    "a name with 0xff is SELECT": Input((b"SEL\xffECT 3\r\n", BIG, *LETTERS)),
    "a name with 0xff is AUTH": Input((b"A\xffUTH hunter2\r\n", BIG)),
    "a name with 0xff is HELLO": Input((b"HEL\xffLO 3 AU\xffTH default hunter2 SETNAME mine\r\n", BIG)),
    "a line ends in an escape": Input((b"ECHO 'a\\'\r\n", BIG)),
    "a line ends in an escaped quote": Input((b'ECHO "a\\"\r\n', BIG)),
    "a line ends in a backslash": Input((b"ECHO a\\\r\n", BIG)),
    "a line with a lonely CR": Input((b"ECHO a\rb\r\n", BIG)),
    "a line that ends in two CR": Input((b"PING\r\r\n", BIG)),
    # HELLO's options take effect one by one on redis 6 and 7.
    "HELLO fails behind its AUTH": Input((("ACL", "WHOAMI"), BIG), first=(
        ("AUTH", "bob", "b"), ("HELLO", "2", "AUTH", "alice", "a", "SETNAME", "x y"))),
    "HELLO fails behind its AUTH, in one write": Input(
        (("AUTH", "bob", "b"), ("HELLO", "3", "AUTH", "alice", "a", "SETNAME", "x y"), BIG), meanwhile=({"user": "bob"},)),
    "HELLO fails behind its SETNAME": Input((BIG,), first=(("HELLO", "3", "SETNAME", "first", "AUTH", "nouser", "bad"),)),
    # A command that is executed twice.
    "served while writes are paused": Input((("BLPOP", "list", "0"), *LETTERS), send=served_while_paused, since="6.2"),
}


def each_server(function):
    function.cases = {name: (name,) for name in SERVERS}
    return function


def fill(client, databases=(3, 0)):
    """The same in each database."""
    for number in databases:
        client.pipeline([("SELECT", number), *(("SETRANGE", key, size - 1, "x") for key, size in VALUES.items())])
    for user, password in (("bob", "b"), ("alice", "a")):
        client.call("ACL", "SETUSER", user, "on", f">{password}", "~*", "+@all")


class Session:
    """A server with its replylogs, and what all inputs share."""

    def __init__(self, server, other, replylogs):
        self.server, self.other = server, other
        self.streams = {way: Stream(replylog) for way, replylog in replylogs.items()}
        self.size = 10_000          # of the last ECHO: each has its own
        self.received = 0           # bytes, by the talker whose turn it is

    def echo(self):
        self.size += 1
        return "ECHO", payload(self.size)

    def listed(self, talker):
        """Once the server has accepted it."""
        wait_until(lambda: f" addr={talker.addr} ".encode() in self.other.call("CLIENT", "LIST"), "a client")
        return client_listed(self.other, talker.addr)

    def proof(self, talker):
        """A command that is alone, and whose reply is all there. False: the server has closed the connection."""
        argv = self.echo()
        try:
            talker.send(argv)
            while argv[1].encode() not in talker.data:
                more = talker.sock.recv(1 << 20)
                if not more:
                    return False
                self.received += len(more)
                talker.data = talker.data[-100_000:] + more
        except ConnectionError:
            return False
        return True

    def comes_back(self, talker):
        """Asks until each replylog has an exact record of it. False: the connection is closed."""
        first = self.size + 1

        def back(stream):
            return any((echoed(record) or 0) >= first and record["attribution"] == "exact" for record in stream.of(talker)[-50:])

        deadline = time.monotonic() + BACK_SECONDS
        while away := [way for way, stream in self.streams.items() if not back(stream)]:
            assert time.monotonic() < deadline, f"{away}: not exact again within {BACK_SECONDS} s"
            if not self.proof(talker):
                return False
            time.sleep(0.02)
        return True

    def ordinary(self):
        """Another client's conversation is exact, and nothing is said of it that it has not said."""
        with Talker(self.server.port) as talker:
            expected = model(commands := [self.echo(), ("GET", "a"), BIG], [talker.ask(*argv) for argv in commands])
            listed = self.listed(talker)
            for way, stream in self.streams.items():
                compare(records := stream.wait(talker, len(expected)), expected)
                assert not (said := wrong_identity(records[-1], [listed])), f"{way}: an ordinary client: {said}"


def check_lossless(given, talker, stream, frames):
    expected = model(given.commands(), frames)
    first = len(given.first)
    compare(stream.wait(talker, first + len(expected))[first:first + len(expected)], expected)


def check_never_wrong(given, records, lines, talker, before, after):
    """Records that are exact are right, and nothing is said of other connections. The large value is asked for behind all
    that changes who asks."""
    for record in records:
        whole = given.whole and record.get("cmd") == "EXEC" and record["reply_bytes"] == given.whole
        listed = after if after and record.get("argv") == [*BIG] else [*before, *given.meanwhile, *after]
        said = not whole and wrong(record, VALUES) or wrong_identity(record, listed)
        assert not said, f"{said}: {record}"
    for record in lines:
        assert record["event"] != "dropped" or record.get("client_addr") in (None, talker.addr), record


def check_last(given, record, listed):
    assert not (said := wrong_identity(record, [listed])), f"{said}: {record}"
    assert not given.knows or not (absent := unknown_identity(record, listed)), f"{absent} are not known: {record}"


def owned_up(given, lines, talker):
    """The large reply has its record, exact or ambiguous, or a loss is counted."""
    sizes = {bulk(VALUES["big"]), given.whole} - {0}
    return [record for record in lines if record["event"] == "dropped" or
            record.get("client_addr") == talker.addr and record.get("reply_bytes") in sizes]


def play(session, given, talker):
    """One input, and all that is asked of it."""
    before = [session.listed(talker)]
    for argv in given.first:
        talker.ask(*argv)
        before.append(session.listed(talker))
    session.received = 0
    marks = {way: len(stream.read()) for way, stream in session.streams.items()}
    if given.send:
        given.send(talker, session.other)
    else:
        talker.sock.sendall(given.data())
    if given.lossless:
        frames = talker.frames(len(given.commands()))
        for stream in session.streams.values():
            check_lossless(given, talker, stream, frames)
    talker.send(*given.then)
    returns = session.comes_back(talker)
    after = [session.listed(talker)] if returns else []
    session.ordinary()
    for way, stream in session.streams.items():
        try:
            if session.received > VALUES["big"]:
                wait_until(lambda: owned_up(given, stream.read()[marks[way]:], talker), "word of the large reply", LATE_SECONDS)
            lines = stream.read()[marks[way]:]
            check_never_wrong(given, stream.of(talker), lines, talker, before, after)
            if returns:
                check_last(given, stream.of(talker)[-1], *after)
            assert not given.lossless or not (lost := [line for line in lines if line["event"] == "dropped"]), lost
        except AssertionError as error:
            raise AssertionError(f"{way}: {error}") from None


def numbers(version):
    return tuple(map(int, version.split(".")))


def inputs_for(server, inputs):
    version = numbers("7.2" if server.kind == "valkey" else server.version)
    return {name: given for name, given in inputs.items() if version >= numbers(given.since)}


def play_all(server, inputs):
    """On two replylogs beside each other, one that has argv from the server's structs."""
    failures = []
    with server.client() as other, ExitStack() as stack:
        fill(other)
        older = {title: stack.enter_context(Talker(server.port)) for title, given in inputs.items() if given.older}
        for talker in older.values():
            talker.ask("PING")
        replylogs = {way: stack.enter_context(Replylog(server.pid, 0, *flags)) for way, flags in WAYS.items()}
        session = Session(server, other, replylogs)
        for title, given in inputs.items():
            with older.get(title) or Talker(server.port) as talker:
                try:
                    play(session, given, talker)
                except (AssertionError, OSError) as error:
                    # Of all that are wrong, each is to be seen.
                    failures.append(f"{title}: {str(error)[:700] or repr(error)}")
        for way, replylog in replylogs.items():
            stop = replylog.stop()[-1]
            if stop["left_out_cluster"] or stop["left_out_replication"]:
                failures.append(f"{way}: clients were taken for something else: {stop}")
            try:
                secrets.assert_nothing_shows(replylog)
            except AssertionError as error:
                failures.append(f"{way}: {str(error)[:700]}")
    assert not failures, f"{len(failures)} of {len(inputs)}:\n" + "\n".join(failures)


@each_server
def test_inputs(name):
    with Server(name) as server:
        play_all(server, inputs_for(server, INPUTS))


# ---- commands that are executed twice ------------------------------------------------------------------------------

def executed_twice(server, *commands):
    """Commands that are postponed, with GETs behind them: these are exact, with either way to know their argv."""
    with server.client() as other, ExitStack() as stack:
        fill(other, (0,))
        replylogs = {way: stack.enter_context(Replylog(server.pid, 0, *flags)) for way, flags in WAYS.items()}
        session = Session(server, other, replylogs)
        for first in commands:
            for given in (Input((first, *LETTERS)), Input((PING, first, BIG, *LETTERS)), Input((*LETTERS, first, first, BIG))):
                with Talker(server.port) as talker:
                    play(session, given, talker)


def test_auth_by_a_blocking_module(name):
    """The module blocks each client that authenticates; then the server executes AUTH again."""
    with ModuleServer(name, module_arguments=("auth",)) as server:
        executed_twice(server, ("AUTH", "alice", "a"), ("HELLO", "2", "AUTH", "bob", "b"), BAD)


test_auth_by_a_blocking_module.cases = {name: (name,) for name in SERVERS if name not in ("redis-6.0", "redis-7.0")}


def test_setslot_waits_for_a_replica(name):
    """CLUSTER SETSLOT is given to the replicas first, and executed when they have it (valkey 8.0 on)."""
    with cluster(name, 1) as nodes, Talker(nodes[0].port) as primary, Talker(nodes[1].port) as replica:
        primary.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        meet(nodes, (primary, replica))
        number = primary.ask("CLUSTER", "MYID").split(b"\r\n")[1].decode()
        wait_until(lambda: replica.ask("CLUSTER", "REPLICATE", number) == b"+OK\r\n", "replica")
        wait_until(lambda: b"state=online" in primary.ask("INFO", "replication") and
                   b"cluster_state:ok" in primary.ask("CLUSTER", "INFO"), "replica that is online")
        executed_twice(nodes[0], ("CLUSTER", "SETSLOT", "0", "NODE", number))


test_setslot_waits_for_a_replica.cases = {name: (name,) for name in SERVERS if name.startswith("valkey")}


# ---- what is not about one connection ------------------------------------------------------------------------------

@each_server
def test_replicas_one_after_another(name):
    """Each is counted, though they have the same place."""
    with Server(name) as server, Replylog(server.pid, 0) as replylog:
        for _ in range(3):
            with Talker(server.port) as talker:
                talker.send(("SYNC",))
                assert talker.sock.recv(100)
            with server.client() as other:
                wait_until(lambda: b"connected_slaves:0\r" in other.call("INFO", "replication"), "no replica left")
        stop = replylog.stop()[-1]
    assert stop["left_out_replication"] == 3, stop


@each_server
def test_refused_by_maxclients(name):
    """They are told so, and closed: no connection that was not joined."""
    with Server(name, "--maxclients", "5") as server, Replylog(server.pid, 0, "--tap", "connection") as replylog, \
            ExitStack() as stack:
        clients = [stack.enter_context(Talker(server.port)) for _ in range(5)]
        for client in clients:
            client.ask("PING")
        for _ in range(20):
            with Talker(server.port) as refused:
                assert b"max number of clients" in refused.rest()
        clients[0].ask(*BIG)
        replylog.wait_replies(len(clients) + 1)
        stop = replylog.stop()[-1]
    assert (stop["replies"], stop["unjoined"], stop["dropped"]) == (len(clients) + 1, 0, 0), stop


THREADS, PLACES = 8, 512     # places: SCHEMA.md, reason no_scratch
ROUNDS = int(os.environ.get("REPLYLOG_ROUNDS", PLACES // (THREADS - 1) + 10))


def test_threads_come_and_go():
    """More IO threads than there are places, one after another, with clients that ask all the time."""
    with Server("valkey-9.1", io_threads=2) as server, Replylog(server.pid, 0) as replylog, server.client() as other, \
            ExitStack() as stack:
        talkers = [stack.enter_context(Talker(server.port)) for _ in range(8)]
        for turn in range(ROUNDS):
            for threads in (THREADS, 1):
                other.call("CONFIG", "SET", "io-threads", threads)
                for talker in talkers:
                    talker.send(("ECHO", f"{turn}"))
                for talker in talkers:
                    talker.frame()
        count = ROUNDS * 2 * (len(talkers) + 1)
        replylog.wait_replies(count)
        records = replylog.stop()
    losses = [record for record in records if record["event"] == "dropped"]
    assert (records[-1]["replies"], losses) == (count, []), (records[-1], losses)


def test_request_of_more_than_4_gib():
    """Nine arguments of 511 MB: the sum does not fit into 32 bits."""
    size = 511 << 20
    if not MATRIX or memory_available() < 12 << 30:
        raise Skip("half a minute and 12 GiB of memory: REPLYLOG_MATRIX=all")
    chunk = b"x" * (7 << 20)
    with Server("valkey-9.1") as server, Replylog(server.pid, 0) as replylog, Talker(server.port, timeout=120) as talker:
        talker.sock.sendall(b"*10\r\n$6\r\nEXISTS\r\n")
        for _ in range(9):
            talker.sock.sendall(b"$%d\r\n" % size)
            for _ in range(size // len(chunk)):
                talker.sock.sendall(chunk)
            talker.sock.sendall(b"\r\n")
        assert talker.frame() == b":0\r\n"
        replylog.wait_replies(1)
        record, = [record for record in replylog.stop() if record["event"] == "reply"]
    assert record["request_bytes"] == len("*10\r\n$6\r\nEXISTS\r\n") + 9 * (len(f"${size}\r\n\r\n") + size), record
    assert (record["argc"], record["attribution"]) == (10, "exact"), record


def memory_available():
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable:"))
    return int(line.split()[1]) << 10
