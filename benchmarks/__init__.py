"""What warmopt costs, and what it does to the result of a training.

Two programs, each with a map of its own in its `__init__.py`:
    overhead            what a step costs: python -m benchmarks.overhead
    study               what a warmup does to the final loss: python -m benchmarks.study

What both use:
    markdown_tables     writes a table in Markdown
    results/            what both have measured
"""
