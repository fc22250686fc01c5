#!/usr/bin/env python3
"""Where output goes wrong: closed pipes, full disks, files at their size limit. Every command must end by itself, with
exit code 1; a reader that has gone is not talked to, everything else is named."""
import os
import resource
import socket
import subprocess
import tempfile
import time

from station import PHAROS, STORIES, Runner, Station, request

runner = Runner("output")
ENDLESS = ["complete", "--model", STORIES, "--prompt", "Once upon a time", "-n", "500", "--ignore-end"]


def start(arguments, stdout, **more):
    return subprocess.Popen([PHAROS, *arguments], stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.PIPE, **more)


def end(process, text=b""):
    """Feeds it, waits for it, answers its exit code and what it said."""
    try:
        _, said = process.communicate(text, timeout=60)
    finally:
        process.kill()
    return process.returncode, said.decode()


def into_closed_pipe(arguments, text=b""):
    reader, writer = os.pipe()
    process = start(arguments, writer)
    os.close(writer)
    os.close(reader)
    return end(process, text)


def a_reader_that_goes_ends_a_completion():
    process = start(ENDLESS, subprocess.PIPE)
    assert process.stdout.read(1)
    process.stdout.close()
    process.stdout = None
    assert end(process) == (1, "")


def closed_pipes_end_commands_quietly():
    lines = b"Once upon a time\n" * 20000
    for arguments, text in ((ENDLESS, b""), ([*ENDLESS, "--ids"], b""), ([*ENDLESS, "--json"], b""),
                            (["tokenize", "--model", STORIES], lines),
                            (["detokenize", "--model", STORIES], b"403,407,261,378\n" * 20000),
                            (["logits", "--model", STORIES, "--ids", "1,403", "--out", "-"], b""),
                            (["perplexity", "--model", STORIES, "--text", os.path.abspath(__file__), "--context", "64"], b""),
                            (["chat", "--model", STORIES], b"Hello\nHello again\n"),
                            (["--help"], b""), (["serve", "--help"], b""), (["--version"], b"")):
        found = into_closed_pipe(arguments, text)
        assert found == (1, ""), (arguments, found)


def a_closed_pipe_ends_a_talk_with_a_station():
    with Station() as station:
        found = into_closed_pipe(["chat", "--url", station.url], b"Hello\nHello again\n")
        assert found == (1, ""), found
        station.wait_idle()  # and the station stops working on it


def a_full_disk_is_named():
    for arguments, text in ((ENDLESS, b""), (["tokenize", "--model", STORIES], b"x\n"), (["--help"], b""),
                            (["logits", "--model", STORIES, "--ids", "1,403", "--out", "-"], b""),
                            (["chat", "--model", STORIES], b"Hello\nHello again\n")):
        with open("/dev/full", "wb") as full:
            code, said = end(start(arguments, full), text)
        assert code == 1 and said.count("\n") == 1 and "standard output" in said and "full" in said, (arguments, said)
    code, said = end(start(["logits", "--model", STORIES, "--ids", "1,403", "--out", "/dev/full"], None))
    assert code == 1 and "/dev/full" in said, said


def limit_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))


def a_file_at_its_size_limit_is_named():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "logits")
        code, said = end(start(["logits", "--model", STORIES, "--ids", "1,403", "--out", path], None,
                               preexec_fn=limit_files))
        assert code == 1 and path in said, (code, said)
        with open(path, "wb") as file:
            code, said = end(start(["tokenize", "--model", STORIES], file, preexec_fn=limit_files), b"Once\n" * 2000)
        assert code == 1 and "standard output" in said, (code, said)


def a_station_outlives_its_readers():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    reader, writer = os.pipe()
    os.close(reader)
    station = subprocess.Popen([PHAROS, "serve", "--listen", f"127.0.0.1:{port}", "--model", STORIES],
                               stdout=writer, stderr=writer)
    os.close(writer)
    try:
        until = time.monotonic() + 60
        while not is_ready(port):
            assert station.poll() is None, f"its greeting ended it with {station.returncode}"
            assert time.monotonic() < until
            time.sleep(0.02)
        station.terminate()
        assert station.wait(30) == 1, station.returncode
    finally:
        station.kill()


def is_ready(port):
    try:
        return request(port, "GET", "/ready").status == 200
    except OSError:
        return False


for check in (a_reader_that_goes_ends_a_completion, closed_pipes_end_commands_quietly,
              a_closed_pipe_ends_a_talk_with_a_station, a_full_disk_is_named, a_file_at_its_size_limit_is_named,
              a_station_outlives_its_readers):
    runner.run(check.__name__, check)
runner.finish()
