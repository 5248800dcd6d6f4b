"""Whatever the server would redact never appears in the stream, however the client sends it, at --threshold 0."""
import oracle
from replylog import Replylog
from resp import encode
from server import Server

MARK = "hunter2"        # part of every secret
R = "(redacted)"


def secret(tail=""):
    return f"{MARK}{tail}"


LONG = secret("-" + "x" * 300 + MARK)
BINARY = secret().encode() + b"\xff\x00\x01\\"

# (what is sent, what the record shows). The order matters to the server: the password is set before it is used.
SHOWN = [
    (["AUTH", secret()], ["AUTH", R]),
    (["AUTH", secret("user"), secret()], ["AUTH", R, R]),
    (["CONFIG", "SET", "requirepass", secret()], ["CONFIG", "SET", "requirepass", R]),
    (["AUTH", secret()], ["AUTH", R]),
    (["AUTH", "default", secret()], ["AUTH", R, R]),
    (["HELLO", "3", "AUTH", "default", secret()], ["HELLO", "3", "AUTH", R, R]),
    (["HELLO", "2", "SETNAME", "me", "AUTH", "default", secret()], ["HELLO", "2", "SETNAME", "me", "AUTH", R, R]),
    (["HELLO", "2", "AUTH", "default", secret("wrong"), "SETNAME", "me"], ["HELLO", "2", "AUTH", R, R, "SETNAME", "me"]),
    (["CONFIG", "SET", "masterauth", secret()], ["CONFIG", "SET", "masterauth", R]),
    (["CONFIG", "SET", "masteruser", secret()], ["CONFIG", "SET", "masteruser", R]),
    (["CONFIG", "SET", "maxmemory", "0", "requirepass", secret()], ["CONFIG", "SET", "maxmemory", "0", "requirepass", R]),
    (["ACL", "SETUSER", secret("user"), "on", ">" + secret(), "+@all"], ["ACL", "SETUSER", R, R, R, R]),
    (["ACL", "GETUSER", secret("user")], ["ACL", "GETUSER", R]),
    (["ACL", "DELUSER", secret("user"), secret("other")], ["ACL", "DELUSER", R, R]),
    (["MIGRATE", "127.0.0.1", "1", "nokey", "0", "9", "AUTH", secret()],
     ["MIGRATE", "127.0.0.1", "1", "nokey", "0", "9", "AUTH", R]),
    (["MIGRATE", "127.0.0.1", "1", "nokey", "0", "9", "COPY", "AUTH2", secret("user"), secret()],
     ["MIGRATE", "127.0.0.1", "1", "nokey", "0", "9", "COPY", "AUTH2", R, R]),
    (["MIGRATE", "127.0.0.1", "1", "", "0", "9", "AUTH", secret(), "KEYS", "nokey"],
     ["MIGRATE", "127.0.0.1", "1", "", "0", "9", "AUTH", R, "KEYS", "nokey"]),
]

# Secrets sent in odd ways: the test only requires that no part of them appears.
HIDDEN = [
    ["auth", secret()], ["aUtH", secret()], ["AUTH", LONG], ["AUTH", BINARY], ["AUTH", "a", "b", secret(), secret()],
    ["AUTH", "u", LONG], ["hello", "3", "auth", "default", secret()], ["HELLO", "3", "AUTH", secret()],
    ["HELLO", "3", "AUTH", "default", LONG], ["HELLO", "x", "AUTH", secret(), secret()],
    ["HELLO", "3", "NONSENSE", "AUTH", secret(), secret()],
    ["config", "set", "RequirePass", LONG], ["CONFIG", "SET", "requirepass", secret(), "odd"],
    ["CONFIG", "SET", "nosuch", "1", "requirepass", secret()], ["CONFIG", "SET", "tls-key-file-pass", secret()],
    ["CONFIG", "SET", *["maxmemory", "0"] * 20, "requirepass", secret()],
    ["CONFIG", "SET", "primaryauth", secret()], ["CONFIG", "SET", "primaryuser", secret()],
    ["acl", "setuser", "u", ">" + LONG, *["+get"] * 40, ">" + secret()], ["ACL", "SETUSER", secret()],
    ["ACL", "DRYRUN", "default", "AUTH", secret()],
    ["migrate", "127.0.0.1", "1", "", "0", "9", "replace", "auth", LONG, "keys", *["nokey"] * 40],
    ["MIGRATE", "127.0.0.1", "1", "nokey", "0", "9", "NONSENSE", "AUTH2", secret(), secret()],
]

INLINE = [
    b"AUTH hunter2\r\n", b"auth   hunter2\n", b'AUTH "hunter2 with blanks"\r\n', b'AUTH "\\x68unter2"\r\n',
    b"CONFIG SET requirepass hunter2\r\n",
    b"HELLO 2 AUTH default hunter2\r\n", b"ACL SETUSER u >hunter2\r\n", b"AUTH default " + LONG.encode() + b"\r\n",
    b"AUTH " + b" " * 3000 + b"hunter2\r\n",
]
# valkey 8.1 and 9.1 drop the bytes 0xff, and read AUTH, HELLO, CONFIG and so on.
INLINE_DROPPED = [
    b"A\xffUTH hunter2\r\n", b"\xffAUTH hunter2\r\n", b"AUTH\xff hunter2\r\n", b"'A\xffUTH' hunter2\r\n",
    b'"AUTH"\xff hunter2\r\n', b'"\\\xffAUTH" hunter2\r\n', b"AU\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xffTH hunter2\r\n",
    b"HELLO 2 AU\xffTH default hunter2\r\n", b"HELLO \xff2 AUTH default hunter2\r\n", b"HEL\xffLO 2 AUTH a hunter2\r\n",
    b"CONFIG SET requi\xffrepass hunter2\r\n", b"CONFIG S\xffET masterauth hunter2\r\n", b"CO\xffNFIG SET masterauth hunter2\r\n",
    b"ACL SET\xffUSER u >hunter2\r\n", b"A\xffCL SETUSER u >hunter2\r\n", b"M\xffIGRATE h 1 k 0 1 AUTH hunter2\r\n",
    b"MIGRATE h 1 k 0 1 AU\xffTH hunter2\r\n", b"AUTH\xff default 'hunter2\\'\r\n", b"AUTH default 'hunter2\\'\r\n",
]
INLINE_QUOTED_NAME = [b'"AU\\x54H" hunter2\r\n', b"'AUTH' 'hunter2'\r\n", b"AU'TH' hunter2\r\n"]


def raw(argv):
    return encode([arg if isinstance(arg, bytes) else arg.encode() for arg in argv])


def assert_nothing_shows(replylog):
    escaped = "".join(f"\\\\x{ord(letter):02x}" for letter in MARK)
    for form in (MARK, MARK.upper(), escaped, escaped[2:], "unter2"):
        leaks = [line for line in replylog.lines if form.encode() in line]
        assert not leaks, f"{form!r} shows: {leaks[0]!r}"
    assert MARK not in replylog.stderr, replylog.stderr


def run_with(name, requests, one_by_one=True, logged=True):
    """Sends requests (bytes) on one connection. Returns the ended replylog and its reply records."""
    with Server(name) as server, Replylog(server.pid, 0) as replylog, server.client() as client:
        for request in requests if one_by_one else [b"".join(requests)]:
            client.drain(request, 1 if one_by_one else len(requests))
        if logged:
            replylog.wait_replies(len(requests))
        replylog.stop()
    assert_nothing_shows(replylog)
    replies = replylog.replies()
    assert not logged or len(replies) == len(requests), f"{len(replies)} records of {len(requests)} commands"
    return replies


def each_server(function):
    function.cases = {"valkey-9.1": ("valkey-9.1",), "redis-7.0": ("redis-7.0",)}
    return function


@each_server
def test_as_the_server_redacts(name):
    for one_by_one in (True, False):
        replies = run_with(name, [raw(argv) for argv, _ in SHOWN], one_by_one)
        for (sent, want), record in zip(SHOWN, replies):
            assert record["argv"] == want, f"{oracle.shorten(sent)}: shows {record['argv']}, want {want}"


@each_server
def test_in_odd_ways(name):
    for one_by_one in (True, False):
        run_with(name, [raw(argv) for argv in HIDDEN], one_by_one)


@each_server
def test_inline(name):
    run_with(name, INLINE)


def each_way_to_split(function):
    function.cases = {name: (name,) for name in ("valkey-9.1", "valkey-8.1", "redis-7.0", "redis-8.0")}
    return function


@each_way_to_split
def test_inline_with_dropped_bytes(name):
    with Server(name) as server, Replylog(server.pid, 0) as replylog:
        for request in INLINE_DROPPED:
            with server.client() as client:
                client.drain(request, 1)
        replylog.stop()
    assert_nothing_shows(replylog)


@each_server
def test_inline_with_a_quoted_name(name):
    for request in INLINE_QUOTED_NAME:
        run_with(name, [request], logged=False)


@each_server
def test_in_a_protocol_error(name):
    """An unbalanced quote: the server answers with an error and closes, and the record does not show the line."""
    run_with(name, [b'AUTH "hunter2\r\n'], logged=False)


@each_server
def test_cut_anywhere(name):
    """The request in two pieces, cut at every byte."""
    request = raw(["AUTH", "default", secret()])
    with Server(name) as server, Replylog(server.pid, 0) as replylog:
        with server.client() as client, server.client() as pacer:
            for cut in range(1, len(request)):
                client.sock.sendall(request[:cut])
                # After two round trips the server has read the first piece alone.
                pacer.call("PING")
                pacer.call("PING")
                client.drain(request[cut:], 1)
        replylog.wait_replies(3 * (len(request) - 1))
        replylog.stop()
        assert_nothing_shows(replylog)
        shown = [record["argv"] for record in replylog.replies() if record["cmd"] == "AUTH"]
        assert shown == [["AUTH", R, R]] * (len(request) - 1), shown[:3]
