"""Connections that are older than replylog. It joins them where it has proof that a command begins and nothing is
outstanding, and not before. Every ECHO here names its own size, so each record can be checked against its argv."""
import re
import socket
import threading
from pathlib import Path

from replylog import Replylog
from resp import ReplyCounter, encode
from server import Server
from waiting import wait_until

ALONE = "its clients are never idle: beside other tests that use every core, replylog would take minutes to start"
SERVERS = {f"{name},{threads} io threads": (name, threads)
           for name in ("valkey-9.1", "redis-7.0") for threads in (1, 2)}
LARGE = 50_000_000


def cases(function):
    function.cases = SERVERS
    return function


def payload(size):
    """size bytes that begin with that number."""
    return b"%d:" % size + b"x" * (size - len(b"%d:" % size))


def echo(size):
    return encode([b"ECHO", payload(size)])


def bulk(size):
    return len(b"$%d\r\n" % size) + size + 2


def check_echoes(records):
    """Every record has the size that its own argv requested."""
    for record in records:
        if record.get("cmd") != "ECHO" or record["state"] == "aborted":
            continue
        size = int(record["argv"][1].split(":")[0])
        assert record["reply_bytes"] == bulk(size), record
        assert record["attribution"] == "exact", record


def receive(sock, count):
    while count:
        count -= len(sock.recv(min(count, 1 << 20)))


def check_stop(replylog, joined):
    """Ends replylog. The right number of connections was joined, and none at a wrong point, which would show as a framing
    loss."""
    stop = replylog.stop()[-1]
    assert (stop["joined"], stop["unjoined"], stop["dropped"]) == (joined, 0, 0), stop
    return stop


def next_is_exact(client, replylog, size=777):
    """The connection is joined at its next command, whose record is exact."""
    client.sock.sendall(echo(size))
    receive(client.sock, bulk(size))
    wait_until(lambda: any(record.get("argv", [""])[-1].startswith(f"{size}:") for record in replylog.replies()),
               "record of the command after the boundary")
    check_echoes(replylog.replies())


@cases
def test_idle(name, io_threads):
    """The usual case: a pool of idle connections."""
    with Server(name, io_threads=io_threads) as server, server.client() as older, server.client() as silent:
        older.call("PING")
        silent.call("PING")
        with Replylog(server.pid) as replylog:
            next_is_exact(older, replylog)
            check_stop(replylog, 1)


@cases
def test_looks_like_tls(name, io_threads):
    """A client may send any bytes. Only the type of its connection says that it is TLS."""
    with Server(name, io_threads=io_threads) as server, server.client() as older:
        older.call("PING")
        with Replylog(server.pid, 0) as replylog:
            older.sock.sendall(b"\x16\x03\r\n")
            assert older.sock.recv(1 << 16).startswith(b"-ERR unknown command")
            next_is_exact(older, replylog)
            stop = replylog.stop()[-1]
    # replylog does not follow a line with control characters: it counts a loss, and joins the connection again behind it.
    assert (stop["joined"], stop["unjoined"], stop["dropped"]) == (2, 0, 1), stop


class Unknown(Server):
    """A server whose version is in no table, so replylog does not read its structs."""

    def command(self, binary=None):
        binary = f"{self.work}/{self.kind}-server"
        program = Path(f"{self.dir}/usr/bin/{self.kind}-server").read_bytes()
        copy = Path(f"{self.dir}{binary}")
        copy.write_bytes(re.sub(rb"(?<!\d)%b\.\d+" % self.version.encode(), lambda found: b"@" * len(found[0]), program))
        copy.chmod(0o755)
        return super().command(binary)


def test_unknown_structs_are_marked():
    """Where replylog does not know the structs, records of joined connections are marked, and a failure to frame them
    counts as a loss."""
    with Unknown("redis-7.0") as server, server.client() as older:
        older.call("PING")
        with Replylog(server.pid, 0) as replylog:
            assert older.call("ECHO", payload(50)) == payload(50)
            replylog.wait_replies(1)
            older.sock.sendall(b"*1\r\n+\r\n")
            assert b"Protocol error" in older.sock.recv(1 << 16)
            records = replylog.stop()
    assert [record["attribution"] for record in replylog.replies()] == ["ambiguous"], records
    assert sum(record["count"] for record in records if record.get("reason") == "framing") == 1, records


@cases
def test_inside_a_request(name, io_threads):
    """replylog attaches when the server has half a command, cut at each kind of position."""
    request = encode([b"SET", b"key", b"v" * 100]) + echo(50)
    cuts = [1, 3, 4, 6, 8, 13, 15, 24, 28, 60, len(request) - len(echo(50)) + 5]
    with Server(name, io_threads=io_threads) as server:
        olders = [server.client() for _ in cuts]
        for older, cut in zip(olders, cuts):
            older.call("PING")
            older.sock.sendall(request[:cut])
        # Wait until the server has read these halves into its buffers.
        with server.client() as client:
            wait_until(lambda: unread(client, olders) == 0, "the halves to be read")
        with Replylog(server.pid) as replylog:
            for older, cut in zip(olders, cuts):
                older.sock.sendall(request[cut:])
                receive(older.sock, len(b"+OK\r\n") + bulk(50))
                next_is_exact(older, replylog)
            check_stop(replylog, len(cuts))
        records = replylog.replies()
        for older in olders:
            older.close()
    check_echoes(records)
    # A half-read command has no record, unless its rest contains a whole command.
    assert all(record["cmd"] == "ECHO" for record in records), records


def unread(client, olders):
    """The bytes of these connections that the server has not read yet, as the kernel counts them."""
    ports = {older.sock.getsockname()[1] for older in olders}
    total = 0
    with open("/proc/net/tcp") as table:
        for line in table.readlines()[1:]:
            fields = line.split()
            if int(fields[2].split(":")[1], 16) in ports:
                total += int(fields[4].split(":")[1], 16)
    client.call("PING")
    return total


@cases
def test_inside_a_big_argument(name, io_threads):
    """The server has read half a SET of some MB. The argument's bytes are no command, whatever they look like."""
    value = echo(60) * 100_000
    request = encode([b"SET", b"key", value])
    cut = len(request) // 2
    with Server(name, io_threads=io_threads) as server, server.client() as older, server.client() as other:
        older.call("PING")
        older.sock.sendall(request[:cut])
        wait_until(lambda: unread(other, [older]) == 0, "half a request to be read")
        with Replylog(server.pid) as replylog:
            older.sock.sendall(request[cut:])
            receive(older.sock, len(b"+OK\r\n"))
            next_is_exact(older, replylog)
            check_stop(replylog, 1)
    assert [record["cmd"] for record in replylog.replies()] == ["ECHO"], replylog.replies()


@cases
def test_inside_a_large_reply(name, io_threads):
    """replylog attaches while 50 MB are half written and commands wait behind them. None of that has a record."""
    with Server(name, io_threads=io_threads) as server, server.client() as older:
        older.call("SETRANGE", "huge", LARGE - 1, "x")
        older.send("GET", "huge")
        older.sock.recv(1000)
        with Replylog(server.pid) as replylog:
            older.sock.sendall(echo(99))
            receive(older.sock, bulk(LARGE) - 1000 + bulk(99))
            next_is_exact(older, replylog)
            stop = check_stop(replylog, 1)
    assert len(replylog.replies()) == 1, replylog.replies()
    assert stop["unattributed_bytes"] > LARGE * 3 // 4, stop


@cases
def test_behind_a_deep_pipeline(name, io_threads):
    """2,000 replies of 10 KB wait for a client that does not read."""
    deep = 2000
    with Server(name, io_threads=io_threads) as server, server.client() as older:
        older.call("PING")
        sender = threading.Thread(target=older.sock.sendall, args=(echo(10_000) * deep,))
        sender.start()
        older.sock.recv(1000)
        with Replylog(server.pid) as replylog:
            receive(older.sock, deep * bulk(10_000) - 1000)
            sender.join()
            next_is_exact(older, replylog)
            check_stop(replylog, 1)
    check_echoes(replylog.replies())


@cases
def test_blocked_client(name, io_threads):
    """The client is blocked in BLPOP at the attach, and the server has already read a command behind it."""
    with Server(name, io_threads=io_threads) as server, server.client() as other:
        waiting, piped = server.client(), server.client()
        for client in (waiting, piped):
            client.call("PING")
            client.send("BLPOP", "list", "0")
        piped.sock.sendall(echo(80))
        wait_until(lambda: b"blocked_clients:2" in other.call("INFO", "clients"), "two blocked clients")
        with Replylog(server.pid) as replylog:
            # This command is behind a blocked one, which is still outstanding when the server reads it.
            waiting.sock.sendall(echo(70))
            wait_until(lambda: unread(other, [waiting, piped]) == 0, "the commands behind to be read")
            other.call("RPUSH", "list", "a" * 3000, "b" * 2000)
            for client, size in ((waiting, 70), (piped, 80)):
                client.read()
                assert len(client.read()) == size
            for client in (waiting, piped):
                client.sock.sendall(echo(777))
                client.read()
            replylog.wait_replies(2)
            check_stop(replylog, 3)
        waiting.close()
        piped.close()
    check_echoes(replylog.replies())
    joined = {record["client_addr"] for record in replylog.replies() if record["cmd"] == "ECHO"}
    assert len(joined) == 2, replylog.replies()
    assert not [record for record in replylog.replies() if record["cmd"] == "BLPOP"], replylog.replies()


@cases
def test_never_idle(name, io_threads):
    """replylog joins a multiplexed client that always has up to 50 commands outstanding."""
    with Server(name, io_threads=io_threads) as server, server.client() as older:
        older.call("PING")
        over = threading.Event()
        sent = []
        window = threading.Semaphore(50)

        def send():
            size = 100
            while not over.is_set():
                window.acquire()
                size = 100 + (size * 7919 + 13) % 5000
                sent.append(bulk(size))
                older.sock.sendall(echo(size))
            older.sock.shutdown(socket.SHUT_WR)

        def read():
            counter = ReplyCounter()
            while data := older.sock.recv(1 << 16):
                for _ in counter.feed(data):
                    window.release()

        threads = [threading.Thread(target=send), threading.Thread(target=read)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(sent) > 200, "traffic")
        try:
            with Replylog(server.pid) as replylog:
                replylog.wait_replies(500)
                over.set()
                for thread in threads:
                    thread.join()
                stop = replylog.stop()[-1]
        finally:
            over.set()
    records = replylog.replies()
    check_echoes(records)
    assert len(records) >= 500 and stop["joined"] == 1 and stop["dropped"] == 0, stop
    # From the join on, no record is missing until the server closes.
    sizes = [record["reply_bytes"] for record in records if record["state"] == "complete"]
    assert any(sent[at:at + len(sizes)] == sizes for at in range(len(sent))), "a record is missing, or out of order"


@cases
def test_not_plain(name, io_threads):
    """replylog joins RESP2 subscribers, open transactions and silenced clients when they are ordinary clients again."""
    begin = {"SUBSCRIBE": ("SUBSCRIBE", "channel"), "MULTI": ("MULTI",), "REPLY": ("CLIENT", "REPLY", "OFF")}
    end = {"SUBSCRIBE": ("UNSUBSCRIBE", "channel"), "MULTI": ("EXEC",), "REPLY": ("CLIENT", "REPLY", "ON")}
    with Server(name, io_threads=io_threads) as server, server.client() as other:
        olders = {kind: server.client() for kind in begin}
        for kind, older in olders.items():
            older.send(*begin[kind])
            if kind != "REPLY":
                older.read()
        wait_until(lambda: unread(other, list(olders.values())) == 0, "what they began to be read")
        with Replylog(server.pid) as replylog:
            for kind, older in olders.items():
                older.send("PING")
                older.send(*end[kind])
                for _ in range({"SUBSCRIBE": 2, "MULTI": 2, "REPLY": 1}[kind]):
                    older.read()
                next_is_exact(older, replylog)
            check_stop(replylog, len(olders))
        for older in olders.values():
            older.close()
    assert all(record["cmd"] in ("ECHO", "PING") for record in replylog.replies()), replylog.replies()
