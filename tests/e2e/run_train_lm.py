#!/usr/bin/env python3
"""pharos train lm, as a user runs it: killed at random moments, stopped, a full disk, lost numbers, bad data."""
import csv
import json
import os
import random
import resource
import signal
import subprocess
import tempfile
import time

from station import PHAROS, Runner

runner = Runner("train lm")
WORDS = "the quick brown fox jumps over a lazy dog while seven wizards brew tea and read old books".split()
KILLS = 20


def pharos(*arguments, text=b"", code=0, **more):
    done = subprocess.run([PHAROS, *arguments], input=text, capture_output=True, timeout=120, **more)
    assert done.returncode == code, (arguments, done.returncode, done.stderr)
    return done.stdout.decode() if code == 0 else done.stderr.decode()


def prose(seed, count):
    dice = random.Random(seed)
    return " ".join(dice.choice(WORDS) for _ in range(count)) + ".\n"


class Place:
    """A folder with a vocabulary and a token file."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.text, self.vocabulary, self.tokens = (self.path(name) for name in ("t.txt", "v.gguf", "d.tokens"))
        with open(self.text, "w", encoding="utf-8") as file:
            file.write("---\n".join(prose(seed, 60) for seed in range(200)))
        pharos("train", "tokenizer", self.text, "--out", self.vocabulary, "--vocab", "350")
        pharos("train", "data", self.text, "--separator", "---", "--model", self.vocabulary, "--out", self.tokens,
               "--held-out", "0.1")
        return self

    def __exit__(self, *_):
        self.folder.cleanup()

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def command(self, out, *more, steps=400):
        return ["train", "lm", "--data", self.tokens, "--tokenizer", self.vocabulary, "--out", self.path(out),
                "--d", "16", "--layers", "1", "--time", "32", "--batch", "8", "--steps", str(steps), "--rate", "0.01",
                "--name", "test", *more]

    def read(self, *names):
        with open(os.path.join(self.folder.name, *names), "rb") as file:
            return file.read()

    def stamp(self, out):
        """Another one when a row was added to the run's curve, or some were cut off."""
        try:
            status = os.stat(os.path.join(self.path(out), "loss.csv"))
            return status.st_size, status.st_mtime_ns
        except FileNotFoundError:
            return None

    def rows(self, out):
        with open(os.path.join(self.path(out), "loss.csv"), newline="", encoding="utf-8") as file:
            return [{key: value for key, value in row.items() if key != "tokens_per_s"} for row in csv.DictReader(file)]


def killed_at_random_moments_it_ends_the_same():
    dice = random.Random(7)
    with Place() as place:
        how = ["--checkpoint-every", "3", "--validate-every", "100", "--accumulate", "2", "--bf16"]
        start = time.monotonic()
        pharos(*place.command("whole", *how, steps=800))
        whole_s = time.monotonic() - start
        command = [PHAROS, *place.command("parts", *how, steps=800)]
        killed = 0
        for _ in range(KILLS):
            before = place.stamp("parts")
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while process.poll() is None and place.stamp("parts") == before:  # it is still getting ready
                time.sleep(0.001)
            try:
                process.wait(timeout=dice.random() * whole_s / KILLS)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        assert killed > KILLS * 3 // 4, killed
        pharos(*command[1:])
        assert place.read("whole", "model.gguf") == place.read("parts", "model.gguf")
        assert place.rows("whole") == place.rows("parts") and len(place.rows("whole")) == 800
        left = sorted(os.listdir(place.path("parts")))
        assert left == ["checkpoint-0", "checkpoint-1", "lock", "loss.csv", "loss.svg", "model.gguf"], left


def a_signal_stops_it_after_the_step():
    with Place() as place:
        for number in (signal.SIGTERM, signal.SIGINT):
            process = subprocess.Popen([PHAROS, *place.command("run", "--json", steps=1000000)],
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            while not process.stderr.readline().startswith(b"step "):
                pass
            process.send_signal(number)
            said, _ = process.communicate(timeout=60)
            result = json.loads(said)
            assert process.returncode == 0 and result["stopped"] and result["ended_at"] > result["begun_at"], result
        assert result["begun_at"] > 0
        end = result["ended_at"] + 5
        result = json.loads(pharos(*place.command("run", "--json", steps=end)))
        assert result["begun_at"] == end - 5 and result["ended_at"] == end and not result["stopped"], result
        assert [int(row["step"]) for row in place.rows("run")] == list(range(1, end + 1))


def a_full_disk_is_said():
    with Place() as place:
        def small_files():
            resource.setrlimit(resource.RLIMIT_FSIZE, (30000, resource.RLIM_INFINITY))
        pharos(*place.command("run", steps=20))
        before = place.read("run", "checkpoint-0")
        said = pharos(*place.command("run", steps=40), code=1, preexec_fn=small_files)
        assert "checkpoint-1" in said and "File too large" in said, said
        assert place.read("run", "checkpoint-0") == before
        pharos(*place.command("run", steps=40))


def numbers_that_are_lost_stop_it():
    with Place() as place:
        said = pharos(*place.command("run", "--rate", "100", "--clip", "0", "--warmup", "0", "--checkpoint-every", "1",
                                     "--beta2", "0", "--eps", "1e-30", "--decay", "100"), code=1)
        assert said.splitlines()[-1].startswith("pharos: step ") and "rate" in said, said
        pharos(*place.command("run", "--adapt", "--rate", "0.001", steps=3), code=0)


def bad_input_is_named():
    with Place() as place:
        with open(place.tokens, "r+b") as file:
            file.seek(5000)
            file.write(b"\xff")
        said = pharos(*place.command("run"), code=1)
        assert "d.tokens: byte" in said and "train data" in said, said
        assert "no-such" in pharos("train", "lm", "--data", "no-such", "--tokenizer", place.vocabulary, "--out",
                                   place.path("run"), code=1)
        pharos("train", "lm", "--data", place.tokens, code=2)
        pharos(*place.command("run", "--type", "Q9"), code=2)
        pharos("train", "lm", "--data", place.tokens, "--tokenizer", place.vocabulary, "--out", "x", "--lyers", "3", code=2)
        with open(place.path("run.yaml"), "w", encoding="utf-8") as file:
            file.write("d: 16\nlyers: 3\n")
        said = pharos("train", "lm", "--config", place.path("run.yaml"), code=1)
        assert "run.yaml:2:" in said and "layers" in said, said
        assert not os.path.exists(place.path("run"))


def settings_in_a_file_train_a_model_that_runs():
    with Place() as place:
        with open(place.path("run.yaml"), "w", encoding="utf-8") as file:
            file.write(f"data: ['{place.tokens}:2', '{place.tokens}:1']\ntokenizer: {place.vocabulary}\nd: 32\n"
                       "layers: 2\nkv_heads: 1\nheads: 2\ntime: 64\nbatch: 8\nsteps: 1\nrate: 0.01\nschedule: wsd\n"
                       "muon: true\ntype: Q8_0\n")
        model = place.path("m.gguf")
        result = json.loads(pharos("train", "lm", "--config", place.path("run.yaml"), "--out", model, "--steps", "150",
                                   "--json"))
        assert result["ended_at"] == 150 and result["validation"]["perplexity"] < 40, result
        assert 0 < result["validation"]["bits_per_byte"] < 2, result
        assert os.path.exists(place.path("m.run/checkpoint-0")) and not os.path.exists(model + ".f32")
        said = pharos("complete", "--model", model, "--prompt", "the quick", "-n", "24")
        assert sum(word.strip(".") in WORDS for word in said.split()) >= 5, said
        further = json.loads(pharos("train", "lm", "--init", model, "--data", place.tokens, "--out", place.path("more"),
                                    "--steps", "2", "--batch", "4", "--rate", "0.0001", "--json"))
        assert further["loss"] < 4, further


for case in (killed_at_random_moments_it_ends_the_same, a_signal_stops_it_after_the_step, a_full_disk_is_said,
             numbers_that_are_lost_stop_it, bad_input_is_named, settings_in_a_file_train_a_model_that_runs):
    runner.run(case.__name__, case)
runner.finish()
