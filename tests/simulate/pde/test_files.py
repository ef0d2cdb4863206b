"""Files hold what was simulated, laid out as PDEBench does, and go on where they end."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from understudy.core.errors import UserError
from understudy.simulate.pde import Advection, Darcy, KolmogorovFlow, KuramotoSivashinsky
from understudy.simulate.pde.files import read_fields, write_fields
from understudy.simulate.pde.named import draw_parameters

h5py = pytest.importorskip("h5py")


def test_what_is_read_is_what_was_simulated(tmp_path):
    simulator, path = Advection(points=16, steps=3), tmp_path / "a.h5"
    table = draw_parameters(simulator, 5, seed=1)
    assert write_fields(path, simulator, table, "advection", batch=2) == 0
    data = read_fields(path)
    assert torch.equal(data.fields, simulator.fields(table))
    assert data.parameters[table.columns].equals(table)
    assert torch.equal(data.times, simulator.times(table)[0])
    assert torch.equal(data.axes[0], simulator.grid.axes()[0])
    assert not data.diverged.any()
    some = read_fields(path, slice(1, 3))
    assert torch.equal(some.fields, data.fields[1:3])
    assert len(some.parameters) == 2


def test_the_layout_is_that_of_pdebench(tmp_path):
    simulator, path = Darcy(points=8), tmp_path / "darcy.h5"
    write_fields(path, simulator, draw_parameters(simulator, 2))
    with h5py.File(path) as file:
        assert file["tensor"].shape == (2, 1, 8, 8)
        assert file["nu"].shape == (2, 8, 8)
        assert set(np.unique(file["nu"])) <= {3.0, 12.0}
        assert file["x-coordinate"].shape == file["y-coordinate"].shape == (8,)
    simulator, path = KolmogorovFlow(points=8, steps=1), tmp_path / "flow.h5"
    write_fields(path, simulator, draw_parameters(simulator, 2))
    with h5py.File(path) as file:
        assert file["Vx"].shape == file["Vy"].shape == (2, 2, 8, 8)
        assert file["t-coordinate"].shape == (2,)
    assert read_fields(path).channels == ("Vx", "Vy")


def test_runs_of_different_time_steps_have_their_own_times(tmp_path):
    simulator, path = KuramotoSivashinsky(64, 1, 0), tmp_path / "ks.h5"
    table = draw_parameters(simulator, 3)
    write_fields(path, simulator, table, batch=2)
    assert torch.equal(read_fields(path).times, simulator.times(table))


def test_a_file_of_pdebench_is_read(tmp_path):
    path = tmp_path / "cfd.h5"
    fields = np.random.default_rng(0).normal(size=(3, 2, 4, 5)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file["density"], file["pressure"] = fields, fields + 1
        file["x-coordinate"], file["y-coordinate"] = np.arange(4.0), np.arange(5.0)
        file["t-coordinate"] = np.arange(3.0)  # PDEBench has the end of the last interval too
    data = read_fields(path)
    assert data.channels == ("density", "pressure")
    assert data.fields.shape == (3, 2, 2, 4, 5)
    assert data.times.tolist() == [0.0, 1.0]
    assert data.parameters.empty


def test_an_interrupted_file_goes_on_and_a_complete_one_can_grow(tmp_path):
    simulator, path = Advection(points=8, steps=2), tmp_path / "a.h5"
    table = draw_parameters(simulator, 6, seed=1)

    def stop(done: int, total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_fields(path, simulator, table, batch=2, listener=stop)
    assert len(read_fields(path).fields) == 4
    assert write_fields(path, simulator, table, batch=4) == 4
    assert torch.equal(read_fields(path).fields, simulator.fields(table))
    longer = draw_parameters(simulator, 9, seed=1)
    assert write_fields(path, simulator, longer) == 6
    assert len(read_fields(path).fields) == 9


def test_other_runs_and_other_files_are_refused(tmp_path):
    simulator, path = Advection(points=8, steps=2), tmp_path / "a.h5"
    write_fields(path, simulator, draw_parameters(simulator, 2, seed=1), "advection")
    with pytest.raises(UserError, match="holds runs with other values of 'speed'"):
        write_fields(path, simulator, draw_parameters(simulator, 4, seed=2), "advection")
    with pytest.raises(UserError, match="holds runs of 'advection' with other settings"):
        other = Advection(points=10, steps=2)
        write_fields(path, other, draw_parameters(other, 4, seed=1), "advection")
    (tmp_path / "text.h5").write_text("not one")
    with pytest.raises(UserError, match="not an HDF5 file"):
        read_fields(tmp_path / "text.h5")
    with pytest.raises(UserError, match="there is no such file"):
        read_fields(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["table"] = np.zeros((2, 3))
    with pytest.raises(UserError, match="has no fields"):
        read_fields(tmp_path / "other.h5")
    with pytest.raises(UserError, match="is a file of something else"):
        write_fields(tmp_path / "other.h5", simulator, draw_parameters(simulator, 2))


def test_a_diverged_run_is_stored_as_such(tmp_path):
    simulator, path = KuramotoSivashinsky(64, 2, 0, substeps=1), tmp_path / "ks.h5"
    table = draw_parameters(simulator, 2)
    table.loc[1, "time_step"] = 1e4
    write_fields(path, simulator, table)
    assert read_fields(path).diverged.tolist() == [False, True]


def test_a_disk_that_is_nearly_full_ends_a_file_in_order(tmp_path, monkeypatch):
    simulator, path = Advection(points=16, steps=3), tmp_path / "a.h5"
    table = draw_parameters(simulator, 4, seed=1)
    free = iter([10**9, 1000])
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=next(free)))
    with pytest.raises(UserError, match=r"has 0.0 MB left.*the 2 runs that are there are kept"):
        write_fields(path, simulator, table, "advection", batch=2)
    assert len(read_fields(path).fields) == 2
    monkeypatch.undo()
    assert write_fields(path, simulator, table, "advection", batch=2) == 2
    assert torch.equal(read_fields(path).fields, simulator.fields(table))


def test_a_batch_that_was_cut_off_is_not_read(tmp_path):
    simulator, path = Advection(points=16, steps=3), tmp_path / "a.h5"
    table = draw_parameters(simulator, 4, seed=1)
    write_fields(path, simulator, table, "advection")
    with h5py.File(path, "r+") as file:
        file["tensor"].resize(6, axis=0)
    data = read_fields(path)
    assert data.fields.shape[0] == len(data.parameters) == 4
