"""A learned proximal network is a proximal operator by construction, and knows of what."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from understudy.core import artifact
from understudy.core.errors import UserError
from understudy.models.inverse.icnn import ConvexConvNet, InputConvexNet
from understudy.models.inverse.lpn import LearnedProximalNetwork


def random_network(alpha: float = 0.05, dim: int = 3) -> LearnedProximalNetwork:
    torch.manual_seed(1)
    network = InputConvexNet(dim=dim, hidden=24, layers=2, beta=5.0, alpha=alpha)
    with torch.no_grad():
        for weight in network.convex_weights():
            weight.uniform_(0.0, 0.15)
    return LearnedProximalNetwork(network, 0.5).double()


def quadratic(alpha: float) -> LearnedProximalNetwork:
    """Potential alpha |x|^2 and nothing else."""
    lpn = LearnedProximalNetwork(InputConvexNet(dim=2, hidden=2, layers=1, alpha=alpha), 1.0)
    with torch.no_grad():
        for p in lpn.parameters():
            p.zero_()
    return lpn


def objective(lpn: LearnedProximalNetwork, x: Tensor, y: Tensor) -> Tensor:
    prior = lpn.prior(x)
    assert float(prior.residual.max()) < 1e-4
    return 0.5 * (x - y).square().sum(1) + prior.value


@pytest.mark.parametrize("scale", [0.05, 0.5, 2.0])
def test_the_output_minimises_distance_and_prior(scale):
    lpn = random_network()
    y = 2.0 * torch.randn(40, 3, dtype=torch.float64)
    x = lpn(y).detach()
    best = objective(lpn, x, y)
    other = objective(lpn, x + scale * torch.randn_like(x), y)
    assert bool((other > best).all())


def test_it_is_monotone():
    lpn = random_network()
    a, b = 3.0 * torch.randn(2, 200, 3, dtype=torch.float64)
    slope = ((lpn(a) - lpn(b)) * (a - b)).sum(1)
    # the potential is strongly convex with twice alpha
    assert bool((slope >= 2.0 * 0.05 * (a - b).square().sum(1)).all())


def test_integrals_of_it_do_not_depend_on_the_path():
    lpn = random_network()
    nodes, weights = np.polynomial.legendre.leggauss(40)
    t = torch.as_tensor(0.5 * (nodes + 1.0))
    a, b, c = torch.randn(3, 3, dtype=torch.float64)

    def along(start: Tensor, end: Tensor) -> float:
        points = start + t[:, None] * (end - start)
        return float(
            (torch.as_tensor(0.5 * weights) * (lpn(points).detach() @ (end - start))).sum()
        )

    straight, around = along(a, b), along(a, c) + along(c, b)
    potential = float((lpn.potential(b[None]) - lpn.potential(a[None])).detach())
    assert straight == pytest.approx(around, abs=1e-6)
    assert straight == pytest.approx(potential, abs=1e-6)


def test_its_derivative_is_symmetric():
    lpn = random_network()
    J = torch.autograd.functional.jacobian(lambda y: lpn(y[None])[0], torch.randn(3).double())
    torch.testing.assert_close(J, J.T)
    assert float(torch.linalg.eigvalsh(J).min()) >= 2.0 * 0.05 - 1e-9


def test_where_the_derivative_is_below_one_it_does_not_expand():
    lpn = quadratic(0.4)  # f(y) = 0.8 y, the proximal operator of |x|^2 / 8
    a, b = torch.randn(2, 20, 2)
    assert bool(((lpn(a) - lpn(b)).norm(dim=1) <= (a - b).norm(dim=1)).all())
    prior = lpn.prior(a)
    torch.testing.assert_close(prior.value, 0.125 * a.square().sum(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["newton", "cg"])
def test_inversion_finds_what_was_mapped(method):
    lpn = random_network()
    y = 2.0 * torch.randn(10, 3, dtype=torch.float64)
    found = lpn.invert(lpn(y).detach(), method, tolerance=1e-8)
    torch.testing.assert_close(found.y, y, atol=1e-5, rtol=1e-5)
    assert float(found.residual.max()) < 1e-6


def test_images_are_inverted():
    torch.manual_seed(0)
    lpn = LearnedProximalNetwork(ConvexConvNet(size=8, hidden=4), 0.1)
    with torch.no_grad():
        for weight in lpn.network.convex_weights():
            weight.uniform_(0.0, 0.05)
    x = torch.rand(5, 1, 8, 8)
    assert float(lpn.invert(x).residual.max()) < 1e-4


def test_what_is_out_of_reach_has_a_large_residual():
    # without the square norm the gradient is bounded
    lpn = random_network(alpha=0.0, dim=1)
    found = lpn.invert(torch.tensor([[1e3]], dtype=torch.float64), iterations=5)
    assert float(found.residual) > 0.5


def test_the_prior_at_an_output_needs_no_inversion():
    lpn = random_network()
    y = torch.randn(20, 3, dtype=torch.float64)
    x, value = lpn.with_prior(y)
    torch.testing.assert_close(x, lpn(y).detach())
    torch.testing.assert_close(value, lpn.prior(x, tolerance=1e-9).value, atol=1e-6, rtol=1e-6)


def test_the_gradient_of_the_log_prior_is_that_of_its_values():
    lpn = random_network()
    x = torch.randn(4, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: -(lpn.sigma**2) * lpn.log_prior(x), x.requires_grad_(), eps=1e-3, atol=1e-3
    )


def test_it_works_under_no_grad_and_leaves_its_input_alone():
    lpn, y = random_network(), torch.randn(4, 3, dtype=torch.float64)
    with torch.no_grad():
        quiet = lpn(y)
    assert not quiet.requires_grad and not y.requires_grad
    torch.testing.assert_close(quiet, lpn(y).detach())


def test_gradients_reach_weights_and_inputs():
    lpn, y = random_network(), torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    lpn(y).square().sum().backward()
    assert y.grad is not None and bool((y.grad != 0).all())
    assert lpn.network.across[0].weight.grad is not None


def test_a_file_gives_the_same_network_back(tmp_path):
    lpn = LearnedProximalNetwork(InputConvexNet(dim=2, hidden=5), 0.3)
    path = lpn.save(tmp_path / "a.us", {"steps": 3})
    again = LearnedProximalNetwork.load(path)
    y = torch.randn(7, 2)
    assert torch.equal(again(y), lpn(y)) and again.sigma == 0.3
    assert artifact.read(path).manifest["facts"] == {"steps": 3}


def test_files_of_other_things_and_of_functions_that_are_not_convex_are_refused(tmp_path):
    lpn = LearnedProximalNetwork(InputConvexNet(dim=2, hidden=5), 0.3)
    other = artifact.write(tmp_path / "other.us", {"kind": "operator"}, {})
    with pytest.raises(UserError, match="not a proximal-network"):
        LearnedProximalNetwork.load(other)
    with torch.no_grad():
        lpn.network.last.weight.neg_()
    with pytest.raises(UserError, match="not convex"):
        LearnedProximalNetwork.load(lpn.save(tmp_path / "bent.us"))
    manifest = artifact.read(tmp_path / "bent.us").manifest
    short = artifact.write(tmp_path / "short.us", manifest, {})
    with pytest.raises(UserError, match="its weights do not fit"):
        LearnedProximalNetwork.load(short)


@pytest.mark.parametrize("sigma", [0.0, -0.1, float("nan"), float("inf")])
def test_noise_must_be_positive(sigma):
    with pytest.raises(UserError, match="must be positive"):
        LearnedProximalNetwork(InputConvexNet(), sigma)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 2), r"takes \(B, 3\)"),
        (torch.zeros(3), "has the shape"),
        (torch.full((1, 3), float("nan")), "not finite"),
    ],
)
def test_what_does_not_fit_is_refused(x, message):
    with pytest.raises(UserError, match=message):
        random_network().prior(x)
    with pytest.raises(UserError, match="'newton' or 'cg'"):
        random_network().invert(torch.zeros(1, 3), "bfgs")
