"""From an optimizer's state to a reading."""
