"""`python -m ait_jax.child PARENT CPUS ARGUMENTS`: `ait-jax ARGUMENTS` as one of several at work.

It keeps to its share of the processors, so that JAX starts as many threads and no more, and ends
when the process that started it is gone, whatever ended that.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Runs the command line as a child and returns the exit code."""
    parent, cpus = int(sys.argv[1]), sys.argv[2]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if cpus:
            os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    if os.getppid() != parent:
        return 1
    from ait_jax import cli

    return cli.main(sys.argv[3:])


if __name__ == "__main__":
    sys.exit(main())
