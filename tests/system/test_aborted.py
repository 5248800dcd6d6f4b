"""Clients that disconnect in the middle of a reply: how much of it the server had sent, and which other commands were
unanswered."""
import signal
import socket
import struct

from conversation import FrameClient, compare, on_servers, records_of, reply, request, frame_client, wait_records
from replylog import Replylog
from server import Server
from waiting import wait_until

LARGE = 50_000_000
REPLY = len(f"${LARGE}\r\n") + LARGE + 2
READ = 1000             # bytes that a client has read before the test interrupts the reply


def begun(conn, *commands):
    """Sends commands, the first with a reply far larger than the kernel's buffers, and reads the beginning of that reply."""
    conn.send(*commands)
    got = 0
    while got < READ:
        got += len(conn.sock.recv(READ - got))


def rest(conn):
    """Returns how many bytes arrived in all. The kernel delivers what it has accepted, unless the connection is reset."""
    got = READ
    try:
        while more := len(conn.sock.recv(1 << 20)):
            got += more
    except ConnectionResetError:
        pass
    return got


def fill(other):
    other.call("SETRANGE", "huge", LARGE - 1, "x")
    other.call("SET", "small", "x" * 5000)


def aborted(records, argv=("GET", "huge"), kind=("simple", "pipelined"), expected=REPLY):
    """Checks that one record is aborted, and returns it."""
    found = [record for record in records if record["state"] == "aborted"]
    assert len(found) == 1, records
    record = found[0]
    assert tuple(record["argv"]) == argv and record["kind"] in kind, record
    # For a burst, nothing can prove any more which command each reply answers: the connection closed before all replies.
    assert record["attribution"] == ("exact" if record["kind"] == "simple" else "ambiguous"), record
    assert "reply_bytes" not in record and record["request_bytes"] == len(request(*argv)), record
    assert READ <= record["bytes_sent"] < record["bytes_expected"] == expected, record
    assert record["writes"] >= 1 and record["drain_us"] >= 0 and record["ts"] > record["request_ts"], record
    return record


@on_servers
def test_killed(name, io_threads):
    """CLIENT KILL while commands are outstanding: they count as unanswered."""
    with frame_client(name, io_threads) as (conn, other, replylog):
        fill(other)
        begun(conn, ("GET", "huge"), ("ECHO", "behind"), ("ECHO", "behind"))
        other.call("CLIENT", "KILL", conn.addr)
        got = rest(conn)
        records = wait_records(replylog, conn, 1)
        stop = replylog.stop()[-1]
        assert aborted(records)["bytes_sent"] == got, (records, got)
        assert len(records_of(replylog, conn)) == 1 and stop["unanswered"] == 2 and stop["dropped"] == 0, stop


@on_servers
def test_reset_by_the_client(name, io_threads):
    with frame_client(name, io_threads) as (conn, other, replylog):
        fill(other)
        begun(conn, ("GET", "small"), ("GET", "huge"), ("ECHO", "behind"))
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        conn.sock.close()
        records = wait_records(replylog, conn, 2)
        stop = replylog.stop()[-1]
        aborted(records)
        assert records[0]["argv"] == ["GET", "small"] and records[0]["state"] == "complete", records
        assert stop["unanswered"] == 1 and stop["dropped"] == 0, stop


@on_servers
def test_closed_by_the_client(name, io_threads):
    """The client shuts its side down and reads on. The server sees the end of the stream, and closes."""
    with frame_client(name, io_threads) as (conn, other, replylog):
        fill(other)
        begun(conn, ("GET", "huge"))
        conn.sock.shutdown(socket.SHUT_WR)
        got = rest(conn)
        record, = wait_records(replylog, conn, 1)
        assert replylog.stop()[-1]["unanswered"] == 0
        # A server that has written the whole reply before it reads the end of the stream completes it.
        if record["state"] == "aborted":
            assert aborted([record])["bytes_sent"] == got, (record, got)
        else:
            assert record["reply_bytes"] == got == REPLY, (record, got)


@on_servers
def test_output_buffer_limit(name, io_threads):
    """A slow consumer: it requests more than the limit allows while it still reads the first reply."""
    with frame_client(name, io_threads) as (conn, other, replylog):
        fill(other)
        for _ in range(20):
            other.call("RPUSH", "list", *["e" * 1000] * 2000)
        other.call("CONFIG", "SET", "client-output-buffer-limit", f"normal {LARGE + LARGE // 10} 0 0")
        begun(conn, ("GET", "huge"))
        conn.send(("LRANGE", "list", "0", "-1"), ("ECHO", "behind"))
        wait_until(lambda: conn.addr.encode() not in other.call("CLIENT", "LIST"), "end of the slow client")
        got = rest(conn)
        records = wait_records(replylog, conn, 1)
        stop = replylog.stop()[-1]
        assert aborted(records)["bytes_sent"] == got, (records, got)
        assert stop["unanswered"] == 2 and stop["dropped"] == 0, stop


@on_servers
def test_timeout(name, io_threads):
    """--timeout 1: the server closes a client that has read nothing for that long."""
    with Server(name, "--timeout", "1", "--hz", "100", io_threads=io_threads) as server, \
            Replylog(server.pid, 0) as replylog, FrameClient(server.port) as conn:
        with server.client() as other:
            fill(other)
        begun(conn, ("GET", "huge"))
        records = wait_records(replylog, conn, 1)
        got = rest(conn)
        assert aborted(records)["bytes_sent"] == got, (records, got)
        assert records[0]["drain_us"] > 900_000, records
        assert replylog.stop()[-1]["unanswered"] == 0


def check_server_ends(name, io_threads, signum):
    with Server(name, io_threads=io_threads) as server, Replylog(server.pid, 0) as replylog, \
            FrameClient(server.port) as conn, FrameClient(server.port) as second, FrameClient(server.port) as waiting:
        with server.client() as other:
            fill(other)
            begun(conn, ("GET", "huge"), ("ECHO", "behind"))
            begun(second, ("MULTI",), ("ECHO", "inside"), ("GET", "huge"), ("EXEC",))
            waiting.send(("BLPOP", "none", "0"))
            wait_until(lambda: b"blocked_clients:1\r" in other.call("INFO", "clients"), "the blocked client")
            # replylog does not see what a killed server wrote in a call that never returned.
            other.call("ECHO", "settled")
            wait_until(lambda: any(record.get("argv") == ["ECHO", "settled"] for record in records_of(replylog, other)),
                       "record of the last command")
        server.process.send_signal(signum)
        stop = replylog.finish()[-1]
        got = rest(conn)
    assert stop["event"] == "stop" and stop["reason"] == "server_exited" and stop["dropped"] == 0, stop
    record = aborted(records_of(replylog, conn))
    assert READ <= got <= record["bytes_sent"], (record, got)
    aborted(records_of(replylog, second), kind=("multi",))
    # Two commands: the ECHO behind EXEC, whose own reply is the aborted one, and BLPOP.
    assert stop["unanswered"] == 2, stop


@on_servers
def test_server_killed(name, io_threads):
    check_server_ends(name, io_threads, signal.SIGKILL)


@on_servers
def test_server_terminated(name, io_threads):
    check_server_ends(name, io_threads, signal.SIGTERM)


@on_servers
def test_replylog_stopped(name, io_threads):
    """replylog ends before the reply does: the reply counts as unfinished, and has no record."""
    with frame_client(name, io_threads, 1_000_000) as (conn, other, replylog):
        fill(other)
        begun(conn, ("GET", "huge"), ("ECHO", "behind"))
        records = replylog.stop()
        losses = [(record["reason"], record["count"]) for record in records if record["event"] == "dropped"]
        assert losses == [("unfinished", 1)] and records[-1]["dropped"] == 1, records
        assert records_of(replylog, conn) == [], records
        left = REPLY + len(b"$6\r\nbehind\r\n") - READ
        while left:
            left -= len(conn.sock.recv(1 << 20))


@on_servers
def test_inside_a_transaction(name, io_threads):
    """The connection closes inside the reply of an inner command. The replies before it are complete."""
    with frame_client(name, io_threads) as (conn, other, replylog):
        fill(other)
        begun(conn, ("MULTI",), ("GET", "small"), ("GET", "huge"), ("GET", "small"), ("EXEC",), ("ECHO", "behind"))
        other.call("CLIENT", "KILL", conn.addr)
        rest(conn)
        records = wait_records(replylog, conn, 6)
        stop = replylog.stop()[-1]
        aborted(records, kind=("multi",))
        complete = [(record["argv"][0], record["reply_bytes"]) for record in records[:-1]]
        assert complete == [("MULTI", 5), ("GET", 9), ("GET", 9), ("GET", 9), ("GET", 5009)], complete
        assert stop["unanswered"] == 1 and stop["dropped"] == 0, stop


@on_servers
def test_inside_a_message(name, io_threads):
    """A subscriber that is too slow for a large message: the push is aborted, and no command is unanswered."""
    with frame_client(name, io_threads) as (conn, other, replylog):
        expected = reply(("SUBSCRIBE", "a"), conn.ask("SUBSCRIBE", "a"))
        other.call("CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0")
        other.call("PUBLISH", "a", "x" * LARGE)
        got = 0
        while got < READ:
            got += len(conn.sock.recv(READ - got))
        other.call("CLIENT", "KILL", conn.addr)
        got = rest(conn)
        records = wait_records(replylog, conn, 2)
        stop = replylog.stop()[-1]
        compare(records[:1], [expected])
        cut = records[1]
        assert (cut["kind"], cut["push"], cut["channel"], cut["state"]) == ("push", "message", "a", "aborted"), cut
        assert cut["bytes_sent"] == got and LARGE < cut["bytes_expected"] <= LARGE + 50, cut
        assert stop["unanswered"] == 0 and stop["dropped"] == 0, stop
