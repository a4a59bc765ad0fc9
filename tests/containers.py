"""The container daemon, base and images that tests use. Where there is none, they are skipped with the reason."""

import functools
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from emulator.aws.sandboxes.containers.daemon import Daemon
from emulator.aws.sandboxes.containers.ownership import OWNER_LABEL, Owner
from emulator.errors import EmulatorError
from emulator.fmi.executor.image import ImageRequest, executor_image

# .ci/run imports it: Debian with python3.
BASE_IMAGE = "fmi-test-base:bookworm"

# A runtime in a shell, without curl: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-walkthrough.html
BASH_BOOTSTRAP = r"""#!/bin/bash
host=${AWS_LAMBDA_RUNTIME_API%:*} port=${AWS_LAMBDA_RUNTIME_API#*:} api=/2018-06-01/runtime/invocation
while true; do
  exec 3<>"/dev/tcp/$host/$port"
  printf 'GET %s/next HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$api" "$AWS_LAMBDA_RUNTIME_API" >&3
  while IFS=$'\r' read -r line <&3 && [ -n "$line" ]; do
    case "${line,,}" in lambda-runtime-aws-request-id:*) id=${line#*: } ;; esac
  done
  event=$(cat <&3)
  exec 3>&-
  echo "bash got $event in $(pwd) with $*"
  answer="{\"shell\": $event}"
  exec 3<>"/dev/tcp/$host/$port"
  printf 'POST %s/%s/response HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: %s\r\n\r\n%s' \
    "$api" "$id" "$AWS_LAMBDA_RUNTIME_API" "${#answer}" "$answer" >&3
  cat <&3 >/dev/null
  exec 3>&-
done
"""


@functools.cache
def _found() -> Daemon | str:
    try:
        daemon = Daemon()
    except EmulatorError as error:
        return str(error)
    if not daemon.has_image(BASE_IMAGE):
        return f"the daemon has no image {BASE_IMAGE}: .ci/run imports it"
    return daemon


def daemon() -> Daemon:
    """Return the daemon; skip the test if there is none or it has no base."""
    found = _found()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@functools.cache
def executor() -> str:
    """Return the executor's image on the test base."""
    return executor_image(daemon(), ImageRequest(BASE_IMAGE), lambda line: None)


def build(
    name: str,
    dockerfile: str,
    files: Mapping[str, str | bytes] = MappingProxyType({}),
    arguments: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Build an image of executable files, whose Dockerfile starts with ``FROM`` or ``ARG``; return its name."""
    parts = {
        path: content.encode() if isinstance(content, str) else content
        for path, content in {"Dockerfile": dockerfile, **files}.items()
    }
    list(daemon().build(io.BytesIO(archive(parts)), name, arguments, {}, "Dockerfile"))
    return name


def shell_root(programs: Mapping[str, str]) -> bytes:
    """Return a root file system with bash, cat, sleep and programs, for a daemon of the test's own: 6 MB."""
    files = {path: text.encode() for path, text in programs.items()}
    for name in ("bash", "cat", "sleep"):
        program = shutil.which(name)
        assert program is not None
        files[f"bin/{name}"] = Path(program).read_bytes()
        libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for found in re.findall(r"(/\S+) \(0x", libraries):
            files[found.lstrip("/")] = Path(found).read_bytes()
    return archive(files)


def named(bootstrap: str, ranks: int) -> str:
    """Return a bootstrap that names the rank of its event, as every program that serves ranks does."""
    line = (
        rf'[[ $event =~ \"RANK\":\ *\"?([0-9]+) ]] && echo "fmi-rank: ${{BASH_REMATCH[1]}} of {ranks} RequestId: $id"'
    )
    return bootstrap.replace("  echo ", f"  {line}\n  echo ", 1)


def containers_of(running: Daemon, pid: int) -> list[str]:
    """Return the containers and networks that an emulator's process has at a daemon."""
    found = [*running.labelled_containers(OWNER_LABEL), *running.labelled_networks(OWNER_LABEL)]
    return [name for name, label in found if (owner := Owner.parse(label)) is not None and owner.pid == pid]


def own_containers(pid: int) -> list[str]:
    """Return the containers and networks of an emulator's process."""
    return containers_of(daemon(), pid)


def load_for(architecture: str) -> str:
    """Load an image for an architecture, without any program; return its name."""
    name = f"fmi-test-{architecture}:latest"
    layer = archive({"empty": b""})
    layers = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}
    config = {"architecture": architecture, "os": "linux", "config": {"Cmd": ["/empty"]}, "rootfs": layers}
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    parts = {"config.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    import docker

    client = docker.APIClient(daemon().url)
    list(client.load_image(archive({**parts, "layer.tar": layer})))
    client.close()
    return name


def archive(files: Mapping[str, bytes]) -> bytes:
    """Return a tar archive of executable files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def networks() -> list[str]:
    """Return the networks of all emulators."""
    return [name for name, _ in daemon().labelled_networks(OWNER_LABEL)]
