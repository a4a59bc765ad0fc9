"""A private /tmp: empty, limited, with the kept paths; an error where it is not available."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mount namespaces are Linux's")

CHILD = """
import json, os, sys, threading
from pathlib import Path
from emulator.aws.sandboxes.private_tmp import PrivateTmpUnavailableError, below_tmp, mount_private_tmp
uid, threads, *keep = json.loads(sys.argv[1])
if uid is not None:
    os.setgid(uid)
    os.setuid(uid)
if threads:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
try:
    mount_private_tmp(1 << 20, below_tmp(Path(path) for path in keep))
except PrivateTmpUnavailableError as error:
    print(json.dumps({"refused": str(error)}))
    sys.exit()
seen = sorted(str(path) for path in Path("/tmp").rglob("*"))
try:
    Path("/tmp/file").write_bytes(bytes(2 << 20))
    filled = "all written"
except OSError as error:
    filled = error.strerror
print(json.dumps({"seen": seen, "filled": filled}))
"""


def private_tmp(uid: int | None, threads: bool, *keep: Path) -> dict[str, object]:
    order = json.dumps([uid, threads, *map(str, keep)])
    ended = subprocess.run([sys.executable, "-c", CHILD, order], capture_output=True, text=True, check=True, timeout=30)
    answer: dict[str, object] = json.loads(ended.stdout)
    return answer


def test_a_private_tmp_contains_only_the_kept_paths_and_is_limited() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        kept = Path(folder) / "deep" / "kept"
        kept.mkdir(parents=True)
        (kept / "file").touch()
        single = Path(folder) / "single"
        single.touch()
        (Path(folder) / "hidden").touch()
        answer = private_tmp(None, False, kept, kept / "file", single, Path("/usr"), Path(folder) / "missing")
        if "refused" in answer:
            pytest.skip(f"this machine allows no private /tmp: {answer['refused']}")
        expected = [Path(folder), kept.parent, kept, kept / "file", single]
        assert answer == {"seen": sorted(map(str, expected)), "filled": "No space left on device"}
        assert not Path("/tmp/file").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_error_of_the_kernel_is_reported() -> None:
    """A process with two threads gets no user namespace, which all users but root need."""
    assert "the kernel refused a private /tmp: [Errno 22]" in str(private_tmp(65534, True)["refused"])


CODE_CHILD = """
import ctypes, errno, json, os, sys
from pathlib import Path
from emulator.aws.sandboxes.private_tmp import _MS_BIND, _MS_REMOUNT, _mount, below_tmp, mount_private_tmp, protect_code
uid, folder = json.loads(sys.argv[1])
if uid:
    os.setgid(uid)
    os.setuid(uid)
    # A change of the user hides /proc/self from the process itself.
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
folder = Path(folder)
try:
    mount_private_tmp(1 << 20, below_tmp([folder]))
except OSError as error:
    print(json.dumps({"refused": str(error)}))
    sys.exit()
protect_code(folder)
attempts = {
    "write": lambda: (folder / "main.py").write_text("changed"),
    "append": lambda: (folder / "main.py").open("a"),
    "create": lambda: (folder / "other.py").touch(),
    "remove": lambda: (folder / "main.py").unlink(),
    "mode": lambda: (folder / "main.py").chmod(0o777),
    "link": lambda: os.link(folder / "main.py", folder / "second"),
    "remount": lambda: _mount("none", str(folder), None, _MS_BIND | _MS_REMOUNT),
    "mount": lambda: _mount("none", str(folder), "tmpfs", 0),
}
answer = {"read": (folder / "main.py").read_text()}
for name, attempt in attempts.items():
    try:
        attempt()
        answer[name] = "done"
    except OSError as error:
        answer[name] = errno.errorcode[error.errno]
print(json.dumps(answer))
"""


@pytest.mark.parametrize("uid", [None, 65534])
def test_protected_code_can_be_read_and_not_changed(uid: int | None) -> None:
    if uid is not None and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        code = Path(folder) / "code"
        code.mkdir()
        (code / "main.py").write_text("code")
        for path in (Path(folder), code, code / "main.py"):
            if uid is not None:
                os.chown(path, uid, uid)
        order = json.dumps([uid, str(code)])
        ended = subprocess.run([sys.executable, "-c", CODE_CHILD, order], capture_output=True, text=True, timeout=30)
        assert ended.returncode == 0, ended.stderr
        answer = json.loads(ended.stdout)
        if "refused" in answer:
            pytest.skip(f"this machine allows no private /tmp: {answer['refused']}")
        assert answer.pop("read") == "code"
        assert {answer.pop("remount"), answer.pop("mount")} == {"EPERM"}
        assert set(answer.values()) == {"EROFS"}
        assert [path.name for path in code.iterdir()] == ["main.py"]
