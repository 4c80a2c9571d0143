"""The output of the guest of tests/guest/bare.c in a client's log file."""

import re
import time
from pathlib import Path

# The guest writes "tick" and a number of 16 digits again and again.
TICK = "tick 0000"
# Time limit in seconds of each step of the guest; a step usually takes far less.
PATIENCE = 60


def guest_output(log):
    """Returns the guest's output in the file `log`, without the monitor's messages, which may interrupt its lines."""
    text = Path(log).read_text(errors="replace")
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]{18} \[.*\n", "", text)


def wait_for(log, text, after=0):
    """Waits for `text` after the first `after` characters of the guest's output, and returns the whole output."""
    deadline = time.monotonic() + PATIENCE
    while True:
        now = guest_output(log)
        if text in now[after:]:
            return now
        assert time.monotonic() < deadline, f"no {text!r} in {now[-2000:]}"
        time.sleep(0.05)


def ticks(log):
    return guest_output(log).count("tick ")


def assert_paused(log):
    """Fails if the guest writes anything after pending output was written."""
    time.sleep(0.2)
    before = ticks(log)
    time.sleep(0.5)
    assert ticks(log) == before, "the guest runs although it is paused"


def wait_for_tick(log):
    """Waits for the next tick."""
    wait_for(log, "tick ", after=len(guest_output(log)))
