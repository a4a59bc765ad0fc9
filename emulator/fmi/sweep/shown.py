"""What the page of a running cloud shows of a sweep: objects in a bucket of it, replaced after each run."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from emulator.fmi.aws_session import AwsSession

BUCKET = "fmi-sweeps"
TABLE, STATUS = "sweep.csv", "status.json"


@dataclass(frozen=True)
class SweepStatus:
    """How far a sweep is.

    Parameters
    ----------
    done, total
        Numbers of runs.
    current
        The settings of the run that has started; empty after the last.
    words
        What the runs say about growth with the world size; empty if they have one world size.
    """

    done: int
    total: int
    current: str = ""
    words: str = ""

    @classmethod
    def parse(cls, text: bytes) -> "SweepStatus":
        """Return the status in a JSON object; the inverse of `to_json`.

        Raises
        ------
        ValueError
            If it is another text.
        """
        try:
            return cls(**json.loads(text))
        except TypeError as error:
            raise ValueError(str(error)) from None

    def to_json(self) -> bytes:
        """Return the status as JSON."""
        return json.dumps(asdict(self)).encode()


class ShownSweep:
    """A sweep on the page of a cloud.

    Parameters
    ----------
    connection
        The cloud's endpoint.
    name
        The sweep's name in the page's address.
    """

    def __init__(self, connection: AwsSession, name: str) -> None:
        self._s3 = connection.client("s3")
        self._name = name
        with contextlib.suppress(self._s3.exceptions.BucketAlreadyOwnedByYou):
            self._s3.create_bucket(Bucket=BUCKET)

    def publish(self, table: str, figures: Mapping[str, bytes], status: SweepStatus) -> None:
        """Replace the table, the figures, which are PNG by axis, and the status."""
        objects = {f"{axis}.png": content for axis, content in figures.items()}
        for name, content in {**objects, TABLE: table.encode(), STATUS: status.to_json()}.items():
            self._s3.put_object(Bucket=BUCKET, Key=f"{self._name}/{name}", Body=content)
