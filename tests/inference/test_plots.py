from __future__ import annotations

import struct
import subprocess
import sys

import numpy as np
import pytest

from inference import plots
from inference.errors import MetricsError


@pytest.mark.parametrize("n", [1, 3, 50, 5000])
def test_the_figure_is_a_png_of_the_expected_size(n: int) -> None:
    generator = np.random.default_rng(n)
    z_spec = generator.uniform(0.02, 0.35, n)
    z_phot = z_spec + generator.normal(0.0, 0.02, n)
    content = plots.draw(z_spec, z_phot, generator.uniform(14.0, 18.0, n))
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert width > 1200
    assert height > 700
    assert len(content) > 20_000


def test_perfect_redshifts_can_be_drawn() -> None:
    z = np.linspace(0.05, 0.3, 40)
    assert plots.draw(z, z, np.full(40, 17.0)).startswith(b"\x89PNG")


def test_drawing_no_galaxies_is_an_error() -> None:
    with pytest.raises(MetricsError, match="at least one galaxy"):
        plots.draw(np.empty(0), np.empty(0), np.empty(0))


def test_importing_the_module_does_not_import_matplotlib() -> None:
    check = "import sys, inference.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
