"""replylog on kernels whose features scripts/kernels names beforehand."""
import os

from environment import Skip
from replylog import Replylog, run_replylog
from server import Server


def known(what):
    value = os.environ.get(f"KERNEL_{what}")
    if value is None:
        raise Skip(f"not in a guest of scripts/kernels that says KERNEL_{what}")
    return value


def test_uses_the_best_attach_mode():
    mode = known("ATTACH")
    with Server("valkey-9.1") as server, Replylog(server.pid) as replylog:
        probes = replylog.records()[0]["probes"]
        assert probes and all(mode in probe or "raw_tracepoint" in probe for probe in probes), probes


def test_refused_with_the_feature_named():
    """One line names the missing feature, the exit status is a failure, and the server is unchanged."""
    feature = known("LACKS")
    with Server("valkey-9.1") as server:
        run = run_replylog("-p", str(server.pid))
        print(f"exits {run.returncode}: {run.stderr!r}")
        assert run.returncode == 1 and run.stdout == ""
        assert run.stderr.count("\n") == 1 and f"no {feature} " in run.stderr
        assert server.patched() == 0 and server.answers()
