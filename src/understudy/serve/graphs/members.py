r"""What each kind of surrogate predicts, as a function that can be a graph.

A graph knows no triangular solve, so an exact Gaussian process is written with the inverse of its
Cholesky factor, :math:`W = L^{-1}`, which is formed once:

.. math:: E[f(x)] = c + k(x)^\top \alpha, \qquad
          \mathrm{Var}[f(x)] = k(x, x) - \lVert W k(x) \rVert^2 .

The other kinds are those of `understudy.models.tabular`, less what depends on the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from scipy.linalg import lapack
from torch import Tensor

from understudy.core.bars import BarDistribution
from understudy.core.errors import UserError
from understudy.core.predictive import Predictive
from understudy.core.surrogate import Surrogate
from understudy.models.incontext.estimators import PFNSurrogate
from understudy.models.incontext.heads import Bars
from understudy.models.tabular.boosting import BoostingSurrogate, Forest, mixture
from understudy.models.tabular.deep_ensemble import DeepEnsemble, Moments
from understudy.models.tabular.deep_kernel import DeepKernelSurrogate, matern
from understudy.models.tabular.gaussian_process import GaussianProcess
from understudy.models.tabular.laplace import LaplaceSurrogate
from understudy.models.tabular.polynomial import PolynomialSurrogate, legendre
from understudy.models.tabular.scale_mixture import ScaleMixture, over_nodes
from understudy.models.tabular.sparse_gp import SparseGP

Graph: TypeAlias = Callable[[Tensor], Predictive]
"""Maps inputs U (n, d) in the unit cube to the predictive of scaled outputs (n, m)."""

MOST_CELLS = 100_000_000
"""Numbers that a graph may hold: a file of protobuf has at most 2 GB."""


def member_graph(name: str, member: Surrogate) -> Graph:
    """Return the graph of a member's predictive, from features to outputs in their own units.

    Parameters
    ----------
    name : str
        For the message.
    member : Surrogate
        Fitted.

    Raises
    ------
    UserError
        If members of its kind cannot be graphs, or it is too large.
    """
    inputs, outputs = member.input_units, member.output_units
    member.predictive(inputs.shift.unsqueeze(0))  # fills what is remembered between calls
    for kind, make in _KINDS:
        if isinstance(member, kind):
            graph = make(member)
            break
    else:
        raise UserError(
            f"the member {name!r} ({type(member).__name__}) cannot be an ONNX graph; "
            "--member exports another one by itself"
        )

    def predictive(features: Tensor) -> Predictive:
        return graph(inputs.forward(features)).affine(outputs.shift, outputs.scale)

    return predictive


def _order(outputs: list[Tensor]) -> Tensor:
    """Where to find each output among the columns of parts that have these outputs (k,)."""
    return torch.cat(outputs).argsort()


def _polynomial(member: PolynomialSurrogate) -> Graph:
    parts = []
    for r in member.regressions:
        basis, inputs = r.spectrum.basis, len(member.input_units.shift)
        order = ((basis - 1).div(inputs, rounding_mode="floor") + 1).sum(1)
        factor = 0.5 ** (order - 1).double()
        columns = [basis[:, k] for k in range(3) if k == 0 or bool(basis[:, k].any())]
        parts.append((r, columns, factor))
    order = _order([r.outputs for r in member.regressions])

    def predictive(U: Tensor) -> Predictive:
        polynomials, means, variances = legendre(U), [], []
        for r, columns, factor in parts:
            values = factor * polynomials[:, columns[0]]
            for column in columns[1:]:
                values = values * polynomials[:, column]
            features = values - r.spectrum.centre
            rotated = features @ r.spectrum.rotation
            unseen = (features.square().sum(1) - rotated.square().sum(1)).clamp_min(0.0)
            known = rotated.square() @ r.shrinkage + 1.0 / r.spectrum.rows + 1.0
            means.append(r.intercept + rotated @ r.weights)
            variances.append(r.noise * known + r.variance * unseen.unsqueeze(1))
        mean, variance = torch.cat(means, 1)[:, order], torch.cat(variances, 1)[:, order]
        return Predictive.gaussian(mean, variance.sqrt())

    return predictive


def _process(member: GaussianProcess) -> Graph:
    prior, inputs = member.process_prior, member.training_inputs
    parts, followers = [], []
    _check_size(len(member.conditioned) * len(inputs) ** 2)
    for g, part in enumerate(member.conditioned):
        whitener = torch.from_numpy(_inverse(part.factor)).T.contiguous()
        numbers = (torch.from_numpy(part.mean), torch.from_numpy(part.weights), whitener)
        parts.append((prior.kernel.process(g), float(prior.noise[g]), numbers))
        followers.append(member.followers(g))
    order, process, spread = _order(followers), prior.process, prior.spread

    def predictive(U: Tensor) -> Predictive:
        means, variances = [], []
        for kernel, noise, (mean, weights, whitener) in parts:
            cross = kernel(U, inputs)[0]
            explained = (cross @ whitener).square().sum(1)
            means.append(mean + cross @ weights)
            variances.append((kernel.diagonal(U)[0] - explained).clamp_min(0.0) + noise)
        variance = torch.stack(variances, dim=1)[:, process] * spread
        return Predictive.gaussian(torch.cat(means, dim=1)[:, order], variance.sqrt())

    return predictive


def _inverse(factor: np.ndarray) -> np.ndarray:
    """Inverse of a lower Cholesky factor, whose upper triangle is not looked at."""
    inverse, failed = lapack.dtrtri(np.tril(factor), lower=1)
    if failed:
        raise UserError("the Cholesky factor of a process cannot be inverted")
    return inverse


def _scale_mixture(member: ScaleMixture) -> Graph:
    process = _process(member)
    roots = member.scale_roots.unsqueeze(1)

    def predictive(U: Tensor) -> Predictive:
        gaussian = process(U)
        return over_nodes(gaussian.loc[0], roots * gaussian.scale[0])

    return predictive


def _sparse_process(member: SparseGP) -> Graph:
    basis, outputs = member.basis, []
    _check_size(len(member.parts) * basis.inducing.shape[1] ** 2)
    for g in range(len(member.parts)):
        outputs.append(member.followers(g))
    order = _order(outputs)

    def predictive(U: Tensor) -> Predictive:
        means, variances = [], []
        for g, part in enumerate(member.parts):
            features = basis.correlations(g, U) @ part.rotation.mT
            means.append(part.mean + features @ part.weights)
            left = (1.0 - features.square() @ part.explained).clamp_min(0.0)
            variances.append(part.outputscale * left + part.noise)
        mean, variance = torch.cat(means, 1)[:, order], torch.cat(variances, 1)[:, order]
        return Predictive.gaussian(mean, variance.sqrt())

    return predictive


def _own(member: DeepEnsemble | LaplaceSurrogate) -> Graph:
    return member.scaled_predictive


def _deep_kernel(member: DeepKernelSurrogate) -> Graph:
    process, kernel = member.process, member.process.kernel
    rows, scale, mean = process.rows[0], kernel.outputscale.exp()[0], kernel.mean[0]
    _check_size(process.factor.numel())
    eye = torch.eye(rows.shape[1], dtype=rows.dtype)
    whitener = torch.linalg.solve_triangular(process.factor[0], eye, upper=False).mT.contiguous()
    weights = process.weights[0]
    noise = kernel.noise_variance()[0]

    def predictive(U: Tensor) -> Predictive:
        at = kernel.features(member.standardised(U))[0]
        cross = scale[:, None, None] * matern(at, rows)  # (m, n, rows)
        explained = (cross @ whitener).square().sum(-1)
        variance = (scale.unsqueeze(1) - explained).clamp_min(0.0).mT
        moments = Moments((mean[:, None, None] + cross @ weights)[..., 0].mT, noise, variance)
        return moments.gaussian(member.variance_factors)

    return predictive


def _boosting(member: BoostingSurrogate) -> Graph:
    def levels(U: Tensor) -> Tensor:
        """Quantiles of the errors (5, n, m)."""
        columns = [
            torch.stack([_walked(f, U) for f in forests]) for forests in member.error_forests
        ]
        return torch.stack(columns, dim=2)

    def predictive(U: Tensor) -> Predictive:
        mean = torch.stack([_walked(forest, U) for forest in member.mean_forests], dim=1)
        return mixture(mean, levels(U), member.error_spread)

    return predictive


def _walked(forest: Forest, U: Tensor) -> Tensor:
    if not len(forest.roots):
        return forest.baseline + 0.0 * U[:, 0]
    return forest.walk(U)


def _in_context(member: PFNSurrogate) -> Graph:
    pfn, context, orders = member.pfn, member.context, member.column_orders
    outcomes = member.n_outputs_
    assert isinstance(pfn.head, Bars)
    borders, dtype = pfn.head.borders, next(pfn.network.parameters()).dtype

    def predictive(U: Tensor) -> Predictive:
        x = U[:, orders].movedim(1, 0).repeat_interleave(outcomes, 0)
        rows = pfn.encoding.rows(x).to(dtype)
        logits = pfn.network.answer(context.memory, rows).to(context.scale.dtype)
        found = BarDistribution.of(borders, logits).affine(context.shift, context.scale)
        found = found.over(lambda t: t.unflatten(0, (len(orders), outcomes)))
        chance = found.logits.log_softmax(-1).logsumexp(0)
        each = BarDistribution(found.borders, chance, found.shift[0], found.scale[0])
        return each.over(lambda t: t.transpose(0, 1)).predictive()

    return predictive


def _check_size(cells: int) -> None:
    if cells > MOST_CELLS:
        raise UserError(
            f"a graph of {cells:,} numbers does not fit into an ONNX file; at most "
            f"{MOST_CELLS:,} do"
        )


_KINDS: tuple[tuple[type[Surrogate], Callable[..., Graph]], ...] = (
    (PolynomialSurrogate, _polynomial),
    (ScaleMixture, _scale_mixture),
    (GaussianProcess, _process),
    (SparseGP, _sparse_process),
    (DeepEnsemble, _own),
    (LaplaceSurrogate, _own),
    (DeepKernelSurrogate, _deep_kernel),
    (BoostingSurrogate, _boosting),
    (PFNSurrogate, _in_context),
)
