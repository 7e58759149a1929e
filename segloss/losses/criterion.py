"""The contract every loss module keeps: what it declares, and how its scores are read as posterior and decision."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from segloss.errors import InputError
from segloss.losses.checks import check_choices, check_scores, class_vector, told_as_probabilities
from segloss.losses.class_weights import CLASS_WEIGHTS, class_weights_from_counts
from segloss.losses.label_values import Counts, class_counts
from segloss.losses.labels import IGNORE_INDEX, ignore_index_of, ignored_label
from segloss.losses.partial_labels import ignore_unlabelled
from segloss.losses.ranges import FINITE, require_number
from segloss.losses.reduction import first_largest, weight_sum, working_dtype
from segloss.losses.tracing import is_transformed
from segloss.options import Option

Loss = TypeVar("Loss", bound="Criterion")
WEIGHTED = "weighted_"
_losses: dict[str, type["Criterion"]] = {}
_options: dict[str, Option] = {
    "class_weights": Option(
        "median_frequency",
        f"of {WEIGHTED}NAME: {', '.join(CLASS_WEIGHTS)}",
        f"one of {', '.join(CLASS_WEIGHTS)}",
        lambda recipe: str(recipe).lower() in CLASS_WEIGHTS,
    )
}
LOSSES: Mapping[str, type["Criterion"]] = MappingProxyType(_losses)
LOSS_OPTIONS: Mapping[str, Option] = MappingProxyType(_options)


@runtime_checkable
class PosteriorRule(Protocol):
    """What decides on a posterior, such as :class:`segloss.IoUDecision`."""

    def decide(self, posterior: Tensor) -> Tensor:
        """Class ids ``(N, *)`` of P(c|x), ``(N, C, *)``."""


def losses_that_read(option: str) -> tuple[str, ...]:
    """Names of the losses that declare an option; ``weighted_NAME`` stands for all of that form."""
    if option == "class_weights":
        return (f"{WEIGHTED}NAME",)
    return tuple(name for name, loss in LOSSES.items() if option in loss.options)


class Criterion(nn.Module):
    r"""Base of the loss modules; the readings here are those of a softmax loss.

    Every criterion declares its tilt u, shape ``(C,)`` (None: all 1): at its optimum the raw argmax of the
    scores is :math:`\arg\max_c u_c P(c|x)`. :meth:`decide` moves that operating point after training:
    :math:`\arg\max_c u_c^\tau P(c|x)`, so tau = 1 is the plain argmax of the scores and tau = 0 the
    decision of highest pixel accuracy. :meth:`posterior` divides the tilt out.

    ``forward(logits, labels, divisor=None, class_mask=None)`` divides its mean by ``divisor`` where given, see
    :meth:`divisor`; ``class_mask``, bool ``(N, C)``, says which classes each image labels
    (:func:`segloss.losses.partial_labels.only_labelled`; None: all).

    A loss that can be had by name says so where its class begins; :func:`build_criterion`, sums, flags and config files
    know it from then on. ``function`` is what it calls: each parameter of it that is none of ``forward`` is an
    attribute of the same name. ``keywords`` is for options whose flag is not the keyword of ``from_counts``::

        class LogitAdjustedLoss(WeightedCriterion, name="logit_adjusted", function=logit_adjusted_loss,
                                options={"adjustment": Option(1.0, "exponent tau of the prior")},
                                keywords={"adjustment": "tau"}):

    Attributes:
        needs_counts: the loss itself, not its class weights alone, depends on the pixel counts.
        scores: what z is trained to be: ``"softmax"``, logarithms of probabilities; ``"outlying"``, multiples of them.
        plain_by_posterior: whether :meth:`plain_scores` tells the plain argmax of the scores from posteriors alone.
        plain_by_tilt: whether :meth:`plain_scores` are u P, of which others know the tilt u alone.
        of_pixels: whether its optimum is a score of each pixel; not so for losses of regions, whose scores say of P no
            more than the order.
        posterior_formula: what gives the posterior from z and u: ``"softmax"``, softmax(z - log u); ``"outlying"``,
            max(z / u, 0) normalised; ``"other"``, not these two alone.
    """

    options: ClassVar[Mapping[str, Option]] = MappingProxyType({})
    keywords: ClassVar[Mapping[str, str]] = MappingProxyType({})
    function: ClassVar[Callable[..., Tensor] | None] = None
    arguments: ClassVar[tuple[str, ...]] = ()
    needs_counts: ClassVar[bool] = False
    scores: str = "softmax"
    of_pixels: bool = True
    posterior_formula: str = "softmax"
    plain_by_posterior: bool = True
    plain_by_tilt: bool = True
    _looked = False  # at the first scores

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        function: Callable[..., Tensor] | None = None,
        options: Mapping[str, Option] | None = None,
        keywords: Mapping[str, str] | None = None,
    ):
        """Keep what a loss declares of itself; what it leaves out it has from its base.

        Raises:
            ValueError: the name cannot be, or another loss has it or declares one of the options in another way.
        """
        super().__init_subclass__()
        cls.options = cls.options if options is None else options
        cls.keywords = cls.keywords if keywords is None else keywords
        if function is not None:
            at_call = {*signature(cls.forward).parameters, "divisor", "class_mask"}
            cls.function = staticmethod(function)
            cls.arguments = tuple(own for own in signature(function).parameters if own not in at_call)
        if name is None:
            return
        if not name.isidentifier() or name != name.lower() or name.startswith(WEIGHTED):
            raise ValueError(f"name of a loss must be one word in small letters, without {WEIGHTED!r}, got {name!r}")
        same = LOSSES.get(name, cls)
        if (same.__module__, same.__qualname__) != (cls.__module__, cls.__qualname__):  # not the same cell run again
            raise ValueError(f"{same.__qualname__} is called {name!r} already; choose another name")
        for option, own in cls.options.items():
            for reader in losses_that_read(option):
                if reader != name and LOSSES.get(reader, Criterion).options.get(option) != own:
                    raise ValueError(f"option {option!r} is declared otherwise by {reader}; share its Option or rename")
        _losses[name] = cls
        for option, own in cls.options.items():
            _options[option] = replace(own, help=f"of {' and '.join(losses_that_read(option))}: {own.help}")

    def __init__(self, *, ignore_index: int | None = IGNORE_INDEX, reduction: str = "mean"):
        super().__init__()
        check_choices(reduction)
        ignored = ignored_label(ignore_index)
        self.ignore_index = None if ignore_index is None else ignored  # of numpy's integers a plain one, to compile
        self.reduction = reduction

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        if tensor is not None and tensor.is_inference():  # made in that mode: no gradient could be had by it
            with torch.inference_mode(False):
                tensor = tensor.clone()
        super().register_buffer(name, tensor, persistent)
        if tensor is not None and torch.empty(0).is_meta:  # in a network that is made without memory
            self.__dict__.setdefault("_made", {})[name] = tensor.clone()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        for name in [name for name in self.__dict__.get("_made", ()) if prefix + name in state_dict]:
            del self.__dict__["_made"][name]

    @property
    def _is_hf_initialized(self) -> bool:
        return bool(self.__dict__.get("_loaded", False))

    @_is_hf_initialized.setter
    def _is_hf_initialized(self, loaded: bool) -> None:
        """What ``from_pretrained`` of transformers sets last. It marks the buffers that it loaded; those that the
        checkpoint lacks it has made anew, without values, and they take those of the criterion's making."""
        self.__dict__["_loaded"] = loaded
        for name, made in self.__dict__.pop("_made", {}).items():
            buffer = self._buffers.get(name)
            if buffer is not None and not getattr(buffer, "_is_hf_initialized", False):
                self._buffers[name] = made.to(buffer.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Criterion":
        """Buffers move with the model but stay float32: ``model.half()`` would round label values and lose priors.

        They keep their values too: ``model.to_empty()`` would leave what no initialisation brings back.
        """
        before = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's own is not typed
        for name, buffer in before.items():
            cast = self.get_buffer(name)
            narrow = cast.is_floating_point() and cast.itemsize < 4
            if narrow or not buffer.is_meta:
                self._buffers[name] = buffer.to(cast.device, buffer.dtype if narrow else cast.dtype)
        return self

    @classmethod
    def from_counts(cls: type[Loss], counts: Counts, **options: Any) -> Loss:
        """From training pixel counts ``(C,)``: ``class_weights`` names a recipe for ``weight``; options as above."""
        return cls(**with_class_weights(counts, options))

    def loss_of(self, logits: Tensor, labels: Tensor, **at_call: Any) -> Tensor:
        """The declared function of these, the criterion's own arguments, and what is given (not None) at the call."""
        if self.function is None:
            raise NotImplementedError(f"{type(self).__name__} has neither function= where its class begins nor forward")
        own = {name: getattr(self, name) for name in self.arguments}
        loss = self.function(logits, labels, **own, **without_none(at_call))
        self._look_at(logits)
        return loss

    def _look_at(self, logits: Tensor) -> None:
        """Warn, once, of scores that are probabilities already: networks with a softmax of their own learn little."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or self._looked:  # type: ignore[no-untyped-call]
            return
        if is_transformed(logits) or logits.device.type == "meta" or not logits.numel():
            return
        if logits.device.type == "cuda" and torch.cuda.is_current_stream_capturing():  # no value can be read there
            return
        self._looked = True
        if told := told_as_probabilities(logits, self.scores == "softmax"):
            warnings.warn(f"logits {told}: give raw scores, without softmax, sigmoid or activation=", stacklevel=6)

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        divisor: Tensor | float | None = None,
        class_mask: Tensor | None = None,
    ) -> Tensor:
        return self.loss_of(logits, labels, divisor=divisor, class_mask=class_mask)

    def divisor(self, labels: Tensor, *, class_mask: Tensor | None = None) -> Tensor:
        r"""What the mean over these labels divides by, the factor C aside: :math:`\sum_{i \in V} w_{y_i}`, 0-dim.

        Added up over the parts of a batch (micro-batches, processes) it is the ``divisor`` of each part, and the parts'
        losses add up to that of the whole; docs/integrate.md shows it. ``class_mask`` is that of ``forward``.
        """
        labels = ignore_unlabelled(labels, class_mask, self.ignore_index)
        return weight_sum(labels, getattr(self, "weight", None), self.ignore_index)

    @property
    def reads(self) -> "Criterion":
        """What says what the scores mean: of a sum one of its terms."""
        return self

    @property
    def tilt(self) -> Tensor | None:
        """u ``(C,)``, or None where the raw argmax already is the natural-prior decision."""
        return None

    def check_readable(self, logits: Tensor, tau: float = 1.0) -> None:
        """Raise ValueError or TypeError unless these are scores of this criterion's classes, and tau a number."""
        require_number("tau", tau, FINITE)
        check_scores(logits, next((len(vector) for vector in self.buffers() if vector.ndim == 1), None))

    def softmax_scores(self, logits: Tensor) -> Tensor:
        """What the loss takes the softmax of, apart from what the labels add; in the order of the logits."""
        return logits.to(working_dtype(logits))

    def natural_scores(self, logits: Tensor) -> Tensor:
        r"""Scores whose softmax is the posterior: :math:`z_c - \log u_c`."""
        scores = self.softmax_scores(logits)
        return scores if self.tilt is None else scores - per_class(self.tilt, scores).log()

    def posterior(self, logits: Tensor) -> Tensor:
        """P(c|x), shape ``(N, C, *)``, float32 or wider: softmax of :meth:`natural_scores`."""
        self.check_readable(logits)
        return self.natural_scores(logits).softmax(1)

    def scores_of(self, posterior: Tensor) -> Tensor:
        r"""The scores z ``(C,)`` at this criterion's optimum for a posterior P ``(C,)``: :math:`z_c = \log(u_c P_c)`
        about its mean. Where the optimum has no closed form (focal loss, smoothed labels): that of cross entropy.

        Bias of the last layer at the start of training, P the training prior, as in Lin et al., "Focal loss", ICCV
        2017, section 3.3.
        """
        scores = posterior.log() if self.tilt is None else (posterior * self.tilt.to(posterior)).log()
        return scores - scores.mean()

    def plain_scores(self, posterior: Tensor) -> Tensor:
        """What has the plain argmax of the scores over its last dimension, at the optimum for posteriors ``(*, C)``:
        u P."""
        return posterior if self.tilt is None else posterior * self.tilt.to(posterior)

    def decide(self, logits: Tensor, tau: float | PosteriorRule = 1.0) -> Tensor:
        """Class ids ``(N, *)`` int64 at operating point ``tau``, 1: the plain argmax of the logits; or by a rule for
        the posterior, such as that of :func:`segloss.iou_decision`."""
        if isinstance(tau, PosteriorRule):
            return tau.decide(self.posterior(logits))
        return self.decide_at(logits, tau)

    def decide_at(self, logits: Tensor, tau: float) -> Tensor:
        """:meth:`decide` at an operating point; what a loss with another formula defines."""
        self.check_readable(logits, tau)
        if tau == 1:
            return first_largest(logits)
        natural = self.natural_scores(logits)
        if tau == 0:
            return first_largest(natural, logits)
        between = natural.lerp(self.softmax_scores(logits), tau)
        return first_largest(torch.where(natural.isinf(), natural, between), logits)  # infinity less itself is NaN

    def extra_repr(self) -> str:
        return f"ignore_index={self.ignore_index}, reduction={self.reduction!r}"

    def told(self) -> str:
        """What it is made of, in a line."""
        return self.extra_repr()


class WeightedCriterion(Criterion):
    """Base of the softmax losses with class weights; ``weight`` is a buffer and the declared tilt.

    Args:
        weight: w ``(C,)``, positive, or None; see :func:`segloss.losses.class_weights.class_weights_from_counts`.
        ignore_index, reduction: as in the function of the same name.
    """

    weight: Tensor | None

    def __init__(
        self,
        *,
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int | None = IGNORE_INDEX,
        reduction: str = "mean",
    ):
        super().__init__(ignore_index=ignore_index, reduction=reduction)
        self.register_buffer("weight", None if weight is None else class_vector("weight", weight))

    @property
    def tilt(self) -> Tensor | None:
        return self.weight

    def shared(self, divisor: Tensor | float | None = None, class_mask: Tensor | None = None) -> dict[str, Any]:
        """What every function of these losses takes by keyword, for a ``forward`` of one's own."""
        own = {"weight": self.weight, "ignore_index": self.ignore_index, "reduction": self.reduction}
        return {**own, "divisor": divisor, **without_none({"class_mask": class_mask})}

    def extra_repr(self) -> str:
        return f"{'' if self.weight is None else 'class weights, '}{super().extra_repr()}"


def with_class_weights(counts: Counts, options: dict[str, Any]) -> dict[str, Any]:
    """``options`` of a module, with ``class_weights`` (a recipe) and its own options turned into ``weight``.

    Where no ``ignore_index`` is given it is that of a ``PixelCounts``, else the one of so many classes.
    """
    if "class_weight" in options:
        cure = 'give weight=[...], a number per class, or class_weights="median_frequency" or another recipe'
        raise InputError("class_weight is no option of a loss", cure)
    left_out = getattr(counts, "ignore_index", "auto")
    options.setdefault("ignore_index", ignore_index_of(len(class_counts(counts)), left_out))
    trained = without_ignored(counts, options)
    recipe = options.pop("class_weights", None)
    own = {name: options.pop(name) for name in ("pixels_of_images", "beta") if name in options}
    if recipe is None:
        if own:
            raise ValueError(f"{' and '.join(own)} belong to class_weights; name a recipe or leave them out")
        return options
    if options.get("weight") is not None:
        raise ValueError("give weight or class_weights, not both")
    around = own.get("pixels_of_images") is None and hasattr(counts, "pixels_of_images")
    if trained is not counts and around and str(recipe).lower() == "median_frequency":
        what = f"counts hold pixels of class {options['ignore_index']}, which is ignored, in the images of the others"
        raise InputError(what, f"count them with count_labels(..., ignore_index={options['ignore_index']})")
    return options | {"weight": class_weights_from_counts(trained, recipe, **own)}


def without_ignored(counts: Counts, options: Mapping[str, Any]) -> Counts:
    """The counts, of the class that a module with these options ignores 0: nothing is ranked or weighted around it."""
    if "ignore_index" not in options:
        return counts
    pixels, ignored = class_counts(counts), ignored_label(options["ignore_index"])
    if not 0 <= ignored < len(pixels) or not pixels[ignored]:
        return counts
    return pixels.where(torch.arange(len(pixels), device="cpu") != ignored, 0)


def without_none(at_call: Mapping[str, Any]) -> dict[str, Any]:
    """Without those that are None: a loss of one's own may not know them."""
    return {name: value for name, value in at_call.items() if value is not None}


def per_class(vector: Tensor, scores: Tensor) -> Tensor:
    """``(C,)`` shaped and typed to meet ``(N, C, *)``."""
    return vector.to(scores).view(1, -1, *[1] * (scores.ndim - 2))
