"""The inputs of test_faults.py. Each once led to a wrong record, or is built like one that did, from the servers'
sources.

The forged replies are in text that servers echo unescaped: an error that ends its line early and goes on as another
reply.
Where the numbers allow it, as many replies arrive as there were commands, each of a type that its command can have.
"""
import socket
from dataclasses import dataclass

from conversation import request
from truth import bulk
from waiting import wait_until

VALUES = {"big": 1_000_000, **{key: 1100 * (at + 1) for at, key in enumerate("abcdef")}}
BIG = ("GET", "big")
LETTERS = tuple(("GET", key) for key in "abcdef")


@dataclass(frozen=True)
class Input:
    """What a client sends in one write: commands, and raw bytes."""
    parts: tuple
    first: tuple = ()           # commands that the client sends before, one by one
    lossless: bool = False      # each command gets one reply, and its record is exact
    knows: bool = False         # afterwards replylog knows who the client is
    then: tuple = ()            # sent before the next record must be exact
    hangs: bool = False         # the server stops reading
    older: bool = False         # on a connection that is older than replylog
    send: object = None         # (conn, another client): sends the input when one write will not do
    meanwhile: tuple = ()       # what CLIENT LIST would have shown in between
    whole: int = 0              # size of an EXEC reply that is logged as a whole, because replylog can't recognise it as EXEC's
    since: str = "6.0"          # the first server version (valkey's first is 7.2)
    only: str = ""              # the only kind of server that it applies to

    def commands(self):
        return [part for part in self.parts if isinstance(part, tuple)]

    def data(self):
        return b"".join(part if isinstance(part, bytes) else request(*part) for part in self.parts)


def urgent(conn, _):
    """Sends a byte of urgent data, which is not part of the stream, between two commands."""
    conn.send(BIG)
    conn.sock.send(b"!", socket.MSG_OOB)
    conn.send(("PING",))


def cut_before(mark):
    """Ends one write before mark, and begins another with it when the server has read the first."""
    def send(conn, other):
        head, tail = INPUTS_OF_TWO_WRITES[mark]
        conn.sock.sendall(head)
        round_trips(other)
        conn.sock.sendall(tail)
    return send


INPUTS_OF_TWO_WRITES = {b"RCmb": (b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$9\r\nabcde", b"RCmb\r\n")}


def served_while_paused(conn, other):
    """The server serves a blocked command, and a pause postpones it before the server executes it again."""
    conn.send(("BLPOP", "list", "0"), *LETTERS)
    wait_until(lambda: b"blocked_clients:1\r" in other.call("INFO", "clients"), "a blocked client")
    other.pipeline([("MULTI",), ("CLIENT", "PAUSE", "300", "WRITE"), ("LPUSH", "list", "x"), ("EXEC",)])


def round_trips(other, count=3):
    """After these round trips the server has gone around its event loop."""
    for _ in range(count):
        other.call("PING")


def transactions(count):
    keys = ("big" if turn % 100 == 50 else "abcdef"[turn % 6] for turn in range(count))
    return tuple(part for key in keys for part in (("MULTI",), ("GET", key), ("EXEC",)))


def one_each(count, *names):
    """One channel for each command, as task queues and client libraries do it."""
    return tuple((name, f"channel:{number}") for name in names for number in range(count))


PING, ECHO, END = ("PING",), ("ECHO", "x"), ("ECHO", "end")
BAD = ("AUTH", "nouser", "bad")
TWO_LINES = "x\r\n$5\r\nhello"
ESCAPED = "x\\r\\n$5\\r\\nhello"      # Lua, or the server's parser of quotes, unescapes it
# The forged reply answers the first GET, and takes the replies to two commands for the second GET's.
FORGED = f"x\\r\\n$4\\r\\nabcd\\r\\n${bulk(VALUES['a']) + bulk(VALUES['big']) - 2}"


def behind(*argv, first=()):
    """A command whose error a client reads as two replies. The replies behind it then look like those of other commands."""
    return Input((argv, BIG, PING, END), first=first)


def script(text):
    return behind("EVAL", text, "0")


def library(text):
    return behind("FUNCTION", "LOAD", text)


def shebang(text):
    """A script that fails because of its first line."""
    return "EVAL", f'#!lua "{text}"\nreturn 1', "0"


SCRIPTS = {f"a script: {text[:60]!r}": script(text % ESCAPED) for text in (
    "error({err='%s'})", "error('%s')", "return {err='%s'}", "return redis.error_reply('%s')", "error(redis.error_reply('%s'))",
    "return {ok='%s'}", "return redis.status_reply('%s')", "redis.setresp(3) return {big_number='%s'}", 'return 1 "%s"',
    '#!"%s"\nreturn 1', '#!lua "%s"\nreturn 1', '#!lua flags="%s"\nreturn 1', "return _G['%s']", "_G['%s'] = 1",
    "local t = nil; return t['%s'].x", "return redis.call('%s')", "return redis.call('get', 'a', '%s')",
    "return redis.call('config', '%s')", "error({err='ERR x', source='%s', line='1'})", "error({err='ERR x', source='a', line='%s'})",
    "redis.log(redis.LOG_WARNING, '%s') return redis.pcall('%s')".replace("'%s') r", "'x') r"))}

LIBRARIES = {f"a library: {text[:60]!r}": library(text % ESCAPED) for text in (
    '#!lua name=l\nreturn 1 "%s"', '#!"%s" name=l\nreturn 1', '#!lua name=l "%s"\nreturn 1', '#!lua name="%s"\nreturn 1',
    "#!lua name=l\nerror('%s')", "#!lua name=l\nerror({err='%s'})", "#!lua name=l\nredis.register_function('%s', function() end)",
    "#!lua name=l\nredis.register_function{function_name='f', callback=function() end, flags={'%s'}}",
    "#!lua name=l\nredis.register_function{function_name='f', callback=function() end, ['%s']=1}", "#!lua name=l\nreturn _G['%s']")}

ECHOES = {f"echoed by {' '.join(argv)}": behind(*argv, TWO_LINES, *rest) for argv, *rest in (
    (("ACL", "SETUSER", "u"),), (("ACL", "SETUSER"),), (("ACL", "DRYRUN", "default"),), (("ACL", "DELUSER"),), (("DEBUG", "ERROR"),),
    (("DEBUG", "PROTOCOL"),), (("DEBUG",),), (("CONFIG", "SET"), "1"), (("CONFIG", "SET", "maxmemory-policy"),),
    (("CONFIG", "SET", "notify-keyspace-events"),), (("CONFIG", "SET", "oom-score-adj-values"),), (("CONFIG", "SET", "save"),),
    (("CONFIG", "SET", "client-output-buffer-limit"),), (("CLIENT", "SETNAME"),), (("CLIENT", "SETINFO", "LIB-NAME"),),
    (("CLIENT", "SETINFO"), "x"), (("HELLO", "3"),), (("HELLO", "3", "SETNAME"),), (("CLIENT", "LIST", "TYPE"),),
    (("CLIENT", "KILL", "TYPE"),), (("CLIENT", "KILL", "USER"),), ((), "x"), (("OBJECT",),), (("LATENCY", "HELP"),),
    (("LATENCY", "GRAPH"),), (("REPLICAOF", "h"),), (("FAILOVER", "TO"), "1"), (("RESTORE",), "0", "x"), (("MODULE", "LOAD"),),
    (("MODULE", "UNLOAD"),), (("XREADGROUP", "GROUP"), "g", "STREAMS", "k", ">"), (("XADD", "k"), "a", "b"), (("ZADD", "z"), "b"),
    (("COMMAND", "GETKEYS"),), (("COMMAND", "LIST", "FILTERBY"), "x"), (("MEMORY",),), (("CLUSTER",),),
    (("COMMANDLOG", "GET", "1"),), (("BITFIELD", "k", "GET"), "0"), (("SET", "k", "v"),), (("PFDEBUG",), "k"), (("SELECT",),),
    (("SCRIPT",),), (("FUNCTION",),), (("FUNCTION", "RESTORE", "x"),), (("FUNCTION", "LIST"),), (("SCRIPT", "EXISTS"),),
    (("SORT", "a", "BY"),), (("OBJECT", "FREQ"),), (("GEOADD", "g"), "1", "b"))}

FORGERIES = {
    "as many replies as commands": Input((shebang(FORGED), ("GET", "a"), BIG, ("GET", "c"), ("GET", "d"))),
    "as many replies as commands, by SCRIPT LOAD": Input(
        (("SCRIPT", "LOAD", shebang(FORGED)[1]), ("GET", "a"), BIG, ("GET", "c"), ("GET", "d"))),
    "as many replies as commands, in a transaction": Input(
        (("MULTI",), shebang(FORGED), ("GET", "a"), BIG, ("GET", "c"), ("EXEC",), ("GET", "d"))),
    "as many replies as commands, in a transaction by SCRIPT LOAD": Input(
        (("MULTI",), ("SCRIPT", "LOAD", shebang(FORGED)[1]), ("GET", "a"), BIG, ("GET", "c"), ("EXEC",), ("GET", "d"))),
    "one more, and one less": Input((shebang("x\\r\\n+y"), ("GET", "a"), BIG, ("GET", "b"), shebang("x\\r\\n$16"),
                                     ("ECHO", "en1"), ("ECHO", "en2"), *LETTERS)),
    "one more, and one less, in a transaction": Input(
        (("MULTI",), shebang("x\\r\\n+y"), ("GET", "a"), BIG, ("GET", "b"), shebang("x\\r\\n$16"), ("ECHO", "en1"), ("ECHO", "en2"),
         ("GET", "c"), ("EXEC",), ("GET", "d"))),
    "AUTH is answered by a forged OK": Input((shebang("x\\r\\n+OK"), BAD, BIG, ("GET", "a"))),
    "HELLO AUTH is answered by a forged map": Input((shebang("x\\r\\n%0"), ("HELLO", "3", "AUTH", "nouser", "bad"), BIG, ("GET", "a"))),
    "SETNAME is answered by a forged OK": Input((shebang("x\\r\\n+OK"), ("CLIENT", "SETNAME", "a b"), BIG, ("GET", "a"))),
    "SELECT is answered by a forged OK": Input((shebang("x\\r\\n+OK"), ("SELECT", "7777"), BIG, ("GET", "a"))),
    "SELECT is answered by another's OK": Input((shebang("x\\r\\n+OK"), ("SET", "k", "v"), ("SELECT", "3"), ("SELECT", "0"), BIG)),
    "MULTI is answered by a forged OK": Input((shebang("x\\r\\n+OK"), ("MULTI",), BIG, ("EXEC",), ("GET", "a"))),
    "a forged string of two values": Input((shebang("x\\r\\n$2000000"), BIG, BIG, ("GET", "a"), BIG)),
    "a forged message": Input((shebang("x\\r\\n>3\\r\\n$7\\r\\nmessage\\r\\n$1\\r\\nc"), BIG, *LETTERS), first=(("HELLO", "3"),)),
    # Every client reads one reply, because only CR LF ends its line.
    "an error of two lines, parted by LF alone": behind("FUNCTION", "LOAD", "#!lua name=l\nreturn 1 [[one\n+two]]"),
    "an argument of two lines, parted by LF alone": behind("FUNCTION", "LIST", "x\n+y"),
    **{f"the primary's host holds {title}": Input(
        (("SET", "k", "v"), *parts), only="valkey",
        first=(("CLIENT", "CAPA", "REDIRECT"), ("READONLY",), ("REPLICAOF", host, "1")), then=(("REPLICAOF", "NO", "ONE"),))
       for title, host, parts in (
           ("a status", "h\r\n+y", (BIG, PING, ECHO)),
           ("as many replies as commands", f"h\r\n$4\r\nabcd\r\n${4 + bulk(VALUES['a']) + bulk(VALUES['big']) - 2}",
            (("GET", "a"), BIG, ("GET", "c"), ("GET", "d"))),
           ("an OK for SELECT", "h\r\n+OK\r\n$4\r\nab", (("SELECT", "7777"), PING, BIG)))},
}

TYPED = {f"typed: {b' '.join(line.split())!r}": Input((line, *rest, BIG, *LETTERS)) for line, *rest in (
    (b" \n",), (b"\t\r\n", ("SET", "k", "AUTH alice a\r\nCLIENT SETNAME bob\r\nHELLO 3")), (b" \r\n", ("SET", "k", "SELECT 3")),
    (b"\r\r\n", ("SET", "k", "CLIENT REPLY SKIP")),
    (b"*2\rX$3\rXGETYZ$1\r\naZZ",), (b"*2\r\n$3\r\nGET--$1\r\na--",), (b'GET "a"\r\n',), (b'GET b"i"g\r\n',), (b'"GET" a\r\n',),
    (b'G"E"T b\r\n',), (b'GET "b""i"\'g\'\r\n',), (b"GET\ra\r\n",), (b"GET \rb\r\n",), (b"GET\tc\r\r\n",), (b"GET d\x0b\r\n",),
    (b"GET \xffa\r\n",), (b'GET "\xffb"\r\n',), (b"GET '\xffc'\r\n",), (b'GET "\\xffd"\r\n',), (b"GET\x0ba\r\n",),
    (b'SELECT "3"\r\n',), (b'"\\x73elect" 3\r\n',), (b"SELECT \xff3\r\n",), (b'AUTH "al\\x69ce" a\r\n',), (b"AUTH\ralice\ra\r\n",),
    (b'AUTH "ali"ce a\r\n',), (b'CLIENT SETNAME "fo\\x6f"\r\n',), (b"client setname 'b'\r\n",), (b"CLIENT SETNAME a\x80b\r\n",),
    (b"CLIENT SETNAME a\xffb\r\n",), (b'HELLO 3 SETNAME "n\\x31"\r\n',), (b"HEL\xffLO 3 SETNAME zed\r\n",), (b"*-0\r\n",),
    (b"*+2\r\n$3\r\nGET\r\n$1\r\na\r\n",), (b"*2\r\n$3\r\nGET\r\n$-1\r\n",), (b"*00000000000000000002\r\n$3\r\nGET\r\n$1\r\na\r\n",),
    (b"*\r\n",), (b"*1\r\n$0\r\n\r\n",), (b"\n\n\r\n",), (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",))}

OTHERS = {
    **{f"SELECT {number!r}": Input((("SELECT", number), BIG, *LETTERS)) for number in ("03", "+3", " 3", "3.0", "3\0", "-0", "3 ")},
    # redis 6.0 asserts that it speaks RESP3 (networking.c, addReplyPushLen()).
    **{f"DEBUG PROTOCOL {kind} in RESP{version}": Input((("DEBUG", "PROTOCOL", kind), BIG, *LETTERS),
                                                        first=(("HELLO", version),), since="6.2")
       for kind in ("push", "attrib") for version in "23"},
    "EXEC with 0xff in its name": Input((("MULTI",), ("GET", "a"), BIG, b"EX\xffEC\r\n", *LETTERS), then=(("EXEC",),),
                                        whole=len("*2\r\n") + bulk(VALUES["a"]) + bulk(VALUES["big"])),
    "RESET with 0xff in its name": Input((b"RES\xffET\r\n", BIG), first=(("CLIENT", "SETNAME", "me"), ("SELECT", "3"))),
    "a line that holds a zero byte": Input((b"PING\0\r\n", BIG), hangs=True),
    "a count that holds a zero byte": Input((b"*2\0\r\n$3\r\nGET\r\n$1\r\na\r\n", BIG), hangs=True),
    "QUIT in a transaction": Input((("MULTI",), ("GET", "a"), ("QUIT",), BIG, ("EXEC",)), then=(("EXEC",),)),
    "HELLO with two AUTH": Input((("HELLO", "3", "AUTH", "alice", "a", "AUTH", "nouser", "bad"), BIG)),
    "HELLO with two AUTH, the second right": Input((("HELLO", "3", "AUTH", "nouser", "bad", "AUTH", "alice", "a"), BIG)),
    "RESP2 inside EXEC, and its own message": Input(
        (("SUBSCRIBE", "c"), ("MULTI",), ("HELLO", "2"), ("PUBLISH", "c", "m" * 10), BIG, ("HELLO", "3"), ("EXEC",), ("GET", "a")),
        first=(("HELLO", "3"),), then=(("UNSUBSCRIBE",), PING)),
    "its own messages inside EXEC": Input(
        (("SUBSCRIBE", "c"), ("MULTI",), ("PUBLISH", "c", "m" * 10), BIG, ("PUBLISH", "c", "n" * 10), ("EXEC",), ("GET", "a")),
        first=(("HELLO", "3"),), then=(("UNSUBSCRIBE",), PING)),
    "a script's message to its own client": Input(
        (("SUBSCRIBE", "c"), ("EVAL", "redis.call('publish', 'c', 'm') return 1", "0"), BIG, ("GET", "a")),
        first=(("HELLO", "3"),), then=(("UNSUBSCRIBE",), PING)),
}

INPUTS = {
    # A failing AUTH answers nothing while replies are pending: redis#15640, valkey#2106.
    "AUTH fails behind a reply": Input((PING, BAD, BIG, ECHO, PING)),
    "AUTH fails in a transaction": Input((("MULTI",), BAD, ("EXEC",), BIG, PING, PING)),
    "HELLO AUTH fails behind a reply": Input((PING, ("HELLO", "3", "AUTH", "nouser", "bad"), BIG, ECHO)),
    "HELLO AUTH fails in a transaction": Input((("MULTI",), ("HELLO", "3", "AUTH", "nouser", "bad"), ("EXEC",), BIG, PING)),
    "AUTH fails twice behind a reply": Input((PING, BAD, BIG, BAD, *LETTERS, PING)),
    "AUTH fails behind a large reply": Input((BIG, BAD, *LETTERS)),
    "AUTH of one word fails behind a reply": Input((PING, ("AUTH", "bad"), BIG, ECHO)),
    "AUTH fails, then succeeds": Input((PING, BAD, ("AUTH", "bob", "b"), BIG, ("ACL", "WHOAMI"))),
    "AUTH fails in a transaction among others": Input((("MULTI",), ("GET", "a"), BAD, BIG, ("EXEC",), *LETTERS)),
    # The server echoes a line end in its error: redis#15496, valkey#4120.
    "FUNCTION LIST echoes": Input((("FUNCTION", "LIST", "x\r\n$5\r\nhello"), BIG, PING, END)),
    "EVAL unescapes its flags": Input((("EVAL", '#!lua flags="a\\r\\n$5\\r\\nhello"\nreturn 1', "0"), BIG, PING, END)),
    "EVAL echoes its flags": Input((("EVAL", '#!lua flags=a\r\n$5\r\nhello\nreturn 1', "0"), BIG, PING, END)),
    "FUNCTION LOAD echoes a name": Input((("FUNCTION", "LOAD", '#!lua name="a\\r\\n$5\\r\\nhello"\n'), BIG, PING, END)),
    "a script answers with an error of two lines": Input(
        (("EVAL", "return redis.error_reply('ERR a\\r\\n$5\\r\\nhello')", "0"), BIG, PING, END)),
    "a script answers with a status of two lines": Input(
        (("EVAL", "return redis.status_reply('a\\r\\n$5\\r\\nhello')", "0"), BIG, PING, END)),
    "the same in a transaction": Input((("MULTI",), ("EVAL", '#!lua flags="a\\r\\n$5\\r\\nhello"\nreturn 1', "0"), BIG, ("EXEC",),
                                        PING, END)),

    # The server skips a count that is not positive, without a reply.
    "negative counts": Input((b"*-5\r\n", PING, b"*0\r\n", b"\r\n", b"*-1\r\n", BIG, b"*-2147483648\r\n", ("ECHO", "e")),
                             lossless=True),
    "typed as a cluster's link begins": Input((b"RCmb x\r\n", PING), older=True),
    "a read begins as a cluster's link does": Input((("SET", "key", "abcdeRCmb"),), older=True, send=cut_before(b"RCmb")),
    "urgent data": Input((BIG, PING), send=urgent, lossless=True),
    "17 transactions at once": Input(transactions(17), lossless=True),
    "1,000 transactions at once": Input(transactions(1000), lossless=True),
    "1,000 transactions at once in RESP3": Input(transactions(1000), first=(("HELLO", "3"),), lossless=True),
    "33 UNSUBSCRIBE at once": Input((*one_each(33, "UNSUBSCRIBE"), BIG), lossless=True),
    "1,000 UNSUBSCRIBE at once": Input((*one_each(1000, "UNSUBSCRIBE"), BIG), lossless=True),
    "33 SUBSCRIBE at once in RESP3": Input((*one_each(33, "SUBSCRIBE"), BIG), first=(("HELLO", "3"),), lossless=True),
    "33 SUBSCRIBE and UNSUBSCRIBE at once": Input((*one_each(33, "SUBSCRIBE", "UNSUBSCRIBE"), BIG), lossless=True),
    "1,000 SUBSCRIBE and UNSUBSCRIBE at once in RESP3": Input(
        (*one_each(1000, "SUBSCRIBE"), BIG, *one_each(1000, "UNSUBSCRIBE"), BIG), first=(("HELLO", "3"),), lossless=True),
    "1,000 PSUBSCRIBE and PUNSUBSCRIBE at once": Input((*one_each(1000, "PSUBSCRIBE", "PUNSUBSCRIBE"), BIG), lossless=True),
    "SUNSUBSCRIBE": Input((("SUNSUBSCRIBE", "x"), BIG), lossless=True, since="7.0"),
    "SUNSUBSCRIBE by itself": Input((("SUNSUBSCRIBE", "x"),), lossless=True, since="7.0"),
    "CLIENT REPLY ON": Input((("CLIENT", "REPLY", "ON"), BIG), first=(("HELLO", "3", "SETNAME", "me"),), lossless=True, knows=True),

    # The servers' parsers.
    "a blank line": Input((b" \r\n", *LETTERS)),
    "a line of blanks": Input((b" \t  \r\n", BIG, *LETTERS)),
    "a blank line behind a command": Input((PING, b" \r\n", *LETTERS)),
    "a name with 0xff is CLIENT": Input((b"CLI\xffENT REPLY SKIP\r\n", *LETTERS)),
    "a word with 0xff is REPLY": Input((b"CLIENT REP\xffLY SKIP\r\n", *LETTERS)),
    "a word in quotes with 0xff is OFF": Input((b'CLIENT REPLY "O\\xffFF"\r\n', *LETTERS, b"CLIENT REPLY ON\r\n", *LETTERS)),
    # replylog does not join a subscriber again.
    "a name with 0xff is SUBSCRIBE": Input((b"SUB\xffSCRIBE x y\r\n", *LETTERS), first=(("HELLO", "3"),),
                                           then=(("UNSUBSCRIBE",), PING)),
    "a name with 0xff is MULTI": Input((b"MUL\xffTI\r\n", BIG, ("EXEC",), *LETTERS), whole=len("*1\r\n") + bulk(VALUES["big"])),
    "a name with 0xff is SELECT": Input((b"SEL\xffECT 3\r\n", BIG, *LETTERS)),
    "a name with 0xff is AUTH": Input((b"A\xffUTH hunter2\r\n", BIG)),
    "a name with 0xff is HELLO": Input((b"HEL\xffLO 3 AU\xffTH default hunter2 SETNAME mine\r\n", BIG)),
    "a line ends in an escape": Input((b"ECHO 'a\\'\r\n", BIG)),
    "a line ends in an escaped quote": Input((b'ECHO "a\\"\r\n', BIG)),
    "a line ends in a backslash": Input((b"ECHO a\\\r\n", BIG)),
    "a line with a lonely CR": Input((b"ECHO a\rb\r\n", BIG)),
    "a line that ends in two CR": Input((b"PING\r\r\n", BIG)),
    # HELLO's options take effect one by one on redis 6 and 7.
    "HELLO fails behind its AUTH": Input((("ACL", "WHOAMI"), BIG), first=(
        ("AUTH", "bob", "b"), ("HELLO", "2", "AUTH", "alice", "a", "SETNAME", "x y"))),
    "HELLO fails behind its AUTH, in one write": Input(
        (("AUTH", "bob", "b"), ("HELLO", "3", "AUTH", "alice", "a", "SETNAME", "x y"), BIG), meanwhile=({"user": "bob"},)),
    "HELLO fails behind its SETNAME": Input((BIG,), first=(("HELLO", "3", "SETNAME", "first", "AUTH", "nouser", "bad"),)),
    # The server executes the command twice.
    "served while writes are paused": Input((("BLPOP", "list", "0"), *LETTERS), send=served_while_paused, since="6.2"),

    **SCRIPTS, **LIBRARIES, **ECHOES, **FORGERIES, **TYPED, **OTHERS,
}
