"""How the second moment is found in an optimizer, sampled and summed up."""
