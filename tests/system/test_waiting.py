"""Replies that arrive late, or never."""
from conversation import EITHER, FrameClient, asker, compare, doubtful, finish, on_servers, on_versions, records_of, reply, \
    request, frame_client, unproven, wait_records
from replylog import Replylog
from server import Server
from test_transactions import model
from waiting import wait_until

BIG = "x" * 100_000


def blocked(other, count=1):
    wait_until(lambda: b"blocked_clients:%d\r" % count in other.call("INFO", "clients"), f"{count} blocked clients")


@on_servers
def test_blocking(name, io_threads):
    """The server serves the blocked command after others' commands, with some of its own behind it, or it times out."""
    with frame_client(name, io_threads) as (conn, other, replylog):
        ask = asker(conn, expected := [])
        commands = [("BLPOP", "list", "0"), ("ECHO", "behind")]
        for _ in range(3):
            conn.send(*commands)
            blocked(other)
            other.pipeline([("PING",)] * 1000)
            other.call("RPUSH", "list", BIG)
            expected += [reply(argv, frame, kind="pipelined") for argv, frame in zip(commands, conn.frames(2))]
        conn.send(("BLMPOP", "0", "2", "none", "list", "LEFT"))
        blocked(other)
        other.call("RPUSH", "list", BIG)
        expected.append(reply(("BLMPOP", "0", "2", "none", "list", "LEFT"), conn.frame()))
        ask("BLPOP", "none", "0.05")
        ask("WAIT", "1", "50")
        ask("XREAD", "BLOCK", "20", "STREAMS", "none", "$")
        ask("ECHO", "last")
        assert sum(size > len(BIG) for _, _, size, _ in expected) == 4
        finish(replylog, (conn, expected))
        late = records_of(replylog, conn)[-4]
        assert late["first_byte_us"] >= 50_000, late


@on_servers
def test_unblocked(name, io_threads):
    """CLIENT UNBLOCK, with an error and as by a timeout."""
    with frame_client(name, io_threads) as (conn, other, replylog):
        expected = [reply(("CLIENT", "ID"), frame := conn.ask("CLIENT", "ID"))]
        # Some servers answer a command that was unblocked with an error once more.
        for how, mark in (("TIMEOUT", tuple), ("ERROR", doubtful)):
            conn.send(("BRPOP", "list", "0"))
            blocked(other)
            other.call("CLIENT", "UNBLOCK", frame[1:-2].decode(), how)
            expected.append(mark(reply(("BRPOP", "list", "0"), conn.frame())))
        finish(replylog, (conn, expected))


@on_servers
def test_paused(name, io_threads):
    commands = [("SET", "a", BIG), ("GET", "a"), ("ECHO", "behind")]
    with frame_client(name, io_threads) as (conn, other, replylog):
        other.call("CLIENT", "PAUSE", "20000", "WRITE")
        conn.send(*commands)
        blocked(other)
        other.call("CLIENT", "UNPAUSE")
        expected = [reply(argv, frame, kind=EITHER) for argv, frame in zip(commands, conn.frames(len(commands)))]
        finish(replylog, (conn, expected))


def named(size):
    """A command that names the size of its reply."""
    return "ECHO", f"{size}:".ljust(size, "x")


def all_named(records):
    """Each record of ECHO has the size that it names, so none is shifted by one. Commands behind the join are exact."""
    for record in records:
        if record.get("cmd") == "ECHO":
            size = int(record["argv"][1].split(":")[0])
            assert record["attribution"] == "exact" or size < 1000, record
            assert record["reply_bytes"] == len(f"${size}\r\n") + size + 2, record


def until_joined(conn, replylog, size):
    """Sends commands until one is logged: replylog has joined the connection again. Then it logs three more, one by one."""
    def is_joined():
        conn.ask(*named(size))
        return any(record.get("argv", ["", ""])[-1].startswith(f"{size}:") for record in records_of(replylog, conn))

    wait_until(is_joined, "record after the boundary")
    for more in (size + 1, size + 2, size + 3):
        conn.ask(*named(more))
    wait_until(lambda: records_of(replylog, conn)[-1]["argv"][1].startswith(f"{size + 3}:"), "the last one's record")
    lasts = [int(record["argv"][1].split(":")[0]) for record in records_of(replylog, conn)[-3:]]
    assert lasts == [size + 1, size + 2, size + 3], lasts


@on_servers
def test_silenced(name, io_threads):
    """CLIENT REPLY OFF, SKIP and ON: later replies have no record until a boundary is proven, and are exact from then on."""
    with frame_client(name, io_threads) as (conn, other, replylog):
        before = reply(named(60), conn.ask(*named(60)))
        conn.send(named(70), ("CLIENT", "REPLY", "OFF"), named(80), named(90))
        first = unproven(reply(named(70), conn.frame(), kind=EITHER))
        conn.send(named(100), ("CLIENT", "REPLY", "ON"), named(110), named(120))
        assert [len(frame) for frame in conn.frames(3)] == [5, 118, 128]
        until_joined(conn, replylog, 1000)
        conn.send(named(130), ("CLIENT", "REPLY", "SKIP"), named(140), named(150), named(160))
        assert [len(frame) for frame in conn.frames(3)] == [138, 158, 168]
        until_joined(conn, replylog, 2000)
        # The pipeline is so deep that the server answers while it still reads.
        before_it, behind_it = ([named(base + n) for n in range(200)] for base in (200, 500))
        conn.send(*before_it, ("CLIENT", "REPLY", "SKIP"), *behind_it)
        sizes = [len(frame) for frame in conn.frames(399)]
        assert sizes == [208 + n for n in range(200)] + [508 + n for n in range(1, 200)]
        until_joined(conn, replylog, 3000)
        stop = replylog.stop()[-1]
    records = records_of(replylog, conn)
    all_named(records)
    compare(records[:2], [before, first])
    said = [record["argv"][1].split(":")[0] for record in records if record["argv"][0] == "ECHO"]
    assert "130" in said and all(str(200 + n) in said for n in range(200)), "what was before is logged"
    assert not {"80", "90", "100", "140"} & set(said), said
    assert stop["dropped"] == 0 and stop["left_out_silenced"] == stop["joined"] == 3, stop


@on_versions
def test_not_silenced(name, io_threads):
    """CLIENT REPLY ON where replies are not off is an ordinary command: in any case, typed, cut anywhere, in a
    transaction."""
    with frame_client(name, io_threads) as (conn, other, replylog):
        ask = asker(conn, expected := [])
        ask("HELLO", "3", "SETNAME", "somebody")
        for argv in (("CLIENT", "REPLY", "ON"), ("client", "Reply", "oN")):
            ask(*argv)
            data = request(*argv)
            for cut in range(1, len(data)):
                conn.sock.sendall(data[:cut])
                assert other.call("PING") == b"PONG"    # the server has read so far
                conn.sock.sendall(data[cut:])
                expected.append(reply(argv, conn.frame()))
        conn.sock.sendall(b"CLIENT REPLY ON\r\n")
        expected.append((("CLIENT", "REPLY", "ON"), "simple", len(conn.frame()), len(b"CLIENT REPLY ON\r\n")))
        ask("CLIENT", "REPLY")                  # an error
        transaction = [("MULTI",), ("CLIENT", "REPLY", "ON"), ("EXEC",)]    # valkey 9.1 refuses it there
        conn.send(*transaction)
        expected += model(transaction, conn.frames(3))
        ask("CLIENT", "REPLY", "ON")
        ask("ECHO", "behind")
        stop = finish(replylog, (conn, expected))
        assert (stop["left_out_silenced"], stop["joined"], stop["unattributed_bytes"]) == (0, 0, 0), stop
    last = records_of(replylog, conn)[-1]
    assert (last["resp"], last["client_name"]) == (3, "somebody"), last


@on_servers
def test_silenced_for_good(name, io_threads):
    """CLIENT REPLY OFF without a later ON."""
    with frame_client(name, io_threads) as (conn, other, replylog):
        before = reply(named(60), conn.ask(*named(60)))
        conn.send(("CLIENT", "REPLY", "OFF"), named(80), ("SET", "done", "1"))
        wait_until(lambda: other.call("GET", "done"), "the silenced SET")
        conn.send(named(90), ("SET", "done", "2"))
        wait_until(lambda: other.call("GET", "done") == b"2", "the silenced SET")
        stop = finish(replylog, (conn, [before]))
        assert stop["left_out_silenced"] + stop["unjoined"] + stop["joined"] >= 1, stop


@on_servers
def test_subscribed_in_a_transaction(name, io_threads):
    """EXEC's array then has fewer replies than there are confirmations: they have no record until the connection is an
    ordinary client again."""
    with frame_client(name, io_threads) as (conn, other, replylog):
        for argv in (("HELLO", "3"), ("MULTI",), ("SUBSCRIBE", "a", "b"), named(50), ("EXEC",)):
            conn.send(argv)
        conn.frames(4)
        conn.send(named(300), ("UNSUBSCRIBE",))
        while b"unsubscribe" not in conn.frame():
            pass
        conn.frame()
        until_joined(conn, replylog, 1000)
        stop = replylog.stop()[-1]
    all_named(records_of(replylog, conn))
    assert stop["dropped"] == 0 and stop["joined"] == 1, stop


@on_servers
def test_quit(name, io_threads):
    """Commands behind QUIT get no reply, and count as unanswered."""
    commands = [named(100), ("QUIT",), named(200), named(300)]
    with frame_client(name, io_threads) as (conn, other, replylog):
        conn.send(*commands)
        frames = conn.frames(2)
        assert conn.rest() == b""
        # The commands behind QUIT stay outstanding, so nothing proves the burst.
        expected = [doubtful(reply(argv, frame, kind="pipelined")) for argv, frame in zip(commands, frames)]
        stop = finish(replylog, (conn, expected))
        assert stop["unanswered"] == 2, stop


@on_servers
def test_hello_in_a_pipeline(name, io_threads):
    """The protocol changes between two replies of one write."""
    commands = [("HGETALL", "hash"), ("HELLO", "3"), ("HGETALL", "hash"), ("GET", "none"), ("HELLO", "9"),
                ("HGETALL", "hash"), ("HELLO", "2"), ("HGETALL", "hash"), ("GET", "none"),
                ("HELLO", "3"), ("RESET",), ("HGETALL", "hash")]
    versions = [2, None, 3, 3, None, 3, None, 2, 2, None, None, 2]
    with frame_client(name, io_threads) as (conn, other, replylog):
        other.call("HSET", "hash", *range(200))
        conn.send(*commands)
        expected = [reply(argv, frame, kind=EITHER) for argv, frame in zip(commands, conn.frames(len(commands)))]
        finish(replylog, (conn, expected))
    said = [record["resp"] for record in records_of(replylog, conn)]
    assert all(want in (None, got) for want, got in zip(versions, said)), said


# The server refuses each of these and closes the connection: processMultibulkBuffer() and processInlineBuffer() in
# src/networking.c.
MALFORMED = {
    "not a number": b"*a\r\n", "too many arguments": b"*2000000000\r\n", "no bulk": b"*1\r\n+PING\r\n",
    "length is no number": b"*2\r\n$4\r\nECHO\r\n$x\r\n", "negative length": b"*1\r\n$-5\r\n",
    "too long": b"*2\r\n$4\r\nECHO\r\n$999999999999\r\n", "endless header": b"*" + b"1" * 70_000,
    "endless line": b"x" * 300_000,
}


@on_servers
def test_protocol_errors(name, io_threads):
    """replylog logs the replies before the error, and invents none behind it."""
    with Server(name, io_threads=io_threads) as server, Replylog(server.pid, 0) as replylog:
        talked = []
        for what, malformed in MALFORMED.items():
            with FrameClient(server.port) as conn:
                commands = [named(100), named(3000)]
                before, behind = b"".join(request(*argv) for argv in commands), request("ECHO", "behind")
                conn.sock.sendall(before + malformed + behind)
                expected = [unproven(reply(argv, frame, kind=EITHER)) for argv, frame in zip(commands, conn.frames(2))]
                try:
                    assert b"Protocol error" in conn.frame(), what
                    conn.rest()
                except ConnectionResetError:
                    pass        # the kernel resets the connection when the server has not read all bytes
                talked.append((conn, expected))
        for conn, expected in talked:
            wait_records(replylog, conn, len(expected))
        replylog.stop()
    for (conn, expected), what in zip(talked, MALFORMED):
        try:
            compare(records_of(replylog, conn), expected)
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from None
    losses = [(record["reason"], record["count"]) for record in replylog.records() if record["event"] == "dropped"]
    # The server refuses a line that never ends while it still reads it. That error answers no command.
    assert {reason for reason, _ in losses} <= {"framing", "out_of_step"}, losses
    assert sum(count for _, count in losses) <= len(MALFORMED), losses
