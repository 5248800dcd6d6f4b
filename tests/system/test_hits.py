"""Where IO threads do the I/O, replylog adds nothing to the main thread. The test compares replylog's counts with the
server's."""
import re
import subprocess
from contextlib import contextmanager

from processes import end
from replylog import Replylog
from server import Server
from waiting import wait_until

ALONE = "its load keeps the IO threads busy all the time, so it takes most of the CPU time from other tests"

LOOPS = 500
LOAD = 20_000       # enough hits to judge by
CLIENTS = 50


def io_counts(client):
    """Returns (reads and writes on the main thread, those on IO threads), as the server counts them.

    valkey 9.1 does some writes on the main thread even with io-threads-always-active. When the last IO job ends between
    beforeSleep's last check for responses and IOThreadsBeforeSleep, that puts the threads to sleep, and only an event
    (not a response) wakes them. So replylog's count must match the server's, and is not always 0.
    """
    text = client.call("INFO", "stats").decode()
    total, threaded = (sum(int(re.search(rf"{prefix}_{what}_processed:(\d+)", text)[1]) for what in ("reads", "writes"))
                       for prefix in ("total", "io_threaded"))
    return total - threaded, threaded


def get_in_a_loop(client):
    for _ in range(LOOPS):
        assert client.call("GET", "key") == b"value"


@contextmanager
def watched(io_threads):
    """Yields (server, its only client). No connection may close while replylog runs, because the main thread does that,
    which is a hit."""
    with Server("valkey-9.1", io_threads=io_threads) as server, server.client() as watcher:
        watcher.call("SET", "key", "value")
        wait_until(lambda: watcher.call("CLIENT", "LIST").count(b"\n") == 1, "server without other clients")
        yield server, watcher


def test_loop_of_gets(io_threads, connect_before):
    with watched(io_threads) as (server, watcher):
        main_before, _ = io_counts(watcher)
        early = server.client() if connect_before else None
        with Replylog(server.pid, None) as replylog, early or server.client() as client:
            get_in_a_loop(client)
            stop = replylog.stop()[-1]
            main_after, _ = io_counts(watcher)
    # The main thread accepts each connection, which is one hit that is neither a read nor a write.
    accepted = 0 if connect_before else 1
    main, io, server_main = stop["hits_main"] - accepted, stop["hits_io"], main_after - main_before
    print(f"{stop}; the server: {server_main} on the main thread")
    assert main + io == 2 * LOOPS, f"{main} hits on the main thread, {io} elsewhere, want {2 * LOOPS} in all"
    # The server's count includes a write of the first INFO and a read of the second.
    assert server_main - 2 <= main <= server_main, f"{main} hits on the main thread, the server says {server_main}"
    if io_threads == 1:
        assert io == 0, f"{io} hits on other threads than the main thread"


test_loop_of_gets.cases = {
    f"{io_threads} io threads,{'older' if before else 'newer'} connection": (io_threads, before)
    for io_threads in (1, 2, 4) for before in (True, False)}


@contextmanager
def benchmark(server):
    """A load that continues, with enough clients to keep the IO threads busy."""
    running = subprocess.Popen(
        ["chroot", server.dir, "/usr/bin/valkey-benchmark", "-p", str(server.port), "-n", "1000000000", "-q", "-t", "get",
         "-c", str(CLIENTS)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield running
    finally:
        end(running)


def hits_under_load(server, watcher):
    """Returns (hits_main, hits_io, and the least and most reads and writes that the server did on its main thread while
    replylog ran)."""
    before, _ = io_counts(watcher)
    with Replylog(server.pid, None) as replylog:
        there, io_before = io_counts(watcher)
        wait_until(lambda: io_counts(watcher)[1] - io_before > LOAD + CLIENTS, "load", 60, interval=0.1)
        still_there, _ = io_counts(watcher)
        stop = replylog.stop()[-1]
    return stop["hits_main"], stop["hits_io"], still_there - there, io_counts(watcher)[0] - before


def test_main_thread_has_no_hits(io_threads):
    """Under a load that leaves no I/O to the main thread, that thread has no hits at all. The load wakes the threads, as
    in production, and not io-threads-always-active, which also puts them to sleep."""
    with watched(io_threads) as (server, watcher):
        watcher.call("CONFIG", "SET", "io-threads-always-active", "no")
        with benchmark(server):
            wait_until(lambda: b"io_threads_active:1" in watcher.call("INFO", "server"), "active IO threads", 60)
            rounds = [hits_under_load(server, watcher) for _ in range(5)]
    print(f"(hits on the main thread, elsewhere, the server's own work on its main thread, least and most): {rounds}")
    # The server counts a read or write only when it handles that client, so each client may have two that are not counted
    # yet.
    under_way = 2 * CLIENTS + 2
    for main, io, least, most in rounds:
        assert least - under_way <= main <= most + under_way, f"{main} hits on the main thread, the server says {least} to {most}"
        assert io >= LOAD, f"{io} hits on IO threads"
    assert any(main == 0 for main, *_ in rounds), rounds


test_main_thread_has_no_hits.cases = {"2 io threads": (2,), "4 io threads": (4,)}
