"""A bundle from its source directory to the file that ships, and back: packing, checking, signing, describing."""
