"""Runs programs, as many at a time as there are processors (at most four; JOBS=1: one after the other), and says which took longest.

What a job prints is kept until it has ended, so that nothing is mixed. A job that is late is ended with all that it started.
"""
import collections
import concurrent.futures
import os
import signal
import subprocess
import tempfile
import threading
import time

AT_ONCE_MAX = 4
SLOWEST = 8

Job = collections.namedtuple("Job", "name command environment", defaults=({},))
Done = collections.namedtuple("Done", "job code output wall_s cpu_s")


def at_once():
    return int(os.environ.get("JOBS", 0)) or min(len(os.sched_getaffinity(0)), AT_ONCE_MAX)


def run(job, limit_s):
    began, late = time.monotonic(), threading.Event()
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(job.command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                       env={**os.environ, **job.environment}, start_new_session=True)
        except OSError as error:
            return Done(job, 127, f"{error}\n", 0, 0)

        def end():
            late.set()
            os.killpg(process.pid, signal.SIGKILL)
        timer = threading.Timer(limit_s, end)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    if late.is_set():
        text += f"ended: it was not ready after {limit_s:g} s\n"
    return Done(job, process.returncode, text, time.monotonic() - began, usage.ru_utime + usage.ru_stime)


class Pool:
    """Jobs begin in the order given; `finished` yields them as they end."""

    def __init__(self, limit_s):
        self.limit_s, self.done = limit_s, []
        self.threads = concurrent.futures.ThreadPoolExecutor(at_once())

    def finished(self, jobs):
        for future in concurrent.futures.as_completed([self.threads.submit(run, job, self.limit_s) for job in jobs]):
            self.done.append(future.result())
            yield future.result()

    def slowest(self):
        longest = sorted(self.done, key=lambda done: -done.wall_s)[:SLOWEST]
        return "slowest: " + ", ".join(f"{done.job.name} {done.wall_s:.1f} s ({done.cpu_s:.1f} of processor)" for done in longest)
