"""What a loss declares of itself is all that names, sums, options and docs know of it."""

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segloss.errors import InputError
from segloss.losses import (
    LOSS_OPTIONS,
    LOSSES,
    Criterion,
    CrossEntropyLoss,
    FocalLoss,
    LDAMLoss,
    MSELoss,
    OutlyingMSELoss,
    SumLoss,
    VectorScalingLoss,
    WeightedCriterion,
    build_criterion,
    criterion,
    focal_loss,
    unused_options,
)
from segloss.losses.label_values import recipe_or_numbers
from segloss.options import Option

ROOT = Path(__file__).resolve().parents[2]
COUNTS = [900, 90, 10]
DECLARED = [(name, option) for name, loss in LOSSES.items() for option in loss.options]
# A file that somebody puts into segloss/losses/.
NEW_MODULE = '''"""Cross entropy of scores divided by a temperature."""

from typing import Any

from torch import Tensor

from segloss.losses.criterion import WeightedCriterion
from segloss.losses.cross_entropy import cross_entropy_loss
from segloss.losses.ranges import POSITIVE, require_number
from segloss.options import Option


class TemperedLoss(
    WeightedCriterion, name="tempered", options={"temperature": Option(2.0, "what divides the scores", *POSITIVE)}
):
    """Module form."""

    def __init__(self, *, temperature: float = 2.0, **options: Any):
        super().__init__(**options)
        self.temperature = require_number("temperature", temperature, POSITIVE)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy_loss(logits / self.temperature, labels, **self.shared())
'''


@pytest.fixture
def registry():
    """The losses there are; what a test adds is taken out again."""
    kept = [(names, dict(names)) for names in (criterion._losses, criterion._options)]
    yield
    for names, content in kept:
        names.clear()
        names.update(content)


@pytest.fixture
def tempered(registry):
    names: dict = {"__name__": "tempered"}
    exec(NEW_MODULE, names)
    return names["TemperedLoss"]


def example() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 4, 5, generator=generator), torch.randint(3, (2, 4, 5), generator=generator)


# A loss of one's own.


def test_a_new_loss_is_built_by_name_with_its_option(tempered):
    logits, labels = example()
    assert list(LOSSES)[-1] == "tempered"
    made = build_criterion("Tempered", COUNTS, temperature=4.0, gamma=1.0)
    assert type(made) is tempered and made.temperature == 4
    torch.testing.assert_close(made(logits, labels), F.cross_entropy(logits / 4, labels))
    assert build_criterion("weighted_tempered", COUNTS).weight is not None


def test_a_new_loss_stands_in_sums(tempered):
    logits, labels = example()
    total = build_criterion("0.5*tempered+dice", COUNTS, temperature=4.0)
    assert isinstance(total, SumLoss) and total.criteria[0].temperature == 4
    expected = 0.5 * tempered(temperature=4.0)(logits, labels) + build_criterion("dice", COUNTS)(logits, labels)
    torch.testing.assert_close(total(logits, labels), expected)
    with pytest.raises(ValueError, match="cannot share their scores"):
        build_criterion("mse+tempered", COUNTS)


def test_the_options_know_a_new_loss(tempered):
    option = LOSS_OPTIONS["temperature"]
    assert (option.default, option.help) == (2.0, "of tempered: what divides the scores")
    assert unused_options("ce", ["temperature"]) == {"temperature": ("tempered",)}
    assert unused_options("ce+tempered", ["temperature", "label_smoothing"]) == {}
    with pytest.raises(ValueError, match="temperature must be positive and finite, got 0"):
        build_criterion("tempered", COUNTS, temperature=0)
    with pytest.raises(ValueError, match=r"unknown loss 'temperd'; choose one of .*, tempered; weighted_NAME"):
        build_criterion("temperd", COUNTS)


def test_a_module_placed_among_the_losses_is_found_there(tmp_path):
    shutil.copytree(ROOT / "segloss", tmp_path / "segloss", ignore=shutil.ignore_patterns("__pycache__", "datasets"))
    (tmp_path / "segloss/losses/tempered.py").write_text(NEW_MODULE, encoding="utf-8")
    code = """
from segloss.losses import LOSS_OPTIONS, LOSSES, build_criterion
print([name for name in LOSSES][-1], LOSS_OPTIONS["temperature"].default)
print(build_criterion("ce+weighted_tempered", [900, 90, 10], temperature=3.0).criteria[1].temperature)
"""
    # From that folder: it comes first on the path.
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env={})
    assert (done.stdout, done.stderr) == ("tempered 2.0\n3.0\n", "")


@pytest.mark.usefixtures("registry")
def test_declarations_that_cannot_be_are_refused():
    for name in ("Mine", "weighted_mine", "my-loss", ""):
        with pytest.raises(ValueError, match="name of a loss must be one word in small letters"):
            type("Mine", (WeightedCriterion,), {}, name=name)
    with pytest.raises(ValueError, match="CrossEntropyLoss is called 'ce' already; choose another name"):
        type("Mine", (WeightedCriterion,), {}, name="ce")
    for option, reader in (("gamma", "focal"), ("class_weights", "weighted_NAME")):
        with pytest.raises(ValueError, match=f"option '{option}' is declared otherwise by {reader}; share its Option"):
            type("Mine", (WeightedCriterion,), {}, name="mine", options={option: Option(3.0, "another one")})
    assert "mine" not in LOSSES and LOSS_OPTIONS["gamma"].default == 2


@pytest.mark.usefixtures("registry")
def test_a_shared_option_names_all_that_read_it():
    type("Mine", (WeightedCriterion,), {}, name="mine", options={"gamma": FocalLoss.options["gamma"]})
    assert LOSS_OPTIONS["gamma"].help == "of focal and mine: focusing exponent"
    assert unused_options("ce", ["gamma"]) == {"gamma": ("focal", "mine")}


def test_a_class_that_is_written_anew_takes_the_place_of_the_old(tempered):
    exec(NEW_MODULE, names := {"__name__": "tempered"})
    assert LOSSES["tempered"] is names["TemperedLoss"] is not tempered


def test_a_class_without_a_name_is_no_loss_by_name():
    before = list(LOSSES)
    own = type("Mine", (FocalLoss,), {})
    assert list(LOSSES) == before and own.options == FocalLoss.options


# The function of a loss.


def scaled_error(logits: Tensor, labels: Tensor, size: float, *, ignore_index=255, reduction="mean", divisor=None):
    return size * (logits.sum() - labels.sum()) / (1 if divisor is None else divisor)


def a_loss_of(size: float, **body) -> Criterion:
    made = type("Mine", (WeightedCriterion,), body, function=scaled_error)()
    made.size = size
    return made


@pytest.mark.usefixtures("registry")
def test_a_loss_calls_its_function_with_its_own_attributes():
    logits, labels = example()
    mine = a_loss_of(3.0)
    assert type(mine).arguments == ("size", "ignore_index", "reduction")  # and no weight, which it does not know
    assert torch.equal(mine(logits, labels), scaled_error(logits, labels, 3.0))
    assert torch.equal(mine(logits, labels, 2.0), scaled_error(logits, labels, 3.0, divisor=2.0))
    mine.size = 4.0  # read at each call
    assert torch.equal(mine(logits, labels), scaled_error(logits, labels, 4.0))
    assert type("Child", (type(mine),), {}).arguments == type(mine).arguments


def test_what_a_function_does_not_know_is_refused_only_where_it_is_given():
    logits, labels = example()
    with pytest.raises(TypeError, match="class_mask"):
        a_loss_of(3.0)(logits, labels, class_mask=torch.ones(2, 3, dtype=torch.bool))


def test_what_a_forward_takes_at_each_call_is_no_attribute():
    def forward(self, logits, labels, size=1.0):
        return self.loss_of(logits, labels, size=size)

    logits, labels = example()
    mine = a_loss_of(3.0, forward=forward)
    assert "size" not in type(mine).arguments
    assert torch.equal(mine(logits, labels, 5.0), scaled_error(logits, labels, 5.0))


def test_a_forward_of_ones_own_may_call_the_function_with_what_all_share():
    def forward(self, logits, labels, divisor=None):
        return focal_loss(2 * logits, labels, gamma=self.gamma, **self.shared(divisor))

    logits, labels = example()
    mine = type("Mine", (FocalLoss,), {"forward": forward})(gamma=1.0, weight=[1.0, 2.0, 3.0])
    expected = focal_loss(2 * logits, labels, gamma=1.0, weight=torch.tensor([1.0, 2.0, 3.0]))
    assert torch.equal(mine(logits, labels), expected)


def test_a_criterion_without_function_and_forward_says_what_it_lacks():
    with pytest.raises(NotImplementedError, match="Mine has neither function= where its class begins nor forward"):
        type("Mine", (Criterion,), {})()(*example())


@pytest.mark.parametrize("name", LOSSES)
def test_a_module_has_every_parameter_of_its_function(name):
    made = build_criterion(name, COUNTS)
    parameters, at_call = (inspect.signature(f).parameters for f in (type(made).function, made.forward))
    assert set(type(made).arguments) == set(parameters) - set(at_call)
    assert all(hasattr(made, argument) for argument in type(made).arguments)


def test_the_divisor_of_a_sum_is_one_number_for_each_term():
    total, (logits, labels) = build_criterion("ce+dice", COUNTS), example()
    with pytest.raises(ValueError, match=r"divisor must have shape \(2,\), one number for each term, got \(\)"):
        total(logits, labels, 3.0)


# Names and options.


@pytest.mark.parametrize("name", ["CE", "Outlying_MSE", "Weighted_CE", "CE+0.5*Weighted_Dice", "ce + 5E-1*DICE"])
def test_the_case_of_a_name_does_not_matter(name):
    logits, labels = example()
    assert torch.equal(
        build_criterion(name, COUNTS)(logits, labels), build_criterion(name.lower(), COUNTS)(logits, labels)
    )


def test_the_case_of_a_recipe_does_not_matter():
    made = build_criterion("weighted_outlying_mse", COUNTS, label_values="Log", class_weights="ENet")
    same = build_criterion("weighted_outlying_mse", COUNTS, label_values="log", class_weights="enet")
    assert torch.equal(made.label_values, same.label_values) and torch.equal(made.weight, same.weight)


def test_an_option_that_no_loss_knows_names_those_it_could_be():
    with pytest.raises(TypeError, match=r"no loss has an option 'gama'; known are .*gamma"):
        build_criterion("focal", COUNTS, gama=2.0)


def test_an_option_may_have_the_name_of_its_flag_or_of_its_keyword():
    for name, flag, keyword in (("outlying_mse", "label_power", "power"), ("logit_adjusted", "adjustment", "tau")):
        options = {"label_values": "power"} if flag == "label_power" else {}
        by_flag, by_keyword = (build_criterion(name, COUNTS, **options, **{key: 2.0}) for key in (flag, keyword))
        assert torch.equal(by_flag.tilt, by_keyword.tilt)
        assert not torch.equal(by_flag.tilt, build_criterion(name, COUNTS, **options).tilt)


@pytest.mark.parametrize("words", [["6", "4.5", "1e-1"], ("6", "4.5", "0.1")])
def test_label_values_may_be_words_of_a_command_line(words):
    made = build_criterion("outlying_mse", COUNTS, label_values=words)
    torch.testing.assert_close(made.label_values, torch.tensor([6, 4.5, 0.1]))
    assert torch.equal(
        build_criterion("outlying_mse", COUNTS, label_values=["log"]).label_values,
        build_criterion("outlying_mse", COUNTS, label_values="log").label_values,
    )


@pytest.mark.parametrize("words", ["rnk", ["rnk"], ["rank", "log"], ["1", "two", "3"]])
def test_words_that_are_no_label_values_name_the_choices(words):
    with pytest.raises(ValueError, match="label_values must be rank, uniform, power, log, effective or one number per"):
        build_criterion("outlying_mse", COUNTS, label_values=words)
    assert build_criterion("ce", COUNTS, label_values=words)  # which has no use for them


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("outlying_mse", "alpha", 0.0),
        ("outlying_mse", "label_power", -1.0),
        ("focal", "gamma", float("nan")),
        ("ce", "label_smoothing", 1.0),
        ("vector_scaling", "adjustment", float("inf")),
        ("weighted_ce", "class_weights", "enett"),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_the_option_and_by_the_loss(name, option, value):
    assert LOSS_OPTIONS[option].fits(LOSS_OPTIONS[option].default) and not LOSS_OPTIONS[option].fits(value)
    with pytest.raises(ValueError, match=f"{option} must be "):
        build_criterion(name, COUNTS, **{option: value})


def test_unused_options_are_those_that_no_term_reads():
    assert set(unused_options("ce", LOSS_OPTIONS)) == set(LOSS_OPTIONS) - {"label_smoothing"}
    assert unused_options("focal", ["alpha"]) == {"alpha": ("outlying_mse", "mse")}
    assert unused_options("Weighted_CE+focal", ["class_weights", "gamma"]) == {}
    with pytest.raises(ValueError, match="unknown loss 'cee'"):
        unused_options("cee", ["alpha"])


# Declarations are true.


@pytest.mark.parametrize(("name", "option"), DECLARED)
def test_a_declared_default_is_that_of_the_keyword(name, option):
    loss = LOSSES[name]
    keyword = loss.keywords.get(option, option)
    functions = [function for kind in loss.__mro__ for function in (kind.__dict__.get("from_counts"), kind.__init__)]
    signatures = [inspect.signature(getattr(function, "__func__", function)) for function in functions if function]
    default = next(s.parameters[keyword].default for s in signatures if keyword in s.parameters)
    declared = recipe_or_numbers(loss.options[option].default)
    if keyword == "power":  # belongs to one recipe, which has it where none is given
        assert default is None
        made = [loss.from_counts(COUNTS, label_values="power", **given) for given in ({}, {keyword: declared})]
        assert torch.equal(*(criterion.label_values for criterion in made))
    else:
        assert declared == default


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_depends_on_the_counts_if_it_says_so(name):
    logits, labels = example()
    values = {float(build_criterion(name, counts)(logits, labels)) for counts in (COUNTS, COUNTS[::-1])}
    assert len(values) == (2 if LOSSES[name].needs_counts else 1)


@pytest.mark.parametrize(
    "made",
    [
        *(build_criterion(f"{form}{name}", COUNTS) for name in LOSSES for form in ("", "weighted_")),
        *(CrossEntropyLoss(label_smoothing=0.1), FocalLoss(gamma=0), LDAMLoss([0.1, 0.2, 0.5], scale=1)),
        VectorScalingLoss.from_counts(COUNTS),
        *(build_criterion(name, COUNTS) for name in ("weighted_ce+dice", "focal+ce", "mse+outlying_mse")),
    ],
    ids=repr,
)
def test_the_declared_formula_gives_the_posterior_and_no_other_does(made):
    """Where no score is positive the outlying posterior is one-hot, by a rule of its own."""
    logits, _ = example()
    tilt = (torch.ones(3) if made.tilt is None else made.tilt).view(1, 3, 1, 1)
    formulas = {
        "softmax": (logits - tilt.log()).softmax(1),
        "outlying": F.normalize((logits / tilt).clamp(min=0), p=1, dim=1),
    }
    found, some = made.posterior(logits), (logits > 0).any(1, keepdim=True)
    fitting = [kind for kind, p in formulas.items() if torch.allclose(found * some, p * some, atol=1e-5)]
    assert fitting == ([] if made.posterior_formula == "other" else [made.posterior_formula])


def test_the_squared_error_to_plain_labels_is_an_outlying_loss_of_one_value():
    made = MSELoss.from_counts(COUNTS, alpha=3.0)
    assert isinstance(made, OutlyingMSELoss) and made.label_values.tolist() == [3.0] * 3
    with pytest.raises(InputError, match="label_values"):
        MSELoss.from_counts(COUNTS, label_values="rank")


# The docs.


def rows_of(table_head: str) -> list[list[str]]:
    """Cells of a table in docs/losses.md that begins so, without their marks of code."""
    page = (ROOT / "docs/losses.md").read_text(encoding="utf-8")
    lines = page[page.index(table_head) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_docs_list_every_loss_with_its_module():
    rows = rows_of("| `--loss` |")
    assert [row[0] for row in rows] == list(LOSSES)
    for name, module, _, counts, *_ in rows:
        assert module == LOSSES[name].__name__
        assert counts == ("yes" if LOSSES[name].needs_counts else "no"), name


def test_the_docs_list_every_option_with_its_losses_default_and_range():
    rows = rows_of("| option | of |")
    assert [row[0] for row in rows] == [f"--{name.replace('_', '-')}" for name in LOSS_OPTIONS]
    for (flag, readers, default, expected, text), option in zip(rows, LOSS_OPTIONS.values(), strict=True):
        assert default == " ".join(map(str, option.default if isinstance(option.default, list) else [option.default]))
        assert expected == option.expected, flag
        losses, declared = re.fullmatch(r"of (.*?): (.*)", option.help).groups()
        assert readers == losses.replace(" and ", ", ")
        assert text == declared or declared.split(",")[0] in expected  # --help lists the recipes again
