"""Tests the oracle itself, without replylog: it counts what the server counts, and it detects wrong records."""
import copy
import random

import oracle
import workload
from oracle import Difference, Expected
from resp import PUSH, ReplyCounter
from server import Server


def made_up_records(expected):
    """The records that a perfect replylog would have written."""
    waiting = {addr: list(reversed(wanted)) for addr, wanted in expected.items()}
    order = [addr for addr, wanted in expected.items() for _ in wanted]
    random.Random(1).shuffle(order)
    replies = [made_up_record(addr, waiting[addr].pop(), seq) for seq, addr in enumerate(order, 1)]
    return [{"event": "start"}, *replies, {"event": "stop", "replies": len(replies), "dropped": 0}]


def made_up_record(addr, want, seq):
    argv = [escape(arg) if want.escaped else arg for arg in want.argv]
    record = {"event": "reply", "seq": seq, "ts": f"2026-01-01T00:00:00.{seq:09}Z", "cmd": argv[0].upper(), "argv": argv,
              "argc": want.argc, "reply_bytes": want.reply_bytes, "request_bytes": want.request_bytes,
              "client_addr": addr, "attribution": "exact", "state": "complete"}
    if want.escaped:
        record["argv_encoding"] = "escaped"
    if want.truncated:
        record["argv_truncated"] = True
    return record


def escape(arg):
    return "".join("\\\\" if byte == 92 else chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in arg)


def play_some(commands=2000):
    with Server("valkey-9.1") as server:
        with server.client() as client:
            workload.fill(client)
        return oracle.run(server.port, commands, connections=4, seed=7).expected


def swap(records, i, j, *keys):
    for key in keys:
        records[i][key], records[j][key] = records[j][key], records[i][key]


def change(key, by):
    def mutate(records, i):
        records[i][key] = by(records[i][key])
    return mutate


def drop(records, i):
    del records[i]


def swap_with_next_of_connection(records, i):
    j = next(j for j in range(i + 1, len(records)) if records[j].get("client_addr") == records[i]["client_addr"]
             and records[j]["argv"] != records[i]["argv"])
    records[i], records[j] = records[j], records[i]


def swap_sizes(records, i):
    j = next(j for j in range(i + 1, len(records)) if records[j].get("reply_bytes", 0) != records[i]["reply_bytes"])
    swap(records, i, j, "reply_bytes")


def repeat(records, i):
    records.insert(i, dict(records[i]))


def insert_dropped(records, i):
    records.insert(i, {"event": "dropped", "count": 1, "reason": "made up"})


MUTATIONS = {
    "record missing": drop, "records swapped": swap_with_next_of_connection, "sizes swapped": swap_sizes,
    "record twice": repeat, "dropped event": insert_dropped,
    "one byte more": change("reply_bytes", lambda n: n + 1), "one byte less": change("reply_bytes", lambda n: n - 1),
    "request off by one": change("request_bytes", lambda n: n + 1), "argc": change("argc", lambda n: n + 1),
    "argument": change("argv", lambda argv: [*argv[:-1], argv[-1] + "x"]), "cmd": change("cmd", lambda _: "NOPE"),
    "argument missing": change("argv", lambda argv: argv[:-1] or ["x"]),
    "ambiguous": change("attribution", lambda _: "ambiguous"), "aborted": change("state", lambda _: "aborted"),
    "another client": change("client_addr", lambda _: "127.0.0.1:1"), "seq gap": change("seq", lambda n: n + 1),
    "time goes back": change("ts", lambda _: "2000-01-01T00:00:00.000000000Z"),
    "time malformed": change("ts", lambda ts: ts[:-1]), "argv lost": lambda records, i: records[i].pop("argv"),
    "says truncated": lambda records, i: records[i].update(argv_truncated=not records[i].get("argv_truncated", False)),
    "stop disagrees": lambda records, _: records[-1].update(replies=1),
    "stop counts a loss": lambda records, _: records[-1].update(dropped=1), "no stop": lambda records, _: records.pop(),
}


def test_comparer_detects_differences():
    expected = play_some()
    good = made_up_records(expected)
    oracle.compare(expected, copy.deepcopy(good))
    for name, mutate in MUTATIONS.items():
        for i in (50, 700, 1500):
            records = list(good)
            records[i:] = copy.deepcopy(records[i:])
            mutate(records, i)
            try:
                oracle.compare(expected, records)
            except Difference as difference:
                print(f"{name}: {str(difference).splitlines()[0]}")
                continue
            raise AssertionError(f"the comparer saw nothing: {name} at {i}")


def test_counter_at_every_split():
    """The counter against lengths known by construction, in two pieces split anywhere, and byte by byte."""
    replies = [b"+OK\r\n", b"-ERR no\r\n", b":12\r\n", b"$0\r\n\r\n", b"$-1\r\n", b"*-1\r\n", b"*0\r\n", b"_\r\n", b"#t\r\n",
               b",3.5\r\n", b"(123\r\n", b"=9\r\ntxt:a\r\nbc\r\n", b"!5\r\nERR x\r\n", b"$6\r\n\r\n$5\r\n\r\n",
               b"*2\r\n*1\r\n:1\r\n*0\r\n", b"%2\r\n+a\r\n*2\r\n:1\r\n:2\r\n$1\r\nb\r\n_\r\n", b"~1\r\n%0\r\n",
               b"|1\r\n+k\r\n*1\r\n:1\r\n$4\r\nreal\r\n", b"*2\r\n|1\r\n+k\r\n+v\r\n:1\r\n:2\r\n",
               b">2\r\n+invalidate\r\n*1\r\n+k\r\n", b"+last\r\n"]
    stream = b"".join(replies)
    want = [(reply[0], len(reply)) for reply in replies]
    assert want[-2][0] == PUSH
    for cut in range(len(stream) + 1):
        counter = ReplyCounter()
        assert counter.feed(stream[:cut]) + counter.feed(stream[cut:]) == want, cut
    counter = ReplyCounter()
    assert [done for byte in stream for done in counter.feed(bytes([byte]))] == want
    assert not counter.in_reply()


def logged_by_server(server, kind):
    """COMMANDLOG's entries, oldest first: {address: [(argv, value)]}."""
    with server.client() as client:
        entries = client.call("COMMANDLOG", "GET", "-1", kind)
    by_addr = {}
    for _, _, value, argv, addr, _ in reversed(entries):
        # The log also has the commands that a script calls, under the script's client. They have no reply of their own.
        if argv != [b"get", b"nokey"]:
            by_addr.setdefault(addr.decode(), []).append((argv, value))
    return by_addr


def bytes_of(arg):
    return arg if isinstance(arg, bytes) else arg.encode()


def same_head(want, argv):
    """Compares the first two arguments, as far as neither side has cut them."""
    return len(argv) == min(want.argc, oracle.MAX_ARGS) and all(
        bytes_of(mine)[:100] == theirs[:100] for mine, theirs in zip(want.argv[:2], argv[:2]))


def test_agrees_with_commandlog():
    """Compares with the server's own counts of replies and requests. It runs without IO threads and copy avoidance, where
    the server knows them."""
    limits = {"reply": "large-reply", "request": "large-request"}
    options = [part for key, name in limits.items() for part in
               (f"--commandlog-{key}-larger-than", "0", f"--commandlog-{name}-max-len", "1000000")]
    with Server("valkey-9.1", "--min-string-size-avoid-copy-reply", "0", *options) as server:
        with server.client() as client:
            workload.fill(client)
        # A command that the server refuses is never run, so COMMANDLOG does not have it.
        outcome = oracle.run(server.port, 20_000, rejected=False)
        print(outcome)
        for key, name in limits.items():
            logs = logged_by_server(server, name)
            for addr, wanted in outcome.expected.items():
                compare_log(addr, key, wanted, logs[addr])


def compare_log(addr, key, wanted: list[Expected], log):
    assert len(wanted) == len(log), f"{addr}: {len(wanted)} commands, COMMANDLOG has {len(log)}"
    for i, (want, (argv, value)) in enumerate(zip(wanted, log)):
        mine = getattr(want, f"{key}_bytes")
        if key == "request" and want.inline:
            mine = value    # the server counts every inline command with single blanks and CRLF
        assert same_head(want, argv) and mine == value, \
            f"{addr}, command {i}: {oracle.describe_expected(want)}, COMMANDLOG {key} {value}: {oracle.shorten(argv)}"
