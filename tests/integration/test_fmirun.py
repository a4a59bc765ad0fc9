"""fmirun as a user runs it: a command, its output, its exit status, and nothing left behind."""

import json
import os
import re
import signal
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.commands import FMIRUN, installed
from tests.integration.fmirun import EXAMPLES, fmirun, leftovers, start

Program = Callable[[str], Path]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Write a script into a folder of its own."""

    def write(source: str) -> Path:
        script = tmp_path / "program" / "main.py"
        script.parent.mkdir(exist_ok=True)
        script.write_text(textwrap.dedent(source))
        return script

    return write


def test_ranks_get_their_arguments_and_the_table_has_a_row_for_each(tmp_path: Path, program: Program) -> None:
    script = program("import os, sys; print('rank', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'], sys.argv[1:])")
    status, output, errors = fmirun(tmp_path, "-n", 3, script, "--steps", "5")
    assert status == 0
    assert sorted(output.splitlines()) == [f"[{rank}] rank {rank} of 3 ['--steps', '5']" for rank in range(3)]
    header, *rows = errors.splitlines()
    assert header.split("  ")[0] == "rank"
    for rank in range(3):
        assert re.fullmatch(rf" +{rank} +\d+ +\d+ +\d+ +\d+/1769  ok", rows[rank])
    assert re.match(r"on AWS, at these durations: 0\.\d{6} USD \(Lambda ", rows[3])
    assert re.fullmatch(r"3 ranks in \d+\.\d\d s on this machine", rows[4])


def test_ranks_share_numpy_and_the_library_with_the_process_that_forks_them(tmp_path: Path, program: Program) -> None:
    script = program("import sys; print({'numpy', 'fmi_shim.communicator'} <= set(sys.modules))")
    assert fmirun(tmp_path, "-n", 1, script)[:2] == (0, "[0] True\n")


def test_ranks_of_a_run_accept_each_others_python_objects(tmp_path: Path, program: Program) -> None:
    script = program("""
        import os
        import fmi
        rank = int(os.environ["RANK"])
        comm = fmi.Communicator(rank, 2, "fmi.json", "objects")
        print(comm.allgather_object({"rank": rank}), len(os.environ["FMI_SECRET"]))
    """)
    (script.parent / "fmi.json").write_text((EXAMPLES / "fmi.json").read_text())
    status, output, errors = fmirun(tmp_path, "-n", 2, script)
    assert status == 0, errors
    assert sorted(output.splitlines()) == [f"[{rank}] [{{'rank': 0}}, {{'rank': 1}}] 64" for rank in range(2)]


def test_the_rendezvous_server_of_a_run_asks_for_its_secret(tmp_path: Path, program: Program) -> None:
    script = program("""
        import os
        import fmi
        from fmi_shim.errors import RendezvousError
        secret = os.environ.pop("FMI_RENDEZVOUS_SECRET", "")
        rank = int(os.environ["RANK"])
        def total(name):
            comm = fmi.Communicator(rank, 2, "fmi.json", name)
            return comm.allreduce(1, fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.int))
        for wrong in ("", "guess" * 10):
            os.environ["FMI_RENDEZVOUS_SECRET"] = wrong
            try:
                total(f"without {wrong}")
            except RendezvousError as error:
                print(str(error).partition(" secret")[0].split()[-1])
        os.environ["FMI_RENDEZVOUS_SECRET"] = secret
        print(total("with"), len(secret))
    """)
    (script.parent / "fmi.json").write_text((EXAMPLES / "fmi.json").read_text())
    status, output, errors = fmirun(tmp_path, "-n", 2, script)
    assert status == 0, errors
    assert "asks for no secret" not in errors
    for rank in range(2):
        lines = [line for line in output.splitlines() if line.startswith(f"[{rank}]")]
        assert lines == [f"[{rank}] a", f"[{rank}] wrong", f"[{rank}] 2 64"]


def test_a_run_with_raw_ranks_asks_for_no_secret_and_says_so(tmp_path: Path, program: Program) -> None:
    script = program("""
        import os
        import fmi
        comm = fmi.Communicator(int(os.environ["RANK"]), 2, "fmi.json", "raw")
        total = comm.allreduce(1, fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.int))
        print(total, os.environ.get("FMI_RENDEZVOUS_SECRET"))
    """)
    (script.parent / "fmi.json").write_text((EXAMPLES / "fmi.json").read_text())
    status, output, errors = fmirun(tmp_path, "-n", 2, "-x", "FMI_FRAMED=0", script)
    assert status == 0, errors
    assert sorted(output.splitlines()) == ["[0] 2 None", "[1] 2 None"]
    assert "this run's rendezvous server asks for no secret, since raw ranks cannot prove one" in errors


def test_a_rank_has_its_files_s3_and_its_own_tmp(tmp_path: Path, program: Program) -> None:
    script = program("""
        import boto3, os, pathlib, tempfile
        rank = os.environ["RANK"]
        pathlib.Path(tempfile.gettempdir(), "mine").write_text(rank)
        s3 = boto3.client("s3")
        s3.put_object(Bucket=os.environ["S3_BUCKET"], Key=f"seen/{rank}", Body=b"x")
        print(pathlib.Path("beside.txt").read_text(), pathlib.Path(tempfile.gettempdir(), "mine").read_text())
    """)
    (script.parent / "beside.txt").write_text("beside")
    status, output, errors = fmirun(tmp_path, "-n", 4, script)
    assert status == 0, errors
    assert sorted(output.splitlines()) == [f"[{rank}] beside {rank}" for rank in range(4)]


def test_data_is_distributed_and_results_are_downloaded(tmp_path: Path, program: Program) -> None:
    script = program("""
        import boto3, json, os
        s3, rank, bucket = boto3.client("s3"), os.environ["RANK"], os.environ["S3_BUCKET"]
        data_map = json.loads(s3.get_object(Bucket=bucket, Key="payload.json")["Body"].read())["data_map"]
        def read(key):
            return s3.get_object(Bucket=os.environ["DATA_BUCKET"], Key=key)["Body"].read().decode()
        result = {"read": [read(key) for key in data_map[rank]], "batch": os.environ["BATCH_SIZE"]}
        body = json.dumps({**result, "sample_persec": 100}).encode()
        s3.put_object(Bucket=bucket, Key=f"{os.environ['RESULT_PATH']}/{rank}.json", Body=body)
    """)
    data, results = tmp_path / "data", tmp_path / "results"
    data.mkdir()
    for number in range(1, 6):
        (data / f"{number}.txt").write_text(f"content {number}")
    status, _, errors = fmirun(tmp_path, "-n", 2, "--data", data, "--results", results, "--batch-size", 64, script)
    assert status == 0, errors
    combined = json.loads((results / "combined_data.json").read_text())
    assert [entry["read"] for entry in combined] == [
        ["content 1", "content 2", "content 3"],
        ["content 4", "content 5"],
    ]
    assert {entry["batch"] for entry in combined} == {"64"}
    assert sorted(path.name for path in results.iterdir()) == ["0.json", "1.json", "combined_data.json"]
    assert "samples/s" in errors
    assert f"results in {results}" in errors


def test_a_missing_result_fails_the_run_and_nothing_is_downloaded(tmp_path: Path, program: Program) -> None:
    script = program("""
        import boto3, os
        if os.environ["RANK"] == "0":
            boto3.client("s3").put_object(Bucket=os.environ["S3_BUCKET"], Key="results/0.json", Body=b"{}")
    """)
    status, _, errors = fmirun(tmp_path, "-n", 2, "--results", tmp_path / "results", script)
    assert status == 2
    assert "summarize failed: MissingResultError: no result of rank 1 in s3" in errors
    assert not (tmp_path / "results").exists()


FAILURES = {
    "raises": (
        "if rank == 1: raise ValueError('what was wrong')",
        r"fmirun: rank 1 failed: ValueError: what was wrong \(/tmp/program/main\.py:\d+\)",
    ),
    "exits": ("if rank == 1: raise SystemExit(3)", "fmirun: rank 1 failed: ScriptExit: .* status 3"),
    "killed": (
        "if rank == 1: os.kill(os.getpid(), 9)",
        "fmirun: rank 1 failed: ProcessEnded: signal: killed",
    ),
    "missing object": (
        "boto3.client('s3').get_object(Bucket=os.environ['S3_BUCKET'], Key='none') if rank == 1 else None",
        "fmirun: rank 1 failed: NoSuchKey: .*specified key does not exist",
    ),
    "memory": (
        "x = bytearray(b'x') * (400 << 20) if rank == 1 else None; time.sleep(0.2)",
        "fmirun: rank 1 failed: OutOfMemory: used more than 300 MB: raise --memory",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failing_rank_is_named_with_its_cause(tmp_path: Path, program: Program, case: str) -> None:
    action, said = FAILURES[case]
    script = program(f"import boto3, os, time\nrank = int(os.environ['RANK'])\n{action}")
    results = tmp_path / "results"
    status, _, errors = fmirun(tmp_path, "-n", 3, "--memory", 300, "--results", results, script)
    assert status == (3 if case == "exits" else 1)
    assert re.search(said, errors.splitlines()[-1]), errors
    assert not results.exists()


def test_a_script_that_never_ends_times_out(tmp_path: Path, program: Program) -> None:
    script = program("import os, time\nif os.environ['RANK'] == '1':\n    while True: time.sleep(1)")
    status, _, errors = fmirun(tmp_path, "-n", 2, "--timeout", 1, script)
    assert status == 1
    assert "fmirun: rank 1 failed: Timeout: Task timed out after 1.00 seconds: raise --timeout" in errors


def test_ranks_that_still_run_after_a_failure_are_stopped(tmp_path: Path, program: Program) -> None:
    script = program("""
        import os, time
        if os.environ["RANK"] == "2": raise RuntimeError("broken")
        time.sleep(1000)
    """)
    status, _, errors = fmirun(tmp_path, "-n", 3, script)
    assert status == 1
    assert errors.splitlines()[-1].startswith("fmirun: rank 2 failed: RuntimeError: broken")
    assert errors.count("Stopped: still running after another rank had failed") == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-n", "2", "none.py"], "script 'none.py' does not exist"),
        (["-n", "0", "x.py"], "expected a whole number from 1 to 10000, got 0"),
        (["-n", "2", "--data", "none", __file__], "data folder 'none' does not exist"),
        (["-n", "2", "--results", __file__, __file__], "is not a folder"),
    ],
)
def test_invalid_arguments_are_errors_before_anything_starts(tmp_path: Path, arguments: list[str], said: str) -> None:
    status, output, errors = fmirun(tmp_path, *arguments)
    assert status == 2
    assert said in errors.splitlines()[-1]
    assert output == ""


def test_a_module_that_cannot_be_preloaded_is_an_error(tmp_path: Path, program: Program) -> None:
    status, _, errors = fmirun(tmp_path, "-n", 1, "--preload", "no_such_module", program("pass"))
    assert status == 2
    assert "No module named 'no_such_module'" in errors
    assert "the process that forks sandboxes has exited" in errors.splitlines()[-1]


@pytest.mark.parametrize(
    ("number", "status", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_ends_everything(
    tmp_path: Path, program: Program, number: signal.Signals, status: int, said: str
) -> None:
    script = program("""
        import subprocess, time
        print("started", flush=True)
        subprocess.run(["sleep", "1000"])
    """)
    with start(tmp_path, "-n", 2, script) as command:
        assert "started" in command.stdout.readline()
        command.send_signal(number)
        _, errors = command.communicate(timeout=20)
    assert command.returncode == status
    assert errors.splitlines()[-1] == f"fmirun: {said}"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "status", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
@pytest.mark.parametrize("imported", ["boto3", "moto"], ids=["while it imports", "while it starts"])
def test_a_signal_at_the_start_ends_it(
    tmp_path: Path, program: Program, number: signal.Signals, status: int, said: str, imported: str
) -> None:
    (tmp_path / "state").mkdir()
    variables = {**os.environ, "PYTHONVERBOSE": "1", "TMPDIR": str(tmp_path / "state")}
    arguments = [installed(FMIRUN), "-n", "2", program("pass")]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables
    ) as command:
        assert command.stderr is not None
        while f"import '{imported}'" not in command.stderr.readline():
            assert command.poll() is None
        command.send_signal(number)
        _, errors = command.communicate(timeout=30)
    assert command.returncode == status
    assert f"fmirun: {said}\n" in errors
    assert "Traceback" not in errors
    assert leftovers(tmp_path) == []


def test_a_killed_fmirun_leaves_nothing(tmp_path: Path, program: Program) -> None:
    script = program("import time; print('started', flush=True); time.sleep(1000)")
    with start(tmp_path, "-n", 2, script) as command:
        assert "started" in command.stdout.readline()
        zygote = next(child for child in psutil.Process(command.pid).children())
        command.kill()
    # The pool of the killed command can be gone before its zygote has finished cleaning up.
    psutil.wait_procs([zygote], timeout=20)
    assert leftovers(tmp_path) == []


def test_variables_are_set_in_every_rank_or_passed_on(tmp_path: Path, program: Program) -> None:
    script = program("import os; print(os.environ['LEVEL'], os.environ['EMPTY'] == '')")
    status, output, errors = fmirun(tmp_path, "-n", 2, "-x", "LEVEL=a=b", "-x", "EMPTY=", script)
    assert (status, sorted(output.splitlines())) == (0, ["[0] a=b True", "[1] a=b True"]), errors
    script = program("import os; print(os.environ['LANG_OF_TEST'])")
    os.environ["LANG_OF_TEST"] = "passed on"
    try:
        assert fmirun(tmp_path, "-n", 1, "-x", "LANG_OF_TEST", script)[:2] == (0, "[0] passed on\n")
    finally:
        del os.environ["LANG_OF_TEST"]


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("RANK=3", "invalid variable RANK: the run sets it for each rank"),
        ("NO_SUCH_VARIABLE", "variable NO_SUCH_VARIABLE is not set here: set it, or give NO_SUCH_VARIABLE=VALUE"),
        ("a b=1", "invalid variable 'a b=1': expected NAME or NAME=VALUE"),
        ("=1", "invalid variable '=1': expected NAME or NAME=VALUE"),
    ],
)
def test_a_variable_that_cannot_be_set_is_refused(
    tmp_path: Path, program: Program, variable: str, message: str
) -> None:
    status, _, errors = fmirun(tmp_path, "-n", 1, "-x", variable, program("pass"))
    assert status == 2
    assert message in errors


def test_a_module_of_the_current_folder_runs_as_python_m_runs_it(tmp_path: Path) -> None:
    package = tmp_path / "work" / "own"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "other.py").write_text("NAME = 'other'")
    (package / "part.py").write_text("import os, sys\nfrom .other import NAME\nprint(NAME, __name__, sys.argv[1:])")
    status, output, errors = fmirun(tmp_path, "-n", 2, "-m", "own.part", "--steps", "3", cwd=package.parent)
    assert (status, sorted(output.splitlines())) == (0, [f"[{r}] other __main__ ['--steps', '3']" for r in range(2)]), (
        errors
    )
    status, _, errors = fmirun(tmp_path, "-n", 1, "-m", "own.none", cwd=package.parent)
    assert status == 1
    assert "rank 0 failed: ImportError: No module named own.none" in errors
    status, _, errors = fmirun(tmp_path, "-n", 1, "-m", "none", cwd=package.parent)
    assert status == 2
    assert "fmirun: module 'none' does not exist" in errors


def test_standard_input_is_empty_unless_rank_0_is_to_read_it(tmp_path: Path, program: Program) -> None:
    script = program("""
        import os, subprocess, sys
        first = sys.stdin.readline()
        # Programs that the script starts read the same stream.
        print(repr(first), repr(subprocess.run(["cat"], capture_output=True, text=True).stdout if first else ""))
    """)
    status, output, _ = fmirun(tmp_path, "-n", 2, script, standard_input="a\nb\n")
    assert (status, sorted(output.splitlines())) == (0, ["[0] '' ''", "[1] '' ''"])
    script = program("import os, sys; print(repr(sys.stdin.read()))")
    status, output, errors = fmirun(tmp_path, "-n", 2, "--stdin", "rank0", script, standard_input="a\nb\n")
    assert (status, sorted(output.splitlines())) == (0, ["[0] 'a\\nb\\n'", "[1] ''"]), errors


def test_a_breakpoint_in_rank_0_stops_there_and_takes_commands(tmp_path: Path, program: Program) -> None:
    script = program("""
        import os
        rank, value = int(os.environ["RANK"]), 41
        if rank == 0:
            breakpoint()
        print(value)
    """)
    commands = "p value + 1\nvalue = 7\nwhere\ncontinue\n"
    status, output, errors = fmirun(tmp_path, "-n", 2, "--pdb", script, standard_input=commands)
    assert status == 0, errors
    assert "(Pdb) 42" in output
    assert "program/main.py(6)<module>()" in output
    assert "[0] 7" in output
    assert "[1] 41" in output


@pytest.mark.parametrize(
    ("end", "status", "failure"),
    [
        ("sys.exit(7)", 7, "ScriptExit: the script exited with status 7"),
        ("sys.exit(256)", 1, "ScriptExit: the script exited with status 1"),
        ("sys.exit('no input')", 1, "ScriptExit: the script exited with status 1"),
        ("os._exit(9)", 9, "ProcessEnded: exit status 9"),
        ("raise ValueError('x')", 1, "ValueError: x"),
    ],
)
def test_the_programs_exit_status_is_the_runs(
    tmp_path: Path, program: Program, end: str, status: int, failure: str
) -> None:
    script = program(f"import os, sys\ndef stop():\n    {end}\nif os.environ['RANK'] == '1':\n    stop()")
    got, output, errors = fmirun(tmp_path, "-n", 2, script)
    place = "" if "_exit" in end else " (/tmp/program/main.py:3)"
    assert (got, errors.splitlines()[-1]) == (status, f"fmirun: rank 1 failed: {failure}{place}")
    assert ("[1] no input" in output) == ("no input" in end)


def test_a_requirements_file_hides_the_packages_that_it_does_not_name(tmp_path: Path, program: Program) -> None:
    script = program(
        "import hypothesis\ntry:\n    import psutil\nexcept ModuleNotFoundError as error:\n    print(error)"
    )
    (script.parent / "requirements.txt").write_text("hypothesis\n")
    status, output, errors = fmirun(tmp_path, "-n", 1, script)
    assert (status, output) == (0, "[0] No module named 'psutil'\n")
    status, output, errors = fmirun(tmp_path, "-n", 1, "--packages", "all", script)
    assert (status, output) == (0, "")
    status, output, errors = fmirun(tmp_path, "-n", 1, "--packages", "aws", "--backend", "docker", script)
    assert (status, errors) == (2, "fmirun: --packages needs processes: containers have the packages of their image\n")
