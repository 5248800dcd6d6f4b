"""What a record may say where replies can't be counted off against commands: the server answers too often or too seldom, and
values tell by their size whose they are."""
import json
from contextlib import suppress

from conversation import request
from waiting import wait_until

QUEUED = len("+QUEUED\r\n")
PONG = len("+PONG\r\n")
NULLS = len("$-1\r\n"), len("_\r\n")
SMALL_MAX = 1000        # bytes of any reply that is not a value: values are larger


def bulk(size):
    """A string of so many bytes, on the wire."""
    return len(f"${size}\r\n\r\n") + size


def payload(size):
    """A string that says its own size."""
    return f"{size}:".ljust(size, "x")


def echoed(record):
    """The size that an ECHO of payload() says, or None."""
    argv = record.get("argv", ())
    number = argv[1].partition(":")[0] if len(argv) == 2 and argv[0].upper() == "ECHO" else ""
    return int(number) if number.isdecimal() else None


def sizes_of(record, values):
    """What the reply to a record's command may take; values: {key: size}. None: only that it is small is known."""
    # Some servers pass over this byte in a typed line: what is left is what was executed.
    name, *args = (arg.replace("\\xff", "") for arg in record["argv"])
    if name.upper() == "GET" and args and args[0] in values:
        return {bulk(values[args[0]]), *(NULLS if "argv_encoding" in record else ())}
    if (size := echoed(record)) is not None:
        return {bulk(size)}
    if name.upper() == "PING" and not args:
        return {PONG}
    if name.lower() in ("unruly.plain", "unruly.twice", "unruly.thrice"):
        # All its answers, or the first: when that came alone nobody could know of the others.
        answers = [bulk(int(size)) for size in args]
        return {sum(answers[:count + 1]) for count in range(len(answers))}
    if name.lower() in ("unruly.never", "unruly.short"):
        return set()
    return None


def request_size(record):
    """Of a command that was sent as a multibulk, when its record says enough."""
    if (size := echoed(record)) is not None:
        return len(request("ECHO", payload(size)))
    return None if record.get("argv_truncated") or "argv_encoding" in record else len(request(*record["argv"]))


def wrong(record, values):
    """What can't be true of a record that is marked exact, or None."""
    if record["attribution"] != "exact" or "argv" not in record or record["state"] != "complete":
        return None
    got, sizes = record["reply_bytes"], sizes_of(record, values)
    if got == QUEUED:
        return None         # of a transaction, whether or not replylog can tell: no value is that small
    if sizes is None:
        return None if got < SMALL_MAX else f"{got} bytes are not its own"
    return None if got in sizes else f"{got} bytes, not {sizes}"


WORDS = {"db": "db", "user": "user", "client_name": "name", "resp": "resp"}     # as CLIENT LIST calls them
SAID_BY_ABSENCE = {"user": "default", "client_name": ""}


def wrong_identity(record, listed):
    """Which word of identity is none that CLIENT LIST has shown; listed: what it showed, one dict or more. A word that is
    absent is not wrong."""
    for word, theirs in WORDS.items():
        known = {fields[theirs] for fields in listed if theirs in fields}
        if word in record and known and str(record[word]) not in known:
            return f"{word} is {record[word]!r}, CLIENT LIST says {known}"
    return None


def unknown_identity(record, listed):
    """Which word of identity is absent and need not be."""
    return [word for word, theirs in WORDS.items() if word not in record and listed.get(theirs) is not None
            and listed[theirs] != SAID_BY_ABSENCE.get(word)]


class Stream:
    """What a running replylog has written, each line parsed once, by connection."""

    def __init__(self, replylog):
        self.replylog = replylog
        self.records = []
        self.by_client = {}

    def read(self):
        """All that is there by now."""
        for line in self.replylog.lines[len(self.records):]:
            record = json.loads(line)
            self.records.append(record)
            if record["event"] == "reply":
                self.by_client.setdefault(record.get("client_addr"), []).append(record)
        return self.records

    def begin(self, conn):
        """What there is of this address was another's."""
        self.read()
        self.by_client.pop(conn.addr, None)

    def of(self, conn):
        self.read()
        return self.by_client.get(conn.addr, [])

    def wait(self, conn, count, seconds=5):
        """That some are missing is for the caller to say."""
        with suppress(AssertionError):
            wait_until(lambda: len(self.of(conn)) >= count, f"{count} records of {conn.addr}", seconds)
        return self.of(conn)
