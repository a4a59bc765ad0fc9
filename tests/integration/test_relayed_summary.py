"""What becomes of a rank's report that it reached another one through the relay alone.

That ranks make this report behind NATs which cannot be punched through is for `tests.network.test_nat`; here they
make it by themselves, since on one machine every rank can reach every other.
"""

from pathlib import Path

from tests.integration.fmirun import fmirun


def test_relayed_pairs_are_in_the_runs_summary(tmp_path: Path) -> None:
    script = tmp_path / "program" / "main.py"
    script.parent.mkdir()
    script.write_text(
        "import os\n"
        "from fmi_shim.pairing.rendezvous_client import report_relayed\n"
        "rank = int(os.environ['RANK'])\n"
        "if rank < 2: report_relayed(rank, 1 - rank, '203.0.113.10:10000')\n"
    )
    status, output, errors = fmirun(tmp_path, "-n", 3, script)
    assert status == 0
    assert "rank 0 and rank 1 are connected through the relay" in output
    summary = "1 pair of ranks was relayed through the rendezvous server, slower than a direct connection: 0-1"
    assert errors.splitlines().count(summary) == 1
