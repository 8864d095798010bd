"""What the options of pruning become, after a check that they go together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from onnxopt.cli.pruning_options import PruningArguments
from onnxopt.errors import UsageError

if TYPE_CHECKING:
    from onnxopt.optimizer import Options
    from onnxopt.pruning.asked import Job
    from onnxopt.pruning.budget import Budget


def job_of(
    given: PruningArguments,
    rewriting: Options,
    *,
    is_preview: bool = False,
    sweep: tuple[Budget, ...] = (),
) -> Job:
    """What the options ask for.

    Args:
        sweep: the budgets of a sweep, in place of one.

    Raises:
        UsageError: not exactly one budget, or options that do not go together.
    """
    from onnxopt.profiling.document import read_profile
    from onnxopt.pruning.asked import Job
    from onnxopt.pruning.budget import Budget
    from onnxopt.pruning.cache import Cache
    from onnxopt.pruning.plan import read_plan
    from onnxopt.pruning.workers import DEFAULT_WORKERS

    budgets = [Budget.parse(mode, text) for mode, text in _budgets(given) if text is not None]  # type: ignore[arg-type]
    is_time = any(budget.mode == "latency" for budget in (*budgets, *sweep))
    _check_for_others(given, is_time=is_time)
    _check_together(given, rewriting, len(budgets or sweep[:1]), is_preview=is_preview)
    Cache(given.cache)  # before any work, since it may not be writable
    return Job(
        budget=budgets[0] if budgets else None,
        mode=next((budget.mode for budget in (*budgets, *sweep)), "flops"),
        options=_options(given),
        rewriting=rewriting,
        calibration=given.calibration,
        preprocess=given.preprocess,
        samples=1024 if given.samples is None else given.samples,
        augment="none" if given.augment is None else given.augment.value,
        evaluation=given.evaluate,
        metric="top1" if given.metric is None else given.metric,
        max_drop=given.max_drop,
        plan=None if given.plan is None else read_plan(given.plan),
        workers=DEFAULT_WORKERS if given.workers is None else given.workers,
        cache=given.cache,
        profile=None if given.profile is None else read_profile(given.profile),
    )


def _budgets(given: PruningArguments) -> list[tuple[str, str | None]]:
    return [(mode, getattr(given, mode)) for mode in ("flops", "params", "memory", "latency")]


def _options(given: PruningArguments) -> Any:
    from onnxopt.profiling.machine import channel_block
    from onnxopt.pruning.options import PruneOptions

    chosen: dict[str, Any] = {
        "criterion": given.criterion and given.criterion.value,
        "strategy": given.strategy and given.strategy.value,
        "blocks": given.blocks and given.blocks.value,
        "reads": given.reads and given.reads.value,
        "compensation": given.compensation and given.compensation.value,
        "multiple_of": given.multiple_of,
        "max_per_group": given.max_per_group,
        "min_channels": given.min_channels,
        "seed": given.seed,
    }
    named = {name: value for name, value in chosen.items() if value is not None}
    if given.multiple_of is None:
        named.update(multiple_of=channel_block(), relaxed=True)
    return PruneOptions(**named, ignore=tuple(given.ignore or ()), prove=given.prove)


DECIDED_BY_A_PLAN = (
    "flops",
    "params",
    "memory",
    "latency",
    "profile",
    "samples",
    "augment",
    "seed",
    "criterion",
    "strategy",
    "blocks",
    "reads",
    "compensation",
) + ("multiple_of", "ignore", "max_per_group", "min_channels", "max_drop", "save_plan")


NOT_IN_A_PLAN = ("rules_dirs", "skip", "only", "input_layouts")
"""Options of rewriting that plans do not hold, so that replaying would give other bytes."""

JUDGED_OF_A_CUT = ("evaluate", "metric", "max_drop", "prove", "save_plan", "plan")
"""Options that a dry run, which cuts nothing, has no use for."""


def _check_together(
    given: PruningArguments, rewriting: Options, budgets: int, *, is_preview: bool
) -> None:
    named = "--flops, --params, --memory and --latency"
    if budgets > 1:
        raise UsageError("there is more than one budget", f"give one of {named}")
    if is_preview:
        for name in JUDGED_OF_A_CUT:
            if getattr(given, name) not in (None, False):
                raise UsageError(
                    f"a dry run cuts nothing, so {spelled(name)} has nothing to do",
                    f"leave out {spelled(name)} or --dry-run",
                )
        return
    if given.plan is not None:
        _check_beside_plan(given, rewriting)
    elif budgets == 0 and given.max_drop is None:
        raise UsageError("there is no budget", f"give one of {named}, such as --flops 0.5")
    if given.save_plan is not None:
        for name in NOT_IN_A_PLAN:
            if getattr(rewriting, name):
                raise UsageError(
                    f"a plan does not hold {spelled(name)}, so it leads elsewhere",
                    f"leave out --save-plan or {spelled(name)}",
                )
    if given.max_drop is not None:
        if given.evaluate is None:
            raise UsageError("--max-drop needs labelled samples", "give --eval FILE.npz")
        if not 0 <= given.max_drop < math.inf:
            raise UsageError(f"a drop of {given.max_drop:g} makes no sense", "give 0 or more")
    if given.metric is not None and given.evaluate is None:
        raise UsageError("--metric needs labelled samples", "give --eval FILE.npz")


def _check_for_others(given: PruningArguments, *, is_time: bool) -> None:
    """Refuse options that say something of others that are not given.

    Args:
        is_time: a budget is one of time.
    """
    if given.samples is not None and given.calibration is None:
        raise UsageError(
            "--samples says how many are taken, and there are none", "give --calibration"
        )
    if given.augment is not None and given.calibration is None:
        raise UsageError(
            "--augment makes more of calibration samples, and there are none", "give --calibration"
        )
    if given.profile is not None and not is_time and given.plan is None:
        raise UsageError(
            "--profile says how long layers take, and no budget is one of time",
            "give --latency, such as --latency 0.7",
        )


def _check_beside_plan(given: PruningArguments, rewriting: Options) -> None:
    decided = [name for name in DECIDED_BY_A_PLAN if getattr(given, name) not in (None, [])]
    beside = ("set_shapes", "freeze_inputs", *NOT_IN_A_PLAN)
    for name in (*decided, *(name for name in beside if getattr(rewriting, name))):
        raise UsageError(f"{spelled(name)} is decided by the plan already", "leave it out")


def spelled(name: str) -> str:
    """The option of this name, as it is written."""
    other = {"evaluate": "eval", "set_shapes": "set-shape", "input_layouts": "input-layout"}
    other["rules_dirs"] = "rules"
    return f"--{other.get(name, name).replace('_', '-')}"
