"""A scheduler that waits for the warmup, also where a framework runs the loop."""

from __future__ import annotations

from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from warmopt.warmed import Warmed

__all__ = ["AfterWarmup"]

DONE = "warmup_was_done"


class AfterWarmup(LRScheduler):
    """Lets a scheduler begin when the warmup is over.

    Until then its `step()` does nothing. So the warmup goes up to the learning rate
    that the schedule begins with. The first update, or epoch, that runs wholly after
    the warmup is at that learning rate. After it, the schedule takes its first step. It
    works with a warmup that ends early too, and waits again after `rewarm()`. (If you
    end a warmup yourself, by `rewarm(0)`, that is seen one update later.)

    Everything else is that of the scheduler: attributes, `get_last_lr`, and the state
    dict, to which one entry is added. So each of the two can load the state of the
    other. Use it in place of the scheduler, also in Lightning and in the Trainer of
    transformers.

    Args:
        scheduler: Any scheduler of torch, for the `Warmed` itself.
        rewarm: Whether to warm up again at each restart of a scheduler such as
            `CosineAnnealingWarmRestarts`. Whenever a step of the scheduler raises a
            learning rate, `rewarm()` is called. So between its restarts the schedule
            must not rise. True takes the length of the last warmup. A number is a
            length in updates, or a ratio of `total_steps`.

    Attributes:
        scheduler: The scheduler that waits.

    Raises:
        TypeError: `scheduler` is not a scheduler, or not one for a `Warmed`. Or
            `rewarm` is of the wrong type.
        ValueError: `rewarm` is not allowed as a length.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(1))
        >>> optimizer = Warmed(torch.optim.SGD([weight], lr=1.0), steps=2)
        >>> halving = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        >>> scheduler = AfterWarmup(halving)
        >>> for _ in range(5):
        ...     optimizer.step()
        ...     print(optimizer.get_last_lr())
        ...     scheduler.step()
        [0.5]
        [1.0]
        [1.0]
        [0.5]
        [0.25]
    """

    # LRScheduler.__init__ is not called: it would make the first step of a schedule.
    def __init__(self, scheduler: LRScheduler, rewarm: bool | float = False) -> None:
        if not isinstance(scheduler, LRScheduler):
            raise TypeError(
                "scheduler must be a scheduler of torch, got "
                f"{type(scheduler).__name__}. Build it first: "
                "AfterWarmup(CosineAnnealingLR(optimizer, 1000))."
            )
        warmed = scheduler.optimizer
        while not isinstance(warmed, Warmed) and hasattr(warmed, "optimizer"):
            warmed = warmed.optimizer  # accelerate and Fabric wrap it
        if not isinstance(warmed, Warmed):
            raise TypeError(
                "scheduler must be one for a Warmed, got one for "
                f"{type(warmed).__name__}. Build it with the Warmed: "
                f"{type(scheduler).__name__}(warmed, ...)."
            )
        self.scheduler, self._warmed = scheduler, warmed
        self._was_done = warmed.done
        self._rewarms, self._length = rewarm is not False, None
        if not isinstance(rewarm, bool):
            self._length = warmed._ramps.schedule.checked_steps("rewarm", rewarm)

    def step(self, *args: Any, **kwargs: Any) -> None:
        """Steps the scheduler if the warmup was done already at the last call."""
        was_done, self._was_done = self._was_done, self._warmed.done
        if not (was_done and self._was_done):
            return
        groups = self._warmed.param_groups
        before = [float(group["lr"]) for group in groups] if self._rewarms else []
        self.scheduler.step(*args, **kwargs)
        # `before` is empty, so nothing is compared, unless it is to warm again.
        if any(group["lr"] > lr for group, lr in zip(groups, before, strict=False)):
            self._warmed.rewarm(self._length)
            self._was_done = self._warmed.done

    def get_last_lr(self) -> list[Any]:
        """The base LRs, as the scheduler gives them."""
        return self.scheduler.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """The state of the scheduler, and whether the warmup was done."""
        return {**self.scheduler.state_dict(), DONE: self._was_done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads its own state, or that of a scheduler that did not wait."""
        state_dict = {**state_dict}
        was_done = state_dict.pop(DONE, self._warmed.done)
        self.scheduler.load_state_dict(state_dict)
        self._was_done = was_done

    def __getattr__(self, name: str) -> Any:
        if name == "scheduler" or name.startswith("__"):  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.scheduler, name)
