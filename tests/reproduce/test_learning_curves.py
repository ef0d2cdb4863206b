import numpy as np
import pandas as pd
import pytest
import torch

from understudy.core.errors import UserError
from understudy.data.learning_curves import EPOCHS, load_learning_curves
from understudy.reproduce.in_context import learning_curves as measured


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_configs_lie_in_their_ranges():
    configs = measured.draw_configs(2000, generator())
    assert (int(configs.width.min()), int(configs.width.max())) == (4, 64)
    assert set(configs.batch_size.tolist()) == set(measured.BATCH_SIZES)
    assert 1e-4 <= float(configs.learning_rate.min()) < float(configs.learning_rate.max()) < 0.5
    assert float(configs.momentum.max()) < 0.95 and float(configs.dropout.max()) < 0.6


def test_units_beyond_a_networks_width_take_no_part():
    configs = measured.draw_configs(6, generator(1))
    networks = measured.Networks(configs, 5, 3, generator(2))
    X = torch.randn(7, 5, generator=generator(3))
    before = networks(X)
    with torch.no_grad():
        for k, width in enumerate(configs.width):
            networks.parameters[0][k, :, width:] += 10.0
            networks.parameters[2][k, :, width:] += 10.0
    torch.testing.assert_close(networks(X), before)


def test_a_network_steps_as_torch_does_alone():
    """One step of momentum SGD beside `torch.optim.SGD`, without dropout."""
    configs = measured.Configs(
        torch.tensor([4, 8]),
        torch.tensor([0.1, 0.3]),
        torch.tensor([32, 32]),
        torch.tensor([0.5, 0.9]),
        torch.zeros(2),
    )
    X, y = torch.randn(20, 5, generator=generator(3)), torch.arange(20) % 3
    ours = measured.train(configs, (X, y), (X, y), seed=5)[1, 1]
    networks = measured.Networks(configs, 5, 3, generator(5))
    alone = [p[1].detach().clone().requires_grad_() for p in networks.parameters]
    optimiser = torch.optim.SGD(alone, lr=0.3, momentum=0.9)
    W, b, V, c, U, d = alone

    def loss():
        logits = torch.relu(torch.relu(X @ W + b) @ V + c) @ U + d
        return torch.nn.functional.cross_entropy(logits, y)

    theirs = []
    for _ in range(EPOCHS):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
        theirs.append(float(loss().detach()))
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=2e-3, atol=1e-4)


def test_wine_is_learnt_again_as_it_was():
    """The same seed gives the curves that are kept, up to the rounding of this machine."""
    table = measured.measure("wine")
    kept = load_learning_curves("wine")
    again = table[table["metric"] == "accuracy"][[str(t + 1) for t in range(EPOCHS)]].to_numpy()
    assert again.shape == kept.accuracy.shape
    assert np.mean(np.abs(again - kept.accuracy) < 0.02) > 0.9


def test_both_metrics_of_a_config_are_rows(monkeypatch, tmp_path):
    monkeypatch.setattr(measured, "SETS", {"wine": measured.SETS["wine"]})
    monkeypatch.setattr(measured, "CONFIGS", 5)
    monkeypatch.setattr(measured, "measure", lambda name, real=measured.measure: real(name, 5))
    measured.main([str(tmp_path / "curves.csv.gz")])
    table = pd.read_csv(tmp_path / "curves.csv.gz")
    assert table["metric"].value_counts().tolist() == [5, 5]


def test_a_set_that_is_not_there_is_named(monkeypatch):
    monkeypatch.delenv("UNDERSTUDY_DATA", raising=False)
    with pytest.raises(UserError, match=r"holds classification/splice\.txt"):
        measured.measure("splice", 2)
