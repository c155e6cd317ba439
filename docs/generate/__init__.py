"""Writes from the code what would grow old by hand: the reference, the tables and the plots."""
