"""Any process: how to end it, and what /proc says about it."""
import re
import signal
import subprocess
from pathlib import Path


def end(process, signum=signal.SIGTERM, seconds=10):
    """Ends a process that the test started, whatever state it is in."""
    if process.poll() is None:
        process.send_signal(signum)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def status_kib(pid, key):
    """Returns a value in kB from /proc/<pid>/status: VmRSS, VmHWM."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{key}:\s+(\d+) kB$", text, re.M).group(1))
