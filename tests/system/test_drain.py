"""A client reads a large reply slowly, while many other commands pass."""
import queue
import threading
import time
from datetime import datetime

from conversation import on_servers, request, wait_records
from replylog import Replylog
from resp import encode
from server import Server
from transport import Tcp

LARGE = 100_000_000
REPLY = len(f"${LARGE}\r\n") + LARGE + 2
OTHERS = 4
BATCH = 1000
BATCHES = 75            # of each other client: 300,000 commands in all
STEP = LARGE // 2 // (OTHERS * BATCHES)
BEGUN = OTHERS * BATCHES // 3   # by then the client has read more than any buffer holds, so more than a first write
BEHIND = ("ECHO", "e" * 20_000)
BEHIND_REPLY = len("$20000\r\n") + 20_000 + 2
SLACK_US = 2            # two rounded values


class SlowReader:
    """A client that reads only when told to. Its receive buffer is small, so the server can't write much more than it has
    read."""

    def __init__(self, server):
        transport = Tcp(server.port)
        self.sock = transport.connect(20, receive_buffer=1 << 16)
        self.addr = transport.own_address(self.sock)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def read(self, count):
        while count:
            count -= len(self.sock.recv(min(count, 1 << 18)))


def busy(server, passed):
    """Sends a thousand commands at a time, each with its own key. Reports each thousand, and any failure, to passed."""
    try:
        with server.client() as client:
            for batch in range(BATCHES):
                client.sock.sendall(b"".join(encode([b"GET", b"other:%d:%d" % (batch, n)]) for n in range(BATCH)))
                left = len(b"$-1\r\n") * BATCH
                while left:
                    left -= len(client.sock.recv(left))
                passed.put(None)
    except OSError as error:
        passed.put(error)


def microseconds(text):
    """Microseconds since the epoch."""
    whole, fraction = text.rstrip("Z").split(".")
    return int(datetime.fromisoformat(whole + "+00:00").timestamp()) * 1_000_000 + int(fraction[:6])


def drain(server, slow, argv):
    """Reads half of the reply to argv in small steps while the other clients' commands pass, then the rest. Returns what
    the client's clock showed, in microseconds."""
    seen, passed = {"sent": time.monotonic()}, queue.Queue()
    slow.sock.sendall(request(*argv))
    slow.read(1)
    others = [threading.Thread(target=busy, args=(server, passed)) for _ in range(OTHERS)]
    for other in others:
        other.start()
    for turn in range(OTHERS * BATCHES):
        failure = passed.get(timeout=20)
        if failure:
            raise failure
        slow.read(STEP)
        if turn == BEGUN:
            seen["begun"] = time.monotonic()
    seen["half"] = time.monotonic()
    slow.read(REPLY - 1 - OTHERS * BATCHES * STEP)
    slow.sock.sendall(request(*BEHIND))
    slow.read(BEHIND_REPLY)
    seen["behind"] = time.monotonic()
    for other in others:
        other.join()
    return {name: int(at * 1_000_000) for name, at in seen.items()}


@on_servers
def test_slow_reader(name, io_threads):
    """A hundred thousand other commands later the reply still belongs to its command, and its times are right."""
    argv = ("GETRANGE", "huge:with:a:name:of:its:own", "0", "-1")
    with Server(name, io_threads=io_threads) as server, server.client() as setup:
        setup.call("SETRANGE", argv[1], LARGE - 1, "x")
        with Replylog(server.pid, 10_000) as replylog, SlowReader(server) as slow:
            seen = drain(server, slow, argv)
            records = wait_records(replylog, slow, 2)
            stop = replylog.stop()[-1]
    record = records[0]
    assert record["argv"] == list(argv) and record["reply_bytes"] == REPLY, record
    assert (record["state"], record["attribution"], record["kind"]) == ("complete", "exact", "simple"), record
    assert record["request_bytes"] == len(request(*argv)) and len(records) == 2 and stop["dropped"] == 0, records
    # When the client has a byte, the write that carried it may not have returned: what comes later tells that it has.
    assert record["first_byte_us"] <= seen["begun"] - seen["sent"], (record, seen)
    # At least half of it can't have been written before the client began to read that.
    assert record["drain_us"] >= seen["half"] - seen["begun"], (record, seen)
    assert record["first_byte_us"] + record["drain_us"] <= seen["behind"] - seen["sent"], (record, seen)
    between = microseconds(record["ts"]) - microseconds(record["request_ts"])
    assert abs(between - record["first_byte_us"] - record["drain_us"]) <= SLACK_US, (record, between)
    # It took many writes; the next reply, which the client took at once, did not.
    assert 10 < record["writes"] < REPLY // 1000, record
    assert records[1]["request_ts"] >= record["ts"] and records[1]["writes"] <= 2, records


@on_servers
def test_many_slow_readers(name, io_threads):
    """Twenty slow clients at once, each with its own key and size: no record has another's argv."""
    with Server(name, io_threads=io_threads) as server, server.client() as setup:
        for number in range(20):
            setup.call("SETRANGE", f"key:{number}", 5_000_000 + number, "x")
        with Replylog(server.pid, 1_000_000) as replylog:
            readers = [SlowReader(server) for _ in range(20)]
            for number, reader in enumerate(readers):
                reader.sock.sendall(request("GET", f"key:{number}"))
                reader.read(1)
            busy(server, queue.Queue())
            sizes = [len(f"${5_000_001 + number}\r\n") + 5_000_001 + number + 2 for number in range(20)]
            for reader, size in zip(readers, sizes):
                reader.read(size - 1)
            for number, (reader, size) in enumerate(zip(readers, sizes)):
                record, = wait_records(replylog, reader, 1)
                assert (record["argv"], record["reply_bytes"]) == (["GET", f"key:{number}"], size), record
                reader.sock.close()
            assert replylog.stop()[-1]["dropped"] == 0
