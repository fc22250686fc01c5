#!/usr/bin/env python3
"""pharos store over PostgreSQL: it says what it says over SQLite, and loses nothing when the server, or the writer, is killed.

STORE_KILLS (10): how often an import is killed at a random moment, with SIGKILL. STORE_RESTARTS (6): how often the server is restarted
under load, in turn fast, immediately, and by SIGKILL of all its processes. The server is the tests' own (postgres.py). The finer faults, such as a commit whose answer is lost, are unit tests
(test_store_postgres.c).
"""
import json
import os
import random
import subprocess
import tempfile
import threading
import time

from postgres import Missing, Server
from station import PHAROS, Runner

CONVERSATIONS = 1500
KILLS = int(os.environ.get("STORE_KILLS", "10"))
RESTARTS = int(os.environ.get("STORE_RESTARTS", "6"))
HOW = "immediate", "fast", "kill"
runner = Runner("store postgres")


def store(where, *arguments, code=0):
    done = subprocess.run([PHAROS, "store", *arguments, *where], capture_output=True, timeout=300, text=True)
    assert done.returncode == code, (arguments, done.returncode, done.stdout[-500:], done.stderr[-500:])
    return done.stdout, done.stderr


def make_lines(seed):
    rng = random.Random(seed)
    words = [f"w{i}" for i in range(400)] + ["héllo", "\u0000", "\U0001F600"]
    return [{"id": f"c{n}", "user": f"u{n % 7}", "domain": f"d{n % 3}", "metadata": {"n": n}, "messages": [
        {"role": "user" if i % 2 == 0 else "assistant", "content": " ".join(rng.choices(words, k=rng.randrange(2, 20))),
         "created_at": 1000000 + n * 100 + i} for i in range(rng.randrange(1, 16))]} for n in range(CONVERSATIONS)]


def write_lines(path, lines):
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return path


def check(where, lines, acknowledged):
    """Every acknowledged line is there in whole; of the others perhaps the beginning; nothing twice."""
    assert json.loads(store(where, "verify", "--json")[0])["ok"]
    there = {}
    for text in store(where, "export")[0].split("\n")[:-1]:
        line = json.loads(text)
        assert line["id"] not in there, f"{line['id']} is there twice"
        there[line["id"]] = line
    for number, line in enumerate(lines, 1):
        found = there.get(line["id"])
        if number in acknowledged:
            assert found == line, f"line {number} was acknowledged: {line} {found}"
        elif found:
            assert found["messages"] == line["messages"][:len(found["messages"])], number


def begin_import(where, path):
    """A process that imports, and the growing list of what it says is safe."""
    process = subprocess.Popen([PHAROS, "store", "import", path, "--acknowledge", *where], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    numbers = []

    def read():
        for text in process.stdout:
            if text.startswith("line ") and text.endswith("\n"):
                numbers.append(int(text.split()[1]))

    reader = threading.Thread(target=read)
    reader.start()
    return process, numbers, reader


def both_databases_say_the_same():
    server.sql("DROP SCHEMA IF EXISTS pharos CASCADE")
    with tempfile.TemporaryDirectory() as folder:
        path = write_lines(os.path.join(folder, "in"), make_lines(1))
        places = ["--data", folder], ["--data", os.path.join(folder, "none"), "--store", server.url]
        for command in (["import", path, "--json"], ["export"], ["export", "--user", "u3"], ["export", "--domain", "d1"],
                        ["export", "--conversation", "c77"], ["import", path, "--json"], ["verify", "--json"],
                        ["rm-user", "u2", "--json"], ["export"], ["verify", "--json"]):
            said = [store(where, *command) for where in places]
            assert said[0] == said[1], (command, said[0][0][-300:], said[1][0][-300:])
        stats = [json.loads(store(where, "stat", "--json")[0]) for where in places]
        assert [stat.pop("backend") for stat in stats] == ["sqlite", "postgres"]
        for name in ("schema", "users", "conversations", "messages", "responses", "feedback", "vectors", "text_bytes"):
            assert stats[0][name] == stats[1][name], (name, stats)
        assert not os.path.exists(os.path.join(folder, "none"))


def wait_for_a_moment(rng, process, numbers, acknowledged_max):
    """One in four soon after the start, at whatever it does then, the others somewhere in its work, however slow the machine is."""
    target = rng.randrange(len(numbers), max(acknowledged_max, len(numbers) + 1)) if rng.randrange(4) else 0
    until = time.monotonic() + 60
    while len(numbers) < target and process.poll() is None and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.05 if target else 0.3))


def ended(process, reader):
    """Its exit code and what it said on stderr."""
    reader.join()
    said = process.communicate(timeout=300)[1]
    return process.returncode, said


def the_server_is_restarted_under_load():
    """Two imports at once, and restarts at random moments: they wait for the server and go on where they were."""
    lines, rng, restarts, at_work = make_lines(2), random.Random(6), 0, 0
    halves = lines[:CONVERSATIONS // 2], lines[CONVERSATIONS // 2:]
    with tempfile.TemporaryDirectory() as folder:
        paths = [write_lines(os.path.join(folder, f"in{i}"), half) for i, half in enumerate(halves)]
        while restarts < RESTARTS:
            server.sql("DROP SCHEMA IF EXISTS pharos CASCADE")
            both, ways, before = [begin_import(where, path) for path in paths], [], None
            while restarts < RESTARTS and len(ways) < 3:
                at_it = [one for one, half in zip(both, halves) if one[0].poll() is None and len(one[1]) < len(half)]
                if not at_it:
                    break
                process, numbers, _ = rng.choice(at_it)
                wait_for_a_moment(rng, process, numbers, CONVERSATIONS // 2)
                before = [len(numbers) for _, numbers, _ in both]
                at_work += any(0 < count < len(half) for count, half in zip(before, halves))
                ways.append(HOW[restarts % len(HOW)])
                server.kill() if ways[-1] == "kill" else server.stop(ways[-1])
                server.start()
                restarts += 1
            for (process, numbers, reader), half in zip(both, halves):
                code, said = ended(process, reader)
                assert code == 0, (ways, before, code, said)
                assert sorted(numbers) == list(range(1, len(half) + 1)), (ways, before, len(numbers), said)
            check(where, lines, set(range(1, CONVERSATIONS + 1)))
    print(f"{restarts} restarts of the server, {at_work} of them between acknowledgements")
    assert at_work >= restarts // 8, f"hardly a restart met the imports at work: {at_work} of {restarts}"


def the_importer_is_killed():
    rng = random.Random(4)
    kills, at_work, seed, lines = 0, 0, 100, None
    with tempfile.TemporaryDirectory() as folder:
        while kills < KILLS:
            if lines is None:
                seed += 1
                lines, acknowledged = make_lines(seed), set()
                path = write_lines(os.path.join(folder, "in"), lines)
                server.sql("DROP SCHEMA IF EXISTS pharos CASCADE")
            process, numbers, reader = begin_import(where, path)
            wait_for_a_moment(rng, process, numbers, CONVERSATIONS // 3)
            process.kill()
            code, said = ended(process, reader)
            kills += 1
            at_work += code != 0 and len(numbers) > 0
            assert len(set(numbers)) == len(numbers), (kills, numbers)
            acknowledged |= set(numbers)
            if acknowledged:
                check(where, lines, acknowledged)
            if code == 0 or len(acknowledged) > CONVERSATIONS * 0.9:
                store(where, "import", path)
                check(where, lines, set(range(1, CONVERSATIONS + 1)))
                lines = None
            else:
                assert code == -9 and not said, (kills, code, said)
    print(f"{kills} kills of the writer, {at_work} of them between acknowledgements")
    assert at_work >= kills // 8, f"hardly a kill met it at work: {at_work} of {kills}"


def a_server_that_is_not_there_is_told_without_a_password():
    said = store(["--store", "postgresql://u:geheim@127.0.0.1:1/db"], "stat", code=1)[1]
    assert "127.0.0.1:1/db" in said and "geheim" not in said, said
    said = store(["--store", "postgresql://u:geheim%zz@h/db"], "stat", code=1)[1]
    assert "postgresql://USER" in said and "geheim" not in said, said
    server.sql("DROP SCHEMA IF EXISTS pharos CASCADE")
    for command in ("export", "stat", "verify"):
        assert "no store" in store(where, command, code=1)[1]


try:
    server = Server()
except Missing as why:
    print(f"SKIP: a store in PostgreSQL: {why}")
    runner.finish()
where = ["--store", server.url]
try:
    for test in (both_databases_say_the_same, the_server_is_restarted_under_load, the_importer_is_killed,
                 a_server_that_is_not_there_is_told_without_a_password):
        runner.run(test.__name__, test)
finally:
    server.close()
runner.finish()
