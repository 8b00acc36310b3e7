"""How `ait-jax` ends, for launchers: what follows from each is in launch/verdict.py."""

OK = 0
FAILED = 1
USER_ERROR = 2  # trying again changes nothing
UNFINISHED = 3  # an endpoint failed or the budget ended: what is there is kept
HOST_LOST = 69  # another process died or did not come in time: sysexits.h's EX_UNAVAILABLE
PREEMPTED = 75  # told to stop, and saved: EX_TEMPFAIL
PREFLIGHT = 78  # a host is not as asked for: EX_CONFIG
INTERRUPTED = 130  # Ctrl-C
