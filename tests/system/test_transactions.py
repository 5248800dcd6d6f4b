"""Transactions and scripts: replylog logs the queued commands, as COMMANDLOG does."""
import random

from conversation import EITHER, FrameClient, asker, compare, doubtful, elements, finish, on_servers, on_versions, records_of, reply, \
    request, frame_client, wait_records
from replylog import Replylog
from server import Server

BIG = "x" * 200_000


def transaction(conn, commands, expected):
    """Runs commands as a transaction, with a round trip for each."""
    ask = asker(conn, expected)
    ask("MULTI")
    for argv in commands:
        ask(*argv, kind="multi")
    executed = conn.ask("EXEC")
    inner = elements(executed)
    assert len(inner) == len(commands), executed
    expected += [reply(argv, frame, kind="multi") for argv, frame in zip(commands, inner)]


@on_servers
def test_inner_replies(name, io_threads):
    """Nulls, errors, nested arrays and large strings each belong to their own command."""
    commands = [("SET", "a", "1"), ("GET", "none"), ("LRANGE", "list", "0", "-1"), ("INCR", "list"), ("GET", "big"),
                ("BLPOP", "none", "0"), ("EVAL", "return {1,{2,{3}}}", "0"), ("HGETALL", "hash"), ("PING",)]
    with frame_client(name, io_threads) as (conn, other, replylog):
        other.call("RPUSH", "list", *range(1000))
        other.call("SET", "big", BIG)
        other.call("HSET", "hash", *range(400))
        expected = []
        for protocol in ("2", "3"):
            expected.append(reply(("HELLO", protocol), conn.ask("HELLO", protocol)))
            transaction(conn, commands, expected)
            expected.append(reply(("ECHO", "behind"), conn.ask("ECHO", "behind")))
        finish(replylog, (conn, expected))


@on_servers
def test_threshold(name, io_threads):
    """A large inner reply has a record of its command. When only the whole reply is large, the record is EXEC's.
    Otherwise there is none."""
    with frame_client(name, io_threads, threshold=10_000) as (conn, other, replylog):
        expected = []
        for sizes in ((20_000, 100, 30_000), (4000, 4000, 4000), (100, 200, 300), (12_000,), (9_000,)):
            commands = [("ECHO", "e" * size) for size in sizes]
            conn.send(("MULTI",), *commands, ("EXEC",))
            executed = conn.frames(len(commands) + 2)[-1]
            inner = zip(commands, elements(executed))
            large = [reply(argv, frame, kind="multi") for argv, frame in inner if len(frame) >= 10_000]
            expected += large or ([reply(("EXEC",), executed, kind="multi")] if len(executed) >= 10_000 else [])
        assert len(expected) == 4
        finish(replylog, (conn, expected))


@on_servers
def test_not_ended_by_exec(name, io_threads):
    """DISCARD, a WATCH that aborts, errors in the queue, EXEC and DISCARD without MULTI, and RESET."""
    with frame_client(name, io_threads) as (conn, other, replylog):
        ask = asker(conn, expected := [])
        for protocol in ("2", "3"):
            ask("HELLO", protocol)
            ask("MULTI")
            ask("GET", "a", kind="multi")
            ask("DISCARD", kind="multi")
            ask("WATCH", "a")
            other.call("SET", "a", BIG)
            ask("MULTI")
            ask("GET", "a", kind="multi")
            ask("EXEC", kind="multi")       # null
            ask("MULTI")
            ask("GET", kind="multi")
            ask("NOSUCHCOMMAND", "x", kind="multi")
            ask("GET", "a", kind="multi")
            ask("EXEC", kind="multi")       # EXECABORT
            ask("MULTI")
            ask("EXEC", kind="multi")       # empty
            ask("EXEC")
            ask("DISCARD")
            ask("MULTI", "too", "many")
            ask("GET", "a")
            ask("MULTI")
            ask("GET", "a", kind="multi")
            ask("RESET", kind="multi")
            ask("GET", "a")
        assert [size for _, _, size, _ in expected].count(len(BIG) + 11) == 4
        finish(replylog, (conn, expected))


@on_servers
def test_refused_inside(name, io_threads):
    """The server refuses a nested MULTI and WATCH. Where the transaction goes on, EXEC is logged as a whole."""
    for refused in (("MULTI",), ("WATCH", "a")):
        with frame_client(name, io_threads) as (conn, other, replylog):
            other.call("SET", "a", BIG)
            ask = asker(conn, expected := [])
            ask("MULTI")
            ask("GET", "a", kind="multi")
            conn.send(refused)
            frame = conn.frame()
            assert frame.startswith(b"-"), frame
            expected.append(reply(refused, frame, kind="multi"))
            ask("GET", "b", kind="multi")
            ask("EXEC", kind="multi")
            transaction(conn, [("GET", "a"), ("GET", "b")], expected)
            finish(replylog, (conn, expected))


@on_servers
def test_in_one_write(name, io_threads):
    """Several transactions, and commands between them, in one write."""
    commands = [("ECHO", "before"), ("MULTI",), ("ECHO", "1"), ("ECHO", "2" * 30_000), ("EXEC",), ("ECHO", "between"),
                ("MULTI",), ("EXEC",), ("MULTI",), ("ECHO", "3"), ("DISCARD",), ("EXEC",), ("ECHO", "behind")]
    with frame_client(name, io_threads) as (conn, other, replylog):
        conn.send(*commands)
        finish(replylog, (conn, model(commands, conn.frames(len(commands)))))


def model(commands, frames):
    """The records expected for these commands and replies: transactions as the protocol describes them."""
    expected, queued, inside = [], [], False
    for argv, frame in zip(commands, frames):
        inner = elements(frame) if argv == ("EXEC",) and inside and frame.startswith(b"*") else []
        kind = "multi" if inside else EITHER
        expected += [reply(of, one, kind="multi") for of, one in zip(queued, inner)] or [reply(argv, frame, kind=kind)]
        if frame == b"+QUEUED\r\n":
            queued.append(argv)
        if argv == ("MULTI",) and not inside:
            inside, queued = True, []
        elif argv[0] in ("EXEC", "DISCARD"):
            inside = False
    return expected


def random_commands(rng):
    """Fewer transactions than fit into the connection's own memory, or more."""
    plain = [lambda: ("ECHO", "e" * rng.choice((0, 1, 60, 500, 20_000))),
             lambda: ("LRANGE", "list", "0", rng.randrange(300)), lambda: ("GET", "none"),
             lambda: ("INCR", "counter"), lambda: ("LPOP", "counter"), lambda: ("GET",)]
    ends = [("EXEC",)] * 8 + [("DISCARD",)]
    commands = []
    for _ in range(rng.choice((10, 40))):
        commands += [rng.choice(plain[:-1])() for _ in range(rng.randrange(5))]
        commands.append(("MULTI",))
        commands += [rng.choice(plain if rng.random() < 0.1 else plain[:-1])() for _ in range(rng.randrange(12))]
        commands.append(rng.choice(ends))
    return commands


@on_servers
def test_random_transactions(name, io_threads):
    """Some thousand commands in and between transactions, with requests cut anywhere."""
    rng = random.Random(f"{name} {io_threads}")
    with frame_client(name, io_threads) as (conn, other, replylog):
        other.call("RPUSH", "list", *range(400))
        expected = []
        for _ in range(20):
            commands = random_commands(rng)
            data = b"".join(request(*argv) for argv in commands)
            while data:
                cut = rng.randrange(1, 8000)
                conn.sock.sendall(data[:cut])
                data = data[cut:]
            expected += model(commands, conn.frames(len(commands)))
        finish(replylog, (conn, expected))


@on_servers
def test_many_round_trips(name, io_threads):
    """A transaction that takes a thousand round trips, among other clients' commands: at EXEC replylog still has each
    argv."""
    commands = [("ECHO", f"{number}:" + "e" * (number % 200)) for number in range(1000)]
    with frame_client(name, io_threads) as (conn, other, replylog):
        expected = [reply(("MULTI",), conn.ask("MULTI"))]
        for number, argv in enumerate(commands):
            expected.append(reply(argv, conn.ask(*argv), kind="multi"))
            if number % 50 == 0:
                other.pipeline([("PING",)] * 50)
        executed = conn.ask("EXEC")
        expected += [reply(argv, frame, kind="multi") for argv, frame in zip(commands, elements(executed))]
        finish(replylog, (conn, expected))


@on_servers
def test_argv_memory(name, io_threads):
    """A transaction too long for --argv-memory loses some argv, and the records say so. Sizes and other clients' argv
    stay."""
    commands = [("ECHO", f"{number}:" + "e" * 100) for number in range(600)]
    with frame_client(name, io_threads, 0, "--argv-memory", "32kb") as (conn, _, replylog):
        for argv in [("MULTI",), *commands]:
            conn.ask(*argv)
        inner = elements(conn.ask("EXEC"))
        behind = conn.ask("ECHO", "behind")
        records = wait_records(replylog, conn, len(commands) * 2 + 2)
        assert replylog.stop()[-1]["dropped"] == 0
    executed = records[len(commands) + 1:-1]
    assert [record["reply_bytes"] for record in executed] == list(map(len, inner))
    kept = [(tuple(record["argv"]), argv) for record, argv in zip(executed, commands) if "argv" in record]
    lost = [record["argv_lost"] for record in executed if "argv" not in record]
    assert all(said == tuple(arg[:128] for arg in argv) for said, argv in kept)
    assert len(kept) >= 60 and len(lost) >= 200 and set(lost) == {"argv_memory"}, (len(kept), set(lost))
    compare(records[-1:], [reply(("ECHO", "behind"), behind)])


@on_versions
def test_a_thousand_at_once(name, io_threads):
    """A thousand transactions in one write, with large replies among them: all exact, with argv, at the default limits."""
    commands = []
    for number in range(1000):
        commands += [("MULTI",), ("ECHO", f"{number}"), ("GET", "large" if number % 4 else "small"), ("EXEC",)]
    with frame_client(name, io_threads) as (conn, other, replylog):
        other.call("SET", "large", "x" * 20_000)
        other.call("SET", "small", "x")
        for protocol in ("2", "3"):
            hello = reply(("HELLO", protocol), conn.ask("HELLO", protocol))
            conn.send(*commands)
            expected = [hello] + model(commands, conn.frames(len(commands)))
            assert len(expected) == 5001
            wait_records(replylog, conn, len(expected))
            compare(records_of(replylog, conn)[:len(expected)], expected)
            del replylog.lines[1:]
        stop = replylog.stop()[-1]
        assert (stop["dropped"], stop["unattributed_bytes"], stop["joined"]) == (0, 0, 0), stop


# The number of commands like MULTI and EXEC that fit into the connection's own memory.
INLINE_COMMANDS = 32


@on_servers
def test_too_many_at_once(name, io_threads):
    """More outstanding transactions than there is memory for: replylog counts the loss once, logs what it read before,
    and logs nothing more until it has joined the connection again."""
    commands = [("MULTI",), ("ECHO", "inside"), ("EXEC",)] * (INLINE_COMMANDS // 2)
    commands += [("MULTI",), ("ECHO", "lost"), ("EXEC",)] * 10
    # The one block of 16 KiB holds the argv of the commands behind the first 32.
    with frame_client(name, io_threads, 0, "--argv-memory", "16kb") as (conn, _, replylog):
        conn.send(*commands)
        # What is given up takes the proof of its whole burst with it.
        expected = list(map(doubtful, model(commands, conn.frames(len(commands)))[:INLINE_COMMANDS // 2 * 3]))
        while not (records := records_of(replylog, conn)) or records[-1].get("argv") != ["ECHO", "again"]:
            conn.ask("ECHO", "again")
        records, stop = records_of(replylog, conn), replylog.stop()[-1]
    compare(records[:len(expected)], expected)
    assert {tuple(record["argv"]) for record in records[len(expected):]} == {("ECHO", "again")}, records[len(expected):]
    losses = [(record["reason"], record["count"]) for record in replylog.records() if record["event"] == "dropped"]
    assert losses == [("turns", 1)] and (stop["joined"], stop["unjoined"]) == (1, 0), (losses, stop)


@on_servers
def test_scripts(name, io_threads):
    """EVAL, EVALSHA and FCALL are logged as called, and inside a transaction as parts of it."""
    body = "return redis.call('GET', 'big')"
    library = ("#!lua name=lib\nredis.register_function{function_name='big', flags={'no-writes'}, "
               f"callback=function() {body} end}}")
    with frame_client(name, io_threads) as (conn, other, replylog):
        other.call("SET", "big", BIG)
        sha = other.call("SCRIPT", "LOAD", body).decode()
        other.call("FUNCTION", "LOAD", library)
        scripts = [("EVAL", body, "0"), ("evalsha", sha, "0"), ("EVAL_RO", body, "0"), ("EVALSHA_RO", sha, "0"),
                   ("FCALL", "big", "0"), ("FCALL_RO", "big", "0")]
        # Their errors may contain anything.
        failing = [("EVALSHA", "f" * 40, "0"), ("EVAL", "return redis.error_reply('own')", "0")]
        ask = asker(conn, expected := [])
        for argv in scripts:
            ask(*argv, kind="script")
        for argv in failing:
            ask(*argv, kind="script", mark=doubtful)
        conn.send(*failing, *scripts)
        expected += [doubtful(reply(argv, frame, kind="script"))
                     for argv, frame in zip([*failing, *scripts], conn.frames(len(failing + scripts)))]
        conn.send(*scripts)
        expected += [reply(argv, frame, kind="script") for argv, frame in zip(scripts, conn.frames(len(scripts)))]
        transaction(conn, scripts, expected)
        assert sum(want[2] > len(BIG) for want in expected) == 24
        finish(replylog, (conn, expected))


@on_servers
def test_open_at_the_end(name, io_threads):
    """Transactions that never end: the client disconnects, or replylog stops."""
    with Server(name, io_threads=io_threads) as server, Replylog(server.pid, 0) as replylog, \
            FrameClient(server.port) as stays:
        expected = [reply(("MULTI",), stays.ask("MULTI")), reply(("GET", "a"), stays.ask("GET", "a"), kind="multi")]
        with FrameClient(server.port) as goes:
            gone = [reply(("MULTI",), goes.ask("MULTI")), reply(("GET", "b"), goes.ask("GET", "b"), kind="multi")]
        stop = finish(replylog, (stays, expected), (goes, gone))
        assert stop["unanswered"] == 0, stop
        assert len(records_of(replylog, goes)) == 2
