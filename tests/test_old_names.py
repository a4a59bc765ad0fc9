"""Names that were replaced: no module of them resolves, and no package defines or imports the others."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("rendezvous", "fmi_shim", "inference", "emulator")

OLD_MODULES = """
emulator.cli: exits
emulator: endpoint functions lambda_service limits log_lines log_store object_store orchestration prices rank_failures
    rank_lines report sandboxes state_folder step_functions
emulator.endpoint: address app json_requests lambda_api lambda_http lambda_versions_api logs_api moto_bridge page s3
    step_functions_api step_functions_requests step_functions_shapes
emulator.endpoint.page: guard phases runs storage timeline views
emulator.endpoint.s3: addressing api aws_chunked bucket_api conditions listing_api object_api object_headers transfer
    upload_api xml
emulator.functions: execute initialize summarize
emulator.lambda_service: admission code cold_starts constraints environment environments execution function
    function_records function_spec functions history invocations packages runtime_api runtimes sandbox_log settings
    warm_pool
emulator.log_store: filter_pattern records store
emulator.object_store: bodies buckets checksums errors listing objects records store tables uploads
emulator.orchestration: backend bundle connection deploy execution_history job launch log_events log_sources log_tail
    payload pipeline pipeline_files rank_log results state_machine
emulator.report: live_view plain relays run_summary
emulator.sandboxes: base control_link cpu_groups import_paths keeper memory messages orphans private_tmp process
    runtime_client worker zygote
emulator.step_functions: arns asl aws_calls distributed_map engine execution fan_out history interpreter iteration
    lambda_tasks machines map_run nested parallel records results sdk_tasks service task_tokens tasks visit
emulator.step_functions.asl: choice_rules definition expressions failures findings intrinsics items json_values
    parse_choice parse_fields parse_machine parse_map parse_states paths resources retrying tolerance
fmi_shim: access arguments attempts channels control_link cost deadline farewells forms handshake meeting membership
    persistence policy punching rendezvous_client sections shared_memory
fmi_shim.channels: aborts arrivals attendance base connections contents direct enabled framed framing link objects
    patience patience_in_segment posting presence redis s3 shared_memory store stream watch
fmi_shim.collectives: in_segment in_segment_across in_segment_chain in_segment_folds in_segment_rows in_segment_scans
    objects segments select switch_points
fmi_shim.cost: compat corrected model
fmi_shim.shared_memory: alarm lanes layout meeting neighbours ordered_rounds process_memory rounds segment semaphores
    suspicion
rendezvous: deadlines name_client roster tally waits
rendezvous.protocol: greeting registration
"""
"""A package and the modules that it had, which moved or were merged."""

OLD_CLASSES = (
    *("Alarm", "Appointment", "Arrival", "Arrivals", "Attendance", "Circle", "ControlLink", "EnabledChannels"),
    *("Environments", "Form", "Found", "Home", "Host", "LanePair", "Leg", "Mark", "Membership"),
    *("Neighbours", "OrderedRounds", "PatientFraming", "Patience", "Persistence", "Posts", "Presence", "Roster"),
    *("Strand", "Suspicion", "Tally", "Visit", "Waiter", "Watch"),
)
OLD_FUNCTIONS = (
    *("_noted", "_told", "_unlike", "answered", "call_of", "came_raw", "form_of", "hear", "heard", "heed", "hold"),
    *("judge", "look", "lost", "meet", "over", "part", "rest", "said", "say", "see", "settle", "show"),
    *("suspicion_seconds", "told_by_server", "turn"),
)


def old_modules() -> list[str]:
    packages: list[str] = []
    for line in OLD_MODULES.strip().split("\n"):
        if line.startswith(" "):
            packages[-1] += line
        else:
            packages.append(line)
    return [
        f"{name}.{leaf}" for name, _, leaves in (line.partition(":") for line in packages) for leaf in leaves.split()
    ]


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for folder in (*PACKAGES, "tests", "benchmarks", "examples"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", old_modules())
def test_no_old_module_resolves(module: str) -> None:
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    assert found is None


def test_nothing_imports_an_old_module() -> None:
    old = set(old_modules())
    imported = set()
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported |= {(path, alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add((path, node.module))
                imported |= {(path, f"{node.module}.{alias.name}") for alias in node.names}
    assert not {(path, name) for path, name in imported if name in old}


def test_no_package_defines_or_imports_an_old_class_or_function() -> None:
    found = []
    for path, tree in sources():
        if path.relative_to(ROOT).parts[0] not in PACKAGES:
            continue
        for node in ast.walk(tree):
            names: list[tuple[str, tuple[str, ...]]] = []
            if isinstance(node, ast.ClassDef):
                names = [(node.name, OLD_CLASSES)]
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [(node.name, OLD_FUNCTIONS)]
            elif isinstance(node, ast.ImportFrom):
                names = [(alias.name, OLD_CLASSES) for alias in node.names]
            found += [f"{path.relative_to(ROOT)}:{node.lineno}: {name}" for name, old in names if name in old]
    assert found == []
