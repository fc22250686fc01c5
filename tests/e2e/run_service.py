#!/usr/bin/env python3
"""A station as a service: what it gives up before it serves anybody, what it tells who started it, how it is asked whether it lives."""
import os
import pwd
import re
import signal
import socket
import stat
import subprocess
import tempfile

from station import PHAROS, Runner, Station

runner = Runner("service")
IS_ROOT = os.geteuid() == 0
SANITIZED = b"__asan_init" in open(PHAROS, "rb").read()
CONFIG = "listen: 127.0.0.1:{port}\nmodels: [{{id: elsewhere, provider: none}}]\n" \
         "providers: {{none: {{api: openai, base_url: http://127.0.0.1:1/v1, key: none}}}}\n"


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return dict(line.split(":", 1) for line in file.read().split("\n") if ":" in line)


def threads(pid):
    return [status_of(f"{pid}/task/{thread}") for thread in os.listdir(f"/proc/{pid}/task")]


OWN_OF_ROOT = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: everybody's files


def is_bare(found):
    own = OWN_OF_ROOT if IS_ROOT else 0
    return found["NoNewPrivs"].strip() == "1" and found["Seccomp"].strip() == "2" and found["Umask"].strip() == "0077" and \
        all(int(found[name], 16) == (own if name in ("CapPrm", "CapEff") else 0) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"))


def every_thread_gave_up_what_it_does_not_need():
    with Station(CONFIG.format(port=0)) as station:
        found = threads(station.process.pid)
        assert len(found) > 1 and all(is_bare(thread) for thread in found), found
        with open(f"/proc/{station.process.pid}/limits", encoding="ascii") as file:
            assert re.search(r"Max core file size +0 +0 ", file.read())
        if IS_ROOT:
            assert int(found[0]["CapBnd"], 16) == OWN_OF_ROOT, found[0]
        if not SANITIZED and IS_ROOT:  # nobody but the superuser may look into its memory
            assert os.stat(f"/proc/{station.process.pid}/mem").st_uid == 0


def rights_are_kept_where_that_is_asked_for():
    with Station(CONFIG.format(port=0) + "keep_rights: true\n") as station:
        found = status_of(station.process.pid)
        assert found["NoNewPrivs"].strip() == "0" and found["Seccomp"].strip() == "0", found


def the_superuser_becomes_the_owner_of_the_data():
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        os.chmod(folder, 0o711)
        data = os.path.join(folder, "data")
        os.mkdir(data, 0o700)
        os.chown(data, nobody.pw_uid, nobody.pw_gid)
        low = next(port for port in range(1023, 600, -1) if free.connect_ex(("127.0.0.1", port)))
        for port in (0, low):
            with Station(CONFIG.format(port=port), data=data) as station:
                found = status_of(station.process.pid)
                assert set(found["Uid"].split()) == {str(nobody.pw_uid)} and set(found["Gid"].split()) == {str(nobody.pw_gid)}
                assert "0" not in found["Groups"].split(), found["Groups"]
                assert int(found["CapEff"], 16) == (1 << 10 if port else 0), found["CapEff"]  # that of low ports alone
                assert station.request("GET", "/health").status == 200
        for path, _, names in os.walk(data):
            for name in names:
                found = os.stat(os.path.join(path, name))
                assert found.st_uid == nobody.pw_uid and not stat.S_IMODE(found.st_mode) & 0o077, (path, name, found)


def refused_calls_are_refused_to_engines_too():
    if subprocess.run(["unshare", "-U", "true"], capture_output=True).returncode:
        print("SKIP: a call that is refused to engines: this machine refuses it to everybody")
        return
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out")
        config = f"""
listen: 127.0.0.1:0
models: [{{id: engine, command: "sh -c 'unshare -U true; echo $? > {out}; sleep 60' {{port}}", api: openai, start_timeout_s: 2}}]
"""
        with Station(config, ready=False) as station:
            station.request("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})
        with open(out, encoding="ascii") as file:
            assert file.read().strip() == "1"


class Manager:
    """The socket that a service manager listens on."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(60)

    def hears(self):
        return self.socket.recv(4096).decode()


def a_service_manager_hears_of_it():
    manager = Manager()
    os.environ.update(NOTIFY_SOCKET=manager.path, WATCHDOG_USEC="100000")
    try:
        with Station(CONFIG.format(port=0)) as station:
            assert manager.hears() == "READY=1"
            assert [manager.hears() for _ in range(5)] == ["WATCHDOG=1"] * 5
            station.signal()
            while (heard := manager.hears()) == "WATCHDOG=1":
                pass
            assert heard == "STOPPING=1" and station.wait() == 0, heard
    finally:
        del os.environ["NOTIFY_SOCKET"], os.environ["WATCHDOG_USEC"]


def a_wrong_address_of_a_manager_is_no_matter():
    for path in ("relative", "/nowhere/notify", "@", "/" + "x" * 200):
        os.environ["NOTIFY_SOCKET"] = path
        try:
            with Station(CONFIG.format(port=0)) as station:
                assert station.request("GET", "/health").status == 200
        finally:
            del os.environ["NOTIFY_SOCKET"]


def health(*arguments):
    return subprocess.run([PHAROS, "health", *arguments], capture_output=True, text=True, timeout=60)


def health_says_whether_it_can_answer():
    with Station(CONFIG.format(port=0)) as station:
        done = health("--url", station.url)
        assert (done.returncode, done.stdout) == (0, f"{station.url} is ready\n"), done
        done = health("--url", station.url, "--alive", "--json")
        assert done.returncode == 0 and done.stdout.startswith("{"), done
        station.signal(signal.SIGSTOP)  # it hangs
        done = health("--url", station.url, "--timeout", "0.3")
        station.signal(signal.SIGCONT)
        assert done.returncode == 1 and "does not answer" in done.stderr, done
    done = health("--url", station.url)
    assert done.returncode == 1 and "does not answer" in done.stderr, done
    assert health("--timeout", "0").returncode == 2


def open_data_is_refused():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        config = os.path.join(folder, "station.yaml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(CONFIG.format(port=0))
        done = subprocess.run([PHAROS, "serve", "--config", config, "--data", folder], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and folder in done.stderr and "chmod" in done.stderr, done


runner.run("every thread gave up what it does not need", every_thread_gave_up_what_it_does_not_need)
runner.run("rights are kept where that is asked for", rights_are_kept_where_that_is_asked_for)
runner.run("refused calls are refused to engines too", refused_calls_are_refused_to_engines_too)
runner.run("a service manager hears of it", a_service_manager_hears_of_it)
runner.run("a wrong address of a manager is no matter", a_wrong_address_of_a_manager_is_no_matter)
runner.run("health says whether it can answer", health_says_whether_it_can_answer)
runner.run("open data is refused", open_data_is_refused)
if IS_ROOT:
    runner.run("the superuser becomes the owner of the data", the_superuser_becomes_the_owner_of_the_data)
else:
    print("SKIP: a station that is started by the superuser: this is not one")
runner.finish()
