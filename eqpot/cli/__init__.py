"""Commands, a thin file each: parse, call one function, print."""
