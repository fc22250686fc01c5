#!/usr/bin/env python3
"""Training over several processes: pharos train lm under mpirun against one process with the same batch.

PHAROS is the plain program, PHAROS_MPI the one built WITH_MPI=1."""
import csv
import json
import os
import random
import signal
import struct
import subprocess
import tempfile
import time

from station import PHAROS, Runner

runner = Runner("ranks")
PHAROS_MPI = os.environ["PHAROS_MPI"]
WORDS = "the quick brown fox jumps over a lazy dog while seven wizards brew tea and read old books".split()
MPIRUN = ["mpirun", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none"]
ENVIRONMENT = {**os.environ, "OMPI_MCA_btl_vader_single_copy_mechanism": "none"}  # containers forbid it


def pharos(*arguments, ranks=0, program=None, code=0):
    command = MPIRUN + ["-n", str(ranks), program or PHAROS_MPI] if ranks else [PHAROS]
    done = subprocess.run([*command, *arguments], capture_output=True, timeout=300, env=ENVIRONMENT)
    assert (done.returncode == 0) == (code == 0), (arguments, done.returncode, done.stderr)
    return done.stdout.decode() if code == 0 else done.stderr.decode()


def make_data(folder):
    text, vocabulary, tokens = (os.path.join(folder, name) for name in ("text.txt", "v.gguf", "t.tokens"))
    dice = random.Random(1)
    with open(text, "w", encoding="utf-8") as file:
        file.write("---\n".join(" ".join(dice.choice(WORDS) for _ in range(80)) + ".\n" for _ in range(300)))
    pharos("train", "tokenizer", text, "--out", vocabulary, "--vocab", "300")
    pharos("train", "data", text, "--separator", "---", "--model", vocabulary, "--out", tokens, "--held-out", "0.1")
    return ["train", "lm", "--data", tokens, "--tokenizer", vocabulary, "--d", "32", "--layers", "2", "--ff", "96",
            "--batch", "12", "--accumulate", "2", "--time", "32", "--steps", "40", "--threads", "1", "--json",
            "--checkpoint-every", "10", "--validate-every", "20", "--name", "m"]


def weights(folder):
    """The floats of the newest checkpoint: see train/checkpoint.c."""
    best = -1, ()
    for name in ("checkpoint-0", "checkpoint-1"):
        with open(os.path.join(folder, name), "rb") as file:
            data = file.read()
        settings, sources, floats, step = struct.unpack_from("<4Q", data, 24)
        at = 128 + (settings + 7) // 8 * 8 + sources * 24
        best = max(best, (step, struct.unpack_from(f"<{floats}f", data, at)))
    return best[1]


def losses(folder):
    with open(os.path.join(folder, "loss.csv"), encoding="ascii") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def model(folder):
    with open(os.path.join(folder, "model.gguf"), "rb") as file:
        return file.read()


def several_are_one():
    with tempfile.TemporaryDirectory() as folder:
        command = make_data(folder)
        out = {name: os.path.join(folder, name) for name in ("alone", "two", "again", "three")}
        told = {name: json.loads(pharos(*command, "--out", out[name], ranks=ranks))
                for name, ranks in (("alone", 0), ("two", 2), ("again", 2), ("three", 3))}
        assert model(out["two"]) == model(out["again"])  # the order of sums is fixed
        for name in ("two", "three"):
            apart = max(abs(a - b) for a, b in zip(losses(out["alone"]), losses(out[name]), strict=True))
            far = max(abs(a - b) for a, b in zip(weights(out["alone"]), weights(out[name]), strict=True))
            assert apart < 1e-5 and far < 1e-5, (name, apart, far)
            assert told[name]["validation"]["tokens"] == told["alone"]["validation"]["tokens"] > 0
            assert abs(told[name]["validation"]["loss"] - told["alone"]["validation"]["loss"]) < 1e-5
        assert losses(out["alone"])[-1] < losses(out["alone"])[0] - 0.3  # it was a run worth comparing


def one_lost_ends_all_and_all_resume():
    with tempfile.TemporaryDirectory() as folder:
        command = make_data(folder)
        whole, broken = os.path.join(folder, "whole"), os.path.join(folder, "broken")
        command[command.index("--steps") + 1] = "150"
        pharos(*command, "--out", whole, ranks=2)
        with subprocess.Popen(MPIRUN + ["-n", "2", PHAROS_MPI, *command, "--out", broken], env=ENVIRONMENT,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            while not os.path.exists(os.path.join(broken, "checkpoint-1")) and run.poll() is None:
                time.sleep(0.01)
            children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(run.pid)], capture_output=True, check=True)
            os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
            assert run.wait(timeout=60) != 0
        assert not os.path.exists(os.path.join(broken, "model.gguf"))
        told = json.loads(pharos(*command, "--out", broken, ranks=2))
        assert 0 < told["begun_at"] < 150, told
        assert model(whole) == model(broken)
        command[command.index("--steps") + 1] = "160"  # another number of processes may go on, too
        assert json.loads(pharos(*command, "--out", broken, ranks=3))["begun_at"] == 150


def what_cannot_be_is_said():
    with tempfile.TemporaryDirectory() as folder:
        command = make_data(folder)
        said = pharos(*command, "--batch", "13", "--out", os.path.join(folder, "a"), ranks=2, code=1)
        assert "can't be shared evenly by 2" in said, said
        said = pharos(*command, "--out", os.path.join(folder, "b"), ranks=2, program=PHAROS, code=1)
        assert "WITH_MPI=1" in said, said
        command += ["--out", os.path.join(folder, "c")]
        for more, words in ((["--rate", "0.5"], "start them all alike"), (["--data", "nothing"], "nothing: No such file")):
            done = subprocess.run(MPIRUN + ["-n", "1", PHAROS_MPI, *command, ":", "-n", "1", PHAROS_MPI, *command, *more],
                                  capture_output=True, timeout=60, env=ENVIRONMENT)
            said = done.stderr.decode()  # one process can't, so all end
            assert done.returncode != 0 and "process 2 of 2: " in said and words in said, said


for case in (several_are_one, one_lost_ends_all_and_all_resume, what_cannot_be_is_said):
    runner.run(case.__name__, case)
runner.finish()
