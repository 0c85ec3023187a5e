"""What can be wrong with any Function, whatever it computes: memory, state, claims that do not hold."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchfromscratch import _torch_private as private
from torchfromscratch.checking.case import Case, roll
from torchfromscratch.checking.differences import Unknown
from torchfromscratch.checking.layers import Layer
from torchfromscratch.checking.subject import Subject
from torchfromscratch.checking.trial import Trial, backward, call, close, contiguous, graph_nodes, has_shapes, run

SAMPLE = 16  # cases that are looked at
FEW = 6  # cases in which a call is made several times


@dataclass(frozen=True)
class Fault:
    """Something wrong in a case, or, as `advice`, something that could be better."""

    what: str
    sentence: str
    explanation: str
    case: Case
    advice: bool = False


def faults(
    subject: Subject, layer: Layer | Unknown, trials: Sequence[Trial], attempt: Callable[[Case], Trial]
) -> list[Fault]:
    """The first case of each fault; `attempt` tries a case again."""
    found: dict[str, Fault] = {}
    small = sorted((trial for trial in trials if not trial.refusal), key=lambda trial: trial.case.size())
    for fault in _all(subject, layer, trials, small, attempt):
        found.setdefault(re.sub(r"\[.*?\]|\(.*?\)", "", f"{fault.what} {fault.sentence}"), fault)
    return list(found.values())


def _all(
    subject: Subject,
    layer: Layer | Unknown,
    trials: Sequence[Trial],
    small: Sequence[Trial],
    attempt: Callable[[Case], Trial],
) -> Iterator[Fault]:
    yield from _writes(small)
    yield from _refusals(subject, trials, attempt)
    unsteady = [*_not_repeatable(small, attempt)]
    yield from unsteady or _second_backward(subject, small)
    if isinstance(layer, Layer):
        yield from _remembers_shapes(small, attempt)
    if any(trial.dtype != torch.float64 for trial in small):
        return
    for trial in [trial for trial in small if trial.truth.outputs[0].numel()][:SAMPLE]:
        with suppress(Exception):  # what it refuses when fewer gradients are asked for is not supported
            yield from [*_memory(subject, trial)]
    functions = _functions(subject, small)
    if functions:
        yield from _claims(subject, layer, functions, small)


def _writes(trials: Sequence[Trial]) -> Iterator[Fault]:
    for trial in trials:
        for name in trial.written:
            yield Fault(
                "memory",
                f"It writes into {name}.",
                "What is given belongs to others, who may still need it: work on a copy, x.clone().",
                trial.case,
            )


# What torch's engine says of gradients that it cannot take, and what to do
COMPLAINTS = {
    "returned an incorrect number of gradients": (
        "backward returns the wrong number of gradients.",
        "It returns one for each argument of forward, None for those that have none.",
    ),
    "leaf Variable that requires grad is being used in an in-place operation": (
        "It writes into its input.",
        "What is given belongs to others, who may still need it: work on a copy, x.clone().",
    ),
    "view size is not compatible": (
        "It fails where a tensor does not lie contiguously.",
        "Tensors arrive transposed, expanded or channels last: use reshape in place of view.",
    ),
    "modified by an inplace operation": (
        "It changes what it saved for backward.",
        "What is saved for backward must stay as it is: work on a copy.",
    ),
}


INVALID = re.compile(r"invalid gradient at index (\d+) - got (\[.*?\]) but expected shape compatible with (\[.*?\])")


Shape = list[int]
# What a wrong shape tells, by what it is, what it should be, and the shape of dL/dy
SHAPES: tuple[tuple[str, Callable[[Shape, Shape, Shape], bool]], ...] = (
    ("It is transposed.", lambda got, due, g: got == due[::-1]),
    ("It has the shape of dL/dy: the sum over what shares it is missing.", lambda got, due, g: got == g),
    ("It is summed over everything.", lambda got, due, g: got == []),
    ("It is flattened.", lambda got, due, g: got == [math.prod(due)]),
    (
        "It has one element for each sample: the sum is over the wrong dimensions.",
        lambda got, due, g: got == g[:1] and got != due[:1],
    ),
    ("The batch is missing.", lambda got, due, g: got == due[1:]),
)


def _shapes(subject: Subject, trials: Sequence[Trial]) -> Iterator[Fault]:
    """Gradients that torch refuses for their shape, one for each argument."""
    found: dict[str, list[tuple[Trial, Shape, Shape]]] = {}
    for trial in trials:
        if invalid := INVALID.search(trial.refusal):
            index, got, due = (json.loads(part) for part in invalid.groups())
            found.setdefault(_argument(subject, trial.case, index), []).append((trial, got, due))
    for name, shapes in found.items():
        holds = [
            words
            for words, is_so in SHAPES
            if all(is_so(got, due, list(trial.truth.gs[0].shape)) for trial, got, due in shapes)
        ]
        reason = holds[0] if holds else "What is broadcast or shared is summed over, and padding is cropped."
        trial, got, due = min(shapes, key=lambda shape: (not math.prod(shape[2]), shape[0].case.size()))
        yield Fault(
            f"{name}.grad" if name else "error",
            f"The gradient has the wrong shape: {got} in place of {due}.",
            f"A gradient has the shape of what it is taken by. {reason}",
            trial.case,
        )


def _argument(subject: Subject, case: Case, index: int) -> str:
    """The argument that torch means by this number, which counts tensors alone, if a Function is what is called."""
    is_apply = getattr(subject.function, "__name__", "") == "apply"
    tensors = [name for name in subject.takes if isinstance(case.arguments[name], Tensor)]
    return tensors[index] if is_apply and index < len(tensors) else ""


def _refusals(subject: Subject, trials: Sequence[Trial], attempt: Callable[[Case], Trial]) -> Iterator[Fault]:
    """Errors that tell of a mistake, not of something that is not supported."""
    yield from _shapes(subject, trials)
    for trial in trials:
        for complaint, (sentence, explanation) in COMPLAINTS.items():
            if complaint in trial.refusal:
                detail = trial.refusal.splitlines()[0]
                if "contiguously" not in sentence or not attempt(contiguous(trial.case)).refusal:
                    yield Fault("error", sentence, f"{explanation} ({detail})", trial.case)
    always = [trial for trial in trials if trial.in_backward and trial.refusal]
    if (
        always
        and all(trial.refusal for trial in trials)
        and not any(c in always[0].refusal for c in (*COMPLAINTS, "invalid gradient"))
    ):
        yield Fault("error", "backward fails.", always[0].refusal.splitlines()[0], always[0].case)


def _not_repeatable(trials: Sequence[Trial], attempt: Callable[[Case], Trial]) -> Iterator[Fault]:
    def differs(trial: Trial, again: Trial) -> bool:
        pairs = [(trial.given[what], again.given.get(what)) for what in trial.given]
        return any(isinstance(x, Tensor) and not (isinstance(y, Tensor) and _is_same_run(x, y)) for x, y in pairs)

    chosen = [*trials[:3], *trials[-3:]]
    for trial in chosen:
        first = attempt(trial.case)
        if any(differs(first, attempt(trial.case)) for _ in range(2)):
            yield Fault(
                "repeatability",
                "Called twice with the same numbers, it gives different ones.",
                "Memory that is read before it is written (torch.empty), random numbers, or a state that is kept "
                "between calls.",
                trial.case,
            )
            return
    for trial in trials[:8]:
        if differs(trial, attempt(trial.case)):
            yield Fault(
                "state",
                "It depends on what was called before.",
                "What a call leaves behind, on the class or in a global, is there for the next one: keep it in ctx.",
                trial.case,
            )
            return


def _second_backward(subject: Subject, trials: Sequence[Trial]) -> Iterator[Fault]:
    """Whether a second backward pass through the same graph gives other gradients."""
    for trial in [trial for trial in trials if trial.truth.outputs[0].numel()][:FEW]:
        try:
            leaves, outputs, gs = run(subject, trial.case, trial.dtype)
            first, again = (_gradients_of(outputs, [*leaves.values()], gs) for _ in range(2))
        except Exception as error:
            is_changed = "modified by an inplace operation" in str(error)
        else:
            pairs = zip(first, again, strict=True)
            is_changed = any(x is not None and (y is None or not _is_same_run(x, y)) for x, y in pairs)
        if is_changed:
            yield Fault(
                "backward twice",
                "Called a second time, backward gives other gradients, or fails: it changes what forward kept.",
                "What is kept for backward must stay as it is, for loss.backward(retain_graph=True) and for second "
                "derivatives: work on a copy.",
                trial.case,
            )
            return


def _gradients_of(outputs: Sequence[Tensor], leaves: Sequence[Tensor], gs: Sequence[Tensor]) -> list[Tensor | None]:
    """Copies of the gradients, from copies of dL/dy, with the graph left for another backward pass."""
    found = backward(outputs, leaves, [g.clone() for g in gs], retain_graph=True)
    return [None if x is None else x.clone() for x in found]


BATCHED = ("input", "target", "mask", "query", "key", "value", "hx", "cx")  # what has a batch
_new_sizes = itertools.cycle(range(7, 97))


def _remembers_shapes(trials: Sequence[Trial], attempt: Callable[[Case], Trial]) -> Iterator[Fault]:
    """Whether it is right in the first call with a shape and wrong in the next, whichever numbers come first."""
    wrong = [trial for trial in trials if _is_wrong(trial) and _has_batch_of_numbers(trial.case)]
    for trial in wrong[:FEW]:
        first, second = next(_new_sizes), next(_new_sizes)
        order = [(first, 0), (first, 1), (second, 1), (second, 0)]
        with suppress(RuntimeError, ValueError, IndexError):  # a layer that cannot be called with a batch like this
            tried = [attempt(_tile(trial.case, copies, moved)) for copies, moved in order]
            if [bool(t.refusal) or _is_wrong(t) for t in tried] == [False, True, False, True]:
                yield Fault(
                    "state",
                    "It depends on what was called before: right in the first call with a shape, wrong in the next.",
                    "What a call leaves behind, on the class or in a global, is there for the next one: keep it in "
                    "ctx.",
                    trial.case,
                )
                return


def _has_batch_of_numbers(case: Case) -> bool:
    """Whether there is a batch, and it is another when its numbers are moved on by one element."""
    x = next(iter(case.arguments.values()))
    return isinstance(x, Tensor) and x.dim() > 0 and not torch.equal(x, roll(x, 1))


def _tile(case: Case, copies: int, moved: int) -> Case:
    """The case with its batch so many times, its numbers moved on by so many elements."""
    batches = {
        name: torch.cat([roll(x, moved)] * copies)
        for name, x in case.arguments.items()
        if isinstance(x, Tensor) and name in BATCHED
    }
    return Case({**case.arguments, **batches}, case.cotangent, case.constants)


def _is_wrong(trial: Trial) -> bool:
    return any(trial.is_wrong(what) for what in trial.given)


def _is_same_run(x: Tensor, y: Tensor) -> bool:
    """Whether two runs gave the same, but for sums that memory's alignment orders otherwise."""
    return close(y, x.detach().double(), 64 * torch.finfo(x.dtype).eps if x.is_floating_point() else 0)


def function_nodes(outputs: Sequence[Any]) -> list[Any]:
    """The nodes of Functions written in Python in the graph of these outputs; a node is its ctx."""
    return [node for node in graph_nodes(outputs) if isinstance(node, torch.autograd.function.BackwardCFunction)]


def _memory(subject: Subject, trial: Trial) -> Iterator[Fault]:
    """What lies where, in one case."""
    case = trial.case
    leaves, outputs, gs = run(subject, case)
    if not has_shapes(outputs, trial.truth.outputs):
        return
    functions = function_nodes(outputs)
    for y in outputs:
        for name, x in leaves.items():
            if y.grad_fn in functions and _share(x, y):
                yield Fault(
                    "memory",
                    f"The output lies in the memory of {name}.",
                    "A Function that returns its input or a view of it shares what others may write into: return a "
                    "copy, or say so with ctx.mark_dirty.",
                    case,
                )
    for node in functions:
        for attribute, value in vars(node).items():
            for name, x in [
                *leaves.items(),
                *((f"output {i}" if len(outputs) > 1 else "output", y) for i, y in enumerate(outputs)),
            ]:
                if isinstance(value, Tensor) and value.numel() and _share(value, x):
                    yield Fault(
                        "save_for_backward",
                        f"The {name} is kept as ctx.{attribute}, not by ctx.save_for_backward.",
                        "What ctx keeps itself is not seen to be changed in place before backward, and an output kept "
                        "so never leaves memory.",
                        case,
                    )
    with record_backward(functions) as returned:
        backward(outputs, list(leaves.values()), gs)
    for node, gradients in returned:
        yield from _gradients(_leaves_of(node, gradients, leaves, subject), gs, outputs, case)
    yield from _unneeded_gradients(subject, case)


def _leaves_of(
    node: Any, gradients: Sequence[Any], leaves: Mapping[str, Tensor], subject: Subject
) -> dict[str, tuple[Any, Tensor]]:
    """Each tensor's gradient and the tensor, where it is known which argument of the Function it is."""
    names = {x: name for name, x in leaves.items()}
    if getattr(subject.function, "__self__", None) is private.forward_class(node):
        order = [leaves.get(name) for name in subject.takes]
    else:
        order = [getattr(before, "variable", None) for before, _ in node.next_functions]
        if len(order) != len(gradients):  # it has arguments besides tensors, somewhere
            return {}
    pairs = zip(gradients, order, strict=False)
    return {names[x]: (gradient, x) for gradient, x in pairs if x is not None and x in names}


@contextmanager
def record_backward(functions: Sequence[Any]) -> Iterator[list[tuple[Any, Sequence[Any]]]]:
    """Inside, what the backward of these nodes' Functions returns is kept with its ctx: before torch casts and sums."""
    returned: list[tuple[Any, Sequence[Any]]] = []
    classes = {private.forward_class(node) for node in functions}
    before = {cls: vars(cls).get("backward") for cls in classes}

    def recording(backward: Callable[..., Any]) -> Any:
        def record(ctx: Any, *gs: Any) -> Any:
            gradients = backward(ctx, *gs)
            returned.append((ctx, gradients if isinstance(gradients, tuple) else (gradients,)))
            return gradients

        return staticmethod(record)

    try:
        for cls in classes:
            cls.backward = recording(cls.backward)
        yield returned
    finally:
        for cls, own in before.items():
            if own is None:
                del cls.backward
            else:
                cls.backward = own


def _share(x: Tensor, y: Tensor) -> bool:
    return x.numel() > 0 and y.numel() > 0 and x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()


def _is_one_tensor(x: Tensor, y: Tensor) -> bool:
    """Whether these are one tensor, which torch copies where it must."""
    return x.data_ptr() == y.data_ptr() and x.shape == y.shape and x.stride() == y.stride()


def _gradients(
    returned: Mapping[str, tuple[Any, Tensor]], gs: Sequence[Tensor], outputs: Sequence[Tensor], case: Case
) -> Iterator[Fault]:
    """The gradients that a Function returns, before torch makes the best of them."""
    for name, (gradient, x) in returned.items():
        if not isinstance(gradient, Tensor):
            continue
        if gradient.numel() != x.numel():
            yield Fault(
                f"{name}.grad",
                f"The gradient has the shape {tuple(gradient.shape)}, but {name} is {tuple(x.shape)}: "
                "the sum over what shares it is missing.",
                "torch's engine adds it up, unasked, where the shapes allow it; the formula has the sum.",
                case,
            )
        elif gradient.shape != x.shape:
            yield Fault(
                f"{name}.grad",
                f"The gradient has the shape {tuple(gradient.shape)}, but {name} is {tuple(x.shape)}.",
                "torch's engine takes the dimensions of one element away.",
                case,
                advice=True,
            )
        if gradient.dtype != x.dtype:
            yield Fault(
                f"{name}.grad",
                f"The gradient is {gradient.dtype}, but {name} is {x.dtype}.",
                "torch casts it, and digits are lost.",
                case,
                advice=outputs[0].dtype != x.dtype,  # the output has no more digits
            )
        if any(_share(gradient, g) and not _is_one_tensor(gradient, g) for g in gs):
            yield Fault(
                "memory",
                f"dL/d {name} is a view of dL/dy.",
                "It becomes x.grad as it is, and what is done to one in place is done to the other: return a copy.",
                case,
            )


def _unneeded_gradients(subject: Subject, case: Case) -> Iterator[Fault]:
    """Gradients that nobody asked for."""
    names = list(case.tensors)
    if len(names) < 2:
        return
    leaves, outputs, gs = run(subject, case, needed=names[-1:])
    functions = function_nodes(outputs)
    if not functions:  # torch's own backward passes are not on trial here; of a bias alone, some crash
        return
    with record_backward(functions) as returned:
        backward(outputs, [leaves[names[-1]]], gs)
    if any(sum(isinstance(gradient, Tensor) for gradient in gradients) > 1 for _, gradients in returned):
        yield Fault(
            "needs_input_grad",
            "Gradients are computed that nobody asked for.",
            "ctx.needs_input_grad tells which are needed: return None for the others, and save their time.",
            case,
            advice=True,
        )


def _functions(subject: Subject, trials: Sequence[Trial]) -> list[Any]:
    """The classes of Functions that a call uses."""
    for trial in trials:
        _, outputs, _ = run(subject, trial.case)
        found = {private.forward_class(type(node)): None for node in function_nodes(outputs)}
        if found:
            return list(found)
    return []


def _claims(
    subject: Subject, layer: Layer | Unknown, functions: Sequence[Any], trials: Sequence[Trial]
) -> Iterator[Fault]:
    """torch.func.vmap and forward mode, where all Functions say that they have them."""
    base = torch.autograd.Function
    chosen = [trial for trial in trials if trial.truth.outputs[0].numel() and _is_pure(trial)][-SAMPLE:]
    if all(cls.generate_vmap_rule or cls.vmap is not base.vmap for cls in functions):
        yield from _without_rare_failures(
            [fault for trial in chosen for fault in _vmap(subject, layer, trial)], len(chosen)
        )
    if all(cls.jvp is not base.jvp for cls in functions):
        yield from _without_rare_failures(
            [fault for trial in chosen for fault in _jvp(subject, layer, trial)], len(chosen)
        )


def _is_pure(trial: Trial) -> bool:
    """Whether the layer updates no statistics and its gradient is a derivative, which padding_idx's is not."""
    return all(trial.case.arguments.get(name) is None for name in ("running_mean", "padding_idx"))


def _without_rare_failures(found: Sequence[Fault], count: int) -> Iterator[Fault]:
    """Wrong numbers; failures only where it fails in every case."""
    failures = [fault for fault in found if "fails" in fault.sentence]
    yield from (fault for fault in found if fault not in failures)
    if failures and len(failures) == count:
        yield failures[0]


def _of_tensors(subject: Subject, case: Case) -> Any:
    """The function as one of its tensors alone."""
    names = list(case.tensors)

    def function(*tensors: Tensor) -> tuple[Any, ...]:
        return call(subject, {**case.arguments, **dict(zip(names, tensors, strict=True))})

    return function


def _vmap(subject: Subject, layer: Layer | Unknown, trial: Trial) -> Iterator[Fault]:
    case, tensors = trial.case, [x.detach() for x in trial.truth.tensors.values()]
    gs = tuple(trial.truth.gs)
    several = [torch.stack([x, 0.5 * x, 0.75 * x]) for x in tensors]  # probabilities stay what they are

    def both(*xs: Tensor) -> Any:
        outputs, pull_back = torch.func.vjp(_of_tensors(subject, case), *xs)[:2]
        return outputs, pull_back(gs)

    for in_dims in {
        (0,) * len(tensors),
        *(tuple(0 if i == j else None for j in range(len(tensors))) for i in range(len(tensors))),
    }:
        given = [many if dim == 0 else x for many, x, dim in zip(several, tensors, in_dims, strict=True)]
        try:
            outputs, gradients = torch.func.vmap(both, in_dims=in_dims)(*given)
        except Exception as error:
            yield Fault(
                "vmap",
                "torch.func.vmap fails, though the Function says that it has it.",
                f"{type(error).__name__}: {str(error).splitlines()[0][:200]}",
                case,
            )
            return
        for i in range(3):
            one = [many[i] if dim == 0 else x for many, x, dim in zip(several, tensors, in_dims, strict=True)]
            truth = layer.truth(_with(case, one))
            right = [*truth.outputs, *truth.gradients(truth.outputs, gs).values()]
            if any(not close(y[i], r, trial.tolerance) for y, r in zip([*outputs, *gradients], right, strict=True)):
                yield Fault(
                    "vmap",
                    "Under torch.func.vmap the numbers are wrong.",
                    "What is mapped becomes one more dimension: fold it into the batch in `vmap`, or leave it to "
                    "generate_vmap_rule.",
                    case,
                )
                return


def _with(case: Case, tensors: Sequence[Tensor]) -> Case:
    """The case with other numbers."""
    return Case({**case.arguments, **dict(zip(case.tensors, tensors, strict=True))}, case.cotangent, case.constants)


def _jvp(subject: Subject, layer: Layer | Unknown, trial: Trial) -> Iterator[Fault]:
    tensors = tuple(x.detach() for x in trial.truth.tensors.values())
    generator = torch.Generator().manual_seed(3)
    tangents = tuple(torch.randint(1, 5, x.shape, generator=generator).double() for x in tensors)
    try:
        given = torch.func.jvp(_of_tensors(subject, trial.case), tensors, tangents)[1]
    except Exception as error:
        yield Fault(
            "forward mode",
            "Forward mode fails, though the Function has a jvp.",
            f"{type(error).__name__}: {str(error).splitlines()[0][:200]}",
            trial.case,
        )
        return
    right = trial.truth.tangents(tangents)
    if any(not close(y, r, trial.tolerance) for y, r in zip(given, right, strict=True)):
        yield Fault(
            "forward mode",
            "The tangents of forward mode are wrong.",
            "jvp is the derivative in the direction of the tangents: dy = Σ ∂y/∂x · dx, over all inputs.",
            trial.case,
        )
