"""Command names as no client writes them. The servers' tables compare names as C strings, so a zero byte ends a name, but
hash the whole of it. Whether REPLY, a zero byte and a number is REPLY depends on the hash."""
from replylog import Replylog
from resp import ReplyCounter, encode
from server import Server
from test_commands import SERVERS
from test_join import bulk, check_echoes, echo, next_is_exact, receive
from waiting import wait_until

TRIES = 20_000
BATCH = 500
OK = len(b"+OK\r\n")


def cases(function):
    function.cases = {name: (name,) for name in ("valkey-9.1", "redis-7.0", "redis-8.6")}
    return function


def another_reply(server):
    """Finds a subcommand that the server takes for CLIENT's REPLY."""
    with server.client() as client:
        for first in range(0, TRIES, BATCH):
            names = [b"REPLY\0%d" % number for number in range(first, first + BATCH)]
            lengths = client.drain(b"".join(encode([b"CLIENT", name, b"ON"]) for name in names), BATCH)
            if OK in lengths:
                return names[lengths.index(OK)]
    raise AssertionError(f"none of {TRIES} names is REPLY to {server.name}")


@cases
def test_zero_byte(name):
    """The name silences a connection. Its later commands get no reply, and replylog gives them no other command's reply."""
    with Server(name) as server, Replylog(server.pid, 0) as replylog, server.client() as client:
        reply = another_reply(server)
        client.sock.sendall(encode([b"CLIENT", reply, b"OFF"]) + echo(5000) + echo(6000) +
                            encode([b"CLIENT", reply, b"ON"]))
        receive(client.sock, OK)
        for size in (7000, 8000):
            client.sock.sendall(echo(size))
            receive(client.sock, bulk(size))
        next_is_exact(client, replylog)
        stop = replylog.stop()[-1]
    assert stop["left_out_other"] >= 1, stop
    asked = {record["argv"][1].partition(":")[0] for record in replylog.replies() if record["cmd"] == "ECHO"}
    assert "777" in asked and not asked & {"5000", "6000"}, asked


# Typed lines. Valkey 8.1 and 9.1 drop the bytes 0xff (sdsparsearg in src/sds.c); to other servers these are no commands.
DROPPED = (b"CLI\xffENT REPLY SKIP", b"CLIENT \xffREPLY SKIP", b"SUB\xffSCRIBE x y", b"'MU\xffLTI'",
           b"\"CLIENT\"\xff REPLY OFF", b"C\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xffLIENT REPLY SKIP", b"MONITOR\xff")


def dropped_cases(function):
    function.cases = {name: (name,) for name in ("valkey-9.1", "valkey-8.1", "redis-7.0", "redis-8.0")}
    return function


@dropped_cases
def test_dropped_bytes(name):
    """Whatever the server takes the line for, no reply behind it is given to another command."""
    sizes = (5000, 6000, 7000, 8000, 9000)
    with Server(name) as server, Replylog(server.pid, 0) as replylog:
        for line in DROPPED:
            with server.client() as client, server.client() as pacer:
                client.drain(echo(4000), 1)
                client.sock.sendall(line + b"\r\n" + b"".join(map(echo, sizes)))
                pacer.call("PING")
        replylog.stop()
    echoes = [record for record in replylog.replies() if record.get("cmd") == "ECHO"]
    check_echoes(record for record in echoes if record["attribution"] == "exact")
    before = [record for record in echoes if record["argv"][-1].startswith("4000:")]
    assert len(before) == len(DROPPED), before


# Typed lines that some servers refuse, and the argument that other servers read.
AT_THE_END = {b"ECHO 'a\\'": "a\\", b'ECHO "b\\"': "b\\", b"ECHO 'c'": "c", b'ECHO "\\x64"': "d", b'ECHO "e"\'f\'': "ef"}


@dropped_cases
def test_escapes_at_the_end_of_a_line(name):
    """The record has the argument that ECHO's reply has."""
    with Server(name) as server, Replylog(server.pid, 0) as replylog:
        for line in AT_THE_END:
            for end in (b"\n", b"\r\n"):
                with server.client() as client:
                    client.drain(line + end, 1)
        replylog.wait_replies(2 * len(AT_THE_END))
        replylog.stop()
    sizes = {word: len(f"${len(word)}\r\n{word}\r\n") for word in AT_THE_END.values()}
    answered = [record for record in replylog.replies() if record["reply_bytes"] in sizes.values()]
    for record in answered:
        assert sizes.get(record["argv"][1]) == record["reply_bytes"], record
    taken = AT_THE_END if name == "valkey-9.1" else ("c", "d")
    assert len(answered) == 2 * len(taken), answered


def all_servers(function):
    function.cases = {name: (name,) for name in SERVERS}
    return function


@all_servers
def test_no_arguments(name):
    """The server skips multibulks of zero or fewer arguments without a reply, however they are cut."""
    least = b"*-9223372036854775808\r\n"
    with Server(name) as server, Replylog(server.pid, 0) as replylog, server.client() as client:
        client.drain(b"*-5\r\n" + echo(5000) + b"*0\r\n\r\n*-1\r\n" + echo(6000) + b"*-2147483648\r\n" + echo(7000), 3)
        for cut in range(1, len(least)):
            client.drain(echo(100) + least[:cut], 1)
            client.drain(least[cut:] + echo(200), 1)
        replylog.wait_replies(3 + 2 * (len(least) - 1))
        records = replylog.stop()
    assert len(replylog.replies()) == 3 + 2 * (len(least) - 1), records[-1]
    assert not [record for record in records if record["event"] == "dropped"], records
    check_echoes(replylog.replies())


def is_logged(replylog, size):
    return any(record.get("argv", [""])[-1].startswith(f"{size}:") for record in replylog.replies())


@all_servers
def test_lines_of_blanks(name):
    """Behind a line of blanks, Valkey 8.0 and 8.1 read the multibulk as lines until they have executed one, so there are
    more replies than commands."""
    sizes = (5000, 6000, 7000, 8000)
    lines = (b" \r\n", b"\t\n", b"\r\r\n", b" \r\n \r\n", b" \r\n\r\n", b"\v\n")
    with Server(name) as server, Replylog(server.pid, 0) as replylog:
        for last, line in enumerate(lines, 777):
            with server.client() as client:
                client.sock.sendall(line + b"".join(map(echo, sizes)) + echo(last))
                counter = ReplyCounter()
                while bulk(last) not in [length for _, length in counter.feed(client.sock.recv(1 << 18))]:
                    pass
                wait_until(lambda: is_logged(replylog, last), f"record of {last}")  # noqa: B023
        stop = replylog.stop()[-1]
    records = [record for record in replylog.replies() if record["attribution"] == "exact"]
    # A line with only "ECHO" is an error.
    check_echoes(record for record in records if record.get("argv") != ["ECHO"])
    assert stop["dropped"] == 0, stop
