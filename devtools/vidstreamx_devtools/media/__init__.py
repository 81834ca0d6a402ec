"""Support for the media tests: which files to transcode, the verdict on each, and which streams to play."""
