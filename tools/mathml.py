"""Formulas as MathML: browsers draw it by themselves, without a script or a font."""

from latex2mathml.converter import convert


def mathml(latex: str, *, block: bool) -> str:
    """A formula of the notebooks, on a line of its own or within one."""
    known = latex.replace(r"\arg\min", r"\mathrm{arg\,min}")  # the one command that latex2mathml doesn't know
    return str(convert(known, display="block" if block else "inline"))
