"""The command line: options in, words out. What the commands see and do is in `operate`."""
