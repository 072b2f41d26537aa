"""Replays in other processes, each with a PYTHONHASHSEED of its own.

Knows: how a class is named, and how a fresh interpreter finds it again. Must not know: what is compared.

Invariants
- A process is started afresh, finds modules where this one does, and is gone when its answer is here, or when
  its time is over.
- Where a machine cannot be had in another process, that is said, and is no failure.
"""

from __future__ import annotations

import importlib.util
import io
import os
import pickle
import runpy
import subprocess
import sys
import tempfile
import types
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from craft.testing.replays import Examined, Factory, Recording, examine

SECONDS_MAX = 120.0
"""Of real time, for one process. Replays take seconds; this only ends one that hangs."""

STDERR_TOLD = 300
"""The last characters of what a process that died had to say."""

SCRIPT = "__mp_main__"
"""What a script is called that is imported in another process, as multiprocessing calls it: so what stands
below `if __name__ == "__main__":` is not run."""

PROGRAM = """\
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from craft.testing.elsewhere import serve
serve()
"""

LOCAL = "it is defined inside a function, or is a lambda: define it at the top level of a module"
INTERACTIVE = "it is defined in an interactive session: put it into a file"
UNGUARDED = "importing the script calls simulate() again: put that below `if __name__ == '__main__':`"


class NotElsewhere(Exception):
    """The machine cannot be had in another process; the message says why."""


@dataclass(frozen=True)
class Luggage:
    """A factory by its name, and where its modules are."""

    packed: bytes
    files: Mapping[str, str]
    """Of modules that may not be importable by name."""
    script: str | None = None
    """The running script, where the factory is from there."""
    script_module: str | None = None


@dataclass(frozen=True)
class Task:
    """What a process does; `checks`: none for the plain replay alone."""

    luggage: Luggage
    recordings: Sequence[Recording]
    checks: Collection[str] = ()


# -- here ------------------------------------------------------------------------------------------


class _Names(pickle.Unpickler):
    """Unpickles, and notes the modules that it meets."""

    def __init__(self, packed: bytes) -> None:
        super().__init__(io.BytesIO(packed))
        self.modules: set[str] = set()

    def find_class(self, module_name: str, global_name: str) -> Any:
        self.modules.add(module_name)
        return super().find_class(module_name, global_name)


def pack(factory: Factory) -> Luggage:
    """Put a factory into bytes. Raises NotElsewhere."""
    try:
        packed = pickle.dumps(factory)
        names = _Names(packed)
        names.load()
    except Exception as error:
        raise NotElsewhere(LOCAL) from error
    files = {}
    for name in sorted(names.modules - {"__main__"}):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None:
            files[name] = str(Path(file).absolute())
    if "__main__" not in names.modules:
        return Luggage(packed, files)
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is None and (file is None or not Path(file).exists()):
        raise NotElsewhere(INTERACTIVE)
    return Luggage(packed, files, file, None if spec is None else spec.name)


class _Process:
    """An interpreter with its task in a file, and its answer and its complaints in two others."""

    def __init__(self, files: ExitStack, hash_seed: str, task: Task) -> None:
        given, self._answer, self._complaints = _file(files), _file(files), _file(files)
        path = [entry or str(Path.cwd()) for entry in sys.path]
        given.write(pickle.dumps(path) + pickle.dumps(task))
        given.seek(0)
        self._process = subprocess.Popen(  # noqa: S603  # this interpreter, with a program of ours
            (sys.executable, "-c", PROGRAM),
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdin=given,
            stdout=self._answer,
            stderr=self._complaints,
        )

    def finish(self) -> Examined:
        """Its answer."""
        try:
            code = self._process.wait(SECONDS_MAX)
        except subprocess.TimeoutExpired:
            return Examined(left_out=f"a replay in another process took more than {SECONDS_MAX:g} s")
        if code != 0:
            said = _whole(self._complaints).decode(errors="replace").strip()[-STDERR_TOLD:]
            return Examined(left_out=f"another process ended with exit code {code}: {said}")
        answer: Examined = pickle.loads(_whole(self._answer))  # noqa: S301  # our own process wrote it
        return answer

    def end(self) -> None:
        """Nothing is left behind."""
        self._process.kill()
        self._process.wait()


def _file(files: ExitStack) -> IO[bytes]:
    return files.enter_context(tempfile.TemporaryFile())


def _whole(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def run(tasks: Sequence[tuple[str, Task]]) -> list[Examined]:
    """Run tasks at the same time, each in a process with this PYTHONHASHSEED."""
    with ExitStack() as files:
        processes = []
        for hash_seed, task in tasks:
            process = _Process(files, hash_seed, task)
            files.callback(process.end)
            processes.append(process)
        return [process.finish() for process in processes]


# -- there -----------------------------------------------------------------------------------------


class _Importing:
    """Is a script being imported, so that what it does at its top level is done once too often?"""

    now = False


def refuse_to_run_again() -> None:
    """Raises NotElsewhere in a process that is only importing the script."""
    if _Importing.now:
        raise NotElsewhere(UNGUARDED)


def unpack(luggage: Luggage) -> Factory:
    """The factory, its modules imported. Raises what importing them raises."""
    if luggage.script_module is not None or luggage.script is not None:
        _import_script(luggage)
    for name, file in luggage.files.items():
        if name not in sys.modules and not _importable(name):
            _import_file(name, file)
    factory: Factory = pickle.loads(luggage.packed)  # noqa: S301  # our own process wrote it
    return factory


def _import_script(luggage: Luggage) -> None:
    _Importing.now = True
    try:
        if luggage.script_module is not None:
            names = runpy.run_module(luggage.script_module, run_name=SCRIPT, alter_sys=True)
        else:
            names = runpy.run_path(str(luggage.script), run_name=SCRIPT)
    finally:
        _Importing.now = False
    module = types.ModuleType(SCRIPT)
    module.__dict__.update(names)
    sys.modules["__main__"] = sys.modules[SCRIPT] = module


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _import_file(name: str, file: str) -> None:
    """As pytest does with tests that are in no package."""
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {name} from {file}")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def _answer(task: Task) -> Examined:
    try:
        factory = unpack(task.luggage)
    except NotElsewhere as error:
        return Examined(left_out=str(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever a user's module raises
        return Examined(left_out=f"importing it in another process raised {error!r}")
    return examine(factory, task.recordings, checks=task.checks)


def serve() -> None:
    """The whole life of such a process. What the user's code prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    task: Task = pickle.load(sys.stdin.buffer)  # noqa: S301  # our own process wrote it
    with answers:
        answers.write(pickle.dumps(_answer(task)))
