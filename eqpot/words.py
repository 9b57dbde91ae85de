"""Numbers as sentences hold them."""


def figures(value: float, digits: int = 3) -> str:
    """Return a number with significant digits, without a power of ten where it is large.

    Examples
    --------
    >>> figures(0.07341), figures(1087.3)
    ('0.0734', '1090')
    """
    text = f"{value:.{digits}g}"
    return f"{float(text):.0f}" if "e+" in text else text


def power(value: float, digits: int = 2) -> str:
    """Return a number, a small one as a power of ten as it is written on paper.

    Examples
    --------
    >>> power(1.32e-9), power(1e-6, 1), power(0.57), power(0.0)
    ('1.3 × 10⁻⁹', '10⁻⁶', '0.57', '0')
    """
    if value == 0.0 or value >= 1e-3:
        return figures(value, digits)
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if mantissa == "1" else f"{mantissa} × 10{raised}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> counted(1, "frame"), counted(0, "error")
    ('1 frame', 'no errors')
    """
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
