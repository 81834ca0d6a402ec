"""What a stream has to be like, one subject per module: each compares a source with what was made of it."""
