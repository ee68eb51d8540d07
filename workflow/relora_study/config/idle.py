"""Which keys of a method change nothing of its training, because another key leaves them without use."""

from .training import Method
from .updates import UPDATES, keys_of_updates

OF_RESTARTS = {"merge", "restart", "scale_reset", "cycle_ranks"}
OF_RESETS = {
    *OF_RESTARTS,
    *("reset_offset", "rewarmup_steps", "moment_reset", "moment_reset_fraction", "moment_mask", "moment_scope"),
}
OF_ADAPTERS = {
    *("alpha", "dropout", "adapter_initialization", "trainable_scale", "adapters_only", "frozen_dtype"),
    *("full_rank_steps", "full_rank_from", *OF_RESTARTS),
}


def idle_keys(method: Method) -> set[str]:
    """The keys of ``method`` with which it trains the same, whatever their value.

    They are: those of adapters without adapters, those of resets without resets, those of clearing where nothing or
    all is cleared, and those of a schedule or an update that is another.
    """
    idle: set[str] = set()
    if not method.rank:
        idle |= OF_ADAPTERS
    if not method.rank and method.is_low_rank:
        idle |= {"reset_period"}
    if method.reset_period is None:
        idle |= OF_RESETS
    if method.moment_reset in ("none", "full"):
        idle |= {"moment_reset_fraction", "moment_mask"} | (
            {"moment_scope"} if method.moment_reset == "none" else set()
        )
    if method.schedule == "linear":
        idle |= {"rewarmup_steps", "minimum_learning_rate_ratio"}
    return idle | (keys_of_updates() - UPDATES[method.update].keys)
