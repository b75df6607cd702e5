"""What warmopt costs, measured: python -m benchmarks.overhead.

The map, from the top down:
    overhead      the command: measures the cases, writes a record
    record        where it ran, what it measured, and the table of it
    cases         models, optimizers, param groups
    contenders    warmopt and its peers, all around one optimizer
    devices       CPU and CUDA: their clocks, what can be counted on them
    timing        blocks in pairs, intervals, and what may be said of them
    report        docs/performance.md, from records
    markdown      tables

What an adaptive warmup does to the final loss: python -m benchmarks.study.
"""
