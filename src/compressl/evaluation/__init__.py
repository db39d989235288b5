"""What a representation keeps, measured: each file applies a group of ``compressl.measures`` to an encoder and data."""
