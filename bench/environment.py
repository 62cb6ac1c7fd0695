"""The bench's own environment: pinned packages, builds of fastasgi, the floor, Node's driver, a certificate.

Nothing of it touches the checkout: sources are copied and built inside.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from bench import processes
from bench.errors import BenchError, UsageError
from bench.servers import SERVERS, Place

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
REQUIREMENTS = HERE / "requirements.txt"
# What the load generator, the applications, the codecs' benchmarks and a build of fastasgi need. The servers
# name their own.
LOAD_PACKAGES = ("locust", "gevent", "hpack")
APP_PACKAGES = ("starlette", "fastapi", "jinja2", "asyncpg")
MICRO_PACKAGES = ("httptools", "h11", "websockets", "wsproto", "gunicorn_h1c")
BUILD_PACKAGES = ("Cython", "setuptools", "click")
BASE_PACKAGES = (*LOAD_PACKAGES, *APP_PACKAGES, *MICRO_PACKAGES, *BUILD_PACKAGES)
LOCK = "lock"
SOURCES = ("fastasgi", "setup.py", "pyproject.toml", "README.md", "LICENSE")


class Environment:
    """A folder with a virtual environment and what else the turns need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.programs = self.folder / "bin"
        self.python = self.programs / "python"
        self.floor = self.folder / "floor"
        self.key = self.folder / "key.pem"
        self.certificate = self.folder / "certificate.pem"
        self.node_modules = self.folder / "node" / "node_modules"
        self.generator = (str(self.python), "-m", "bench.generator")
        """The command of a load generator."""
        self.peaks = (str(self.python), "-m", "bench.peaks")
        """The command of the load generator for peaks."""
        self.h2load = (str(self.python), "-m", "bench.h2load")
        """The command of the load generator that is h2load."""
        self.notes: list[str] = []
        """What could not be installed, in a line each. The servers that need it are reported as missing."""

    def place(self, port: int, uds: Path) -> Place:
        """Where a turn on this port, or this path for a Unix socket, happens."""
        node = shutil.which("node") or ""
        return Place(port, uds, self.programs, self.floor, node, self.key, self.certificate)

    def prepare(self) -> None:
        """Make, or bring up to date, everything but the builds of fastasgi. Raises BenchError.

        The environment is this process's until it ends: another bench would change what this one measures.
        """
        self._lock()
        self._install_packages()
        self._build_floor()
        self._install_node_driver()
        self._make_certificate()

    def _lock(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if any(self.folder.iterdir()) and not (self.folder / LOCK).exists():
                # Parts of it are removed in time: that must never be a user's own folder.
                reason = "it holds other files; choose a new folder, or an empty one"
                raise UsageError(f"--environment {self.folder}: {reason}")
            self._locked = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT)
            fcntl.flock(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"--environment {self.folder}: another bench uses it; choose another folder"
            ) from None
        except OSError as error:
            raise UsageError(
                f"--environment {self.folder}: {error.strerror}; choose another folder"
            ) from None

    def _install_packages(self) -> None:
        stamp = self.folder / "installed.txt"
        installed = stamp.read_text() if stamp.exists() else ""
        interpreter = self._interpreter()
        if not interpreter or (installed and not installed.startswith(interpreter)):
            # All that was installed and built was for another interpreter.
            for path in self.folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != LOCK:
                    path.unlink()
            self._run([sys.executable, "-m", "venv", str(self.folder)], "making the environment")
            installed, interpreter = "", self._interpreter()
        servers = sorted({package for server in SERVERS.values() for package in server.packages})
        wanted = interpreter + REQUIREMENTS.read_text() + "\n".join([*BASE_PACKAGES, *servers])
        if installed == wanted:
            return
        print("bench: installing the pinned servers and tools", flush=True)
        try:
            self._pip(*BASE_PACKAGES, *servers)
        except BenchError:
            # One that can't be had here must not keep the others out.
            self._pip(*BASE_PACKAGES)
            for server in SERVERS.values():
                try:
                    self._pip(*server.packages)
                except BenchError as error:
                    self.notes.append(f"{server.title} is missing: {error}")
            return
        stamp.write_text(wanted)

    def _interpreter(self) -> str:
        """A line with the version and path of the environment's interpreter.

        It is empty if the interpreter doesn't run, because its Python was removed, or has no pip, because an
        interrupt left the environment half made.
        """
        code = "import pip, os, sys; print(*sys.version_info, os.path.realpath(sys.executable), sys.prefix)"
        try:
            return self._run([str(self.python), "-c", code], "the environment's Python")
        except BenchError:
            return ""

    def _pip(self, *arguments: str) -> None:
        if arguments:
            pip = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            self._run([*pip, "-c", str(REQUIREMENTS), *arguments], "pip install")

    def _build_floor(self) -> None:
        source = HERE / "floor.c"
        if self.floor.exists() and self.floor.stat().st_mtime > source.stat().st_mtime:
            return
        try:
            self._run(
                [os.environ.get("CC", "cc"), "-O2", str(source), "-o", str(self.floor)],
                "building bench/floor.c",
            )
        except BenchError as error:
            self.notes.append(f"C epoll floor is missing: {error}")

    def _install_node_driver(self) -> None:
        folder = self.node_modules.parent
        names = ("package.json", "package-lock.json")
        stamp = folder / "installed.txt"
        wanted = "".join((HERE / name).read_text() for name in names)
        if not shutil.which("node") or (stamp.exists() and stamp.read_text() == wanted):
            return
        folder.mkdir(exist_ok=True)
        for name in names:
            shutil.copyfile(HERE / name, folder / name)
        try:
            self._run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], "npm ci", cwd=folder)
        except BenchError as error:
            self.notes.append(f"Node has no PostgreSQL driver: {error}")
        else:
            stamp.write_text(wanted)

    def _make_certificate(self) -> None:
        if self.certificate.exists():
            return
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        command += ["-nodes", "-days", "3650", "-subj", "/CN=localhost"]
        command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        command += ["-keyout", str(self.key), "-out", str(self.certificate)]
        try:
            self._run(command, "making a certificate")
        except BenchError as error:
            self.notes.append(f"no TLS: {error}")

    def python_version(self) -> str:
        """The version of the environment's interpreter, which the servers run on."""
        code = "import platform; print(platform.python_version())"
        return self._run([str(self.python), "-c", code], "the environment's Python").strip()

    def versions(self) -> dict[str, str]:
        """The installed distributions and their versions, Node's and PostgreSQL's if they are there."""
        listed = self._run([str(self.python), "-m", "pip", "list", "--format", "json"], "pip list")
        found = {
            package["name"].lower().replace("_", "-"): package["version"] for package in json.loads(listed)
        }
        for name, command in (("node", ["node", "--version"]), ("postgresql", ["psql", "--version"])):
            if shutil.which(command[0]):
                number = re.search(r"\d+\.\d+(\.\d+)?", self._run(command, name))
                found[name] = number[0] if number else "unknown"
        return found

    def build_working_tree(self) -> Path:
        """Build fastasgi as it stands in the checkout; the folder to put on PYTHONPATH. Raises BenchError."""
        sources = self.folder / "sources"
        digest = hashlib.sha256()
        wanted = set()
        for path in _source_files(ROOT):
            data = path.read_bytes()
            relative = path.relative_to(ROOT)
            wanted.add(relative)
            digest.update(f"{relative} {len(data)}\n".encode() + data)
            copy = sources / relative
            # What hasn't changed keeps its time, so that only what changed is compiled.
            if not copy.exists() or copy.read_bytes() != data:
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(data)
        for path in list(_source_files(sources)):
            if path.relative_to(sources) not in wanted:
                path.unlink()
        return self._build(sources, self.folder / "builds" / "working-tree", digest.hexdigest())

    def build_revision(self, revision: str) -> Path:
        """Build fastasgi as it was committed at `revision`, of the sources it had then. Raises BenchError."""
        self._run(["git", "rev-parse", "--git-dir"], "git", cwd=ROOT)
        try:
            commit = ["--end-of-options", f"{revision}^{{commit}}"]
            name = self._run(["git", "rev-parse", "--verify", "--quiet", *commit], "git", cwd=ROOT)
        except BenchError:
            raise UsageError(f"there is no commit {revision!r}; choose one that git log names") from None
        name = name.strip()
        listed = self._run(["git", "ls-tree", "--name-only", name, *SOURCES], "git ls-tree", cwd=ROOT)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            archive = Path(folder) / "sources.tar"
            self._run(["git", "archive", "-o", str(archive), name, *listed.split()], "git archive", cwd=ROOT)
            sources = Path(folder) / "sources"
            with tarfile.open(archive) as opened:
                opened.extractall(sources, filter="data")
            return self._build(sources, self.folder / "builds" / name, name)

    def _build(self, sources: Path, build: Path, stamp: str) -> Path:
        """Build what isn't built yet under this stamp."""
        note = build / "stamp.txt"
        if note.exists() and note.read_text() == stamp:
            return build
        print(f"bench: building fastasgi ({build.name})", flush=True)
        shutil.rmtree(build, ignore_errors=True)
        pip = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pip += ["--no-deps", "--no-build-isolation", "--target", str(build), str(sources)]
        self._run(pip, "building fastasgi")
        note.write_text(stamp)
        return build

    def _run(self, command: list[str], what: str, cwd: Path | None = None) -> str:
        """Run a command; its output. Raises BenchError with the line of its stderr that says most: the first
        error that pip names, whose last line is advice, else the last.

        Its temporary files are the environment's, so that none is left if it is interrupted.
        """
        scratch = self.folder / "tmp"
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            scratch.mkdir(parents=True)
            done = processes.run(command, cwd=cwd, env={**os.environ, "TMPDIR": str(scratch)})
        except OSError as error:
            raise BenchError(f"{what}: {error.filename or command[0]}: {error.strerror}") from None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or [
                f"exit code {done.returncode}"
            ]
            errors = [line for line in lines if line.startswith("ERROR:")]
            raise BenchError(f"{what}: {(errors or lines[-1:])[0].strip()}")
        return done.stdout


def _source_files(root: Path) -> list[Path]:
    """The files that fastasgi is built of."""
    files = [root / name for name in SOURCES if (root / name).is_file()]
    files += [path for path in (root / "fastasgi").rglob("*") if path.is_file()]
    return sorted(path for path in files if path.suffix not in (".so", ".pyc"))
