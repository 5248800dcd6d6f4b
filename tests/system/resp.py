"""The client's side of RESP2 and RESP3, written from the protocol's specification. It shares no code with replylog.

ReplyCounter counts the bytes of each reply and builds no values. Client is a plain blocking client that sets servers up
and queries them.
"""
from transport import at

PLUS, MINUS, COLON, DOLLAR, STAR, PUSH = b"+-:$*>"
BULKS = frozenset(b"$=!")             # header with a length, then that many bytes and CRLF
LINES = frozenset(b"+-:,#(_")         # the header line is the whole reply
AGGREGATES = {ord("*"): 1, ord("~"): 1, ord(">"): 1, ord("%"): 2, ord("|"): 2}
ATTRIBUTE = ord("|")


class ProtocolError(Exception):
    pass


def encode(argv):
    """Returns the request as a multibulk."""
    parts = [b"*%d\r\n" % len(argv)]
    for arg in argv:
        parts.append(b"$%d\r\n%b\r\n" % (len(arg), arg))
    return b"".join(parts)


class ReplyCounter:
    """Takes what recv returned. Says which replies are now complete, and how many bytes each had."""

    def __init__(self):
        self.tail = b""     # an unfinished header line
        self.skip = 0       # payload bytes still to come
        self.owed = 0       # elements still missing from the current reply
        self.kind = 0       # first byte of the current reply, 0 between replies
        self.carried = 0    # bytes of the current reply in earlier calls

    def feed(self, data):
        """Returns [(first byte of the reply, its length in bytes)]; a push has PUSH as its first byte."""
        done = []
        if self.tail:
            data = self.tail + data
            self.tail = b""
        size = len(data)
        pos = self.skip
        start = -self.carried
        owed, kind = self.owed, self.kind
        find = data.find
        while True:
            if pos > size:
                break
            if kind and not owed:
                done.append((kind, pos - start))
                start, kind = pos, 0
            if pos == size:
                break
            end = find(b"\r\n", pos)
            if end < 0:
                self.tail = data[pos:]
                size = pos
                break
            tag = data[pos]
            if not kind:
                kind, owed = tag, 1
            if tag in BULKS:
                length = int(data[pos + 1:end])
                pos = end + 2 if length < 0 else end + length + 4
                owed -= 1
            elif tag in LINES:
                pos = end + 2
                owed -= 1
            elif tag in AGGREGATES:
                count = int(data[pos + 1:end])
                # An attribute precedes the element that it describes, and is not an element itself.
                owed += max(count, 0) * AGGREGATES[tag] - (tag != ATTRIBUTE)
                pos = end + 2
            else:
                raise ProtocolError(f"reply starts with {data[pos:pos + 40]!r}")
        self.skip = max(pos - size, 0)
        self.owed, self.kind = owed, kind
        self.carried = size - start
        return done

    def in_reply(self):
        return bool(self.kind or self.tail)


class ServerError(Exception):
    pass


class Client:
    """One blocking connection. call() returns the reply as Python values, and raises ServerError for an error reply."""

    def __init__(self, where, timeout=20):
        transport = at(where)
        self.sock = transport.connect(timeout)
        self.file = self.sock.makefile("rb", buffering=1 << 16)
        self.addr = transport.own_address(self.sock)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.sock.close()

    def send(self, *argv):
        self.sock.sendall(encode([to_bytes(arg) for arg in argv]))

    def read(self):
        reply = self._read()
        if isinstance(reply, ServerError):
            raise reply
        return reply

    def call(self, *argv):
        self.send(*argv)
        return self.read()

    def answer(self, *argv):
        """As call(), but returns an error reply like any other: for commands whose outcome does not matter."""
        self.send(*argv)
        return self._read()

    def pipeline(self, commands):
        """Sends all commands at once and returns their replies: one round trip for any number."""
        requests = [encode([to_bytes(arg) for arg in argv]) for argv in commands]
        self.sock.sendall(b"".join(requests))
        return [self.read() for _ in requests]

    def drain(self, request, replies, recv_size=1 << 18):
        """Sends the bytes of request, and returns the lengths of the next replies without building values."""
        counter, lengths = ReplyCounter(), []
        self.sock.sendall(request)
        while len(lengths) < replies:
            data = self.sock.recv(recv_size)
            if not data:
                raise ConnectionError("server closed the connection")
            lengths += [length for kind, length in counter.feed(data) if kind != PUSH]
        return lengths

    def _read(self):
        line = self.file.readline()
        if not line:
            raise ConnectionError("server closed the connection")
        tag, rest = line[0], line[1:-2]
        if tag in BULKS:
            return self._read_bulk(int(rest))
        if tag in AGGREGATES:
            items = [self._read() for _ in range(max(int(rest), 0) * AGGREGATES[tag])]
            if tag == ATTRIBUTE:
                return self._read()
            return dict(zip(items[::2], items[1::2])) if tag == ord("%") else items
        if tag == MINUS:
            return ServerError(rest.decode("utf-8", "replace"))
        return int(rest) if tag == COLON else None if tag == ord("_") else rest

    def _read_bulk(self, length):
        return None if length < 0 else self.file.read(length + 2)[:-2]


def to_bytes(arg):
    return arg if isinstance(arg, bytes) else str(arg).encode()
