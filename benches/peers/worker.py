"""Runs one client in a process of its own and measures it: a job as JSON on standard input, a result in its last line.

The clock and the processor time start after the packages are loaded and one made-up item was answered, so that neither
loading nor a cold prefix cache counts.
"""

import importlib
import json
import resource
import sys
import time

from common import Server, Usage

WARM_UP = {"id": "warm-up", "title": "Council approves new bridge", "body": "The vote on Monday was close."}


def main():
    job = json.load(sys.stdin)
    categorize = importlib.import_module(f"clients.{job['module']}").categorize
    server = Server(**job["server"])
    categorize([WARM_UP], job["categories"], server)

    server.usage = Usage()
    start_up_s = cpu_s()
    start = time.perf_counter()
    labels = categorize(job["items"], job["categories"], server)
    elapsed_s = time.perf_counter() - start
    result = {
        "labels": labels,
        "elapsed_s": elapsed_s,
        "cpu_s": cpu_s() - start_up_s,
        "start_up_cpu_s": start_up_s,
        "usage": server.usage.as_dict(),
    }
    print(json.dumps(result))


def cpu_s():
    """User and system time of this process so far, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
