"""The files that a run uploads, and those that it excludes."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from emulator.fmi.bundle import ProgramError, data_files, function_archive, module_files, program_files


def test_the_functions_archive_is_the_same_every_time() -> None:
    assert function_archive() == function_archive()


def test_the_functions_archive_is_enough_for_import_fmi(tmp_path: Path) -> None:
    """With numpy beside it and nothing else of ours: what a real Lambda has."""
    with zipfile.ZipFile(io.BytesIO(function_archive())) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "task")
    assert {"initialize.py", "execute.py", "summarize.py", "fmi.py", "rendezvous/protocol/extension.py"} <= set(names)
    assert not [name for name in names if name.startswith(("emulator/", "inference/"))]
    check = f"""
import sys
sys.path[:] = [{str(tmp_path / "task")!r}] + [p for p in sys.path if "site-packages" in p or "lib/python" in p]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__ + str(finder)]
import fmi, rendezvous.protocol, fmi_shim
assert fmi_shim.__file__.startswith({str(tmp_path)!r}), fmi_shim.__file__
assert rendezvous.protocol.__file__.startswith({str(tmp_path)!r})
assert fmi.Communicator and fmi.op.sum
"""
    subprocess.run([sys.executable, "-I", "-c", check], check=True, cwd=tmp_path)


def test_the_deployed_functions_import_nothing_large(tmp_path: Path) -> None:
    """A cold start on AWS pays for each import: boto3, the standard library and what starts programs must suffice."""
    with zipfile.ZipFile(io.BytesIO(function_archive())) as archive:
        archive.extractall(tmp_path)
    check = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import execute, initialize, summarize
assert execute.__file__.startswith({str(tmp_path)!r})
ours = {{name for name in sys.modules if name.partition(".")[0] in ("emulator", "fmi_shim", "inference", "rendezvous")}}
assert ours == {{"fmi_shim", "fmi_shim.dropin", "fmi_shim.dropin.torchvision_stand_in", "fmi_shim.log_lines"}}, ours
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-I", "-c", check], check=True, cwd=tmp_path)


def test_the_scripts_folder_is_uploaded_without_hidden_and_generated_files(tmp_path: Path) -> None:
    folder = tmp_path / "my program"
    for name in (
        "main.py",
        "fmi.json",
        "package/part.py",
        ".hidden",
        ".git/config",
        "package/__pycache__/part.pyc",
        "venv/pyvenv.cfg",
        "venv/lib/large.py",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    keys = [file.key for file in program_files(folder / "main.py").files]
    assert keys == ["my program/fmi.json", "my program/main.py", "my program/package/part.py"]


def test_a_folder_too_large_for_a_program_is_refused(tmp_path: Path) -> None:
    for number in range(501):
        (tmp_path / f"{number}.txt").touch()
    (tmp_path / "main.py").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "model.pt").write_bytes(bytes(3_000_000))
    with pytest.raises(ProgramError, match="move the script to a folder of its own") as refused:
        program_files(tmp_path / "main.py")
    assert "largest: data/ 3.0 MB in 1 files, 0.txt 0.0 MB" in str(refused.value)


def test_links_are_followed_within_the_folder_and_named_when_they_lead_out_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "program"
    (folder / "package").mkdir(parents=True)
    (folder / "main.py").touch()
    (folder / "package" / "part.py").touch()
    (folder / "alias.py").symlink_to("package/part.py")
    (folder / "again").symlink_to(folder / "package")
    # Links that lead back to a folder above them, directly and by way of each other.
    (folder / "package" / "up").symlink_to(folder)
    (folder / "package" / "back").symlink_to(folder / "again")
    (folder / "passwd").symlink_to("/etc/passwd")
    (folder / "package" / "etc").symlink_to("/etc")
    (folder / "gone").symlink_to("missing")
    code = program_files(folder / "main.py")
    names = ["alias.py", "main.py", "again/part.py", "package/part.py"]
    assert sorted(file.key for file in code.files) == sorted(f"program/{name}" for name in names)
    assert sorted(set(code.links_outside)) == ["again/etc", "gone", "package/etc", "passwd"]
    assert "link 'gone' is not uploaded" in code.notes()[code.links_outside.index("gone")]


def test_a_module_is_found_in_the_folder_or_among_the_installed_ones(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "part.py").touch()
    assert [file.key for file in module_files("own.part", tmp_path).files] == [f"{tmp_path.name}/own/part.py"]
    assert module_files("json.tool", tmp_path).files
    for name in ("missing.part", "own part", "own/part.py", ""):
        with pytest.raises(ProgramError, match="does not exist: expected the name of a module"):
            module_files(name, tmp_path)


def test_what_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"script .*none\.py' does not exist"):
        program_files(tmp_path / "none.py")
    with pytest.raises(ProgramError, match=r"data folder .* does not exist"):
        data_files(tmp_path / "none", "data/")
    with pytest.raises(ProgramError, match="contains no files"):
        data_files(tmp_path, "data/")


def test_a_file_that_cannot_be_read_any_more_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.pt").write_bytes(b"x")
    (file,) = data_files(tmp_path, "data/")
    assert file.read() == b"x"
    file.path.unlink()
    with pytest.raises(ProgramError, match=f"cannot upload '{file.path}': No such file or directory"):
        file.read()
