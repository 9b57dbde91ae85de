"""Settings of the documentation. Build it with ``sphinx-build -W -b html docs docs/_build``."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
sys.path.insert(0, str(HERE.parent))

import eqpot  # noqa: E402

project = "eqpot"
author = "The eqpot developers"
copyright = "The eqpot developers"
version = release = eqpot.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
    "recipe_reference",
]
html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"eqpot {release}"
exclude_patterns = ["_build", "_ext"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "exclude-members": "model_config",
}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
napoleon_google_docstring = False
napoleon_attr_annotations = False  # types stand in the signature
napoleon_use_ivar = True  # fields of dataclasses are described once, in the class

# attributes of several classes share a name (n_atoms); autodoc takes their types for references
suppress_warnings = ["ref.python"]
