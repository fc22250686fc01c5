#!/usr/bin/env python3
"""pharos store over PostgreSQL: it says what it says over SQLite, and loses nothing when the server, or the writer, is killed.

The server is the tests' own (postgres.py). The finer faults, such as a commit whose answer is lost, are unit tests
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


def wait_until(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "nothing happens"
        time.sleep(0.002)


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


def the_server_is_restarted_under_an_import():
    lines = make_lines(2)
    with tempfile.TemporaryDirectory() as folder:
        path = write_lines(os.path.join(folder, "in"), lines)
        for how in ("fast", "immediate", "kill", "immediate"):
            server.sql("DROP SCHEMA IF EXISTS pharos CASCADE")
            process, numbers, reader = begin_import(where, path)
            wait_until(lambda numbers=numbers: len(numbers) > 100)
            server.kill() if how == "kill" else server.stop(how)
            server.start()
            said = process.communicate(timeout=300)[1] if reader.join() is None else ""
            assert process.returncode == 0, (how, said)
            assert len(numbers) == CONVERSATIONS
            check(where, lines, set(numbers))


def the_importer_is_killed():
    lines, rng = make_lines(3), random.Random(4)
    with tempfile.TemporaryDirectory() as folder:
        path = write_lines(os.path.join(folder, "in"), lines)
        server.sql("DROP SCHEMA IF EXISTS pharos CASCADE")
        acknowledged = set()
        for _ in range(8):
            process, numbers, reader = begin_import(where, path)
            enough = rng.randrange(1, 400)
            wait_until(lambda p=process, n=numbers, e=enough: len(n) >= e or p.poll() is not None)
            process.kill()
            reader.join()
            process.wait()
            process.stderr.close()
            acknowledged |= set(numbers)
            check(where, lines, acknowledged)
        store(where, "import", path)
        check(where, lines, set(range(1, CONVERSATIONS + 1)))


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
    for test in (both_databases_say_the_same, the_server_is_restarted_under_an_import, the_importer_is_killed,
                 a_server_that_is_not_there_is_told_without_a_password):
        runner.run(test.__name__, test)
finally:
    server.close()
runner.finish()
