#!/usr/bin/env python3
"""pharos store as a user runs it, and what is left of it when it is killed, or the disk is full.

STORE_KILLS (40): how often an import is killed with SIGKILL at a random moment. Every line that it had
acknowledged must be there in whole, nothing twice, and the file sound.
"""
import json
import os
import random
import resource
import subprocess
import tempfile
import time

from station import PHAROS, Runner

KILLS = int(os.environ.get("STORE_KILLS", "40"))
runner = Runner("store")


def store(data, *arguments, code=0, **options):
    """What it printed on stdout and stderr."""
    done = subprocess.run([PHAROS, "store", *arguments, "--data", data], capture_output=True, timeout=300, text=True,
                          **options)
    assert done.returncode == code, (arguments, done.returncode, done.stdout[-500:], done.stderr[-500:])
    return done.stdout, done.stderr


def write_lines(path, lines):
    with open(path, "w", encoding="utf-8") as file:
        for line in lines:
            file.write((line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)) + "\n")
    return path


def exported(data, *arguments):
    return [json.loads(line) for line in store(data, "export", *arguments)[0].split("\n")[:-1]]


ODD = [
    {"id": "plain", "user": "ann", "domain": "law", "metadata": {"a": [1, 1.50, None], "b": "\u0000\u2028"},
     "messages": [{"role": "user", "content": "Hello\u0000there \U0001F600", "created_at": 1700000000},
                  {"role": "assistant", "content": "Line\nand\ttab", "created_at": 1700000001.25, "metadata": {"x": {}}}]},
    {"id": "tools", "user": "ann", "messages": [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "name": "f", "content": [{"type": "text", "text": "7"}], "tool_call_id": "c1"},
        {"role": "speaker B", "content": "", "created_at": 1700000000.123456789},
        {"role": "user", "content": "with its own id", "id": "msg_own", "tokens": 12, "created_at": 0}]},
    {"id": "empty", "user": "bob", "metadata": {}, "messages": []},
    {"id": "plain", "user": "bob", "messages": [{"role": "user", "content": "the same id, of another user",
                                                 "created_at": -5}]},
]


def what_goes_in_comes_out():
    with tempfile.TemporaryDirectory() as data:
        path = write_lines(os.path.join(data, "in.jsonl"), ODD)
        said = json.loads(store(data, "import", path, "--json")[0])
        assert said == {"lines": 4, "bad": 0, "conversations": 4, "messages": 7, "present": 0}, said
        assert exported(data) == ODD, exported(data)
        assert exported(data, "--user", "bob") == ODD[2:]
        assert exported(data, "--conversation", "tools") == [ODD[1]]
        assert "several users" in store(data, "export", "--conversation", "plain", code=1)[1]
        assert exported(data, "--conversation", "plain", "--user", "bob") == [ODD[3]]
        again = json.loads(store(data, "import", path, "--json")[0])
        assert again["messages"] == 0 and again["present"] == 7 and again["conversations"] == 0, again
        assert exported(data) == ODD
        stat = json.loads(store(data, "stat", "--json")[0])
        assert stat["users"] == 2 and stat["messages"] == 7 and stat["backend"] == "sqlite", stat
        assert json.loads(store(data, "verify", "--json")[0]) == {"faults": [], "ok": True, "count": 0}
        folder = os.path.join(data, "memory")
        assert os.stat(folder).st_mode & 0o777 == 0o700
        assert all(os.stat(os.path.join(folder, name)).st_mode & 0o777 == 0o600 for name in os.listdir(folder))


def a_conversation_grows_by_a_second_import():
    with tempfile.TemporaryDirectory() as data:
        turns = [{"role": "user", "content": f"turn {i}", "created_at": i + 1} for i in range(2500)]
        path = write_lines(os.path.join(data, "1"), [{"id": "c", "user": "u", "messages": turns[:7]}])
        store(data, "import", path)
        path = write_lines(os.path.join(data, "2"), [{"id": "c", "user": "u", "messages": turns}])
        said = json.loads(store(data, "import", path, "--json")[0])
        assert said["messages"] == 2493 and said["present"] == 7, said
        assert exported(data)[0]["messages"] == turns


def bad_lines_are_named_and_passed_over():
    with tempfile.TemporaryDirectory() as data:
        bad = ["{", '{"user":"u","messages":[]}', "[]", '{"id":"x","messages":[{"content":"no role"}]}',
               '{"id":"x"}', '{"id":"x","messages":[{"role":"user","content":"c","created_at":"today"}]}',
               '{"id":"x","metadata":[],"messages":[]}', '{"id":"a\\u0000b","messages":[]}', "\xff not json"]
        good = {"id": "good", "user": "u", "messages": [{"role": "user", "content": "kept", "created_at": 5}]}
        path = write_lines(os.path.join(data, "in"), [*bad, good, ""])
        out, said = store(data, "import", path, code=1)
        for number in range(1, len(bad) + 1):
            assert f"line {number} is passed over" in said, (number, said)
        assert "message 1" in said and "created_at" in said and "9 bad lines" in said, said
        assert "1 new conversations" in out, out
        assert exported(data) == [good]


def a_store_that_is_not_there_is_said_so():
    with tempfile.TemporaryDirectory() as data:
        for command in ("export", "stat", "verify"):
            assert "no store" in store(data, command, code=1)[1]
        assert os.listdir(data) == []
        assert "no store" in store(data, "rm-user", "nobody", code=1)[1]


def a_deleted_user_leaves_no_trace():
    rng = random.Random(5)
    words = ["apple", "bread", "cloud", "drum", "early", "field", "green", "house", "index", "jolly"]

    def line(user, secret, number):
        said = [{"role": "user", "content": f"{' '.join(rng.choices(words, k=12))} {secret}-{number}-{i}",
                 "created_at": 1000 + i} for i in range(12)]
        return {"id": f"{secret}-conversation-{number}", "user": user, "domain": f"{secret}-domain",
                "metadata": {"m": f"{secret}-metadata"}, "messages": said}

    with tempfile.TemporaryDirectory() as data:
        lines = [line(user, secret, n) for n in range(150) for user, secret in
                 (("ann-the-user", "anns-secret"), ("bob-the-user", "bobs-secret"))]
        store(data, "import", write_lines(os.path.join(data, "in"), lines))
        os.remove(os.path.join(data, "in"))

        def grep(text):
            found = []
            for folder, _, names in os.walk(data):
                for name in names:
                    with open(os.path.join(folder, name), "rb") as file:
                        found += [name] if text.encode() in file.read() else []
            return found

        assert json.loads(store(data, "stat", "--json")[0])["dictionaries"] == 1
        assert grep("anns-secret") and grep("ann-the-user")
        assert json.loads(store(data, "rm-user", "ann-the-user", "--json")[0]) == {"messages": 1800}
        for text in ("anns-secret", "ann-the-user", "anns"):
            assert not grep(text), (text, grep(text))
        assert exported(data) == [line for line in lines if line["user"] == "bob-the-user"]
        assert "sound" in store(data, "verify")[0]


# ---- Nothing that was acknowledged is lost

CONVERSATIONS = 1500


def make_lines(seed):
    rng = random.Random(seed)
    words = [f"w{i}" for i in range(400)]
    return [{"id": f"c{seed}-{n}", "user": f"u{n % 7}", "messages": [
        {"role": "user" if i % 2 == 0 else "assistant", "content": " ".join(rng.choices(words, k=rng.randrange(2, 20))),
         "created_at": 1000000 + n * 100 + i} for i in range(rng.randrange(1, 16))]} for n in range(CONVERSATIONS)]


def check(data, lines, acknowledged):
    """Every acknowledged line is there in whole; of the others perhaps the beginning; nothing twice."""
    assert json.loads(store(data, "verify", "--json")[0])["ok"]
    there = {}
    for line in exported(data):
        assert line["id"] not in there, f"{line['id']} is there twice"
        there[line["id"]] = line
    for number, line in enumerate(lines, 1):
        found = there.get(line["id"])
        if number in acknowledged:
            assert found == line, f"line {number} was acknowledged: {line} {found}"
        elif found:
            assert found["messages"] == line["messages"][:len(found["messages"])], number


def acknowledged_by(data, path, kill_after=None, **options):
    process = subprocess.Popen([PHAROS, "store", "import", path, "--acknowledge", "--data", data],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if kill_after is not None:
        time.sleep(kill_after)
        process.kill()
    out, said = process.communicate(timeout=300)
    numbers = [int(line.split()[1]) for line in out.split("\n")[:-1]]  # one that is cut off does not count
    assert len(set(numbers)) == len(numbers)
    return set(numbers), process.returncode, said


def killed_at_random_moments():
    rng = random.Random(1)
    seed, kills, at_work, data, acknowledged = 0, 0, 0, None, set()
    with tempfile.TemporaryDirectory() as folder:
        while kills < KILLS:
            if data is None:
                seed += 1
                data, lines, acknowledged = os.path.join(folder, f"d{seed}"), make_lines(seed), set()
                path = write_lines(os.path.join(folder, "in"), lines)
            numbers, code, _ = acknowledged_by(data, path, kill_after=rng.uniform(0, 0.5))
            kills += 1
            at_work += code != 0 and len(numbers) > 0
            acknowledged |= numbers
            if os.path.exists(os.path.join(data, "memory", "store.db")):
                try:
                    check(data, lines, acknowledged)
                except AssertionError as error:
                    if "no store" not in str(error) and "schema 0" not in str(error):
                        raise
                    assert not acknowledged, error
            if code == 0 or len(acknowledged) > CONVERSATIONS * 0.9:
                store(data, "import", path)
                check(data, lines, set(range(1, CONVERSATIONS + 1)))
                data = None
    print(f"{kills} kills, {at_work} of them between acknowledgements")
    assert at_work >= kills // 8, f"hardly a kill met it at work: {at_work} of {kills}"


def a_full_disk_loses_nothing():
    for limit_kib in (64, 300, 700, 1200, *([2000] if KILLS >= 200 else [])):
        with tempfile.TemporaryDirectory() as folder:
            data, lines = os.path.join(folder, "d"), make_lines(limit_kib)
            path = write_lines(os.path.join(folder, "in"), lines)
            limit = (limit_kib << 10, limit_kib << 10)
            numbers, code, said = acknowledged_by(
                data, path, preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
            # it may be just enough for all lines; then what fails is packing them anew, which is told when it has failed for long
            assert code == 1 or len(numbers) == CONVERSATIONS, (limit_kib, code, said)
            assert said.count("\n") <= 1 and ("store.db" in said or code == 0), (limit_kib, code, said)
            if numbers:
                check(data, lines, numbers)
            store(data, "import", path)
            check(data, lines, set(range(1, CONVERSATIONS + 1)))


def two_imports_at_once():
    with tempfile.TemporaryDirectory() as folder:
        lines = make_lines(99)
        path = write_lines(os.path.join(folder, "in"), lines)
        both = [subprocess.Popen([PHAROS, "store", "import", path, "--json", "--data", folder], stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True) for _ in range(2)]
        said = [process.communicate(timeout=300) for process in both]
        assert [process.returncode for process in both] == [0, 0] and not said[0][1] and not said[1][1], said
        assert sum(json.loads(out)["messages"] for out, _ in said) == sum(len(line["messages"]) for line in lines), said
        check(folder, lines, set(range(1, CONVERSATIONS + 1)))


def many_make_one_store():
    line = {"id": "c1", "user": "u", "messages": [{"role": "user", "content": "hello"}]}
    for _ in range(30):
        with tempfile.TemporaryDirectory() as folder:
            path = write_lines(os.path.join(folder, "in"), [line])
            all_of_them = [subprocess.Popen([PHAROS, "store", "import", path, "--json", "--data", folder], stdout=subprocess.PIPE,
                                            stderr=subprocess.PIPE, text=True) for _ in range(4)]
            said = [process.communicate(timeout=300) for process in all_of_them]
            assert [process.returncode for process in all_of_them] == [0] * 4, said
            assert sum(json.loads(out)["messages"] for out, _ in said) == 1, said


for test in (what_goes_in_comes_out, a_conversation_grows_by_a_second_import, bad_lines_are_named_and_passed_over,
             a_store_that_is_not_there_is_said_so, a_deleted_user_leaves_no_trace, killed_at_random_moments,
             a_full_disk_loses_nothing, two_imports_at_once, many_make_one_store):
    runner.run(test.__name__, test)
runner.finish()
