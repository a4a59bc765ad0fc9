"""timm can be imported where torchvision cannot be; nobody else sees the stand-in."""

import subprocess
import sys
from pathlib import Path

import pytest

TIMM = "import torchvision.transforms.functional as F\nfrom torchvision import transforms\n"
TIMM += "def crop(): return transforms.CenterCrop(3)\ndef resize(): return F.resize(1, size=2)\n"
BROKEN = "import torchvision.part\nraise RuntimeError('operator torchvision::nms does not exist\\nmore')"


def run(folder: Path, program: str) -> "subprocess.CompletedProcess[str]":
    started = f"import sys; sys.path.insert(0, {str(folder)!r})\n"
    started += "from fmi_shim.dropin import torchvision_stand_in\n"
    started += "torchvision_stand_in.install(); torchvision_stand_in.install()\n"
    command = [sys.executable, "-c", started + program]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


def write(folder: Path, **modules: str) -> None:
    for name, text in modules.items():
        path = folder.joinpath(*name.split("__"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".py").write_text(text)


@pytest.mark.parametrize(
    ("broken", "reason"), [(True, "operator torchvision::nms does not exist"), (False, "No module")]
)
def test_timm_loads_without_torchvision_and_using_it_is_an_error(tmp_path: Path, broken: bool, reason: str) -> None:
    write(tmp_path, timm=TIMM)
    if broken:
        write(tmp_path, torchvision__init="", torchvision__part="")
        (tmp_path / "torchvision" / "init.py").unlink()
        (tmp_path / "torchvision" / "__init__.py").write_text(BROKEN)
    done = run(
        tmp_path,
        "import timm\n"
        "for use in (timm.crop, timm.resize):\n"
        "    try: use()\n"
        "    except RuntimeError as error: print(error)\n",
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith(
        f"torchvision.transforms.CenterCrop is a stand-in, since torchvision cannot be imported ({reason}"
    )
    assert "torchvision.transforms.functional.resize" in second
    assert done.stderr.count("inert stand-in") == 1


def test_a_torchvision_that_can_be_imported_is_used(tmp_path: Path) -> None:
    write(tmp_path, timm="import torchvision\nfound = torchvision.kind", torchvision="kind = 'real'")
    assert run(tmp_path, "import timm; print(timm.found)").stdout == "real\n"


def test_programs_without_timm_find_no_torchvision(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "try:\n    import torchvision_that_is_missing\nexcept ImportError: print('missing')\n"
        "import importlib.util; print(importlib.util.find_spec('torchvision') is None)",
    )
    assert done.stdout.splitlines()[0] == "missing"
    write(tmp_path, torchvision=BROKEN)
    failed = run(tmp_path, "import torchvision")
    assert "nms does not exist" in failed.stderr or "no attribute" in failed.stderr or "not a package" in failed.stderr
    assert "stand-in" not in failed.stderr
