"""The container daemon: what sandboxes and images need of its API, and its errors in words.

docker-py blocks, so every method runs in a thread of the caller. Docker and podman's compatible socket are both
understood: https://docs.docker.com/reference/api/engine/
"""

import contextlib
import ipaddress
import os
import resource
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emulator.aws.limits import FILE_DESCRIPTORS
from emulator.aws.sandboxes.base import ContainerImage, InvalidEntrypointError
from emulator.errors import SandboxError

# Longer than any single call here takes on a busy machine; builds and pulls stream their progress.
_TIMEOUT_S = 120
_CONNECTIONS = 64
# An interface's name has 15 characters at most: IFNAMSIZ of netdevice(7).
_INTERFACE_DIGITS = 12
# Of one user in all containers: the most that podman has where it may set no higher limit.
_USER_PROCESSES = 32768
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_NOT_FOUND, _CONFLICT = 404, 409


class DaemonError(SandboxError):
    """The container daemon cannot do what was asked; the message says what to do."""


class ImageMissingError(DaemonError):
    """The daemon has no such image."""


@dataclass(frozen=True)
class Network:
    """A network of the daemon: its id, its interface, the address of this machine in it, and its range."""

    id: str
    bridge: str
    gateway: str
    subnet: str


@dataclass(frozen=True)
class ContainerLimits:
    """What a container may use.

    Parameters
    ----------
    memory_bytes
        The kernel's limit of its memory, without swap.
    processes
        Number of processes and threads.
    open_files
        Number of file descriptors of a process.
    """

    memory_bytes: int
    processes: int
    open_files: int


@dataclass(frozen=True)
class ContainerState:
    """The state of a container: whether it runs, its exit status, whether the kernel killed it for its memory."""

    running: bool
    exit_status: int
    out_of_memory: bool
    pid: int


class Daemon:
    """A connection to the container daemon, for any number of threads.

    Raises
    ------
    DaemonError
        When docker-py is not installed, no daemon answers, or its socket may not be used.
    """

    def __init__(self) -> None:
        try:
            import docker
        except ImportError:
            raise DaemonError(
                "containers need docker-py, which is not installed: run pip install 'fmi-emulator[docker]'"
            ) from None
        from urllib3.exceptions import HTTPError

        self._docker = docker
        # The errors of requests are OSErrors; while an answer is streamed, those of urllib3 come through.
        self._failures = (docker.errors.DockerException, HTTPError, OSError)
        self.url = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        if not self.url.startswith("unix://"):
            raise DaemonError(
                f"invalid DOCKER_HOST {self.url!r}: expected unix:///path of a socket on this machine, "
                "since containers connect to servers of this machine"
            )
        try:
            self._api = docker.APIClient(self.url, timeout=_TIMEOUT_S, num_pools=_CONNECTIONS)
            # Each request would read the environment for proxies, in a thread, while the program may change it.
            self._api.trust_env = False
            self._api.ping()
        except self._failures as error:
            raise self._no_connection(error) from None
        except ValueError as error:
            raise DaemonError(f"the daemon at {self.url} sent no valid answer ({error}): start it again") from None

    @property
    def socket_path(self) -> str:
        """The path of the daemon's socket."""
        return self.url.removeprefix("unix://")

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    def check_running(self) -> None:
        """Raise `DaemonError` if the daemon does not answer any more."""
        with self._errors("ask the container daemon whether it runs"):
            self._api.ping()

    def info(self) -> dict[str, Any]:
        """Return what the daemon says about itself and its machine."""
        with self._errors("ask the container daemon about itself"):
            found: dict[str, Any] = self._api.info()
            return found

    def create_network(self, name: str, labels: Mapping[str, str]) -> Network:
        """Create a bridge network of its own address range."""
        bridge = f"fmi{uuid.uuid4().hex[:_INTERFACE_DIGITS]}"
        options = {"com.docker.network.bridge.name": bridge}
        with self._errors(f"create network {name!r}"):
            created = self._api.create_network(
                name, driver="bridge", options=options, labels=dict(labels), check_duplicate=True
            )
            found = self._api.inspect_network(created["Id"])
            config = found["IPAM"]["Config"][0]
            return Network(created["Id"], bridge, _gateway_of(config), config["Subnet"])

    def remove_network(self, network: str) -> None:
        """Remove a network that no container uses any more; one that does not exist is removed."""
        with self._errors(f"remove network {network!r}", missing_ok=True):
            self._api.remove_network(network)

    def labelled_networks(self, label: str) -> list[tuple[str, str]]:
        """Return id and value of the label of every network that has it."""
        with self._errors("list networks"):
            found = self._api.networks(filters={"label": [label]})
            return [(network["Id"], network["Labels"][label]) for network in found]

    def labelled_containers(self, label: str) -> list[tuple[str, str]]:
        """Return id and value of the label of every container that has it, running or not."""
        with self._errors("list containers"):
            found = self._api.containers(all=True, filters={"label": [label]})
            return [(container["Id"], container["Labels"][label]) for container in found]

    def create_container(
        self,
        name: str,
        image: ContainerImage,
        environment: Mapping[str, str],
        network: str,
        limits: ContainerLimits,
        labels: Mapping[str, str],
        user: str,
        mounts: Mapping[str, str],
        tmpfs: Mapping[str, str],
        ipc_mode: str,
    ) -> str:
        """Create a container without capabilities and with a read-only root; return its id.

        Parameters
        ----------
        mounts
            Source on this machine and ``/target:ro`` or ``/target:rw``.
        tmpfs
            Folder and mount options.
        """
        with self._errors(f"create a container of image {image.reference!r}", image.reference):
            host = self._api.create_host_config(
                binds=[f"{source}:{target}" for source, target in mounts.items()],
                tmpfs=dict(tmpfs),
                network_mode=network,
                mem_limit=limits.memory_bytes,
                memswap_limit=limits.memory_bytes,
                pids_limit=limits.processes,
                ulimits=_ulimits(limits.open_files),
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                ipc_mode=ipc_mode,
                log_config=self._docker.types.LogConfig(type="none"),
            )
            created = self._api.create_container(
                image.reference,
                command=list(image.command) or None,
                entrypoint=list(image.entry_point) or None,
                working_dir=image.working_directory or None,
                environment=dict(environment),
                user=user,
                labels=dict(labels),
                name=name,
                host_config=host,
            )
            identifier: str = created["Id"]
            return identifier

    def attach(self, container: str) -> socket.socket:
        """Return a socket that receives standard output and error of a container that is not yet started.

        The stream consists of frames: eight bytes of header, the last four of them the length, then the bytes.
        """
        with self._errors("attach to a container"):
            parameters = {"stdout": 1, "stderr": 1, "stream": 1, "stdin": 0, "logs": 0}
            stream = self._api.attach_socket(container, parameters)
            duplicate = socket.socket(fileno=os.dup(stream.fileno()))
            stream.close()
            return duplicate

    def start(self, container: str, image: str) -> None:
        """Start a container.

        Raises
        ------
        InvalidEntrypointError
            When its program or working directory does not exist, or is not executable.
        """
        with self._errors(f"start a container of image {image!r}", image):
            self._api.start(container)

    def state(self, container: str) -> ContainerState:
        """Return the state of a container."""
        with self._errors("inspect a container"):
            found = self._api.inspect_container(container)["State"]
            return ContainerState(
                bool(found["Running"]), int(found["ExitCode"]), bool(found["OOMKilled"]), int(found.get("Pid") or 0)
            )

    def wait(self, container: str) -> None:
        """Wait until a container has ended."""
        with self._errors("wait for a container"):
            self._api.wait(container, timeout=None)

    def limit_cpu(self, container: str, quota_us: int, period_us: int) -> None:
        """Limit the CPU time of a running container."""
        with self._errors("limit the CPU of a container"):
            self._api.update_container(container, cpu_period=period_us, cpu_quota=quota_us)

    def pause(self, container: str) -> None:
        """Stop the processes of a container."""
        with self._errors("pause a container"):
            self._api.pause(container)

    def unpause(self, container: str) -> None:
        """Continue the processes of a container."""
        with self._errors("continue a container"):
            self._api.unpause(container)

    def kill(self, container: str) -> None:
        """Kill a container; one that has ended or does not exist is left as it is."""
        with self._errors("kill a container", missing_ok=True):
            self._api.kill(container)

    def remove(self, container: str) -> None:
        """Kill and remove a container; one that does not exist is removed."""
        with self._errors("remove a container", missing_ok=True):
            self._api.remove_container(container, force=True, v=True)

    def disconnect(self, container: str, network: str) -> None:
        """Take a container off a network."""
        with self._errors("disconnect a container"):
            self._api.disconnect_container_from_network(container, network, force=True)

    def has_image(self, reference: str) -> bool:
        """Return whether the daemon has an image."""
        try:
            self.image_id(reference)
        except ImageMissingError:
            return False
        return True

    def image_id(self, reference: str) -> str:
        """Return the id of an image.

        Raises
        ------
        ImageMissingError
            When the daemon has none of this name.
        DaemonError
            When it is one for another architecture.
        """
        with self._errors(f"find image {reference!r}", reference):
            found = self._api.inspect_image(reference)
        built_for, needed = found.get("Architecture", ""), _ARCHITECTURES.get(os.uname().machine, "")
        if built_for and needed and built_for != needed:
            raise DaemonError(
                f"image {reference!r} is for {built_for}: expected one for {needed}, this machine's architecture; "
                f"build or pull it with --platform linux/{needed}"
            )
        identifier: str = found["Id"]
        return identifier

    def image_architecture(self, reference: str) -> str:
        """Return the architecture that an image is built for, as Docker calls it; empty if it does not say."""
        with self._errors(f"find image {reference!r}", reference):
            return str(self._api.inspect_image(reference).get("Architecture", ""))

    def push(self, reference: str, target: str, user: str, password: str, on_progress: Callable[[str], None]) -> str:
        """Push an image to a registry; return its digest there, ``sha256:…``.

        Parameters
        ----------
        reference
            The image.
        target
            Its name there, with registry, repository and tag. The image has that name here only while it is pushed.
        user, password
            The registry's. They are neither stored nor printed.
        on_progress
            Called with a line for each layer that was sent or was there already.
        """
        repository, _, tag = target.rpartition(":")
        digest = ""
        with self._errors(f"push image {reference!r} to {repository}", reference):
            self._api.tag(reference, repository, tag)
            try:
                account = {"username": user, "password": password}
                for event in self._api.push(repository, tag, stream=True, decode=True, auth_config=account):
                    if "error" in event:
                        raise DaemonError(
                            f"cannot push image {reference!r} to {repository}: {event['error']}: check the network "
                            "and the permissions for ECR, and try again"
                        )
                    digest = event.get("aux", {}).get("Digest", digest)
                    if event.get("status") in ("Pushed", "Layer already exists"):
                        on_progress(f"  {event.get('id', '')} {event['status'].lower()}")
            finally:
                self._api.remove_image(target, noprune=True)
        if not digest:
            raise DaemonError(f"the daemon at {self.url} named no digest of {target}: try again")
        return digest

    def pull(self, reference: str) -> Iterator[str]:
        """Pull an image; yield lines of progress."""
        with self._errors(f"pull image {reference!r}", reference):
            for event in self._api.pull(reference, stream=True, decode=True):
                if "error" in event:
                    raise DaemonError(f"cannot pull image {reference!r}: {event['error']}; give an image that is here")
                if status := event.get("status", ""):
                    yield f"{event.get('id', '')} {status}".strip()

    def build(
        self, context: Any, tag: str, arguments: Mapping[str, str], labels: Mapping[str, str], dockerfile: str
    ) -> Iterator[str]:
        """Build an image; yield lines of progress.

        Parameters
        ----------
        context
            A tar archive, open for reading.
        """
        with self._errors(f"build image {tag!r}"):
            events = self._api.build(
                fileobj=context,
                custom_context=True,
                dockerfile=dockerfile,
                tag=tag,
                buildargs=dict(arguments),
                labels=dict(labels),
                network_mode="none",
                rm=True,
                forcerm=True,
                decode=True,
            )
            for event in events:
                if "error" in event:
                    raise DaemonError(f"cannot build image {tag!r}: {_with_advice(event['error'].strip())}")
                if text := event.get("stream", "").strip():
                    yield text

    def tag(self, reference: str, name: str) -> None:
        """Give an image a further name; without a tag in it, ``latest``."""
        repository, colon, tag = name.rpartition(":")
        if not colon or "/" in tag:
            repository, tag = name, "latest"
        with self._errors(f"name image {reference!r} {name!r}", reference):
            self._api.tag(reference, repository, tag)

    def run(self, reference: str, command: Sequence[str]) -> str:
        """Run a program in a new container without a network; return its standard output."""
        with self._errors(f"run {command[0]} in image {reference!r}", reference):
            host = self._api.create_host_config(
                network_mode="none", cap_drop=["ALL"], ulimits=_ulimits(FILE_DESCRIPTORS)
            )
            created = self._api.create_container(
                reference, entrypoint=[command[0]], command=list(command[1:]), host_config=host
            )
            try:
                self._api.start(created["Id"])
                self._api.wait(created["Id"])
                output: bytes = self._api.logs(created["Id"], stdout=True, stderr=False)
                return output.decode(errors="replace").strip()
            finally:
                self._api.remove_container(created["Id"], force=True, v=True)

    @contextlib.contextmanager
    def _errors(self, doing: str, image: str = "", *, missing_ok: bool = False) -> Iterator[None]:
        """Raise docker-py's errors as `DaemonError`; with `missing_ok`, a missing container is as good as removed."""
        try:
            yield
        except self._failures as error:
            # Not there, not running, or being removed by somebody else.
            if not (missing_ok and _status(error) in (_NOT_FOUND, _CONFLICT)):
                raise self._translate(error, doing, image) from None

    def _no_connection(self, error: BaseException) -> DaemonError:
        text = str(error)
        if "PermissionError" in text or "Permission denied" in text:
            return DaemonError(
                f"no permission to use the container daemon at {self.url}: run as root, or join the group of "
                f"{self.socket_path} (on Debian: usermod -aG docker USER, then log in again)"
            )
        return DaemonError(
            f"no container daemon answers at {self.url}: start one (systemctl start docker), or set DOCKER_HOST to "
            "its socket, for example unix:///run/podman/podman.sock; fmi-emulator doctor shows what is missing"
        )

    def _lost_connection(self, error: BaseException) -> DaemonError:
        if "timed out" in str(error):
            return DaemonError(
                f"the container daemon at {self.url} did not answer within {_TIMEOUT_S} s: read its log "
                "(journalctl -u docker), and start it again"
            )
        return DaemonError(
            f"the container daemon at {self.url} has stopped: start it (systemctl start docker), and run again; "
            "the next run removes what is left"
        )

    def _translate(self, error: BaseException, doing: str, image: str) -> Exception:
        """Return the error to raise for one of docker-py or of the connection."""
        errors = self._docker.errors
        if not isinstance(error, errors.APIError):
            return self._lost_connection(error)
        text = str(error.explanation or error)
        if image and _status(error) == _NOT_FOUND and ("No such image" in text or "no such image" in text):
            return ImageMissingError(
                f"image {image!r} is not here: build it (fmi-emulator image build), or docker pull {image}"
            )
        if "exec format error" in text:
            return DaemonError(f"image {image!r} has programs of another architecture: expected {os.uname().machine}")
        if (what := _entrypoint_error(text)) is not None:
            return InvalidEntrypointError(what)
        return DaemonError(f"cannot {doing}: {_with_advice(text)}")


def _ulimits(open_files: int) -> list[dict[str, str | int]]:
    """Return the limits of a container's processes.

    Those that are not sent are the daemon's own, which podman may not set where it lacks CAP_SYS_RESOURCE.
    """
    _, processes = resource.getrlimit(resource.RLIMIT_NPROC)
    processes = _USER_PROCESSES if processes == resource.RLIM_INFINITY else min(processes, _USER_PROCESSES)
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY:
        open_files = min(open_files, files)
    return [
        {"Name": name, "Soft": count, "Hard": count} for name, count in (("nofile", open_files), ("nproc", processes))
    ]


def _status(error: BaseException) -> int:
    """Return the HTTP status of the daemon's answer; 0 if there was none."""
    response = getattr(error, "response", None)
    return 0 if response is None else int(response.status_code)


def _gateway_of(config: Mapping[str, str]) -> str:
    """Return the gateway of a network; podman leaves it out where it is the first address."""
    if gateway := config.get("Gateway", ""):
        return gateway.partition("/")[0]
    return str(next(ipaddress.ip_network(config["Subnet"]).hosts()))


def _entrypoint_error(text: str) -> str | None:
    """Return AWS's message where a container's program cannot be started; None for any other error."""
    if "chdir to cwd" in text or "Cwd must be an absolute path" in text or "invalid working directory" in text.lower():
        return f"Couldn't use the working directory: {text.rpartition(': chdir')[2].strip() or text}"
    if "executable file not found" in text or "no such file or directory" in text:
        program = text.partition('exec: "')[2].partition('"')[0] or "entrypoint"
        return f"fork/exec {program}: no such file or directory"
    if "permission denied" in text and "exec" in text:
        program = text.partition('exec: "')[2].partition('"')[0] or "entrypoint"
        return f"fork/exec {program}: permission denied"
    if "No command specified" in text or "no command or entrypoint" in text:
        return "the image has neither an entry point nor a command: set ImageConfig, or ENTRYPOINT in its Dockerfile"
    return None


def _with_advice(text: str) -> str:
    """Add what to do about an error that has a known cause."""
    if "no space left on device" in text:
        return f"{text}: the daemon's disk is full; free space there, for example with docker system prune"
    if "non-overlapping IPv4" in text or "address pools" in text or "Pool overlaps" in text:
        return (
            f"{text}: all address ranges of the daemon are in use; remove unused networks (docker network prune), or "
            "extend default-address-pools in daemon.json"
        )
    if "is already in use" in text or "already exists" in text:
        return f"{text}: remove the other one (docker ps -a, docker network ls)"
    return text
