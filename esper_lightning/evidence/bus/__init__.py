"""What the message bus costs, how fast it is, and what is left of it when its server fails."""
