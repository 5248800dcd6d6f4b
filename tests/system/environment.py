"""What the tests run: the project's folder, the binary under test, the servers. A test that lacks one of them skips."""
import fcntl
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("REPLYLOG", ROOT / "replylog"))
SERVERS = Path(os.environ.get("REPLYLOG_SERVERS", ROOT / ".servers"))


class Skip(Exception):
    """Raised by a test that can't run here. The text is the reason."""


def make(name):
    """Makes .output/NAME and returns its path. A lock keeps tests that need it at the same time apart."""
    (ROOT / ".output").mkdir(exist_ok=True)
    with open(ROOT / ".output" / "tests.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(["make", "-s", "-C", ROOT, f".output/{name}"], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / ".output" / name
