import pytest
import torch
from torch import nn

from understudy.models.operators.captured import captured
from understudy.models.operators.dilated import DilatedResNet
from understudy.models.operators.unet import UNet


def test_nothing_changes_on_a_processor():
    network = DilatedResNet(1, 1, channels=4, blocks=1).eval()
    with captured(network, torch.zeros(2, 1, 16)):
        assert "forward" not in vars(network) and not network.training


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gradients_of_the_recorded_passes_are_those_of_the_network():
    torch.manual_seed(0)
    network = UNet(1, 1, num_params=1, hidden=8, multipliers=(1, 2)).cuda()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    u, p = torch.randn(2, 1, 16, device="cuda"), torch.rand(2, 1, device="cuda")

    def gradients():
        network.zero_grad()
        network(u, p).square().sum().backward()
        return [parameter.grad.clone() for parameter in network.parameters()]

    expected = gradients()
    with captured(network, torch.zeros_like(u), torch.zeros_like(p)):
        gradients()
        recorded = gradients()
    for a, b in zip(recorded, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-4)
    assert "forward" not in vars(network)
