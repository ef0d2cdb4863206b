import numpy as np
import pytest

from understudy.core.errors import UserError
from understudy.data.learning_curves import (
    EPOCHS,
    SETTINGS,
    learning_curve_sets,
    load_learning_curves,
)


def test_more_than_sixty_networks_were_trained_on_each_of_eight_sets():
    sets = learning_curve_sets()
    assert len(sets) == 8
    assert all(len(load_learning_curves(name).configs) > 60 for name in sets)


@pytest.mark.parametrize("name", learning_curve_sets())
def test_curves_are_accuracies_and_log_losses_of_fifty_epochs(name):
    curves = load_learning_curves(name)
    n = len(curves.configs)
    assert curves.accuracy.shape == curves.log_loss.shape == (n, EPOCHS)
    assert curves.accuracy.min() >= 0.0 and curves.accuracy.max() <= 1.0
    assert np.isfinite(curves.log_loss).all() and curves.log_loss.min() >= 0.0
    assert tuple(curves.configs.columns) == SETTINGS


def test_most_networks_learn_and_a_few_hardly_do():
    curves = load_learning_curves("digits")
    last = curves.accuracy[:, -5:].mean(1)
    assert np.median(last) > 0.7 and last.min() < 0.3
    assert (last > curves.accuracy[:, 0]).mean() > 0.9


def test_an_unknown_set_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match=r"on 'digit'.*digits"):
        load_learning_curves("digit")
