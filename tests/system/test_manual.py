"""The manual page has the same options as --help, with the same arguments and defaults."""
import re
import shutil
import subprocess

from environment import ROOT, Skip
from replylog import run_replylog

PAGE = ROOT / "docs" / "replylog.8"


def options_of_help():
    """Returns {long name: (letter or None, argument or None, default or None)}."""
    options = {}
    for line in run_replylog("--help").stdout.splitlines():
        row = re.match(r"  (?:-(\w),|   ) --([\w-]+)(?: ([A-Z]+)|\[=([A-Z]+)\])?  +(.*)", line)
        if row:
            default = re.search(r"\(default (\w+)\)$", row[5])
            options[row[2]] = (row[1], row[3] or row[4], default and default[1])
    return options


def options_of_page():
    options, name = {}, None
    for line in PAGE.read_text().splitlines():
        item = re.match(r"\.It (?:Fl (\w) , )?Fl -([\w-]+)(?: Ar ([A-Z]+)| Ns Op = Ns Ar ([A-Z]+))?$", line)
        if item:
            name = item[2]
            options[name] = (item[1], item[3] or item[4], None)
        default = re.match(r"The default is (\w+)\.$", line)
        if default:
            options[name] = (*options[name][:2], default[1])
    return options


def test_options():
    of_help, of_page = options_of_help(), options_of_page()
    assert {"pid", "port", "threshold", "follow", "help"} <= set(of_help), of_help
    assert of_help["threshold"] == ("t", "SIZE", "1mb"), of_help
    assert of_page == of_help


def test_it_is_mdoc():
    """groff renders the page without a warning, and no option is missing from the text."""
    if not shutil.which("groff"):
        raise Skip("no groff")
    run = subprocess.run(["groff", "-mdoc", "-ww", "-Tascii", "-P-c", PAGE], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0 and run.stderr == "", run.stderr
    plain = re.sub(r".\x08", "", run.stdout)
    for option in options_of_help():
        assert f"--{option}" in plain, f"--{option} is not in {plain}"
