"""Checks every line of real output against the tables of docs/SCHEMA.md."""
import json
import re
import signal

import oracle
import workload
from environment import ROOT
from replylog import Replylog
from resp import encode
from server import Server
from waiting import wait_until

LINE_MAX = 16 * 1024
SCHEMA = ROOT / "docs" / "SCHEMA.md"
TYPES = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "array of strings": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
}


# ---- the document --------------------------------------------------------------------------------------------------

def cells(line):
    return [cell.strip().strip("`").strip() for cell in line.strip().strip("|").split("|")]


def read_schema():
    """Returns {event: {key: (type, present)}} from the first table under each heading "## event" with a column "key"."""
    schema, event, columns = {}, None, None
    for line in SCHEMA.read_text().splitlines():
        heading = re.match(r"#+\s+`?(\w+)`?\s*$", line)
        if heading or line.startswith("#"):
            event, columns = heading and heading[1], None
        elif line.startswith("|") and event:
            row = cells(line)
            if "key" in row:
                columns = row
                schema.setdefault(event, {})
            elif columns and not set(line) <= set("|-: "):
                named = dict(zip(columns, row))
                assert named["type"] in TYPES, f"SCHEMA.md, {event}: unknown type {named['type']!r}"
                schema[event][named["key"]] = (named["type"], named["present"])
        else:
            columns = columns if line.startswith("|") else None
    for event in ("start", "reply", "dropped", "stop"):
        assert schema.get(event), f"SCHEMA.md has no table for {event}"
    return schema


# ---- the output ----------------------------------------------------------------------------------------------------

def without_duplicates(pairs):
    keys = [key for key, _ in pairs]
    assert len(keys) == len(set(keys)), f"duplicate keys: {keys}"
    return dict(pairs)


def parse_line(line):
    assert len(line) <= LINE_MAX, f"a line of {len(line)} bytes: {line[:200]!r}..."
    assert line.endswith(b"\n"), line[-80:]
    record = json.loads(line.decode("utf-8", "strict"), object_pairs_hook=without_duplicates)
    assert isinstance(record, dict), record
    return record


def check_record(schema, record):
    event = record.get("event")
    assert event in schema, f"event {event!r} is not in SCHEMA.md"
    table = schema[event]
    for key, value in record.items():
        assert key in table, f"{event}.{key} is not in SCHEMA.md: {record}"
        assert TYPES[table[key][0]](value), f"{event}.{key} is no {table[key][0]}: {value!r}"
    missing = [key for key, (_, present) in table.items() if present.startswith("always") and key not in record]
    assert not missing, f"{event} lacks {missing}: {record}"


def check_lines(lines):
    schema = read_schema()
    records = [parse_line(line) for line in lines]
    for record in records:
        check_record(schema, record)
    assert records[0]["event"] == "start" and records[-1]["event"] == "stop", (records[0], records[-1])
    return records


# ---- what makes every kind of record -------------------------------------------------------------------------------

WORST = [  # 32 arguments of 128 bytes, each byte one that JSON writes longest
    [b"ECHO"] + [bytes([byte]) * 128] * 40 for byte in (0xff, 0x01, 0x22, 0x5c, 0x7f, 0x0a)
] + [[b"\xff" * 200] * 40, ["ä".encode() * 100] * 40, [b"\xc2\x85" * 64] * 33]


def go_away_in_the_middle(server):
    """The client closes after the first bytes of a reply that fits in no buffer."""
    with server.client() as client:
        client.sock.sendall(encode([b"GET", b"huge"]))
        client.sock.recv(1000)


def be_told_of_a_change(server):
    """The client receives a push: another client changes a tracked key."""
    with server.client() as client, server.client() as other:
        for argv in (["HELLO", 3], ["CLIENT", "TRACKING", "ON"], ["GET", "tracked"]):
            client.call(*argv)
        other.call("SET", "tracked", "new")
        assert client.read()[0] == b"invalidate"


def provoke(server):
    outcome = oracle.run(server.port, 3000, connections=4)
    with server.client() as client:
        for argv in WORST:
            client.drain(encode(argv), 1)
    be_told_of_a_change(server)
    go_away_in_the_middle(server)
    return sum(map(len, outcome.expected.values())) + len(WORST) + 6


def fill(server):
    with server.client() as client:
        workload.fill(client)
        client.call("SETRANGE", "huge", 50_000_000, "x")


def test_every_line(name, io_threads):
    with Server(name, io_threads=io_threads) as server:
        fill(server)
        with server.client() as older:
            older.call("PING")
            with Replylog(server.pid, 0) as replylog:
                expected = provoke(server)
                older.call("PING")
                # And the record of the older connection.
                replylog.wait_replies(expected + 1, stalled=3)
                replylog.stop()
        records = check_lines(replylog.lines)
        worst_cases_are_prefixes(records)
        seen = {(key, str(record.get(key))) for record in records for key in ("kind", "state", "argv_encoding")}
        print(sorted(seen))
        assert ("state", "aborted") in seen and ("argv_encoding", "escaped") in seen, sorted(seen)
        assert ("kind", "push") in seen and ("kind", "pipelined") in seen, sorted(seen)


test_every_line.cases = {"valkey-9.1,4 io threads": ("valkey-9.1", 4), "redis-7.0": ("redis-7.0", 1)}


def worst_cases_are_prefixes(records):
    """A record leaves out the arguments that don't fit into a line, from the end, and says so."""
    found = 0
    for record in records:
        argv = record.get("argv", [])
        if record.get("argc", 0) < 33 or not argv or not argv[0].startswith(("ECHO", "\\xff\\xff", "ää", "\x85\x85")):
            continue
        found += 1
        assert record["argv_truncated"] is True, record
        sent = max(WORST, key=lambda worst: agreement(worst, record))
        assert agreement(sent, record) == len(argv), f"not what was sent: {record}"
    assert found == len(WORST), f"{found} of {len(WORST)} records of the worst commands"


def agreement(sent, record):
    """How many arguments of the record are beginnings of the sent ones."""
    escaped = record.get("argv_encoding") == "escaped"
    got = [oracle.unescape(arg) if escaped else arg.encode() for arg in record["argv"]]
    return sum(want.startswith(arg) for want, arg in zip(sent, got))


def test_losses_are_counted():
    """replylog is stopped while more replies arrive than its buffer holds. It reports the number of lost ones, and the
    others are exact and in order."""
    count = 5000
    with Server("valkey-9.1") as server, Replylog(server.pid, 0, "--ring-size", "64kb") as replylog:
        replylog.process.send_signal(signal.SIGSTOP)
        with server.client() as client:
            for base in range(0, count, 100):
                client.drain(b"".join(encode([b"ECHO", b"%d" % i]) for i in range(base, base + 100)), 100)
        replylog.process.send_signal(signal.SIGCONT)
        replylog.wait_replies(count, stalled=2)
        replylog.stop()
    records = check_lines(replylog.lines)
    replies = [record for record in records if record["event"] == "reply"]
    lost = sum(record["count"] for record in records if record["event"] == "dropped")
    print(f"{len(replies)} replies, {lost} lost, stop record: {records[-1]}")
    assert lost > 0, "nothing was lost: this test proves nothing"
    assert len(replies) + lost == count, f"{len(replies)} records and {lost} lost of {count}"
    assert (records[-1]["replies"], records[-1]["dropped"]) == (len(replies), lost), records[-1]
    numbers = [int(record["argv"][1]) for record in replies]
    assert numbers == sorted(set(numbers)), "records out of order or repeated"
    for record in replies:
        digits = len(record["argv"][1])
        assert record["reply_bytes"] == len(b"$1\r\n\r\n") + digits, record


def test_stream_goes_on_after_a_loss():
    """After a loss replylog logs the next replies as usual."""
    with Server("valkey-9.1") as server, Replylog(server.pid, 0, "--ring-size", "64kb") as replylog:
        with server.client() as client:
            replylog.process.send_signal(signal.SIGSTOP)
            client.drain(encode([b"ECHO", b"x" * 100]) * 5000, 5000)
            replylog.process.send_signal(signal.SIGCONT)
            # The stream has caught up when the record of this command is among the last lines.
            wait_until(lambda: client.drain(encode([b"ECHO", b"after"]), 1) and
                       any(b'"after"' in line for line in replylog.lines[-5:]), "record after the loss")
        replylog.stop()
        assert replylog.returncode == 0
