"""Replies that come late, or never."""
from conversation import EITHER, Talker, asker, compare, doubtful, finish, on_servers, on_versions, records_of, reply, \
    request, talks, unproven, wait_records
from replylog import Replylog
from server import Server
from test_transactions import model
from waiting import wait_until

BIG = "x" * 100_000


def blocked(other, count=1):
    wait_until(lambda: b"blocked_clients:%d\r" % count in other.call("INFO", "clients"), f"{count} blocked clients")


@on_servers
def test_blocking(name, io_threads):
    """Served after others' commands, with some of its own behind it; and timed out."""
    with talks(name, io_threads) as (talker, other, replylog):
        ask = asker(talker, expected := [])
        commands = [("BLPOP", "list", "0"), ("ECHO", "behind")]
        for _ in range(3):
            talker.send(*commands)
            blocked(other)
            other.pipeline([("PING",)] * 1000)
            other.call("RPUSH", "list", BIG)
            expected += [reply(argv, frame, kind="pipelined") for argv, frame in zip(commands, talker.frames(2))]
        talker.send(("BLMPOP", "0", "2", "none", "list", "LEFT"))
        blocked(other)
        other.call("RPUSH", "list", BIG)
        expected.append(reply(("BLMPOP", "0", "2", "none", "list", "LEFT"), talker.frame()))
        ask("BLPOP", "none", "0.05")
        ask("WAIT", "1", "50")
        ask("XREAD", "BLOCK", "20", "STREAMS", "none", "$")
        ask("ECHO", "last")
        assert sum(size > len(BIG) for _, _, size, _ in expected) == 4
        finish(replylog, (talker, expected))
        late = records_of(replylog, talker)[-4]
        assert late["first_byte_us"] >= 50_000, late


@on_servers
def test_unblocked(name, io_threads):
    """CLIENT UNBLOCK, with an error and as by a timeout."""
    with talks(name, io_threads) as (talker, other, replylog):
        expected = [reply(("CLIENT", "ID"), frame := talker.ask("CLIENT", "ID"))]
        # Some servers answer a command that is let go with an error once more.
        for how, mark in (("TIMEOUT", tuple), ("ERROR", doubtful)):
            talker.send(("BRPOP", "list", "0"))
            blocked(other)
            other.call("CLIENT", "UNBLOCK", frame[1:-2].decode(), how)
            expected.append(mark(reply(("BRPOP", "list", "0"), talker.frame())))
        finish(replylog, (talker, expected))


@on_servers
def test_paused(name, io_threads):
    commands = [("SET", "a", BIG), ("GET", "a"), ("ECHO", "behind")]
    with talks(name, io_threads) as (talker, other, replylog):
        other.call("CLIENT", "PAUSE", "20000", "WRITE")
        talker.send(*commands)
        blocked(other)
        other.call("CLIENT", "UNPAUSE")
        expected = [reply(argv, frame, kind=EITHER) for argv, frame in zip(commands, talker.frames(len(commands)))]
        finish(replylog, (talker, expected))


def named(size):
    """A command that says how large its reply is."""
    return "ECHO", f"{size}:".ljust(size, "x")


def all_named(records):
    """Whatever is logged of ECHO is logged with the size that it asked for: nothing is shifted by one. What is asked when
    the connection is joined again is exact."""
    for record in records:
        if record.get("cmd") == "ECHO":
            size = int(record["argv"][1].split(":")[0])
            assert record["attribution"] == "exact" or size < 1000, record
            assert record["reply_bytes"] == len(f"${size}\r\n") + size + 2, record


def until_joined(talker, replylog, size):
    """Asks until a command is logged: the connection is joined again. Then three more are logged one by one."""
    def is_joined():
        talker.ask(*named(size))
        return any(record.get("argv", ["", ""])[-1].startswith(f"{size}:") for record in records_of(replylog, talker))

    wait_until(is_joined, "record after the boundary")
    for more in (size + 1, size + 2, size + 3):
        talker.ask(*named(more))
    wait_until(lambda: records_of(replylog, talker)[-1]["argv"][1].startswith(f"{size + 3}:"), "the last one's record")
    lasts = [int(record["argv"][1].split(":")[0]) for record in records_of(replylog, talker)[-3:]]
    assert lasts == [size + 1, size + 2, size + 3], lasts


@on_servers
def test_silenced(name, io_threads):
    """CLIENT REPLY OFF, SKIP and ON: what follows is nobody's until a boundary is proven, and then exact."""
    with talks(name, io_threads) as (talker, other, replylog):
        before = reply(named(60), talker.ask(*named(60)))
        talker.send(named(70), ("CLIENT", "REPLY", "OFF"), named(80), named(90))
        first = unproven(reply(named(70), talker.frame(), kind=EITHER))
        talker.send(named(100), ("CLIENT", "REPLY", "ON"), named(110), named(120))
        assert [len(frame) for frame in talker.frames(3)] == [5, 118, 128]
        until_joined(talker, replylog, 1000)
        talker.send(named(130), ("CLIENT", "REPLY", "SKIP"), named(140), named(150), named(160))
        assert [len(frame) for frame in talker.frames(3)] == [138, 158, 168]
        until_joined(talker, replylog, 2000)
        # In a pipeline so deep that the server answers while it still reads.
        before_it, behind_it = ([named(base + n) for n in range(200)] for base in (200, 500))
        talker.send(*before_it, ("CLIENT", "REPLY", "SKIP"), *behind_it)
        sizes = [len(frame) for frame in talker.frames(399)]
        assert sizes == [208 + n for n in range(200)] + [508 + n for n in range(1, 200)]
        until_joined(talker, replylog, 3000)
        stop = replylog.stop()[-1]
    records = records_of(replylog, talker)
    all_named(records)
    compare(records[:2], [before, first])
    said = [record["argv"][1].split(":")[0] for record in records if record["argv"][0] == "ECHO"]
    assert "130" in said and all(str(200 + n) in said for n in range(200)), "what was before is logged"
    assert not {"80", "90", "100", "140"} & set(said), said
    assert stop["dropped"] == 0 and stop["left_out_silenced"] == stop["joined"] == 3, stop


@on_versions
def test_not_silenced(name, io_threads):
    """CLIENT REPLY ON where nothing is off is a command like others, in any case, typed, cut anywhere, in a transaction."""
    with talks(name, io_threads) as (talker, other, replylog):
        ask = asker(talker, expected := [])
        ask("HELLO", "3", "SETNAME", "somebody")
        for argv in (("CLIENT", "REPLY", "ON"), ("client", "Reply", "oN")):
            ask(*argv)
            data = request(*argv)
            for cut in range(1, len(data)):
                talker.sock.sendall(data[:cut])
                assert other.call("PING") == b"PONG"    # the server has read so far
                talker.sock.sendall(data[cut:])
                expected.append(reply(argv, talker.frame()))
        talker.sock.sendall(b"CLIENT REPLY ON\r\n")
        expected.append((("CLIENT", "REPLY", "ON"), "simple", len(talker.frame()), len(b"CLIENT REPLY ON\r\n")))
        ask("CLIENT", "REPLY")                  # an error
        transaction = [("MULTI",), ("CLIENT", "REPLY", "ON"), ("EXEC",)]    # valkey 9.1 refuses it there
        talker.send(*transaction)
        expected += model(transaction, talker.frames(3))
        ask("CLIENT", "REPLY", "ON")
        ask("ECHO", "behind")
        stop = finish(replylog, (talker, expected))
        assert (stop["left_out_silenced"], stop["joined"], stop["unattributed_bytes"]) == (0, 0, 0), stop
    last = records_of(replylog, talker)[-1]
    assert (last["resp"], last["client_name"]) == (3, "somebody"), last


@on_servers
def test_silenced_for_good(name, io_threads):
    """Replies off, and never on again."""
    with talks(name, io_threads) as (talker, other, replylog):
        before = reply(named(60), talker.ask(*named(60)))
        talker.send(("CLIENT", "REPLY", "OFF"), named(80), ("SET", "done", "1"))
        wait_until(lambda: other.call("GET", "done"), "the silenced SET")
        talker.send(named(90), ("SET", "done", "2"))
        wait_until(lambda: other.call("GET", "done") == b"2", "the silenced SET")
        stop = finish(replylog, (talker, [before]))
        assert stop["left_out_silenced"] + stop["unjoined"] + stop["joined"] >= 1, stop


@on_servers
def test_subscribed_in_a_transaction(name, io_threads):
    """EXEC's array then holds fewer replies than there are confirmations: nobody's, until it is plain again."""
    with talks(name, io_threads) as (talker, other, replylog):
        for argv in (("HELLO", "3"), ("MULTI",), ("SUBSCRIBE", "a", "b"), named(50), ("EXEC",)):
            talker.send(argv)
        talker.frames(4)
        talker.send(named(300), ("UNSUBSCRIBE",))
        while b"unsubscribe" not in talker.frame():
            pass
        talker.frame()
        until_joined(talker, replylog, 1000)
        stop = replylog.stop()[-1]
    all_named(records_of(replylog, talker))
    assert stop["dropped"] == 0 and stop["joined"] == 1, stop


@on_servers
def test_quit(name, io_threads):
    """What is behind QUIT gets no reply, and is counted."""
    commands = [named(100), ("QUIT",), named(200), named(300)]
    with talks(name, io_threads) as (talker, other, replylog):
        talker.send(*commands)
        frames = talker.frames(2)
        assert talker.rest() == b""
        # What is behind QUIT stays outstanding: nothing proves the burst.
        expected = [doubtful(reply(argv, frame, kind="pipelined")) for argv, frame in zip(commands, frames)]
        stop = finish(replylog, (talker, expected))
        assert stop["unanswered"] == 2, stop


@on_servers
def test_hello_in_a_pipeline(name, io_threads):
    """The protocol changes between two replies of one write."""
    commands = [("HGETALL", "hash"), ("HELLO", "3"), ("HGETALL", "hash"), ("GET", "none"), ("HELLO", "9"),
                ("HGETALL", "hash"), ("HELLO", "2"), ("HGETALL", "hash"), ("GET", "none"),
                ("HELLO", "3"), ("RESET",), ("HGETALL", "hash")]
    versions = [2, None, 3, 3, None, 3, None, 2, 2, None, None, 2]
    with talks(name, io_threads) as (talker, other, replylog):
        other.call("HSET", "hash", *range(200))
        talker.send(*commands)
        expected = [reply(argv, frame, kind=EITHER) for argv, frame in zip(commands, talker.frames(len(commands)))]
        finish(replylog, (talker, expected))
    said = [record["resp"] for record in records_of(replylog, talker)]
    assert all(want in (None, got) for want, got in zip(versions, said)), said


# Each refused by the server, which closes the connection: processMultibulkBuffer() and processInlineBuffer() in
# src/networking.c.
MALFORMED = {
    "not a number": b"*a\r\n", "too many arguments": b"*2000000000\r\n", "no bulk": b"*1\r\n+PING\r\n",
    "length is no number": b"*2\r\n$4\r\nECHO\r\n$x\r\n", "negative length": b"*1\r\n$-5\r\n",
    "too long": b"*2\r\n$4\r\nECHO\r\n$999999999999\r\n", "endless header": b"*" + b"1" * 70_000,
    "endless line": b"x" * 300_000,
}


@on_servers
def test_protocol_errors(name, io_threads):
    """What was before is logged; then the connection is over, and what is behind is not invented."""
    with Server(name, io_threads=io_threads) as server, Replylog(server.pid, 0) as replylog:
        talked = []
        for what, malformed in MALFORMED.items():
            with Talker(server.port) as talker:
                commands = [named(100), named(3000)]
                before, behind = b"".join(request(*argv) for argv in commands), request("ECHO", "behind")
                talker.sock.sendall(before + malformed + behind)
                expected = [unproven(reply(argv, frame, kind=EITHER)) for argv, frame in zip(commands, talker.frames(2))]
                try:
                    assert b"Protocol error" in talker.frame(), what
                    talker.rest()
                except ConnectionResetError:
                    pass        # bytes that it did not read any more make the kernel reset the connection
                talked.append((talker, expected))
        for talker, expected in talked:
            wait_records(replylog, talker, len(expected))
        replylog.stop()
    for (talker, expected), what in zip(talked, MALFORMED):
        try:
            compare(records_of(replylog, talker), expected)
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from None
    losses = [(record["reason"], record["count"]) for record in replylog.records() if record["event"] == "dropped"]
    # A line that never ends is refused while it is still being read: that answers nothing that was asked.
    assert {reason for reason, _ in losses} <= {"framing", "out_of_step"}, losses
    assert sum(count for _, count in losses) <= len(MALFORMED), losses
