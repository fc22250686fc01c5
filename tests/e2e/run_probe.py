#!/usr/bin/env python3
"""pharos bench probe and pharos monitor thermal as a user runs them: a made-up sysfs, a made-up NVML, the files they leave."""
import json
import os
import pathlib
import signal
import subprocess
import tempfile

from station import PHAROS, Runner

runner = Runner("probe")
NVML = os.path.abspath(os.environ.get("FAKE_NVML", os.path.join(os.path.dirname(PHAROS), "tests", "fake_nvml.so")))


def put(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def pharos(*arguments, **more):
    return subprocess.run([PHAROS, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False, **more)


def case_probe(folder):
    sysfs, data = folder / "sys", folder / "data"
    put(sysfs, "class/accel/accel0/device/vendor", "0x8086\n")
    put(sysfs, "class/accel/accel0/device/device", "0x643e\n")
    run = pharos("bench", "probe", "--quick", "--data", data, "--sysfs", sysfs, "--nvml", NVML, "--json")
    assert run.returncode == 0, run.stderr
    said, kept = json.loads(run.stdout), json.loads((data / "machine.json").read_text())
    assert said == kept, (said, kept)
    assert [d["kind"] for d in kept["devices"]] == ["gpu", "npu"], kept
    assert kept["devices"][0]["memory_bytes_per_s"] == 2619e6 * 2 * 5120 / 8, kept
    assert len(kept["memory_bytes_per_s"]) == kept["threads"] and min(kept["memory_bytes_per_s"]) > 0, kept
    assert kept["fsync_s"] > 0 and kept["disk_read_bytes_per_s"] > 0, kept
    assert sorted(os.listdir(data)) == ["machine.json"], os.listdir(data)
    table = pharos("bench", "probe", "--quick", "--data", data, "--sysfs", sysfs).stdout
    assert "NPU        Intel NPU 643e" in table and "uses the machine's memory" in table and "kept in" in table, table


def case_probe_wrong(folder):
    (folder / "file").write_text("x")
    run = pharos("bench", "probe", "--quick", "--data", folder / "file" / "below")
    assert run.returncode == 1 and run.stderr.count("\n") == 1, run
    run = pharos("bench", "probe", "--quick", "--data", folder / "d", "--nvml", "/nowhere/nvml.so")
    assert run.returncode == 0 and "NVIDIA's were not asked: /nowhere/nvml.so" in run.stdout, run
    assert pharos("bench", "probe", "--sysfs").returncode == 2


def case_monitor(folder):
    sysfs, csv = folder / "sys", folder / "heat.csv"
    sysfs.mkdir()
    run = pharos("monitor", "thermal", "--once", "--sysfs", sysfs)
    assert run.returncode == 0 and "no sensor" in run.stdout, run
    put(sysfs, "class/hwmon/hwmon0/name", "k10temp\n")
    put(sysfs, "class/hwmon/hwmon0/temp1_input", "91500\n")
    run = pharos("monitor", "thermal", "--once", "--sysfs", sysfs, "--nvml", NVML, "--csv", csv, "--json")
    seen = json.loads(run.stdout)
    assert [(s["part"], s["celsius"]) for s in seen["sensors"]] == [("gpu", 40), ("cpu", 91.5)], seen
    assert seen["levels"] == {"cpu": "hold", "gpu": "normal"}, seen
    lines = csv.read_text().splitlines()
    assert lines[0].startswith("time,part,sensor,celsius,") and len(lines) == 3, lines
    assert lines[2].split(",")[1:4] == ["cpu", '"k10temp"', "91.5"] and lines[2].endswith(",hold"), lines


def case_monitor_ends(folder):
    """Readings come one by one and Ctrl-C ends them well."""
    (folder / "sys").mkdir()
    with subprocess.Popen([PHAROS, "monitor", "thermal", "--interval", "0.1", "--json", "--sysfs", folder / "sys"],
                          stdout=subprocess.PIPE, text=True) as watching:
        for _ in range(3):
            assert json.loads(watching.stdout.readline())["sensors"] == []
        watching.send_signal(signal.SIGINT)
        watching.stdout.read()
        assert watching.wait(30) == 0


for case in (case_probe, case_probe_wrong, case_monitor, case_monitor_ends):
    with tempfile.TemporaryDirectory() as work:
        runner.run(case.__name__, lambda: case(pathlib.Path(work)))  # pylint: disable=cell-var-from-loop
runner.finish()
