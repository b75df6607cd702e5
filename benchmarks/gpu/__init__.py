"""Everything that needs a GPU, in one command: python -m benchmarks.gpu.

It is made for a machine that is at hand for minutes only, and has no network: Python,
torch, numpy and pytest are enough. What else is there, such as peers, is measured too.

The map, from the top down:
    __main__      the command: runs the stages, or writes the pages
    report        the parts of the pages, from the newest record:
    performance works losses
                  what each says
    sections      the parts of a record
    words         what a record says, in plain words
    conductor     each stage in a process of its own, with a share of the time
    stages        the stages, in order of worth
    stage         the process of one stage

The stages. Each has a function `rows`, which yields one row for each thing that it
looked at:
    machine       the machine and the versions
    cuda_tests    all tests that are marked `cuda`
    capture       every mode in a CUDA graph, replayed through the end of the warmup
    amp           fused steps in float16 with a GradScaler that meets infinities
    syncs         steps of every mode while torch forbids to wait for the device
    kernels       what a step launches with a warmup and without
    overhead      what a step costs, against every peer that is there
    compiling     `torch.compile`: how often a warmup compiles again
    ranks         DDP and FSDP2 on NCCL, with one rank
    study         transformers of 11 million parameters, trained with some warmups

What stages use:
    charlm        the transformer of the study, and its text
    trainings     a small model, its twin without a warmup, and every mode
    rows          rows, and where a stage runs
    record        the file: written again after each stage, found and read for the pages
"""
