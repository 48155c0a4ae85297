"""The loss: Hungarian matching, three terms, and their sum over all prediction sets."""
