"""Compares records with the server's own log of large replies: valkey's COMMANDLOG at 0 bytes and replylog at 0 bytes
must have the same commands, argv and bytes, per connection and in order.

The long run: REPLYLOG_COMMANDS=1000000 REPLYLOG_TEST_SECONDS=3600 tests/system/run.py commandlog.random_traffic

valkey 9.1 src/commandlog.c and src/networking.c say what COMMANDLOG logs and how it counts (net_output_bytes_curr_cmd:
the bytes that the command has put into its client's output; with copy avoidance addReplyBulk adds the size of the
referenced value).
Where it differs from what replylog promises, the test of that says so.
"""
import json
import os
import re

import oracle
import workload
from replylog import Replylog
from server import Server
from waiting import wait_until

COMMANDS = int(os.environ.get("REPLYLOG_COMMANDS", 10_000))
ROUND = 20_000          # commands between two reads of the log
RING = 4 * ROUND        # entries that the log keeps: it also has the inner commands of scripts
KEPT_ARGS = 32          # COMMANDLOG_ENTRY_MAX_ARGC: the last kept argument then says how many more there were
MORE_ARGS = re.compile(rb"\.\.\. \((\d+) more arguments\)")
MORE_BYTES = re.compile(rb"(.{128})\.\.\. \(\d+ more bytes\)", re.S)


def logging_server(*options, io_threads=1):
    return Server("valkey-9.1", "--commandlog-reply-larger-than", "0", "--commandlog-large-reply-max-len", str(RING),
                  *options, io_threads=io_threads)


# ---- the two logs --------------------------------------------------------------------------------------------------

class ServerLog:
    """COMMANDLOG, read in batches. Entries have numbers, so none can be missed unnoticed."""

    def __init__(self, client):
        self.client = client
        self.calls = 0
        self.next = None
        newest = self.get(1)
        self.next = newest[0][0] + 1 if newest else 0

    def get(self, count):
        self.calls += 1
        return self.client.call("COMMANDLOG", "GET", count, "large-reply")

    def take(self):
        """Returns the new entries, oldest first: {address: [(argv, bytes)]}. The server logs this call after it, so the
        next one returns it."""
        fresh = [entry for entry in reversed(self.get(RING)) if entry[0] >= self.next]
        ids = [entry[0] for entry in fresh]
        assert ids == list(range(self.next, self.next + len(ids))), "COMMANDLOG has forgotten entries: its ring is too short"
        self.next += len(ids)
        by_addr = {}
        for _, _, value, argv, addr, _ in fresh:
            by_addr.setdefault(addr.decode(), []).append((argv, value))
        return by_addr


class Stream:
    """replylog's records, read in batches."""
    CONSUMED = b"{}"    # replaces a line that was read, because the lines of a long run don't fit in memory

    def __init__(self, replylog):
        self.replylog = replylog
        self.lines = 1  # the start record

    def take(self, count):
        """Returns the next count replies, and the other records among them: {address: [record]}"""
        self.replylog.wait_replies(self.lines - 1 + count)
        by_addr, lines = {}, self.replylog.lines
        for i in range(self.lines, min(self.lines + count, len(lines))):
            record = json.loads(lines[i])
            lines[i] = self.CONSUMED
            assert record["event"] == "reply", record
            by_addr.setdefault(record["client_addr"], []).append(record)
        self.lines += count
        return by_addr


# ---- an entry against a record -------------------------------------------------------------------------------------

def record_argv(record):
    return [oracle.unescape(arg) if "argv_encoding" in record else arg.encode() for arg in record["argv"]]


def same_argument(mine, theirs):
    """COMMANDLOG cuts at 128 bytes. replylog cuts there, or before the character that crosses that limit."""
    cut = MORE_BYTES.fullmatch(theirs)
    if not cut:
        return mine == theirs
    return cut[1].startswith(mine) and len(cut[1]) - len(mine) < 4


def entry_difference(argv, value, record):
    """Returns what differs, or None."""
    argc, mine = len(argv), record_argv(record)
    more = MORE_ARGS.fullmatch(argv[-1]) if argc == KEPT_ARGS else None
    if more:
        argv = argv[:-1]
        argc = len(argv) + int(more[1])
        mine = mine[:-1]
    if len(mine) != len(argv) or not all(map(same_argument, mine, argv)):
        return f"argv is {oracle.shorten(mine)}"
    for key, want in (("argc", argc), ("reply_bytes", value), ("attribution", "exact"), ("state", "complete")):
        if record.get(key) != want:
            return f"{key} is {record.get(key)!r}, COMMANDLOG says {want!r}"
    return None


def compare(addr, entries, records):
    for i, ((argv, value), record) in enumerate(zip(entries, records)):
        difference = entry_difference(argv, value, record)
        assert not difference, (f"{addr}, command {i}: {difference}; COMMANDLOG: {oracle.shorten(argv)} {value} bytes; "
                                f"replylog: {oracle.describe_record(record)}")
    assert len(entries) == len(records), f"{addr}: {len(entries)} entries in COMMANDLOG, {len(records)} records"


def compare_all(logged, streamed):
    assert set(logged) == set(streamed), f"connections in one log only: {set(logged) ^ set(streamed)}"
    for addr, entries in logged.items():
        compare(addr, entries, streamed[addr])


# ---- random traffic ------------------------------------------------------------------------------------------------

def called_by_script(argv):
    """COMMANDLOG also logs commands that a script calls, under the script's client. They have no reply of their own."""
    return argv == [b"get", b"nokey"]   # in workload.RICH_SCRIPT, and sent by no client


def never_run(record):
    """COMMANDLOG logs only commands that the server ran. A command that the server refuses earlier (unknown name, wrong
    number of arguments) also has a reply and a record: the four of Workload.rejected()."""
    argv = record["argv"]
    name = argv[0].upper()
    return name.startswith("NOSUCH") or (name == "GET" and len(argv) != 2) or argv[:2] == ["OBJECT", "NOSUCH"]


def play_round(server, log, stream, commands):
    before = log.calls
    outcome = oracle.run(server.port, commands)
    print(outcome)
    logged = log.take()
    streamed = stream.take(outcome.commands + log.calls - before)
    logged = {addr: [entry for entry in entries if not called_by_script(entry[0])] for addr, entries in logged.items()}
    streamed = {addr: [record for record in records if not never_run(record)] for addr, records in streamed.items()}
    # The next read of the log returns the call that reads it in this round.
    own = log.client.addr
    log.looks = getattr(log, "looks", []) + streamed.pop(own)
    compare(own, logged.pop(own), log.looks[:-1])
    log.looks = log.looks[-1:]
    compare_all(logged, streamed)


def test_random_traffic(io_threads):
    """COMMANDS commands (REPLYLOG_COMMANDS) over eight connections, half of them RESP3, in rounds."""
    with logging_server(io_threads=io_threads) as server:
        with server.client() as client:
            workload.fill(client)
        with Replylog(server.pid, 0) as replylog, server.client() as watcher:
            log, stream = ServerLog(watcher), Stream(replylog)
            log.looks = stream.take(1)[watcher.addr]
            for begin in range(0, COMMANDS, ROUND):
                play_round(server, log, stream, min(ROUND, COMMANDS - begin))
            stop = replylog.stop()[-1]
        assert stop["dropped"] == 0 and replylog.stderr == "", (stop, replylog.stderr)
        assert io_threads == 1 or stop["hits_io"] > 0, f"no IO thread did anything: {stop}"


test_random_traffic.cases = {f"{io_threads} io threads": (io_threads,) for io_threads in (1, 2, 4)}


# ---- where COMMANDLOG differs by design ----------------------------------------------------------------------------

def both_logs(server, replylog, play):
    """Runs play(client) on its own connection. Returns (COMMANDLOG's entries, replylog's records) of that connection."""
    with server.client() as watcher, server.client() as client:
        log = ServerLog(watcher)
        play(client)
        entries = log.take().get(client.addr, [])
        addr = client.addr
    wait_until(lambda: any(record["client_addr"] == watcher.addr and record["argv"][2] == str(RING)
                           for record in replylog.replies()), "record of the last read")
    return entries, [record for record in replylog.replies() if record["client_addr"] == addr]


def own_bytes(entries, header):
    """COMMANDLOG's values inside EXEC add up: the counter starts with the array's header and is reset only after EXEC
    (resetClient), so each entry includes all earlier ones."""
    before = len(header)
    for argv, value in entries:
        yield argv, value - before
        before = value


def test_transactions():
    """COMMANDLOG logs each command that EXEC runs, but never EXEC itself (CMD_SKIP_COMMANDLOG), and no QUEUED reply,
    because the server does not run a queued command."""
    inner = [(b"GET", b"s:1000"), (b"LRANGE", b"l:50", b"0", b"-1"), (b"INCR", b"n"), (b"GET", b"s:100000"), (b"GET", b"none")]
    with logging_server() as server, Replylog(server.pid, 0) as replylog:
        with server.client() as client:
            workload.fill(client)
        entries, records = both_logs(
            server, replylog, lambda client: client.pipeline([(b"MULTI",), *inner, (b"EXEC",), (b"ECHO", b"behind")]))
    assert [tuple(argv) for argv, _ in entries] == [(b"MULTI",), *inner, (b"ECHO", b"behind")], entries
    multi = [record for record in records if record["kind"] == "multi"]
    queued, ran = multi[:len(inner)], multi[len(inner):]
    compare("queued commands", [(list(argv), len("+QUEUED\r\n")) for argv in inner], queued)
    compare("inner commands", list(own_bytes(entries[1:-1], b"*%d\r\n" % len(inner))), ran)
    compare("around it", [entries[0], entries[-1]], [record for record in records if record["kind"] != "multi"])


def test_pushes():
    """COMMANDLOG charges a push to the client's current command, or to its next one, because only the end of a command
    resets the counter (resetClient). replylog charges it to no command."""
    def play(client):
        client.call("HELLO", "3")
        client.call("CLIENT", "TRACKING", "ON", "BCAST")
        with server.client() as other:
            other.call("SET", "key", "value")
        assert client.file.peek(1)[:1] == b">"
        pushed.append(client.read())
        client.call("ECHO", "x" * 100)
        client.call("ECHO", "y" * 100)

    pushed = []
    with logging_server() as server, Replylog(server.pid, 0) as replylog:
        entries, records = both_logs(server, replylog, play)
    assert pushed == [[b"invalidate", [b"key"]]], pushed
    push = len(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\nkey\r\n")
    echo = 100 + len(b"$100\r\n\r\n")
    print(entries)
    assert [value for argv, value in entries if argv[0] == b"ECHO"] == [echo + push, echo], entries
    assert [record["reply_bytes"] for record in records if record.get("cmd") == "ECHO"] == [echo, echo], records
    assert [record["reply_bytes"] for record in records if record["kind"] == "push"] == [push], records


def test_client_gone():
    """COMMANDLOG logs what a command has produced, and does not know whether the client received it. replylog says how
    much was sent."""
    with logging_server() as server, Replylog(server.pid, 0) as replylog:
        with server.client() as client:
            client.call("SETRANGE", "huge", 30_000_000, "x")
        with server.client() as watcher:
            log = ServerLog(watcher)
            with server.client() as client:
                client.send("GET", "huge")
                client.sock.recv(1000)
            entry, = log.take()[client.addr]
        wait_until(lambda: any(record["state"] == "aborted" for record in replylog.replies()), "aborted record")
    record, = [record for record in replylog.replies() if record["client_addr"] == client.addr]
    assert entry == ([b"GET", b"huge"], 30_000_001 + len("$30000001\r\n\r\n")), entry
    assert record_argv(record) == entry[0] and record["attribution"] == "exact", record
    assert 1000 <= record["bytes_sent"] < entry[1] and "reply_bytes" not in record, record


def test_redaction():
    """Neither log shows a secret, and both show the same of a command that contains one."""
    secret = "hunter2"
    commands = [("AUTH", secret), ("AUTH", "default", secret), ("HELLO", "3", "AUTH", "default", secret),
                ("CONFIG", "SET", "masterauth", secret), ("ACL", "SETUSER", "someone", ">" + secret), ("GET", "key")]

    def play(client):
        for argv in commands:
            client.answer(*argv)

    with logging_server() as server, Replylog(server.pid, 0) as replylog:
        entries, records = both_logs(server, replylog, play)
    print(entries)
    assert len(entries) == len(commands) and secret.encode() not in repr(entries).encode()
    compare("secrets", entries, records)
