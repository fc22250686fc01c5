#!/usr/bin/env python3
"""A PostgreSQL of the tests' own: its programs found or fetched, its data in a temporary folder, nothing on the machine changed.

As a module: `with Server() as server: server.url, server.stop("immediate"), server.start(), server.kill()`; `Missing` says in
plain words why there can't be one. As a program it starts a server, prints its address in one line and stops the server when its
standard input ends; lines of it restart the server and are answered when that is done: `restart fast`, `restart immediate`,
`restart kill`, `stop`, `start`. Programs are taken from /usr/lib/postgresql, or fetched as Debian packages that are
unpacked (never installed) into build/e2e/postgres. The server listens on a socket in its folder alone, as an unprivileged user.
"""
import glob
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
FETCHED = os.path.join(ROOT, "build", "e2e", "postgres")
PACKAGES = ["postgresql-15", "postgresql-client-15", "libpq5", "libldap-2.5-0", "libxml2", "libicu72"]
START_S, STOP_S, FETCH_S = 60, 60, 180


class Missing(Exception):
    """There can be no server here; the text says why."""


def newest(pattern):
    found = sorted(glob.glob(pattern), key=lambda path: [int(n) for n in path.split("/") if n.isdigit()][-1:])
    return found[-1] if found else None


def fetch():
    """Debian's packages, unpacked into build/e2e/postgres."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Missing("PostgreSQL is not installed, and there is no apt-get to fetch it with")
    packages = os.path.join(FETCHED, "packages")
    os.makedirs(packages, exist_ok=True)
    try:
        subprocess.run(["apt-get", "download", *PACKAGES], cwd=packages, check=True, timeout=FETCH_S, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        for package in glob.glob(os.path.join(packages, "*.deb")):
            subprocess.run(["dpkg-deb", "-x", package, FETCHED], check=True, timeout=FETCH_S)
    except (subprocess.SubprocessError, OSError):
        raise Missing("PostgreSQL is not installed, and apt-get cannot fetch its packages") from None


def programs():
    """The folder of initdb and postgres, and the environment that they need."""
    found = newest("/usr/lib/postgresql/*/bin/postgres")
    if not found and not newest(FETCHED + "/usr/lib/postgresql/*/bin/postgres"):
        fetch()
    environment = dict(os.environ, LC_ALL="C", TZ="UTC")
    if not found:
        found = newest(FETCHED + "/usr/lib/postgresql/*/bin/postgres")
        libraries = glob.glob(FETCHED + "/usr/lib/*-linux-gnu*")
        environment["LD_LIBRARY_PATH"] = ":".join(libraries)
    if not found:
        raise Missing("the fetched packages hold no PostgreSQL")
    if subprocess.run([found, "--version"], env=environment, capture_output=True).returncode:
        raise Missing("a library that PostgreSQL needs is missing (ldd " + found + ")")
    return os.path.dirname(found), environment


def runner():
    """The words before a command, and the user's ids, that make it run unprivileged: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return [], None
    user = pwd.getpwnam("nobody")
    if shutil.which("setpriv"):
        return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"], user
    if shutil.which("runuser"):
        return ["runuser", "-u", "nobody", "--"], user
    raise Missing("PostgreSQL does not run as root, and there is neither setpriv nor runuser")


class Server:
    def __init__(self):
        self.folder, self.process = None, None
        self.bin, self.environment = programs()
        self.before, user = runner()
        self.folder = tempfile.mkdtemp(prefix="pharos-pg-")
        self.data = os.path.join(self.folder, "data")
        if user:
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        try:
            made = self.call("initdb", "-D", self.data, "-U", "pharos", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
            if made.returncode:
                raise Missing("initdb failed: " + made.stderr.strip().split("\n")[-1])
            self.start()
        except BaseException:
            self.close()
            raise

    url = property(lambda self: f"postgresql://pharos@/postgres?host={self.folder}")

    def call(self, program, *arguments):
        return subprocess.run([*self.before, os.path.join(self.bin, program), *arguments], cwd=self.folder, env=self.environment,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_S)

    def sql(self, text):
        """What psql prints for it."""
        done = subprocess.run([os.path.join(self.bin, "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", text, self.url],
                              env=self.environment, capture_output=True, text=True, timeout=START_S)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return done.stdout.strip()

    def start(self):
        """Again and again for a while: sessions of one that was killed hold its memory until they have noticed."""
        until = time.monotonic() + START_S
        while not self.starts(until):
            if time.monotonic() > until:
                raise Missing("the server does not start; its last words: " + self.log().strip().split("\n")[-1])
            time.sleep(0.2)

    def starts(self, until):
        with open(os.path.join(self.folder, "log"), "ab") as log:
            self.process = subprocess.Popen(
                [*self.before, os.path.join(self.bin, "postgres"), "-D", self.data, "-k", self.folder, "-c", "listen_addresses=",
                 "-c", "max_connections=50"], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True)
        while self.call("pg_isready", "-q", "-h", self.folder, "-U", "pharos").returncode:
            if self.process.poll() is not None or time.monotonic() > until:
                return False
            time.sleep(0.05)
        return self.process.poll() is None

    def log(self):
        with open(os.path.join(self.folder, "log"), encoding="utf-8", errors="replace") as file:
            return file.read()

    def stop(self, mode="fast"):
        """"fast" ends every session and folds the log in; "immediate" leaves it to be recovered from."""
        if self.process and self.process.poll() is None:
            self.process.send_signal({"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
            self.process.wait(STOP_S)

    def restart(self, mode="fast"):
        self.stop(mode)
        self.start()

    def kill(self):
        """The server and all its processes, at once, as the machine would with no memory left."""
        pids = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True).stdout.split()
        self.process.kill()
        for pid in pids:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait(STOP_S)

    def close(self):
        try:
            self.stop("immediate")
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.close()


def obey(server, verb, how="fast"):
    if verb in ("restart", "stop"):
        server.kill() if how == "kill" else server.stop(how)
    if verb in ("restart", "start"):
        server.start()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with Server() as server:
            print(server.url, flush=True)
            for line in sys.stdin:
                obey(server, *line.split())
                print("done", flush=True)
    except Missing as why:
        print(f"SKIP: {why}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
