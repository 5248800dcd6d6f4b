"""Connections of which the test keeps every byte: what the client sent and received. The tests compare the records with
that."""
from contextlib import contextmanager, suppress

from replylog import Replylog
from resp import AGGREGATES, ATTRIBUTE, BULKS, encode, to_bytes
from server import Server
from transport import at
from waiting import wait_until

SERVERS = {f"{name},{threads} io threads": (name, threads)
           for name in ("valkey-9.1", "redis-7.0") for threads in (1, 2)}


# For behaviour that depends on the server's version and not on the number of IO threads.
VERSIONS = {**{name: (name, 1) for name in ("valkey-9.1", "valkey-8.1", "valkey-8.0", "redis-7.0", "redis-8.0")},
            **{f"{name},2 io threads": (name, 2) for name in ("valkey-9.1", "redis-7.0")}}


def on_versions(function):
    """Runs the test once for each version that may behave differently."""
    function.cases = VERSIONS
    return function


def on_servers(function):
    """Runs the test once for each server, with IO threads off and on."""
    function.cases = SERVERS
    return function


def frame_end(data, pos=0):
    """Returns where the frame that begins at pos ends, or None when it is incomplete."""
    end = data.find(b"\r\n", pos)
    if end < 0:
        return None
    tag, end = data[pos], end + 2
    if tag in BULKS:
        length = int(data[pos + 1:end - 2])
        end += 0 if length < 0 else length + 2
        return end if end <= len(data) else None
    if tag not in AGGREGATES:
        return end
    for _ in range(max(int(data[pos + 1:end - 2]), 0) * AGGREGATES[tag]):
        end = frame_end(data, end)
        if end is None:
            return None
    return frame_end(data, end) if tag == ATTRIBUTE else end


def elements(frame):
    """Returns the frames inside an aggregate."""
    pos = frame.index(b"\r\n") + 2
    found = []
    while pos < len(frame):
        end = frame_end(frame, pos)
        found.append(frame[pos:end])
        pos = end
    return found


class FrameClient:
    """A connection that returns each reply or push as the bytes that it received."""

    def __init__(self, where, timeout=20):
        transport = at(where)
        self.sock = transport.connect(timeout)
        self.addr = transport.own_address(self.sock)
        self.data = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, *commands):
        """Sends commands, each a tuple, in one write."""
        self.sock.sendall(b"".join(request(*argv) for argv in commands))

    def frame(self):
        while (end := frame_end(self.data) if self.data else None) is None:
            more = self.sock.recv(1 << 20)
            if not more:
                raise ConnectionError(f"closed by the server behind {self.data[:100]!r}")
            self.data += more
        frame, self.data = self.data[:end], self.data[end:]
        return frame

    def frames(self, count):
        return [self.frame() for _ in range(count)]

    def ask(self, *argv):
        self.send(argv)
        return self.frame()

    def rest(self):
        """Returns everything that the server sends until it closes."""
        while more := self.sock.recv(1 << 20):
            self.data += more
        return self.data


def request(*argv):
    return encode([to_bytes(arg) for arg in argv])


@contextmanager
def frame_client(name, io_threads, threshold=0, *flags):
    """Yields (a FrameClient, another client, replylog)."""
    with Server(name, io_threads=io_threads) as server, Replylog(server.pid, threshold, *flags) as replylog, \
            FrameClient(server.port) as conn, server.client() as other:
        yield conn, other, replylog


# ---- what the records should say ------------------------------------------------------------------------------------

EITHER = "simple or pipelined"       # it depends on the server whether another command was outstanding


def reply(argv, *frames, kind="simple"):
    """The record of a command that these frames answered."""
    return tuple(str(arg)[:128] for arg in argv), kind, sum(map(len, frames)), len(request(*argv))


def push(frame, name, channel=None, pattern=None):
    """The record of a push or a message."""
    return (name, channel, pattern), "push", len(frame), None


def doubtful(want):
    """The same record, when replylog can't prove which command the reply answers."""
    return want + ("ambiguous",)


def unproven(want):
    """The same record, when the conversation may end before replylog has proof."""
    return want + ("exact", "ambiguous")


def said(record):
    """A record in the form in which the tests write the expected ones."""
    what = tuple(record["argv"]) if "argv" in record else tuple(map(record.get, ("push", "channel", "pattern")))
    return what, record["kind"], record.get("reply_bytes"), record.get("request_bytes")


def asker(conn, expected):
    """Returns a function that sends a command, and adds the record expected for it to a list."""
    def ask(*argv, frames=1, kind="simple", mark=tuple):
        conn.send(argv)
        expected.append(mark(reply(argv, *conn.frames(frames), kind=kind)))
    return ask


def is_said(record, want):
    what, kind, *sizes = said(record)
    kinds = ("simple", "pipelined") if want[1] == EITHER else want[1:2]
    return (what, tuple(sizes)) == (want[0], want[2:4]) and kind in kinds


def client_listed(client, addr):
    """Returns what the server's CLIENT LIST says about the client at this address."""
    for line in client.call("CLIENT", "LIST").decode().splitlines():
        fields = dict(field.split("=", 1) for field in line.split())
        if fields["addr"] == addr:
            return fields
    raise AssertionError(f"no client {addr}")


def records_of(replylog, conn):
    return [record for record in replylog.replies() if record.get("client_addr") == conn.addr]


def wait_records(replylog, conn, count):
    wait_until(lambda: len(records_of(replylog, conn)) >= count, f"{count} records of {conn.addr}")
    return records_of(replylog, conn)


def compare(records, expected):
    """Checks that the records say exactly what happened, in the same order."""
    for at_hand, (record, want) in enumerate(zip(records, expected)):
        assert is_said(record, want), f"record {at_hand} is {record}\nand says {said(record)}\n    not {want}"
        attributions = want[4:] or ("exact",)
        assert record["attribution"] in attributions and record["state"] == "complete", record
    assert len(records) == len(expected), f"{len(records)} records, not {len(expected)}: " \
        f"{records[len(expected):][:3] or expected[len(records):][:3]}"


def finish(replylog, *conversations):
    """conversations: (client, the records expected for it). Ends replylog and returns its stop record."""
    for conn, expected in conversations:
        # When some are missing, the first record that differs explains more than their number.
        with suppress(AssertionError):
            wait_records(replylog, conn, len(expected))
    stop = replylog.stop()[-1]
    assert stop["dropped"] == 0, [record for record in replylog.records() if record["event"] != "reply"]
    for conn, expected in conversations:
        compare(records_of(replylog, conn), expected)
    return stop
