#!/usr/bin/env python3
"""A cascade's threshold from verdicts: feedback is stored, `pharos route calibrate` chooses, the running station obeys.

The cheap model is sure of itself as the prompt says ("surety 0.73") and right as often; the dear one is right in 19 of 20.
So what a threshold gives is known beforehand: with sureties spread evenly from 0.2 to 1, everything below t escalated,
quality is ((t - 0.2) * 0.95 + (1 - t * t) / 2) / 0.8.
"""
import json
import os
import random
import subprocess
import tempfile
import time

from behind import configuration, provider_line
from station import PHAROS, Runner, Station
from upstream import Upstream, reply_text

CHAT = "/v1/chat/completions"
CONFIGURED = 0.3
LEAST = 0.2  # surety
DEAR_RIGHT = 0.95
TOKENS = 20


def true_quality(threshold):
    return ((threshold - LEAST) * DEAR_RIGHT + (1 - threshold * threshold) / 2) / (1 - LEAST)


def station_configuration(upstream):
    models = [f"  - {{id: {name}, tier: {tier}, provider: {name}, upstream: {name}-up, context: 100000, "
              f"price: {{input_usd_per_mtok: {price}, output_usd_per_mtok: {price}}}}}\n"
              for name, tier, price in (("cheap", "local", 1), ("dear", "premium", 100))]
    route = f"routes:\n  - {{model: auto, policy: cascade, order: [cheap, dear], escalate_below: {CONFIGURED}}}\n"
    return configuration(models, [provider_line(name, "openai", upstream) for name in ("cheap", "dear")], route)


class Judge:
    """Asks, judges, tells: a client whose prompts say how sure the cheap model will be."""

    def __init__(self, station, seed=1):
        self.station, self.random, self.number = station, random.Random(seed), 0

    def ask(self, surety, stream=False):
        """(who answered, the reply's id)."""
        self.number += 1
        prompt = f"number {self.number}, surety {surety:.4f}, {TOKENS} tokens"
        body = {"model": "auto", "messages": [{"role": "user", "content": prompt}], "stream": stream}
        reply = self.station.request("POST", CHAT, body)
        assert reply.status == 200, reply.text
        who = dict(part.strip().split("=") for part in reply.headers["x-pharos-route"].split(";"))["model"]
        if stream:
            chunks = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
            text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
            answer_id = chunks[0]["id"]
        else:
            text, answer_id = reply.json["choices"][0]["message"]["content"], reply.json["id"]
        assert text == reply_text(prompt), text
        return who, answer_id

    def say(self, answer_id, score, status=200, **more):
        reply = self.station.request("POST", "/v1/feedback", {"response_id": answer_id, "score": score, **more})
        assert reply.status == status, (reply.status, reply.text)
        return reply

    def surety(self):
        return self.random.uniform(LEAST, 0.9999)

    def round(self, count, tell=True):
        """(share that was right, share that was escalated) of `count` questions."""
        right = escalated = 0
        for i in range(count):
            surety = self.surety()
            who, answer_id = self.ask(surety, i % 2 == 1)
            is_right = self.random.random() < (surety if who == "cheap" else DEAR_RIGHT)
            if tell:
                self.say(answer_id, 1 if is_right else -1)
            right += is_right
            escalated += who == "dear"
        return right / count, escalated / count

    def obeys(self, threshold, seconds=10):
        """Waits until the station escalates below it and not above."""
        until = time.monotonic() + seconds
        while (seen := [self.ask(threshold + off)[0] for off in (-0.004, 0.004)]) != ["dear", "cheap"]:
            assert time.monotonic() < until, f"{threshold}: {seen}"
            time.sleep(0.2)


def calibrate(data, *arguments, code=0):
    done = subprocess.run([PHAROS, "route", "calibrate", "auto", *arguments, "--data", data, "--json"],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, (arguments, done.returncode, done.stderr)
    return json.loads(done.stdout) if code == 0 else done.stderr


def listed(data, config):
    done = subprocess.run([PHAROS, "route", "ls", "--config", config, "--data", data, "--json"], capture_output=True, text=True,
                          timeout=60, check=True)
    return {row["route"]: row for row in json.loads(done.stdout)}


class World:
    def __init__(self, station, data, config):
        self.station, self.data, self.config, self.judge = station, data, config, Judge(station)

    def all_is_written(self, seconds=30):
        """Judged answers are written a batch a second: waits for the last one, so that two calibrations see the same."""
        until = time.monotonic() + seconds
        while lines_of(os.path.join(self.data, "cascade.jsonl")) < self.judge.number:
            assert time.monotonic() < until, f"{self.judge.number} answers were judged, fewer are written"
            time.sleep(0.05)


def lines_of(path):
    if not os.path.exists(path):
        return 0
    with open(path, "rb") as file:
        return file.read().count(b"\n")


def nothing_is_known_at_first(world):
    said = calibrate(world.data, "--quality", "0.9", code=1)
    assert "0 verdicts" in said and "30" in said and "/v1/feedback" in said, said
    assert not os.path.exists(os.path.join(world.data, "calibration.json"))
    for arguments in ((), ("--quality", "0.9", "--spend", "3"), ("--quality", "1.5")):
        calibrate(world.data, *arguments, code=2)


def verdicts_are_kept(world):
    judge = world.judge
    _, answer_id = judge.ask(0.9)
    judge.say(answer_id, 1, note="right, says the teacher")
    judge.say(answer_id, -1)  # the last one counts
    for answer, score, status in ((answer_id, 1.01, 400), (answer_id, "good", 400), (answer_id, None, 400), ("chatcmpl-nobody", 1, 404)):
        assert judge.say(answer, score, status).json["error"]["message"]
    with open(os.path.join(world.data, "verdicts.jsonl"), encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    assert len(lines) == 2 and "surety" not in json.dumps(lines), lines
    assert os.stat(os.path.join(world.data, "verdicts.jsonl")).st_mode & 0o777 == 0o600
    judge.obeys(CONFIGURED)  # as configured until somebody calibrates
    judge.round(400)


def to_a_quality(world):
    world.all_is_written()
    plan = calibrate(world.data, "--quality", "0.8", "--dry-run")
    assert not plan["written"] and not os.path.exists(os.path.join(world.data, "calibration.json"))
    assert listed(world.data, world.config)["auto"]["escalate_below"] == CONFIGURED
    done = calibrate(world.data, "--quality", "0.8")
    chosen = done["chosen"]
    assert done["written"] and chosen["escalate_below"] == plan["chosen"]["escalate_below"], (chosen, plan["chosen"])
    lower = [point for point in done["curve"] if point["escalate_below"] < chosen["escalate_below"]]
    assert chosen["quality"] >= 0.8 and all(point["quality"] < 0.8 for point in lower), chosen
    threshold = chosen["escalate_below"]
    print(f"  quality 0.8: below {threshold}, expected {chosen['quality']:.3f} ({chosen['low']:.3f} to {chosen['high']:.3f}), "
          f"in truth {true_quality(threshold):.3f}; {100 * chosen['escalated']:.0f} % escalated")
    assert abs(true_quality(threshold) - chosen["quality"]) < 0.06 and CONFIGURED < threshold < 0.9
    row = listed(world.data, world.config)["auto"]
    assert row["source"] == "calibrated" and row["escalate_below"] == threshold and row["target"] == "quality 0.8", row
    world.judge.obeys(threshold)
    right, escalated = world.judge.round(250, tell=False)
    print(f"  250 more under it: {right:.3f} were right, {100 * escalated:.0f} % escalated")
    assert abs(right - true_quality(threshold)) < 0.09, right
    assert abs(escalated - (threshold - LEAST) / (1 - LEAST)) < 0.1, escalated


def to_a_spend(world):
    world.all_is_written()
    curve = calibrate(world.data, "--quality", "0", "--dry-run")["curve"]
    spend = round((curve[0]["usd_month"] + curve[-1]["usd_month"]) / 2, 2)
    done = calibrate(world.data, "--spend", str(spend))
    chosen = done["chosen"]
    higher = [point for point in done["curve"] if point["escalate_below"] > chosen["escalate_below"]]
    assert chosen["usd_month"] <= spend and higher and all(point["usd_month"] > spend * 0.98 for point in higher), (chosen, spend)
    world.judge.obeys(chosen["escalate_below"])
    before = cost(world.data)
    count = 150
    world.judge.round(count, tell=False)
    deadline = time.monotonic() + 10  # the last records may wait for the next batch
    while cost(world.data)[1] < before[1] + count and time.monotonic() < deadline:
        time.sleep(0.2)
    after = cost(world.data)
    each, expected = (after[0] - before[0]) / count, chosen["usd_month"] / done["answers_month"]
    print(f"  {spend} USD a month: below {chosen['escalate_below']}, {chosen['usd_month']:.2f} expected; "
          f"an answer {1000 * expected:.3f}, in truth {1000 * each:.3f} thousandths of a USD")
    assert abs(each / expected - 1) < 0.2, (each, expected)


def cost(data):
    done = subprocess.run([PHAROS, "cost", "report", "--data", data, "--by", "model", "--json"], capture_output=True, text=True, check=True)
    rows = {row["model"]: row for row in json.loads(done.stdout)["rows"]}
    return sum(row["cost_usd"] for row in rows.values()), rows["cheap"]["requests"]


def what_cannot_be_had_changes_nothing(world):
    path = os.path.join(world.data, "calibration.json")
    with open(path, encoding="utf-8") as file:
        before = file.read()
    said = calibrate(world.data, "--quality", "1", code=1)
    assert "the best is 0.9" in said, said
    said = calibrate(world.data, "--spend", "0.000001", code=1)
    assert "cannot stay within" in said, said
    with open(path, encoding="utf-8") as file:
        assert file.read() == before


def a_new_station_keeps_to_it_and_deleting_undoes_it(world, upstream):
    threshold = listed(world.data, world.config)["auto"]["escalate_below"]
    with Station(station_configuration(upstream), data=world.data) as station:
        judge = Judge(station, 9)
        judge.obeys(threshold)
        with open(os.path.join(world.data, "verdicts.jsonl"), "ab") as file:
            file.write(b"a line that is none\n")
        assert calibrate(world.data, "--quality", "0.8", "--dry-run")["damaged"] == 1
        os.unlink(os.path.join(world.data, "calibration.json"))
        judge.obeys(CONFIGURED)
    assert listed(world.data, world.config)["auto"]["source"] == "configuration"


def main():
    runner = Runner("calibrate")
    with Upstream() as upstream, tempfile.TemporaryDirectory() as folder:
        config, data = os.path.join(folder, "station.yaml"), os.path.join(folder, "data")
        with open(config, "w", encoding="utf-8") as file:
            file.write(station_configuration(upstream))
        with Station(station_configuration(upstream), data=data) as station:
            world = World(station, data, config)
            for check in (nothing_is_known_at_first, verdicts_are_kept, to_a_quality, to_a_spend, what_cannot_be_had_changes_nothing):
                runner.run(check.__name__, lambda: check(world))
        runner.run("a_new_station_keeps_to_it", lambda: a_new_station_keeps_to_it_and_deleting_undoes_it(world, upstream))
    runner.finish()


if __name__ == "__main__":
    main()
