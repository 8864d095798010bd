"""The passes, one file each, and the one ordered list of them."""
