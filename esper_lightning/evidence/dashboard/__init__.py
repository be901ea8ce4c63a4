"""How fast mission control and its dashboard are, what they keep, and what they refuse."""
