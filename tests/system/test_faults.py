"""Inputs that once gave a wrong answer. Each is one write on a fresh connection, and all run on one server, one after the
other.

Servers have bugs, their parsers differ from replylog's, and modules and typed lines may do anything, so no list of such
inputs can be complete. The tests therefore check the same for every input:
- no record that is marked exact is wrong;
- a reply without a record counts as a loss, or a record says that it is ambiguous;
- no record has an identity that CLIENT LIST does not show;
- records behind the input are exact again.
After lossless inputs all records are exact.

REPLYLOG_MATRIX=all: on all servers.
"""
import os
import time
from contextlib import ExitStack
from pathlib import Path

import test_secrets as secrets
from conversation import FrameClient, client_listed, compare
from environment import Skip
from fault_inputs import BAD, BIG, INPUTS, LETTERS, PING, VALUES, Input
from replylog import Replylog
from server import ModuleServer, Server
from test_left_out import cluster, meet
from test_transactions import model
from truth import Stream, bulk, echoed, payload, unknown_identity, wrong, wrong_identity
from waiting import wait_until

MATRIX = os.environ.get("REPLYLOG_MATRIX") == "all"
SERVERS = ("valkey-9.1", "valkey-8.1", "redis-7.0", "redis-8.0") + \
    (("valkey-8.0", "redis-6.0", "redis-8.6") if MATRIX else ())
MODES = {"as asked": (), "as dispatched": ("--argv-from", "dispatch")}

BACK_SECONDS = 5        # within which replylog must have joined a connection again


def each_server(function):
    function.cases = {name: (name,) for name in SERVERS}
    return function


def fill(client, databases=(3, 0)):
    """Stores the same data in each database."""
    for number in databases:
        client.pipeline([("SELECT", number), *(("SETRANGE", key, size - 1, "x") for key, size in VALUES.items())])
    for user, password in (("bob", "b"), ("alice", "a")):
        client.call("ACL", "SETUSER", user, "on", f">{password}", "~*", "+@all")


class Session:
    """A server with its replylogs, and what all inputs share."""

    def __init__(self, server, other, replylogs):
        self.server, self.other = server, other
        self.streams = {mode: Stream(replylog) for mode, replylog in replylogs.items()}
        self.size = 10_000          # size of the last ECHO; each ECHO has its own
        self.received = 0           # bytes that the current client has received
        self.silent = dict.fromkeys(self.streams, 0)    # large replies with neither a record nor a loss

    def echo(self):
        self.size += 1
        return "ECHO", payload(self.size)

    def listed(self, conn):
        """The client's CLIENT LIST entry, once the server has accepted it."""
        wait_until(lambda: f" addr={conn.addr} ".encode() in self.other.call("CLIENT", "LIST"), "a client")
        return client_listed(self.other, conn.addr)

    def proof(self, conn):
        """Sends a command when nothing else is outstanding, and reads its whole reply. False: the server has closed the
        connection."""
        argv = self.echo()
        try:
            conn.send(argv)
            while argv[1].encode() not in conn.data:
                more = conn.sock.recv(1 << 20)
                if not more:
                    return False
                self.received += len(more)
                conn.data = conn.data[-100_000:] + more
        except ConnectionError:
            return False
        return True

    def comes_back(self, conn):
        """Sends commands until each replylog has an exact record of one. False: the server has closed the connection."""
        first = self.size + 1

        def back(stream):
            return any((echoed(record) or 0) >= first and record["attribution"] == "exact" for record in stream.of(conn)[-50:])

        deadline = time.monotonic() + BACK_SECONDS
        while away := [mode for mode, stream in self.streams.items() if not back(stream)]:
            assert time.monotonic() < deadline, f"{away}: not exact again within {BACK_SECONDS} s"
            if not self.proof(conn):
                return False
            time.sleep(0.02)
        return True

    def ordinary(self):
        """Another client's records are exact, and have only the identity that it gave."""
        with FrameClient(self.server.port) as conn:
            for stream in self.streams.values():
                stream.begin(conn)
            expected = model(commands := [self.echo(), ("GET", "a"), BIG], [conn.ask(*argv) for argv in commands])
            listed = self.listed(conn)
            for mode, stream in self.streams.items():
                compare(records := stream.wait(conn, len(expected)), expected)
                assert not (said := wrong_identity(records[-1], [listed])), f"{mode}: an ordinary client: {said}"


def check_lossless(given, conn, stream, frames):
    expected = model(given.commands(), frames)
    first = len(given.first)
    compare(stream.wait(conn, first + len(expected))[first:first + len(expected)], expected)


def check_never_wrong(given, records, lines, conn, before, after):
    """Exact records are right, and name no other connection. The test requests the large value behind everything that
    changes the client's identity."""
    for record in records:
        whole = given.whole and record.get("cmd") == "EXEC" and record["reply_bytes"] == given.whole
        listed = after if after and record.get("argv") == [*BIG] else [*before, *given.meanwhile, *after]
        said = not whole and wrong(record, VALUES) or wrong_identity(record, listed)
        assert not said, f"{said}: {record}"
    for record in lines:
        assert record["event"] != "dropped" or record.get("client_addr") in (None, conn.addr), record


def check_last(given, record, listed):
    assert not (said := wrong_identity(record, [listed])), f"{said}: {record}"
    assert not given.knows or not (absent := unknown_identity(record, listed)), f"{absent} are not known: {record}"


def owned_up(given, lines, conn):
    """The large reply has a record, exact or ambiguous, or counts as a loss. Several records may be ambiguous."""
    def is_it(record):
        exact = record["attribution"] == "exact"
        return record["reply_bytes"] in (big, given.whole) if exact else record["reply_bytes"] >= big

    big = bulk(VALUES["big"])
    return [record for record in lines if record["event"] == "dropped" or record["event"] == "reply" and
            record.get("client_addr") == conn.addr and record["state"] == "complete" and is_it(record)]


def play(session, given, conn):
    """Plays one input, and checks everything about it."""
    for stream in session.streams.values():
        stream.begin(conn)
    before = [session.listed(conn)]
    for argv in given.first:
        conn.ask(*argv)
        before.append(session.listed(conn))
    session.received = 0
    marks = {mode: len(stream.read()) for mode, stream in session.streams.items()}
    if given.send:
        given.send(conn, session.other)
    else:
        conn.sock.sendall(given.data())
    if given.lossless:
        frames = conn.frames(len(given.commands()))
        for stream in session.streams.values():
            check_lossless(given, conn, stream, frames)
    conn.send(*given.then)
    returns = not given.hangs and session.comes_back(conn)
    after = [session.listed(conn)] if returns else []
    session.ordinary()
    for mode, stream in session.streams.items():
        lines = stream.read()[marks[mode]:]
        try:
            check_never_wrong(given, stream.of(conn), lines, conn, before, after)
            if returns:
                check_last(given, stream.of(conn)[-1], *after)
            assert not given.lossless or not (lost := [line for line in lines if line["event"] == "dropped" and line["count"]]), lost
        except AssertionError as error:
            raise AssertionError(f"{mode}: {error}") from None
        # No record of an earlier reply arrives after the last one.
        if session.received > VALUES["big"] and not owned_up(given, lines, conn):
            session.silent[mode] += 1


def check_end(session, mode, stop):
    """Connections that replylog left out because of a command's name are counted at the end, with the bytes sent to them."""
    silent = session.silent[mode]
    assert stop["left_out_cluster"] == stop["left_out_replication"] == 0, f"clients taken for links or replicas: {stop}"
    assert silent <= stop["left_out_other"] + stop["left_out_silenced"], f"{silent} large replies without a word: {stop}"
    assert stop["unattributed_bytes"] >= silent * VALUES["big"], f"{silent} large replies without a word: {stop}"


def numbers(version):
    return tuple(map(int, version.split(".")))


def inputs_for(server, inputs):
    version = numbers("7.2" if server.kind == "valkey" else server.version)
    return {name: given for name, given in inputs.items()
            if version >= numbers(given.since) and server.kind.startswith(given.only)}


def play_all(server, inputs):
    """Plays the inputs on two replylogs side by side, one of them with argv from the server's structs."""
    failures = []
    with server.client() as other, ExitStack() as stack:
        fill(other)
        older = {title: stack.enter_context(FrameClient(server.port)) for title, given in inputs.items() if given.older}
        for conn in older.values():
            conn.ask("PING")
        replylogs = {mode: stack.enter_context(Replylog(server.pid, 0, *flags)) for mode, flags in MODES.items()}
        session = Session(server, other, replylogs)
        for title, given in inputs.items():
            with older.get(title) or FrameClient(server.port) as conn:
                try:
                    play(session, given, conn)
                except (AssertionError, OSError) as error:
                    # Show every input that fails, not only the first.
                    failures.append(f"{title}: {str(error)[:700] or repr(error)}")
        for mode, replylog in replylogs.items():
            stop = replylog.stop()[-1]
            try:
                check_end(session, mode, stop)
                secrets.assert_nothing_shows(replylog)
            except AssertionError as error:
                failures.append(f"{mode}: {str(error)[:700]}")
    assert not failures, f"{len(failures)} of {len(inputs)}:\n" + "\n".join(failures)


@each_server
def test_inputs(name):
    with Server(name) as server:
        play_all(server, inputs_for(server, INPUTS))


# ---- commands that are executed twice ------------------------------------------------------------------------------

def executed_twice(server, *commands):
    """The server postpones these commands and executes them twice. The GETs behind them are exact with both sources of
    argv."""
    with server.client() as other, ExitStack() as stack:
        fill(other, (0,))
        replylogs = {mode: stack.enter_context(Replylog(server.pid, 0, *flags)) for mode, flags in MODES.items()}
        session = Session(server, other, replylogs)
        for first in commands:
            for given in (Input((first, *LETTERS)), Input((PING, first, BIG, *LETTERS)), Input((*LETTERS, first, first, BIG))):
                with FrameClient(server.port) as conn:
                    play(session, given, conn)


def test_auth_by_a_blocking_module(name):
    """The module blocks each client that authenticates. Then the server executes AUTH again."""
    with ModuleServer(name, module_arguments=("auth",)) as server:
        executed_twice(server, ("AUTH", "alice", "a"), ("HELLO", "2", "AUTH", "bob", "b"), BAD)


test_auth_by_a_blocking_module.cases = {name: (name,) for name in SERVERS if name not in ("redis-6.0", "redis-7.0")}


def test_setslot_waits_for_a_replica(name):
    """The server sends CLUSTER SETSLOT to its replicas first, and executes it when they have it (valkey 8.0 on)."""
    with cluster(name, 1) as nodes, FrameClient(nodes[0].port) as primary, FrameClient(nodes[1].port) as replica:
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
    """Replicas that connect one after another use the same connection number, and each is counted."""
    with Server(name) as server, Replylog(server.pid, 0) as replylog:
        for _ in range(3):
            with FrameClient(server.port) as conn:
                conn.send(("SYNC",))
                assert conn.sock.recv(100)
            with server.client() as other:
                wait_until(lambda: b"connected_slaves:0\r" in other.call("INFO", "replication"), "no replica left")
        stop = replylog.stop()[-1]
    assert stop["left_out_replication"] == 3, stop


@each_server
def test_refused_by_maxclients(name):
    """The server sends these clients an error and closes. They do not count as connections that could not be joined."""
    with Server(name, "--maxclients", "5") as server, Replylog(server.pid, 0, "--tap", "connection") as replylog, \
            ExitStack() as stack:
        clients = [stack.enter_context(FrameClient(server.port)) for _ in range(5)]
        for client in clients:
            client.ask("PING")
        for _ in range(20):
            with FrameClient(server.port) as refused:
                assert b"max number of clients" in refused.rest()
        clients[0].ask(*BIG)
        replylog.wait_replies(len(clients) + 1)
        stop = replylog.stop()[-1]
    assert (stop["replies"], stop["unjoined"], stop["dropped"]) == (len(clients) + 1, 0, 0), stop


def test_request_of_more_than_4_gib():
    """Nine arguments of 511 MB, whose sum does not fit into 32 bits."""
    size = 511 << 20
    if not MATRIX or memory_available() < 12 << 30:
        raise Skip("half a minute and 12 GiB of memory: REPLYLOG_MATRIX=all")
    chunk = b"x" * (7 << 20)
    with Server("valkey-9.1") as server, Replylog(server.pid, 0) as replylog, FrameClient(server.port, timeout=120) as conn:
        conn.sock.sendall(b"*10\r\n$6\r\nEXISTS\r\n")
        for _ in range(9):
            conn.sock.sendall(b"$%d\r\n" % size)
            for _ in range(size // len(chunk)):
                conn.sock.sendall(chunk)
            conn.sock.sendall(b"\r\n")
        assert conn.frame() == b":0\r\n"
        replylog.wait_replies(1)
        record, = [record for record in replylog.stop() if record["event"] == "reply"]
    assert record["request_bytes"] == len("*10\r\n$6\r\nEXISTS\r\n") + 9 * (len(f"${size}\r\n\r\n") + size), record
    assert (record["argc"], record["attribution"]) == (10, "exact"), record


def memory_available():
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable:"))
    return int(line.split()[1]) << 10
