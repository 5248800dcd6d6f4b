"""At --threshold 0 every record equals the client's count, in order, and none is missing."""
import os
import random

import oracle
import workload
from oracle import Expected
from replylog import Replylog
from resp import encode
from server import Server

COMMANDS = int(os.environ.get("REPLYLOG_COMMANDS", 20_000))


def play_and_compare(server, play):
    """play() drives the server and returns {address: [Expected]}, and the records must say the same. Returns the stop
    record."""
    with Replylog(server.pid, 0) as replylog:
        expected = play()
        replylog.wait_replies(sum(map(len, expected.values())))
        records = replylog.stop()
        print("stop record:", records[-1])
        print("stderr:", replylog.stderr)
        oracle.compare(expected, records)
        assert replylog.returncode == 0, replylog.returncode
        assert replylog.stderr == "", replylog.stderr
    server.assert_untouched()
    return records[-1]


def test_every_reply(name, io_threads, connections):
    with Server(name, io_threads=io_threads) as server:
        with server.client() as client:
            workload.fill(client)

        def play():
            outcome = oracle.run(server.port, COMMANDS, connections, stalls=name == "redis-7.0" and io_threads > 1)
            print(outcome)
            return outcome.expected

        stop = play_and_compare(server, play)
        assert io_threads == 1 or stop["hits_io"] > 0, f"no IO thread did anything: {stop}"


# redis 7.0 uses its IO threads only when twice as many clients as threads wait for a write (stopThreadedIOIfNeeded): so
# these cases have more connections, and moments in which all of them wait.
test_every_reply.cases = {f"{name},{io_threads} io threads": (name, io_threads, connections)
                          for name, io_threads, connections in
                          (("valkey-9.1", 4, 8), ("valkey-9.1", 2, 8), ("valkey-9.1", 1, 8),
                           ("redis-7.0", 4, 24), ("redis-7.0", 2, 16), ("redis-7.0", 1, 8))}


def on_one_connection(server, commands, resp3=False):
    """Sends (argv, request bytes) one pipeline at a time on one connection."""
    if resp3:
        commands = [([b"HELLO", b"3"], encode([b"HELLO", b"3"])), *commands]
    wanted = [Expected.of(argv, request) for argv, request in commands if argv]
    with server.client() as client:
        lengths = client.drain(b"".join(request for _, request in commands), len(wanted))
        for want, length in zip(wanted, lengths, strict=True):
            want.reply_bytes = length
        return {client.addr: wanted}


def each_server(function):
    function.cases = {"valkey-9.1": ("valkey-9.1",), "redis-7.0": ("redis-7.0",)}
    return function


@each_server
def test_reply_types(name):
    """Every RESP3 type, attributes included, as DEBUG PROTOCOL makes them."""
    types = (b"string", b"integer", b"double", b"null", b"array", b"set", b"map", b"attrib", b"verbatim", b"true",
             b"false", b"bignum")
    commands = [(argv, encode(argv)) for argv in ([b"DEBUG", b"PROTOCOL", kind] for kind in types)]
    with Server(name) as server:
        for resp3 in (False, True):
            play_and_compare(server, lambda: on_one_connection(server, commands, resp3))


@each_server
def test_inline_quotes(name):
    """Inline commands as a person types them, with quotes and escapes. Empty lines get no reply."""
    lines = [([b"SET", b"k", b"a b"], b'SET k "a b"\r\n'), ([], b"\r\n"), ([b"GET", b"k"], b"GET k\n"),
             ([b"ECHO", b"A\n\xff"], b'ECHO "\\x41\\n\\xff"\r\n'), ([b"ECHO", b"it's"], b"ECHO 'it\\'s'\r\n"),
             ([b"ECHO", b""], b'  ECHO\t""  \r\n'), ([], b"*0\r\n"), ([b"PING"], b"PING\r\n")]
    with Server(name) as server:
        play_and_compare(server, lambda: on_one_connection(server, lines))


@each_server
def test_inline_starts_with_a_quote(name):
    """Any byte but an asterisk starts an inline command, also a quote."""
    lines = [([b"PING"], b"'PING'\r\n"), ([b"ECHO", b"a"], b'"ECHO" a\r\n'), ([b"PING"], b"PING\r\n")]
    with Server(name) as server:
        play_and_compare(server, lambda: on_one_connection(server, lines))


def trickle(server, commands, sizes):
    """Sends the same bytes in pieces, each only when the server has read the one before."""
    wanted = [Expected.of(argv, request) for argv, request in commands]
    data = b"".join(request for _, request in commands)
    with server.client() as client, server.client() as pacer:
        while data:
            size = next(sizes)
            client.sock.sendall(data[:size])
            data = data[size:]
            # After this round trip the server has gone around its event loop.
            pacer.call("PING")
        for want, length in zip(wanted, client.drain(b"", len(wanted)), strict=True):
            want.reply_bytes = length
        return {client.addr: wanted}, pacer.addr


@each_server
def test_requests_in_pieces(name):
    """Requests in pieces of one to seven bytes, so that headers are split over several reads."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    argvs = [[b"SET", b"key", b"x" * 40], [b"GET", b"key"], [b"PING"], [b"ECHO", b"\r\n*1\r\n"], [b"MGET", *[b"key"] * 12]]
    commands = [(argv, encode(argv)) for argv in argvs * 3] + [([b"GET", b"key"], b"GET key\r\n")]
    with Server(name) as server, Replylog(server.pid, 0) as replylog:
        expected, pacer = trickle(server, commands, iter(lambda: dice.randint(1, 7), None))
        replylog.wait_replies(len(commands))
        records = [record for record in replylog.stop() if record.get("client_addr") != pacer]
        for addr, wanted in expected.items():
            oracle.compare_connection(addr, wanted, [record for record in records if record["event"] == "reply"])
