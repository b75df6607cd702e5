"""Other ways to run a step: `torch.compile`, CUDA graphs, a GPU."""
