"""Names that are written as no client writes them. The servers' tables compare names as C strings, so that a zero byte ends
one, but hash them whole: whether REPLY, a zero byte and a number is REPLY depends on where the hash falls."""
from harness import Replylog, Server
from resp import encode
from test_join import bulk, echo, next_is_exact, receive

TRIES = 20_000
BATCH = 500
OK = len(b"+OK\r\n")


def cases(function):
    function.cases = {name: (name,) for name in ("valkey-9.1", "redis-7.0", "redis-8.6")}
    return function


def another_reply(server):
    """A subcommand that the server takes for CLIENT's REPLY."""
    with server.client() as client:
        for first in range(0, TRIES, BATCH):
            names = [b"REPLY\0%d" % number for number in range(first, first + BATCH)]
            lengths = client.drain(b"".join(encode([b"CLIENT", name, b"ON"]) for name in names), BATCH)
            if OK in lengths:
                return names[lengths.index(OK)]
    raise AssertionError(f"none of {TRIES} names is REPLY to {server.name}")


@cases
def test_zero_byte(name):
    """It silences a connection: what that asks then gets no reply, and no other command's is taken for one."""
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
