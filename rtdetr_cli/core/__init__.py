"""What every room may use: errors, results, images, files, downloads, console, distributed."""
