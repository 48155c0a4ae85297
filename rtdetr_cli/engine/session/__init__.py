"""What calls share: the states that callbacks receive, and what val and train remember."""
