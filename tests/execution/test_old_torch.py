"""What is done where a release of torch lacks a private name: see `warmopt._torch`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from warmopt import _torch


def test_without_its_function_the_compiler_is_taken_out_and_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = ["compiler"]

    def set_eval_frame(new: object) -> object:
        now.append(new)  # type: ignore[arg-type]
        return now[-2]

    frames = SimpleNamespace(set_eval_frame=set_eval_frame)
    monkeypatch.setattr(_torch, "eval_frame", frames)
    assert _torch._callback_getter()() == "compiler"
    assert now == ["compiler", None, "compiler"]
    monkeypatch.setattr(_torch, "eval_frame", SimpleNamespace())
    assert _torch._callback_getter()() is None


def test_a_dynamo_that_cannot_be_told_is_warned_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torch._dynamo import trace_rules

    monkeypatch.delattr(trace_rules, "add")
    with pytest.warns(UserWarning, match="Do not compile a function that calls step"):
        _torch.skip_in_dynamo("warmopt")


def test_without_foreach_tensors_are_copied_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(torch, "_foreach_copy_")
    to, from_ = [torch.zeros(2), torch.zeros(1)], [torch.ones(2), torch.ones(1)]
    _torch.copy_all(to, from_)
    assert torch.equal(to[0], from_[0])
    assert torch.equal(to[1], from_[1])
