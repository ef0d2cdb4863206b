import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import UserError
from understudy.core.expressions import ExpressionList
from understudy.data.trajectories import TrajectorySet
from understudy.models.operators.equation_guesses import GuessSampler
from understudy.models.operators.equation_tokens import ExpressionTokenizer
from understudy.models.operators.prose import PROSE
from understudy.models.operators.prose_network import PROSEArchitecture, PROSENetwork
from understudy.models.operators.prose_training import (
    PROSETraining,
    _Loss,
    add_noise,
    mantissa_circle,
)
from understudy.models.operators.term_noise import add_term, delete_term
from understudy.models.operators.writing import write_tokens

LORENZ = "10.0*(u_1 - u_0) | u_0*(28.0 - u_2) - u_1 | u_0*u_1 - 2.67*u_2"
OSCILLATOR = ExpressionList.parse("u_1 | -?*u_0 - ?*u_1")
DECAY = ExpressionList.parse("-?*u_0")
TOKENIZER = ExpressionTokenizer(3)

numbers = st.floats(-9e11, 9e11, allow_nan=False)


def oscillations(count=48, points=20):
    """Damped oscillations and decays in turns, of known solution."""
    draw = torch.Generator().manual_seed(0)
    t = torch.linspace(0.0, 4.0, points, dtype=torch.float64)
    c = 0.1 + 0.2 * torch.rand(count, generator=draw, dtype=torch.float64)
    c = (100 * c).round() / 100
    start = 1.0 + torch.rand(count, generator=draw, dtype=torch.float64)
    k = 4.0 + (c / 2) ** 2  # so that the frequency is two
    decay, phase = torch.exp(-c[:, None] / 2 * t), 2.0 * t
    x = decay * phase.cos()
    v = decay * (-c[:, None] / 2 * phase.cos() - 2.0 * phase.sin())
    u = torch.stack([x, v], dim=2) * start[:, None, None]
    which = torch.arange(count) % 2
    falling = start[:, None] * torch.exp(-c[:, None] * t)
    u[which == 1] = torch.stack([falling, torch.zeros_like(falling)], dim=2)[which == 1]
    table = torch.stack([k, c], dim=1)
    table[which == 1] = torch.stack([c, torch.full_like(c, torch.nan)], dim=1)[which == 1]
    return TrajectorySet(t, u.float(), (OSCILLATOR, DECAY), which, table)


def small(variant="multimodal", dim=2, guess="skeleton", seed=0):
    torch.manual_seed(seed)
    tokenizer = ExpressionTokenizer(dim)
    sizes = PROSEArchitecture(len(tokenizer), dim, 16, 2, 1, 1, 1, 1, 1, variant, 40)
    return PROSE(tokenizer, sizes, guess)


PLAN = PROSETraining(steps=3, batch_size=8, learning_rate=3e-3, warmup=1, decay="cosine")


@pytest.fixture(scope="module")
def data():
    return oscillations()


@pytest.fixture(scope="module")
def trained(data):
    return small().fit(data, 8, PLAN)


# -- tokens ---------------------------------------------------------------------------------


@given(st.lists(numbers, min_size=3, max_size=3))
@settings(deadline=None)
def test_tokens_decode_to_the_equation_rounded_to_three_digits(values):
    equation = ExpressionList.parse(LORENZ).with_numbers(values)
    assert TOKENIZER.decode(TOKENIZER.encode(equation)) == equation.rounded(3)


@given(st.lists(st.floats(-999, 999, allow_nan=False), min_size=3, max_size=3))
@settings(deadline=None)
def test_rounded_equations_survive_unchanged(values):
    equation = ExpressionList.parse(LORENZ).with_numbers(values).rounded(3)
    assert TOKENIZER.decode(TOKENIZER.encode(equation)) == equation


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (3.14159, "+ N314 E-2"),
        (28.0, "+ N280 E-1"),
        (-0.00271, "- N271 E-5"),
        (9.999, "+ N100 E-1"),
        (1e-12, "+ N000 E0"),
    ],
)
def test_a_number_is_sign_mantissa_and_exponent(value, words):
    ids = TOKENIZER.encode(ExpressionList.parse("1.5").with_numbers([value]))
    assert " ".join(TOKENIZER.words[i] for i in ids) == words


def test_masked_numbers_are_one_token():
    equation = ExpressionList.parse("2.5*u_0")
    words = [TOKENIZER.words[i] for i in TOKENIZER.encode(equation, placeholders=True)]
    assert words == ["mul", "<PLACEHOLDER>", "u_0"]
    assert TOKENIZER.decode(TOKENIZER.encode(equation.skeleton)) == equation.skeleton


def test_no_word_is_twice_in_the_vocabulary():
    assert len(set(TOKENIZER.words)) == len(TOKENIZER) and TOKENIZER.pad == 0


@pytest.mark.parametrize(
    "words",
    ["mul u_0", "N314", "+ N314 u_0", "+ N314", "u_0 u_1", "", "<BOS>", "u_2", "E-2 | u_0"],
)
def test_tokens_that_are_no_equation_decode_to_none(words):
    assert TOKENIZER.decode([TOKENIZER.ids[w] for w in words.split()]) is None


def test_a_table_of_equations_is_that_of_each(data):
    tokenizer = ExpressionTokenizer(2)
    table = tokenizer.encode_set(data)
    for i in (0, 1, 7):
        row = table[i][table[i] != 0].tolist()
        assert row == tokenizer.encode(data.equation(i))
    together = tokenizer.encode_all([data.equation(i) for i in range(len(data))])
    assert torch.equal(together, table)


def test_operators_that_the_tokeniser_does_not_know_are_named():
    some = ExpressionTokenizer(3, operators=("add", "sub", "mul"))
    with pytest.raises(UserError, match=r"token 0 \('sin'\)"):
        some.encode(ExpressionList.parse("sin(u_0)"))
    with pytest.raises(UserError, match="no operator is called 'exp'"):
        ExpressionTokenizer(3, operators=("add", "exp"))


# -- guesses --------------------------------------------------------------------------------


def test_one_term_is_added_or_deleted():
    equation = ExpressionList.parse(LORENZ)
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    for change in (add_term, delete_term):
        for _ in range(20):
            changed = change(equation, generator)
            parts = [a != b for a, b in zip(changed.components, equation.components, strict=True)]
            assert sum(parts) == 1
            differs = (changed.evaluate(u) - equation.evaluate(u)).abs().amax(0) > 1e-9
            assert differs.tolist() == parts


def test_what_is_left_after_deleting_is_the_rest():
    equation = ExpressionList.parse("u_0 - 2.0*u_0 + sin(u_0)")
    left = {str(delete_term(equation, torch.Generator().manual_seed(s))) for s in range(20)}
    assert left == {"neg(2.0 * u_0) + sin(u_0)", "u_0 + sin(u_0)", "u_0 - 2.0 * u_0"}


def test_a_component_of_one_term_keeps_it():
    equation = ExpressionList.parse("3.0*u_0")
    assert delete_term(equation, torch.Generator()) == equation


@pytest.mark.parametrize("placeholders", [True, False])
def test_guesses_are_right_wrong_and_masked_as_asked(data, placeholders):
    tokenizer = ExpressionTokenizer(2)
    guesses = GuessSampler(tokenizer, data.skeletons, placeholders)
    generator = torch.Generator().manual_seed(0)
    clean = guesses.draw(data.which, data.numbers, generator, 0.0, 0.0)
    assert torch.equal(clean, tokenizer.encode_set(data, placeholders))
    longer = guesses.draw(data.which, data.numbers, generator, 1.0, 0.0)
    shorter = guesses.draw(data.which, data.numbers, generator, 0.0, 1.0)
    rows = data.which == 0
    count = (clean[rows] != 0).sum(1)
    assert bool(((longer[rows] != 0).sum(1) > count).all())
    assert bool(((shorter[rows] != 0).sum(1) < count).all())
    for row in (*longer[:6], *shorter[:6]):
        read = tokenizer.decode(row)
        assert read is not None and read.is_complete is not placeholders


def test_a_guess_keeps_the_numbers_that_it_does_not_lose(data):
    tokenizer = ExpressionTokenizer(2)
    guesses = GuessSampler(tokenizer, data.skeletons, placeholders=False)
    longer = guesses.draw(data.which, data.numbers, torch.Generator().manual_seed(1), 1.0, 0.0)
    for i in range(10):
        known = set(data.equation(i).rounded().numbers)
        assert known <= set(tokenizer.decode(longer[i]).numbers)


# -- network --------------------------------------------------------------------------------


def test_the_network_of_the_paper_has_105_million_weights():
    with torch.device("meta"):
        network = PROSENetwork(PROSEArchitecture(1072, 5))
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(104.9e6, rel=0.01)


def test_answers_do_not_depend_on_the_other_times_asked_for(trained, data):
    t, u = data.t[:8], data.u[:4, :8]
    times = torch.tensor([3.5, 2.0, 2.2, 3.9], dtype=torch.float64)
    guess = [data.equation(i) for i in range(4)]
    all_at_once = trained.predict(t, u, guess, times).u
    for k in range(4):
        alone = trained.predict(t, u, guess, times[k : k + 1]).u
        torch.testing.assert_close(alone[:, 0], all_at_once[:, k], rtol=1e-4, atol=1e-6)


def test_the_order_of_samples_does_not_matter_for_their_times_are_features(trained, data):
    network, order = trained.network, torch.tensor([3, 1, 0, 2])
    t, u = data.t[:4], data.u[:2, :4]
    one = network.encode(t, u, torch.tensor([[5, 6], [7, 8]])).data[:, order]
    other = network.encode(t[order], u[:, order], torch.tensor([[5, 6], [7, 8]])).data
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_padding_of_guesses_changes_nothing(trained, data):
    network, u = trained.network, data.u[:1, :8]
    short = torch.tensor([[6, 7, 8]])
    long = torch.nn.functional.pad(short, (0, 5))
    query, tokens = torch.tensor([3.0]), torch.tensor([[1, 6]])
    for ask in (lambda f: network.solution(f, query), lambda f: network.logits(f, tokens)):
        one = ask(network.encode(data.t[:8], u, short))
        other = ask(network.encode(data.t[:8], u, long))
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_writing_with_kept_keys_gives_the_logits_of_the_whole_row(trained, data):
    network = trained.network
    fused = network.encode(data.t[:8], data.u[:3, :8], torch.tensor([[6, 7, 0]] * 3))
    row = torch.tensor([[1, 9, 30, 12, 7]] * 3)
    whole = network.logits(fused, row)
    cache, memories = [], network.remember(fused)
    for place in range(5):
        step, cache = network.next_logits(
            row[:, place], place, cache, memories, fused.real[:, None, None, :]
        )
        torch.testing.assert_close(step, whole[:, place], rtol=1e-4, atol=1e-5)


def test_a_later_token_does_not_change_what_is_said_before(trained, data):
    network = trained.network
    fused = network.encode(data.t[:8], data.u[:1, :8], torch.tensor([[6, 7]]))
    one = network.logits(fused, torch.tensor([[1, 9, 30]]))
    other = network.logits(fused, torch.tensor([[1, 9, 31]]))
    torch.testing.assert_close(one[:, :2], other[:, :2])


@torch.no_grad()
def test_a_beam_of_all_tokens_finds_the_likeliest_row(data):
    torch.manual_seed(3)
    tokenizer = ExpressionTokenizer(1, operators=("add",), float_digits=1)
    sizes = PROSEArchitecture(len(tokenizer), 2, 16, 2, 1, 1, 1, 1, 1, "multimodal", 1)
    network = PROSENetwork(sizes).eval()
    fused = network.encode(data.t[:8], data.u[:2, :8], torch.tensor([[5], [6]]))
    wide, scores = write_tokens(network, tokenizer, fused, beams=len(tokenizer))
    # rows of two tokens: every first one, then the likeliest second one
    first = network.logits(fused, torch.tensor([[1], [1]]))[:, 0]
    first[:, :2] = -torch.inf
    first = first.log_softmax(-1)
    best = []
    for b in range(2):
        found = {(2,): float(first[b, 2])}
        for i in range(3, len(tokenizer)):
            rows = torch.tensor([[1, i], [1, i]])
            second = network.logits(fused, rows)[b, 1]
            second[:2] = -torch.inf
            for j, score in enumerate(second.log_softmax(-1).tolist()):
                found[i, j] = float(first[b, i]) + score
        best.append(max(found.values()))
    lengths = torch.where(wide[..., 0] == 2, 1, 2)
    totals = (scores * lengths).max(1).values
    assert totals.tolist() == pytest.approx(best, abs=1e-4)


# -- training -------------------------------------------------------------------------------


def test_noise_has_exactly_its_share_of_the_norm(data):
    noisy = add_noise(data.u, data.mask, 0.02, torch.Generator().manual_seed(0), 8)
    added = (noisy - data.u)[:, :8]
    share = added.flatten(1).norm(dim=1) / data.u[:, :8].flatten(1).norm(dim=1)
    torch.testing.assert_close(share, torch.full_like(share, 0.02))
    assert not bool(noisy[data.which == 1][..., 1].any())


@pytest.mark.parametrize("guess", ["skeleton", "numbers"])
@pytest.mark.parametrize("variant", ["multimodal", "data-only", "text-only", "no-text"])
def test_every_variant_gives_what_it_is_for(data, variant, guess):
    model = small(variant, guess=guess).fit(data, (8, 4), PLAN)
    symbols = [data.equation(i) for i in range(5)]
    said = model.predict(data.t[:4], data.u[:5, :4], symbols, data.t[8:])
    assert (said.u is not None) is (variant != "text-only")
    assert (said.valid is not None) is (variant in ("multimodal", "text-only"))
    if said.u is not None:
        assert said.u.shape == (5, 12, 2)
    if said.valid is None:
        with pytest.raises(UserError, match="writes no equations"):
            said.equation()
    else:
        assert len(said.expression) == 5


@pytest.mark.slow
def test_training_lowers_the_loss_and_learns_to_write_and_to_forecast(data):
    model = small()
    plan = PROSETraining(
        steps=400, batch_size=24, learning_rate=5e-3, warmup=20, decay="cosine", noise=0.0
    )
    model.fit(data, 8, plan)
    symbols = [data.equation(i).skeleton for i in range(len(data))]
    said = model.predict(data.t[:8], data.u[:, :8], symbols, data.t[8:])
    error = (said.u - data.u[:, 8:]).norm() / data.u[:, 8:].norm()
    assert float(error) < 0.7  # of nothing it is one
    written = [None if e is None else e.skeleton for e in said.expression]
    right = [data.skeletons[k] for k in data.which.tolist()]
    assert sum(a == b for a, b in zip(written, right, strict=True)) > 0.9 * len(right)


def test_some_steps_lower_the_loss(data):
    plan = PROSETraining(steps=40, batch_size=16, learning_rate=5e-3, warmup=5, decay="cosine")
    model = small()
    model.given = (8,)
    loss = _Loss(model, data, plan, torch.device("cpu"))
    before = float(loss(1000).detach())
    model.fit(data, 8, plan)
    loss = _Loss(model, data, plan, torch.device("cpu"))
    assert float(loss(1000).detach()) < 0.8 * before


@pytest.mark.slow
def test_fifty_equations_are_learnt_by_heart_to_the_last_digit():
    data = oscillations(50)
    model = small()
    plan = PROSETraining(
        **{"steps": 800, "batch_size": 50, "learning_rate": 5e-3, "warmup": 20, "decay": "cosine"},
        **{"optimizer": "soap", "start": "ordered", "noise": 0.0, "add": 0.0, "delete": 0.0},
    )
    model.fit(data, 8, plan)
    equations = [data.equation(i).rounded() for i in range(50)]
    said = model.predict(data.t[:8], data.u[:, :8], equations, data.t[8:])
    same = [a == b for a, b in zip(said.expression, equations, strict=True)]
    assert sum(same) >= 48


def test_mantissas_on_a_circle_are_nearest_to_their_neighbours():
    ids, values = TOKENIZER.mantissas
    assert [TOKENIZER.words[i] for i in (ids[0], ids[-1])] == ["N100", "N999"]
    rows = mantissa_circle(values, 64)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(900))
    alike = rows @ rows.T
    alike.fill_diagonal_(-1.0)
    next_to = (alike.argmax(1) - torch.arange(900)).abs()
    assert set(next_to.tolist()) <= {1, 899}
    assert float(alike[0, 899]) > float(alike[0, 5])  # 999 is nearer to 100 than 105 is


def test_an_ordered_start_places_mantissas_and_centres_requests(data):
    torch.manual_seed(0)
    plain = small().network
    ordered = small()
    still = {"steps": 1, "batch_size": 4, "learning_rate": 0.0, "warmup": 1, "decay": "cosine"}
    ordered.fit(data, 8, PROSETraining(**still, start="ordered"))
    network, ids = ordered.network, ordered.tokenizer.mantissas[0]
    torch.testing.assert_close(
        network.written.embedding.weight[ids], mantissa_circle(torch.arange(100, 1000), 16)
    )
    first, last = float(data.t[8]), float(data.t[-1])
    middle = torch.tensor([[(first + last) / 2], [first], [last]])
    asked = network.query(middle)
    torch.testing.assert_close(asked[0], plain.query.bias, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        asked[2] - asked[1], 4.0 * plain.query.weight[:, 0], rtol=1e-4, atol=1e-5
    )


def test_soap_lowers_the_loss_and_goes_on_from_its_file(data, tmp_path):
    plan = {"batch_size": 16, "learning_rate": 2e-3, "warmup": 2, "decay": "cosine", "steps": 30}
    where = tmp_path / "run.safetensors"
    plan = PROSETraining(**plan, optimizer="soap", start="ordered", checkpoint=where)
    model = small().fit(data, 8, plan)
    again = small(seed=1).fit(data, 8, plan)  # nothing is left to do
    own, other = model.network.state_dict(), again.network.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in own)
    loss = _Loss(model, data, plan, torch.device("cpu"))
    fresh = small()
    fresh.prepared(data, 8)
    before = _Loss(fresh, data, plan, torch.device("cpu"))
    assert float(loss(1000).detach()) < 0.85 * float(before(1000).detach())


def test_the_same_seed_trains_the_same(data):
    a, b = (small().fit(data, 8, PLAN).network.state_dict() for _ in range(2))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_schedule_rises_and_falls_as_the_inverse_root():
    schedule = PROSETraining(steps=1000, warmup=100).schedule
    assert schedule(0.05) == pytest.approx(0.5)
    assert schedule(0.1) == 1.0
    assert schedule(0.4) == pytest.approx(math.sqrt(0.1 / 0.4))


# -- files and bad input --------------------------------------------------------------------


def test_a_file_restores_the_same_answers(trained, data, tmp_path):
    again = PROSE.load(trained.save(tmp_path / "prose.us"))
    asked = (data.t[:8], data.u[:3, :8], [data.equation(i) for i in range(3)], data.t[8:])
    one, other = trained.predict(*asked), again.predict(*asked)
    assert torch.equal(one.u, other.u) and one.expression == other.expression


def test_the_operator_alone_says_what_it_says_beside_the_equation(trained, data):
    asked = (data.t[:8], data.u[:3, :8], [data.equation(i) for i in range(3)], data.t[8:])
    assert torch.equal(trained.forecast(*asked), trained.predict(*asked).u)
    text_only = small("text-only").fit(data, 8, PLAN)
    with pytest.raises(UserError, match="does not forecast"):
        text_only.forecast(*asked)


def test_solutions_in_units_of_their_input_grow_with_it(data):
    model = small()
    model.units = "trajectory"
    mask = data.mask[:4]
    one, other = (model.units_of(x * data.u[:4, :8], mask) for x in (1.0, 3.0))
    torch.testing.assert_close(other, 3.0 * one)


def test_a_file_of_another_kind_is_refused(tmp_path):
    from understudy.core import artifact

    path = artifact.write(tmp_path / "other.us", {"kind": "operator"}, {})
    with pytest.raises(UserError, match="holds a 'operator', not a 'prose'"):
        PROSE.load(path)


def test_a_file_whose_parts_do_not_fit_is_refused(trained, tmp_path):
    from understudy.core import artifact

    path = trained.save(tmp_path / "prose.us")
    stored = artifact.read(path)
    manifest = {k: v for k, v in stored.manifest.items() if k != "artifact"}
    manifest["architecture"]["width"] = 32
    artifact.write(path, manifest, stored.tensors)
    with pytest.raises(UserError, match="is damaged"):
        PROSE.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u": torch.zeros(2, 7, 2), "t": torch.arange(7.0)}, "takes 8 samples .* found 7"),
        ({"u": torch.zeros(2, 7, 2)}, "takes 8 samples .* found 7 at 8 times"),
        ({"u": torch.zeros(2, 8, 3)}, "at most 2 components"),
        ({"u": torch.full((2, 8, 2), torch.nan)}, "must be finite"),
        ({"t": torch.arange(8.0).flip(0)}, "must increase, found 7 before 6"),
        ({"symbols": None}, "reads a guess of the equation"),
        ({"symbols": []}, "reads a guess of the equation"),
        ({"symbols": ["u_1 | u_0"] * 3}, "2 trajectories need as many guesses, found 3"),
        ({"symbols": "u_1 | u_0 + * 2"}, r"position 13 .*'\*'"),
        ({"symbols": "u_1 | u_0 | u_2"}, r"token 4 \('u_2'\)"),
        ({"symbols": "u_0" + "+u_0" * 30}, "at most 40 are read"),
        ({"t_query": None}, "t_query is missing"),
        ({"t_query": torch.tensor([9.0])}, r"within 0 \.\. 4"),
        ({"beams": 0}, "at least one beam"),
    ],
)
def test_bad_input_is_refused_by_name(trained, data, change, message):
    asked = {
        **{"t": data.t[:8], "u": data.u[:2, :8]},
        **{"symbols": "u_1 | -?*u_0 - ?*u_1", "t_query": data.t[8:]},
    }
    with pytest.raises(UserError, match=message):
        trained.predict(**(asked | change))


def test_an_untrained_network_says_so(data):
    with pytest.raises(UserError, match="is not trained"):
        small().predict(data.t[:8], data.u[:1, :8], "u_0 | u_1", data.t[8:])


def test_all_points_cannot_be_given(data):
    with pytest.raises(UserError, match="between 1 and 19 of 20 points can be given, found 20"):
        small().fit(data, 20, PLAN)


def test_trajectories_of_other_components_are_refused(data):
    with pytest.raises(UserError, match="made for 3 components, trajectories have 2"):
        small(dim=3).fit(data, 8, PLAN)


def test_sets_whose_parts_do_not_fit_are_refused(data):
    with pytest.raises(UserError, match="at 19 times"):
        TrajectorySet(data.t[:-1], data.u, data.skeletons, data.which, data.numbers)
    with pytest.raises(UserError, match="must be finite"):
        TrajectorySet(data.t, data.u / 0, data.skeletons, data.which, data.numbers)


def test_equations_are_printed_in_latex(trained, data):
    said = trained.predict(data.t[:8], data.u[:1, :8], data.equation(0), data.t[8:])
    first = said.expression[0]
    assert said.equation() == ("invalid expression" if first is None else first.latex())


def test_unknown_variants_and_guesses_are_refused():
    with pytest.raises(UserError, match="variant must be one of"):
        PROSEArchitecture(10, 2, variant="text")
    with pytest.raises(UserError, match="guess must be"):
        small(guess="none")
