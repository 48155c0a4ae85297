"""What `rtdetr train` needs beside the loop."""
