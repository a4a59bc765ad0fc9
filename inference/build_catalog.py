"""Rebuild the table of galaxies from the kcorrect wheel: ``python -m inference.build_catalog WHEEL``.

The wheel is kcorrect 5.1.9 from PyPI (``pip download --no-deps kcorrect==5.1.9``). No other input is needed.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import zipfile
from pathlib import Path

import numpy as np

from inference import catalog
from inference.errors import CatalogError

MEMBER = "kcorrect/data/test/gst_tests_small.fits"
MEMBER_SHA256 = "d7e87e8abc45167e48889a0e824870760a2e6dde20650a6e41a72164859bf578"

# One row of the FITS binary table, 160 bytes, big-endian (FITS standard 4.0, section 7.3), after its TTYPEn and
# TFORMn cards.
ROW = np.dtype(
    [
        ("RA", ">f8"),
        ("DEC", ">f8"),
        ("MODELFLUX", ">f4", 5),
        ("MODELFLUX_IVAR", ">f4", 5),
        ("PETROFLUX", ">f4", 5),
        ("PETROFLUX_IVAR", ">f4", 5),
        ("EXTINCTION", ">f4", 5),
        ("Z", ">f4"),
        ("TWOMASS_AND_GALEX", ">f4", 10),
    ]
)
TABLE_OFFSET = 3 * 2880  # one header block of the primary HDU, two of the table's
N_ROWS = 10_000


def build(wheel: Path, out: Path) -> int:
    """Write the table of usable galaxies and return their number.

    A galaxy is usable if its model flux is positive in every band: a magnitude is the logarithm of a flux.

    Raises
    ------
    CatalogError
        The wheel does not contain the table that this module reads.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(MEMBER)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise CatalogError(f"{wheel}: expected the kcorrect 5.1.9 wheel, which contains {MEMBER}: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != MEMBER_SHA256:
        raise CatalogError(f"{wheel}: expected {MEMBER} of kcorrect 5.1.9 with SHA-256 {MEMBER_SHA256}, got {digest}")
    table = np.frombuffer(content, dtype=ROW, count=N_ROWS, offset=TABLE_OFFSET)
    usable = table[(table["MODELFLUX"] > 0).all(axis=1)]
    np.savez_compressed(
        out,
        flux=usable["MODELFLUX"].astype(np.float32),
        extinction_r=usable["EXTINCTION"][:, catalog.R_BAND].astype(np.float32),
        z_spec=usable["Z"].astype(np.float32),
        ra=usable["RA"].astype(np.float32),
        dec=usable["DEC"].astype(np.float32),
    )
    return len(usable)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m inference.build_catalog", description=__doc__)
    parser.add_argument("wheel", type=Path, help="kcorrect-5.1.9-py3-none-any.whl")
    parser.add_argument("--out", type=Path, default=catalog.TABLE, help="the table to write (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        galaxies = build(options.wheel, options.out)
    except CatalogError as error:
        sys.exit(str(error))
    print(f"{options.out}: {galaxies} galaxies, {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
