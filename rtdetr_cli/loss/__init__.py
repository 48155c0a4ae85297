"""The loss: Hungarian matching, its terms, and their sum over all prediction sets."""
