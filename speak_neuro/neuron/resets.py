"""Reset modes: what a spike does to the potential when the gate is open, and when it is closed.

    v_t = u_t                                          s_t = 0
        = open action of (u_t, reset_potential, soft)  s_t = 1, m_t = [e_t > 0] = 1
        = closed action of the same                    s_t = 1, m_t = 0

Actions:

    hard    reset_potential
    soft    u - soft          soft = reset_scale * threshold, rounded to float32 once
    none    u

A mode is an entry of `RESETS`. A mode whose two actions are the same does not read the gate. The reference and the
backend `loop` compute every mode. Compiled kernels, tables, NIR nodes and Lava processes compute what
`compiled_reset` gives: a hard reset, or a subtraction. Other modes are refused there, by name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

Potential = Any
"""An array of numpy or a tensor of torch; an action uses operators and methods that both have."""


class Action(NamedTuple):
    """What a spike does to the potential."""

    after: Callable[[Potential, Potential, Potential], Potential]
    """(u, reset_potential, soft) -> v."""
    change: Callable[[Potential, Potential, Potential], Potential] | None = None
    """(u, reset_potential, soft) -> v - u, what the surrogate's gradient of a spike is multiplied with; None: as said.
    The actions below write it without the rounding of that difference."""


HARD = Action(lambda u, reset, soft: reset, lambda u, reset, soft: reset - u)
SOFT = Action(lambda u, reset, soft: u - soft, lambda u, reset, soft: -soft)
NONE = Action(lambda u, reset, soft: u, lambda u, reset, soft: 0 * soft)


class Reset(NamedTuple):
    """A reset mode."""

    open: Action
    """With the gate open, e > 0."""
    closed: Action

    @property
    def reads_gate(self) -> bool:
        """Whether the gate decides anything."""
        return self.open is not self.closed

    @property
    def subtracts(self) -> bool:
        """Whether `soft` is reset_scale * threshold; in the modes with `none` instead of `soft` it is 0."""
        return self.closed is not NONE or self.open not in (HARD, NONE)


RESETS: dict[str, Reset] = {
    "gated": Reset(HARD, SOFT),  # SPEAK
    "hard": Reset(HARD, HARD),
    "soft": Reset(SOFT, SOFT),
    "none": Reset(NONE, NONE),
    "hard/none": Reset(HARD, NONE),
}


class CompiledReset(NamedTuple):
    """A mode as kernels, tables and graphs have it: a hard reset, or `soft` subtracted, which may be 0."""

    gate_rule: bool | None
    """None: the gate logit decides; True: always the hard reset; False: never."""
    soft: bool
    """Whether the subtraction takes reset_scale * threshold; else it takes 0."""


def check_mode(mode: str) -> None:
    """Refuse what is no reset mode."""
    if mode not in RESETS:
        raise ValueError(f"mode is {mode!r}; allowed: {', '.join(RESETS)}")


@functools.cache
def _compiled(reset: Reset) -> CompiledReset | None:
    opened, closed = reset
    if opened not in (HARD, closed) or closed not in (HARD, SOFT, NONE):
        return None
    return CompiledReset(None if reset.reads_gate else opened is HARD, reset.subtracts)


def why_not_compiled(mode: str) -> str | None:
    """Why only the reference and the backend loop compute `mode`; None where everything does."""
    if _compiled(RESETS[mode]) is not None:
        return None
    return (
        f"reset mode {mode!r} does more than kernels, tables, NIR and Lava have: a hard reset with the gate open, and "
        "with it closed the same or a subtraction; it runs with backend 'loop' and in the numpy reference"
    )


def compiled_reset(mode: str) -> CompiledReset:
    """`mode` in numbers, or a ValueError that says why not."""
    check_mode(mode)
    found = _compiled(RESETS[mode])
    if found is None:
        raise ValueError(why_not_compiled(mode))
    return found
