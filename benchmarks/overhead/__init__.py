"""What a step costs with warmopt and with its peers: python -m benchmarks.overhead.

The map, from the top down:
    __main__      the command: measures the cases, writes a record
    report        writes docs/performance.md, and its tables, from records
    measuring     one case, from the first step to its rows
    record        where it ran, what it measured, and the table of it
    cases         models, optimizers, param groups
    contenders    warmopt and its peers, all around one optimizer
    devices       CPU and CUDA: their clocks, and what can be counted on them
    timing        steps timed in pairs, the intervals, and what they show
"""
