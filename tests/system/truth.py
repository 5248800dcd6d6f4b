"""What a record may say where replies can't be counted off against commands, because the server answers too often or too
seldom. Each value has a size of its own, so a reply's size tells whose it is."""
import json
from contextlib import suppress

from conversation import request
from waiting import wait_until

QUEUED = len("+QUEUED\r\n")
PONG = len("+PONG\r\n")
NULLS = len("$-1\r\n"), len("_\r\n")
SMALL_MAX = 1000        # the largest reply that is not a value; values are larger


def bulk(size):
    """The size of a string of so many bytes on the wire."""
    return len(f"${size}\r\n\r\n") + size


def payload(size):
    """A string that names its own size."""
    return f"{size}:".ljust(size, "x")


def echoed(record):
    """The size that an ECHO of payload() names, or None."""
    argv = record.get("argv", ())
    number = argv[1].partition(":")[0] if len(argv) == 2 and argv[0].upper() == "ECHO" else ""
    return int(number) if number.isdecimal() else None


def sizes_of(record, values):
    """The sizes that the reply to a record's command may have. values: {key: size}. None: all that is known is that it is
    small."""
    # Some servers drop this byte from a typed line, and execute the rest.
    name, *args = (arg.replace("\\xff", "") for arg in record["argv"])
    if name.upper() == "GET" and args and args[0] in values:
        return {bulk(values[args[0]]), *(NULLS if "argv_encoding" in record else ())}
    if (size := echoed(record)) is not None:
        return {bulk(size)}
    if name.upper() == "PING" and not args:
        return {PONG}
    if name.lower() in ("unruly.plain", "unruly.twice", "unruly.thrice"):
        # All its replies, or the first: when that arrived alone, nobody could know that more would follow.
        answers = [bulk(int(size)) for size in args]
        return {sum(answers[:count + 1]) for count in range(len(answers))}
    if name.lower() in ("unruly.never", "unruly.short"):
        return set()
    return None


def request_size(record):
    """The size of a command that was sent as a multibulk, when its record says enough."""
    if (size := echoed(record)) is not None:
        return len(request("ECHO", payload(size)))
    return None if record.get("argv_truncated") or "argv_encoding" in record else len(request(*record["argv"]))


def wrong(record, values):
    """Returns what can't be true in a record that is marked exact, or None."""
    if record["attribution"] != "exact" or "argv" not in record or record["state"] != "complete":
        return None
    got, sizes = record["reply_bytes"], sizes_of(record, values)
    if got == QUEUED:
        return None         # it is a reply of a transaction, whether or not replylog knows that: no value is that small
    if sizes is None:
        return None if got < SMALL_MAX else f"{got} bytes are not its own"
    return None if got in sizes else f"{got} bytes, not {sizes}"


WORDS = {"db": "db", "user": "user", "client_name": "name", "resp": "resp"}     # as CLIENT LIST calls them
SAID_BY_ABSENCE = {"user": "default", "client_name": ""}


def wrong_identity(record, listed):
    """Returns a word of the record's identity that CLIENT LIST has not shown. listed: what it showed, one dict or more.
    An absent word is not wrong."""
    for word, theirs in WORDS.items():
        known = {fields[theirs] for fields in listed if theirs in fields}
        if word in record and known and str(record[word]) not in known:
            return f"{word} is {record[word]!r}, CLIENT LIST says {known}"
    return None


def unknown_identity(record, listed):
    """Returns a word of the record's identity that is absent although replylog could know it."""
    return [word for word, theirs in WORDS.items() if word not in record and listed.get(theirs) is not None
            and listed[theirs] != SAID_BY_ABSENCE.get(word)]


class Stream:
    """The records that a running replylog has written, by connection. Each line is parsed once."""

    def __init__(self, replylog):
        self.replylog = replylog
        self.records = []
        self.by_client = {}

    def read(self):
        """Reads everything that has arrived so far."""
        for line in self.replylog.lines[len(self.records):]:
            record = json.loads(line)
            self.records.append(record)
            if record["event"] == "reply":
                self.by_client.setdefault(record.get("client_addr"), []).append(record)
        return self.records

    def begin(self, conn):
        """Forgets earlier records of this address: they belong to another connection."""
        self.read()
        self.by_client.pop(conn.addr, None)

    def of(self, conn):
        self.read()
        return self.by_client.get(conn.addr, [])

    def wait(self, conn, count, seconds=5):
        """Waits for count records. The caller checks for missing ones."""
        with suppress(AssertionError):
            wait_until(lambda: len(self.of(conn)) >= count, f"{count} records of {conn.addr}", seconds)
        return self.of(conn)
