"""What is asked for: lists of packages that people use, and courses that share most of theirs."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

from hpcbinder.config import load
from hpcbinder.lock import Resolver
from hpcbinder.model import Lock, Wanted
from hpcbinder.progress import Silent
from tests.installed_tree import PYTHON

SCIENCE = tuple(Path(__file__).with_name("science.txt").read_text().split())
MORE = tuple(Path(__file__).with_name("more.txt").read_text().split())
"""What, with SCIENCE, brings more than 400 packages."""

ENVIRONMENTS = {
    "science": SCIENCE,
    "data": (
        *("jupyterlab", "ipympl", "ipywidgets", "jupyterlab-git", "altair", "beautifulsoup4", "bokeh", "bottleneck"),
        *("cloudpickle", "cython", "dask", "dill", "h5py", "matplotlib", "numba", "numexpr", "openpyxl", "pandas"),
        *("patsy", "protobuf", "tables", "scikit-image", "scikit-learn", "scipy", "seaborn"),
        *("sqlalchemy", "statsmodels", "sympy", "widgetsnbextension", "xlrd", "pyarrow", "polars", "duckdb"),
    ),
    "earth": (
        *("jupyterlab", "ipyleaflet", "xarray", "dask", "distributed", "zarr", "netcdf4", "h5netcdf", "cftime"),
        *("cartopy", "geopandas", "rasterio", "rioxarray", "pyproj", "shapely", "fiona", "folium", "metpy", "eofs"),
        *("pystac-client", "intake", "s3fs", "gcsfs", "hvplot", "panel", "datashader", "regionmask", "xgcm", "gsw"),
        *("scikit-learn", "statsmodels", "siphon", "odc-stac", "geoviews"),
    ),
    "life": (
        *("jupyterlab", "scanpy", "anndata", "leidenalg", "umap-learn", "biopython", "pysam", "mdanalysis", "rdkit"),
        *("scikit-bio", "cooler", "pyranges", "seaborn", "plotly", "igraph"),
        *("harmonypy", "bioservices", "pydeseq2", "mudata", "spatialdata", "napari-spatialdata"),
    ),
}
"""Name -> what somebody would ask for: the science list, and what notebooks for data, the earth's and life sciences
have. Each brings 150 to 300 packages."""

CORE = (
    *("numpy", "pandas", "matplotlib", "scipy", "scikit-learn", "seaborn", "ipywidgets", "requests", "tqdm", "sympy"),
    *("jupytext", "nbformat", "openpyxl", "pyyaml", "h5py"),
)
"""What every course has."""
_ELECTIVE = (
    *("networkx", "statsmodels", "plotly", "altair", "bokeh", "xarray", "dask", "nltk", "gensim", "scikit-image"),
    *("biopython", "astropy", "geopandas", "folium", "numba", "sqlalchemy", "duckdb", "polars", "lmfit", "emcee"),
    *("pymc", "cvxpy", "pulp", "simpy", "mesa", "pillow", "imageio", "beautifulsoup4", "lxml", "fastapi"),
)


def course(number: int) -> tuple[str, ...]:
    """What one course asks for: what all do, and three of its own; the same for the same number."""
    return (*CORE, *random.Random(number).sample(_ELECTIVE, 3))


def resolve(names: Sequence[str], store: Path) -> Lock:
    """The lock of some packages for Debian bookworm and the Python that runs us.

    Args:
        store: Folder that keeps it, so that a second call is quick.
    """
    wanted = Wanted(
        ecosystem="pypi",
        requirements=tuple(names),
        constraints=(),
        elsewhere=(),
        prereleases=False,
        python=PYTHON,
        architecture="amd64" if os.uname().machine == "x86_64" else "arm64",
        suite="bookworm",
        source="",
    )
    return Resolver(store, load().site, refresh=False, reporter=Silent())(wanted)


def requirements(lock: Lock) -> str:
    """A lock as a requirements file with hashes."""
    lines = (f"{p.name}=={p.version} {' '.join(f'--hash={value}' for value in p.hashes)}\n" for p in lock.packages)
    return "".join(lines)
