"""The result of `understudy.fit`: a stack of calibrated surrogates of one table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from understudy.core import artifact, warp
from understudy.core.artifact import Artifact, ArtifactError
from understudy.core.errors import UserError
from understudy.core.predictive import Predictive
from understudy.core.space import Space
from understudy.core.surrogate import Surrogate
from understudy.core.warp import Warp, WarpedPredictive
from understudy.data.table import Note, encode_new
from understudy.models.tabular.conformal import LEVELS, Conformal

if TYPE_CHECKING:
    from botorch.posteriors import Posterior

KIND = "surrogate"
CONTENT = 1
"""Version of what a file holds; another than this is refused."""

_DRAWN_CELLS = 25_000_000  # of functions drawn for sensitivities: 200 MB
_DAMAGE = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
)


class FittedSurrogate(Surrogate):
    """A weighted stack of surrogates with conformal intervals, for one table.

    Inputs are in the code units of `space`: numbers as they are, categories by their index
    (`space.encode` turns a DataFrame into them). As any scikit-learn regressor it can also be
    made by hand and fitted to arrays.

    Parameters
    ----------
    budget : float
        Seconds that fitting may take.
    metric : {"nlpd", "rmse", "crps"}
        What selection and stacking minimise on rows that a model has not seen.
    calibration : {"cross-validation", "split"}
        Which unseen rows set the widths of intervals; see `understudy.fit`.
    members : sequence of str, optional
        Names of the candidates to consider; the whole portfolio by default.
    seed : int
        Of every random choice.

    Attributes
    ----------
    space : Space
        Names, kinds and ranges of the inputs.
    targets : tuple of str
        Names of the outputs.
    members_ : list of (str, Surrogate)
        The models in the stack.
    weights_ : Tensor (J, m)
        Share of each model in each output.
    warps : tuple of Warp
        Transform of each output.
    leaderboard, evaluation, held_out, training : DataFrame
        How the candidates compare; scores; predictions of unseen rows; the table learnt from.
    notes : tuple of Note
        What was noticed in the table.
    settings : dict
        How it was made: rows, seconds, seed, versions.
    """

    sensitivity_: pd.DataFrame | None

    def __init__(
        self,
        *,
        budget: float = 120.0,
        metric: str = "nlpd",
        calibration: str = "cross-validation",
        members: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        self.budget = budget
        self.metric = metric
        self.calibration = calibration
        self.members = members
        self.seed = seed

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit to arrays: numeric inputs X (n, d) and outputs y (n,) or (n, m)."""
        from understudy.models.tabular.training import train_on_arrays

        self._start(X, y)  # scikit-learn's checks and attributes
        train_on_arrays(self, np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64))
        return self

    def calibrate(self, X: ArrayLike, y: ArrayLike) -> Conformal:
        """Set the widths of intervals by rows that this surrogate has not learnt from.

        This is split conformal prediction: over rows drawn as these and later ones, an interval
        at level p covers with probability at least p (Vovk et al. 2005).

        Parameters
        ----------
        X : array (n, d)
            Code units.
        y : array (n,) or (n, m)
        """
        Y = torch.from_numpy(np.asarray(y, dtype=np.float64)).reshape(-1, len(self.targets))
        self._conformal = Conformal.calibrate(self.predictive(X).cdf(Y))
        return self._conformal

    @property
    def calibration_rows(self) -> int:
        """Number of rows that the widths of intervals rest on."""
        return self._conformal.rows

    @property
    def conformal(self) -> Conformal:
        """Calibration of the intervals."""
        return self._conformal

    @property
    def widening(self) -> Tensor:
        """Factors (m,) by which the stack's predictive is widened before it is calibrated."""
        return self._factor

    # -- predictions --------------------------------------------------------------------------

    @torch.no_grad()
    def predictive(self, X: ArrayLike) -> WarpedPredictive:  # type: ignore[override]
        """Marginal distribution of new observations at X (n, d) code units, in output units."""
        parts = [self._latent(rows) for rows in self._rows(X)]
        whole = parts[0] if len(parts) == 1 else Predictive.concatenate(parts)
        return self._in_output_units(whole)

    def predict(
        self, X: ArrayLike, return_std: bool = False
    ) -> NDArray[np.float64] | tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean of new observations at X (n, d) code units; with its standard deviation if asked."""
        if not return_std:
            return self._shaped(self.mean(X))
        both = []
        for rows in self._rows(X):
            marginals = self._in_output_units(self._latent(rows))
            both.append((marginals.mean, marginals.sd))
        mean, sd = (self._shaped(torch.cat(parts)) for parts in zip(*both, strict=True))
        return mean, sd

    @torch.no_grad()
    def mean(self, X: ArrayLike, outputs: Tensor | None = None) -> Tensor:
        """Mean of new observations at X (n, d) code units, in output units.

        Parameters
        ----------
        X : array (n, d)
        outputs : LongTensor (k,), optional
            Only these of the m outputs.

        Returns
        -------
        Tensor (n, k)
        """
        check_is_fitted(self, "n_outputs_")
        at = torch.arange(len(self.targets)) if outputs is None else outputs
        return torch.cat([self._means(rows) for rows in self._rows(X)])[:, at]

    def _means(self, rows: Tensor) -> Tensor:
        """Means (n, m); the spread is looked at only where a transform makes the mean need it."""
        features = self.space.features(rows).numpy()
        plain = torch.tensor([each.name == "identity" for each in self.warps])
        mean = torch.zeros(len(rows), len(plain), dtype=torch.float64)
        for (_, member), weight in zip(self.members_, self.weights_, strict=True):
            at = torch.nonzero(plain & (weight > 0))[:, 0]
            if len(at):
                mean[:, at] += weight[at] * member.mean(features, at)
        bent = torch.nonzero(~plain)[:, 0]
        if len(bent):
            mean[:, bent] = self._bent_means(features, bent)
        return mean

    def _bent_means(self, features: NDArray[np.float64], outputs: Tensor) -> Tensor:
        """Means (n, k) of outputs (k,) that are transformed."""
        used = torch.nonzero((self.weights_[:, outputs] > 0).any(1))[:, 0]
        parts = [self.members_[j][1].predictive(features, outputs) for j in used.tolist()]
        latent = Predictive.stack(parts, self.weights_[used][:, outputs])
        warps = tuple(self.warps[j] for j in outputs.tolist())
        return WarpedPredictive(latent.widened(self._factor[outputs]), warps).mean

    @torch.no_grad()
    def intervals(
        self, X: ArrayLike, levels: Sequence[float] = LEVELS
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Calibrated intervals of new observations at X (n, d) code units.

        Returns
        -------
        tuple of ndarray (l, n, m)
            Lower and upper ends for each of the l coverage levels in (0, 1).
        """
        bad = [level for level in levels if not 0.0 < level < 1.0]
        if bad:
            raise UserError(f"an interval level must lie between 0 and 1, got {bad[0]}")
        ends = [self._ends(self._in_output_units(self._latent(r)), levels) for r in self._rows(X)]
        lower, upper = zip(*ends, strict=True)
        return torch.cat(lower, dim=1).numpy(), torch.cat(upper, dim=1).numpy()

    def predict_table(self, data: pd.DataFrame) -> pd.DataFrame:
        """Predict the rows of a table that has the input columns.

        Returns
        -------
        DataFrame
            For each target ``y_mean``, ``y_sd`` and ``y_lower_50``, ``y_upper_50``, ... for the
            levels 50, 80, 90 and 95; and ``extrapolation``, the names of the inputs that lie
            outside the training range ("" where none does). Where cells were empty, also
            ``filled_in``, the inputs that were given their usual value. Indexed as the data.
        """
        new = encode_new(self.space, self.fill, data)
        table = pd.DataFrame(self.columns(new.X), index=data.index)
        table["extrapolation"] = self._named(new.outside)
        if new.imputed.any():
            table["filled_in"] = self._named(new.imputed)
        return table

    def columns(
        self, X: ArrayLike, levels: Sequence[float] = LEVELS
    ) -> dict[str, NDArray[np.float64]]:
        """Predictions at X (n, d) code units by the names of columns.

        Returns
        -------
        dict of str to ndarray (n,)
            For each target ``y_mean``, ``y_sd``, and ``y_lower_L`` and ``y_upper_L`` for each
            level L in per cent.
        """
        parts = [self._columns(rows, levels) for rows in self._rows(X)]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _named(self, cells: NDArray[np.bool_]) -> list[str]:
        """Names of the marked inputs of each row."""
        texts = [""] * len(cells)
        names = np.asarray(self.space.names, dtype=object)
        for row in np.flatnonzero(cells.any(axis=1)):
            texts[row] = ", ".join(names[cells[row]])
        return texts

    @torch.no_grad()
    def _columns(self, rows: Tensor, levels: Sequence[float]) -> dict[str, NDArray[np.float64]]:
        marginals = self._in_output_units(self._latent(rows))
        mean, sd = marginals.mean, marginals.sd
        lower, upper = self._ends(marginals, levels) if levels else (mean[:0], mean[:0])
        columns = {}
        for j, target in enumerate(self.targets):
            columns[f"{target}_mean"] = mean[:, j].numpy()
            columns[f"{target}_sd"] = sd[:, j].numpy()
            for at, level in enumerate(levels):
                columns[f"{target}_lower_{100 * level:.6g}"] = lower[at, :, j].numpy()
                columns[f"{target}_upper_{100 * level:.6g}"] = upper[at, :, j].numpy()
        return columns

    def posterior(self, X: Tensor, observation_noise: bool = False) -> Posterior:
        """Joint posterior at X (*batch, q, d) code units, differentiable in numeric inputs."""
        from botorch.posteriors.transformed import TransformedPosterior

        from understudy.core.posterior import MixturePosterior

        features = self.space.features(X.to(torch.float64))
        parts = [member.posterior(features, observation_noise) for _, member in self.members_]
        mixture = parts[0] if len(parts) == 1 else MixturePosterior(parts, self.weights_)
        if all(each.name == "identity" for each in self.warps) and bool((self._factor == 1).all()):
            return mixture
        mean = mixture.mean

        def outputs(z: Tensor) -> Tensor:
            spread = mean + self._factor * (z - mean)
            columns = [each.inverse(spread[..., j]) for j, each in enumerate(self.warps)]
            return torch.stack(columns, dim=-1)

        def moments(z_mean: Tensor, z_variance: Tensor) -> WarpedPredictive:
            shape = (-1, z_mean.shape[-1])
            sd = self._factor * z_variance.clamp_min(1e-30).sqrt()
            gaussian = Predictive.gaussian(z_mean.reshape(shape), sd.reshape(shape))
            return WarpedPredictive(gaussian, self.warps)

        return TransformedPosterior(
            mixture,
            sample_transform=outputs,
            mean_transform=lambda m, v: moments(m, v).mean.reshape(m.shape),
            variance_transform=lambda m, v: moments(m, v).sd.square().reshape(m.shape),
        )

    def functions(self, count: int = 64, seed: int = 0) -> Callable[[ArrayLike], Tensor] | None:
        """Draw functions from the stack's posterior, without noise, to be evaluated anywhere.

        Each is a function of one member, picked for each output by the members' weights; of a
        member that has none to draw, trees, it is the mean. `drawn_share` says how much that is.

        Parameters
        ----------
        count : int
            Functions.
        seed : int

        Returns
        -------
        callable or None
            Maps X (n, d) code units to values (count, n, m) of the same functions at every call;
            None where no member has functions.
        """
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand((count, 1, len(self.targets)), generator=generator)
        picks = (uniform >= self.weights_.cumsum(0)[:-1].unsqueeze(1).unsqueeze(1)).sum(0)
        used = [j for j in range(len(self.members_)) if bool((picks == j).any())]
        drawn = {j: self.members_[j][1].functions(count, seed + j) for j in used}
        if all(each is None for each in drawn.values()):
            return None

        def some(rows: Tensor) -> Tensor:
            features = self.space.features(rows).numpy()
            latent = torch.zeros(count, len(rows), len(self.targets), dtype=torch.float64)
            means = torch.stack([member.mean(features) for _, member in self.members_])
            mean = (self.weights_.unsqueeze(1) * means).sum(0)
            for j, functions in drawn.items():
                values = means[j].unsqueeze(0) if functions is None else functions(features)
                latent = torch.where(picks == j, values[torch.arange(count) % len(values)], latent)
            spread = mean + self._factor * (latent - mean)
            columns = [each.inverse(spread[..., j]) for j, each in enumerate(self.warps)]
            return torch.stack(columns, dim=-1)

        @torch.no_grad()
        def evaluate(X: ArrayLike) -> Tensor:
            return torch.cat([some(rows) for rows in self._rows(X)], dim=1)

        return evaluate

    @property
    def drawn_share(self) -> NDArray[np.float64]:
        """Share of each output's weight (m,) that is of members with functions to draw."""
        known = [member.functions(1) is not None for _, member in self.members_]
        return self.weights_[torch.tensor(known)].sum(0).numpy()

    def slices(self, points: int = 41) -> pd.DataFrame:
        """Predictions along each input, the others at their median (or most frequent level).

        Returns
        -------
        DataFrame
            Long: target, input, value, mean, lower_90, upper_90.
        """
        encoded = self.space.encode(self.training[self.space.names])
        centre = np.median(encoded, axis=0)
        for k, item in enumerate(self.space):
            if hasattr(item, "choices"):
                centre[k] = np.bincount(encoded[:, k].astype(int)).argmax()
        return pd.concat([self._slice(k, centre, points) for k in range(len(self.space))])

    def _slice(self, k: int, centre: NDArray[np.float64], points: int) -> pd.DataFrame:
        item = self.space[self.space.names[k]]
        whole = item.kind == "integer"
        unit = torch.linspace(0.0, 1.0, points, dtype=torch.float64)
        grid = self.space.from_unit(unit.unsqueeze(1).expand(-1, len(self.space)))[:, k].numpy()
        if whole:
            grid = np.unique(np.round(grid))
        if hasattr(item, "choices"):
            grid = np.arange(len(item.choices), dtype=np.float64)
        X = np.tile(centre, (len(grid), 1))
        X[:, k] = grid
        lower, upper = self.intervals(X, (0.9,))
        mean = torch.as_tensor(self.predict(X)).reshape(len(grid), -1).numpy()
        value = self.space.decode(X)[item.name].to_numpy()
        return pd.concat(
            [
                pd.DataFrame(
                    {
                        "target": target,
                        "input": item.name,
                        "value": value,
                        "mean": mean[:, j],
                        "lower_90": lower[0, :, j],
                        "upper_90": upper[0, :, j],
                    }
                )
                for j, target in enumerate(self.targets)
            ]
        )

    def sensitivity(self, n: int = 1024, seed: int = 0) -> pd.DataFrame:
        """Sobol first and total indices of every input for every target, with 95 % intervals.

        Parameters
        ----------
        n : int
            Base samples, a power of two; the surrogate is evaluated n (d + 2) times.
        seed : int
            Of the quasi-random design.

        Returns
        -------
        DataFrame
            As by `sobol_indices`. The intervals hold Monte Carlo error and the surrogate's own
            uncertainty, by functions drawn from its posterior; trees know no such functions, and
            the column ``interval`` says where that leaves a part out.
        """
        from understudy.models.tabular.sensitivity import DRAW_ROWS, sobol_indices

        cells = DRAW_ROWS * (len(self.space) + 2) * len(self.targets)
        drawn = self.functions(int(np.clip(_DRAWN_CELLS // cells, 8, 64)), seed)
        table = sobol_indices(
            lambda X: self.mean(X).numpy(),
            self.space,
            n=n,
            seed=seed,
            targets=self.targets,
            draws=None if drawn is None else lambda X: drawn(X).numpy(),
            drawn=self.drawn_share,
        )
        self.sensitivity_ = table
        return table

    # -- on disk ------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write this surrogate to one ``.us`` file (no pickle, no code)."""
        heads, tensors = [], {}
        for at, (name, member) in enumerate(self.members_):
            head, state = member.state()
            heads.append({"name": name, **head})
            tensors.update({f"member.{at}.{key}": value for key, value in state.items()})
        tensors |= {"weights": self.weights_, "factor": self._factor}
        tensors["conformal.radius"] = self._conformal.radius
        manifest = {
            "kind": KIND,
            "content": CONTENT,
            "params": {**self.get_params(deep=False), "members": _listed(self.members)},
            "space": json.loads(self.space.to_json()),
            "fill": self.fill,
            "targets": list(self.targets),
            "members": heads,
            "warps": [warp.to_json(each) for each in self.warps],
            "conformal": {"levels": list(self._conformal.levels), "rows": self._conformal.rows},
            "one_dimensional": self._one_dimensional,
            "notes": [asdict(note) for note in self.notes],
            "settings": self.settings,
        }
        tables = {
            "leaderboard": self.leaderboard,
            "evaluation": self.evaluation,
            "held_out": self.held_out,
            "training": self.training,
        }
        if self.sensitivity_ is not None:
            tables["sensitivity"] = self.sensitivity_
        return artifact.write(Path(path), manifest, tensors, tables)

    @classmethod
    def load(cls, path: str | Path) -> FittedSurrogate:
        """Read a surrogate from a ``.us`` file."""
        from understudy.models.tabular.portfolio import MODELS

        stored = artifact.read(Path(path))
        kind, content = stored.manifest.get("kind"), stored.manifest.get("content", CONTENT)
        if kind != KIND:
            fields = kind in ("operator", "sound-operator", "prose")
            way = "; understudy.load_operator reads it" if fields else ""
            raise UserError(f"{path} holds a {kind!r}, not a surrogate of a table{way}")
        if content != CONTENT:
            raise ArtifactError(
                f"{path} has content of version {content!r}, this version of Understudy reads "
                f"{CONTENT}"
            )
        try:
            return cls._restored(stored, MODELS)
        except UserError as error:
            raise ArtifactError(f"{path}: {error}") from error
        except _DAMAGE as error:
            raise ArtifactError(
                f"{path} holds a surrogate whose parts do not fit together "
                f"({type(error).__name__}: {error})"
            ) from error

    @classmethod
    def _restored(cls, stored: Artifact, models: Mapping[str, type[Surrogate]]) -> FittedSurrogate:
        manifest, tensors = stored.manifest, stored.tensors
        model = cls(**manifest["params"])
        members = []
        for at, head in enumerate(manifest["members"]):
            if head["class"] not in models:
                raise UserError(f"it needs a model this version has not: {head['class']!r}")
            prefix = f"member.{at}."
            state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            members.append((head["name"], models[head["class"]].from_state(head, state)))
        conformal = manifest["conformal"]
        radius = tensors["conformal.radius"]
        model._become(
            space=Space.from_json(json.dumps(manifest["space"])),
            fill=manifest["fill"],
            targets=tuple(manifest["targets"]),
            members=members,
            weights=tensors["weights"],
            warps=tuple(warp.from_json(item) for item in manifest["warps"]),
            factor=tensors["factor"],
            conformal=Conformal(tuple(conformal["levels"]), radius, conformal["rows"]),
            one_dimensional=manifest["one_dimensional"],
        )
        model.notes = tuple(
            Note(**{**note, "columns": tuple(note["columns"])}) for note in manifest["notes"]
        )
        model.settings = manifest["settings"]
        model.leaderboard = stored.tables["leaderboard"]
        model.evaluation = stored.tables["evaluation"]
        model.held_out = stored.tables["held_out"]
        model.training = stored.tables["training"]
        model.sensitivity_ = stored.tables.get("sensitivity")
        model._check_parts()
        return model

    def _check_parts(self) -> None:
        """Refuse parts that do not fit together: tables, shapes, and one prediction."""
        from understudy.models.tabular.contents import check_contents

        check_contents(self)
        if not isinstance(self._one_dimensional, bool):
            raise ValueError(f"one_dimensional is {self._one_dimensional!r}")
        members, outputs = len(self.members_), len(self.targets)
        wanted = {
            "weights": (self.weights_, (members, outputs)),
            "factor": (self._factor, (outputs,)),
            "radius": (self._conformal.radius, (len(self._conformal.levels), outputs)),
        }
        for name, (tensor, shape) in wanted.items():
            if tensor.shape != shape:
                raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, not {shape}")
        centre = self.space.from_unit(torch.full((1, len(self.space)), 0.5, dtype=torch.float64))
        lower, _ = self.intervals(centre.numpy())
        mean = self.mean(centre)
        if lower.shape != (len(LEVELS), 1, outputs) or mean.shape != (1, outputs):
            raise ValueError(f"predictions have the shapes {lower.shape} and {tuple(mean.shape)}")
        if np.isnan(lower).any() or bool(mean.isnan().any()):
            raise ValueError("predictions are no numbers")

    # -- plumbing -----------------------------------------------------------------------------

    def _become(
        self,
        *,
        space: Space,
        fill: dict[str, Any],
        targets: tuple[str, ...],
        members: list[tuple[str, Surrogate]],
        weights: Tensor,
        warps: tuple[Warp, ...],
        factor: Tensor,
        conformal: Conformal,
        one_dimensional: bool,
    ) -> None:
        """Take the fitted state."""
        self.space, self.fill, self.targets = space, fill, targets
        self.members_, self.weights_, self.warps = members, weights, warps
        self._factor, self._conformal = factor, conformal
        self._one_dimensional = one_dimensional
        self.n_features_in_, self.n_outputs_ = len(space), len(targets)
        self.sensitivity_ = None

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs."""
        return self.space.names

    def _rows(self, X: ArrayLike) -> tuple[Tensor, ...]:
        return torch.from_numpy(self._checked(X)).split(self.chunk_rows)

    def _latent(self, rows: Tensor) -> Predictive:
        """Stacked and widened predictive of (transformed) outputs at a chunk of rows."""
        features = self.space.features(rows).numpy()
        parts = [member.predictive(features) for _, member in self.members_]
        return Predictive.stack(parts, self.weights_).widened(self._factor)

    def _in_output_units(self, latent: Predictive) -> WarpedPredictive:
        return WarpedPredictive(latent, self.warps)

    def _ends(self, marginals: WarpedPredictive, levels: Sequence[float]) -> tuple[Tensor, Tensor]:
        low, high = self._conformal.probabilities(tuple(levels))
        rows, outputs = marginals.mean.shape
        shape = (len(levels), rows, outputs)
        both = torch.cat([low.unsqueeze(1).expand(shape), high.unsqueeze(1).expand(shape)])
        ends = marginals.quantile(both)
        return ends[: len(levels)], ends[len(levels) :]


def _listed(members: Sequence[str] | None) -> list[str] | None:
    return None if members is None else list(members)


def load(path: str | Path) -> FittedSurrogate:
    """Read a surrogate from a ``.us`` file."""
    return FittedSurrogate.load(path)
