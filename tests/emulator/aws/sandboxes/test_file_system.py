"""A function's files: its code, its layers and an empty, limited /tmp; an error where that is not available."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mount namespaces are Linux's")

CHILD = """
import ctypes, errno, json, os, sys, threading
from pathlib import Path
from emulator.aws.sandboxes.file_system import (
    _MS_BIND, _MS_REMOUNT, FilesUnavailableError, FunctionFiles, SharedFiles, _mount, covered, mount_files
)
uid, threads, task, opt, *keep = json.loads(sys.argv[1])
if uid is not None:
    os.setgid(uid)
    os.setuid(uid)
    # A change of the user hides /proc/self from the process itself.
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
if threads:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
try:
    kept = covered(Path(path) for path in keep)
    mount_files(FunctionFiles(1 << 20, Path(task), Path(opt) if opt else None, Path(sys.prefix), SharedFiles(), kept))
except FilesUnavailableError as error:
    print(json.dumps({"refused": str(error)}))
    sys.exit()
attempts = {
    "write": lambda: Path("/var/task/main.py").write_text("changed"),
    "create": lambda: Path("/var/task/other.py").touch(),
    "remove": lambda: Path("/var/task/main.py").unlink(),
    "mode": lambda: Path("/var/task/main.py").chmod(0o777),
    "folder": lambda: Path("/var/other").mkdir(),
    "layer": lambda: Path("/opt/new").touch(),
    "remount": lambda: _mount("none", "/var/task", None, _MS_BIND | _MS_REMOUNT),
    "mount": lambda: _mount("none", "/var/task", "tmpfs", 0),
    "fill": lambda: Path("/tmp/file").write_bytes(bytes(2 << 20)),
    "original": lambda: Path(task, "other.py").touch(),
}
answer = {
    "code": Path("/var/task/main.py").read_text(),
    "tmp": sorted(str(path) for path in Path("/tmp").rglob("*")),
    "opt": sorted(str(path) for path in Path("/opt").rglob("*")) if opt else [],
    "var": sorted(os.listdir("/var")),
    "python": Path("/var/lang/bin").is_dir(),
}
if keep:
    attempts["kept"] = lambda: Path(keep[0], "new").touch()
for name, attempt in attempts.items():
    try:
        attempt()
        answer[name] = "done"
    except OSError as error:
        answer[name] = errno.errorcode[error.errno]
print(json.dumps(answer))
"""


def isolated(uid: int | None, threads: bool, task: Path, opt: Path | None, *keep: Path) -> dict[str, Any]:
    order = json.dumps([uid, threads, str(task), opt and str(opt), *map(str, keep)])
    ended = subprocess.run([sys.executable, "-c", CHILD, order], capture_output=True, text=True, timeout=30)
    assert ended.returncode == 0, ended.stderr
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer


@pytest.mark.parametrize("uid", [None, 65534])
@pytest.mark.parametrize("place", ["/tmp", "/var/tmp"])
def test_a_function_sees_its_code_its_layers_and_an_empty_tmp_and_changes_only_tmp(uid: int | None, place: str) -> None:
    if uid is not None and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory(dir=place) as folder:
        code, layer, kept = Path(folder, "functions", "code"), Path(folder, "layer"), Path(folder, "kept")
        for path in (code, layer / "python", kept):
            path.mkdir(parents=True)
        (code / "main.py").write_text("code")
        (layer / "python" / "module.py").touch()
        Path(folder, "hidden").touch()
        for path in (Path(folder), *Path(folder).rglob("*")):
            os.chown(path, *((uid, uid) if uid is not None else (-1, -1)))
        answer = isolated(uid, False, code, layer, kept)
        if "refused" in answer:
            pytest.skip(f"this machine allows no mount namespace: {answer['refused']}")
        assert answer.pop("code") == "code"
        assert answer.pop("tmp") == ([folder, str(kept)] if place == "/tmp" else [])
        opt = answer.pop("opt")
        assert {"/opt/python", "/opt/python/module.py"} <= set(opt)
        assert {"task", "lang", "runtime", *(path.name for path in Path("/var").iterdir())} == set(answer.pop("var"))
        assert answer.pop("python") is True
        assert {answer.pop("remount"), answer.pop("mount")} == {"EPERM"}
        assert answer.pop("fill") == "ENOSPC"
        # In /tmp the stored code cannot be seen any more; elsewhere it is read-only.
        assert answer.pop("original") == ("ENOENT" if place == "/tmp" else "EROFS")
        if place != "/tmp":
            answer.pop("kept")
        assert set(answer.values()) == {"EROFS"}
        assert [path.name for path in code.iterdir()] == ["main.py"]
        assert not Path("/var/task").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_error_of_the_kernel_is_reported() -> None:
    """A process with two threads gets no user namespace, which all users but root need."""
    assert "the kernel refused private files: [Errno 22]" in str(isolated(65534, True, Path("/"), None)["refused"])
