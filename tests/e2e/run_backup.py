#!/usr/bin/env python3
"""pharos backup as a user runs it: back and forth, damaged in every way, killed at every moment, beside a station that writes.

BACKUP_CORRUPTIONS (120): random damages of a repository; verify must report each, restore must refuse or be right.
BACKUP_KILLS (8): kills with SIGKILL of create, and as many of restore: what was there before is intact, the next run finishes.
"""
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import tempfile
import threading
import time

from station import PHAROS, TINY, Runner, Station

CORRUPTIONS = int(os.environ.get("BACKUP_CORRUPTIONS", "120"))
KILLS = int(os.environ.get("BACKUP_KILLS", "8"))
WORK = ".pharos-restore"
runner = Runner("backup")


def pharos(*arguments, code=0):
    """What it printed on stdout and stderr."""
    done = subprocess.run([PHAROS, *arguments], capture_output=True, timeout=300, text=True)
    assert done.returncode == code, (arguments, done.returncode, done.stdout[-1000:], done.stderr[-1000:])
    return done.stdout, done.stderr


def backup(*arguments, code=0):
    return pharos("backup", *arguments, code=code)


def create(place, *more, code=0):
    out, said = backup("create", "--to", place.repo, "--config", place.config, "--data", place.data, "--json", *more, code=code)
    return json.loads(out.split("\n")[0]) if code == 0 else said


def tree(folder):
    """Path below the folder to the bytes of every file."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, folder)] = file.read()
    return found


def write(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())


def exported(data):
    return pharos("store", "export", "--data", data)[0]


class Place:
    """A station's files, with conversations, and room for a repository."""

    def __init__(self, conversations=60, extra_bytes=400_000, seed=1):
        self.folder = tempfile.TemporaryDirectory()
        self.repo, self.data, self.out, self.config, self.secret = (
            os.path.join(self.folder.name, name) for name in ("repo", "data", "out", "station.yaml", "data/provider-key"))
        rng = self.rng = random.Random(seed)
        lines = [{"id": f"c{n}", "user": f"u{n % 3}", "messages": [
            {"role": "user", "content": f"{rng.random()} {rng.random()}", "created_at": n + i + 1} for i in range(4)]}
            for n in range(conversations)]
        write(os.path.join(self.folder.name, "in.jsonl"), "\n".join(map(json.dumps, lines)))
        os.mkdir(self.data, 0o700)
        pharos("store", "import", os.path.join(self.folder.name, "in.jsonl"), "--data", self.data)
        self.key = pharos("keys", "create", "--name", "me", "--data", self.data)[0].split("\n")[0]
        self.change(extra_bytes)
        write(os.path.join(self.data, "verdicts.jsonl"), "one\n" * 50_000)
        write(os.path.join(self.data, "ledger", "2026-11-21.journal"), self.rng.randbytes(5_000))
        for name in ("logs/engine.log", "vectors/1-2.vec", "ledger/lock", "ledger/holds", "drill/ledger/x", "memory/.pharos-tmp-1"):
            write(os.path.join(self.data, name), "made anew")
        write(self.secret, "sk-very-secret\n")
        os.chmod(self.secret, 0o600)
        self.models = [os.path.join(self.folder.name, "models", name) for name in ("weights.bin", "tiny.gguf")]
        write(self.models[0], rng.randbytes(200_000) + bytes(5_000_000))
        if os.path.exists(TINY):
            shutil.copy(TINY, self.models[1])
        else:
            self.models.pop()
        write(self.config, "providers:\n  together: {key: file:%s}\nmodels:\n" % self.secret + "".join(
            f"  - {{id: m{i}, path: {path}}}\n" for i, path in enumerate(self.models)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.folder.cleanup()

    def change(self, extra_bytes):
        """Something new to back up."""
        write(os.path.join(self.data, "extra"), self.rng.randbytes(extra_bytes))

    def expected(self):
        """What a restore must bring, but for the database, whose bytes are a copy's."""
        want = {"config/station.yaml": self.config, **{f"models/{os.path.basename(path)}": path for path in self.models},
                **{f"data/{name}": os.path.join(self.data, name)
                   for name in ("keys.jsonl", "extra", "verdicts.jsonl", "ledger/2026-11-21.journal")}}
        return {name: open(path, "rb").read() for name, path in want.items()}


def check_restored(place, out, expected=None, conversations=None):
    found = tree(out)
    database = found.pop("data/memory/store.db")
    assert database[:15] == b"SQLite format 3"
    assert found == (expected or place.expected()), (sorted(found), [n for n in found if found[n] != place.expected().get(n)])
    assert exported(os.path.join(out, "data")) == (conversations or exported(place.data))


# ---- Back and forth

def there_and_back():
    with Place() as place:
        made = create(place)
        assert made["new_chunks"] > 5 and made["unchanged"] == 0 and len(made["left_out"]) == 1, made
        assert "provider-key" in made["left_out"][0], made
        assert not any(b"sk-very-secret" in content for content in tree(place.repo).values())
        said = json.loads(backup("verify", "--from", place.repo, "--json")[0])
        assert said["ok"] and said["snapshots"] == 1 and said["files"] == made["files"] and said["bytes"] == made["bytes"], said
        backup("restore", "--from", place.repo, "--to", place.out)
        check_restored(place, place.out)
        assert os.listdir(place.out) and WORK not in os.listdir(place.out)
        assert os.stat(place.out).st_mode & 0o777 == 0o700
        assert os.stat(os.path.join(place.out, "data", "keys.jsonl")).st_mode & 0o777 == 0o600
        assert all(os.stat(os.path.join(parent, name)).st_mode & 0o077 == 0
                   for parent, folders, names in os.walk(place.repo) for name in folders + ["."] + [n for n in names if n != "lock"])
        assert "sound" in pharos("store", "verify", "--data", os.path.join(place.out, "data"))[0]


def only_what_is_new_is_written():
    with Place() as place:
        past = time.time() - 100  # a file that changed just now is read again, whatever its stamp says
        for path in place.models:
            os.utime(path, (past, past))
        first = create(place)
        time.sleep(3.1)  # nor is ctime of the last two seconds believed; and it cannot be set
        second = create(place)
        third = create(place)
        assert second["new_chunks"] == 0 and second["id"] != first["id"], second
        assert third["new_chunks"] == 0 and third["unchanged"] >= len(place.models), third
        content = open(os.path.join(place.data, "extra"), "rb").read()
        write(os.path.join(place.data, "extra"), content[:150_000] + b"inserted" + content[150_000:])
        fourth = create(place)
        assert 1 <= fourth["new_chunks"] <= 3 and fourth["new_bytes"] < 1_200_000, fourth
        listed = json.loads(backup("ls", "--from", place.repo, "--json")[0])
        assert [item["id"] for item in listed] == [made["id"] for made in (first, second, third, fourth)], listed
        backup("restore", "--from", place.repo, first["id"], "--to", place.out)
        assert open(os.path.join(place.out, "data", "extra"), "rb").read() == content


def what_is_refused():
    with Place() as place:
        backup("create", code=2)
        write(os.path.join(place.repo, "photograph.jpg"), "x")
        assert "not empty" in create(place, code=1)
        os.remove(os.path.join(place.repo, "photograph.jpg"))
        said = backup("create", "--to", os.path.join(place.data, "b"), "--data", place.data, code=1)[1]
        assert "lies in the data directory" in said, said
        made = create(place)
        write(os.path.join(place.out, "mine"), "x")
        assert "not empty" in backup("restore", "--from", place.repo, "--to", place.out, code=1)[1]
        backup("restore", "--from", place.repo, "--to", place.out, "--overwrite")
        assert open(os.path.join(place.out, "mine")).read() == "x"
        os.remove(os.path.join(place.out, "mine"))
        check_restored(place, place.out)
        backup("restore", "--from", place.repo, "--to", place.out)  # all of it is there
        assert "no snapshot" in backup("restore", "--from", place.repo, "1999", "--to", place.out, code=1)[1]
        assert "mounted" in backup("ls", "--from", place.repo + "-not", code=1)[1]
        backup("prune", "--from", place.repo, code=2)
        assert json.loads(backup("ls", "--from", place.repo, "--json")[0])[0]["id"] == made["id"]
        write(os.path.join(place.out, "data", "memory", "store.db-wal"), "x")
        write(os.path.join(place.out, "data", "memory", "store.db"), "x")
        assert "stop its station" in backup("restore", "--from", place.repo, "--to", place.out, "--overwrite", code=1)[1]


def old_ones_go_and_chunks_wait():
    with Place() as place:
        ids = []
        for _ in range(4):
            place.change(300_000)
            ids.append(create(place)["id"])
        before = {name for name in tree(place.repo) if name.startswith("chunks")}
        plan = json.loads(backup("prune", "--from", place.repo, "--keep-last", "2", "--dry-run", "--json")[0])
        assert plan["removed"] == 2 and len(os.listdir(os.path.join(place.repo, "snapshots"))) == 4, plan
        done = json.loads(backup("prune", "--from", place.repo, "--keep-last", "2", "--grace", "0", "--json")[0])
        assert done["removed"] == 2 and done["deleted_chunks"] == 0 and done["waiting_chunks"] > 0, done
        assert {name for name in tree(place.repo) if name.startswith("chunks")} == before
        held = json.loads(backup("prune", "--from", place.repo, "--keep-last", "2", "--json")[0])
        assert held["deleted_chunks"] == 0, held
        again = json.loads(backup("prune", "--from", place.repo, "--keep-daily", "1", "--keep-last", "2", "--grace", "0", "--json")[0])
        assert again["removed"] == 0 and again["deleted_chunks"] == done["waiting_chunks"], again
        assert json.loads(backup("verify", "--from", place.repo, "--all", "--json")[0])["snapshots"] == 2
        assert [item["id"] for item in json.loads(backup("ls", "--from", place.repo, "--json")[0])] == ids[2:]
        backup("restore", "--from", place.repo, "--to", place.out)
        check_restored(place, place.out)


# ---- A repository that somebody else wrote

def seal(text):
    return text + b'\n{"sha256":"' + hashlib.sha256(text).hexdigest().encode() + b'"}\n'


def list_of(place):
    """Path of the newest snapshot's list, and the list."""
    name = sorted(os.listdir(os.path.join(place.repo, "snapshots")))[-1]
    path = os.path.join(place.repo, "snapshots", name)
    return path, json.loads(open(path, "rb").read().split(b"\n")[0])


def forge(place, change):
    """The newest list with a change, as if it had been written so; all sums are right."""
    path, content = list_of(place)
    change(content)
    text = json.dumps(content, separators=(",", ":")).encode()
    os.remove(path)
    name = os.path.basename(path)[:20] + hashlib.sha256(text).hexdigest()[:16]
    write(os.path.join(os.path.dirname(path), name + ".json"), seal(text))


def set_path(path):
    def change(content):
        content["files"][0]["path"] = path
    return change


def hostile_lists_write_nothing_outside():
    with Place(conversations=3, extra_bytes=1000) as place:
        create(place)
        keep = place.repo + "-keep"
        shutil.copytree(place.repo, keep)
        outside = os.path.join(place.folder.name, "outside")
        def twice(content):
            content["files"].append(content["files"][0])
        def long_chunk(content):
            content["files"][0]["chunks"][0][1] = 1 << 40
        def wrong_sum(content):
            content["files"][0]["bytes"] += 1
        def other_chunks(content):
            one, other = content["files"][0], content["files"][1]
            one["chunks"], one["bytes"] = other["chunks"], other["bytes"]
        for change in (set_path("../outside"), set_path(outside), set_path("a/../../outside"), set_path("data/./x"), set_path(""),
                       set_path("data//x"), set_path("data/x/"), set_path("a\nb"), set_path("x" * 2000), set_path(WORK + "/lock"),
                       twice, long_chunk, wrong_sum, other_chunks):
            forge(place, change)
            backup("restore", "--from", place.repo, "--to", place.out, code=1)
            assert not os.path.exists(outside)
            assert backup("verify", "--from", place.repo, "--all", code=1)[0]
            for folder in (place.repo, place.out):
                shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(keep, place.repo)
        os.mkdir(place.out)
        os.symlink(place.folder.name, os.path.join(place.out, "data"))
        assert "is a link" in backup("restore", "--from", place.repo, "--to", place.out, "--overwrite", code=1)[1]


def a_certificate_in_one_file_with_its_key_stays():
    with Place(conversations=3, extra_bytes=1000) as place:
        pem = os.path.join(place.folder.name, "both.pem")
        write(pem, "PRIVATE KEY")
        with open(place.config, "a", encoding="utf-8") as file:
            file.write(f"tls: {{certificate: {pem}, key: {pem}}}\nmemory: {{store: \"postgresql://me:pw@127.0.0.1/x\"}}\n")
        left_out = create(place)["left_out"]
        assert any("both.pem" in line for line in left_out) and any("pg_dump" in line for line in left_out), left_out
        assert not any("pw@" in line for line in left_out), left_out
        backup("restore", "--from", place.repo, "--to", place.out)
        assert sorted(os.listdir(os.path.join(place.out, "config"))) == ["station.yaml"]


def a_lost_list_of_snapshots_is_made_anew():
    with Place(conversations=3, extra_bytes=1000) as place:
        create(place)
        os.remove(os.path.join(place.repo, "repository.json"))
        assert "repository.json" in backup("verify", "--from", place.repo, code=1)[0]
        assert "--rebuild" in create(place, code=1)
        backup("restore", "--from", place.repo, "--to", place.out)  # what is there can always be had
        check_restored(place, place.out)
        create(place, "--rebuild")
        assert json.loads(backup("verify", "--from", place.repo, "--all", "--json")[0])["snapshots"] == 2


def damaged_chunks_are_mended():
    with Place(conversations=3) as place:
        create(place)
        for name in sorted(tree(place.repo)):
            if name.startswith("chunks"):
                write(os.path.join(place.repo, name), b"\0damaged")
        backup("verify", "--from", place.repo, code=1)
        assert create(place, "--full")["mended"] > 3
        backup("verify", "--from", place.repo, "--all")


# ---- Damage

def flip(rng, path):
    content = bytearray(open(path, "rb").read())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    write(path, bytes(content))


def truncate(rng, path):
    os.truncate(path, rng.randrange(os.path.getsize(path)))


def lengthen(rng, path):
    with open(path, "ab") as file:
        file.write(rng.randbytes(rng.randrange(1, 100)))


def zero(rng, path):
    content = bytearray(open(path, "rb").read())
    at = rng.randrange(len(content))
    content[at:at + 512] = bytes(len(content[at:at + 512]))
    write(path, bytes(content))


def delete(_, path):
    os.remove(path)


def swap(rng, path):
    """With another of its folder's kind."""
    parent = os.path.dirname(path)
    siblings = [os.path.join(folder, name) for folder, _, names in os.walk(os.path.join(parent, "..") if "chunks" in path else parent)
                for name in names if os.path.join(folder, name) != path and name != "lock"]
    other = rng.choice(siblings)
    mine, its = open(path, "rb").read(), open(other, "rb").read()
    write(path, its)
    write(other, mine)


def edit(rng, path):
    """A list that says something else, with a right sum of its own; half of the time also under its new name."""
    text = open(path, "rb").read().split(b"\n")[0]
    numbers = list(re.finditer(rb"\d+", text))
    at = rng.choice(numbers)
    changed = text[:at.start()] + str(int(at.group()) + rng.randrange(1, 9)).encode() + text[at.end():]
    write(path, seal(changed))
    if "snapshots" in path and rng.random() < 0.5:
        name = os.path.basename(path)[:20] + hashlib.sha256(changed).hexdigest()[:16] + ".json"
        os.rename(path, os.path.join(os.path.dirname(path), name))


def every_damage_is_reported():
    rng = random.Random(3)
    with Place() as place:
        create(place)
        place.change(300_000)
        create(place)
        expected, conversations, clean = place.expected(), exported(place.data), tree(place.repo)
        clean.pop("lock")
        names = sorted(clean)
        lists = [name for name in names if not name.startswith("chunks")]
        reported, refused, count = 0, 0, {}
        while reported < CORRUPTIONS:
            damage = rng.choice((flip, flip, truncate, delete, swap, edit, lengthen, zero))
            name = rng.choice(lists if damage is edit or rng.random() < 0.2 else names)
            try:
                damage(rng, os.path.join(place.repo, name))
            except IndexError:
                continue
            dirty = tree(place.repo)
            dirty.pop("lock")
            if dirty == clean:
                continue
            done = subprocess.run([PHAROS, "backup", "verify", "--from", place.repo, "--all", "--json"], capture_output=True, text=True,
                                  timeout=60)
            assert done.returncode == 1, (damage.__name__, name, done.stdout, done.stderr)
            faults = json.loads(done.stdout)["faults"]
            assert faults, (damage.__name__, name)
            if name.startswith("chunks") and damage is not swap:
                assert any(fault.get("chunk") == os.path.basename(name) for fault in faults), (damage.__name__, name, faults)
            reported += 1
            count[damage.__name__] = count.get(damage.__name__, 0) + 1
            restored = subprocess.run([PHAROS, "backup", "restore", "--from", place.repo, "--to", place.out], capture_output=True, timeout=60)
            assert restored.returncode in (0, 1), restored
            refused += restored.returncode
            found = tree(place.out)
            database = found.pop("data/memory/store.db", None)
            for path, content in found.items():  # of another snapshot, when the newest cannot be read or is not there
                assert path.startswith(WORK) or content == expected[path] or (path == "data/extra" and "snapshots" in name), path
            if restored.returncode == 0 and "snapshots" not in name:
                assert found == expected and exported(os.path.join(place.out, "data")) == conversations
            assert database is None or database[:15] == b"SQLite format 3"
            shutil.rmtree(place.out, ignore_errors=True)
            for path in set(dirty) - set(clean):
                os.remove(os.path.join(place.repo, path))
            for path, content in clean.items():
                if dirty.get(path) != content:
                    write(os.path.join(place.repo, path), content)
        backup("verify", "--from", place.repo, "--all")
        print(f"{reported} damages, all reported: {dict(sorted(count.items()))}; {refused} restores refused files, the others were right")


# ---- Kills

class Killer:
    """Runs a command and kills it at a random moment of the time that it takes, which it learns: a shared machine has no clock."""

    def __init__(self, *arguments):
        self.arguments, self.within, self.hits, self.rng = arguments, 0.3, 0, random.Random(4)

    def strike(self):
        process = subprocess.Popen([PHAROS, "backup", *self.arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(self.rng.uniform(0, self.within))
        process.kill()
        hit = process.wait() != 0
        self.within *= 1.2 if hit else 0.7
        self.hits += hit

    def tell(self, what, strikes):
        print(f"{what}: {strikes} kills, {self.hits} of them at work")
        assert self.hits >= strikes // 4, f"hardly a kill met it at work: {self.hits} of {strikes}"


def killed_while_creating():
    with Place(extra_bytes=8_000_000) as place:
        killer = Killer("create", "--to", place.repo, "--config", place.config, "--data", place.data)
        older = create(place)["id"]
        for _ in range(KILLS):
            place.change(8_000_000)
            killer.strike()
            said = json.loads(backup("verify", "--from", place.repo, older, "--json")[0])
            assert said["ok"] and not said["faults"], said
            assert json.loads(backup("verify", "--from", place.repo, "--all", "--json")[0])["ok"]
            made = create(place)
            assert json.loads(backup("verify", "--from", place.repo, made["id"], "--json")[0])["ok"]
            assert not [name for name in os.listdir(place.repo) if name.startswith(".pharos")]
            backup("prune", "--from", place.repo, "--keep-last", "1", "--grace", "0")
            older = made["id"]
        backup("restore", "--from", place.repo, "--to", place.out)
        check_restored(place, place.out)
    killer.tell("create", KILLS)


def killed_while_restoring():
    with Place(extra_bytes=8_000_000) as place:
        create(place)
        expected, conversations = place.expected(), exported(place.data)
        arguments = ["restore", "--from", place.repo, "--to", place.out]
        killer = Killer(*arguments)
        for _ in range(KILLS):
            killer.strike()
            for path, content in (tree(place.out) if os.path.exists(place.out) else {}).items():
                assert path.startswith(WORK) or path.endswith("store.db") or content == expected[path], path
            backup(*arguments)
            check_restored(place, place.out, expected, conversations)
            shutil.rmtree(place.out)
        backup("verify", "--from", place.repo, "--all")
    killer.tell("restore", KILLS)


# ---- A station that writes

def beside_a_running_station():
    if not os.path.exists(TINY):
        print("SKIP: beside a running station: ../shared is not here")
        return
    with Place() as place, Station(f"listen: 127.0.0.1:0\nmodels:\n  - {{id: tiny, path: {TINY}}}\n", data=place.data) as station:
        headers = {"x-api-key": place.key}
        made = station.request("POST", "/v1/conversations", {}, headers).json
        path, acknowledged, stop = f"/v1/conversations/{made['id']}/items", [], threading.Event()

        def talk():
            number = 0
            while not stop.is_set():
                item = {"type": "message", "role": "user", "content": f"said {number}"}
                if station.request("POST", path, {"items": [item]}, headers).status == 200:
                    acknowledged.append(number)
                number += 1
        thread = threading.Thread(target=talk)
        thread.start()
        try:
            for n in range(3):
                while len(acknowledged) < 20 * (n + 1):
                    assert thread.is_alive()
                    time.sleep(0.01)
                before = len(acknowledged)
                create(place)
                assert json.loads(backup("verify", "--from", place.repo, "--json")[0])["ok"]
                backup("restore", "--from", place.repo, "--to", place.out)
                lines = map(json.loads, exported(os.path.join(place.out, "data")).split("\n")[:-1])
                said = [line for line in lines if line["id"] == made["id"]][0]["messages"]
                assert len(said) >= before, (len(said), before)
                assert [message["content"] for message in said][:before] == [f"said {number}" for number in acknowledged[:before]], said[:3]
                shutil.rmtree(place.out)
        finally:
            stop.set()
            thread.join()


def one_at_a_time():
    with Place(extra_bytes=30_000_000) as place:
        both = [subprocess.Popen([PHAROS, "backup", "create", "--to", place.repo, "--data", place.data], stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True) for _ in range(2)]
        said = [process.communicate(timeout=120) for process in both]
        codes = sorted(process.returncode for process in both)
        assert codes == [0, 0] or (codes == [0, 1] and any("another backup is at work" in err for _, err in said)), said
        backup("verify", "--from", place.repo, "--all")


for test in (there_and_back, only_what_is_new_is_written, what_is_refused, old_ones_go_and_chunks_wait,
             hostile_lists_write_nothing_outside, a_certificate_in_one_file_with_its_key_stays, a_lost_list_of_snapshots_is_made_anew, damaged_chunks_are_mended,
             every_damage_is_reported, killed_while_creating, killed_while_restoring, beside_a_running_station, one_at_a_time):
    runner.run(test.__name__, test)
runner.finish()
