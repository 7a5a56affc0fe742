"""Differences that are meant, and that the documentation says: no findings of `fuzz_configs.py`."""


def reason(variant, verdict, answer):
    """Why a variant may come out otherwise here, or None."""
    return None
