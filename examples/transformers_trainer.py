# %% [markdown]
"""# The Trainer of transformers: it builds the optimizer, and logs what it used.

The Trainer wants a class, and builds the optimizer itself, with a param group that has
weight decay and one that has none. `Warmed.of` makes such a class. The Trainer logs the
base learning rate; `EffectiveLRCallback` adds the effective one to each log. The warmup
of the Trainer's own scheduler stays off.

The model is a tiny GPT-2 with random weights, on the characters of Python's help
topics.

To install: `pip install '.[transformers]'` in a clone of warmopt, and
`pip install accelerate`.
"""

# %%
from pydoc_data.topics import topics

import torch
from torch.optim import AdamW
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from warmopt import Warmed
from warmopt.transformers import EffectiveLRCallback

CONTEXT = 64

text = "".join(topics[name] for name in sorted(topics))
letters = {letter: number for number, letter in enumerate(sorted(set(text)))}
tokens = torch.tensor([letters[letter] for letter in text[: 1000 * CONTEXT]])
data = [{"input_ids": row, "labels": row} for row in tokens.view(-1, CONTEXT)]

# %%
set_seed(0)
config = GPT2Config(
    vocab_size=len(letters),
    n_positions=CONTEXT,
    n_embd=64,
    n_layer=2,
    n_head=4,
    bos_token_id=None,
    eos_token_id=None,
)
arguments = TrainingArguments(
    "trainer",
    max_steps=50,
    per_device_train_batch_size=16,
    weight_decay=0.1,
    lr_scheduler_type="cosine",
    logging_steps=5,
    save_strategy="no",
    report_to="none",
    disable_tqdm=True,
    use_cpu=True,
    dataloader_pin_memory=False,
)
trainer = Trainer(
    GPT2LMHeadModel(config),
    arguments,
    train_dataset=data,
    optimizer_cls_and_kwargs=(Warmed.of(AdamW, steps=20), {"lr": 3e-3}),
    callbacks=[EffectiveLRCallback()],
)
trainer.remove_callback(PrinterCallback)  # the last cell prints
trainer.train()

# %% [markdown]
# The history has both learning rates, and so has every logger that comes after the
# callback.

# %%
for log in trainer.state.log_history:
    if "loss" in log:
        print(
            f"update {log['step']}: base LR {log['learning_rate']:.5f}, effective LR "
            f"{log['effective_learning_rate']:.5f}, loss {log['loss']:.2f}"
        )
