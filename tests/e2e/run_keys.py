#!/usr/bin/env python3
"""pharos keys as a user runs it: a secret is shown once and alone, the file stays private, a bad line is named."""
import json
import os
import re
import subprocess
import tempfile

from station import PHAROS, Runner

runner = Runner("keys")
KEY = re.compile(r"sk-pharos-([1-9A-HJ-NP-Za-km-z]{8})-([1-9A-HJ-NP-Za-km-z]{44})-[1-9A-HJ-NP-Za-km-z]{6}")


def keys(data, *arguments, code=0):
    """What it printed on stdout and stderr."""
    where = ["--data", data] if data else []
    done = subprocess.run([PHAROS, "keys", *arguments, *where], capture_output=True, timeout=60, text=True)
    assert done.returncode == code, (arguments, done.returncode, done.stderr)
    return done.stdout, done.stderr


def create(data, *arguments):
    text = keys(data, "create", *arguments)[0].strip()
    return text, KEY.fullmatch(text).group(1)


def listed(data):
    return {key["id"]: key for key in json.loads(keys(data, "ls", "--json")[0])["keys"]}


def a_secret_is_shown_once_and_alone():
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "a", "data")
        out, said = keys(data, "create", "--name", "Léa", "--budget-usd-month", "2.5", "--rpm", "60", "--tpm", "9000",
                         "--concurrency", "3", "--scope", "models:small*", "--scope", "read", "--expires", "30d")
        found = KEY.fullmatch(out.rstrip("\n"))
        assert found and out.endswith("\n"), out
        key_id, secret = found.groups()
        assert key_id in said and secret not in said
        with open(os.path.join(data, "keys.jsonl"), encoding="utf-8") as file:
            assert secret not in file.read()
        assert os.stat(data).st_mode & 0o777 == 0o700
        assert os.stat(os.path.join(data, "keys.jsonl")).st_mode & 0o777 == 0o600
        table, nothing = keys(data, "ls")
        assert not nothing and secret not in table and "sha256" not in table
        for word in (key_id, "Léa", "active", "models:small*,read", "2.5 USD/month", "60 requests/min",
                     "9000 tokens/min", "3 at once"):
            assert word in table, (word, table)
        key = listed(data)[key_id]
        assert key["expires_at"] - key["created_at"] == 30 * 86400
        assert "sha256" not in key and key["state"] == "active" and key["budget_usd_month"] == 2.5
        assert key["scopes"] == ["models:small*", "read"] and key["rpm"] == 60


def json_has_the_secret_beside_the_rest():
    with tempfile.TemporaryDirectory() as data:
        made = json.loads(keys(data, "create", "--name", "x", "--json")[0])
        assert KEY.fullmatch(made["key"]).group(1) == made["id"]
        assert made["scopes"] == ["chat", "read"] and made["budget_usd_month"] is None and made["rpm"] is None
        turned = json.loads(keys(data, "rotate", made["id"], "--json")[0])
        assert turned["id"] != made["id"] and turned["account"] == made["id"] and "key" in turned
        ended = json.loads(keys(data, "revoke", made["id"], "--json")[0])
        assert ended["state"] == "revoked" and ended["revoked_at"] and "key" not in ended


def rotation_overlaps_and_revocation_ends():
    with tempfile.TemporaryDirectory() as data:
        _, first = create(data, "--name", "agent", "--rpm", "7")
        new, said = keys(data, "rotate", first, "--overlap", "2h")
        second = KEY.fullmatch(new.strip()).group(1)
        assert first in said and second in said
        now = listed(data)
        assert now[first]["state"] == "rotated" and now[first]["replaced_by"] == second
        assert now[first]["expires_at"] - now[second]["created_at"] == 7200
        assert now[second]["rpm"] == 7 and now[second]["expires_at"] is None and now[second]["account"] == first
        assert "rotated already" in keys(data, "rotate", first, code=1)[1]
        keys(data, "rotate", second, "--overlap", "0")
        assert listed(data)[second]["state"] == "expired"
        keys(data, "revoke", first)
        keys(data, "revoke", first)
        assert listed(data)[first]["state"] == "revoked"
        assert "revoked" in keys(data, "ls")[0]


def a_key_found_somewhere_can_be_revoked_by_itself():
    with tempfile.TemporaryDirectory() as data:
        text, key_id = create(data, "--name", "leaked")
        out, said = keys(data, "revoke", text)
        assert listed(data)[key_id]["state"] == "revoked"
        secret = KEY.fullmatch(text).group(2)
        assert secret not in out + said
        assert secret not in keys(data, "revoke", "sk-pharos-nobodysX-" + secret, code=1)[1]


def what_is_wrong_is_said():
    with tempfile.TemporaryDirectory() as data:
        for arguments, code, words in (
                (["create"], 2, "--name"),
                (["create", "--name", "x", "--rpm", "0"], 2, "--rpm"),
                (["create", "--name", "x", "--budget-usd-month", "-1"], 2, "--budget-usd-month"),
                (["create", "--name", ""], 1, "--name"),
                (["create", "--name", "x" * 64], 1, "--name"),
                (["create", "--name", "a\tb"], 1, "name"),
                (["create", "--name", "x", "--scope", "all"], 1, "models:NAME"),
                (["create", "--name", "x", "--expires", "soon"], 1, "30d"),
                (["create", "--name", "x", "--expires", "2020-02-02"], 1, "expire"),
                (["revoke"], 2, "ID"),
                (["revoke", "nobody"], 1, "pharos keys ls"),
                (["rotate", "nobody"], 1, "nobody"),
                (["rotate", "nobody", "--overlap", "1y"], 1, "24h"),
                (["remove"], 2, "unknown command")):
            out, said = keys(data if arguments != ["remove"] else None, *arguments, code=code)
            assert not out and words in said and said.count("\n") == 1, (arguments, out, said)
        out, said = keys(data, "ls")
        assert not out and "no keys" in said
        assert listed(data) == {}


def a_file_that_is_open_or_broken_is_refused():
    with tempfile.TemporaryDirectory() as data:
        _, key_id = create(data, "--name", "x")
        path = os.path.join(data, "keys.jsonl")
        os.chmod(path, 0o644)
        for command in (["ls"], ["create", "--name", "y"], ["revoke", key_id]):
            assert f"chmod 600 {path}" in keys(data, *command, code=1)[1]
        os.chmod(path, 0o600)
        with open(path, "a", encoding="utf-8") as file:
            file.write('{"id": 7}\n')
        before = open(path, "rb").read()
        for command in (["ls"], ["create", "--name", "y"], ["revoke", key_id]):
            assert f"{path} line 2" in keys(data, *command, code=1)[1]
        assert open(path, "rb").read() == before
        os.chmod(data, 0o777)
        assert f"chmod 700 {data}" in keys(data, "create", "--name", "y", code=1)[1]


def the_environment_names_the_directory():
    with tempfile.TemporaryDirectory() as data:
        environment = {**os.environ, "PHAROS_DATA": data}
        subprocess.run([PHAROS, "keys", "create", "--name", "x"], env=environment, check=True, capture_output=True)
        assert len(listed(data)) == 1


def usage_is_a_column_of_its_own():
    with tempfile.TemporaryDirectory() as data:
        create(data, "--name", "x")
        plain, month = keys(data, "ls")[0], keys(data, "ls", "--usage")[0]
        assert "THIS MONTH" in month and "0.0000 USD, 0 requests, 0 tokens" in month and "MONTH" not in plain
        key, = json.loads(keys(data, "ls", "--usage", "--json")[0])["keys"]
        assert key["month"] == {"spent_usd": 0, "requests": 0, "prompt_tokens": 0, "output_tokens": 0}


def many_at_once_lose_none():
    with tempfile.TemporaryDirectory() as data:
        _, victim = create(data, "--name", "victim")
        running = [subprocess.Popen([PHAROS, "keys", "create", "--name", f"n{i}", "--data", data],
                                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for i in range(12)]
        keys(data, "revoke", victim)
        made = {KEY.fullmatch(process.communicate()[0].strip()).group(1) for process in running}
        assert all(process.returncode == 0 for process in running)
        now = listed(data)
        assert len(made) == 12 and set(now) == made | {victim} and now[victim]["state"] == "revoked"


for case in (a_secret_is_shown_once_and_alone, json_has_the_secret_beside_the_rest, rotation_overlaps_and_revocation_ends,
             a_key_found_somewhere_can_be_revoked_by_itself, what_is_wrong_is_said,
             a_file_that_is_open_or_broken_is_refused, the_environment_names_the_directory,
             usage_is_a_column_of_its_own, many_at_once_lose_none):
    runner.run(case.__name__, case)
runner.finish()
