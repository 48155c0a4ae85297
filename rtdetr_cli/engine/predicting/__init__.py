"""What only prediction needs: tracking, the calls of Python, the output on the terminal."""
