"""In how many real repositories does the notebook run in the image? README.md says how they were chosen."""
