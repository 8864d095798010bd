"""What a user should know of a plan beside its figures, in sentences."""

from __future__ import annotations

from collections.abc import Mapping

from onnxopt.splitting.codings import Machines
from onnxopt.splitting.enumeration import Cuts
from onnxopt.splitting.plan_file import PlannedCut


def notes_on(
    cuts: Cuts, machines: Machines, raw_bytes: Mapping[str, int], chosen: PlannedCut
) -> tuple[str, ...]:
    """What was assumed, and what was not measured."""
    notes = []
    for side, speeds in (("device", machines.device), ("edge", machines.edge)):
        profile = speeds.profile
        if speeds.factor != 1:
            notes.append(
                f"the {side} is taken to need {speeds.factor:.3g} times as long as was measured on "
                f"{profile.machine.processor}; this was not measured"
            )
        other = machines.device.profile if side == "edge" else None
        if not profile.noise.trusted and profile is not other and profile != other:
            notes.append(f"the profile of the {side} is noisy: {profile.noise.why}")
    if not cuts.is_complete:
        left = sum(not block.is_complete for block in cuts.blocks)
        notes.append(
            f"{left} parts of the model have more than {cuts.most:,} cuts each; there the best "
            "ones were found by minimum cuts over sums of kernels, and not among all there are"
        )
    if cuts.dag.stuck:
        names = "; ".join(f"'{tensor.name}': {tensor.why_not}" for tensor in cuts.dag.stuck)
        notes.append(
            f"the device makes what the edge could not send back, with all that it needs: {names}"
        )
    if not chosen.measured:
        notes.append(
            "the chosen cut was not measured: its times lie between measured ones; measure it with "
            "onnxopt split profile MODEL --plan PLAN.json on both machines, and plan again"
        )
    if raw_bytes:
        names = ", ".join(f"'{name}'" for name in raw_bytes)
        notes.append(f"{names} is sent in a smaller form, and the edge must make the input of it")
    return tuple(notes)
