"""Many connections, many at once, and more than replylog has room for: every record is right, and every loss is counted."""
import os
import resource
import signal
import socket
import struct
from contextlib import ExitStack, contextmanager

from conversation import FrameClient, on_servers, request, wait_records
from environment import Skip
from replylog import Replylog
from server import Server
from waiting import wait_until

CONNECTIONS = 10_000
FILES = CONNECTIONS + 1000
CHURN = 5000


def echo(number):
    """A command that names itself and the size of its reply."""
    word = f"{number}:" + "e" * (number % 300)
    return ("ECHO", word), len(f"${len(word)}\r\n") + len(word) + 2


def receive(sock, count):
    while count:
        data = sock.recv(count)
        assert data, "closed by the server"
        count -= len(data)


def by_number(replylog):
    """{the number that an ECHO names: its records}."""
    found = {}
    for record in replylog.replies():
        if record.get("cmd") == "ECHO":
            found.setdefault(int(record["argv"][1].split(":")[0]), []).append(record)
    return found


def check_echo(record, number, addr):
    argv, size = echo(number)
    assert record["argv"] == [arg[:128] for arg in argv], (record, number)
    said = record["client_addr"], record["reply_bytes"], record["attribution"]
    assert said == (addr, size, "exact"), (record, number)


@contextmanager
def many_files():
    """Raises the limit of open files, here and for the server that starts inside."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), max(hard, FILES)))
    except (ValueError, OSError):
        raise Skip(f"may not open {FILES} files: the hard limit is {hard}") from None
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, max(hard, FILES)))


@on_servers
def test_ten_thousand_connections(name, io_threads):
    """Ten thousand connections at once, each with a few commands of its own."""
    turns = 3
    with many_files(), Server(name, "--maxclients", "10900", io_threads=io_threads) as server, \
            Replylog(server.pid, 0, "--max-clients", str(CONNECTIONS + 10)) as replylog:
        socks = []
        try:
            for _ in range(CONNECTIONS):
                socks.append(socket.create_connection(("127.0.0.1", server.port), timeout=20))
            addrs = ["127.0.0.1:%d" % sock.getsockname()[1] for sock in socks]
            for turn in range(turns):
                numbers = range(turn * CONNECTIONS, (turn + 1) * CONNECTIONS)
                for sock, number in zip(socks, numbers):
                    sock.sendall(request(*echo(number)[0]))
                for sock, number in zip(socks, numbers):
                    receive(sock, echo(number)[1])
            replylog.wait_replies(turns * CONNECTIONS)
            stop = replylog.stop()[-1]
        finally:
            for sock in socks:
                sock.close()
    found = by_number(replylog)
    assert stop["dropped"] == 0 and stop["replies"] == len(found) == turns * CONNECTIONS, (stop, len(found))
    for number in range(turns * CONNECTIONS):
        record, = found[number]
        check_echo(record, number, addrs[number % CONNECTIONS])
    assert len({record["client_id"] for records in found.values() for record in records}) == CONNECTIONS


@on_servers
def test_churn(name, io_threads):
    """Connections open and close as fast as possible, in every manner, with room for few. Numbers and addresses are used
    again, and no state of a former connection stays."""
    with Server(name, io_threads=io_threads) as server, Replylog(server.pid, 0, "--max-clients", "100") as replylog:
        addrs = []
        with FrameClient(server.port) as stays:
            for number in range(CHURN):
                argv, size = echo(number)
                with FrameClient(server.port) as conn:
                    addrs.append(conn.addr)
                    if number % 3 == 0:         # sends half a command
                        conn.sock.sendall(request(*argv) + b"*2\r\n$4\r\nECHO\r\n$10\r\nhal")
                        receive(conn.sock, size)
                    elif number % 3 == 1:       # resets the connection inside a transaction
                        conn.send(("MULTI",), ("GET", "a"), ("DISCARD",), argv, ("MULTI",))
                        receive(conn.sock, 5 + 9 + 5 + size + 5)
                        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    else:                       # subscribes, and closes
                        conn.send(argv, ("SUBSCRIBE", "a"))
                        receive(conn.sock, size + len("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"))
                if number % 50 == 49:           # wait for the server
                    wait_until(lambda: stays.ask("CLIENT", "LIST").count(b"\n") < 10, "closed connections")
            wait_until(lambda: len(by_number(replylog)) == CHURN, f"{CHURN} records")
            stop = replylog.stop()[-1]
    assert stop["dropped"] == 0, [record for record in replylog.records() if record["event"] == "dropped"]
    found = by_number(replylog)
    for number, addr in enumerate(addrs):
        record, = found[number]
        check_echo(record, number, addr)


@on_servers
def test_deeper_than_max_pipeline(name, io_threads):
    """The argv of commands that do not fit is lost, and the records say so. Sizes are exact, and so is every argv that is
    there."""
    count = 2000
    with Server(name, io_threads=io_threads) as server, Replylog(server.pid, 0, "--max-pipeline", "16") as replylog, \
            FrameClient(server.port) as conn:
        conn.send(*(echo(number)[0] for number in range(count)))
        frames = conn.frames(count)
        again = conn.ask("ECHO", "alone again")
        records = wait_records(replylog, conn, count + 1)
        assert replylog.stop()[-1]["dropped"] == 0
    assert [record["reply_bytes"] for record in records] == [*map(len, frames), len(again)]
    assert {record["attribution"] for record in records} == {"exact"}
    lost = 0
    for number, record in enumerate(records[:-1]):
        if "argv_lost" in record:
            assert record["argv_lost"] == "pipeline_depth" and "argv" not in record and "cmd" not in record, record
            lost += 1
        else:
            check_echo(record, number, conn.addr)
    assert lost > count // 4, lost
    assert records[-1]["argv"] == ["ECHO", "alone again"] and records[0]["argv"] == list(echo(0)[0]), records[-1]


@on_servers
def test_more_than_max_clients(name, io_threads):
    """replylog follows the first ones, and counts each read of the others. A new client takes the room of one that has
    disconnected."""
    room, more, turns = 5, 15, 3
    with Server(name, io_threads=io_threads) as server, Replylog(server.pid, 0, "--max-clients", str(room)) as replylog:
        conns = [FrameClient(server.port) for _ in range(room + more)]
        for turn in range(turns):
            for number, conn in enumerate(conns):
                conn.ask(*echo(turn * len(conns) + number)[0])
        for conn in conns[:room]:
            assert len(wait_records(replylog, conn, turns)) == turns
        conns[0].sock.close()
        addrs = {}

        def has_a_place():
            number = 1000 + len(addrs)
            with FrameClient(server.port) as comes:
                comes.ask(*echo(number)[0])
                addrs[number] = comes.addr
            return by_number(replylog).keys() & addrs.keys()

        wait_until(has_a_place, "a connection in the room that became free")
        records = replylog.stop()
        for conn in conns:
            conn.sock.close()
    losses = sum(record["count"] for record in records if record["event"] == "dropped")
    assert {record["reason"] for record in records if record["event"] == "dropped"} == {"clients_full"}, records
    # Each record or loss is one read, except those that arrived when the first client disconnected.
    found = by_number(replylog)
    assert all(number % (room + more) < room for number in found if number < 1000), sorted(found)
    assert more * turns <= losses <= more * turns + len(addrs), (losses, len(addrs))
    for number, (record,) in found.items():
        check_echo(record, number, addrs[number] if number >= 1000 else conns[number % (room + more)].addr)


@on_servers
def test_ring_too_small(name, io_threads):
    """replylog is stopped for a while, so it can't keep up. The records that exist are right, and the losses account for
    all others."""
    count = first = 20_000
    with Server(name, io_threads=io_threads) as server, Replylog(server.pid, 0, "--ring-size", "64kb") as replylog, \
            FrameClient(server.port) as conn:
        replylog.process.send_signal(signal.SIGSTOP)
        try:
            for begin in range(0, count, 500):
                conn.send(*(echo(number)[0] for number in range(begin, begin + 500)))
                receive(conn.sock, sum(echo(number)[1] for number in range(begin, begin + 500)))
        finally:
            replylog.process.send_signal(signal.SIGCONT)

        def is_logged():
            nonlocal count
            conn.ask(*echo(count)[0])
            count += 1
            return max(by_number(replylog), default=0) >= first

        wait_until(is_logged, "a record again")
        records = replylog.stop()
    losses = [record for record in records if record["event"] == "dropped"]
    lost, stop = sum(record["count"] for record in losses), records[-1]
    assert {record["reason"] for record in losses} == {"ring_full"} and lost > 0 and stop["dropped"] == lost, losses
    assert stop["replies"] + lost == count, (stop, lost, count)
    found = by_number(replylog)
    numbers = [int(record["argv"][1].split(":")[0]) for record in replylog.replies()]
    assert numbers == sorted(numbers), "out of order"
    for number, (record,) in found.items():
        check_echo(record, number, conn.addr)


def test_threads_come_and_go():
    """More threads than there are slots for, one after another: each has a slot while it lives."""
    rounds, many = int(os.environ.get("REPLYLOG_ROUNDS", 100)), 8
    with Server("valkey-9.1", io_threads=many) as server, Replylog(server.pid, 0) as replylog, ExitStack() as stack:
        control = stack.enter_context(server.client())
        conns = [stack.enter_context(FrameClient(server.port)) for _ in range(many)]
        for turn in range(rounds):
            for threads in (many, 1):
                control.call("CONFIG", "SET", "io-threads", threads)
                for conn in conns:
                    conn.send(echo(turn)[0])
                for conn in conns:
                    conn.frame()
        replylog.wait_replies(2 * rounds * (1 + len(conns)))
        stop = replylog.stop()[-1]
    assert stop["dropped"] == 0 and stop["hits_io"] > rounds * len(conns), stop
    assert stop["replies"] == 2 * rounds * (1 + len(conns)), stop
