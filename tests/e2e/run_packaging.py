#!/usr/bin/env python3
"""What is shipped to run the station with: systemd's files judged by systemd, compose files by their schema and by our own rules, the
Debian package installed, used, removed and purged on a copy of this machine that is thrown away.

The copy is an overlay over this machine's root in a mount namespace, so the package meets a whole system and what it leaves behind
is in plain sight: the upper layer.
"""
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

from station import HERE, PHAROS, Runner

ROOT = os.path.abspath(os.path.join(HERE, "..", ".."))
SYSTEMD = os.path.join(ROOT, "deploy", "systemd")
COMPOSE_SCHEMA = "docker-compose==1.29.2"  # its wheel has the schema of the compose specification; nothing of it is run
EXPOSURE_MAX = {"pharos.service": 1.5, "pharos-backup.service": 1.5, "pharos-verify.service": 1.5, "pharos-engine@.service": 2.0}
MAY_STAY = re.compile(r"/(etc/(passwd|group|shadow|gshadow|subuid|subgid)-?|etc/\.pwd\.lock|etc/\.updated|"
                      r"var/(lib/dpkg|log|cache|lib/systemd)/.*|run/.*|tmp/.*|root/.*)$")

sys.path += glob.glob(os.path.join(ROOT, "build", "e2e", "venv", "lib", "python3*", "site-packages"))
runner = Runner("packaging")


def call(*command, **more):
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **more)


def skip(what):
    print(f"SKIP: {what}", flush=True)


# ---- systemd

def units_keep_their_promises():
    for unit, most in EXPOSURE_MAX.items():
        done = call("systemd-analyze", "security", "--offline=true", "--no-pager", os.path.join(SYSTEMD, unit))
        level = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout).group(1))
        print(f"exposure of {unit}: {level}")
        assert level <= most, (unit, level)


def units_are_understood():
    with tempfile.TemporaryDirectory() as folder:
        for path in glob.glob(SYSTEMD + "/pharos*"):
            with open(path, encoding="utf-8") as file:
                text = re.sub(r"man:\S+", "", file.read()).replace("/usr/bin/pharos", PHAROS).replace("Documentation= ", "")
            with open(os.path.join(folder, os.path.basename(path).replace("@.", "@x.")), "w", encoding="utf-8") as file:
                file.write(re.sub(r"^Documentation=.*\n", "", text, flags=re.M))
        done = call("systemd-analyze", "verify", "--man=no", *sorted(glob.glob(folder + "/*")))
        ours = [line for line in done.stderr.splitlines() if "pharos" in line]
        assert not ours, ours


def the_commands_of_units_are_commands():
    for path in glob.glob(SYSTEMD + "/*.service"):
        with open(path, encoding="utf-8") as file:
            for words, options in re.findall(r"^ExecStart=/usr/bin/pharos ((?:[a-z]+ )+)(.*)$", file.read(), re.M):
                said = call(PHAROS, *words.split(), "--help")
                assert said.returncode == 0, (path, words)
                for option in re.findall(r"--[a-z-]+", options):
                    assert f"  {option} " in said.stdout, (path, words, option)


def users_and_folders_are_made():
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(os.path.join(folder, "etc"))
        done = call("systemd-sysusers", "--root=" + folder, os.path.join(SYSTEMD, "sysusers.conf"))
        assert done.returncode == 0, done.stderr
        with open(os.path.join(folder, "etc", "passwd"), encoding="ascii") as file:
            users = re.findall(r"^(pharos[a-z-]*):.*:(\S+)$", file.read(), re.M)
        assert users == [("pharos", "/usr/sbin/nologin"), ("pharos-engine", "/usr/sbin/nologin")], users
        if os.geteuid() == 0:
            done = call("systemd-tmpfiles", "--create", "--root=" + folder, os.path.join(SYSTEMD, "tmpfiles.conf"))
            assert done.returncode == 0, done.stderr
            for name in ("var/lib/pharos", "etc/pharos/secrets", "var/backups/pharos"):
                assert os.stat(os.path.join(folder, name)).st_mode & 0o777 == 0o700, name


# ---- Compose

def compose_schema():
    """None: it cannot be had."""
    folder = os.path.join(ROOT, "build", "e2e", "compose")
    path = os.path.join(folder, "compose", "config", "compose_spec.json")
    if not os.path.exists(path):
        call(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--timeout", "30", "--retries", "1", "--target", folder,
             COMPOSE_SCHEMA)
    return path if os.path.exists(path) else None


def load(path):
    import yaml
    with open(path, encoding="utf-8") as file:
        return yaml.safe_load(file)


def compose_files_fit_the_specification():
    import json
    import jsonschema
    with open(compose_schema(), encoding="utf-8") as file:
        schema = json.load(file)
    # What the specification has had since: a name for the project.
    schema["properties"]["name"] = {"type": "string"}
    for path in sorted(glob.glob(ROOT + "/deploy/compose*.yaml")):
        errors = [f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
                  for error in jsonschema.Draft7Validator(schema).iter_errors(load(path))]
        assert not errors, (path, errors)


def compose_services_are_locked_up():
    for path in sorted(glob.glob(ROOT + "/deploy/compose*.yaml")):
        project = load(path)
        for name, service in project["services"].items():
            where = (path, name)
            assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], where
            assert service["read_only"] is True and service["mem_limit"] and service["pids_limit"], where
            assert service["healthcheck"]["test"] and service["restart"] == "unless-stopped", where
            assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), where
            assert "privileged" not in service and service.get("network_mode") != "host", where
            assert not any("PASSWORD" in key.upper() and not key.endswith("_FILE") for key in service.get("environment", {})), where
            if name == "pharos":
                assert service["user"].split(":")[0] not in ("0", "root") and service["healthcheck"]["test"][1] == "/usr/bin/pharos", where
            else:
                assert "ports" not in service and service["networks"] == ["back"], where
        if "networks" in project:
            assert project["networks"]["back"]["internal"] is True
    assert load(ROOT + "/deploy/compose.production.yaml")["services"]["hybrid"]["profiles"] == ["hybrid"]


def shipped_configurations_are_read():
    """By the program itself: it goes on to what only a running station has."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("station.yaml", "station.production.yaml"):
            with open(os.path.join(ROOT, "deploy", name), encoding="utf-8") as file:
                text = file.read().replace("/usr/share/pharos", ROOT).replace("file:/run/secrets/redis_password", "x")
            path = os.path.join(folder, name)
            with open(path, "w", encoding="utf-8") as file:
                file.write(re.sub(r"^listen: .*", "listen: 127.0.0.1:0", text, flags=re.M))
            with subprocess.Popen([PHAROS, "serve", "--config", path, "--data", folder + "/data"], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True) as process:
                line = process.stdout.readline()
                process.terminate()
                assert line.startswith("Pharos "), (name, process.communicate(timeout=60))


def the_image_is_made_of_what_is_there():
    with open(ROOT + "/deploy/Dockerfile", encoding="utf-8") as file:
        text = file.read().replace("\\\n", " ")
    sources = re.findall(r"^COPY (?!--from)(\S+) ", text, re.M)
    for source in sources:
        assert os.path.exists(os.path.join(ROOT, source)), source
    for path in glob.glob(ROOT + "/src/*/*.c"):  # what the compiler reads besides
        with open(path, encoding="utf-8") as file:
            for included in re.findall(r'\.incbin \\"([^"\\]+)', file.read()):
                assert any(included == source or included.startswith(source + "/") for source in sources), (path, included)
    assert re.search(r"^USER 65532:65532$", text, re.M)
    packages = [name for line in re.findall(r"apt-get install -y --no-install-recommends ([^&\n]*)", text) for name in line.split()]
    unknown = [name for name in packages if not call("apt-cache", "policy", name).stdout]
    assert packages and not unknown, unknown


# ---- The Debian package

def in_copy(folder, script, package=os.devnull):
    """Runs a script in a copy of this machine, with the package in /tmp; what it changed is under folder/upper."""
    for name in ("upper", "work", "root"):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    return call("unshare", "--mount", "sh", "-ec", f"""
mount -t overlay overlay -o lowerdir=/,upperdir={folder}/upper,workdir={folder}/work {folder}/root
cp {package} {folder}/root/tmp/pharos.deb
mount -t proc proc {folder}/root/proc
mount -t devtmpfs dev {folder}/root/dev 2>/dev/null || mount --bind /dev {folder}/root/dev
exec chroot {folder}/root sh -ec '{script}'""")


def leftovers(folder):
    upper = os.path.join(folder, "upper")
    found = [os.path.join(path, name)[len(upper):] for path, _, names in os.walk(upper) for name in names]
    return [path for path in found if not MAY_STAY.match(path)]


class Disk:
    """A file system in memory: an overlay cannot lie over an overlay, which is what a container has."""

    def __enter__(self):
        self.folder = tempfile.mkdtemp()
        if os.geteuid() or call("mount", "-t", "tmpfs", "none", self.folder).returncode:
            os.rmdir(self.folder)
            raise OSError("no file system can be mounted here")
        return self.folder

    def __exit__(self, *failure):
        call("umount", self.folder)
        os.rmdir(self.folder)


def make_package(folder):
    made = call(os.path.join(ROOT, "scripts", "make-deb"), PHAROS, os.path.join(folder, "pharos.deb"), cwd=ROOT)
    assert made.returncode == 0, made.stderr
    return os.path.join(folder, "pharos.deb")


INSTALL_AND_REMOVE = """
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
dpkg -i /tmp/pharos.deb
test -z "$(dpkg -V pharos)"
test "$(stat -c "%U %a" /var/lib/pharos /etc/pharos/secrets | tr "\\n" " ")" = "pharos 700 root 700 "
/usr/bin/pharos --version
zcat /usr/share/man/man1/pharos-serve.1.gz | grep -q SYNOPSIS
bash -n /usr/share/bash-completion/completions/pharos
/usr/bin/pharos complete --model /usr/share/pharos/models/default.gguf --prompt Once -n 2 >/dev/null
sed -i "s/^listen: .*/listen: 127.0.0.1:0/" /etc/pharos/station.yaml
/usr/bin/pharos serve --config /etc/pharos/station.yaml --data /var/lib/pharos >/tmp/said 2>&1 &
trap "kill -KILL $!" EXIT
until grep -q listening /tmp/said; do kill -0 $!; sleep 0.05; done
test "$(ps -o user= -p $!)" = pharos
kill -KILL $!
trap - EXIT
dpkg -i /tmp/pharos.deb </dev/null
grep -q "listen: 127.0.0.1:0" /etc/pharos/station.yaml
dpkg -r pharos
test ! -e /usr/bin/pharos
test -e /etc/pharos/station.yaml
test -d /var/lib/pharos
rm -rf /var/lib/pharos/*
dpkg -P pharos
test ! -e /etc/pharos
test ! -e /var/lib/pharos
"""

PURGE_WITH_DATA = """
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
dpkg -i /tmp/pharos.deb
echo kept >/var/lib/pharos/store
dpkg -P pharos
cat /var/lib/pharos/store
"""


def a_package_is_installed_used_removed_and_purged():
    with Disk() as disk:
        done = in_copy(disk, INSTALL_AND_REMOVE, PACKAGE)
        assert done.returncode == 0, (done.stdout, done.stderr)
        assert not leftovers(disk), leftovers(disk)


def a_purge_leaves_what_cannot_be_made_again():
    with Disk() as disk:
        done = in_copy(disk, PURGE_WITH_DATA, PACKAGE)
        assert done.returncode == 0 and "kept" in done.stdout and "/var/lib/pharos holds" in done.stdout, (done.stdout, done.stderr)


def can_copy():
    try:
        with Disk() as disk:
            return in_copy(disk, "true").returncode == 0
    except OSError:
        return False


if b"__asan_init" in open(PHAROS, "rb").read():
    skip("what is shipped: this program is built with sanitizers, and that one is not")
    runner.finish()
if shutil.which("systemd-analyze"):
    runner.run("units keep their promises", units_keep_their_promises)
    runner.run("units are understood", units_are_understood)
    runner.run("users and folders are made", users_and_folders_are_made)
else:
    skip("systemd's own judgement: systemd is not here")
runner.run("the commands of units are commands", the_commands_of_units_are_commands)
runner.run("the image is made of what is there", the_image_is_made_of_what_is_there)
runner.run("shipped configurations are read", shipped_configurations_are_read)
try:
    import jsonschema
    import yaml
except ImportError:
    skip("compose files: pip cannot get PyYAML and jsonschema here")
else:
    runner.run("compose services are locked up", compose_services_are_locked_up)
    if compose_schema():
        runner.run("compose files fit the specification", compose_files_fit_the_specification)
    else:
        skip("compose files against their specification: pip cannot get it here")
if shutil.which("dpkg-shlibdeps") and can_copy():
    with tempfile.TemporaryDirectory() as folder:
        PACKAGE = make_package(folder)
        runner.run("a package is installed, used, removed and purged", a_package_is_installed_used_removed_and_purged)
        runner.run("a purge leaves what cannot be made again", a_purge_leaves_what_cannot_be_made_again)
else:
    skip("the Debian package: not the superuser of a machine with dpkg-dev that lets file systems be mounted")
runner.finish()
