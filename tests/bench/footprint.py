"""The costs of replylog besides its probes: time to attach and detach, CPU while idle, memory."""
import contextlib
import signal
import subprocess
import time
from pathlib import Path

from environment import BINARY, Skip
from resp import encode

from bench import meter

CONNECTIONS = 9990      # replylog follows 10,000 by default, and the bench needs some itself
FEW = 50
TIMES = 5


@contextlib.contextmanager
def connections(server, count):
    """Clients that have sent one command each."""
    request = encode([b"PING"])
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(count)]
        for client in clients:
            client.sock.sendall(request)
        for client in clients:
            client.read()
        yield clients


def ask_all(clients):
    for client in clients:
        client.call("PING")


def attach(server, flags):
    """Returns a replylog after its start record, and how many seconds that took."""
    begin = time.monotonic()
    process = subprocess.Popen([str(BINARY), "-p", str(server.pid), *flags], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    if not process.stdout.readline():
        raise Skip(f"replylog {' '.join(flags)}: {process.communicate()[1].decode(errors='replace').strip()}")
    return process, time.monotonic() - begin


def detach(process):
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    return time.monotonic() - begin


def switches(pid):
    """How often the process went to sleep, which is how often it woke up."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def idle(server, flags, seconds):
    """CPU time after the start record, while connected clients send nothing."""
    with connections(server, FEW):
        process, _ = attach(server, flags)
        own, woken = meter.process_ns(process.pid), switches(process.pid)
        time.sleep(seconds)
        result = {"idle_seconds": seconds, "idle_ns": meter.process_ns(process.pid) - own,
                  "idle_wakeups": switches(process.pid) - woken}
        detach(process)
    return result


def at_connections(server, flags, count):
    with connections(server, count) as clients:
        process, ready = attach(server, flags)
        ask_all(clients)
        maps, programs = meter.kernel_bytes(process.pid)
        memory = meter.peak_kib(process.pid)
        gone = detach(process)
    return {"connections": count, "ready_s": ready, "gone_s": gone, "maps_bytes": maps, "programs_bytes": programs,
            "own_kib": memory}


def run(server, flags, seconds, say):
    times = []
    for _ in range(TIMES):
        process, ready = attach(server, flags)
        times.append((ready, detach(process)))
    result = {"ready_s": [ready for ready, _ in times], "gone_s": [gone for _, gone in times]}
    say("idle")
    result.update(idle(server, flags, seconds))
    result["at"] = []
    for count in (FEW, CONNECTIONS):
        say(f"{count} connections")
        result["at"].append(at_connections(server, flags, count))
    return result
