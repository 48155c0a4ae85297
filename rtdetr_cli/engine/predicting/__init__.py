"""What only prediction needs: the output of a run on the terminal."""
