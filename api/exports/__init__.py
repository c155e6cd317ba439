"""Exports of adapter versions: created here, made by a job, downloaded until they are deleted."""
