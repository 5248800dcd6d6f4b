"""Very large replies have one exact record each, and the daemon's memory does not grow."""
from processes import status_kib
from replylog import Replylog
from resp import encode
from server import Server

MB = 1_000_000
GROWTH_MAX_KIB = 4096


def fill(client):
    """Stores a string of 100 MB, and a list of a million elements of mixed small sizes."""
    client.call("SETRANGE", "big", 100 * MB - 1, "x")
    client.pipeline(("RPUSH", "list", *range(base, base + 10_000)) for base in range(0, MB, 10_000))


def test_one_record_each(name, io_threads):
    argvs = [[b"GET", b"big"], [b"LRANGE", b"list", b"0", b"-1"], [b"GET", b"big"]]
    with Server(name, io_threads=io_threads) as server:
        with server.client() as client:
            fill(client)
        with Replylog(server.pid, None) as replylog, server.client() as client:     # the default threshold
            client.call("GET", "list-is-small-enough-to-go-unlogged")
            before = status_kib(replylog.pid, "VmRSS")
            lengths = [client.drain(encode(argv), 1)[0] for argv in argvs]
            replylog.wait_replies(len(argvs))
            grown = status_kib(replylog.pid, "VmHWM") - before
            records = replylog.stop()
            replies = [record for record in records if record["event"] == "reply"]
            print(f"{lengths} daemon: {before} KiB, grew {grown}; stop record: {records[-1]}")
            assert lengths[0] == len(b"$100000000\r\n") + 100 * MB + 2
            assert [record["reply_bytes"] for record in replies] == lengths, replies
            assert [record["argv"] for record in replies] == [[arg.decode() for arg in argv] for argv in argvs], replies
            assert all(record["client_addr"] == client.addr for record in replies), replies
            assert {record["attribution"] for record in replies} == {"exact"}, replies
            assert {record["state"] for record in replies} == {"complete"}, replies
            assert all(record["writes"] > 1 for record in replies), replies
            assert all(record["request_bytes"] == len(encode(argv)) for record, argv in zip(replies, argvs)), replies
            assert records[-1]["dropped"] == 0, records[-1]
            assert grown < GROWTH_MAX_KIB, f"daemon grew by {grown} KiB"


test_one_record_each.cases = {f"{name},{io_threads} io threads": (name, io_threads) for name, io_threads in
                              (("valkey-9.1", 4), ("valkey-9.1", 1), ("redis-7.0", 4), ("redis-7.0", 1))}
