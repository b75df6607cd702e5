"""Classes that build an optimizer and wrap it, for code that takes a class.

Such a class has the optimizer's name and signature, and is a subclass of the wrapper,
since frameworks check that. But what it builds is a plain wrapper. So nothing that is
saved or copied needs the class.
"""

from __future__ import annotations

import copyreg
import inspect
from typing import Any

from warmopt._words import check_names

__all__ = ["factory"]


class Factory(type):
    """The type of those classes: they can be pickled, and show how they were made."""

    made_of: tuple[Any, Any, tuple[Any, ...], dict[str, Any]]

    def __repr__(cls) -> str:
        wrapper, optimizer, args, kwargs = cls.made_of
        given = [repr(each) for each in (optimizer, *args)]
        given += [f"{key}={value!r}" for key, value in kwargs.items()]
        return f"{wrapper.__name__}.of({', '.join(given)})"

    def __call__(cls, *own: Any, **options: Any) -> Any:
        wrapper, optimizer, args, kwargs = cls.made_of
        return wrapper(optimizer(*own, **options), *args, **kwargs)


# Else pickle would look for the class by its name.
copyreg.pickle(Factory, lambda cls: (factory, cls.made_of))


def factory(
    wrapper: Any, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Returns the class. See `Warmed.of`."""
    if not callable(optimizer):
        raise TypeError(
            "optimizer must be a class, or a function that returns an optimizer, got "
            f"an object of {type(optimizer).__name__}. Wrap that object by "
            f"{wrapper.__name__}(optimizer, steps=1000)."
        )
    signature = inspect.signature(wrapper)
    check_names(kwargs, list(signature.parameters))
    signature.bind(optimizer, *args, **kwargs)
    content = {
        "made_of": (wrapper, optimizer, args, kwargs),
        "__doc__": optimizer.__doc__,
        "__module__": wrapper.__module__,
        "__signature__": inspect.signature(optimizer),
    }
    if isinstance(optimizer, type):
        # It is never called: it is what readers of configs, as LightningCLI, look at.
        content["__init__"] = getattr(optimizer, "__init__")  # noqa: B009
    name = getattr(optimizer, "__name__", wrapper.__name__)  # a partial has none
    return Factory(name, (wrapper,), content)
