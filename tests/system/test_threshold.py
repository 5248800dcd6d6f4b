"""replylog logs a reply of exactly the threshold, and not one of a byte less. It reads sizes in the servers' notation."""
from replylog import Replylog
from resp import encode
from server import Server

SIZES = {"0": 0, "1": 1, "100": 100, "100b": 100, "1k": 1000, "1K": 1000, "1kb": 1024, "1Kb": 1024, "2KB": 2048,
         "1m": 1_000_000, "1mb": 1_048_576, None: 1_048_576}
HUGE = {"1g": 10**9, "1GB": 2**30}      # parsed, but never reached


def value_for_reply(size):
    """The length of a value whose GET reply has exactly size bytes."""
    for digits in range(1, 12):
        length = size - len("$\r\n\r\n") - digits
        if length >= 0 and len(str(length)) == digits:
            return length
    return None


def logged(server, threshold, argvs):
    """Returns what replylog logs of these commands."""
    with Replylog(server.pid, threshold) as replylog, server.client() as client:
        for argv in argvs:
            client.drain(encode(argv), 1)
        # The last reply exceeds every threshold of this test: when it is logged, so are all before it.
        client.drain(encode([b"GET", b"sentinel"]), 1)
        replylog.wait_replies(1)
        records = replylog.stop()
        assert records[0]["threshold"] == SIZES.get(threshold, HUGE.get(threshold)), records[0]
        replies = [record for record in records if record["event"] == "reply"]
        assert replies and replies[-1]["argv"] == ["GET", "sentinel"], replies
        return [record["reply_bytes"] for record in replies[:-1]]


def test_at_and_below():
    with Server("valkey-9.1") as server:
        with server.client() as client:
            client.call("SETRANGE", "sentinel", 2_000_000, "x")
        for text, size in SIZES.items():
            check_one_size(server, text, size)


def check_one_size(server, text, size):
    reachable = [n for n in (size - 1, size, size + 1) if n > 5 and value_for_reply(n) is not None]
    with server.client() as client:
        for n in reachable:
            client.call("SET", f"reply:{n}", "v" * value_for_reply(n))
    got = logged(server, text, [[b"GET", b"reply:%d" % n] for n in reachable])
    want = [n for n in reachable if n >= size]
    assert got == want, f"--threshold {text}: logged {got}, want {want}"


def test_huge_sizes_are_understood():
    with Server("valkey-9.1") as server:
        for text, size in HUGE.items():
            with Replylog(server.pid, text) as replylog:
                start = replylog.records()[0]
                assert start["threshold"] == size, start
